/** Writes a chain of backups to a raw image, a block device, or the master of a cldd partition. */
import {
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  statSync,
  writeSync,
} from 'node:fs';
import { Partition } from '../../cow/partition.js';
import { OperationalError } from '../../operational-error.js';
import { RESULT } from '../../cow/results.js';
import { readExtents } from './backup-file.js';
import type { BackupFile } from './backup-file.js';
import { Pace } from './pace.js';
import type { Progress } from './progress.js';
import type { RestoreMark, RestorePoint } from './resume.js';

const ZEROS = Buffer.alloc(1024 * 1024);
/** A map page's worth: its pages are at hand together. */
const UNMAP_BYTES = 32 * 1024 * 1024;

/** What is restored to. Positions ascend within a backup. */
interface Destination {
  write(position: number, data: Buffer): Promise<void>;
  zero(position: number, length: number): Promise<void>;
  /** Makes all durable. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export type DestinationKind = 'image' | 'device' | 'partition';

/** What is there. @throws {OperationalError} NEEDS_YES if that would be overwritten */
export async function kindOf(path: string, yes: boolean): Promise<DestinationKind> {
  if (!existsSync(path)) return 'image';
  const found = await Partition.probe(path);
  const what = found === 'cldd' ? 'a cldd partition' : found;
  if (!yes)
    throw new OperationalError(
      'NEEDS_YES',
      `${path} exists${what === undefined ? '' : ` and holds ${what}`}; nothing was changed; say --yes to overwrite ${found === 'cldd' ? 'its master' : 'it'}`,
    );
  if (found === 'cldd') return 'partition';
  return statSync(path).isBlockDevice() ? 'device' : 'image';
}

/** Between two durable points of a restore. */
const POINT_BYTES = 64 * 1024 * 1024;

export interface RestoreOptions {
  mark: RestoreMark;
  /** Where an earlier run was interrupted. */
  from: RestorePoint | undefined;
  /** Bytes a second; undefined: as fast as it goes. */
  rate: number | undefined;
  progress: Progress;
}

/**
 * Applies the chain, the full backup first. Every frame is proved again as it is read. To apply one twice does no harm,
 * as long as those after it follow.
 */
export async function restore(
  chain: readonly BackupFile[],
  path: string,
  kind: DestinationKind,
  { mark, from = { file: 0, frames: 0 }, rate, progress }: RestoreOptions,
): Promise<void> {
  const capacityBytes = chain.at(-1)?.header.capacityBytes ?? 0;
  const resumes = from.file > 0 || from.frames > 0;
  const destination =
    kind === 'partition'
      ? await openMaster(path, capacityBytes)
      : openRaw(path, kind, capacityBytes, resumes);
  const pace = new Pace(rate);
  let sinceBytes = 0;
  try {
    mark.write(from);
    for (const [index, file] of chain.entries()) {
      if (index < from.file) continue;
      for (const { position, length, data, frames } of readExtents(file.path, file.header)) {
        if (index === from.file && frames <= from.frames) {
          progress.skip(length);
          continue;
        }
        if (data === undefined) await destination.zero(position, length);
        else {
          await destination.write(position, data);
          sinceBytes += length;
          await pace.keep(length);
        }
        progress.add(length);
        if (sinceBytes < POINT_BYTES) continue;
        await destination.sync();
        mark.write({ file: index, frames });
        sinceBytes = 0;
      }
    }
    await destination.sync();
  } catch (error) {
    throw explain(error, path);
  } finally {
    await destination.close();
    progress.end();
  }
  mark.remove();
}

/** A restore onto a file that it reads would destroy the backup. @throws {OperationalError} BACKUP_EXISTS */
export function refuseOwnBackups(path: string, files: readonly BackupFile[]): void {
  const to = statSync(path, { throwIfNoEntry: false });
  if (to === undefined) return;
  for (const file of files) {
    const { dev, ino } = statSync(file.path);
    if (dev === to.dev && ino === to.ino)
      throw new OperationalError('BACKUP_EXISTS', `${path} is one of the backups: name another place`);
  }
}

function explain(error: unknown, path: string): unknown {
  const { code } = error as NodeJS.ErrnoException;
  const again = 'run the same command again to go on';
  if (code === 'ENOSPC')
    return new OperationalError('NO_SPACE', `the disc is full at ${path}: make room, and ${again}`, {
      cause: error,
    });
  if (code === 'EIO' || code === 'EFBIG')
    return new OperationalError(
      'DESTINATION_FAILED',
      `${path} can't be written (${code}): see to it, and ${again}`,
      { cause: error },
    );
  return error;
}

function openDestination(path: string, kind: DestinationKind): number {
  try {
    // O_EXCL: the kernel refuses a device that is mounted or in use.
    if (kind === 'device') return openSync(path, constants.O_RDWR | constants.O_EXCL);
    return openSync(path, existsSync(path) ? 'r+' : 'w+', 0o600);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EBUSY') throw error;
    throw new OperationalError('PARTITION_BUSY', `${path} is mounted or in use: unmount it first`, {
      cause: error,
    });
  }
}

function openRaw(path: string, kind: DestinationKind, capacityBytes: number, resumes: boolean): Destination {
  const fd = openDestination(path, kind);
  if (kind === 'image') {
    try {
      if (!resumes) ftruncateSync(fd, 0);
      ftruncateSync(fd, capacityBytes);
    } catch (error) {
      closeSync(fd);
      throw explain(error, path);
    }
  } else if (readSync(fd, Buffer.alloc(512), 0, 512, capacityBytes - 512) !== 512) {
    closeSync(fd);
    throw tooSmall(path, capacityBytes);
  }
  const write = (position: number, data: Buffer): void => {
    let done = 0;
    while (done < data.length) done += writeSync(fd, data, done, data.length - done, position + done);
  };
  const there = Buffer.alloc(ZEROS.length);
  return {
    write: (position, data) => {
      write(position, data);
      return Promise.resolve();
    },
    // What reads as zeros already is left alone, so that a sparse file stays one.
    zero: (position, length) => {
      for (let at = position; at < position + length; at += ZEROS.length) {
        const size = Math.min(ZEROS.length, position + length - at);
        readSync(fd, there, 0, size, at);
        if (there.compare(ZEROS, 0, size, 0, size) !== 0) write(at, ZEROS.subarray(0, size));
      }
      return Promise.resolve();
    },
    sync: () => {
      fsyncSync(fd);
      return Promise.resolve();
    },
    close: () => {
      closeSync(fd);
      return Promise.resolve();
    },
  };
}

async function openMaster(path: string, capacityBytes: number): Promise<Destination> {
  const partition = await Partition.open(path);
  const { master } = partition;
  const refuse = async (error: OperationalError): Promise<never> => {
    await partition.close();
    throw error;
  };
  if (master.capacityBytes < capacityBytes) await refuse(tooSmall(path, capacityBytes));
  if (partition.slave.present)
    await refuse(
      new OperationalError('ALREADY_ENABLED', `the slave of ${path} is enabled: disable it before a restore`),
    );
  const require = (result: number): void => {
    if (result !== RESULT.OK)
      throw new OperationalError('PARTITION_FAILED', `${path} can't be written: check the device`);
  };
  return {
    write: async (position, data) =>
      require(await new Promise((done) => master.writeAsync(position, data, 0, data.length, done))),
    zero: async (position, length) => {
      let at = position;
      while (at < position + length) {
        const run = master.provisioning(at, Math.min(UNMAP_BYTES, position + length - at));
        if (run.mapped) {
          let result = master.unmap(at, run.lengthBytes);
          while (result === RESULT.PENDING) {
            const from = at;
            const outcome = await new Promise<number>((done) => {
              const now = master.prepareWrite(from, run.lengthBytes, done);
              if (now !== RESULT.PENDING) done(now);
            });
            if (outcome !== RESULT.PENDING) require(outcome);
            result = master.unmap(at, run.lengthBytes);
          }
          require(result);
        }
        at += run.lengthBytes;
      }
    },
    sync: async () => require(await new Promise((done) => master.flush(done))),
    close: () => partition.close(),
  };
}

function tooSmall(path: string, capacityBytes: number): OperationalError {
  return new OperationalError('TOO_SMALL', `${path} has no room for an image of ${capacityBytes} bytes`);
}
