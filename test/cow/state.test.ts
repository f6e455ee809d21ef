/** The state area: what initiators rely on lies in two twins, and a cut leaves each record old or new. */
import t from 'tap';
import { Engine } from '../../src/cow/engine.js';
import { STATE_VALUE_BYTES_MAX } from '../../src/cow/format.js';
import { initStore } from '../../src/cow/init.js';
import { Durable, survivors } from './powercut.js';
import { Chance, HoldingStore, MemoryStore } from './stores.js';

const PARTITION_BYTES = 8 << 20;
const SAVES = 8;
/** Surviving subsets at each event. */
const WAYS = 12;
const SEED = 1;

function save(engine: Engine, key: string, value: Buffer | undefined): Promise<void> {
  return new Promise((resolve, reject) =>
    engine.state.save(key, value, (error) => (error === undefined ? resolve() : reject(error))),
  );
}

/** The number that a save wrote into all of its value; 0 if there is none. */
function shown(engine: Engine): number {
  const value = engine.state.load('key');
  if (value === undefined) return 0;
  return value.every((byte) => byte === value[0]) ? value[0] : NaN;
}

void t.test(
  'Cut anywhere, a record is what was saved last or what was being saved, and others stay',
  async (t) => {
    const base = new MemoryStore(PARTITION_BYTES);
    base.recording = false;
    const { segments } = await initStore(base);
    const store = new MemoryStore(PARTITION_BYTES, base);
    const engine = await Engine.open(store);
    await save(engine, 'other', Buffer.from('stays'));
    const from = store.events.length;
    const begun: number[] = [];
    const done: number[] = [];
    for (let number = 1; number <= SAVES; number++) {
      begun[number] = store.events.length;
      // Of different lengths, so that what an earlier one left lies behind a later one.
      await save(engine, 'key', Buffer.alloc(700 * (1 + (number % 3)), number));
      done[number] = store.events.length;
    }
    const chance = new Chance(SEED);
    const durable = new Durable(PARTITION_BYTES, base, store.events);
    const wrong: string[] = [];
    for (const [index, event] of store.events.entries()) {
      durable.follow(event);
      const moment = index + 1;
      if (moment < from) continue;
      const last = done.findLastIndex((at) => at <= moment);
      const saved = Math.max(0, last);
      for (let way = 0; way < WAYS; way++) {
        const left = survivors(durable.store, durable.unsynced(moment), chance, segments[0].halfA);
        const opened = await Engine.open(left);
        const value = shown(opened);
        if (!(value === saved || (value === saved + 1 && begun[value] < moment)))
          wrong.push(`event ${moment}: ${value}, not ${saved}`);
        if (opened.state.load('other')?.toString() !== 'stays')
          wrong.push(`event ${moment}: the other is gone`);
        opened.core.failure = new Error('killed');
      }
    }
    t.same(wrong, []);
    await engine.close();
  },
);

void t.test(
  'A save that is under way when the partition is closed is kept, as are those behind it',
  async (t) => {
    const store = new HoldingStore(PARTITION_BYTES);
    store.recording = false;
    await initStore(store);
    const engine = await Engine.open(store);
    store.holds.add('sync');
    const saved = [save(engine, 'key', Buffer.alloc(1, 1))];
    while (store.held.length === 0) await new Promise(setImmediate);
    saved.push(save(engine, 'key', Buffer.alloc(1, 2)));
    let closed = false;
    const closing = engine.close().then(() => (closed = true));
    for (let turns = 0; turns < 20; turns++) await new Promise(setImmediate);
    t.equal(store.held.length, 1, 'the close waits with its own');
    t.notOk(closed);
    store.holds.clear();
    store.held[0].end();
    await Promise.all([...saved, closing]);
    t.equal(shown(await Engine.open(store)), 2);
  },
);

void t.test('Deleting, replacing, and what does not fit', async (t) => {
  const store = new MemoryStore(PARTITION_BYTES);
  store.recording = false;
  await initStore(store);
  let engine = await Engine.open(store);
  await Promise.all([
    save(engine, 'gone', Buffer.from('1')),
    save(engine, 'key', Buffer.alloc(10, 1)),
    save(engine, 'gone', undefined),
    save(engine, 'key', Buffer.alloc(10, 2)),
  ]);
  await t.rejects(save(engine, 'large', Buffer.alloc(STATE_VALUE_BYTES_MAX)), {
    code: 'STATE_FULL',
    message: `the partition's state area holds ${STATE_VALUE_BYTES_MAX} bytes`,
  });
  const changed = engine.state.load('key');
  changed?.fill(9);
  t.equal(shown(engine), 2, 'who loads a record gets a copy');
  await engine.close();
  await t.rejects(save(engine, 'key', Buffer.alloc(1)), /closed/);
  engine = await Engine.open(store);
  t.equal(engine.state.load('gone'), undefined);
  t.equal(engine.state.load('large'), undefined);
  t.equal(shown(engine), 2);
  const most = Buffer.alloc(STATE_VALUE_BYTES_MAX - 100, 3);
  await save(engine, 'large', most);
  engine.core.failure = new Error('killed');
  t.ok((await Engine.open(store)).state.load('large')?.equals(most), 'as much as may be is kept');
});
