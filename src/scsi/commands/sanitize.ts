/** SANITIZE (SBC-5 §5.31): overwrite and block erase, with progress, going on whatever resets come (§4.11). */
import { getU16 } from '../bytes.js';
import { MEDIUM } from '../medium.js';
import type { MediumResult } from '../medium.js';
import { fail, failField, failParameter, good } from '../respond.js';
import { SENSE } from '../sense.js';
import type { Task } from '../task.js';
import { BLOCK_BYTES, PHASE } from '../unit.js';
import type { LogicalUnit, Path } from '../unit.js';
import { receiveAll } from './data-out.js';
import { fillRange } from './medium-work.js';
import type { Fill } from './medium-work.js';

const IMMED = 0x80;
const INVERT = 0x80;

/** The state of sanitizing of one unit. While it is active every medium command is refused. */
export class Sanitize {
  failed = false;
  private fill: Fill | undefined;
  private totalBytes = 0;
  private passBytes = 0;
  private readonly unit: LogicalUnit;

  constructor(unit: LogicalUnit) {
    this.unit = unit;
  }

  get active(): boolean {
    return this.totalBytes > 0;
  }

  /** In 65,536ths. */
  get progress(): number {
    if (this.totalBytes === 0) return 0;
    return Math.min(
      65_535,
      Math.floor(((this.passBytes + (this.fill?.doneBytes ?? 0)) / this.totalBytes) * 65_536),
    );
  }

  /** Runs the passes one after the other (undefined: unmap), makes the result durable, and calls back. */
  run(passes: readonly (Buffer | undefined)[], done: (result: MediumResult) => void): void {
    const { medium } = this.unit;
    const bytes = medium.capacityBytes;
    this.failed = false;
    this.totalBytes = bytes * passes.length;
    this.passBytes = 0;
    this.unit.refresh();
    const left = [...passes];
    const end = (result: MediumResult): void => {
      this.totalBytes = 0;
      this.fill = undefined;
      this.failed = result !== MEDIUM.OK;
      this.unit.refresh();
      done(result);
    };
    const next = (): void => {
      if (left.length === 0) {
        medium.flush(end);
        return;
      }
      this.fill = fillRange(medium, 0, bytes, left.shift(), (result) => {
        this.passBytes += bytes;
        this.fill = undefined;
        if (result === MEDIUM.OK) next();
        else end(result);
      });
    };
    next();
  }
}

export function sanitizeBlockErase(task: Task, path: Path): void {
  if (getU16(task.cdb, 7) !== 0) failField(task, 7);
  else start(task, path, [undefined]);
}

/** The last pass leaves the pattern; with INVERT every other pass writes its complement (SBC-5 §5.31.3). */
export function sanitizeOverwrite(task: Task, path: Path): void {
  const bytes = getU16(task.cdb, 7);
  if (bytes < 5 || bytes > BLOCK_BYTES + 4) {
    failField(task, 7);
    return;
  }
  receiveAll(task, bytes, (list) => {
    if (list.length < bytes) {
      fail(task, SENSE.PARAMETER_LIST_LENGTH_ERROR);
      return;
    }
    const count = list[0] & 0x1f;
    const patternBytes = getU16(list, 2);
    if (count === 0) {
      failParameter(task, 0);
      return;
    }
    if (patternBytes === 0 || patternBytes > BLOCK_BYTES || patternBytes + 4 > bytes) {
      failParameter(task, 2);
      return;
    }
    const pattern = Buffer.alloc(BLOCK_BYTES, list.subarray(4, 4 + patternBytes));
    const inverted = Buffer.from(pattern.map((byte) => ~byte & 0xff));
    const passes = Array.from({ length: count }, (_, index) =>
      (list[0] & INVERT) !== 0 && (count - index) % 2 === 0 ? inverted : pattern,
    );
    start(task, path, passes);
  });
}

/** Leaves the failure mode that a failed operation with AUSE=1 left behind. */
export function sanitizeExitFailure(task: Task, path: Path): void {
  path.unit.sanitize.failed = false;
  good(task);
}

function start(task: Task, path: Path, passes: readonly (Buffer | undefined)[]): void {
  const { unit } = path;
  const immediate = (task.cdb[1] & IMMED) !== 0;
  // The operation belongs to the unit and outlives an aborted task, whose object may serve another command by then:
  // the mark tells. Hence it is not counted in `task.pending` either.
  const mark = {};
  task.scratch = mark;
  unit.sanitize.run(passes, (result) => {
    if (result !== MEDIUM.OK) unit.services.log.error({ unit: unit.kind }, 'SANITIZE failed');
    if (immediate || task.scratch !== mark || task.phase === PHASE.ENDED) return;
    if (result === MEDIUM.OK) good(task);
    else fail(task, SENSE.SANITIZE_COMMAND_FAILED);
  });
  if (immediate) good(task);
}
