/** Backup files: read and proved frame by frame, and found in a folder. */
import { closeSync, constants, fstatSync, openSync, readSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { OperationalError } from '../../operational-error.js';
import { DONE_BYTES, FRAME_HEADER_BYTES, FrameReader, damaged, dataOf, headerOf, isDone } from './format.js';
import type { BackupHeader, Frame } from './format.js';

export const SUFFIX = '.cldd';
export const PARTIAL_SUFFIX = '.cldd.partial';
const SECTOR_BYTES = 512;

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
  // A FIFO would let us wait for a writer.
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    let at = 0;
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw damaged('it is not a regular file');
    const { size } = stat;
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
    for (const { data } of readExtents(path, header)) dataBytes += data?.length ?? 0;
    return { dataBytes };
  });
}

export interface Extent {
  position: number;
  length: number;
  /** Undefined: zeros. */
  data: Buffer | undefined;
  /** Frames of the file so far, this one included. */
  frames: number;
}

/**
 * The extents of the backup whose header this is, in order, each proved, and after the last one that the file is whole.
 * @throws {OperationalError} BACKUP_DAMAGED, also if another backup has come to lie at `path`
 */
export function* readExtents(path: string, header: BackupHeader): Generator<Extent> {
  let [position, covered, frames] = [0, 0, 0];
  let done = false;
  for (const { frame } of readFrames(path)) {
    if (done) throw damaged('something follows its end');
    frames++;
    if (frames === 1) {
      if (headerOf(frame).id !== header.id) throw damaged('it was replaced meanwhile');
      continue;
    }
    if (frame.type === 'HEAD') throw damaged('it has two headers');
    if (frame.type === 'DONE') {
      done = true;
      continue;
    }
    const { length } = frame;
    if (frame.position < position || frame.position + length > header.capacityBytes)
      throw damaged(`an extent is out of place at byte ${frame.position}`);
    if (length === 0 || frame.position % SECTOR_BYTES !== 0 || length % SECTOR_BYTES !== 0)
      throw damaged(`an extent at byte ${frame.position} is not of whole sectors`);
    position = frame.position + length;
    covered += length;
    yield {
      position: frame.position,
      length,
      data: frame.type === 'ZERO' ? undefined : dataOf(frame),
      frames,
    };
  }
  if (!done) throw damaged('its end is missing');
  if (header.kind === 'full' && covered !== header.capacityBytes)
    throw damaged(`it covers ${covered} bytes of ${header.capacityBytes}`);
}

/** Errors of `look` name the file. */
export function named<T>(path: string, look: () => T): T {
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

/** The paths of what is named as a finished backup in a folder. */
export function backupsIn(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith(SUFFIX))
    .map((name) => join(folder, name));
}

/** The finished backups in a folder, oldest generation first, and what is wrong with those that can't be read. */
export function readableBackups(folder: string): { files: BackupFile[]; unsound: string[] } {
  const unsound: string[] = [];
  const files = backupsIn(folder).flatMap((path) => {
    try {
      return [openBackup(path)];
    } catch (error) {
      if (!(error instanceof OperationalError)) throw error;
      unsound.push(error.message);
      return [];
    }
  });
  return { files: files.sort((a, b) => a.header.generation - b.header.generation), unsound };
}

/** Whether the file ends with a sound DONE frame: what was cut off later is found without reading all of it. */
export function hasEnd({ path, sizeBytes }: BackupFile): boolean {
  const fd = openSync(path, 'r');
  try {
    return sizeBytes > DONE_BYTES && isDone(readExactly(fd, sizeBytes - DONE_BYTES, DONE_BYTES));
  } finally {
    closeSync(fd);
  }
}

/**
 * The backups that files and folders name. What is wrong with others in a folder goes to `unsound`: one that is damaged
 * must not hinder the restore of the rest.
 * @throws {OperationalError} BACKUP_DAMAGED, NO_SUCH_BACKUP for a file
 */
export function gather(paths: readonly string[], unsound: string[]): BackupFile[] {
  return paths.flatMap((path) => {
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) return [openBackup(path)];
    const found = readableBackups(path);
    unsound.push(...found.unsound);
    return found.files;
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
    const [head, before] = [chain[0].header, found.header];
    if (
      before.generation !== generation ||
      generation >= head.generation ||
      before.uuid !== head.uuid ||
      before.capacityBytes !== head.capacityBytes
    )
      throw new OperationalError('CHAIN_BROKEN', `${chain[0].path} can't build on ${found.path}`);
    chain.unshift(found);
    base = before.base;
  }
  return chain;
}
