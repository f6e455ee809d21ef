/**
 * Partitions that somebody has made to do harm: every checksum is right, and what it covers is nonsense. A guest that
 * owns a disk image, or a disc from elsewhere, can hold such metadata. An open refuses it or serves; it never ends by
 * an error of our own, never loops, and never reads or writes outside of the partition.
 */
import { listChanges } from '../../src/cow/changes.js';
import { checkStore } from '../../src/cow/check.js';
import { Engine } from '../../src/cow/engine.js';
import { MasterMedium, SlaveMedium } from '../../src/cow/mediums.js';
import { crc32c } from '../../src/crc32c.js';
import { OperationalError } from '../../src/operational-error.js';
import { over, type Place } from '../cow/damage.js';
import type { Chance, MemoryStore } from '../cow/stores.js';

const CRC_AT = 8;
const COVERED_FROM = 12;
const READ_BYTES = 1 << 20;

/** Counts, sizes and positions at their edges. */
const NUMBERS = [
  0, 1, 2, 3, 7, 8, 0x7f, 0x80, 0xff, 0x100, 511, 512, 513, 4095, 4096, 4097, 0xffff, 0x10000, 0x7fffffff,
  0x80000000, 0xfffff000, 0xfffffffe, 0xffffffff,
];

/** One field, set in every copy of a structure. */
export interface Lie {
  readonly kind: string;
  readonly at: number;
  readonly bytes: string;
}

const sumOf = (bytes: Buffer): number => crc32c(bytes, COVERED_FROM, bytes.length - COVERED_FROM);

/** A field of a structure and a value for it; mostly in the first bytes, where the counts are. */
export function invent(places: readonly Place[], chance: Chance): Lie {
  const kinds = [...new Set(places.map(({ name }) => name.split(' ', 1)[0]))];
  const kind = kinds[chance.below(kinds.length)];
  const length = places.find(({ name }) => name.startsWith(kind))?.lengthBytes ?? 0;
  const head = Math.min(length, 288) - COVERED_FROM - 8;
  const width = [1, 2, 4, 8][chance.below(4)];
  const at =
    COVERED_FROM +
    Math.floor(chance.below(chance.below(8) === 0 ? length - COVERED_FROM - 8 : head) / width) * width;
  const value = Buffer.alloc(8);
  const number = NUMBERS[chance.below(NUMBERS.length)];
  value.writeUInt32LE(number, 0);
  value.writeUInt32LE(chance.below(4) === 0 ? NUMBERS[chance.below(NUMBERS.length)] : 0, 4);
  return { kind, at, bytes: value.subarray(0, width).toString('hex') };
}

/** The partition with the lie told by every copy, under a checksum that is right. */
export function withLie(base: MemoryStore, places: readonly Place[], { kind, at, bytes }: Lie): MemoryStore {
  const store = over(base);
  for (const { name, position, lengthBytes } of places) {
    if (name.split(' ', 1)[0] !== kind || at + bytes.length / 2 > lengthBytes) continue;
    const structure = Buffer.alloc(lengthBytes);
    store.readSync(structure, 0, lengthBytes, position);
    structure.write(bytes, at, 'hex');
    structure.writeUInt32LE(sumOf(structure), CRC_AT);
    store.apply(position, structure);
  }
  return store;
}

/** Opens, reads all, lists changes, checks, repairs. Undefined if nothing but refusals and data came of it. */
export async function judge(store: MemoryStore): Promise<string | undefined> {
  for (const step of [openAndRead, check, repairAndOpen]) {
    try {
      await step(over(store));
    } catch (error) {
      if (!(error instanceof OperationalError))
        return `${step.name}: ${(error as Error).stack ?? String(error)}`;
    }
  }
  return undefined;
}

async function openAndRead(store: MemoryStore): Promise<void> {
  const engine = await Engine.open(store);
  try {
    const data = Buffer.alloc(READ_BYTES);
    for (const medium of [new MasterMedium(engine), new SlaveMedium(engine)]) {
      const end = Math.min(medium.capacityBytes, store.sizeBytes);
      for (let at = 0; at < end; at += READ_BYTES) medium.read(at, data, 0, Math.min(READ_BYTES, end - at));
    }
    let ranges = 0;
    for await (const range of listChanges(engine, 1).ranges)
      if (range.length <= 0 || ++ranges > store.sizeBytes / 512) throw new Error('changes without end');
  } finally {
    engine.core.failure = new Error('killed');
  }
}

async function check(store: MemoryStore): Promise<void> {
  await checkStore(store);
}

async function repairAndOpen(store: MemoryStore): Promise<void> {
  await checkStore(store, { repair: true });
  await openAndRead(store);
}
