/**
 * The Data-In PDUs of a read that comes through the thread pool: each is read into memory of its own, since nobody knows
 * which is there first. Small ones are copied together to be sent, and their memory is used again: to make it for each
 * took a ninth of the processor time of small reads that go to the disc (docs/performance.md).
 */
import type { DataInSegment } from '../scsi/task.js';

/** PDUs up to this length are copied together; longer ones are sent as they are. */
export const COPY_BYTES_MAX = 16_384;
const SPARE_MAX = 256;

export interface Piece extends DataInSegment {
  /** The PDU is at its start, `total` bytes long; `offset` and `length` are those of its data. */
  readonly buffer: Buffer;
  readonly view: DataView;
  total: number;
}

const spare: Piece[] = [];

/** Memory for a PDU of `total` bytes. */
export function takePiece(total: number): Piece {
  const found = total <= COPY_BYTES_MAX ? spare.pop() : undefined;
  if (found !== undefined) {
    found.total = total;
    return found;
  }
  const buffer = Buffer.allocUnsafeSlow(Math.max(total, COPY_BYTES_MAX));
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
  return { buffer, view, total, offset: 0, length: 0 };
}

/** A small PDU has been copied, and nobody looks at it any more. */
export function givePiece(piece: Piece): void {
  if (spare.length < SPARE_MAX) spare.push(piece);
}
