/** What a disk has to hold after a random history of writes: the model that real reads are compared with. */
import crypto from 'node:crypto';

const SECTOR_BYTES = 512;

export interface Write {
  position: number;
  length: number;
  /** The byte that fills the range. */
  pattern: number;
  /** How qemu-io is to write it: plain data, or zeros by WRITE SAME, with or without unmapping. */
  kind: 'data' | 'zeros' | 'unmap';
}

/** Whole numbers from 0 to below `limit`, the same for the same seed (mulberry32). */
export function randomFrom(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit);
  };
}

/** Incompressible content, the same for the same seed. */
export function randomImage(seed: number, length: number): Buffer {
  const key = crypto.createHash('md5').update(String(seed)).digest();
  return crypto.createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length));
}

/** Writes of 512 bytes to 64 KiB; half of them, more or less, are whole 4 KiB blocks. */
export function randomWrites(seed: number, capacityBytes: number, count: number): Write[] {
  const random = randomFrom(seed);
  return Array.from({ length: count }, () => {
    const unit = random(2) === 0 ? 4096 : SECTOR_BYTES;
    const length = unit * (1 + random(65_536 / unit));
    const position = unit * random((capacityBytes - length) / unit);
    const kind = (['data', 'data', 'data', 'data', 'zeros', 'unmap'] as const)[random(6)];
    return { position, length, kind, pattern: kind === 'data' ? 1 + random(255) : 0 };
  });
}

export function apply(image: Buffer, writes: readonly Write[]): Buffer {
  const result = Buffer.from(image);
  for (const { position, length, pattern } of writes) result.fill(pattern, position, position + length);
  return result;
}

/** The command of qemu-io (opened with discard=unmap) that does it. */
export function qemuIoCommand(write: Write): string {
  const range = `${write.position} ${write.length}`;
  if (write.kind === 'data') return `write -P ${write.pattern} ${range}`;
  return write.kind === 'zeros' ? `write -z ${range}` : `write -z -u ${range}`;
}

/**
 * How many of the writes, in their order, `image` shows on top of `base`: the largest number that explains every
 * sector, or undefined if none does. With `torn`, the write after those may be there in part, sector by sector.
 */
export function explain(
  image: Buffer,
  base: Buffer,
  writes: readonly Write[],
  { torn = false } = {},
): number | undefined {
  const model = Buffer.from(base);
  const wrong = new Set<number>();
  const check = (first: number, end: number): void => {
    for (let sector = first; sector < end; sector++) {
      const start = sector * SECTOR_BYTES;
      const same = model.compare(image, start, start + SECTOR_BYTES, start, start + SECTOR_BYTES) === 0;
      if (same) wrong.delete(sector);
      else wrong.add(sector);
    }
  };
  check(0, image.length / SECTOR_BYTES);
  let explained = wrong.size === 0 ? 0 : undefined;
  for (const [index, write] of writes.entries()) {
    if (torn && [...wrong].every((sector) => isFilled(image, sector, write))) explained = index;
    model.fill(write.pattern, write.position, write.position + write.length);
    check(write.position / SECTOR_BYTES, (write.position + write.length) / SECTOR_BYTES);
    if (wrong.size === 0) explained = index + 1;
  }
  return explained;
}

/** Whether the sector of the image lies in the write and holds its pattern. */
function isFilled(image: Buffer, sector: number, write: Write): boolean {
  const start = sector * SECTOR_BYTES;
  if (start < write.position || start >= write.position + write.length) return false;
  return image.subarray(start, start + SECTOR_BYTES).every((byte) => byte === write.pattern);
}
