/**
 * How far a restore has come, in a file that outlives its process: a restore that was cut off goes on from the last
 * durable point instead of the beginning. The file is removed when the restore is done.
 */
import { createHash } from 'node:crypto';
import { closeSync, fsyncSync, realpathSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { parse } from '@hapi/bourne';
import type { BackupFile } from './backup-file.js';
import { openFresh, readMark, syncFolder } from './durable.js';
import { tell } from './tell.js';
import type { DestinationKind } from './destination.js';

export interface RestorePoint {
  /** Of the restore, as it stands on the destination (restore-head.ts). */
  id: string;
  /** Index of the backup in its chain. */
  file: number;
  /** Frames of it that are applied and durable. */
  frames: number;
}

export class RestoreMark {
  readonly path: string;
  readonly #names: string;
  #unkept = false;

  /** An image has its mark beside it; a device, in the folder of the backup. */
  constructor(chain: readonly BackupFile[], to: string, kind: DestinationKind) {
    const last = chain.at(-1)?.path ?? '';
    const digest = createHash('sha256').update(realPath(to)).digest('hex').slice(0, 12);
    this.path = kind === 'image' ? `${to}.restoring` : join(dirname(resolve(last)), `.restoring-${digest}`);
    this.#names = JSON.stringify([kind, realPath(to), chain.map(({ header }) => header.id)]);
  }

  /** Where a restore of the same chain to a place of that name was interrupted; undefined if none was. */
  read(): RestorePoint | undefined {
    try {
      const { names, id, file, frames } = parse(readMark(this.path)) as Record<string, unknown>;
      if (names !== this.#names || typeof id !== 'string' || !isCount(file) || !isCount(frames))
        return undefined;
      return { id, file, frames };
    } catch (error) {
      // No mark, or a damaged one: the restore begins anew.
      if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code === 'ENOENT')
        return undefined;
      throw error;
    }
  }

  /** Call when everything before the point is durable. */
  write({ id, file, frames }: RestorePoint): void {
    if (this.#unkept) return;
    const made = `${this.path}.new`;
    let fd: number;
    try {
      fd = openFresh(made);
    } catch (error) {
      // Backups on a medium that can't be written are restored all the same.
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'EROFS' && code !== 'EACCES') throw error;
      this.#unkept = true;
      tell(`${made} can't be written (${code}): interrupted, the restore begins anew`);
      return;
    }
    try {
      writeSync(fd, `${JSON.stringify({ names: this.#names, id, file, frames })}\n`);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(made, this.path);
    syncFolder(this.path);
  }

  remove(): void {
    if (this.#unkept) return;
    rmSync(this.path, { force: true });
    // A mark that came back after a power cut would let a later run overwrite without --yes.
    syncFolder(this.path);
  }
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && Number(value) >= 0;

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return resolve(path);
    throw error;
  }
}
