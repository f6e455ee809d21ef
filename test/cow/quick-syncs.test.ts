/** Waiting for a quick disc in the event loop's thread: when it is done, and that it changes nothing else. */
import t from 'tap';
import { Engine } from '../../src/cow/engine.js';
import { initStore } from '../../src/cow/init.js';
import { MasterMedium } from '../../src/cow/mediums.js';
import { QuickSyncs } from '../../src/cow/quick-syncs.js';
import { RESULT } from '../../src/cow/results.js';
import { Chance, FaultyStore } from './stores.js';
import type { StoreDone } from '../../src/cow/store.js';

const MIB = 2 ** 20;
const BLOCK_BYTES = 4096;

/** Waits, of which those in this thread are counted, take as long as told, by a clock of the store's own. */
class TimedStore extends FaultyStore {
  atOnce = 0;
  waitMs = 0;
  ms = 0;

  override syncAtOnce(): void {
    this.#wait();
    super.syncAtOnce();
  }

  override writeDurablyAtOnce(bytes: Buffer, position: number): void {
    this.#wait();
    super.writeDurablyAtOnce(bytes, position);
  }

  override sync(done: StoreDone): void {
    this.ms += this.waitMs;
    super.sync(done);
  }

  override writeDurably(bytes: Buffer, position: number, done: StoreDone): void {
    this.ms += this.waitMs;
    super.writeDurably(bytes, position, done);
  }

  #wait(): void {
    this.atOnce++;
    this.ms += this.waitMs;
  }
}

interface Opened {
  store: TimedStore;
  engine: Engine;
  write: (block: number) => number;
  flush: () => Promise<number>;
}

/** With the slave enabled, so that a flush is two waits. */
async function open(alone = true): Promise<Opened> {
  const store = new TimedStore(64 * MIB);
  await initStore(store);
  const quickSyncs = new QuickSyncs(
    () => alone,
    () => store.ms,
  );
  const engine = await Engine.open(store, { quickSyncs });
  await engine.enable();
  const master = new MasterMedium(engine);
  return {
    store,
    engine,
    write: (block) => master.write(block * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, block), 0, BLOCK_BYTES),
    flush: () => new Promise((resolve) => master.flush(resolve)),
  };
}

/** The policy with a clock of its own, and a wait of so many milliseconds. */
function clocked(alone: () => boolean): { syncs: QuickSyncs; wait: (elapsedMs: number) => void } {
  let ms = 0;
  const syncs = new QuickSyncs(alone, () => ms);
  const wait = (elapsedMs: number): void => {
    syncs.begins();
    ms += elapsedMs;
    syncs.ends();
  };
  return { syncs, wait };
}

void t.test('at once after 16 quick waits in a row, for little, and alone', (t) => {
  let alone = true;
  const { syncs, wait } = clocked(() => alone);
  for (let count = 0; count < 16; count++) {
    t.notOk(syncs.atOnce(0), 'not yet');
    wait(0.3);
  }
  t.ok(syncs.atOnce(MIB));
  t.notOk(syncs.atOnce(MIB + 1), 'much to write takes long on any disc');
  alone = false;
  t.notOk(syncs.atOnce(0), 'others would wait, too');
  alone = true;
  wait(3);
  t.notOk(syncs.atOnce(0), 'a wait that is not quick ends it');
  for (let count = 0; count < 16; count++) wait(0.3);
  t.ok(syncs.atOnce(0));
  t.end();
});

void t.test('each stall doubles what the disc has to show, until it has shown much more', (t) => {
  const { syncs, wait } = clocked(() => true);
  const waitsWanted = (): number => {
    let waits = 0;
    for (; !syncs.atOnce(0); waits++) wait(0.3);
    return waits;
  };
  const after = Array.from({ length: 10 }, () => (wait(11), waitsWanted()));
  t.same(after, [32, 64, 128, 256, 512, 1024, 2048, 4096, 4096, 4096]);
  for (let count = 0; count < 8 * 4096; count++) wait(0.3);
  wait(3);
  t.equal(waitsWanted(), 16);
  t.end();
});

void t.test('2 ms are quick, 10 ms no stall yet, and eight times the streak is enough to forget one', (t) => {
  for (const [stallMs, streak, expected] of [
    [10, 0, 16],
    [11, 0, 32],
    [11, 8 * 32 - 1, 32],
    [11, 8 * 32, 16],
  ]) {
    const { syncs, wait } = clocked(() => true);
    wait(stallMs);
    for (let count = 0; count < streak; count++) wait(1);
    wait(3);
    let waits = 0;
    for (; !syncs.atOnce(0); waits++) wait(2);
    t.equal(waits, expected, `${stallMs} ms, then ${streak} quick ones`);
  }
  t.end();
});

void t.test('without a clock of its own it goes by the real one', (t) => {
  const syncs = new QuickSyncs(() => true);
  for (let count = 0; count < 10_000 && !syncs.atOnce(0); count++) {
    syncs.begins();
    syncs.ends();
  }
  t.ok(syncs.atOnce(0));
  t.end();
});

void t.test('the same writes and syncs in the same order as through the pool', async (t) => {
  const order = async (alone: boolean): Promise<string[]> => {
    const { store, engine, write, flush } = await open(alone);
    const from = store.events.length;
    const chance = new Chance(7);
    for (let step = 0; step < 200; step++) {
      for (let count = chance.below(4); count > 0; count--) t.equal(write(chance.below(5000)), RESULT.OK);
      t.equal(await flush(), RESULT.OK);
    }
    t.equal(store.atOnce > 200, alone, `${store.atOnce} waits at once`);
    await engine.close();
    return store.events
      .slice(from)
      .map((event) => (event.kind === 'write' ? `write ${event.position}` : event.kind));
  };
  t.same(await order(true), await order(false));
});

void t.test(
  'a disc that becomes slow stops the event loop once, and the others wait in the pool',
  async (t) => {
    const { store, write, flush } = await open();
    for (let block = 0; block < 20; block++) {
      write(block);
      await flush();
    }
    const before = store.atOnce;
    t.ok(before > 0, `${before} waits at once while it is quick`);
    store.waitMs = 30;
    for (let block = 0; block < 40; block++) {
      t.equal(write(2000 + block), RESULT.OK);
      t.equal(await flush(), RESULT.OK);
    }
    t.equal(store.atOnce - before, 1);
  },
);

void t.test('an error ends all writing, as one that comes from the pool', async (t) => {
  for (const wait of [0, 1]) {
    const { store, engine, write, flush } = await open();
    for (let block = 0; block < 20; block++) {
      write(block);
      await flush();
    }
    const before = store.atOnce;
    store.fault = { kind: 'sync', at: store.calls.sync + wait, persistent: true, code: 'EIO' };
    write(3000);
    t.equal(await flush(), RESULT.FAILED);
    t.equal(store.atOnce - before, 1 + wait);
    t.match(engine.core.failure?.message, 'EIO');
    t.equal(write(3001), RESULT.FAILED);
  }
});
