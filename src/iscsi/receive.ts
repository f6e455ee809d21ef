/**
 * The receive buffer: bytes arrive at its end and are parsed in place at its start.
 *
 * One buffer of 1 MiB a connection and no copies but the move of an incomplete PDU to the front: concatenating chunks
 * instead cost two thirds of the throughput of large writes (docs/performance.md).
 */
import { BHS_BYTES } from './constants.js';

/** Buffer of a connection in login, whose PDUs hold at most 8,192 bytes of data (RFC 7143 §13.12). */
const LOGIN_BYTES = 16_384;
/** Of all connections that are gone. */
const NOWHERE = Buffer.alloc(LOGIN_BYTES);
const FULL_FEATURE_BYTES_MIN = 1_048_576;
/** AHS of at most 1,020 bytes, digests and padding on top of header and data. */
const PDU_OVERHEAD_BYTES = BHS_BYTES + 1020 + 4 + 3 + 4;
/** Room below which a read isn't worth its system call. */
const ROOM_BYTES_MIN = 65_536;

export class ReceiveBuffer {
  buffer: Buffer = Buffer.allocUnsafeSlow(LOGIN_BYTES);
  view: DataView = viewOf(this.buffer);
  /** Unparsed bytes are [start, end). */
  start = 0;
  end = 0;
  #whole: Uint8Array = this.buffer;

  /** Makes room for PDUs of the full feature phase. */
  grow(dataSegmentBytesMax: number): void {
    const bytes = Math.max(FULL_FEATURE_BYTES_MIN, 2 * (dataSegmentBytesMax + PDU_OVERHEAD_BYTES));
    const bigger = Buffer.allocUnsafeSlow(bytes);
    this.buffer.copy(bigger, 0, this.start, this.end);
    this.buffer = bigger;
    this.view = viewOf(bigger);
    this.#whole = bigger;
    this.end -= this.start;
    this.start = 0;
  }

  /** The connection is gone, though its tasks may live on: nothing will be received. */
  release(): void {
    this.buffer = NOWHERE;
    this.view = viewOf(NOWHERE);
    this.#whole = NOWHERE;
    this.start = this.end = 0;
  }

  /** The last read left no room: there may be more. */
  get filled(): boolean {
    return this.end === this.buffer.length;
  }

  /** Where the next read goes. `needBytes`: length of the PDU that begins at `start`, as far as known. */
  next(needBytes: number): Uint8Array {
    if (this.start === this.end) {
      this.start = this.end = 0;
      return this.#whole;
    }
    const size = this.buffer.length;
    if (
      this.start > 0 &&
      (this.start + needBytes > size || size - this.end < Math.min(ROOM_BYTES_MIN, size >> 1))
    ) {
      this.buffer.copyWithin(0, this.start, this.end);
      this.end -= this.start;
      this.start = 0;
    }
    return this.buffer.subarray(this.end);
  }
}

function viewOf(buffer: Buffer): DataView {
  return new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
}
