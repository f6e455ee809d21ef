/** Writes a chain of backups to a raw image, a block device, or the master of a cldd partition. */
import { randomUUID } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { Partition } from '../../cow/partition.js';
import { OperationalError } from '../../operational-error.js';
import { readExtents } from './backup-file.js';
import type { BackupFile } from './backup-file.js';
import { openDestination } from './destination.js';
import type { DestinationKind } from './destination.js';
import { Pace } from './pace.js';
import type { Progress } from './progress.js';
import { Head } from './restore-head.js';
import type { RestoreMark, RestorePoint } from './resume.js';

/** What is there. @throws {OperationalError} NEEDS_YES if that would be overwritten */
export async function kindOf(path: string, yes: boolean): Promise<DestinationKind> {
  if (path === '-')
    throw new OperationalError('USAGE', '--to needs a file, a device or a partition, not stdout');
  if (!existsSync(path)) return 'image';
  const stat = statSync(path);
  if (!stat.isFile() && !stat.isBlockDevice())
    throw new OperationalError('NO_DESTINATION', `${path} is neither a file nor a block device`);
  const found = await Partition.probe(path);
  const what = found === 'cldd' ? 'a cldd partition' : found;
  if (!yes)
    throw new OperationalError(
      'NEEDS_YES',
      `${path} exists${what === undefined ? '' : ` and holds ${what}`}; nothing was changed; say --yes to overwrite ${found === 'cldd' ? 'its master' : 'it'}`,
    );
  if (found === 'cldd') return 'partition';
  return stat.isBlockDevice() ? 'device' : 'image';
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
 * Where an interrupted restore to `path` goes on: only if what is there carries its stamp, since names of discs and files
 * come to mean others.
 */
export async function whereInterrupted(
  mark: RestoreMark,
  path: string,
  kind: DestinationKind,
  capacityBytes: number,
): Promise<RestorePoint | undefined> {
  const point = mark.read();
  if (point === undefined || !existsSync(path)) return undefined;
  if (kind === 'image' && statSync(path).size !== capacityBytes) return undefined;
  const destination = await openDestination(path, kind, capacityBytes, true);
  try {
    return (await Head.isStamped(destination, point.id)) ? point : undefined;
  } finally {
    await destination.close();
  }
}

/**
 * Applies the chain, the full backup first. Every frame is proved again as it is read. To apply one twice does no harm,
 * as long as those after it follow. The head of the image comes last (restore-head.ts).
 */
export async function restore(
  chain: readonly BackupFile[],
  path: string,
  kind: DestinationKind,
  { mark, from, rate, progress }: RestoreOptions,
): Promise<void> {
  const capacityBytes = chain.at(-1)?.header.capacityBytes ?? 0;
  const begin = from ?? { id: randomUUID(), file: 0, frames: 0 };
  const pace = new Pace(rate);
  const head = new Head(capacityBytes);
  try {
    const destination = await openDestination(path, kind, capacityBytes, from !== undefined);
    let sinceBytes = 0;
    try {
      if (from === undefined) await head.stamp(destination, begin.id);
      mark.write(begin);
      for (const [index, file] of chain.entries()) {
        for (const { position, length, data, frames } of readExtents(file.path, file.header)) {
          const inHead = head.take(position, length, data);
          if (index < begin.file) {
            if (inHead < length) break;
            continue;
          }
          if (index === begin.file && frames <= begin.frames) {
            progress.skip(length);
            continue;
          }
          if (inHead === length) continue;
          if (data === undefined) await destination.zero(position + inHead, length - inHead);
          else {
            await destination.write(position + inHead, data.subarray(inHead));
            sinceBytes += length;
            await pace.keep(length);
          }
          progress.add(length);
          if (sinceBytes < POINT_BYTES) continue;
          await destination.sync();
          mark.write({ id: begin.id, file: index, frames });
          sinceBytes = 0;
        }
      }
      await destination.sync();
      await head.write(destination);
    } finally {
      await destination.close();
      progress.end();
    }
  } catch (error) {
    throw explain(error, path);
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
