/** VERIFY and WRITE AND VERIFY (10/12/16), SBC-5 §5.38 to §5.42 and §5.49 to §5.51. */
import { MEDIUM } from '../medium.js';
import { fail, failField, finish, good, pending } from '../respond.js';
import { SENSE } from '../sense.js';
import type { Task } from '../task.js';
import { BLOCK_BYTES } from '../unit.js';
import type { Path } from '../unit.js';
import { TRANSFER_BLOCKS_MAX, blocks, inRange, lba } from './block-range.js';
import { receiveAll } from './data-out.js';
import { firstDifference, lbaOf, readThrough } from './medium-work.js';

/** BYTCHK (SBC-5 §5.38): compare with nothing, with all of the Data-Out, or with one block again and again. */
const BYTCHK = { NONE: 0, ALL: 1, RESERVED: 2, ONE_BLOCK: 3 } as const;

function byteCheck(task: Task): number {
  return (task.cdb[1] >>> 1) & 0x03;
}

export function verify(task: Task, path: Path): void {
  const { cdb } = task;
  const check = byteCheck(task);
  if (check === BYTCHK.RESERVED) {
    failField(task, 1, 2);
    return;
  }
  if (!inRange(task, lba(cdb), blocks(cdb), check === BYTCHK.ALL ? TRANSFER_BLOCKS_MAX : 0xffff_ffff)) return;
  const bytes = task.remaining;
  path.unit.statistics.verifyOps++;
  path.unit.statistics.verifyBytes += bytes;
  if (bytes === 0) good(task);
  else if (check === BYTCHK.NONE) compare(task, path, bytes, () => -1);
  else if (check === BYTCHK.ALL) {
    receiveAll(task, bytes, (data) => {
      // A short transfer compares what has come (RFC 7143 §11.4.5.1 reports the residual).
      const whole = data.length - (data.length % BLOCK_BYTES);
      compareWith(task, path, data.subarray(0, whole));
    });
  } else {
    receiveAll(task, BLOCK_BYTES, (block) => {
      if (block.length < BLOCK_BYTES) {
        fail(task, SENSE.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT);
        return;
      }
      compare(task, path, bytes, (piece) => {
        for (let at = 0; at < piece.length; at += BLOCK_BYTES) {
          const bad = firstDifference(piece.subarray(at, at + BLOCK_BYTES), block);
          if (bad >= 0) return at + bad;
        }
        return -1;
      });
    });
  }
}

function compareWith(task: Task, path: Path, data: Buffer): void {
  compare(task, path, data.length, (piece, at) =>
    firstDifference(piece, data.subarray(at, at + piece.length)),
  );
}

function compare(task: Task, path: Path, bytes: number, check: (piece: Buffer, at: number) => number): void {
  const { position } = task;
  let offending = -1;
  const done = pending(task, (result) => {
    if (result !== MEDIUM.OK) finish(task, result, lbaOf(position + offending));
    else if (offending >= 0) fail(task, SENSE.MISCOMPARE_DURING_VERIFY_OPERATION, { information: offending });
    else good(task);
  });
  readThrough(path.unit.medium, position, bytes, check, (result, at) => {
    offending = at;
    done(result);
  });
}

/** Writes, makes it durable, and reads it back from the medium. */
export function writeAndVerify(task: Task, path: Path): void {
  const { cdb } = task;
  const { unit } = path;
  if (!inRange(task, lba(cdb), blocks(cdb))) return;
  unit.statistics.writeOps++;
  receiveAll(task, task.remaining, (data) => {
    const bytes = data.length - (data.length % BLOCK_BYTES);
    if (bytes === 0) {
      good(task);
      return;
    }
    unit.statistics.writeBytes += bytes;
    const check = (): void => {
      if (byteCheck(task) === BYTCHK.NONE) compare(task, path, bytes, () => -1);
      else compareWith(task, path, data.subarray(0, bytes));
    };
    const flush = (): void => {
      unit.statistics.flushes++;
      unit.medium.flush(pending(task, (result) => (result === MEDIUM.OK ? check() : finish(task, result))));
    };
    const result = unit.medium.write(task.position, data, 0, bytes);
    if (result === MEDIUM.PENDING) {
      unit.medium.writeAsync(
        task.position,
        data,
        0,
        bytes,
        pending(task, (written) =>
          written === MEDIUM.OK ? flush() : finish(task, written, lbaOf(task.position)),
        ),
      );
    } else if (result === MEDIUM.OK) flush();
    else finish(task, result, lbaOf(task.position));
  });
}
