/** Moving blocks from one medium to another inside the target, in steps; holes stay holes. */
import { MEDIUM } from '../medium.js';
import type { Medium, MediumResult } from '../medium.js';
import type { LogicalUnit } from '../unit.js';
import { fillRange, runAt } from './medium-work.js';

const STEP_BYTES = 262_144;

export interface CopyJob {
  from: LogicalUnit;
  fromPosition: number;
  to: Medium;
  toPosition: number;
  bytes: number;
}

/** `done` is never called before this returned. `progress` counts bytes; `stop` is asked before each step. */
export function copyRange(
  job: CopyJob,
  progress: (bytes: number) => void,
  stop: () => boolean,
  done: (result: MediumResult) => void,
): void {
  const { to, bytes } = job;
  const from = job.from.medium;
  const buffer = Buffer.alloc(Math.min(STEP_BYTES, bytes));
  let at = 0;
  const moved = (length: number, result: MediumResult): void => {
    if (result !== MEDIUM.OK) {
      done(result);
      return;
    }
    at += length;
    progress(length);
    setImmediate(step);
  };
  const writePiece = (length: number, result: MediumResult): void => {
    if (result !== MEDIUM.OK) {
      done(result);
      return;
    }
    const written = to.write(job.toPosition + at, buffer, 0, length);
    if (written === MEDIUM.PENDING) {
      to.writeAsync(job.toPosition + at, buffer, 0, length, (late) => moved(length, late));
    } else moved(length, written);
  };
  const step = (): void => {
    if (at >= bytes || stop()) {
      done(MEDIUM.OK);
      return;
    }
    const run = from.present
      ? runAt(job.from, job.fromPosition + at, bytes - at)
      : { mapped: true, lengthBytes: bytes - at };
    if (!run.mapped && run.lengthBytes > 0) {
      fillRange(to, job.toPosition + at, run.lengthBytes, undefined, stop, (result) =>
        moved(run.lengthBytes, result),
      );
      return;
    }
    const length = Math.min(buffer.length, bytes - at);
    const position = job.fromPosition + at;
    if (from.readsSlowly(length))
      from.readAsync(position, buffer, 0, length, (result) => writePiece(length, result));
    else writePiece(length, from.read(position, buffer, 0, length));
  };
  setImmediate(step);
}
