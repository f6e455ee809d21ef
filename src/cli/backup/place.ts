/** Where a backup goes: a file, a folder of generations, or stdout. A file is not there until it is whole. */
import { constants, existsSync, lstatSync, readdirSync, rmSync } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { OperationalError } from '../../operational-error.js';
import { PARTIAL_SUFFIX, SUFFIX, readFrames, readableBackups } from './backup-file.js';
import type { BackupFile } from './backup-file.js';
import type { Sink } from './copy.js';
import { FRESH } from './durable.js';
import { FrameReader, FrameWriter, headerOf } from './format.js';
import type { BackupHeader } from './format.js';

export interface Place {
  /** Whether it is a folder of generations. */
  folder: boolean;
  /** Undefined: stdout. */
  final: string | undefined;
  partial: string | undefined;
  /** There while the slave is being enabled: then it is ours, but may not be as consistent as it should. */
  enabling: string | undefined;
  /** Sound backups of this partition and earlier generations, oldest first. */
  earlier: BackupFile[];
  /** What is wrong with others. */
  unsound: string[];
}

/** @throws {OperationalError} BACKUP_EXISTS */
export function placeOf(to: string, folder: boolean, uuid: string, generation: number): Place {
  if (to === '-')
    return { folder, final: undefined, partial: undefined, enabling: undefined, earlier: [], unsound: [] };
  if (folder) {
    const name = `${uuid.slice(0, 8)}-g${String(generation).padStart(6, '0')}`;
    const { files, unsound } = existsSync(to) ? readableBackups(to) : { files: [], unsound: [] };
    const earlier = files.filter(({ header }) => header.uuid === uuid && header.generation < generation);
    const [final, partial] = [join(to, name + SUFFIX), join(to, name + PARTIAL_SUFFIX)];
    return {
      folder,
      final: refuseExisting(final),
      partial,
      enabling: `${to}/.enabling-${uuid}`,
      earlier,
      unsound,
    };
  }
  return {
    folder,
    final: refuseExisting(to),
    partial: `${to}.partial`,
    enabling: `${to}.enabling`,
    earlier: [],
    unsound: [],
  };
}

function refuseExisting(path: string): string {
  if (!existsSync(path)) return path;
  throw new OperationalError('BACKUP_EXISTS', `${path} exists: choose another name, or remove it`);
}

/** Removes what interrupted backups of earlier generations left: no generation comes twice. */
export function removeStale(folder: string, uuid: string, keep: string): void {
  for (const name of readdirSync(folder))
    if (
      name.startsWith(`${uuid.slice(0, 8)}-g`) &&
      name.endsWith(PARTIAL_SUFFIX) &&
      join(folder, name) !== keep
    )
      rmSync(join(folder, name));
}

export interface OpenStream {
  header: BackupHeader;
  writer: FrameWriter;
  sink: Sink;
  from: number;
  /** All was copied already; only the name is missing. */
  complete: boolean;
  /** Makes it durable and puts it in its place. */
  finish: () => Promise<void>;
}

/** The header of an interrupted backup, if there is one. */
export function interrupted({ partial }: Place): BackupHeader | undefined {
  if (partial === undefined || lstatSync(partial, { throwIfNoEntry: false })?.isFile() !== true)
    return undefined;
  return soundFrames(partial).header;
}

/** As far as a file is sound. */
function soundFrames(path: string): {
  header: BackupHeader | undefined;
  reader: FrameReader;
  end: number;
  from: number;
  complete: boolean;
} {
  const reader = new FrameReader();
  let header: BackupHeader | undefined;
  let [end, from] = [0, 0];
  try {
    for (const read of readFrames(path, reader)) {
      const { frame } = read;
      header ??= headerOf(frame);
      end = read.end;
      if (frame.type === 'DONE') return { header, reader, end, from, complete: true };
      from = frame.position + frame.length;
    }
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
  }
  return { header, reader, end, from, complete: false };
}

/** Begins a stream with its header, or goes on with an interrupted one (`resume`). */
export async function openStream(place: Place, header: BackupHeader, resume: boolean): Promise<OpenStream> {
  const { final, partial } = place;
  if (final === undefined || partial === undefined) {
    // A reader that goes away fails the backup: it must not pass for the end of a `| head`.
    process.stdout.removeAllListeners('error');
    process.stdout.on('error', () => undefined);
    const sink = (bytes: Buffer): Promise<void> =>
      new Promise((resolve, reject) => {
        process.stdout.write(bytes, (error) => {
          if (error === null || error === undefined) resolve();
          else reject(new OperationalError('STDOUT_CLOSED', `stdout takes no more: ${error.message}`));
        });
      });
    return {
      header,
      ...(await begin(header, sink)),
      sink,
      from: 0,
      complete: false,
      finish: () => Promise.resolve(),
    };
  }
  const sound = resume ? soundFrames(partial) : undefined;
  const goesOn = sound?.header !== undefined;
  // No symbolic link leads us elsewhere.
  if (!goesOn) rmSync(partial, { force: true });
  const file = await open(partial, goesOn ? constants.O_RDWR | constants.O_NOFOLLOW : FRESH, 0o600);
  let at = 0;
  const sink = async (bytes: Buffer): Promise<void> => {
    let written = 0;
    try {
      while (written < bytes.length)
        written += (await file.write(bytes, written, bytes.length - written, at + written)).bytesWritten;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      throw new OperationalError(
        code === 'ENOSPC' ? 'NO_SPACE' : 'DESTINATION_FAILED',
        `${partial} can't be written: ${code === 'ENOSPC' ? 'the disc is full' : String(code)}; the slave stays enabled, so that the same command goes on once there is room (or end it with \`cldd slave disable\`)`,
        { cause: error },
      );
    }
    at += bytes.length;
  };
  const finish = (): Promise<void> => finishFile(file, partial, final);
  if (sound?.header === undefined) {
    const { writer } = await begin(header, sink);
    await file.sync();
    return { header, writer, sink, from: 0, complete: false, finish };
  }
  await file.truncate(sound.end);
  at = sound.end;
  const writer = new FrameWriterAfter(sound.reader);
  return { header: sound.header, writer, sink, from: sound.from, complete: sound.complete, finish };
}

/** Goes on after frames that a reader has counted and summed; one that did not fit is not in its sum. */
class FrameWriterAfter extends FrameWriter {
  constructor(reader: FrameReader) {
    super(reader.hash, reader.number);
  }
}

async function begin(header: BackupHeader, sink: Sink): Promise<{ writer: FrameWriter }> {
  const writer = new FrameWriter();
  await sink(writer.frame('HEAD', 0, 0, Buffer.from(JSON.stringify(header))));
  return { writer };
}

async function finishFile(file: FileHandle, partial: string, final: string): Promise<void> {
  await file.sync();
  await file.close();
  await rename(partial, final);
  const folder = await open(dirname(final), 'r');
  await folder.sync();
  await folder.close();
}
