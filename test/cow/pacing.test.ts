/** Unsynced data are bounded: a sync begins at half of the bound, and at the bound writes wait while reads go on. */
import { totalmem } from 'node:os';
import t from 'tap';
import { Engine } from '../../src/cow/engine.js';
import { initStore } from '../../src/cow/init.js';
import { MasterMedium } from '../../src/cow/mediums.js';
import { Pacing, pacingBytes } from '../../src/cow/pacing.js';
import { RESULT } from '../../src/cow/results.js';
import type { StoreDone } from '../../src/cow/store.js';
import { MemoryStore } from './stores.js';

const MIB = 2 ** 20;
const CHUNK = 256 * 1024;

/** A disk that takes its time: syncs end when told. */
class SlowStore extends MemoryStore {
  syncs: (() => void)[] = [];
  slow = false;

  override sync(done: StoreDone): void {
    if (this.slow) this.syncs.push(() => super.sync(done));
    else super.sync(done);
  }

  finish(): void {
    for (const sync of this.syncs.splice(0)) sync();
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function open(): Promise<{ store: SlowStore; engine: Engine; master: MasterMedium }> {
  const store = new SlowStore(64 * MIB);
  store.recording = false;
  await initStore(store);
  const engine = await Engine.open(store, { unsyncedBytesMax: 4 * MIB });
  return { store, engine, master: new MasterMedium(engine) };
}

void t.test(
  'Half of the bound begins a sync, the whole of it makes writes wait, and its end lets them go on',
  async (t) => {
    const { store, engine, master } = await open();
    store.slow = true;
    const data = Buffer.alloc(CHUNK, 7);
    const write = (at: number): number => master.write(at * CHUNK, data, 0, CHUNK);
    for (let at = 0; at < 7; at++) t.equal(write(at), RESULT.OK);
    t.equal(store.syncs.length, 0, 'below half: none');
    t.equal(write(7), RESULT.OK);
    t.equal(store.syncs.length, 1, 'at half: one');
    for (let at = 8; at < 16; at++) t.equal(write(at), RESULT.OK);
    t.equal(store.syncs.length, 1, 'and no second one while it runs');
    t.equal(write(16), RESULT.PENDING, 'at the bound: wait');
    t.equal(master.read(0, Buffer.alloc(CHUNK), 0, CHUNK), RESULT.OK, 'reads go on');
    let ended: unknown;
    master.writeAsync(16 * CHUNK, data, 0, CHUNK, (result) => (ended = result));
    for (let count = 0; count < 10; count++) await turn();
    t.equal(ended, undefined);
    store.finish();
    for (let count = 0; count < 10; count++) await turn();
    t.equal(ended, RESULT.OK);
    store.slow = false;
    store.finish();
    await engine.close();
  },
);

void t.test(
  'A background sync that fails ends all writing, and those who wait for it are told',
  async (t) => {
    const { store, engine, master } = await open();
    const data = Buffer.alloc(CHUNK, 7);
    store.sync = (done) => setImmediate(done, new Error('EIO: injected'));
    let at = 0;
    while (master.write(at * CHUNK, data, 0, CHUNK) === RESULT.OK) at++;
    t.equal(at, 16);
    t.equal(
      await new Promise((resolve) => master.writeAsync(at * CHUNK, data, 0, CHUNK, resolve)),
      RESULT.FAILED,
    );
    t.match(engine.core.failure, /EIO/);
  },
);

void t.test('Flushes count: who flushes often enough never waits', async (t) => {
  const { engine, master } = await open();
  const data = Buffer.alloc(CHUNK, 7);
  const { syncs } = engine.core.counters;
  for (let at = 0; at < 60; at++) {
    t.equal(master.write(at * CHUNK, data, 0, CHUNK), RESULT.OK);
    if (at % 4 === 3) await new Promise((resolve) => master.flush(resolve));
  }
  t.ok(engine.core.counters.syncs - syncs >= 15);
  await engine.close();
});

void t.test('What is written again before a sync counts once', async (t) => {
  const { store, engine, master } = await open();
  const data = Buffer.alloc(CHUNK, 7);
  for (let count = 0; count < 16; count++)
    await new Promise((resolve) => master.writeAsync((count % 8) * CHUNK, data, 0, CHUNK, resolve));
  await new Promise((resolve) => master.flush(resolve));
  store.slow = true;
  for (let count = 0; count < 100; count++)
    t.equal(master.write((count % 4) * CHUNK, data, 0, CHUNK), RESULT.OK);
  t.equal(store.syncs.length, 0, 'one MiB of memory, however often');
  for (let at = 4; at < 8; at++) master.write(at * CHUNK, data, 0, CHUNK);
  t.equal(store.syncs.length, 1, 'two MiB, half of the bound');
  // That sync has what was written before it only.
  for (let at = 0; at < 8; at++) t.equal(master.write(at * CHUNK, data, 0, CHUNK), RESULT.OK);
  t.equal(master.write(0, data, 0, CHUNK), RESULT.PENDING, 'the same two MiB are unsynced once more');
  store.slow = false;
  store.finish();
  for (let count = 0; count < 10; count++) await turn();
  await engine.close();
});

void t.test(
  'An area of the store counts for what was written of it in whole pages, and at most for its size',
  (t) => {
    const PAGE = 4096;
    let begun = 0;
    const unsynced = (pacing: Pacing): number => {
      // One that fails, so that all of it stays unsynced.
      pacing.syncBegins();
      pacing.syncEnds(0);
      return pacing.unsyncedBytes;
    };
    for (const [storeBytes, areaBytes] of [
      [16 * MIB, MIB / 16],
      [4096 * MIB, MIB / 16],
      [65_536 * MIB, MIB],
      [65_536 * MIB + 1, MIB + PAGE],
      [2 ** 46, 2 ** 30],
    ]) {
      const paced = (): Pacing => new Pacing(2 ** 40, storeBytes, () => begun++);
      const pacing = paced();
      pacing.wrote(512, 512);
      t.equal(unsynced(pacing), PAGE);
      pacing.wrote(PAGE - 1, 2);
      t.equal(unsynced(pacing), 3 * PAGE, 'both pages that it touches');
      pacing.wrote(0, areaBytes);
      t.equal(unsynced(pacing), 3 * PAGE + areaBytes, 'a sync has begun before');
      const other = paced();
      for (let count = 0; count < 3; count++) other.wrote(0, areaBytes);
      t.equal(unsynced(other), areaBytes, 'three times without one');
      const across = paced();
      for (let count = 0; count < 3; count++) across.wrote(areaBytes - PAGE, 2 * PAGE);
      t.equal(unsynced(across), 6 * PAGE, 'across the border of two');
      const grown = paced();
      for (let count = 0; count < 3; count++) grown.wrote(2 ** 47, MIB);
      t.equal(unsynced(grown), 3 * MIB, 'each time where the store has grown');
    }
    t.equal(begun, 0);
    t.end();
  },
);

void t.test('The bound is a sixteenth of the memory, within limits', (t) => {
  t.equal(pacingBytes(384 * MIB), 24 * MIB);
  t.equal(pacingBytes(64 * MIB), 16 * MIB);
  t.equal(pacingBytes(2 ** 40), 2048 * MIB);
  const constrainedMemory = process.constrainedMemory.bind(process);
  t.teardown(() => (process.constrainedMemory = constrainedMemory));
  for (const [limit, memory] of [
    [0, totalmem()],
    [512 * MIB, Math.min(512 * MIB, totalmem())],
    [2 ** 63, totalmem()],
  ]) {
    process.constrainedMemory = () => limit;
    t.equal(pacingBytes(), pacingBytes(memory), `a control group that reports ${limit}`);
  }
  t.end();
});

void t.test('Who waits after a sync that failed has another one begun', async (t) => {
  let begun = 0;
  const pacing = new Pacing(100, MIB, () => {
    begun++;
    pacing.syncBegins();
  });
  pacing.wrote(0, 8192);
  t.equal(begun, 1);
  pacing.syncEnds(0);
  t.ok(pacing.isFull);
  const room = pacing.room();
  t.equal(begun, 2);
  void pacing.room();
  t.equal(begun, 2, 'and no other one while it runs');
  pacing.syncEnds(8192);
  await room;
  t.notOk(pacing.isFull);
});

void t.test('Of two syncs beside each other each counts for what was written before it', (t) => {
  const pacing = new Pacing(MIB, 16 * MIB, () => undefined);
  const pages = (at: number, count: number): void => pacing.wrote(at * MIB, count * 4096);
  pages(0, 4);
  const first = pacing.syncBegins();
  pages(1, 8);
  const second = pacing.syncBegins();
  pacing.syncEnds(first);
  t.equal(pacing.unsyncedBytes, 8 * 4096);
  pages(2, 2);
  pacing.syncEnds(second);
  t.equal(pacing.unsyncedBytes, 2 * 4096, 'what came later is not durable');
  const third = pacing.syncBegins();
  pages(3, 1);
  pacing.syncEnds(pacing.syncBegins());
  pacing.syncEnds(third);
  t.equal(pacing.unsyncedBytes, 0, 'the one that began later has ended first');
  t.end();
});
