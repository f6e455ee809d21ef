/**
 * The system calls under a FileStore, failing on demand: what the kernel may answer to pread, pwrite and fdatasync of one
 * file, errors and short counts. Other files are left alone. Nothing here is real durability: a sync does nothing.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

export const CALLS = [
  'pread',
  'pwrite',
  'pread in the pool',
  'pwrite in the pool',
  'fdatasync',
  'fdatasync at once',
] as const;
export type Call = (typeof CALLS)[number];

export interface SystemFault {
  readonly call: Call;
  /** Counted from 0. */
  readonly at: number;
  /** This call only, or all that follow, too. */
  readonly persistent: boolean;
  /** An error's code; 'short': a part of what was asked for, at least a byte; 'nothing': a count of 0. */
  readonly answer: 'EIO' | 'ENOSPC' | 'short' | 'nothing';
}

type Done = (error: Error | null, count?: number) => void;

/** What is put in the place of something, and put back: fs as a whole has properties that can't be set. */
const { openSync, close, readSync, writeSync, read, write, fdatasyncSync, fdatasync } = fs;
const real = { openSync, close, readSync, writeSync, read, write, fdatasyncSync, fdatasync };

export class FaultyFs {
  readonly #path: string;
  readonly #descriptors = new Set<number>();
  readonly #counts = new Map<Call, number>();
  fault: SystemFault | undefined;
  tripped = false;

  /** From here on, until `restore`. */
  constructor(path: string) {
    this.#path = path;
    Object.assign(fs, {
      openSync: (path: string, flags?: fs.OpenMode, mode?: fs.Mode) => {
        const mine = path === this.#path;
        const wished = mine && typeof flags === 'number' ? flags & ~fs.constants.O_DSYNC : flags;
        const fd = real.openSync(path, wished ?? 'r', mode);
        if (mine) this.#descriptors.add(fd);
        return fd;
      },
      close: (fd: number, done: (error?: Error | null) => void) => {
        this.#descriptors.delete(fd);
        real.close(fd, done);
      },
      readSync: (
        fd: number,
        buffer: Uint8Array,
        offset = 0,
        length = buffer.length - offset,
        position: number | null = null,
      ) => real.readSync(fd, buffer, offset, this.#allowed(fd, 'pread', length), position),
      writeSync: (fd: number, buffer: Uint8Array, offset: number, length: number, position: number) =>
        real.writeSync(fd, buffer, offset, this.#allowed(fd, 'pwrite', length), position),
      read: (fd: number, buffer: Uint8Array, offset: number, length: number, position: number, done: Done) =>
        later(done, () =>
          real.readSync(fd, buffer, offset, this.#allowed(fd, 'pread in the pool', length), position),
        ),
      write: (fd: number, buffer: Uint8Array, offset: number, length: number, position: number, done: Done) =>
        later(done, () =>
          real.writeSync(fd, buffer, offset, this.#allowed(fd, 'pwrite in the pool', length), position),
        ),
      fdatasyncSync: (fd: number) => void this.#allowed(fd, 'fdatasync at once', 0),
      fdatasync: (fd: number, done: Done) => later(done, () => this.#allowed(fd, 'fdatasync', 0)),
    });
    syncBuiltinESMExports();
  }

  restore(): void {
    Object.assign(fs, real);
    syncBuiltinESMExports();
  }

  /** Counts from 0 again, with another fault. */
  begin(fault: SystemFault | undefined): void {
    this.fault = fault;
    this.tripped = false;
    this.#counts.clear();
  }

  /** So many bytes may be moved by this call. */
  #allowed(fd: number, call: Call, length: number): number {
    if (!this.#descriptors.has(fd)) return length;
    const count = this.#counts.get(call) ?? 0;
    this.#counts.set(call, count + 1);
    const { fault } = this;
    if (fault?.call !== call || !(count === fault.at || (fault.persistent && count > fault.at)))
      return length;
    this.tripped = true;
    if (fault.answer === 'nothing') return 0;
    if (fault.answer === 'short') return Math.max(1, Math.floor(length / 3));
    throw Object.assign(new Error(`${fault.answer}: injected`), { code: fault.answer });
  }
}

function later(done: Done, work: () => number): void {
  setImmediate(() => {
    let count = 0;
    let failure: Error | null = null;
    try {
      count = work();
    } catch (error) {
      failure = error as Error;
    }
    done(failure, count);
  });
}
