/**
 * WRITE ATOMIC (16), SBC-5 §5.48: all of it or none, also over a power cut. One block of 4 KiB is as atomic as the
 * device's own writes of 4 KiB are; several go by way of AtomicLog.
 */
import { getU16 } from '../bytes.js';
import { failField, finish, good, pending } from '../respond.js';
import type { Task } from '../task.js';
import { BLOCKS_PER_PHYSICAL, PHYSICAL_BYTES } from '../unit.js';
import type { Path } from '../unit.js';
import { inRange, lba } from './block-range.js';
import { writeAtomically } from './compare-and-write.js';
import { receiveExactly } from './data-out.js';
import { whenWritable } from './medium-work.js';

/** MAXIMUM ATOMIC TRANSFER LENGTH, in blocks: 128 KiB, which the state store has room for. */
export const ATOMIC_BLOCKS_MAX = 256;

export function writeAtomic16(task: Task, path: Path): void {
  const { cdb } = task;
  const first = lba(cdb);
  const count = getU16(cdb, 12);
  if (!inRange(task, first, count, 0xffff)) return;
  if (first % BLOCKS_PER_PHYSICAL !== 0) {
    failField(task, 2);
    return;
  }
  if (count > ATOMIC_BLOCKS_MAX || count % BLOCKS_PER_PHYSICAL !== 0) {
    failField(task, 12);
    return;
  }
  const { position, remaining: bytes } = task;
  if (bytes === 0) {
    good(task);
    return;
  }
  receiveExactly(task, bytes, (data) => {
    if (bytes > PHYSICAL_BYTES) {
      const { unit } = path;
      unit.statistics.writeOps++;
      unit.statistics.writeBytes += bytes;
      unit.atomics.write(
        position,
        data,
        pending(task, (result) => finish(task, result, first)),
      );
      return;
    }
    whenWritable(task, position, bytes, () => writeAtomically(task, path, position, data, 0, bytes));
  });
}
