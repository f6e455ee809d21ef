/**
 * A sequence of Data-Out PDUs that need not come in order (RFC 7143 §13.18, §13.19: DataPDUInOrder=No or
 * DataSequenceInOrder=No). Nobody is known to ask for that, so it is made simple rather than fast: the data wait in a
 * buffer of the sequence's own until all of them are here.
 */
import { DATA_OUT_FAULT, type DataOutFault } from './data-out-fault.js';

/** Longest sequence that is asked for at once, which bounds what a task can hold (with `maxOutstandingR2T`). */
export const LOOSE_SEQUENCE_BYTES_MAX = 65_536;

export class LooseSequence {
  /** Position of its first byte in the task's data. */
  readonly start: number;
  readonly #data: Buffer;
  /** One byte for each that has come. */
  readonly #seen: Buffer;
  #taken = 0;
  #dataSN = 0;
  /** End of the last PDU, where the next one begins if PDUs come in order. */
  #next: number;

  constructor(start: number, bytes: number) {
    this.start = start;
    this.#next = start;
    this.#data = Buffer.alloc(bytes);
    this.#seen = Buffer.alloc(bytes);
  }

  /** Takes a PDU's data. Returns what is wrong with it; nothing was taken then. */
  take(
    dataSN: number,
    position: number,
    inOrder: boolean,
    buffer: Buffer,
    offset: number,
    bytes: number,
  ): DataOutFault | undefined {
    if (dataSN !== this.#dataSN) return DATA_OUT_FAULT.DATA_SN;
    if (inOrder && position !== this.#next) return DATA_OUT_FAULT.OFFSET;
    const from = position - this.start;
    if (from < 0 || from + bytes > this.#data.length) return DATA_OUT_FAULT.BEYOND_SEQUENCE;
    const seen = this.#seen.subarray(from, from + bytes);
    if (seen.includes(1)) return DATA_OUT_FAULT.TWICE;
    seen.fill(1);
    buffer.copy(this.#data, from, offset, offset + bytes);
    this.#taken += bytes;
    this.#dataSN++;
    this.#next = position + bytes;
    return undefined;
  }

  /** DataSN of its next PDU. */
  get dataSN(): number {
    return this.#dataSN;
  }

  /** All of the sequence is here. */
  get full(): boolean {
    return this.#taken === this.#data.length;
  }

  /** What is here has no gap, from the start on: it may be less than allowed. */
  get gapless(): boolean {
    const gap = this.#seen.indexOf(0);
    return gap === -1 || gap === this.#taken;
  }

  /** What is here, if it is gapless. */
  get data(): Buffer {
    return this.#data.subarray(0, this.#taken);
  }
}
