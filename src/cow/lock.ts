/**
 * Holding a partition for one process, in such a way that a SIGKILL lets go of it at once.
 *
 * A lock is a file that names its holder: process id, the moment that process started (so that a reused id is not
 * taken for it) and the boot. It comes into being whole, by link(2), so nobody ever reads half of it. A lock whose
 * holder is gone may be replaced, but only by one of those who want to: the right to replace a certain holder is
 * itself a lock, named after that holder, and taken in the same way.
 */

import { createHash, randomUUID } from 'node:crypto';
import {
  chmodSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { OperationalError } from '../operational-error.js';

const MAX_DEPTH = 4;

export interface Lock {
  release(): void;
}

/** For partitions by uuid, whatever path leads to them. One folder for all users, as /tmp is. */
export const LOCK_FOLDER = '/tmp/cldd-locks';
/** As /tmp itself: everybody may take locks there, and remove only his own. */
const FOR_ALL = 0o1777;

/**
 * Takes the lock.
 * @throws OperationalError PARTITION_BUSY if a living process holds it; `what` names the thing for the message
 */
export function takeLock(path: string, what: string): Lock {
  take(path, what, 0);
  const mine = identity();
  return {
    release: () => {
      if (read(path) === mine) unlinkSync(path);
    },
  };
}

/** As `takeLock`, for a partition's uuid: a copy beside its original has the same. */
export function takeUuidLock(uuid: string, what: string): Lock {
  mkdirSync(LOCK_FOLDER, { recursive: true });
  // mkdir obeys the umask, and a daemon that runs as another user needs the folder as well.
  const { uid, mode } = statSync(LOCK_FOLDER);
  if (uid === process.getuid?.() && (mode & 0o7777) !== FOR_ALL) chmodSync(LOCK_FOLDER, FOR_ALL);
  return takeLock(`${LOCK_FOLDER}/${uuid}`, what);
}

function take(path: string, what: string, depth: number): void {
  const mine = identity();
  const fresh = `${path}.${randomUUID()}`;
  writeFileSync(fresh, mine, { flag: 'wx' });
  try {
    for (;;) {
      if (tryLink(fresh, path)) return;
      const holder = read(path);
      if (holder === undefined) continue;
      if (isAlive(holder) || depth === MAX_DEPTH) throw busy(what, holder);
      replaceGone(path, holder, fresh, what, depth);
      if (read(path) === mine) return;
    }
  } finally {
    discard(fresh);
  }
}

function replaceGone(path: string, holder: string, fresh: string, what: string, depth: number): void {
  const right = `${path}.after-${createHash('sha256').update(holder).digest('hex').slice(0, 16)}`;
  take(right, what, depth + 1);
  try {
    // Somebody who had the right before may have replaced the holder already.
    if (read(path) === holder) {
      const copy = `${fresh}.own`;
      linkSync(fresh, copy);
      renameSync(copy, path);
      discard(copy);
    }
  } finally {
    discard(right);
  }
}

function tryLink(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if (isCode(error, 'EEXIST')) return false;
    throw error;
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (isCode(error, 'ENOENT')) return undefined;
    throw error;
  }
}

function discard(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (!isCode(error, 'ENOENT')) throw error;
  }
}

const instance = randomUUID();

function identity(): string {
  return `${process.pid} ${startOf(process.pid) ?? '?'} ${bootId()} ${instance}\n`;
}

function isAlive(holder: string): boolean {
  const [pid, start, boot] = holder.trim().split(' ');
  return boot === bootId() && startOf(Number(pid)) === start;
}

/** Clock ticks between the boot and the process's start: field 22 of its stat, counted behind the name in brackets. */
function startOf(pid: number): string | undefined {
  const stat = read(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  // A zombie has ended, only its parent has not looked yet.
  return fields[0] === 'Z' ? undefined : fields[19];
}

function bootId(): string {
  return (read('/proc/sys/kernel/random/boot_id') ?? '?').trim();
}

function busy(what: string, holder: string): OperationalError {
  const pid = holder.split(' ', 1)[0];
  return new OperationalError(
    'PARTITION_BUSY',
    `${what} is in use by process ${pid}; stop it first (a copy of a partition can't be served beside its original)`,
  );
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
