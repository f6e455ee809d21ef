/** When writes that flip a state must wait: how many flips may be pending, and how full the journal may be. */
import t from 'tap';
import { Engine } from '../../src/cow/engine.js';
import { JOURNAL_BLOCK_RECORDS, PAGE_UNITS, pageOffset } from '../../src/cow/format.js';
import { growEngine } from '../../src/cow/grow.js';
import { initStore } from '../../src/cow/init.js';
import type { StoreDone } from '../../src/cow/store.js';
import { alwaysQuick, blankStore, HoldingStore, MemoryStore } from './stores.js';

const MIB = 2 ** 20;

/** With a small journal and room for more changed units than it has. */
async function opened(): Promise<Engine> {
  const store = await blankStore(32 * MIB);
  const engine = await Engine.open(store);
  store.sizeBytes = 256 * MIB;
  await growEngine(engine);
  return engine;
}

void t.test(
  'Flips wait for a commit when less than a page has room beside those that are pending',
  async (t) => {
    const engine = await opened();
    const { committer, map, core } = engine;
    const most = Math.floor(core.superblock.journalBlocks / 8) * JOURNAL_BLOCK_RECORDS - PAGE_UNITS;
    const before = core.counters.journalBlocks;
    for (let unit = 0; unit < most; unit++) {
      t.equal(committer.hasRoom, true);
      const page = map.force(Math.floor(unit / PAGE_UNITS));
      // A second flip of one unit takes no further place.
      for (let flip = 0; flip < 2; flip++) committer.noteFlip(page, unit % PAGE_UNITS);
    }
    t.equal(committer.hasRoom, false);
    await committer.flushed();
    t.equal(committer.hasRoom, true);
    t.equal(core.counters.journalBlocks - before, Math.ceil(most / JOURNAL_BLOCK_RECORDS));
    await engine.close();
  },
);

void t.test('They wait for a checkpoint when three quarters of the journal are in use', async (t) => {
  const engine = await opened();
  const { journal } = engine.committer;
  const { journalBlocks } = engine.core.superblock;
  const from = journal.nextLsn;
  for (const [used, hasRoom] of [
    [(journalBlocks * 3) / 4 - 1, true],
    [(journalBlocks * 3) / 4, false],
  ] as const) {
    journal.nextLsn = journal.durableTail + used;
    t.equal(journal.usedBlocks, used);
    t.equal(engine.committer.hasRoom, hasRoom, `${used} blocks`);
  }
  journal.nextLsn = from;
  await engine.close();
});

void t.test(
  'A checkpoint writes a page into the twin whose turn it is, then into the other one',
  async (t) => {
    const store = new MemoryStore(32 * MIB);
    await initStore(store);
    const engine = await Engine.open(store);
    const { committer, core, map } = engine;
    const page = map.force(0);
    for (const turn of [0, 1]) {
      committer.noteFlip(page, 3);
      await committer.flushed();
      const before = core.counters.mapPagesWritten;
      const first = page.firstTwin;
      store.events.length = 0;
      await committer.checkpoint();
      const places = [first, 1 - first].map((twin) => pageOffset(core.segmentOfPage(0), 0, twin));
      const written = store.events.map((event) => (event.kind === 'write' ? event.position : -1));
      t.same(
        written.filter((position) => places.includes(position)),
        places,
        `turn ${turn}`,
      );
      t.equal(core.counters.mapPagesWritten - before, 2);
      t.ok(written.every(Number.isInteger), 'a bitmap block has two places only');
    }
    await engine.close();
  },
);

void t.test('Who waits for a commit or checkpoint is told that it failed', async (t) => {
  const engine = await opened();
  engine.core.failure = new Error('the device is gone');
  await t.rejects(engine.committer.flushed(), { message: 'the device is gone' });
  await t.rejects(engine.committer.checkpoint(), { message: 'the device is gone' });
});

/** All turns of the event loop that a memory store needs, and many more. */
async function settledWithin(turns: number, work: Promise<unknown>): Promise<boolean> {
  let ended = false;
  void work.then(() => (ended = true));
  for (let turn = 0; turn < turns && !ended; turn++) await new Promise(setImmediate);
  return ended;
}

void t.test(
  'Who asks for a checkpoint while one goes on gets another one, and neither is forgotten',
  async (t) => {
    const store = await blankStore(16 * 2 ** 30);
    const engine = await Engine.open(store);
    const { committer, core, map } = engine;
    // More than are written in one round.
    for (let number = 0; number < 200; number++) committer.noteFlip(map.force(number), 0);
    const before = core.counters.checkpoints;
    const first = committer.checkpoint();
    for (let turn = 0; turn < 1000 && core.counters.mapPagesWritten === 0; turn++)
      await new Promise(setImmediate);
    t.equal(core.counters.checkpoints, before, 'it goes on');
    t.ok(await settledWithin(10_000, Promise.all([first, committer.checkpoint()])));
    t.equal(core.counters.checkpoints, before + 2);
    await engine.close();
  },
);

void t.test(
  'A page that the bitmap has costs a checkpoint two writes and two syncs more, and no bitmap',
  async (t) => {
    const store = await blankStore(32 * MIB);
    const engine = await Engine.open(store);
    const { committer, core, map } = engine;
    const page = map.force(0);
    const costs: unknown[] = [];
    for (let round = 0; round < 3; round++) {
      const commit = { ...core.counters };
      committer.noteFlip(page, 0);
      await committer.flushed();
      const before = { ...core.counters };
      await committer.checkpoint();
      const { metadataWrites, syncs } = core.counters;
      // In its own commit and mark a checkpoint does what a flush does.
      costs.push([
        metadataWrites - before.metadataWrites - (before.metadataWrites - commit.metadataWrites),
        syncs - before.syncs - (before.syncs - commit.syncs),
      ]);
    }
    t.same(costs, [
      [4, 4],
      [2, 2],
      [2, 2],
    ]);
    await engine.close();
  },
);

void t.test('A page whose image is on its way to the disc is not settled', async (t) => {
  const store = new HoldingStore(32 * MIB);
  await initStore(store);
  const engine = await Engine.open(store);
  const page = engine.map.force(0);
  engine.committer.noteFlip(page, 0);
  await engine.committer.flushed();
  t.equal(page.settled, false, 'it has changed');
  store.holds.add('sync');
  const checkpoint = engine.committer.checkpoint();
  for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
  t.equal(page.dirty, false, 'the image has all of it');
  t.equal(page.settled, false);
  store.holds.clear();
  for (const { end } of store.held) end();
  await checkpoint;
  t.equal(page.settled, true);
  await engine.close();
});

void t.test(
  'Where the disc is quick a commit waits in this thread, for the data as for the journal',
  async (t) => {
    const calls: string[] = [];
    class Counted extends MemoryStore {
      override sync(done: StoreDone): void {
        calls.push('sync');
        super.sync(done);
      }
      override syncAtOnce(): void {
        calls.push('sync at once');
        super.syncAtOnce();
      }
      override writeDurably(bytes: Buffer, position: number, done: StoreDone): void {
        calls.push('durable write');
        super.writeDurably(bytes, position, done);
      }
      override writeDurablyAtOnce(bytes: Buffer, position: number): void {
        calls.push('durable write at once');
        super.writeDurablyAtOnce(bytes, position);
      }
    }
    for (const options of [{}, { quickSyncs: alwaysQuick() }]) {
      const store = new Counted(32 * MIB);
      await initStore(store);
      const engine = await Engine.open(store, options);
      engine.committer.noteFlip(engine.map.force(0), 0);
      calls.length = 0;
      await engine.committer.flushed();
      t.same(
        calls,
        'quickSyncs' in options ? ['sync at once', 'durable write at once'] : ['sync', 'durable write'],
      );
      await engine.close();
    }
  },
);
