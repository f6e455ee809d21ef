/**
 * Handmade histories, each with the one cut (or the one bad sector behind it) that a rule is there for: what random
 * workloads meet too seldom. A scenario answers what is wrong, in words; undefined if nothing is.
 */
import { listChanges } from '../../src/cow/changes.js';
import { Engine } from '../../src/cow/engine.js';
import {
  EXTENT_BLOCKS,
  PAGE_COVERS_BYTES,
  SUPERBLOCK_OFFSETS,
  UNIT_BYTES,
  pageOffset,
} from '../../src/cow/format.js';
import { MasterMedium } from '../../src/cow/mediums.js';
import { RESULT } from '../../src/cow/results.js';
import { BLOCK_BYTES } from '../../src/cow/states.js';
import type { Steps } from '../../src/cow/steps.js';
import { Durable } from './powercut.js';
import { blankStore, FaultyStore, MemoryStore } from './stores.js';

const PARTITION_BYTES = 96 << 20;
const EXTENT_BYTES = EXTENT_BLOCKS * BLOCK_BYTES;
const SECTOR_BYTES = 512;
const DAMAGED_SECTOR = Buffer.alloc(SECTOR_BYTES, 0xdb);
const TURNS_MAX = 1000;

export type Scenario = (steps: Steps) => Promise<string | undefined>;

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function blank(): Promise<MemoryStore> {
  return blankStore(PARTITION_BYTES);
}

/** A life of the partition over what `base` holds, its I/O recorded. */
async function life(base: MemoryStore, steps: Steps): Promise<{ engine: Engine; store: MemoryStore }> {
  const store = new MemoryStore(PARTITION_BYTES, base);
  return { engine: await Engine.open(store, { steps }), store };
}

async function write(engine: Engine, position: number, value: number): Promise<void> {
  const master = new MasterMedium(engine);
  const data = Buffer.alloc(BLOCK_BYTES, value);
  const result = await new Promise((resolve) => master.writeAsync(position, data, 0, data.length, resolve));
  if (result !== RESULT.OK) throw new Error(`a write ended with ${String(result)}`);
}

function shown(engine: Engine, position: number): number {
  const bytes = Buffer.alloc(BLOCK_BYTES);
  const result = new MasterMedium(engine).read(position, bytes, 0, bytes.length);
  if (result !== RESULT.OK) throw new Error(`a read ended with ${String(result)}`);
  return bytes[0];
}

async function isReported(engine: Engine, since: number, position: number): Promise<boolean> {
  for await (const range of listChanges(engine, since).ranges)
    if (range.position <= position && position < range.position + range.length) return true;
  return false;
}

/** The process is gone, and the power: what stays is what had become durable when `event` was the last one. */
function cutBehind(base: MemoryStore, store: MemoryStore, engine: Engine, event: number): MemoryStore {
  engine.core.failure = new Error('the power is cut');
  const durable = new Durable(PARTITION_BYTES, base, store.events);
  for (const one of store.events.slice(0, event + 1)) durable.follow(one);
  return durable.store;
}

function twinPosition(engine: Engine, page: number, twin: number): number {
  return pageOffset(engine.core.segmentOfPage(page), page, twin);
}

/** The event behind which twin 0 of a page, written last at or behind event `from`, is durable and twin 1 is not. */
function betweenTwins(store: MemoryStore, engine: Engine, page: number, from: number): number {
  const [first, second] = [0, 1].map((twin) => twinPosition(engine, page, twin));
  const { events } = store;
  const at = events.findIndex(
    (event, index) => index >= from && event.kind === 'write' && event.position === first,
  );
  const sync = events.findIndex((event) => event.kind === 'sync' && event.upTo > at);
  const then = events.findIndex(
    (event, index) => index > at && event.kind === 'write' && event.position === second,
  );
  if (at < 0 || sync < 0 || then < sync)
    throw new Error('the twins were not written in the order that this needs');
  return sync;
}

/** As `cutBehind`, in the middle of the first write to one of these places at or behind event `from`. */
function cutWithin(
  base: MemoryStore,
  store: MemoryStore,
  engine: Engine,
  { places, from = 0 }: { places: readonly number[]; from?: number },
): MemoryStore {
  const at = store.events.findIndex(
    (event, index) => index >= from && event.kind === 'write' && places.includes(event.position),
  );
  const event = store.events[at];
  if (at < 0 || event.kind !== 'write') throw new Error('there is no such write');
  const left = cutBehind(base, store, engine, at);
  left.apply(event.position + SECTOR_BYTES, DAMAGED_SECTOR);
  return left;
}

/** A bad sector in the middle of a twin. */
function damage(store: MemoryStore, engine: Engine, page: number, twin: number): void {
  store.apply(twinPosition(engine, page, twin) + SECTOR_BYTES, DAMAGED_SECTOR);
}

/** Opens, and closes in order: what the recovery made good is all that counts from here on. */
async function recovered(base: MemoryStore, steps: Steps): Promise<MemoryStore> {
  const { engine, store } = await life(base, steps);
  await engine.close();
  return store;
}

/**
 * A page's twin 0 is of a later epoch than its record in the journal, and the cut came before twin 1 was written. The
 * record is skipped, the journal then empty: were the page not written again, twin 1 would stay old for good, and show
 * it when twin 0 goes bad.
 */
export const recordOfOlderEpoch: Scenario = async (steps) => {
  const base = await blank();
  const { engine, store } = await life(base, steps);
  await write(engine, 0, 1);
  await engine.committer.checkpoint();
  await engine.enable();
  await write(engine, 0, 2);
  await engine.disable();
  if (shown(engine, 0) !== 2) return 'the master lost a write at the disable';
  const from = store.events.length;
  await engine.committer.checkpoint();
  const left = cutBehind(base, store, engine, betweenTwins(store, engine, 0, from));
  const store2 = await recovered(left, steps);
  damage(store2, engine, 0, 0);
  const { engine: last } = await life(store2, steps);
  const value = shown(last, 0);
  return value === 2 ? undefined : `the block shows ${value}, not 2`;
};

/** As before, with a page whose marks alone changed: no record names it, only the activity log does. */
export const marksInOneTwin: Scenario = async (steps) => {
  const base = await blank();
  const { engine, store } = await life(base, steps);
  await write(engine, 0, 1);
  // Else the record of this write would still be in the journal, and would do.
  await engine.committer.flushed();
  await engine.committer.checkpoint();
  await engine.enable();
  await engine.disable();
  await write(engine, 0, 2);
  const from = store.events.length;
  await engine.committer.checkpoint();
  const left = cutBehind(base, store, engine, betweenTwins(store, engine, 0, from));
  const store2 = await recovered(left, steps);
  damage(store2, engine, 0, 0);
  const { engine: last } = await life(store2, steps);
  return (await isReported(last, 1, 0)) ? undefined : 'the change is not reported';
};

/**
 * The list is more than half full, so that a checkpoint drops what it no longer needs; the page is written in place
 * again while its image is on the way. If it were dropped, the next list would not name it, and after a cut nothing
 * would tell of that write.
 */
export const writtenDuringCheckpoint: Scenario = async (steps) => {
  const base = await blank();
  const { engine, store } = await life(base, steps);
  const [again, elsewhere] = [UNIT_BYTES, PAGE_COVERS_BYTES + 2 * EXTENT_BYTES];
  for (const position of [0, again, PAGE_COVERS_BYTES, elsewhere]) await write(engine, position, 1);
  await engine.committer.checkpoint();
  const position = [0, PAGE_COVERS_BYTES];
  for (let generation = 1; generation <= 100; generation++) {
    await engine.enable();
    await engine.disable();
    for (const at of position) await write(engine, at, 2);
  }
  const { generation } = engine.core.superblock;
  const checkpoint = engine.committer.checkpoint();
  const page = engine.map.cached(0);
  for (let turns = 0; page?.writing !== true; turns++) {
    if (turns === TURNS_MAX) throw new Error('the page is not being written');
    await turn();
  }
  const master = new MasterMedium(engine);
  if (master.write(again, Buffer.alloc(BLOCK_BYTES, 3), 0, BLOCK_BYTES) !== RESULT.OK)
    throw new Error('the extent is not listed any more');
  await checkpoint;
  // A list of its own, and the data durable.
  await write(engine, elsewhere, 3);
  await engine.committer.flushed();
  const left = cutBehind(base, store, engine, store.events.length - 1);
  const { engine: last } = await life(left, steps);
  if (shown(last, again) !== 3) return 'a flushed write is lost';
  return (await isReported(last, generation, again)) ? undefined : 'the change is not reported';
};

/**
 * The power goes while twin 1 is written, and again while the recovery writes the page. Were twin 0 written first then,
 * which alone is whole, neither would be left.
 */
export const cutInBothTwins: Scenario = async (steps) => {
  const base = await blank();
  const { engine, store } = await life(base, steps);
  await write(engine, 0, 1);
  await engine.committer.flushed();
  await engine.committer.checkpoint();
  await write(engine, BLOCK_BYTES, 2);
  await engine.committer.flushed();
  const from = store.events.length;
  await engine.committer.checkpoint();
  const [first, second] = [0, 1].map((twin) => twinPosition(engine, 0, twin));
  const left = cutWithin(base, store, engine, { places: [second], from });
  const again = await life(left, steps);
  const rest = cutWithin(left, again.store, again.engine, { places: [first, second] });
  try {
    const { engine: last } = await life(rest, steps);
    const values = [shown(last, 0), shown(last, BLOCK_BYTES)];
    return values.join() === '1,2' ? undefined : `the blocks show ${values.join()}`;
  } catch (error) {
    return String(error);
  }
};

/**
 * The power goes when one copy of a disable's superblock is written and the next one is not, and again while the recovery
 * writes the one after it: to these same two copies. The other two must have the disable's by then, because the recovery
 * has left a journal block of the epoch that it began.
 */
export const superblockInOneCopy: Scenario = async (steps) => {
  const base = await blank();
  const { engine, store } = await life(base, steps);
  await write(engine, 0, 1);
  await engine.enable();
  await write(engine, 0, 2);
  const from = store.events.length;
  await engine.disable();
  const [first, second] = SUPERBLOCK_OFFSETS;
  const at = store.events.findIndex(
    (event, index) => index >= from && event.kind === 'write' && event.position === first,
  );
  const event = store.events[at];
  if (at < 0 || event.kind !== 'write') throw new Error('the superblock was not written');
  const left = cutBehind(base, store, engine, at);
  left.apply(first, event.data);
  const again = await life(left, steps);
  const rest = cutWithin(left, again.store, again.engine, { places: [first] });
  rest.apply(second + SECTOR_BYTES, DAMAGED_SECTOR);
  try {
    const { engine: last } = await life(rest, steps);
    if (last.core.superblock.enabled) return 'the disable that the first recovery found is undone';
    const value = shown(last, 0);
    return value === 2 ? undefined : `the block shows ${value}, not 2`;
  } catch (error) {
    return String(error);
  }
};

/** A sync fails, and the kernel takes what it could not write for clean: the next sync would succeed, and lie. */
export const syncFailedOnce: Scenario = async (steps) => {
  const store = new FaultyStore(PARTITION_BYTES, await blank());
  const engine = await Engine.open(store, { steps });
  await write(engine, 0, 1);
  store.fault = { kind: 'sync', at: store.calls.sync, persistent: false, code: 'EIO' };
  const master = new MasterMedium(engine);
  const flush = (): Promise<unknown> => new Promise((resolve) => master.flush(resolve));
  if ((await flush()) !== RESULT.FAILED) return 'nobody was told';
  return (await flush()) === RESULT.FAILED ? undefined : 'what may be lost was said to be flushed';
};
