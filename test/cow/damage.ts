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
import type { Store } from '../../src/cow/store.js';
import { bitmapOffset } from '../../src/cow/written-bitmap.js';
import { BLOCK_BYTES } from './golden/golden.js';
import type { Expected, Golden } from './golden/golden.js';
import { MemoryStore, WornStore } from './stores.js';

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
export function misreading(store: MemoryStore, expected: Expected): Promise<string | undefined> {
  return misreadingIn(over(store), expected);
}

/** As `misreading`, opening this store itself, which is written then. */
export async function misreadingIn(store: Store, expected: Expected): Promise<string | undefined> {
  const engine = await Engine.open(store);
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
  for (let at = 0; at < capacityBytes;) {
    const { mapped, lengthBytes } = medium.provisioning(at, capacityBytes - at);
    // A hole is not read: that it shows zeros is no matter of what is on the disc.
    const wrong = mapped ? differenceIn(medium, blocks, at, lengthBytes) : lostIn(blocks, at, lengthBytes);
    if (wrong !== undefined) return wrong;
    at += lengthBytes;
  }
  return undefined;
}

function differenceIn(
  medium: MasterMedium | SlaveMedium,
  blocks: Readonly<Record<string, number>>,
  position: number,
  length: number,
): string | undefined {
  const shown = Buffer.alloc(length);
  const result = medium.read(position, shown, 0, length);
  if (result !== 0) return `reading it ended with ${result}`;
  for (let at = 0; at < length; at += BLOCK_BYTES) {
    const block = (position + at) / BLOCK_BYTES;
    const wanted = blocks[block] ?? 0;
    if (!shown.subarray(at, at + BLOCK_BYTES).equals(blockOf(wanted)))
      return `block ${block} shows ${shown.readUInt32LE(at)} instead of ${wanted}`;
  }
  return undefined;
}

function lostIn(
  blocks: Readonly<Record<string, number>>,
  position: number,
  length: number,
): string | undefined {
  for (const [block, value] of Object.entries(blocks)) {
    const at = Number(block) * BLOCK_BYTES;
    if (value !== 0 && at >= position && at < position + length)
      return `block ${block} is a hole instead of ${value}`;
  }
  return undefined;
}

const blockImages = new Map<number, Buffer>();

function blockOf(value: number): Buffer {
  let image = blockImages.get(value);
  if (image === undefined) {
    image = Buffer.alloc(BLOCK_BYTES, Buffer.from(Uint32Array.of(value).buffer));
    blockImages.set(value, image);
  }
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
  const { verdict } = await checkStore(damaged);
  if (verdict !== 'repairable' && verdict !== 'clean') return `check says '${verdict}'`;
  try {
    const wrong = await misreading(damaged, expected);
    if (wrong !== undefined) return wrong;
  } catch (error) {
    return `the open is refused: ${String(error)}`;
  }
  damaged.recording = true;
  const { verdict: after } = await checkStore(damaged, { repair: true });
  if (after !== (verdict === 'repairable' ? 'repaired' : 'clean')) return `the repair of it says '${after}'`;
  const writes = damaged.events.flatMap((event) => (event.kind === 'write' ? [event] : []));
  if (verdict === 'clean') return writes.length === 0 ? undefined : 'what is clean was repaired';
  // What is the undamaged image again, byte for byte, needs no other look than that one had.
  const places = [{ position, data: { length: 1 } }, ...writes];
  if (
    places.every(({ position: at, data }) =>
      bytesAt(damaged, at, data.length).equals(bytesAt(store, at, data.length)),
    )
  )
    return undefined;
  const { verdict: then } = await checkStore(damaged);
  if (then !== 'clean') return `after the repair check says '${then}'`;
  const wrong = await misreading(damaged, expected);
  return wrong === undefined ? undefined : `after the repair: ${wrong}`;
}

function bytesAt(store: MemoryStore, position: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  store.readSync(bytes, 0, length, position);
  return bytes;
}

/** What is wrong with the undamaged image itself; undefined if nothing is. */
export async function judgeUndamaged({ store, expected }: Golden): Promise<string | undefined> {
  const { verdict } = await checkStore(over(store));
  if (verdict !== 'clean') return `check says '${verdict}'`;
  return await misreading(store, expected);
}

/** What is wrong with how a sector that can't be read is met; undefined if nothing is. */
export async function judgeUnreadable(
  { store, expected }: Golden,
  position: number,
): Promise<string | undefined> {
  const worn = (): WornStore => {
    const disc = new WornStore(store.sizeBytes, store);
    disc.recording = false;
    disc.spoil(position, 1);
    return disc;
  };
  const { verdict } = await checkStore(worn());
  if (verdict !== 'repairable') return `check says '${verdict}'`;
  try {
    const opened = worn();
    const wrong = await misreadingIn(opened, expected);
    if (wrong !== undefined) return wrong;
  } catch (error) {
    return `the open is refused: ${String(error)}`;
  }
  const repaired = worn();
  const { verdict: after } = await checkStore(repaired, { repair: true });
  if (after !== 'repaired') return `the repair of it says '${after}'`;
  const wrong = await misreadingIn(repaired, expected);
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
