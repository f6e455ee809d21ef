/** What is done with the files below the targets between two runs. */
import { open } from 'node:fs/promises';
import { succeed } from '../conformance/support/processes.js';

/** Waits until what was written is on the disc, so that no run pays for the one before. */
export async function settle(file: string): Promise<void> {
  const handle = await open(file, 'r+');
  try {
    await handle.datasync();
  } finally {
    await handle.close();
  }
}

/** Empties the page cache of the file. */
export async function evict(file: string): Promise<void> {
  await succeed('dd', [`of=${file}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0', 'status=none']);
}
