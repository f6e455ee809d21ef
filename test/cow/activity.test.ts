/** The activity log: nobody writes in place before a durable list names the extent, and few lists do for many writes. */
import t from 'tap';
import { seal, writeU64 } from '../../src/cow/bytes.js';
import { ActivityLog, readActivityLog } from '../../src/cow/activity-log.js';
import { listChanges } from '../../src/cow/changes.js';
import { Engine } from '../../src/cow/engine.js';
import { PAGE_COVERS_BYTES } from '../../src/cow/format.js';
import { initStore } from '../../src/cow/init.js';
import { MasterMedium } from '../../src/cow/mediums.js';
import { readSuperblock } from '../../src/cow/recovery.js';
import { RESULT } from '../../src/cow/results.js';
import type { StoreDone } from '../../src/cow/store.js';
import { blankStore, MemoryStore } from './stores.js';

const BLOCK_BYTES = 4096;
const GIB = 2 ** 30;

/** Keeps durable writes of a range waiting on demand. */
class HoldingStore extends MemoryStore {
  held: (() => void)[] | undefined;
  from = 0;
  end = 0;

  override writeDurably(bytes: Buffer, position: number, done: StoreDone): void {
    const { held } = this;
    if (held === undefined || position < this.from || position >= this.end)
      super.writeDurably(bytes, position, done);
    else held.push(() => super.writeDurably(bytes, position, done));
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function write(engine: Engine, position: number, length = BLOCK_BYTES): Promise<void> {
  const master = new MasterMedium(engine);
  const result = await new Promise((resolve) =>
    master.writeAsync(position, Buffer.alloc(length, 1), 0, length, resolve),
  );
  if (result !== RESULT.OK) throw new Error(`the write at ${position} ended with ${String(result)}`);
}

/** A partition whose first blocks of `pages` map pages hold data of an older generation, the slave disabled. */
async function aged(sizeBytes: number, pages: number): Promise<{ engine: Engine; store: HoldingStore }> {
  const store = new HoldingStore(sizeBytes);
  store.recording = false;
  await initStore(store);
  const engine = await Engine.open(store);
  for (let page = 0; page < pages; page++) await write(engine, page * PAGE_COVERS_BYTES);
  await engine.committer.checkpoint();
  await engine.enable();
  await engine.disable();
  return { engine, store };
}

/** More such pages than have room in memory. */
const MANY_PAGES = 8;
async function agedInSmallCache(): Promise<{ engine: Engine; store: HoldingStore }> {
  const { engine, store } = await aged(GIB, MANY_PAGES);
  await engine.close();
  return { engine: await Engine.open(store, { cachePages: MANY_PAGES / 2 }), store };
}

/** Looks at all pages but the first one, which has to give its place up if it may. */
function pushOut(engine: Engine): void {
  const bytes = Buffer.alloc(BLOCK_BYTES);
  for (let page = 1; page < MANY_PAGES; page++)
    new MasterMedium(engine).read(page * PAGE_COVERS_BYTES, bytes, 0, bytes.length);
}

void t.test(
  'An extent that is listed, but not yet durably, is not written in place after a checkpoint',
  async (t) => {
    const { engine, store } = await aged(8 * GIB, 120);
    const { activityOffset, activitySlotBytes } = engine.core.superblock;
    const position = 110 * PAGE_COVERS_BYTES;
    // Four generations' worth of entries make the list more than half full, so that a checkpoint drops some.
    for (let generation = 0; generation < 4; generation++) {
      for (let page = 0; page < 110; page++) await write(engine, page * PAGE_COVERS_BYTES);
      if (generation === 3) break;
      await engine.enable();
      await engine.disable();
    }
    [store.held, store.from, store.end] = [[], activityOffset, activityOffset + 4 * activitySlotBytes];
    let written = false;
    const waiting = write(engine, position).then(() => (written = true));
    const { counters } = engine.core;
    const before = counters.checkpoints;
    const checkpoint = engine.committer.checkpoint();
    const page = engine.map.cached(0);
    for (let turns = 0; page?.writing !== true && turns < 1000; turns++) await turn();
    // Its page changes meanwhile, by a write to a hole, which needs no listing.
    const data = Buffer.alloc(BLOCK_BYTES, 2);
    t.equal(new MasterMedium(engine).write(position + 128 * BLOCK_BYTES, data, 0, BLOCK_BYTES), RESULT.OK);
    // The journal's mark will wait for the list, too.
    for (let turns = 0; counters.checkpoints === before && turns < 1000; turns++) await turn();
    t.equal(counters.checkpoints, before + 1, 'all pages are written');
    t.equal(store.held.length, 1, 'the list is on its way');
    t.equal(engine.writer.admit(position, BLOCK_BYTES), RESULT.PENDING);
    t.notOk(written);
    const { held } = store;
    store.held = undefined;
    for (const release of held) release();
    await Promise.all([waiting, checkpoint]);
    await engine.close();
  },
);

void t.test('A list that becomes durable in the next generation permits nothing in it', async (t) => {
  const { engine, store } = await aged(GIB, 1);
  const { activityOffset, activitySlotBytes } = engine.core.superblock;
  [store.held, store.from, store.end] = [[], activityOffset, activityOffset + 4 * activitySlotBytes];
  const { held } = store;
  const until = async (count: number): Promise<void> => {
    for (let turns = 0; held.length < count && turns < 1000; turns++) await turn();
    t.equal(held.length, count);
  };
  const waiting = write(engine, 0);
  await until(1);
  await engine.enable();
  await engine.disable();
  held[0]();
  await until(2);
  t.equal(engine.map.cached(0)?.active, 0);
  t.equal(engine.writer.admit(0, BLOCK_BYTES), RESULT.PENDING, 'nor while the next list is on its way');
  held[1]();
  await waiting;
  store.held = undefined;
  await engine.close();
});

void t.test('A list that is full is made room in by a checkpoint, and no write waits for ever', async (t) => {
  const pages = 12;
  const { engine, store } = await aged(GIB, pages);
  const { activitySlotBytes } = engine.core.superblock;
  const entries = (activitySlotBytes - 64) / 12;
  const { counters } = engine.core;
  const before = counters.checkpoints;
  // Each generation lists the pages again.
  for (let generation = 0; generation * pages < 2 * entries; generation++) {
    for (let page = 0; page < pages; page++) await write(engine, page * PAGE_COVERS_BYTES);
    await engine.enable();
    await engine.disable();
  }
  t.ok(counters.checkpoints > before);
  const { generation } = engine.core.superblock;
  await write(engine, (pages - 1) * PAGE_COVERS_BYTES);
  engine.core.failure = new Error('killed');
  const again = await Engine.open(store);
  const changed: number[] = [];
  for await (const { position } of listChanges(again, generation).ranges) changed.push(position);
  t.ok(changed.includes((pages - 1) * PAGE_COVERS_BYTES), 'what was written last is a change after a crash');
  again.core.failure = new Error('killed');
});

void t.test('A sequential writer waits for few lists: one for two map pages (64 MiB), about', async (t) => {
  const pages = 16;
  const store = new HoldingStore(2 * GIB);
  store.recording = false;
  await initStore(store);
  const engine = await Engine.open(store);
  for (let at = 0; at < pages * PAGE_COVERS_BYTES; at += 1 << 20) await write(engine, at, 1 << 20);
  await engine.committer.checkpoint();
  await engine.enable();
  await engine.disable();
  const before = engine.core.counters.activityWrites;
  for (let at = 0; at < pages * PAGE_COVERS_BYTES; at += 1 << 20) await write(engine, at, 1 << 20);
  const lists = engine.core.counters.activityWrites - before;
  t.ok(lists > 0 && lists <= pages / 2 + 3, `${lists} lists for ${pages} map pages`);
  await engine.close();
});

void t.test('Writes here and there list what they touch and its neighbour, not more', async (t) => {
  const { engine } = await aged(8 * GIB, 100);
  await write(engine, 50 * PAGE_COVERS_BYTES);
  t.equal(engine.map.cached(50)?.active, 0b11);
  t.equal(engine.map.cached(51)?.active, 0);
  await engine.close();
});

void t.test('A list with a number that none can have come to is none', async (t) => {
  const { engine, store } = await aged(GIB, 1);
  await write(engine, 0);
  const { superblock } = engine.core;
  const { sequence, entries } = readActivityLog(store, superblock);
  t.match(entries, [{ page: 0, extents: 0b11 }]);
  // In the two slots of the list before.
  const forged = Buffer.alloc(superblock.activitySlotBytes);
  forged.fill(0xff, 32, 40);
  seal(forged, 'CLDDACTV', superblock.uuid, 64);
  for (const slot of [0, 1])
    store.apply(superblock.activityOffset + (2 * ((sequence + 1) % 2) + slot) * forged.length, forged);
  t.same(readActivityLog(store, superblock), { sequence, entries });
  writeU64(forged, 32, sequence + 1);
  seal(forged, 'CLDDACTV', superblock.uuid, 64);
  store.apply(superblock.activityOffset + 2 * ((sequence + 1) % 2) * forged.length, forged);
  t.same(
    readActivityLog(store, superblock),
    { sequence: sequence + 1, entries: [] },
    'one that can be counts',
  );
  engine.core.failure = new Error('killed');
});

void t.test('Who goes on where a list ended has the rest of the page listed, and the next one', async (t) => {
  const store = new HoldingStore(GIB);
  store.recording = false;
  await initStore(store);
  const engine = await Engine.open(store);
  const extent = PAGE_COVERS_BYTES / 8;
  const places = [0, 1, 2, 3, 4, 5].flatMap((page) =>
    [0, 2, 5, 7].map((index) => page * PAGE_COVERS_BYTES + index * extent),
  );
  places.push(2 * PAGE_COVERS_BYTES + 5 * extent - BLOCK_BYTES);
  for (const at of places) await write(engine, at);
  await engine.committer.checkpoint();
  await engine.enable();
  await engine.disable();
  const active = (): (number | undefined)[] =>
    [0, 1, 2, 3, 4, 5].map((page) => engine.map.cached(page)?.active);
  await write(engine, 0);
  t.same(active(), [0b11, 0, 0, 0, 0, 0]);
  await write(engine, 2 * extent);
  t.same(active(), [0xff, 0xff, 0, 0, 0, 0], 'within a page');
  await write(engine, 3 * PAGE_COVERS_BYTES + 7 * extent);
  t.same(active(), [0xff, 0xff, 0, 0x80, 0, 0], 'the last extent has no neighbour in its page');
  await write(engine, 4 * PAGE_COVERS_BYTES);
  t.same(active(), [0xff, 0xff, 0, 0x80, 0xff, 0xff], 'over the border of two pages');
  await write(engine, 2 * PAGE_COVERS_BYTES + 2 * extent);
  t.same(active(), [0xff, 0xff, 0b1100, 0x80, 0xff, 0xff], 'not where it is no going on');
  const lists = engine.core.counters.activityWrites;
  await write(engine, 2 * PAGE_COVERS_BYTES + 5 * extent - BLOCK_BYTES, 2 * BLOCK_BYTES);
  t.same(active(), [0xff, 0xff, 0xfc, 0xff, 0xff, 0xff], 'what lies before is not the rest of the page');
  t.equal(engine.core.counters.activityWrites, lists + 1, 'all of it in one list');
  await engine.close();
});

void t.test('A list byte by byte, where its two copies go, and which one is believed', async (t) => {
  const store = await blankStore(16 << 20);
  const superblock = readSuperblock(store);
  superblock.generation = 9;
  const { activityOffset, activitySlotBytes } = superblock;
  t.same(readActivityLog(store, superblock), { sequence: 0, entries: [] });
  const log = new ActivityLog(superblock, 6);
  log.add(3, 0b101);
  log.add(7, 1);
  log.add(3, 0b10);
  t.equal(log.activeExtents(3), 0, 'not yet durable');
  const odd = log.encode();
  t.equal(odd.bytes.toString('latin1', 0, 8), 'CLDDACTV');
  t.equal(odd.bytes.readUInt32LE(12), 2);
  t.equal(odd.bytes.toString('hex', 64), '030000000900000007000000' + '070000000900000001000000');
  t.same(
    odd.positions,
    [2, 3].map((slot) => activityOffset + slot * activitySlotBytes),
  );
  log.settle();
  t.same([log.activeExtents(3), log.activeExtents(7), log.activeExtents(5)], [7, 1, 0]);
  log.retire((page) => page === 7);
  t.same([log.activeExtents(3), log.activeExtents(7)], [0, 1]);
  t.same(log.entries, [{ page: 7, generation: 9, extents: 1, durable: 1 }]);
  const even = log.encode();
  t.same(
    even.positions,
    [0, 1].map((slot) => activityOffset + slot * activitySlotBytes),
  );
  const lists = { 7: odd, 8: even };
  for (const [copies, expected] of [
    [[odd.positions[0]], 7],
    [[odd.positions[1]], 7],
    [[...odd.positions, even.positions[1]], 8],
    [[even.positions[0], odd.positions[1]], 8],
  ] as const) {
    for (let slot = 0; slot < 4; slot++)
      store.apply(activityOffset + slot * activitySlotBytes, Buffer.alloc(activitySlotBytes));
    for (const position of copies)
      store.apply(position, even.positions.includes(position) ? even.bytes : odd.bytes);
    const { sequence, entries } = readActivityLog(store, superblock);
    t.equal(sequence, expected);
    t.equal(entries.length, lists[expected].bytes.readUInt32LE(12));
  }
});

void t.test('A list may fill its slot to the last entry, and not more', async (t) => {
  const store = await blankStore(16 << 20);
  const superblock = readSuperblock(store);
  const log = new ActivityLog(superblock, 1);
  const most = Math.floor((superblock.activitySlotBytes - 64) / 12);
  t.equal(log.capacity, most);
  for (let page = 0; page < most; page++) {
    if (!log.hasRoom(1)) t.fail(`there is no room for entry ${page}`);
    log.add(page, 1);
  }
  t.ok(log.hasRoom(0));
  t.notOk(log.hasRoom(1));
  const { bytes, positions } = log.encode();
  store.apply(positions[0], bytes);
  t.equal(readActivityLog(store, superblock).entries.length, most);
  // A slot whose last byte is an entry's, too.
  const exact = { ...superblock, activitySlotBytes: bytes.length };
  store.apply(exact.activityOffset, bytes);
  t.equal(readActivityLog(store, exact).entries.length, most);
  // As sealed as it can be, in both copies: a list that says it is longer than its slot.
  const slot = Buffer.alloc(superblock.activitySlotBytes);
  slot.writeUInt32LE(most + 1, 12);
  slot[32] = 9;
  seal(slot, 'CLDDACTV', superblock.uuid);
  for (let copy = 0; copy < 4; copy++)
    store.apply(superblock.activityOffset + copy * superblock.activitySlotBytes, slot);
  t.same(readActivityLog(store, superblock), { sequence: 0, entries: [] });
});

void t.test('Behind the last page there is nothing to list', async (t) => {
  const { engine, store } = await aged(GIB, 1);
  const last = engine.core.totalPages - 1;
  const places = [0, 2].map((index) => last * PAGE_COVERS_BYTES + (index * PAGE_COVERS_BYTES) / 8);
  for (const at of places) await write(engine, at);
  await engine.committer.checkpoint();
  await engine.enable();
  await engine.disable();
  for (const at of places) await write(engine, at);
  t.same(
    readActivityLog(store, engine.core.superblock).entries.map(({ page }) => page),
    [last],
  );
  await engine.close();
});

void t.test('Who wants other extents of the same page at the same moment shares the list', async (t) => {
  const { engine } = await aged(GIB, 1);
  const far = PAGE_COVERS_BYTES / 2;
  await write(engine, far);
  await engine.committer.checkpoint();
  await engine.enable();
  await engine.disable();
  const before = engine.core.counters.activityWrites;
  await Promise.all([write(engine, 0), write(engine, far)]);
  t.equal(engine.core.counters.activityWrites, before + 1);
  t.equal(engine.map.cached(0)?.active, 0b110011);
  await engine.close();
});

void t.test('A page may leave the cache while a list that names it is on its way', async (t) => {
  const { engine, store } = await agedInSmallCache();
  const { activityOffset, activitySlotBytes } = engine.core.superblock;
  [store.held, store.from, store.end] = [[], activityOffset, activityOffset + 4 * activitySlotBytes];
  const { held } = store;
  const waiting = write(engine, 0);
  for (let turns = 0; held.length === 0 && turns < 1000; turns++) await turn();
  pushOut(engine);
  t.equal(engine.map.cached(0), undefined, 'others have pushed it out');
  store.held = undefined;
  for (const release of held) release();
  await waiting;
  t.equal(engine.map.cached(0)?.active, 0b11);
  await engine.close();
});

void t.test('A list is never longer than its slot, even if nothing in it may go', async (t) => {
  const { engine, store } = await aged(GIB, 2);
  const { superblock } = engine.core;
  const entries = (superblock.activitySlotBytes - 64) / 12;
  const pages = [0, 1].map((number) => engine.map.cached(number));
  const settles = (settled: false | undefined): void => {
    for (const page of pages)
      if (settled === undefined) Reflect.deleteProperty(page ?? {}, 'settled');
      else Object.defineProperty(page, 'settled', { value: settled, configurable: true });
  };
  // Both pages count as changed and not yet durable: what is listed of them has to stay.
  settles(false);
  for (let generation = 0; generation < entries; generation++) {
    await write(engine, 0);
    await engine.enable();
    await engine.disable();
  }
  let written = false;
  const waiting = write(engine, PAGE_COVERS_BYTES).then(() => (written = true));
  for (let turns = 0; turns < 100; turns++) await turn();
  t.notOk(written, 'there is no room to name its extent');
  t.equal(readActivityLog(store, superblock).entries.length, entries);
  settles(undefined);
  await waiting;
  await engine.close();
});

void t.test(
  'Of a list that is more than half full a checkpoint keeps what is not durable yet, of others all',
  async (t) => {
    const { engine } = await aged(GIB, 2);
    const { core, map, committer } = engine;
    const half = Math.floor((core.superblock.activitySlotBytes - 64) / 12 / 2);
    const lists = async (position: number): Promise<number> => {
      const before = core.counters.activityWrites;
      await write(engine, position);
      return core.counters.activityWrites - before;
    };
    // Each generation lists page 0 once more.
    for (let entries = 1; entries <= half; entries++) {
      if (entries > 1) {
        await engine.enable();
        await engine.disable();
      }
      t.equal(await lists(0), 1);
    }
    await committer.checkpoint();
    t.equal(map.cached(0)?.active, 0b11, 'half of it is free: it stays');
    t.equal(await lists(PAGE_COVERS_BYTES), 1);
    // Page 0 has changed since its image was taken.
    const page = map.cached(0);
    if (page === undefined) throw new Error('page 0 is not there');
    Object.defineProperty(page, 'settled', { value: false, configurable: true });
    await committer.checkpoint();
    t.same(
      [0, 1].map((number) => map.cached(number)?.active),
      [0b11, 0],
      'more than half of it is used',
    );
    Reflect.deleteProperty(page, 'settled');
    await engine.close();
  },
);

void t.test('A page that a full list names may have left the cache', async (t) => {
  const { engine } = await agedInSmallCache();
  const { core, map, committer } = engine;
  const half = Math.floor((core.superblock.activitySlotBytes - 64) / 12 / 2);
  for (let entries = 1; entries <= half; entries++) {
    await write(engine, 0);
    await engine.enable();
    await engine.disable();
  }
  await committer.checkpoint();
  pushOut(engine);
  t.equal(map.cached(0), undefined);
  await write(engine, PAGE_COVERS_BYTES);
  await committer.checkpoint();
  t.equal(map.cached(0), undefined);
  t.equal(map.cached(1)?.active, 0, 'what it made durable is dropped');
  await engine.close();
});
