/** What a command asks of its medium. */
import type { MemoryMedium } from './support.js';

export interface Access {
  operation: 'read' | 'readAsync' | 'write' | 'writeAsync';
  /** In blocks of 512 bytes. */
  lba: number;
  blocks: number;
  buffer: Buffer;
}

/** The accesses to the medium from now on, as they come. */
export function watch(medium: MemoryMedium): Access[] {
  const seen: Access[] = [];
  for (const operation of ['read', 'readAsync', 'write', 'writeAsync'] as const) {
    const original = medium[operation].bind(medium) as (...args: unknown[]) => never;
    medium[operation] = (
      position: number,
      buffer: Buffer,
      offset: number,
      length: number,
      ...done: unknown[]
    ) => {
      seen.push({ operation, lba: position / 512, blocks: length / 512, buffer });
      return original(position, buffer, offset, length, ...done);
    };
  }
  return seen;
}

/** The same without the buffers, as "read 8+4": operation, LBA and blocks. */
export function told(seen: Access[]): string[] {
  return seen.map(({ operation, lba, blocks }) => `${operation} ${String(lba)}+${String(blocks)}`);
}
