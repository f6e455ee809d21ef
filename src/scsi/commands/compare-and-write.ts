/**
 * COMPARE AND WRITE (SBC-5 §5.3) and ORWRITE (§5.14): read, decide and write in one turn of the event loop, in which
 * nothing else can touch the range.
 */
import { MEDIUM } from '../medium.js';
import { fail, failField, finish, good, pending } from '../respond.js';
import { SENSE } from '../sense.js';
import type { Task } from '../task.js';
import type { Path } from '../unit.js';
import { blocks, inRange, lba } from './block-range.js';
import { receiveExactly } from './data-out.js';
import { firstDifference, lbaOf, whenWritable } from './medium-work.js';
import { FUA } from './read-write.js';

/** MAXIMUM COMPARE AND WRITE LENGTH, in blocks; the field has one byte. */
export const COMPARE_BLOCKS_MAX = 255;

export function compareAndWrite(task: Task, path: Path): void {
  const { cdb } = task;
  const count = cdb[13];
  if (!inRange(task, lba(cdb), count)) return;
  const { position, remaining: bytes } = task;
  if (task.expectedDataOut !== bytes * 2) {
    // Also what 256 blocks look like, since the field has only one byte.
    failField(task, 13);
    return;
  }
  if (bytes === 0) {
    good(task);
    return;
  }
  receiveExactly(task, bytes * 2, (data) => {
    whenWritable(task, position, bytes, () => {
      const { medium } = path.unit;
      const old = Buffer.alloc(bytes);
      const result = medium.read(position, old, 0, bytes);
      if (result !== MEDIUM.OK) {
        finish(task, result, lbaOf(position));
        return;
      }
      const difference = firstDifference(old, data.subarray(0, bytes));
      if (difference >= 0) {
        fail(task, SENSE.MISCOMPARE_DURING_VERIFY_OPERATION, { information: difference });
        return;
      }
      writeAtomically(task, path, position, data, bytes, bytes);
    });
  });
}

export function orwrite(task: Task, path: Path): void {
  const { cdb } = task;
  if (!inRange(task, lba(cdb), blocks(cdb))) return;
  const { position, remaining: bytes } = task;
  if (bytes === 0) {
    good(task);
    return;
  }
  receiveExactly(task, bytes, (data) => {
    whenWritable(task, position, bytes, () => {
      const old = Buffer.alloc(bytes);
      const result = path.unit.medium.read(position, old, 0, bytes);
      if (result !== MEDIUM.OK) {
        finish(task, result, lbaOf(position));
        return;
      }
      for (let i = 0; i < bytes; i++) old[i] |= data[i];
      writeAtomically(task, path, position, old, 0, bytes);
    });
  });
}

/** Writes in this turn; durable before GOOD if FUA is set or the write cache is off. */
export function writeAtomically(
  task: Task,
  path: Path,
  position: number,
  data: Buffer,
  offset: number,
  bytes: number,
): void {
  const { unit } = path;
  const result = unit.medium.write(position, data, offset, bytes);
  if (result === MEDIUM.PENDING) {
    // `prepareWrite` said that the range can be written now; if it can't after all, atomicity is lost, so nothing is.
    unit.services.log.error(
      { unit: unit.kind, position, bytes },
      'medium refused a write that it had allowed',
    );
    fail(task, SENSE.INTERNAL_TARGET_FAILURE);
    return;
  }
  unit.statistics.writeOps++;
  unit.statistics.writeBytes += bytes;
  if (result !== MEDIUM.OK) {
    finish(task, result, lbaOf(position));
    return;
  }
  endWrite(task, path);
}

/** Ends a command that has written: at once, or when it is durable. */
export function endWrite(task: Task, path: Path, fua = (task.cdb[1] & FUA) !== 0): void {
  const { unit } = path;
  if (!fua && unit.modes.writeCacheEnabled) {
    good(task);
    return;
  }
  unit.statistics.flushes++;
  unit.medium.flush(pending(task, (result) => finish(task, result)));
}
