/** What goes on beside each other: reads of the map, syncs, writes while the partition is closed. */
import t from 'tap';
import { Engine } from '../../src/cow/engine.js';
import { PAGE_COVERS_BYTES } from '../../src/cow/format.js';
import { initStore } from '../../src/cow/init.js';
import { MasterMedium, SlaveMedium } from '../../src/cow/mediums.js';
import type { EngineOptions } from '../../src/cow/recovery.js';
import { RESULT } from '../../src/cow/results.js';
import { BLOCK_BYTES } from '../../src/cow/states.js';
import { HoldingStore } from './stores.js';

const MIB = 2 ** 20;
const TURNS_MAX = 1000;
const EIO = Object.assign(new Error('EIO: injected'), { code: 'EIO' });

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function until(isTrue: () => boolean, what: string): Promise<void> {
  for (let turns = 0; !isTrue(); turns++) {
    if (turns === TURNS_MAX) throw new Error(`never: ${what}`);
    await turn();
  }
}

interface Opened {
  store: HoldingStore;
  engine: Engine;
  master: MasterMedium;
}

async function opened(sizeBytes: number, options: EngineOptions = {}): Promise<Opened> {
  const store = new HoldingStore(sizeBytes);
  store.recording = false;
  await initStore(store);
  const engine = await Engine.open(store, options);
  return { store, engine, master: new MasterMedium(engine) };
}

function write(master: MasterMedium, position: number, value: number): Promise<number> {
  const data = Buffer.alloc(BLOCK_BYTES, value);
  return new Promise((resolve) => master.writeAsync(position, data, 0, data.length, resolve));
}

const flush = (master: MasterMedium): Promise<number> => new Promise((resolve) => master.flush(resolve));

function shown(master: MasterMedium, position: number): number {
  const bytes = Buffer.alloc(BLOCK_BYTES);
  if (master.read(position, bytes, 0, bytes.length) !== RESULT.OK) throw new Error('a read failed');
  return bytes[0];
}

void t.test('A write over two map pages ends when the cache has a single place to give up', async (t) => {
  const cachePages = 4;
  for (let unsettled = 0; unsettled <= cachePages; unsettled++) {
    const { store, engine, master } = await opened(1024 * MIB, { cachePages });
    for (let page = 0; page < 8; page++)
      for (const at of [0, PAGE_COVERS_BYTES - BLOCK_BYTES])
        await write(master, page * PAGE_COVERS_BYTES + at, 1);
    await engine.close();
    const again = await Engine.open(store, { cachePages });
    const its = new MasterMedium(again);
    await again.enable();
    for (let page = 0; page < unsettled; page++) await write(its, (4 + page) * PAGE_COVERS_BYTES, 2);
    const data = Buffer.alloc(2 * BLOCK_BYTES, 3);
    let result: number | undefined;
    its.writeAsync(PAGE_COVERS_BYTES - BLOCK_BYTES, data, 0, data.length, (ended) => (result = ended));
    await until(() => result !== undefined, `the write ends beside ${unsettled} unsettled pages`);
    t.equal(result, RESULT.OK);
    t.equal(shown(its, PAGE_COVERS_BYTES - BLOCK_BYTES), 3);
    t.equal(shown(its, PAGE_COVERS_BYTES), 3);
    await again.close();
  }
});

void t.test('A map page that is read slowly is not taken for what it was before it changed', async (t) => {
  const pages = 12;
  const { store, engine, master } = await opened(1024 * MIB, { cachePages: 4 });
  for (let page = 0; page < pages; page++) await write(master, page * PAGE_COVERS_BYTES, 1);
  await engine.enable();
  await engine.committer.checkpoint();
  /** Every other page comes in, so that page 0 has to go, if it may. */
  const turnOver = async (): Promise<void> => {
    await engine.committer.checkpoint();
    for (const round of [1, 2])
      for (let page = 1; page < pages; page++)
        t.equal(shown(master, page * PAGE_COVERS_BYTES), 1, `round ${round}`);
  };
  await turnOver();
  store.holds.add('read');
  const bytes = Buffer.alloc(BLOCK_BYTES);
  const read = new Promise((resolve) => master.readAsync(0, bytes, 0, bytes.length, resolve));
  await until(() => store.held.length === 1, 'the page is being read');
  store.holds.clear();
  t.equal(await write(master, 0, 2), RESULT.OK);
  t.equal(await flush(master), RESULT.OK);
  await turnOver();
  store.held[0].end();
  t.equal(await read, RESULT.OK);
  t.ok([1, 2].includes(bytes[0]), 'the read itself may show either');
  t.equal(shown(master, 0), 2, 'what was flushed is there');
  await engine.close();
  t.equal(shown(new MasterMedium(await Engine.open(store)), 0), 2, 'and after another open');
});

/** Linux tells an error of write-back once to each open file; who waits beside the one that gets it hears of nothing. */
void t.test(
  'Of two syncs beside each other one fails: what waited for the other is not durable either',
  async (t) => {
    for (const failing of [0, 1]) {
      const { store, engine, master } = await opened(64 * MIB, { unsyncedBytesMax: 4 * BLOCK_BYTES });
      for (const block of [0, 1]) t.equal(await write(master, block * BLOCK_BYTES, 1), RESULT.OK);
      t.equal(await flush(master), RESULT.OK);
      await engine.committer.checkpoint();
      await until(() => engine.committer.hasRoom && !engine.core.pacing.isFull, 'all is quiet');
      store.holds.add('sync');
      // In place, so that a flush is one sync; half of what may be unsynced begins another one.
      for (const block of [0, 1]) t.equal(await write(master, block * BLOCK_BYTES, 2), RESULT.OK);
      t.equal(store.held.length, 1, 'one in the background');
      let answer: number | undefined;
      const flushed = flush(master).then((result) => (answer = result));
      await until(() => store.held.length === 2, 'the sync of the flush');
      const [first, last] = failing === 0 ? [1, 0] : [0, 1];
      store.held[first].end();
      for (let turns = 0; turns < 10; turns++) await turn();
      if (failing === 0) t.equal(answer, undefined, 'it is not known yet whether all is well');
      store.held[last].end(EIO);
      await flushed;
      t.equal(answer, RESULT.FAILED);
      t.equal(engine.core.failure, EIO);
    }
  },
);

void t.test('The error that came first counts, too', async (t) => {
  const { store, engine, master } = await opened(64 * MIB, { unsyncedBytesMax: 4 * BLOCK_BYTES });
  const told: Error[] = [];
  engine.core.onFailure((error) => told.push(error));
  for (const block of [0, 1]) await write(master, block * BLOCK_BYTES, 1);
  await flush(master);
  await engine.committer.checkpoint();
  store.holds.add('sync');
  for (const block of [0, 1]) await write(master, block * BLOCK_BYTES, 2);
  const flushed = flush(master);
  await until(() => store.held.length === 2, 'the sync of the flush');
  store.held[0].end(EIO);
  await until(() => engine.core.failure !== undefined, 'the failure');
  store.held[1].end();
  t.equal(await flushed, RESULT.FAILED);
  engine.core.fail(new Error('another one'));
  t.same(told, [EIO], 'and is told, once');
});

void t.test(
  'Of two durable writes beside each other one fails: the other one has not become durable',
  async (t) => {
    const { store, engine, master } = await opened(512 * MIB);
    t.equal(await write(master, 0, 1), RESULT.OK);
    await engine.committer.flushed();
    await engine.committer.checkpoint();
    await engine.enable();
    await engine.disable();
    store.holds.add('durable write');
    // A hole on another page needs the journal only, the block of the generation before needs the list.
    t.equal(master.write(PAGE_COVERS_BYTES, Buffer.alloc(BLOCK_BYTES, 2), 0, BLOCK_BYTES), RESULT.OK);
    const flushed = flush(master);
    await until(() => store.held.length === 1, "the journal's write");
    const written = write(master, 0, 3);
    await until(() => store.held.length === 2, "the list's write");
    store.held[0].end();
    store.held[1].end(EIO);
    t.equal(await flushed, RESULT.FAILED);
    t.equal(await written, RESULT.FAILED);
  },
);

void t.test(
  'Who wants to write while the partition is being closed gets an answer, and the close ends',
  async (t) => {
    const { store, engine, master } = await opened(64 * MIB);
    t.equal(await write(master, 0, 1), RESULT.OK);
    store.holds.add('sync');
    const closing = engine.close();
    await until(() => store.held.length === 1, 'the close waits for the disc');
    const answers: Promise<number>[] = [write(master, BLOCK_BYTES, 2)];
    answers.push(
      new Promise((resolve) => {
        t.equal(master.prepareWrite(BLOCK_BYTES, BLOCK_BYTES, resolve), RESULT.PENDING);
      }),
    );
    t.equal(master.unmap(0, BLOCK_BYTES), RESULT.PENDING);
    await turn();
    store.holds.clear();
    store.held[0].end();
    t.same(await Promise.all(answers), [RESULT.FAILED, RESULT.FAILED]);
    await closing;
    t.ok(store.closed);
    t.equal(shown(new MasterMedium(await Engine.open(store)), 0), 1);
  },
);

void t.test('The store is closed when nothing waits for the disc any more', async (t) => {
  const { store, engine, master } = await opened(512 * MIB);
  await write(master, 0, 1);
  await engine.committer.checkpoint();
  await engine.enable();
  await engine.disable();
  store.holds.add('durable write');
  const written = write(master, 0, 2);
  await until(() => store.held.length === 1, "the list's write");
  store.holds.clear();
  let closed = false;
  const closing = engine.close().then(() => (closed = true));
  for (let turns = 0; turns < 200; turns++) await turn();
  t.notOk(store.closed || closed);
  store.held[0].end();
  t.equal(await written, RESULT.FAILED);
  await closing;
  t.ok(store.closed);
});

void t.test(
  'A partition that failed closes its store no sooner than the disc has answered all that was asked',
  async (t) => {
    const { store, engine, master } = await opened(64 * MIB);
    await write(master, 0, 1);
    store.holds.add('sync');
    const flushed = flush(master);
    await until(() => store.held.length === 1, 'the sync');
    engine.core.fail(EIO);
    let closed = false;
    const closing = engine.close().then(() => (closed = true));
    for (let turns = 0; turns < 20; turns++) await turn();
    // What the descriptor stands for by then, the sync would be of.
    t.notOk(store.closed || closed);
    store.held[0].end();
    t.equal(await flushed, RESULT.FAILED);
    await closing;
    t.ok(store.closed);
  },
);

void t.test('Who asks for a flush again the moment that one failed is told so again', async (t) => {
  const { store, engine, master } = await opened(64 * MIB);
  await write(master, 0, 1);
  store.holds.add('sync');
  const told: unknown[] = [];
  engine.committer.flush((error) => {
    told.push(error);
    engine.committer.flush((again) => told.push(again));
  });
  await until(() => store.held.length === 1, 'the sync');
  store.held[0].end(EIO);
  await until(() => told.length === 2, 'both answers');
  t.same(told, [EIO, EIO]);
});

void t.test(
  "A slave's read that is under way ends before its blocks are free; no other begins meanwhile",
  async (t) => {
    const { store, engine, master } = await opened(64 * MIB);
    for (const block of [0, 1]) await write(master, block * BLOCK_BYTES, 1);
    await engine.enable();
    for (const block of [0, 1]) await write(master, block * BLOCK_BYTES, 2);
    const slave = new SlaveMedium(engine);
    store.holds.add('read');
    const read = (block: number): Promise<number> =>
      new Promise((resolve) =>
        slave.readAsync(block * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES), 0, BLOCK_BYTES, resolve),
      );
    const reads = [read(0), read(1)];
    await until(() => store.held.length === 2, 'both reads');
    let over = false;
    const disabled = engine.disable().then(() => (over = true));
    const written = write(master, 0, 3);
    await until(() => !slave.present, 'the slave takes its leave');
    t.equal(await read(0), RESULT.ABSENT);
    store.held[0].end();
    t.equal(await reads[0], RESULT.OK);
    for (let turns = 0; turns < 20; turns++) await turn();
    t.notOk(over, 'one read is still under way');
    t.ok(engine.core.superblock.enabled);
    store.held[1].end();
    t.equal(await reads[1], RESULT.OK);
    await disabled;
    t.notOk(engine.core.superblock.enabled);
    t.equal(await written, RESULT.OK);
    t.equal(shown(master, 0), 3);
    // The next one does not wait for what has ended.
    store.holds.clear();
    await engine.enable();
    t.equal(await read(0), RESULT.OK);
    await engine.disable();
  },
);

void t.test(
  'A transition that is under way ends before a close does, one that comes later is refused',
  async (t) => {
    const { store, engine } = await opened(64 * MIB);
    store.holds.add('sync');
    const enabled = engine.enable();
    await until(() => store.held.length === 1, 'the enable waits for the disc');
    const closing = engine.close();
    const late = t.rejects(engine.disable(), { code: 'CLOSED', message: 'the partition is being closed' });
    store.holds.clear();
    store.held[0].end();
    await Promise.all([enabled, late, closing]);
    const { superblock } = (await Engine.open(store)).core;
    t.match(superblock, { enabled: true, generation: 1 });
  },
);

void t.test('A new epoch and its count of changed blocks are there in one moment', async (t) => {
  const { engine, master } = await opened(64 * MIB);
  const { core } = engine;
  await engine.enable();
  await write(master, 0, 1);
  await flush(master);
  t.equal(core.divergedBlocks, 1);
  const counts: number[] = [];
  let epoch = core.superblock.epoch;
  // A commit that was under way anyway may be next to run when the epoch has changed.
  Object.defineProperty(core.superblock, 'epoch', {
    get: () => epoch,
    set: (value: number) => {
      epoch = value;
      queueMicrotask(() => counts.push(core.divergedBlocks));
    },
  });
  await engine.disable();
  t.strictSame(counts, [0]);
});
