/**
 * The only file that touches the partition's file descriptor. `Store` is what the engine needs of it; the tests put
 * recording, faulty and slow ones in its place.
 */

import {
  close,
  closeSync,
  constants,
  existsSync,
  fdatasync,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  openSync,
  read,
  readFileSync,
  readSync,
  statSync,
  statfsSync,
  unlinkSync,
  write,
  writeSync,
} from 'node:fs';
import { OperationalError } from '../operational-error.js';

/** stat counts blocks of this size. */
const STAT_BLOCK_BYTES = 512;

export type StoreDone = (error: Error | null) => void;

/** Bytes on a device. All transfers are whole: a short one is continued, and an error ends it. */
export interface Store {
  readonly sizeBytes: number;
  /** Throws if the bytes can't be read. */
  readSync(buffer: Uint8Array, offset: number, length: number, position: number): void;
  /** To the page cache; durable only after a `sync` that began later. Throws if it fails. */
  writeSync(buffer: Uint8Array, offset: number, length: number, position: number): void;
  /** As `readSync`, through the thread pool. */
  read(buffer: Uint8Array, offset: number, length: number, position: number, done: StoreDone): void;
  /** fdatasync, through the thread pool. */
  sync(done: StoreDone): void;
  /** fdatasync in this thread. Throws if it fails. */
  syncAtOnce(): void;
  /**
   * Writes through the thread pool, and is done when these bytes are durable; of other writes it says nothing, and waits
   * for none of them. The bytes must stay as they are until then.
   */
  writeDurably(bytes: Buffer, position: number, done: StoreDone): void;
  /** As `writeDurably`, in this thread. Throws if it fails. */
  writeDurablyAtOnce(bytes: Buffer, position: number): void;
  /** Asks the device for its size again, for a grow. */
  refreshSize(): number;
  close(): Promise<void>;
}

export function syncStore(store: Store): Promise<void> {
  return new Promise((resolve, reject) => {
    store.sync((error) => {
      if (error === null) resolve();
      else reject(error);
    });
  });
}

export function readStore(store: Store, buffer: Uint8Array, position: number): Promise<void> {
  return new Promise((resolve, reject) => {
    store.read(buffer, 0, buffer.length, position, (error) => {
      if (error === null) resolve();
      else reject(error);
    });
  });
}

/**
 * What each copy of a structure says; undefined for one that is not whole. A copy that the device can't read counts as
 * that, because a power cut may leave a sector so, and the others are there for both. If it can read none of them, what
 * they say is not known: then this throws what the device said.
 */
export function readCopies<T>(reads: readonly (() => T | undefined)[]): (T | undefined)[] {
  const failures: unknown[] = [];
  const found = reads.map((read) => {
    try {
      return read();
    } catch (error) {
      failures.push(error);
      return undefined;
    }
  });
  if (failures.length === reads.length) throw failures[0];
  return found;
}

/** As `Store.writeDurably`. */
export function writeStoreDurably(store: Store, bytes: Buffer, position: number): Promise<void> {
  return new Promise((resolve, reject) => {
    store.writeDurably(bytes, position, (error) => {
      if (error === null) resolve();
      else reject(error);
    });
  });
}

export class FileStore implements Store {
  readonly #fd: number;
  /** The same file with O_DSYNC. A sync by the other one would wait for all that is dirty. */
  readonly #durableFd: number;
  readonly isBlockDevice: boolean;
  sizeBytes: number;

  /** `durableFd`: the same file, opened with O_DSYNC; `fd` again for a store that is only read. */
  constructor(fd: number, durableFd: number) {
    this.#fd = fd;
    this.#durableFd = durableFd;
    this.isBlockDevice = fstatSync(fd).isBlockDevice();
    this.sizeBytes = sizeOf(fd);
  }

  /**
   * Opens a regular file or block device. A block device is opened with O_EXCL: the kernel refuses it while it is
   * mounted or held by somebody else, and forgets the claim when this process ends, however it ends.
   */
  static open(path: string, mode: 'read' | 'write'): FileStore {
    let fd: number | undefined;
    let durableFd: number | undefined;
    try {
      fd = openSync(path, mode === 'read' ? constants.O_RDONLY : constants.O_RDWR);
      const stat = fstatSync(fd);
      if (!stat.isFile() && !stat.isBlockDevice()) {
        throw new OperationalError('NOT_A_PARTITION', `${path} is neither a block device nor a regular file`);
      }
      if (stat.isBlockDevice() && mode === 'write') {
        closeSync(fd);
        fd = undefined;
        fd = openSync(path, constants.O_RDWR | constants.O_EXCL);
      }
      if (mode === 'read') return new FileStore(fd, fd);
      durableFd = openSync(path, constants.O_RDWR | constants.O_DSYNC);
      requireSameFile(path, fd, durableFd);
      return new FileStore(fd, durableFd);
    } catch (error) {
      if (fd !== undefined) closeSync(fd);
      if (durableFd !== undefined) closeSync(durableFd);
      throw explain(path, error);
    }
  }

  readSync(buffer: Uint8Array, offset: number, length: number, position: number): void {
    let done = 0;
    while (done < length) {
      const count = readSync(this.#fd, buffer, offset + done, length - done, position + done);
      if (count === 0) throw new Error(`the device ends at ${position + done}, inside a read`);
      done += count;
    }
  }

  writeSync(buffer: Uint8Array, offset: number, length: number, position: number): void {
    writeAll(this.#fd, buffer, offset, length, position);
  }

  read(buffer: Uint8Array, offset: number, length: number, position: number, done: StoreDone): void {
    read(this.#fd, buffer, offset, length, position, (error, count) => {
      if (error !== null) done(error);
      else if (count === length) done(null);
      else if (count === 0) done(new Error(`the device ends at ${position}, inside a read`));
      else this.read(buffer, offset + count, length - count, position + count, done);
    });
  }

  sync(done: StoreDone): void {
    fdatasync(this.#fd, done);
  }

  syncAtOnce(): void {
    fdatasyncSync(this.#fd);
  }

  writeDurably(bytes: Buffer, position: number, done: StoreDone): void {
    write(this.#durableFd, bytes, 0, bytes.length, position, (error, count) => {
      if (error !== null) done(error);
      else if (count === bytes.length) done(null);
      else if (count === 0) done(new Error(`the device takes nothing more at ${position}`));
      else this.writeDurably(bytes.subarray(count), position + count, done);
    });
  }

  writeDurablyAtOnce(bytes: Buffer, position: number): void {
    writeAll(this.#durableFd, bytes, 0, bytes.length, position);
  }

  extendTo(sizeBytes: number): void {
    ftruncateSync(this.#fd, sizeBytes);
    this.sizeBytes = sizeBytes;
  }

  refreshSize(): number {
    this.sizeBytes = sizeOf(this.#fd);
    return this.sizeBytes;
  }

  async close(): Promise<void> {
    const fds = new Set([this.#durableFd, this.#fd]);
    await Promise.all([...fds].map((fd) => closeFile(fd)));
  }
}

function writeAll(fd: number, buffer: Uint8Array, offset: number, length: number, position: number): void {
  let done = 0;
  while (done < length) {
    const count = writeSync(fd, buffer, offset + done, length - done, position + done);
    if (count === 0) throw new Error(`the device takes nothing more at ${position + done}`);
    done += count;
  }
}

function closeFile(fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    close(fd, (error) => {
      if (error) reject(error);
      else resolve();
    });
  });
}

/** The path may have come to mean something else between two opens. */
function requireSameFile(path: string, fd: number, other: number): void {
  const [one, two] = [fstatSync(fd), fstatSync(other)];
  if (one.dev === two.dev && one.ino === two.ino && one.rdev === two.rdev) return;
  throw new OperationalError('PARTITION_BUSY', `${path} was replaced while it was opened; try again`);
}

/**
 * Creates a sparse file if there is nothing at `path`; answers whether it did.
 * @throws OperationalError SIZE_NEEDED, or as `FileStore.open`
 */
export function createFile(path: string, sizeBytes: number | undefined): boolean {
  if (existsSync(path)) return false;
  if (sizeBytes === undefined) {
    throw new OperationalError('SIZE_NEEDED', `${path} does not exist: give a size to create it as a file`);
  }
  let fd: number;
  try {
    fd = openSync(path, 'wx', 0o600);
  } catch (error) {
    throw explain(path, error);
  }
  try {
    ftruncateSync(fd, sizeBytes);
  } catch (error) {
    unlinkSync(path);
    throw explain(path, error);
  } finally {
    closeSync(fd);
  }
  return true;
}

export function removeFile(path: string): void {
  unlinkSync(path);
}

/**
 * Makes sure that the file can become as large as it says. A sparse file that runs into a full file system later is a
 * partition that fails while people write to it.
 * @throws OperationalError NO_SPACE
 */
export function requireSpace(path: string, sizeBytes: number): void {
  const { bavail, bsize } = statfsSync(path);
  const heldBytes = statSync(path).blocks * STAT_BLOCK_BYTES;
  const freeBytes = bavail * bsize + heldBytes;
  if (freeBytes >= sizeBytes) return;
  throw new OperationalError(
    'NO_SPACE',
    `${path} would have ${sizeBytes} bytes, but its file system has room for only ${freeBytes}: ` +
      'choose a smaller size, or say --thin if there will be room in time',
  );
}

/** Lets a file grow to the wished size; it is never cut. */
export function resizeFile(store: FileStore, path: string, sizeBytes: number): void {
  if (sizeBytes === store.sizeBytes) return;
  if (store.isBlockDevice || sizeBytes < store.sizeBytes) {
    throw new OperationalError(
      'SIZE_MISMATCH',
      `${path} has ${store.sizeBytes} bytes, not ${sizeBytes}: leave the size out to use it as it is`,
    );
  }
  store.extendTo(sizeBytes);
}

function sizeOf(fd: number): number {
  const stat = fstatSync(fd);
  if (!stat.isBlockDevice()) return stat.size;
  const major = ((stat.rdev >> 8) & 0xfff) | 0;
  const minor = (stat.rdev & 0xff) | ((stat.rdev >> 12) & 0xfff00);
  return Number(readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'utf8')) * 512;
}

function explain(path: string, error: unknown): Error {
  if (error instanceof OperationalError || !(error instanceof Error)) throw error;
  const { code } = error as NodeJS.ErrnoException;
  switch (code) {
    case 'ENOENT':
      return new OperationalError('NO_SUCH_PARTITION', `${path} does not exist: check the path`, {
        cause: error,
      });
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new OperationalError(
        'PARTITION_NOT_PERMITTED',
        `${path} may not be opened for writing (${code}): check its owner and mode, or run as root`,
        { cause: error },
      );
    case 'EBUSY':
      return new OperationalError(
        'PARTITION_BUSY',
        `${path} is in use: it is mounted, or another program (perhaps another cldd) holds it; release it first`,
        { cause: error },
      );
    default:
      return new OperationalError('PARTITION_UNUSABLE', `${path} can't be opened: ${error.message}`, {
        cause: error,
      });
  }
}
