/**
 * A network that damages iSCSI: hands PDUs on both ways, and now and then drops one whole, flips a bit of its header or its
 * data, or cuts the connection. It reads the lengths of PDUs and nothing else; digests begin after the login.
 */
import { once } from 'node:events';
import net from 'node:net';
import type { AddressInfo } from 'node:net';
import { randomFrom } from '../rfc7143/fuzz.js';
import { tie } from '../support/relay.js';

export interface Faults {
  /** Of so many PDUs one has a fault. */
  every: number;
  /** Of so many faults one cuts the connection; 0: none does. */
  cutEvery: number;
  /** Whether bits of the lengths may flip, behind which nobody can find the next PDU. */
  lengths: boolean;
}

export interface Counts {
  pdus: number;
  dropped: number;
  headers: number;
  data: number;
  cuts: number;
}

const LOGIN_RESPONSE = 0x23;
const DIGEST_BYTES = 4;

export class LossyProxy {
  readonly counts: Counts = { pdus: 0, dropped: 0, headers: 0, data: 0, cuts: 0 };
  readonly #to: number;
  readonly #faults: Faults;
  readonly #random: (end: number) => number;
  readonly #server = net.createServer((client) => this.#join(client));
  readonly #sockets = new Set<net.Socket>();
  /** No more faults, so that the end can be looked at. */
  quiet = false;

  constructor(to: number, faults: Faults, seed: number) {
    this.#to = to;
    this.#faults = faults;
    this.#random = randomFrom(seed);
  }

  async start(): Promise<number> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return (this.#server.address() as AddressInfo).port;
  }

  stop(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }

  #join(client: net.Socket): void {
    const target = net.connect({ port: this.#to, host: '127.0.0.1', noDelay: true });
    client.setNoDelay(true);
    const digests = { on: false };
    this.#sockets.add(client).add(target);
    tie([client, target], (socket) => this.#sockets.delete(socket));
    this.#pass(client, target, digests);
    this.#pass(target, client, digests);
  }

  #pass(from: net.Socket, to: net.Socket, digests: { on: boolean }): void {
    let bytes: Buffer = Buffer.alloc(0);
    from.on('data', (chunk: Buffer) => {
      bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk]);
      const out: Buffer[] = [];
      for (;;) {
        if (bytes.length < 48) break;
        const headerBytes = 48 + bytes.readUInt8(4) * 4 + (digests.on ? DIGEST_BYTES : 0);
        const dataBytes = bytes.readUIntBE(5, 3);
        const dataDigest = digests.on && dataBytes > 0 ? DIGEST_BYTES : 0;
        const total = headerBytes + ((dataBytes + 3) & ~3) + dataDigest;
        if (bytes.length < total) break;
        const pdu = bytes.subarray(0, total);
        bytes = bytes.subarray(total);
        const passed = digests.on ? this.#meddle(pdu, headerBytes, from) : pdu;
        if ((pdu.readUInt8(0) & 0x3f) === LOGIN_RESPONSE && isLast(pdu)) digests.on = true;
        if (passed !== undefined) out.push(passed);
      }
      if (out.length > 0) to.write(Buffer.concat(out));
    });
  }

  /** The PDU as it goes on; undefined: it doesn't. */
  #meddle(pdu: Buffer, headerBytes: number, from: net.Socket): Buffer | undefined {
    const { counts } = this;
    counts.pdus++;
    const { every, cutEvery, lengths } = this.#faults;
    const random = this.#random;
    if (this.quiet || random(every) !== 0) return pdu;
    if (cutEvery > 0 && random(cutEvery) === 0) {
      counts.cuts++;
      from.destroy();
      return undefined;
    }
    const kind = random(3);
    if (kind === 0) {
      counts.dropped++;
      return undefined;
    }
    const inData = kind === 1 && pdu.length > headerBytes;
    if (inData) counts.data++;
    else counts.headers++;
    let at = inData ? headerBytes + random(pdu.length - headerBytes) : random(headerBytes);
    if (!inData && !lengths && at >= 4 && at < 8) at += 4;
    const damaged = Buffer.from(pdu);
    damaged.writeUInt8(damaged.readUInt8(at) ^ (1 << random(8)), at);
    return damaged;
  }
}

/** The response that ends the login: status 0, T, and full feature phase next (RFC 7143 §11.13). */
const isLast = (pdu: Buffer): boolean => pdu.readUInt16BE(36) === 0 && (pdu.readUInt8(1) & 0x83) === 0x83;
