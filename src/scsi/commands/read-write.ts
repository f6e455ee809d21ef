/**
 * READ and WRITE (6/10/12/16), SBC-5 §5.17 to §5.20 and §5.43 to §5.46: the hot path. Nothing here allocates while the
 * medium can be read and written at once.
 */
import { MEDIUM } from '../medium.js';
import type { MediumResult } from '../medium.js';
import { finish, good, leave, pending, sendSegments, status } from '../respond.js';
import { STATUS } from '../sense.js';
import type { DataOutHandler, Task } from '../task.js';
import { BLOCK_BYTES, pathOf } from '../unit.js';
import type { Path } from '../unit.js';
import { blocks, inRange, lba } from './block-range.js';

/** `task.flags` of a WRITE. */
const DATA_ENDED = 1;
const DURABLE = 2;
const FLUSHING = 4;

/** FORCE UNIT ACCESS, in byte 1 of every CDB longer than 6 bytes. */
export const FUA = 0x08;

export function read(task: Task, path: Path): void {
  const { cdb } = task;
  if (!inRange(task, lba(cdb), blocks(cdb))) return;
  if (cdb[0] >= 0x20 && (cdb[1] & FUA) !== 0 && !path.unit.medium.writeProtected) {
    // FUA: what the cache holds newer than the medium is written first (SBC-5 §4.15.2).
    path.unit.medium.flush(
      pending(task, (result) => {
        if (result === MEDIUM.OK) readNow(task, path);
        else finish(task, result);
      }),
    );
    return;
  }
  readNow(task, path);
}

function readNow(task: Task, path: Path): void {
  const { unit } = path;
  const { medium } = unit;
  let left = task.beginDataIn(task.remaining);
  path.lastUseMs = Date.now();
  unit.statistics.readOps++;
  unit.statistics.readBytes += left;
  if (left === 0) {
    good(task);
    return;
  }
  const { background } = unit.services;
  if (!unit.removable) background.masterUsed(path.lastUseMs);
  if (!background.admits(left, unit.removable)) {
    readInTurns(task, path, left);
    return;
  }
  if (medium.readsSlowly(left)) {
    readSlowly(task, path, left);
    return;
  }
  for (;;) {
    const bytes = readPiece(task, path, left);
    if (bytes === 0) return;
    left -= bytes;
    if (left === 0) break;
    task.commitDataIn(false);
  }
  endRead(task);
}

/** Reads at most `bytes` into what the transport sends next, and returns how many; 0: it failed, and the task has ended. */
function readPiece(task: Task, path: Path, bytes: number): number {
  const length = task.reserveDataIn(bytes);
  const result =
    length % BLOCK_BYTES === 0 && task.position % BLOCK_BYTES === 0
      ? path.unit.medium.read(task.position, task.inBuffer, task.inOffset, length)
      : readUnaligned(task, path, length);
  if (result !== MEDIUM.OK) {
    task.cancelDataIn();
    finish(task, result, Math.floor(task.position / BLOCK_BYTES));
    return 0;
  }
  task.position += length;
  return length;
}

/** The last piece has been read: sends it. */
function endRead(task: Task): void {
  const tasks = leave(task);
  task.commitDataIn(true);
  tasks?.advance();
}

/** As `readNow`, in this and further turns of the event loop, since others want it, too. */
function readInTurns(task: Task, path: Path, bytes: number): void {
  const { unit } = path;
  const { medium } = unit;
  const { generation } = medium;
  let left = bytes;
  task.pending++;
  // A peer that reads nothing must not have its whole window of reads made and kept for it.
  task.expectDataIn(bytes);
  unit.services.background.run(bytes, unit.removable, (bound) => {
    task.pending--;
    if (task.aborted) {
      status(task, STATUS.TASK_ABORTED);
      return 0;
    }
    // Between two pieces the slave may have been disabled and enabled anew: never parts of two images.
    if (medium.generation !== generation) {
      finish(task, MEDIUM.ABSENT);
      return 0;
    }
    if (left === bytes && medium.readsSlowly(left)) {
      readSlowly(task, path, left);
      return 0;
    }
    for (let moved = 0; moved < bound;) {
      const read = readPiece(task, path, Math.min(left, bound - moved));
      if (read === 0) return 0;
      moved += read;
      left -= read;
      if (left === 0) {
        endRead(task);
        return 0;
      }
      task.commitDataIn(false);
    }
    task.pending++;
    return left;
  });
}

/** A piece that does not begin and end with a block: the initiator's segment or transfer length is odd. */
function readUnaligned(task: Task, path: Path, bytes: number): MediumResult {
  const first = task.position - (task.position % BLOCK_BYTES);
  const last = Math.ceil((task.position + bytes) / BLOCK_BYTES) * BLOCK_BYTES;
  const bounce = Buffer.alloc(last - first);
  const result = path.unit.medium.read(first, bounce, 0, bounce.length);
  bounce.copy(task.inBuffer, task.inOffset, task.position - first, task.position - first + bytes);
  return result;
}

/** The device is slow just now: read through the thread pool, so that the event loop goes on. */
function readSlowly(task: Task, path: Path, bytes: number): void {
  const { medium } = path.unit;
  const segments = task.segmentDataIn(bytes);
  const aligned = segments.every((segment) => segment.length % BLOCK_BYTES === 0);
  const bounce = aligned ? undefined : Buffer.alloc(Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES);
  const done = (result: number): void => {
    task.result ||= result;
    if (task.pending > 0) return;
    if (task.result !== MEDIUM.OK) {
      finish(task, task.result, task.position / BLOCK_BYTES);
      return;
    }
    if (bounce !== undefined) {
      let from = 0;
      for (const { buffer, offset, length } of segments)
        from += bounce.copy(buffer, offset, from, from + length);
    }
    sendSegments(task);
  };
  if (bounce !== undefined) {
    medium.readAsync(task.position, bounce, 0, bounce.length, pending(task, done));
    return;
  }
  let position = task.position;
  for (const { buffer, offset, length } of segments) {
    medium.readAsync(position, buffer, offset, length, pending(task, done));
    position += length;
  }
}

export function write(task: Task, path: Path): void {
  const { cdb } = task;
  const first = lba(cdb);
  const count = blocks(cdb);
  if (!inRange(task, first, count)) return;
  task.flags = !path.unit.modes.writeCacheEnabled || (cdb[0] >= 0x20 && (cdb[1] & FUA) !== 0) ? DURABLE : 0;
  path.unit.statistics.writeOps++;
  path.unit.services.background.masterUsed(path.lastUseMs);
  task.handler = WRITE;
  task.receiveDataOut(task.remaining, false);
}

const WRITE: DataOutHandler = {
  onDataOut(task, buffer, offset, length) {
    if (task.result !== MEDIUM.OK) return;
    const { unit } = pathOf(task);
    // Only the last chunk of a short transfer can hold part of a block: that part is not written.
    const bytes = length - (length % BLOCK_BYTES);
    if (bytes === 0) return;
    unit.statistics.writeBytes += bytes;
    const result = unit.medium.write(task.position, buffer, offset, bytes);
    if (result === MEDIUM.PENDING) {
      const kept = task.keep(buffer, offset, bytes);
      task.pending++;
      unit.medium.writeAsync(task.position, kept, 0, bytes, mediumDone(task));
    } else {
      task.result = result;
    }
    task.position += bytes;
  },
  onDataOutEnd(task) {
    task.flags |= DATA_ENDED;
    if (task.pending === 0) written(task);
  },
};

/** The task's own callback, made once per task object, so that asynchronous writes allocate nothing either. */
function mediumDone(task: Task): (result: MediumResult) => void {
  task.mediumDone ??= (result) => {
    task.pending--;
    if (task.pending === 0) task.releaseKept();
    if (task.aborted) {
      if (task.pending === 0) status(task, STATUS.TASK_ABORTED);
      return;
    }
    task.result ||= result;
    if (task.pending > 0 || (task.flags & DATA_ENDED) === 0) return;
    if ((task.flags & FLUSHING) === 0) written(task);
    else finish(task, task.result);
  };
  return task.mediumDone;
}

function written(task: Task): void {
  if (task.result === MEDIUM.OK && (task.flags & DURABLE) !== 0) {
    const { unit } = pathOf(task);
    task.flags |= FLUSHING;
    task.pending++;
    unit.statistics.flushes++;
    unit.medium.flush(mediumDone(task));
    return;
  }
  finish(task, task.result);
}
