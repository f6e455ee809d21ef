/**
 * SANITIZE (SBC-5 §5.31): overwrite and block erase, with progress, going on whatever resets come (§4.11). One that failed
 * leaves the unit in a failure mode, in which it shows and takes no data; what ends that mode, AUSE decides.
 */
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
/** ALLOW UNRESTRICTED SANITIZE EXIT: bit 5 of byte 1. */
const AUSE_BIT = 5;
const AUSE = 1 << AUSE_BIT;
const INVERT = 0x80;

/** What an operation does. Kept in the state store while it runs, so that it goes on after a restart (SBC-5 §4.11.1). */
interface Operation {
  /** One block in hexadecimal; undefined: block erase. */
  pattern?: string;
  /** OVERWRITE COUNT. */
  count: number;
  invert: boolean;
  completion: Completion;
}

/**
 * SBC-5 §4.11.4, by AUSE: what leads out of a failed operation. Restricted: only another one that succeeds.
 * Unrestricted: EXIT FAILURE MODE, too.
 */
type Completion = 'restricted' | 'unrestricted';

/** What the state store keeps: an operation that has begun, or how the last one failed. */
type Kept = Operation | { failure: Completion };

/** Told how an operation goes. */
interface Course {
  /** It is recorded, and goes on after a restart. */
  begun(): void;
  /** It could not be recorded: nothing was done, and the unit is as it was. */
  notBegun(): void;
  ended(result: MediumResult): void;
}

const UNSEEN: Course = { begun: () => undefined, notBegun: () => undefined, ended: () => undefined };

/** The state of sanitizing of one unit. While it is active, or has failed, every medium command is refused. */
export class Sanitize {
  /** The failure mode that the unit is in; kept over a restart, since nothing but §4.11.4 ends it. */
  failure: Completion | undefined;
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

  /** Why a medium command is refused just now; undefined: it is not. */
  get refusal(): typeof SENSE.SANITIZE_IN_PROGRESS | typeof SENSE.SANITIZE_COMMAND_FAILED | undefined {
    if (this.active) return SENSE.SANITIZE_IN_PROGRESS;
    return this.failure === undefined ? undefined : SENSE.SANITIZE_COMMAND_FAILED;
  }

  /** Takes up an operation that a restart interrupted, from its beginning; or the failure mode. */
  resume(): void {
    const { services, kind } = this.unit;
    const record = services.state.load(this.key);
    if (record === undefined) return;
    const kept = parse(record);
    if (kept !== undefined && 'count' in kept) {
      services.log.warn({ unit: kind }, 'SANITIZE was interrupted and starts again');
      this.execute(kept, UNSEEN);
      return;
    }
    // Of what can't be read it is only known that data were to be destroyed, and were not.
    this.failure = kept?.failure ?? 'restricted';
    this.unit.refresh();
    services.log.error(
      { unit: kind, record: this.key },
      kept === undefined
        ? 'an interrupted SANITIZE cannot be read: the unit is not sanitized, and refuses access until it is'
        : 'the last SANITIZE failed: the unit refuses access until another one succeeds',
    );
  }

  /** Remembers the operation durably, runs its passes, and makes the result durable. */
  run(operation: Operation, course: Course): void {
    // Active from this moment on, so that nothing comes between.
    this.totalBytes = this.unit.medium.capacityBytes;
    this.unit.refresh();
    this.save(operation, (error) => {
      if (error === undefined) {
        course.begun();
        this.execute(operation, course);
        return;
      }
      this.unit.services.log.error(
        { err: error, unit: this.unit.kind },
        'SANITIZE could not be recorded: not begun',
      );
      this.totalBytes = 0;
      this.unit.refresh();
      course.notBegun();
    });
  }

  /** EXIT FAILURE MODE, which the unit has to be allowed by its failure. `done` gets an error if it isn't durable. */
  leaveFailureMode(done: (error?: Error) => void): void {
    this.save(undefined, (error) => {
      if (error === undefined) {
        this.failure = undefined;
        this.unit.refresh();
      }
      done(error);
    });
  }

  private save(kept: Kept | undefined, done: (error?: Error) => void): void {
    const record = kept === undefined ? undefined : Buffer.from(JSON.stringify(kept));
    this.unit.services.state.save(this.key, record, done);
  }

  private execute(operation: Operation, course: Course): void {
    const { medium } = this.unit;
    const bytes = medium.capacityBytes;
    const left = passes(operation);
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
        medium.flush((result) => this.end(operation, result, course));
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
          else this.end(operation, result, course);
        },
        pattern === undefined ? undefined : pace,
      );
    };
    next();
  }

  private end({ completion }: Operation, result: MediumResult, course: Course): void {
    this.totalBytes = 0;
    this.fill = undefined;
    this.failure = result === MEDIUM.OK ? undefined : completion;
    this.unit.refresh();
    this.save(this.failure && { failure: this.failure }, (error) => {
      if (error !== undefined) {
        this.unit.services.log.warn(
          { err: error, unit: this.unit.kind },
          'SANITIZE is over but would be repeated after a restart',
        );
      }
    });
    course.ended(result);
  }
}

function parse(record: Buffer): Kept | undefined {
  let value: unknown;
  try {
    value = JSON.parse(record.toString('utf8'));
  } catch {
    // Reported by the caller, which knows the unit.
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { pattern, count, invert, completion, failure } = value as Record<string, unknown>;
  if (isCompletion(failure)) return { failure };
  if (typeof count !== 'number' || typeof invert !== 'boolean') return undefined;
  // Versions before the failure mode kept no completion, whatever AUSE was.
  const operation = {
    count,
    invert,
    completion: isCompletion(completion) ? completion : 'restricted',
  } as const;
  if (pattern === undefined) return operation;
  return typeof pattern === 'string' && pattern.length === BLOCK_BYTES * 2
    ? { ...operation, pattern }
    : undefined;
}

function isCompletion(value: unknown): value is Completion {
  return value === 'restricted' || value === 'unrestricted';
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
  else start(task, path, { count: 1, invert: false, completion: completionOf(task) });
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
    if (patternBytes === 0 || patternBytes + 4 > bytes) {
      failParameter(task, 2);
      return;
    }
    const pattern = Buffer.alloc(BLOCK_BYTES, list.subarray(4, 4 + patternBytes)).toString('hex');
    const invert = (list[0] & INVERT) !== 0;
    start(task, path, { pattern, count, invert, completion: completionOf(task) });
  });
}

function completionOf(task: Task): Completion {
  return (task.cdb[1] & AUSE) === 0 ? 'restricted' : 'unrestricted';
}

/** EXIT FAILURE MODE (SBC-5 §5.31): GOOD if there is nothing to leave, refused if AUSE was zero. */
export function sanitizeExitFailure(task: Task, path: Path): void {
  const { unit } = path;
  if (unit.sanitize.failure === undefined) good(task);
  else if (unit.sanitize.failure === 'restricted') failField(task, 1);
  else {
    const done = ended(task);
    unit.sanitize.leaveFailureMode((error) => {
      if (error === undefined) done(() => good(task));
      else {
        unit.services.log.error({ err: error, unit: unit.kind }, 'EXIT FAILURE MODE could not be recorded');
        done(() => fail(task, SENSE.INTERNAL_TARGET_FAILURE));
      }
    });
  }
}

/**
 * An operation belongs to the unit and outlives an aborted task, whose object may serve another command by then: the
 * mark tells. Hence it is not counted in `task.pending` either. What is returned ends the task if it is still there.
 */
function ended(task: Task): (end: () => void) => void {
  const mark = {};
  task.scratch = mark;
  return (end) => {
    if (task.scratch === mark && task.phase !== PHASE.ENDED) end();
  };
}

function start(task: Task, path: Path, operation: Operation): void {
  const { unit } = path;
  const { sanitize } = unit;
  if (sanitize.active) {
    // Another one has begun while the parameter list came.
    fail(task, SENSE.SANITIZE_IN_PROGRESS, { progress: sanitize.progress });
    return;
  }
  if (sanitize.failure === 'restricted' && operation.completion === 'unrestricted') {
    failField(task, 1, AUSE_BIT);
    return;
  }
  const immediate = (task.cdb[1] & IMMED) !== 0;
  const done = ended(task);
  sanitize.run(operation, {
    begun: () => {
      if (immediate) done(() => good(task));
    },
    notBegun: () => done(() => fail(task, SENSE.INTERNAL_TARGET_FAILURE)),
    ended: (result) => {
      if (result !== MEDIUM.OK) unit.services.log.error({ unit: unit.kind }, 'SANITIZE failed');
      done(() => (result === MEDIUM.OK ? good(task) : fail(task, SENSE.SANITIZE_COMMAND_FAILED)));
    },
  });
}
