/**
 * Longer work on a medium, cut into steps that let the event loop breathe: waiting until a range may be written, filling
 * it, reading it through.
 */
import { MEDIUM } from '../medium.js';
import type { Medium, MediumResult } from '../medium.js';
import { finish, pending } from '../respond.js';
import type { Task } from '../task.js';
import { BLOCK_BYTES, pathOf } from '../unit.js';
import type { LogicalUnit } from '../unit.js';

/** Bytes written or read in one step. */
const STEP_BYTES = 262_144;
/** Bytes unmapped in one step. */
const UNMAP_STEP_BYTES = 33_554_432;

/**
 * Calls `act` in a turn of the event loop in which the range can be written at once, so that what it reads, compares and
 * writes there is atomic. Ends the task if the medium has failed.
 */
export function whenWritable(task: Task, position: number, bytes: number, act: () => void): void {
  const { medium } = pathOf(task).unit;
  const ask = (): void => {
    let done: (result: MediumResult) => void = () => undefined;
    const result = medium.prepareWrite(position, bytes, (answer) => done(answer));
    if (result === MEDIUM.OK) act();
    else if (result === MEDIUM.PENDING)
      done = pending(task, (answer) => (answer === MEDIUM.OK ? ask() : finish(task, answer)));
    else finish(task, result);
  };
  ask();
}

/**
 * The run of equal provisioning at a position. Where the medium can't tell, since its map is damaged, the rest counts as
 * mapped: who relies on it reads, and is told then.
 */
export function runAt(
  unit: LogicalUnit,
  position: number,
  maxBytes: number,
): { mapped: boolean; lengthBytes: number } {
  try {
    return unit.medium.provisioning(position, maxBytes);
  } catch (error) {
    unit.services.log.error({ err: error, unit: unit.kind, position }, 'what is mapped here cannot be told');
    return { mapped: true, lengthBytes: maxBytes };
  }
}

/** How far a running fill has got. */
export interface Fill {
  doneBytes: number;
}

/**
 * Fills a range with a repeated block, or unmaps it if there is none, until it is done or `stop` says so. `done` is never
 * called before this returned; `schedule` decides when the next step is due.
 */
export function fillRange(
  medium: Medium,
  position: number,
  bytes: number,
  pattern: Buffer | undefined,
  stop: () => boolean,
  done: (result: MediumResult) => void,
  schedule: (step: () => void) => void = setImmediate,
): Fill {
  const fill: Fill = { doneBytes: 0 };
  const chunk = pattern === undefined ? undefined : repeat(pattern, Math.min(bytes, STEP_BYTES));
  const step = (): void => {
    if (stop() || fill.doneBytes >= bytes) {
      done(MEDIUM.OK);
      return;
    }
    const at = position + fill.doneBytes;
    const length = Math.min(bytes - fill.doneBytes, chunk?.length ?? UNMAP_STEP_BYTES);
    const result = chunk === undefined ? medium.unmap(at, length) : medium.write(at, chunk, 0, length);
    if (result === MEDIUM.OK) {
      fill.doneBytes += length;
      schedule(step);
      return;
    }
    if (result !== MEDIUM.PENDING) {
      done(result);
      return;
    }
    if (chunk === undefined) {
      const free = (answer: MediumResult): void => (answer === MEDIUM.OK ? step() : done(answer));
      const again = medium.prepareWrite(at, length, free);
      if (again !== MEDIUM.PENDING) setImmediate(free, again);
      return;
    }
    medium.writeAsync(at, chunk, 0, length, (written) => {
      if (written !== MEDIUM.OK) {
        done(written);
        return;
      }
      fill.doneBytes += length;
      schedule(step);
    });
  };
  setImmediate(step);
  return fill;
}

function repeat(pattern: Buffer, bytes: number): Buffer {
  const whole = Math.max(1, Math.floor(bytes / pattern.length)) * pattern.length;
  return Buffer.alloc(whole, pattern);
}

/**
 * Reads a range through in steps and shows each piece to `check`, which returns the offset of the first byte that it
 * objects to, or -1. Never calls `done` before this returned; `done` gets the result and the offending position or -1.
 */
export function readThrough(
  medium: Medium,
  position: number,
  bytes: number,
  check: (piece: Buffer, at: number) => number,
  done: (result: MediumResult, offending: number) => void,
): void {
  const buffer = Buffer.alloc(Math.min(bytes, STEP_BYTES));
  let at = 0;
  const step = (): void => {
    if (at >= bytes) {
      done(MEDIUM.OK, -1);
      return;
    }
    const length = Math.min(bytes - at, buffer.length);
    const seen = (result: MediumResult): void => {
      if (result !== MEDIUM.OK) {
        done(result, at);
        return;
      }
      const bad = check(buffer.subarray(0, length), at);
      if (bad >= 0) {
        done(MEDIUM.OK, at + bad);
        return;
      }
      at += length;
      setImmediate(step);
    };
    if (medium.readsSlowly(length)) medium.readAsync(position + at, buffer, 0, length, seen);
    else seen(medium.read(position + at, buffer, 0, length));
  };
  setImmediate(step);
}

/** Index of the first byte that differs, or -1. The buffers are equally long. */
export function firstDifference(a: Buffer, b: Buffer): number {
  if (a.equals(b)) return -1;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return i;
  return -1;
}

export function isZero(bytes: Buffer): boolean {
  for (const byte of bytes) if (byte !== 0) return false;
  return true;
}

/** LBA of a byte position. */
export function lbaOf(position: number): number {
  return Math.floor(position / BLOCK_BYTES);
}
