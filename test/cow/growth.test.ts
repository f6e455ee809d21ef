/** What grows: the device, and counters until they have gone round what they fit in. */
import t from 'tap';
import { listChanges } from '../../src/cow/changes.js';
import { checkStore } from '../../src/cow/check.js';
import { Engine } from '../../src/cow/engine.js';
import { HISTORY_EPOCHS } from '../../src/cow/superblock.js';
import { MARK_SPAN, MAX_SEGMENTS, PAGE_COVERS_BYTES, UNIT_BYTES, pageOffset } from '../../src/cow/format.js';
import { growEngine } from '../../src/cow/grow.js';
import { initStore } from '../../src/cow/init.js';
import { MasterMedium, SlaveMedium } from '../../src/cow/mediums.js';
import type { EngineOptions } from '../../src/cow/recovery.js';
import { RESULT } from '../../src/cow/results.js';
import { BLOCK_BYTES } from '../../src/cow/states.js';
import { Durable, survivors } from './powercut.js';
import { blankStore, Chance, MemoryStore } from './stores.js';

const MIB = 2 ** 20;
const SEED = 1;
const WAYS = 8;

async function opened(
  sizeBytes: number,
  options: EngineOptions = {},
): Promise<{ engine: Engine; store: MemoryStore }> {
  const store = await blankStore(sizeBytes);
  return { engine: await Engine.open(store, options), store };
}

async function write(engine: Engine, position: number, value: number): Promise<void> {
  const data = Buffer.alloc(BLOCK_BYTES, value);
  const master = new MasterMedium(engine);
  const result = await new Promise((resolve) => master.writeAsync(position, data, 0, data.length, resolve));
  if (result !== RESULT.OK) throw new Error(`a write ended with ${String(result)}`);
}

function shown(side: MasterMedium | SlaveMedium, position: number): number {
  const bytes = Buffer.alloc(BLOCK_BYTES);
  const result = side.read(position, bytes, 0, bytes.length);
  if (result !== RESULT.OK) throw new Error(`a read ended with ${result}`);
  if (!bytes.every((byte) => byte === bytes[0])) throw new Error('the block is a mixture');
  return bytes[0];
}

async function changed(engine: Engine, since: number): Promise<[from: number, end: number][]> {
  const ranges: [number, number][] = [];
  for await (const { position, length } of listChanges(engine, since).ranges)
    ranges.push([position, position + length]);
  return ranges;
}

/** The process is gone; another opens what it left. */
function reopened(store: MemoryStore, engine: Engine, options: EngineOptions = {}): Promise<Engine> {
  engine.core.failure = new Error('killed');
  return Engine.open(store, options);
}

void t.test(
  'What was gained is the end of the master, new to every older generation, and can roll back',
  async (t) => {
    const { engine, store } = await opened(16 * MIB);
    const master = new MasterMedium(engine);
    await write(engine, 0, 1);
    await engine.enable();
    const before = master.capacityBytes;
    await t.rejects(growEngine(engine), { code: 'NOT_GROWN' });
    store.sizeBytes += 3 * MIB;
    await t.rejects(growEngine(engine), { code: 'NOT_GROWN' }, 'less than 4 MiB is not worth it');
    store.sizeBytes = 128 * MIB;
    const { addedBytes, capacityBytes } = await growEngine(engine);
    t.equal(capacityBytes, before + addedBytes);
    t.equal(master.capacityBytes, capacityBytes);
    t.ok(addedBytes > 50 * MIB);
    const last = capacityBytes - BLOCK_BYTES;
    // Over the border of the segments in one go.
    const data = Buffer.alloc(2 * BLOCK_BYTES, 2);
    t.equal(
      await new Promise((resolve) => master.writeAsync(before - BLOCK_BYTES, data, 0, data.length, resolve)),
      RESULT.OK,
    );
    await write(engine, last, 3);
    const slave = new SlaveMedium(engine);
    t.same([shown(slave, before - BLOCK_BYTES), shown(slave, before), shown(slave, last)], [0, 0, 0]);
    const ranges = await changed(engine, 1);
    t.same(ranges.at(-1)?.[1], capacityBytes);
    t.ok((ranges.at(-1)?.[0] ?? Infinity) <= before, 'the image of generation 1 ends where the master ended');
    await engine.disable();
    await engine.enable();
    t.same(await changed(engine, 2), [], 'to a generation that had it, it is no change');
    await write(engine, last, 4);
    await engine.rollback();
    t.same([shown(master, before), shown(master, last)], [2, 3]);
    const again = await reopened(store, engine);
    t.equal(again.core.capacityBytes, capacityBytes);
    t.same(
      [0, before, last].map((at) => shown(new MasterMedium(again), at)),
      [1, 2, 3],
    );
    store.sizeBytes -= BLOCK_BYTES;
    await t.rejects(reopened(store, again), { code: 'DEVICE_SHRUNK' });
  },
);

void t.test('Four MiB more are enough, from an aligned place behind the last segment on', async (t) => {
  const { engine, store } = await opened(16 * MIB + 5 * BLOCK_BYTES);
  const [first] = engine.core.segments;
  store.sizeBytes += 4 * MIB - 1;
  await t.rejects(growEngine(engine), {
    code: 'NOT_GROWN',
    message: /has 20991999 bytes, the partition uses 16797696/,
  });
  t.equal(engine.core.segments.length, 1);
  store.sizeBytes += 1;
  await engine.enable();
  await growEngine(engine);
  const [, second] = engine.core.segments;
  const end = first.deviceOffset + first.deviceBytes;
  t.equal(second.deviceOffset, Math.ceil(end / 65_536) * 65_536);
  t.equal(second.generation, 1);
  t.equal(engine.core.superblock.deviceBytes, store.sizeBytes);
  store.sizeBytes += 4 * MIB - BLOCK_BYTES;
  await t.rejects(growEngine(engine), { code: 'NOT_GROWN' });
});

void t.test('A partition grows as often as the superblock has room for segments', async (t) => {
  const { engine, store } = await opened(16 * MIB);
  for (let segments = 1; segments < MAX_SEGMENTS; segments++) {
    store.sizeBytes += 8 * MIB;
    await growEngine(engine);
    await write(engine, engine.core.capacityBytes - BLOCK_BYTES, segments);
  }
  store.sizeBytes += 8 * MIB;
  await t.rejects(growEngine(engine), {
    code: 'TOO_MANY_SEGMENTS',
    message: 'a partition grows at most 23 times',
  });
  await engine.close();
  t.equal((await Engine.open(store)).core.segments.length, MAX_SEGMENTS);
});

void t.test(
  'Cut anywhere in a grow, the partition has its old size or its new one, and all that it held',
  async (t) => {
    const [small, large] = [16 * MIB, 48 * MIB];
    const base = new MemoryStore(small);
    base.recording = false;
    const { segments } = await initStore(base);
    const store = new MemoryStore(small, base);
    const engine = await Engine.open(store);
    await write(engine, 0, 1);
    await engine.enable();
    await write(engine, 0, 2);
    await engine.committer.flushed();
    const before = engine.core.capacityBytes;
    const from = store.events.length;
    store.sizeBytes = large;
    const { capacityBytes } = await growEngine(engine);
    const grown = store.events.length;
    const place = capacityBytes - BLOCK_BYTES;
    await write(engine, place, 3);
    await engine.committer.flushed();
    const flushed = store.events.length;
    const chance = new Chance(SEED);
    const durable = new Durable(large, base, store.events);
    const wrong: string[] = [];
    const sizes = new Set<number>();
    for (const [index, event] of store.events.entries()) {
      durable.follow(event);
      const moment = index + 1;
      for (let way = 0; moment >= from && way < WAYS; way++) {
        const left = survivors(durable.store, durable.unsynced(moment), chance, segments[0].halfA);
        const complain = (what: string): void => void wrong.push(`event ${moment} of ${flushed}: ${what}`);
        try {
          const after = await Engine.open(left);
          const [master, slave] = [new MasterMedium(after), new SlaveMedium(after)];
          const size = master.capacityBytes;
          sizes.add(size);
          if (size !== capacityBytes && (size !== before || moment >= grown))
            complain(`it has ${size} bytes`);
          if (shown(master, 0) !== 2 || shown(slave, 0) !== 1) complain('a block changed');
          // Another try, where it did not come to its end.
          if (size === before) await growEngine(after);
          const value = shown(master, place);
          if (value !== 3 && (value !== 0 || moment >= flushed)) complain(`the new block shows ${value}`);
          if (shown(slave, place) !== 0) complain('the slave has data in what is new');
          const ranges = await changed(after, 1);
          if (ranges.at(-1)?.[1] !== capacityBytes) complain('what is new is not a change');
          after.core.failure = new Error('killed');
        } catch (error) {
          complain(String(error));
        }
      }
    }
    t.same(wrong.slice(0, 10), []);
    t.strictSame(
      [...sizes].sort((one, other) => one - other),
      [before, capacityBytes],
      'both were seen',
    );
  },
);

void t.test('A large unmap has room in the journal of a small partition that has grown', async (t) => {
  const { engine, store } = await opened(8 * MIB);
  store.sizeBytes = 1100 * MIB;
  await growEngine(engine);
  const master = new MasterMedium(engine);
  const length = 512 * MIB;
  for (let at = 0; at < length; at += UNIT_BYTES) await write(engine, at, 1);
  await engine.committer.flushed();
  await engine.committer.checkpoint();
  let tries = 0;
  for (; master.unmap(0, length) === RESULT.PENDING; tries++) {
    if (tries === 1000) throw new Error('it does not come to its end');
    await new Promise<void>((resolve) => {
      if (master.prepareWrite(0, length, () => resolve()) !== RESULT.PENDING) resolve();
    });
  }
  await engine.committer.flushed();
  t.equal(engine.core.failure, undefined);
  t.same(master.provisioning(0, length), { mapped: false, lengthBytes: length });
  const again = await reopened(store, engine);
  t.same(new MasterMedium(again).provisioning(0, length), { mapped: false, lengthBytes: length });
});

/** A partition after so many disables and rollbacks that `left` more fit into the history. */
async function aged(
  left: number,
  options: EngineOptions = {},
): Promise<{ engine: Engine; store: MemoryStore }> {
  const { engine, store } = await opened(1024 * MIB, options);
  engine.core.superblock.epoch = HISTORY_EPOCHS - 1 - left;
  // All of them rollbacks, so that a disable taken for one of them would be seen.
  engine.core.superblock.history.fill(0xff);
  await engine.enable();
  return { engine, store };
}

void t.test('When the history of epochs is full, pages of all ages are brought up to date', async (t) => {
  const options = { cachePages: 4 };
  const pages = 12;
  const { engine, store } = await aged(4, options);
  const places = Array.from({ length: pages }, (_, page) => page * PAGE_COVERS_BYTES);
  for (const at of places) await write(engine, at, 1);
  await engine.disable();
  await engine.enable();
  // On the disc: even pages diverge in an epoch that ends with a rollback, odd ones in one that ends with a disable.
  for (const at of places.filter((_, page) => page % 2 === 0)) await write(engine, at, 2);
  await engine.committer.checkpoint();
  await engine.rollback();
  for (const at of places.filter((_, page) => page % 2 === 1)) await write(engine, at, 3);
  await engine.committer.checkpoint();
  // In memory only: a page that is not on the disc yet.
  const fresh = pages * PAGE_COVERS_BYTES;
  await write(engine, fresh, 4);
  await engine.disable();
  await engine.enable();
  await write(engine, fresh, 5);
  await engine.rollback();
  t.equal(engine.core.superblock.historyBase, 0, 'the history is full, not more');
  t.equal(engine.core.superblock.epoch, HISTORY_EPOCHS - 1);
  await engine.disable();
  t.equal(engine.core.superblock.historyBase, HISTORY_EPOCHS - 1, 'and begins anew');
  const expected = [...places.map((_, page) => (page % 2 === 0 ? 1 : 3)), 4];
  const all = [...places, fresh];
  t.same(
    all.map((at) => shown(new MasterMedium(engine), at)),
    expected,
  );
  const again = await reopened(store, engine, options);
  t.same(
    all.map((at) => shown(new MasterMedium(again), at)),
    expected,
  );
});

void t.test(
  'When the history is full and memory is full of changed pages, those on the disc are not forgotten',
  async (t) => {
    const cachePages = 4;
    const { engine, store } = await aged(1, { cachePages });
    const place = (page: number): number => page * PAGE_COVERS_BYTES;
    for (let page = 0; page < cachePages; page++) await write(engine, place(page), 1);
    await engine.committer.checkpoint();
    for (let page = cachePages; page < 2 * cachePages; page++) await write(engine, place(page), 1);
    t.notOk(engine.map.hasRoom);
    await engine.disable();
    await engine.enable();
    await engine.disable();
    t.ok(engine.core.superblock.historyBase > 0);
    const again = await reopened(store, engine, { cachePages });
    for (let page = 0; page < 2 * cachePages; page++) t.equal(shown(new MasterMedium(again), place(page)), 1);
  },
);

void t.test('A page that only memory has is not forgotten when the history is full', async (t) => {
  const { engine, store } = await aged(2);
  await write(engine, 0, 1);
  await engine.disable();
  await engine.enable();
  await write(engine, 0, 2);
  await engine.rollback();
  // Nobody touches the page from here on.
  await engine.disable();
  t.ok(engine.core.superblock.historyBase > 0);
  const { historyBase } = engine.core.superblock;
  await engine.enable();
  await engine.disable();
  t.equal(engine.core.superblock.historyBase, historyBase, 'it has room again');
  t.match(await checkStore(store), { verdict: 'clean', findings: [] });
  t.equal(shown(new MasterMedium(engine), 0), 1);
  t.equal(shown(new MasterMedium(await reopened(store, engine)), 0), 1);
});

void t.test('A page of an epoch that the history no longer has is damaged, not guessed', async (t) => {
  const { engine, store } = await aged(1, { cachePages: 4 });
  await write(engine, 0, 1);
  await engine.committer.checkpoint();
  const [segment] = engine.core.segments;
  const old = Buffer.alloc(BLOCK_BYTES);
  store.readSync(old, 0, old.length, pageOffset(segment, 0, 0));
  await engine.disable();
  await engine.enable();
  await engine.disable();
  t.ok(engine.core.superblock.historyBase > 0);
  await engine.close();
  for (const twin of [0, 1]) store.apply(pageOffset(segment, 0, twin), old);
  const again = await Engine.open(store);
  const bytes = Buffer.alloc(BLOCK_BYTES);
  t.equal(new MasterMedium(again).read(0, bytes, 0, bytes.length), RESULT.READ_ERROR);
});

void t.test('Cut anywhere while the history begins anew, nothing is lost', async (t) => {
  const pages = 6;
  const base = new MemoryStore(512 * MIB);
  base.recording = false;
  const { segments } = await initStore(base);
  const options = { cachePages: 4 };
  const first = await Engine.open(base, options);
  first.core.superblock.epoch = HISTORY_EPOCHS - 2;
  await first.enable();
  for (let page = 0; page < pages; page++) await write(first, page * PAGE_COVERS_BYTES, 1);
  await first.disable();
  await first.enable();
  for (let page = 0; page < pages; page++) await write(first, page * PAGE_COVERS_BYTES, 2);
  await first.close();
  const store = new MemoryStore(base.sizeBytes, base);
  const engine = await Engine.open(store, options);
  const from = store.events.length;
  await engine.disable();
  t.equal(engine.core.superblock.historyBase, HISTORY_EPOCHS - 1);
  engine.core.failure = new Error('killed');
  const chance = new Chance(SEED);
  const durable = new Durable(base.sizeBytes, base, store.events);
  const wrong: string[] = [];
  for (const [index, event] of store.events.entries()) {
    durable.follow(event);
    const moment = index + 1;
    for (let way = 0; moment > from && way < WAYS; way++) {
      const left = survivors(durable.store, durable.unsynced(moment), chance, segments[0].halfA);
      const after = await Engine.open(left, options);
      const { enabled } = after.core.superblock;
      for (let page = 0; page < pages; page++) {
        const at = page * PAGE_COVERS_BYTES;
        const [master, slave] = [new MasterMedium(after), new SlaveMedium(after)];
        if (shown(master, at) !== 2 || (enabled && shown(slave, at) !== 1))
          wrong.push(`event ${moment}, page ${page}: ${shown(master, at)}`);
      }
      after.core.failure = new Error('killed');
    }
  }
  t.same(wrong.slice(0, 10), []);
});

void t.test('The change map answers for 32,767 generations, and says so where it does not', async (t) => {
  const { engine, store } = await opened(64 * MIB);
  await write(engine, 0, 1);
  await engine.enable();
  await engine.disable();
  await write(engine, UNIT_BYTES, 1);
  await engine.committer.checkpoint();
  engine.core.superblock.generation = 40_000;
  await engine.enable();
  const { generation } = engine.core.superblock;
  await write(engine, 2 * UNIT_BYTES, 1);
  await engine.close();
  const again = await Engine.open(store);
  const oldest = generation - MARK_SPAN + 1;
  const unit = [2 * UNIT_BYTES, 3 * UNIT_BYTES];
  for (const since of [oldest, generation]) {
    t.match(listChanges(again, since), { full: false, since, generation, approximate: false });
    t.same(await changed(again, since), [unit], `since ${since}`);
  }
  for (const since of [undefined, 0, 1, oldest - 1]) {
    const answer = listChanges(again, since);
    t.match(answer, { full: true, approximate: false });
    const ranges = [];
    for await (const range of answer.ranges) ranges.push(range);
    t.same(ranges, [{ position: 0, length: again.core.capacityBytes }], `since ${since}`);
  }
  for (const since of [generation + 1, -1, 1.5])
    t.throws(() => listChanges(again, since), { code: 'NO_SUCH_GENERATION' });
});

void t.test('A window of the change map has what overlaps it, and nothing more', async (t) => {
  const { engine, store } = await opened(64 * MIB);
  await engine.enable();
  for (const unit of [1, 2, 5]) await write(engine, unit * UNIT_BYTES, 1);
  store.sizeBytes += 16 * MIB;
  const ask = async (since: number | undefined, position: number, end: number): Promise<number[][]> => {
    const ranges: number[][] = [];
    for await (const range of listChanges(engine, since, { position, end }).ranges)
      ranges.push([range.position, range.position + range.length]);
    return ranges;
  };
  t.same(await ask(1, 0, UNIT_BYTES), []);
  t.same(await ask(1, 2 * UNIT_BYTES - 512, 2 * UNIT_BYTES), [[UNIT_BYTES, 2 * UNIT_BYTES]]);
  t.same(await ask(1, 0, engine.core.capacityBytes), [
    [UNIT_BYTES, 3 * UNIT_BYTES],
    [5 * UNIT_BYTES, 6 * UNIT_BYTES],
  ]);
  t.same(await ask(1, UNIT_BYTES, UNIT_BYTES), [], 'an empty one');
  t.same(await ask(undefined, UNIT_BYTES, 3 * UNIT_BYTES), [[UNIT_BYTES, 3 * UNIT_BYTES]]);
  t.same(await ask(undefined, UNIT_BYTES, UNIT_BYTES), []);
});
