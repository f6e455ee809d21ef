/** One TCP connection of the raw initiator: bytes out in any pieces, PDUs in one by one. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { digestOf } from './crc32c.js';
import { encode, Pdu, type EncodeOptions } from './pdu.js';
import { WireRules } from './wire.js';

/** How long a target may think before a test calls it silent. */
export const PATIENCE_MS = 5000;

export class Connection {
  readonly socket: Socket;
  readonly rules = new WireRules();
  headerDigest = false;
  dataDigest = false;
  /** What this side declared: a longer data segment is a violation (RFC 7143 §13.12). */
  maxRecvDataSegmentBytes = 8192;
  /** How long to wait where a call does not say it. */
  patienceMs = PATIENCE_MS;
  #bytes: Buffer = Buffer.alloc(0);
  #ended = false;

  static async open(host: string, port: number, localAddress?: string): Promise<Connection> {
    const socket = connect({
      host,
      port,
      noDelay: true,
      ...(localAddress === undefined ? {} : { localAddress }),
    });
    await once(socket, 'connect');
    return new Connection(socket);
  }

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
      socket.emit('progress');
    });
    // A reset by the target is an answer that tests look for, not an accident.
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#ended = true;
      socket.emit('progress');
    });
  }

  /** Violations of the rules that hold for every PDU, since the connection was opened. */
  get violations(): readonly string[] {
    return this.rules.violations;
  }

  /** Sends one PDU with the digests that are in force. */
  send(pdu: Pdu, options: EncodeOptions = {}): void {
    this.write(encode(pdu, { headerDigest: this.headerDigest, dataDigest: this.dataDigest, ...options }));
  }

  write(bytes: Buffer): void {
    if (!this.socket.destroyed) this.socket.write(bytes);
  }

  /** Sends the bytes in pieces, each as a segment of its own, cut at the given positions. */
  async writeSplit(bytes: Buffer, cuts: readonly number[]): Promise<void> {
    let from = 0;
    for (const end of [...cuts, bytes.length]) {
      const piece = bytes.subarray(from, end);
      await new Promise<void>((resolve) => this.socket.write(piece, () => resolve()));
      // The next turn of the event loop, so that the kernel hands the pieces over one by one.
      await new Promise((resolve) => setImmediate(resolve));
      from = end;
    }
  }

  /** The next PDU; undefined once the target has closed. Throws if neither comes in time. */
  async receive(patienceMs: number = this.patienceMs): Promise<Pdu | undefined> {
    const deadline = Date.now() + patienceMs;
    for (;;) {
      const pdu = this.#parse();
      if (pdu !== undefined) {
        this.rules.check(pdu);
        return pdu;
      }
      if (this.#ended) return undefined;
      const leftMs = deadline - Date.now();
      if (leftMs <= 0)
        throw new Error(`the target sent nothing and kept the connection for ${patienceMs} ms`);
      await this.#progress(leftMs);
    }
  }

  /** Reads on until the target closes; returns what it sent before. Throws if it doesn't in time. */
  async untilClosed(patienceMs: number = this.patienceMs): Promise<Pdu[]> {
    const pdus: Pdu[] = [];
    const deadline = Date.now() + patienceMs;
    for (;;) {
      const pdu = await this.receive(Math.max(1, deadline - Date.now()));
      if (pdu === undefined) return pdus;
      pdus.push(pdu);
    }
  }

  /** Drops the connection without a word. */
  destroy(): void {
    this.socket.destroy();
  }

  #progress(patienceMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.socket.emit('progress'), patienceMs);
      this.socket.once('progress', () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #parse(): Pdu | undefined {
    const bytes = this.#bytes;
    if (bytes.length < 48) return undefined;
    const headerLength = 48 + bytes.readUInt8(4) * 4;
    const dataLength = bytes.readUIntBE(5, 3);
    const paddedLength = (dataLength + 3) & ~3;
    const dataStart = headerLength + (this.headerDigest ? 4 : 0);
    const end = dataStart + paddedLength + (this.dataDigest && dataLength > 0 ? 4 : 0);
    if (bytes.length < end) return undefined;
    this.#bytes = bytes.subarray(end);

    const header = bytes.subarray(0, headerLength);
    const data = bytes.subarray(dataStart, dataStart + dataLength);
    const padding = bytes.subarray(dataStart + dataLength, dataStart + paddedLength);
    const { violations } = this.rules;
    if (this.headerDigest && !digestOf(header).equals(bytes.subarray(headerLength, headerLength + 4))) {
      violations.push('wrong header digest (§13.1)');
    }
    if (this.dataDigest && dataLength > 0 && !digestOf(data, padding).equals(bytes.subarray(end - 4, end))) {
      violations.push('wrong data digest (§13.1)');
    }
    if (padding.some((byte) => byte !== 0)) violations.push('padding is not zero (§11.1)');
    if (dataLength > this.maxRecvDataSegmentBytes) {
      violations.push(`data segment of ${dataLength} bytes over ${this.maxRecvDataSegmentBytes} (§13.12)`);
    }
    return new Pdu(Buffer.from(header.subarray(0, 48)), Buffer.from(header.subarray(48)), Buffer.from(data));
  }
}
