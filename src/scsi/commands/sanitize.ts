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

/** What an operation does. Kept in the state store while it runs, so that it goes on after a restart (SBC-5 §4.11.1). */
interface Operation {
  /** One block in hexadecimal; undefined: block erase. */
  pattern?: string;
  /** OVERWRITE COUNT. */
  count: number;
  invert: boolean;
}

/** The state of sanitizing of one unit. While it is active every medium command is refused. */
export class Sanitize {
  failed = false;
  private fill: Fill | undefined;
  private totalBytes = 0;
  private passBytes = 0;
  private readonly unit: LogicalUnit;
  private readonly key: string;
  private readonly bytesPerSecond: number;

  /** Overwriting goes at most at `bytesPerSecond`, so that the other unit's users keep most of the device. */
  constructor(unit: LogicalUnit, bytesPerSecond: number) {
    this.unit = unit;
    this.key = `scsi.sanitize.${unit.kind}`;
    this.bytesPerSecond = bytesPerSecond;
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

  /** Takes up an operation that a restart interrupted, from its beginning. */
  resume(): void {
    const { services, kind } = this.unit;
    const record = services.state.load(this.key);
    if (record === undefined) return;
    const operation = parse(record);
    if (operation === undefined) {
      services.log.error(
        { record: this.key },
        'an interrupted SANITIZE cannot be read: the unit is not sanitized',
      );
      this.failed = true;
      return;
    }
    services.log.warn({ unit: kind }, 'SANITIZE was interrupted and starts again');
    this.execute(operation, () => undefined);
  }

  /** Remembers the operation durably, runs its passes, makes the result durable, and calls back. */
  run(operation: Operation, done: (result: MediumResult) => void): void {
    // Active from this moment on, so that nothing comes between.
    this.totalBytes = this.unit.medium.capacityBytes;
    this.unit.refresh();
    this.unit.services.state.save(this.key, Buffer.from(JSON.stringify(operation)), (error) => {
      if (error === undefined) {
        this.execute(operation, done);
        return;
      }
      this.unit.services.log.error(
        { err: error, unit: this.unit.kind },
        'SANITIZE could not be recorded: not begun',
      );
      this.end(MEDIUM.FAILED, done);
    });
  }

  private execute(operation: Operation, done: (result: MediumResult) => void): void {
    const { medium } = this.unit;
    const bytes = medium.capacityBytes;
    const left = passes(operation);
    this.failed = false;
    this.passBytes = 0;
    this.totalBytes = bytes * left.length;
    this.unit.refresh();
    const startMs = performance.now();
    const pace = (step: () => void): void => {
      const doneBytes = this.passBytes + (this.fill?.doneBytes ?? 0);
      const dueMs = startMs + (doneBytes / this.bytesPerSecond) * 1000;
      const waitMs = dueMs - performance.now();
      if (waitMs < 1) setImmediate(step);
      else setTimeout(step, waitMs).unref();
    };
    const next = (): void => {
      if (left.length === 0) {
        medium.flush((result) => this.end(result, done));
        return;
      }
      const pattern = left.shift();
      this.fill = fillRange(
        medium,
        0,
        bytes,
        pattern,
        () => false,
        (result) => {
          this.passBytes += bytes;
          this.fill = undefined;
          if (result === MEDIUM.OK) next();
          else this.end(result, done);
        },
        pattern === undefined ? undefined : pace,
      );
    };
    next();
  }

  private end(result: MediumResult, done: (result: MediumResult) => void): void {
    this.totalBytes = 0;
    this.fill = undefined;
    this.failed = result !== MEDIUM.OK;
    this.unit.refresh();
    this.unit.services.state.save(this.key, undefined, (error) => {
      if (error !== undefined) {
        this.unit.services.log.warn(
          { err: error, unit: this.unit.kind },
          'SANITIZE is over but would be repeated after a restart',
        );
      }
    });
    done(result);
  }
}

function parse(record: Buffer): Operation | undefined {
  let value: unknown;
  try {
    value = JSON.parse(record.toString('utf8'));
  } catch {
    // Reported by the caller, which knows the unit.
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { pattern, count, invert } = value as Record<string, unknown>;
  if (typeof count !== 'number' || typeof invert !== 'boolean') return undefined;
  if (pattern === undefined) return { count, invert };
  return typeof pattern === 'string' && pattern.length === BLOCK_BYTES * 2
    ? { pattern, count, invert }
    : undefined;
}

/** The last pass leaves the pattern; with INVERT every other pass writes its complement (SBC-5 §5.31.3). */
function passes({ pattern, count, invert }: Operation): (Buffer | undefined)[] {
  if (pattern === undefined) return [undefined];
  const block = Buffer.from(pattern, 'hex');
  const inverted = Buffer.from(block.map((byte) => ~byte & 0xff));
  return Array.from({ length: count }, (_, index) =>
    invert && (count - index) % 2 === 0 ? inverted : block,
  );
}

export function sanitizeBlockErase(task: Task, path: Path): void {
  if (getU16(task.cdb, 7) !== 0) failField(task, 7);
  else start(task, path, { count: 1, invert: false });
}

/** SBC-5 §5.31.3. */
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
    const pattern = Buffer.alloc(BLOCK_BYTES, list.subarray(4, 4 + patternBytes)).toString('hex');
    start(task, path, { pattern, count, invert: (list[0] & INVERT) !== 0 });
  });
}

/** Leaves the failure mode that a failed operation with AUSE=1 left behind. */
export function sanitizeExitFailure(task: Task, path: Path): void {
  path.unit.sanitize.failed = false;
  good(task);
}

function start(task: Task, path: Path, operation: Operation): void {
  const { unit } = path;
  const immediate = (task.cdb[1] & IMMED) !== 0;
  // The operation belongs to the unit and outlives an aborted task, whose object may serve another command by then:
  // the mark tells. Hence it is not counted in `task.pending` either.
  const mark = {};
  task.scratch = mark;
  unit.sanitize.run(operation, (result) => {
    if (result !== MEDIUM.OK) unit.services.log.error({ unit: unit.kind }, 'SANITIZE failed');
    if (immediate || task.scratch !== mark || task.phase === PHASE.ENDED) return;
    if (result === MEDIUM.OK) good(task);
    else fail(task, SENSE.SANITIZE_COMMAND_FAILED);
  });
  if (immediate) good(task);
}
