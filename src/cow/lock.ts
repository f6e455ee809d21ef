/**
 * Holding a partition for one process, in such a way that a SIGKILL lets go of it at once.
 *
 * A lock is a file that names its holder: process id, the moment that process started (so that a reused id is not
 * taken for it) and the boot. It comes into being whole, by link(2), so nobody ever reads half of it. A lock whose
 * holder is gone may be replaced, but only by one of those who want to: the right to replace a certain holder is
 * itself a lock, named after that holder, and taken in the same way.
 *
 * FAT and exFAT, which backup discs may have, know no link(2). There the file is made under its name by O_EXCL and filled
 * at once; one that stays empty for UNFILLED_MS is taken for that of a process which died in between.
 */

import assert from 'node:assert/strict';
import { createHash, randomUUID } from 'node:crypto';
import {
  accessSync,
  chmodSync,
  closeSync,
  constants,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readSync,
  readdirSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { OperationalError } from '../operational-error.js';

const MAX_DEPTH = 4;
/** Between the making of a lock and its first byte no more than this passes in a process that lives. */
const UNFILLED_MS = 5000;
const UNFILLED_LOOK_MS = 20;
/** What link(2) and chmod(2) answer where the file system has no such thing. */
const UNKNOWN_TO_FS = ['EPERM', 'ENOSYS', 'ENOTSUP', 'EOPNOTSUPP'] as const;

export interface Lock {
  release(): void;
}

/**
 * For partitions by uuid, whatever path leads to them. A lock is taken in the first folder that is there, or can be made,
 * and be written to; locks are looked for in all of them. The second one is for hosts without /run/lock, and for users
 * who may not write there.
 */
export const LOCK_FOLDERS: readonly string[] = ['/run/lock/cldd', '/tmp/cldd-locks'];
/** As /tmp itself: everybody may take locks there, and remove only his own. */
const FOR_ALL = 0o1777;
/** More than any lock or /proc/PID/stat has. */
const LOCK_BYTES_MAX = 4096;

/**
 * Takes the lock.
 * @throws OperationalError PARTITION_BUSY if a living process holds it; `what` names the thing for the message;
 *   PARTITION_NOT_PERMITTED if this user may not write there
 */
export function takeLock(path: string, what: string): Lock {
  try {
    take(path, what, 0);
  } catch (error) {
    throw explained(path, what, error);
  }
  const mine = identity();
  return {
    release: () => {
      if (read(path) === mine) unlinkSync(path);
    },
  };
}

/**
 * As `takeLock`, for a partition's uuid: a copy beside its original has the same.
 *
 * Each user has a lock of his own, `UUID.UID`, because what a process that was killed leaves in a folder like /tmp only
 * its owner can replace. So whoever has taken his own looks for those of others, in all folders; of two who do that at
 * once at least one sees the other.
 */
export function takeUuidLock(uuid: string, what: string, folders: readonly string[] = LOCK_FOLDERS): Lock {
  const folder = folders.find(isUsable);
  if (folder === undefined) {
    throw new OperationalError(
      'PARTITION_NOT_PERMITTED',
      `none of the folders for locks (${folders.join(', ')}) can be written to: make one, with mode 1777`,
    );
  }
  const own = `${uuid}.${userId()}`;
  const lock = takeLock(join(folder, own), what);
  try {
    for (const other of folders) refuseOthers(other, uuid, folder === other ? own : undefined, what);
  } catch (error) {
    lock.release();
    throw explained(folder, what, error);
  }
  return lock;
}

/** Makes the folder if need be. */
function isUsable(folder: string): boolean {
  try {
    if (!existsSync(folder)) mkdirSync(folder);
    // mkdir obeys the umask, and a daemon that runs as another user needs the folder as well.
    const { uid, mode } = statSync(folder);
    if (uid === userId() && (mode & 0o7777) !== FOR_ALL) chmodSync(folder, FOR_ALL);
    accessSync(folder, constants.W_OK);
    return true;
  } catch {
    // Another one may do; if none does, that is said.
    return false;
  }
}

function userId(): number {
  const id = process.getuid?.();
  assert(id !== undefined, 'a system without users');
  return id;
}

function refuseOthers(folder: string, uuid: string, own: string | undefined, what: string): void {
  const isLock = new RegExp(`^${uuid}(\\.[0-9]+)?$`);
  for (const name of namesIn(folder)) {
    if (!isLock.test(name) || name === own) continue;
    const holder = read(join(folder, name));
    if (holder !== undefined && isAlive(holder)) throw busy(what, holder);
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if (isCode(error, 'ENOENT')) return [];
    throw error;
  }
}

function take(path: string, what: string, depth: number): void {
  const mine = identity();
  const fresh = `${path}.${randomUUID()}`;
  try {
    writeLock(fresh, mine);
    for (;;) {
      if (tryPlace(fresh, path, mine)) return;
      const holder = readFilled(path);
      if (holder === undefined) continue;
      if (isAlive(holder) || depth === MAX_DEPTH) throw busy(what, holder);
      replaceGone(path, holder, fresh, what, depth);
      if (read(path) === mine) return;
    }
  } finally {
    discard(fresh);
  }
}

/** A whole lock, of a name that nothing has. */
function writeLock(path: string, text: string): void {
  writeFileSync(path, text, { flag: 'wx' });
  try {
    // Whatever the umask: other users have to see who holds it.
    chmodSync(path, 0o644);
  } catch (error) {
    if (!UNKNOWN_TO_FS.some((code) => isCode(error, code))) throw error;
  }
}

function replaceGone(path: string, holder: string, fresh: string, what: string, depth: number): void {
  const right = `${path}.after-${createHash('sha256').update(holder).digest('hex').slice(0, 16)}`;
  take(right, what, depth + 1);
  try {
    // Somebody who had the right before may have replaced the holder already.
    if (read(path) === holder) {
      const copy = `${fresh}.own`;
      try {
        writeLock(copy, identity());
        renameSync(copy, path);
      } finally {
        discard(copy);
      }
    }
  } finally {
    discard(right);
  }
}

/** Gives what is whole the name, unless something has it. */
function tryPlace(fresh: string, path: string, mine: string): boolean {
  try {
    linkSync(fresh, path);
    return true;
  } catch (error) {
    if (isCode(error, 'EEXIST')) return false;
    if (!UNKNOWN_TO_FS.some((code) => isCode(error, code))) throw error;
  }
  try {
    writeFileSync(path, mine, { flag: 'wx' });
  } catch (error) {
    if (isCode(error, 'EEXIST')) return false;
    throw error;
  }
  // Had we slept before the first byte, somebody else may have its name now.
  return read(path) === mine;
}

/** As `read`, but one that is being made is waited for, for a while. */
function readFilled(path: string): string | undefined {
  const began = performance.now();
  for (;;) {
    const holder = read(path);
    if (holder !== '' || performance.now() - began > UNFILLED_MS) return holder;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, UNFILLED_LOOK_MS);
  }
}

/** Whatever else somebody puts in a lock's place is not waited for, nor followed. */
function read(path: string): string | undefined {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (isCode(error, 'ENOENT')) return undefined;
    throw error;
  }
  try {
    return firstBytes(fd);
  } finally {
    closeSync(fd);
  }
}

function firstBytes(fd: number): string | undefined {
  const bytes = Buffer.alloc(LOCK_BYTES_MAX);
  try {
    return bytes.toString('utf8', 0, readSync(fd, bytes));
  } catch (error) {
    // A process that ends between the two.
    if (isCode(error, 'ESRCH')) return undefined;
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

/** @throws OperationalError PARTITION_NOT_PERMITTED if there is no /proc: nobody could tell then that we live */
function identity(): string {
  const start = startOf(process.pid);
  if (start === undefined) {
    throw new OperationalError(
      'PARTITION_NOT_PERMITTED',
      'there is no /proc, by which others tell whether the holder of a lock lives: mount it',
    );
  }
  return `${process.pid} ${start} ${bootId()} ${instance}\n`;
}

function isAlive(holder: string): boolean {
  const [pid, start, boot] = holder.trim().split(' ');
  if (boot !== bootId()) return false;
  return startOf(Number(pid)) === start || isHidden(Number(pid));
}

/** /proc may be mounted so that it hides the processes of others (hidepid): then it can't be told who has the id now. */
function isHidden(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return isCode(error, 'EPERM') && read(`/proc/${pid}/stat`) === undefined;
  }
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

function explained(path: string, what: string, error: unknown): unknown {
  const code = ['EACCES', 'EPERM', 'EROFS', 'ELOOP'].find((one) => isCode(error, one));
  if (code === undefined) return error;
  return new OperationalError(
    'PARTITION_NOT_PERMITTED',
    `the lock ${path} of ${what} can't be taken (${code}): this user may not write there, or a process of another user ` +
      'left it; see that nobody uses the partition, then remove it',
    { cause: error },
  );
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
