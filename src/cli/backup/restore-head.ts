/**
 * The head of an image that is being restored: its first bytes, where partition tables and file systems begin. It is kept
 * in memory and written last, when all else is durable: so nothing takes what is half restored for a file system, also
 * after a power cut. Until then a stamp stands there, which tells people what it is, and the next run that it is the same
 * medium.
 */
import type { Destination } from './destination.js';

const HEAD_BYTES = 1024 * 1024;
/** Written at once, and after the rest of the head. */
const FIRST_BYTES = 4096;
const PIECE_BYTES = 4096;
/** The smallest image has one sector. */
const STAMP_BYTES = 512;

export class Head {
  readonly #bytes: Buffer;

  /** Of an image of so many bytes. */
  constructor(capacityBytes: number) {
    this.#bytes = Buffer.alloc(Math.min(HEAD_BYTES, capacityBytes));
  }

  static async isStamped(destination: Destination, id: string): Promise<boolean> {
    return (await destination.read(0, STAMP_BYTES)).equals(stampOf(id));
  }

  /** Takes what of an extent is in the head (`data` undefined: zeros), and answers how many bytes that is. */
  take(position: number, length: number, data: Buffer | undefined): number {
    const end = Math.min(position + length, this.#bytes.length);
    if (end <= position) return 0;
    if (data === undefined) this.#bytes.fill(0, position, end);
    else data.copy(this.#bytes, position, 0, end - position);
    return end - position;
  }

  /** Puts the stamp in place of the head, and makes it durable: whatever was there is no file system any more. */
  async stamp(destination: Destination, id: string): Promise<void> {
    await destination.zero(0, this.#bytes.length);
    await destination.write(0, stampOf(id));
    await destination.sync();
  }

  /** Writes the head, the very first bytes last, each step durable. Call when all else is. */
  async write(destination: Destination): Promise<void> {
    const first = Math.min(FIRST_BYTES, this.#bytes.length);
    for (let at = first; at < this.#bytes.length; at += PIECE_BYTES)
      await this.#put(destination, at, Math.min(at + PIECE_BYTES, this.#bytes.length));
    await destination.sync();
    await this.#put(destination, 0, first);
    await destination.sync();
  }

  /** A hole stays one. */
  async #put(destination: Destination, from: number, end: number): Promise<void> {
    const piece = this.#bytes.subarray(from, end);
    if (piece.every((byte) => byte === 0)) await destination.zero(from, piece.length);
    else await destination.write(from, piece);
  }
}

function stampOf(id: string): Buffer {
  const stamp = Buffer.alloc(STAMP_BYTES);
  stamp.write(`cldd: this restore is not finished, run it again\n${id}\n`);
  return stamp;
}
