/** Calls of the system that answer what a test wants, within this process. */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

/** Puts calls in the place of the system's, until what it answers is called. */
export function replaced(doubles: Partial<typeof fs>): () => void {
  const real = Object.fromEntries(Object.keys(doubles).map((name) => [name, fs[name as keyof typeof fs]]));
  Object.assign(fs, doubles);
  syncBuiltinESMExports();
  return () => {
    Object.assign(fs, real);
    syncBuiltinESMExports();
  };
}

/** Runs with some of the system's calls replaced. */
export function during<T>(doubles: Partial<typeof fs>, work: () => T): T {
  const restore = replaced(doubles);
  try {
    return work();
  } finally {
    restore();
  }
}

export function failure(code: string): Error {
  return Object.assign(new Error(`${code}: injected`), { code });
}
