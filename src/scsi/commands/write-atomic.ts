/** WRITE ATOMIC (16), SBC-5 §5.48: all of it or none, also after a power cut within one engine block. */
import { getU16 } from '../bytes.js';
import { failField, good } from '../respond.js';
import type { Task } from '../task.js';
import { BLOCKS_PER_PHYSICAL } from '../unit.js';
import type { Path } from '../unit.js';
import { inRange, lba } from './block-range.js';
import { writeAtomically } from './compare-and-write.js';
import { receiveExactly } from './data-out.js';
import { whenWritable } from './medium-work.js';

/** MAXIMUM ATOMIC TRANSFER LENGTH, in blocks. */
export const ATOMIC_BLOCKS_MAX = 2048;

export function writeAtomic16(task: Task, path: Path): void {
  const { cdb } = task;
  const first = lba(cdb);
  const count = getU16(cdb, 12);
  if (!inRange(task, first, count, ATOMIC_BLOCKS_MAX)) return;
  if (first % BLOCKS_PER_PHYSICAL !== 0) {
    failField(task, 2);
    return;
  }
  if (count % BLOCKS_PER_PHYSICAL !== 0) {
    failField(task, 12);
    return;
  }
  const { position, remaining: bytes } = task;
  if (bytes === 0) {
    good(task);
    return;
  }
  receiveExactly(task, bytes, (data) => {
    whenWritable(task, position, bytes, () => writeAtomically(task, path, position, data, 0, bytes));
  });
}
