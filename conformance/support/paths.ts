/** Where things are in the checkout, whichever output folder the compiled tests run from. */
import fs from 'node:fs';
import path from 'node:path';

/** The folder that holds package.json. */
export const ROOT = findRoot();

/** Downloads and images that are costly to make again; never committed. */
export const CACHE = path.join(ROOT, '.cache');

function findRoot(): string {
  let folder = import.meta.dirname;
  while (!fs.existsSync(path.join(folder, 'package.json'))) {
    const parent = path.dirname(folder);
    if (parent === folder) throw new Error(`No package.json above ${import.meta.dirname}`);
    folder = parent;
  }
  return folder;
}

/** The full path of a program, also where a user's PATH leaves out the system folders; undefined if missing. */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin', '/usr/bin', '/bin'];
  for (const folder of folders) {
    const candidate = path.join(folder, name);
    try {
      fs.accessSync(candidate, fs.constants.X_OK);
      return candidate;
    } catch {
      // Not in this folder: look in the next.
    }
  }
  return undefined;
}
