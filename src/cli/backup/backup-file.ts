/** Backup files: read and proved frame by frame, and found in a folder. */
import { closeSync, fstatSync, openSync, readSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { OperationalError } from '../../operational-error.js';
import { FRAME_HEADER_BYTES, FrameReader, damaged, dataOf, headerOf } from './format.js';
import type { BackupHeader, Frame } from './format.js';

export const SUFFIX = '.cldd';
export const PARTIAL_SUFFIX = '.cldd.partial';

export interface BackupFile {
  path: string;
  header: BackupHeader;
  sizeBytes: number;
}

/** Frames of a file, each proved, with where it ends in the file. @throws {OperationalError} BACKUP_DAMAGED */
export function* readFrames(
  path: string,
  reader = new FrameReader(),
): Generator<{ frame: Frame; end: number }> {
  const fd = openSync(path, 'r');
  try {
    let at = 0;
    const { size } = fstatSync(fd);
    while (at < size) {
      const stored = reader.storedBytes(readExactly(fd, at, FRAME_HEADER_BYTES));
      const bytes = readExactly(fd, at, FRAME_HEADER_BYTES + stored);
      at += bytes.length;
      yield { frame: reader.frame(bytes), end: at };
    }
  } finally {
    closeSync(fd);
  }
}

function readExactly(fd: number, at: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let got = 0;
  while (got < length) {
    const more = readSync(fd, bytes, got, length - got, at + got);
    if (more === 0) throw damaged('it is cut off');
    got += more;
  }
  return bytes;
}

/** The header of a file, which alone is proved. @throws {OperationalError} BACKUP_DAMAGED, with the path */
export function openBackup(path: string): BackupFile {
  return named(path, () => {
    for (const { frame } of readFrames(path))
      return { path, header: headerOf(frame), sizeBytes: statSync(path).size };
    throw damaged('it is empty');
  });
}

/** Proves all of a file and returns the image bytes it holds. @throws {OperationalError} BACKUP_DAMAGED */
export function verifyBackup({ path, header }: BackupFile): { dataBytes: number } {
  return named(path, () => {
    let dataBytes = 0;
    let position = 0;
    let covered = 0;
    let done = false;
    for (const { frame } of readFrames(path)) {
      if (done) throw damaged('something follows its end');
      if (frame.type === 'DONE') done = true;
      if (frame.type === 'HEAD' || frame.type === 'DONE') continue;
      if (frame.position < position || frame.position + frame.length > header.capacityBytes)
        throw damaged(`an extent is out of place at byte ${frame.position}`);
      position = frame.position + frame.length;
      covered += frame.length;
      if (frame.type !== 'ZERO') dataBytes += dataOf(frame).length;
    }
    if (!done) throw damaged('its end is missing');
    if (header.kind === 'full' && covered !== header.capacityBytes)
      throw damaged(`it covers ${covered} bytes of ${header.capacityBytes}`);
    return { dataBytes };
  });
}

function named<T>(path: string, look: () => T): T {
  try {
    return look();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (error instanceof OperationalError)
      throw new OperationalError(error.code, `${path} is no sound backup: ${error.message}`, {
        cause: error,
      });
    if (code === 'ENOENT')
      throw new OperationalError('NO_SUCH_BACKUP', `${path} does not exist`, { cause: error });
    if (code?.startsWith('Z_') === true || code === 'ERR_BUFFER_TOO_LARGE')
      throw new OperationalError(
        'BACKUP_DAMAGED',
        `${path} is no sound backup: an extent can't be unpacked`,
        {
          cause: error,
        },
      );
    throw error;
  }
}

/** The finished backups in a folder, oldest generation first. */
export function listBackups(folder: string): BackupFile[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith(SUFFIX))
    .map((name) => openBackup(join(folder, name)))
    .sort((a, b) => a.header.generation - b.header.generation);
}

/** The backups that files and folders name. */
export function gather(paths: readonly string[]): BackupFile[] {
  return paths.flatMap((path) => {
    const stat = statSync(path, { throwIfNoEntry: false });
    return stat?.isDirectory() === true ? listBackups(path) : [openBackup(path)];
  });
}

/**
 * The backups that lead to `last`, the full one first.
 * @throws {OperationalError} CHAIN_BROKEN if one of them is missing
 */
export function chainOf(last: BackupFile, files: readonly BackupFile[]): BackupFile[] {
  const chain = [last];
  let { base } = last.header;
  while (base !== null) {
    const { id, generation } = base;
    const found = files.find(({ header }) => header.id === id);
    if (found === undefined || chain.includes(found))
      throw new OperationalError(
        'CHAIN_BROKEN',
        `${chain[0].path} builds on the backup of generation ${generation}, which is not among the files given`,
      );
    chain.unshift(found);
    base = found.header.base;
  }
  return chain;
}
