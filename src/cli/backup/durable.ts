/**
 * Small files that outlive a power cut. They are made anew and never through a name that is there already: a symbolic
 * link in a folder that others can write would lead elsewhere.
 */
import { closeSync, constants, fsyncSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { dirname, resolve } from 'node:path';

/** Flags of a new file, for fs.open, once what had its name is gone. */
export const FRESH = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** Opens a new file, of mode 0600, in place of whatever has that name. */
export function openFresh(path: string): number {
  rmSync(path, { force: true });
  return openSync(path, FRESH, 0o600);
}

export function writeDurably(path: string, text: string): void {
  const fd = openFresh(path);
  try {
    writeSync(fd, text);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  syncFolder(path);
}

/** More than any mark has. */
const MARK_BYTES_MAX = 64 * 1024;

/** A mark's text. Whatever else somebody puts in its place is not waited for, nor followed. */
export function readMark(path: string): string {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const bytes = Buffer.alloc(MARK_BYTES_MAX);
    return bytes.toString('utf8', 0, readSync(fd, bytes));
  } finally {
    closeSync(fd);
  }
}

export function removeDurably(path: string): void {
  rmSync(path, { force: true });
  syncFolder(path);
}

/** Makes durable which names there are in the folder of a file. */
export function syncFolder(path: string): void {
  const fd = openSync(dirname(resolve(path)), 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
