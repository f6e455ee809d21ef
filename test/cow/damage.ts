/**
 * Damages the metadata of a partition, and judges what becomes of it: check has to report it and to repair it, and an
 * open, before or after the repair, has to show exactly what master and slave had.
 */
import { listChanges } from '../../src/cow/changes.js';
import { checkStore } from '../../src/cow/check.js';
import { journalPosition, viewJournal } from '../../src/cow/check-journal.js';
import { Engine } from '../../src/cow/engine.js';
import {
  ACTIVITY_SLOTS,
  BITMAP_BLOCK_BYTES,
  HEADER_BYTES,
  JOURNAL_BLOCK_BYTES,
  PAGE_BYTES,
  STATE_TWIN_BYTES,
  SUPERBLOCK_BYTES,
  SUPERBLOCK_OFFSETS,
  pageOffset,
  placeSegments,
} from '../../src/cow/format.js';
import { MasterMedium, SlaveMedium } from '../../src/cow/mediums.js';
import { readSuperblock } from '../../src/cow/recovery.js';
import { bitmapOffset } from '../../src/cow/written-bitmap.js';
import { BLOCK_BYTES } from './golden/golden.js';
import type { Expected, Golden } from './golden/golden.js';
import { MemoryStore } from './stores.js';

/** A copy of a structure, by its kind. */
export interface Place {
  readonly name: string;
  readonly copy: number;
  readonly position: number;
  readonly lengthBytes: number;
}

/** Every copy of every metadata structure of a small partition; of the journal, what a recovery needs. */
export function placesOf(store: MemoryStore): Place[] {
  const superblock = readSuperblock(store);
  const places: Place[] = [];
  const add = (name: string, copy: number, position: number, lengthBytes: number): void => {
    places.push({ name, copy, position, lengthBytes });
  };
  SUPERBLOCK_OFFSETS.forEach((position, copy) => add('superblock', copy, position, SUPERBLOCK_BYTES));
  const { activityOffset, activitySlotBytes, stateOffset } = superblock;
  for (let slot = 0; slot < ACTIVITY_SLOTS; slot++)
    add('activity', slot, activityOffset + slot * activitySlotBytes, activitySlotBytes);
  const { tail, needed } = viewJournal(store, superblock);
  const [segment] = placeSegments(superblock.segments);
  for (const copy of [0, 1]) {
    const length = Buffer.alloc(4);
    store.readSync(length, 0, 4, stateOffset + copy * STATE_TWIN_BYTES + 12);
    // What lies behind the records is never read.
    add('state', copy, stateOffset + copy * STATE_TWIN_BYTES, length.readUInt32LE(0));
    for (let lsn = tail; lsn < needed; lsn++)
      add(`journal ${lsn}`, copy, journalPosition(superblock, lsn, copy), JOURNAL_BLOCK_BYTES);
    add('bitmap', copy, bitmapOffset(segment, 0, copy), BITMAP_BLOCK_BYTES);
    add('page', copy, pageOffset(segment, 0, copy), PAGE_BYTES);
  }
  return places;
}

/** A store that shows the image, and takes writes for itself. */
export function over(base: MemoryStore): MemoryStore {
  const store = new MemoryStore(base.sizeBytes, base);
  store.recording = false;
  return store;
}

export function flipped(base: MemoryStore, position: number, mask: number): MemoryStore {
  const store = over(base);
  const byte = Buffer.alloc(1);
  store.readSync(byte, 0, 1, position);
  store.apply(position, Buffer.from([byte[0] ^ mask]));
  return store;
}

/** What is wrong with the data that an open shows; undefined if nothing is. Throws what the open throws. */
export async function misreading(store: MemoryStore, expected: Expected): Promise<string | undefined> {
  const engine = await Engine.open(over(store));
  try {
    const sides = [
      { name: 'master', medium: new MasterMedium(engine), blocks: expected.master },
      { name: 'slave', medium: new SlaveMedium(engine), blocks: expected.slave },
    ];
    for (const { name, medium, blocks } of sides) {
      const wrong = firstDifference(medium, blocks, expected.capacityBytes);
      if (wrong !== undefined) return `${name}: ${wrong}`;
    }
    for (const [key, value] of Object.entries(expected.state))
      if (engine.state.load(key)?.toString('hex') !== value) return `state '${key}' is not what was saved`;
    return await unreported(engine, expected);
  } finally {
    engine.core.failure = new Error('killed');
  }
}

function firstDifference(
  medium: MasterMedium | SlaveMedium,
  blocks: Readonly<Record<string, number>>,
  capacityBytes: number,
): string | undefined {
  if (medium.capacityBytes !== capacityBytes) return `it has ${medium.capacityBytes} bytes`;
  const shown = Buffer.alloc(capacityBytes);
  const result = medium.read(0, shown, 0, capacityBytes);
  if (result !== 0) return `reading it ended with ${result}`;
  const wanted = imageFor(blocks, capacityBytes);
  if (shown.equals(wanted)) return undefined;
  const at = shown.findIndex((byte, index) => byte !== wanted[index]);
  return `block ${Math.floor(at / BLOCK_BYTES)} shows ${shown[at]} instead of ${wanted[at]}`;
}

const images = new WeakMap<object, Buffer>();

function imageFor(blocks: Readonly<Record<string, number>>, capacityBytes: number): Buffer {
  const known = images.get(blocks);
  if (known !== undefined) return known;
  const image = Buffer.alloc(capacityBytes);
  for (const [block, value] of Object.entries(blocks)) {
    const at = Number(block) * BLOCK_BYTES;
    image.fill(Buffer.from(Uint32Array.of(value).buffer), at, at + BLOCK_BYTES);
  }
  images.set(blocks, image);
  return image;
}

/** The change map may say too much, never too little. */
async function unreported(
  engine: Engine,
  { generation, master, slave }: Expected,
): Promise<string | undefined> {
  const listed: [number, number][] = [];
  for await (const { position, length } of listChanges(engine, generation).ranges)
    listed.push([position, position + length]);
  for (const block of new Set([...Object.keys(master), ...Object.keys(slave)])) {
    const at = Number(block) * BLOCK_BYTES;
    if (master[block] === slave[block] || listed.some(([from, end]) => at >= from && at < end)) continue;
    return `block ${block} differs from the slave, but is not listed as changed`;
  }
  return undefined;
}

/**
 * What is wrong with how one byte's damage is met; undefined if nothing is. All structures have a twin, so nothing of
 * it may be beyond repair.
 */
export async function judgeFlip(
  { store, expected }: Golden,
  position: number,
  mask: number,
): Promise<string | undefined> {
  const damaged = flipped(store, position, mask);
  const { verdict } = await checkStore(over(damaged));
  if (verdict !== 'repairable' && verdict !== 'clean') return `check says '${verdict}'`;
  try {
    const wrong = await misreading(damaged, expected);
    if (wrong !== undefined) return wrong;
  } catch (error) {
    return `the open is refused: ${String(error)}`;
  }
  const { verdict: after } = await checkStore(damaged, { repair: true });
  if (after !== (verdict === 'repairable' ? 'repaired' : 'clean')) return `the repair of it says '${after}'`;
  const { verdict: then } = await checkStore(damaged);
  if (then !== 'clean') return `after the repair check says '${then}'`;
  const wrong = await misreading(damaged, expected);
  return wrong === undefined ? undefined : `after the repair: ${wrong}`;
}

/** Every byte of the structures; `header`: only the headers, of the first copy of each kind. */
export function* bytesOf(
  places: readonly Place[],
  part: 'all' | 'header',
): Generator<{ place: Place; position: number }> {
  const kinds = new Set<string>();
  for (const place of places) {
    const kind = place.name.split(' ', 1)[0];
    if (part === 'header' && kinds.has(kind)) continue;
    kinds.add(kind);
    const length = part === 'header' ? Math.min(HEADER_BYTES, place.lengthBytes) : place.lengthBytes;
    for (let at = 0; at < length; at++) yield { place, position: place.position + at };
  }
}
