/**
 * Which folder takes backups: one that `--create` made, and marked. An empty folder is none, as restic and borg have
 * repositories made by a command of its own: it may be the mount point of a backup disc that is not there, and backups
 * would fill the disc below it, where nobody looks for them.
 */
import { existsSync, lstatSync, mkdirSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { OperationalError } from '../../operational-error.js';
import { syncFolder, writeDurably } from './durable.js';
import type { BackupOptions } from './options.js';

const MARK = '.cldd-backups';
const MARK_TEXT = `Backups of cldd lie here. It takes a folder without this file for one whose disc is not mounted
(cldd backup --create).
`;

/**
 * Whether `to` is a folder of generations: one that exists, or that --incremental, --create or a final slash asks for.
 * @throws {OperationalError} BACKUP_EXISTS if a file is where that folder should be
 */
export function isFolder({
  to,
  incremental = false,
  create = false,
}: Pick<BackupOptions, 'to' | 'incremental' | 'create'>): boolean {
  if (to === '-') return false;
  const stat = statSync(to, { throwIfNoEntry: false });
  if (stat === undefined) return incremental || create || to.endsWith('/');
  if ((incremental || create) && !stat.isDirectory())
    throw new OperationalError(
      'BACKUP_EXISTS',
      `${to} is a file, and ${create ? '--create' : '--incremental'} needs a folder of generations: name another place`,
    );
  return stat.isDirectory();
}

/**
 * Backups may go there, or with `create` the folder may be made one of backups. Nothing is changed.
 * @throws {OperationalError} NO_BACKUP_FOLDER, BACKUP_EXISTS
 */
export function requirePlace({ to, create = false }: BackupOptions, folder: boolean): void {
  if (to === '-') return;
  if (!folder) {
    if (!existsSync(dirname(resolve(to))))
      throw new OperationalError(
        'NO_BACKUP_FOLDER',
        `there is no folder for ${to}: is the backup disc mounted?`,
      );
    return;
  }
  const marked = lstatSync(join(to, MARK), { throwIfNoEntry: false })?.isFile() === true;
  if (create && marked)
    throw new OperationalError(
      'BACKUP_EXISTS',
      `${to} is a folder of backups already: leave --create away, so that it is never made where a disc is not mounted`,
    );
  if (create || marked) return;
  const what = existsSync(to) ? `is no folder of backups (there is no ${MARK} in it)` : 'does not exist';
  throw new OperationalError(
    'NO_BACKUP_FOLDER',
    `${to} ${what}: is the backup disc mounted? If it shall be one, say --create, this once`,
  );
}

/** Makes the folder if need be (mode 0700), and one of backups. */
export function createFolder(to: string): void {
  mkdirSync(to, { recursive: true, mode: 0o700 });
  writeDurably(join(to, MARK), MARK_TEXT);
  syncFolder(resolve(to));
}
