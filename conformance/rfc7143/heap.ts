/** Asks a daemon that runs with heap-report.ts what it holds. */
import { readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Started } from './target.js';

export const HEAP_REPORT = join(import.meta.dirname, 'heap-report.js');

export const reportFile = (pid: number): string => join(tmpdir(), `cldd-heap-${pid}`);

/** KiB that the daemon holds after a collection, in its heap and in buffers. */
export async function heldKib({ pid }: Pick<Started, 'pid'>): Promise<number> {
  if (pid === undefined) throw new Error('not a process of ours');
  const file = reportFile(pid);
  rmSync(file, { force: true });
  process.kill(pid, 'SIGUSR2');
  for (let tries = 0; tries < 1000; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    const text = readIfThere(file);
    if (!text.endsWith('\n')) continue;
    rmSync(file);
    return Number(text);
  }
  throw new Error('the daemon does not say what it holds');
}

function readIfThere(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}
