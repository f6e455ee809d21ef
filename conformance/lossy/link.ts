/**
 * One connection of an initiator that recovers (RFC 7143 §7): PDUs whose digests are wrong are dropped, gaps in StatSN are
 * found and asked for, and a status is acknowledged when everything that belongs to its task is here.
 */
import { once } from 'node:events';
import net from 'node:net';
import { digestOf } from '../rfc7143/crc32c.js';
import { decodeKeys, encodeKeys } from '../rfc7143/keys.js';
import { encode, loginRequest, NO_TAG, OP, Pdu, SNACK, snack, STAGE } from '../rfc7143/pdu.js';

export interface LinkLogin {
  port: number;
  targetName: string;
  isid: Buffer;
  tsih: number;
  cid: number;
  cmdSN: number;
  keys: Record<string, string>;
}

const after = (a: number, b: number): boolean => a !== b && (a - b) >>> 0 < 0x80000000;

export class Link {
  readonly cid: number;
  readonly #socket: net.Socket;
  #bytes: Buffer = Buffer.alloc(0);
  #digests = false;
  tsih = 0;
  dead = false;
  /** Next StatSN that is not acknowledged, and the one behind the last that the target is known to have sent. */
  expStatSN = 0;
  #sentStatSN = 0;
  /** Statuses that came, by StatSN: true once they may be acknowledged. */
  readonly #statuses = new Map<number, boolean>();
  #askedMs = 0;
  onPdu: ((pdu: Pdu) => void) | undefined;
  onDead: (() => void) | undefined;
  readonly counts = { badHeaders: 0, badData: 0, statusSnacks: 0 };

  private constructor(cid: number, socket: net.Socket) {
    this.cid = cid;
    this.#socket = socket;
  }

  static async open(login: LinkLogin): Promise<Link> {
    const socket = net.connect({ port: login.port, host: '127.0.0.1', noDelay: true });
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    const link = new Link(login.cid, socket);
    await link.#login(login);
    return link;
  }

  async #login({ isid, tsih, cid, cmdSN, targetName, keys }: LinkLogin): Promise<void> {
    const answer = new Promise<Pdu>((resolve, reject) => {
      this.onPdu = resolve;
      this.onDead = () => reject(new Error('the connection ended in its login'));
    });
    this.#socket.on('data', (chunk: Buffer) => {
      this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
      this.#parse();
    });
    this.#socket.on('close', () => this.die());
    const data = encodeKeys({
      InitiatorName: 'iqn.2026-01.org.example:recovering',
      SessionType: 'Normal',
      TargetName: targetName,
      ...keys,
    });
    const fields = { transit: true, csg: STAGE.OPERATIONAL, nsg: STAGE.FULL_FEATURE };
    this.#socket.write(encode(loginRequest({ ...fields, isid, tsih, cid, cmdSN, data })));
    const pdu = await answer;
    if (pdu.loginStatus !== 0 || pdu.nsg !== STAGE.FULL_FEATURE)
      throw new Error(`login: ${pdu.loginStatus.toString(16)}h`);
    const agreed = new Map(decodeKeys(pdu.data));
    for (const [key, value] of Object.entries(keys))
      if (key === 'ErrorRecoveryLevel' && tsih === 0 && agreed.get(key) !== value)
        throw new Error(`${key}=${agreed.get(key)}`);
    this.tsih = pdu.tsih;
    this.expStatSN = this.#sentStatSN = (pdu.statSN + 1) >>> 0;
    this.#digests = true;
  }

  send(pdu: Pdu): void {
    if (this.dead) return;
    pdu.u32(28, this.expStatSN);
    this.#socket.write(encode(pdu, { headerDigest: true, dataDigest: true }));
  }

  die(): void {
    if (this.dead) return;
    this.dead = true;
    this.#socket.destroy();
    this.onDead?.();
  }

  /** Holds writes together for as long as `action` runs. */
  batch(action: () => void): void {
    this.#socket.cork();
    action();
    this.#socket.uncork();
  }

  #parse(): void {
    for (;;) {
      const bytes = this.#bytes;
      if (this.dead || bytes.length < 48) return;
      const header = 48 + bytes.readUInt8(4) * 4;
      const dataBytes = bytes.readUIntBE(5, 3);
      const padded = (dataBytes + 3) & ~3;
      const digest = this.#digests ? 4 : 0;
      const dataAt = header + digest;
      const end = dataAt + padded + (dataBytes > 0 ? digest : 0);
      if (!this.#digests) {
        if (bytes.length < end) return;
      } else {
        if (bytes.length < dataAt) return;
        if (!rightDigest(bytes, 0, header)) {
          const next = nextHeader(bytes);
          if (next === 'lost') this.die();
          if (typeof next !== 'number') return;
          this.counts.badHeaders++;
          this.#bytes = bytes.subarray(next);
          continue;
        }
        if (bytes.length < end) return;
      }
      this.#bytes = bytes.subarray(end);
      if (digest > 0 && dataBytes > 0 && !rightDigest(bytes, dataAt, padded)) {
        this.counts.badData++;
        continue;
      }
      const data = bytes.subarray(dataAt, dataAt + dataBytes);
      this.#take(new Pdu(Buffer.from(bytes.subarray(0, 48)), undefined, Buffer.from(data)));
    }
  }

  #take(pdu: Pdu): void {
    if (this.#digests && pdu.opcode !== OP.DATA_IN) {
      const numbered = pdu.opcode !== OP.R2T && !(pdu.opcode === OP.NOP_IN && pdu.itt === NO_TAG);
      const sent = (pdu.statSN + (numbered ? 1 : 0)) >>> 0;
      if (after(sent, this.#sentStatSN)) this.#sentStatSN = sent;
      if (numbered) {
        // Sent again, and had already.
        if (after(this.expStatSN, pdu.statSN)) return;
        if (!this.#statuses.has(pdu.statSN)) this.#statuses.set(pdu.statSN, false);
      }
    }
    this.onPdu?.(pdu);
  }

  /** The task of this status has all that belongs to it. */
  finished(statSN: number): void {
    this.#statuses.set(statSN, true);
    while (this.#statuses.get(this.expStatSN) === true) {
      this.#statuses.delete(this.expStatSN);
      this.expStatSN = (this.expStatSN + 1) >>> 0;
    }
  }

  /** Asks for statuses that were sent and did not come. */
  askForStatuses(nowMs: number): void {
    if (this.dead || nowMs - this.#askedMs < 100) return;
    let begin: number | undefined;
    let run = 0;
    for (let statSN = this.expStatSN; statSN !== this.#sentStatSN; statSN = (statSN + 1) >>> 0) {
      if (!this.#statuses.has(statSN)) {
        begin ??= statSN;
        run++;
      } else if (begin !== undefined) break;
    }
    if (begin === undefined) return;
    this.#askedMs = nowMs;
    this.counts.statusSnacks++;
    this.send(snack({ type: SNACK.STATUS, itt: NO_TAG, expStatSN: 0, begin, run }));
  }
}

/** Damaged headers in a row that are passed. */
const DAMAGED_MAX = 8;

/** As the target does it: the lengths of a damaged header count if a right header stands where they lead. */
function nextHeader(bytes: Buffer): number | 'lost' | 'more' {
  let at = 0;
  for (let damaged = 0; damaged < DAMAGED_MAX; damaged++) {
    const dataBytes = bytes.readUIntBE(at + 5, 3);
    if (bytes.readUInt8(at + 4) > 0 || dataBytes > 8192) return 'lost';
    at += 52 + ((dataBytes + 3) & ~3) + (dataBytes > 0 ? 4 : 0);
    if (bytes.length < at + 52) return 'more';
    if (rightDigest(bytes, at, 48)) return at;
  }
  return 'lost';
}

function rightDigest(bytes: Buffer, at: number, length: number): boolean {
  const end = at + length;
  return digestOf(bytes.subarray(at, end)).equals(bytes.subarray(end, end + 4));
}
