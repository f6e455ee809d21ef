/** The state area: what initiators rely on lies in two twins, and a cut leaves each record old or new. */
import t from 'tap';
import { Engine } from '../../src/cow/engine.js';
import { HEADER_BYTES, STATE_TWIN_BYTES, STATE_VALUE_BYTES_MAX } from '../../src/cow/format.js';
import { initStore } from '../../src/cow/init.js';
import { readSuperblock } from '../../src/cow/recovery.js';
import { StateArea, encodeState, readStateTwin } from '../../src/cow/state-area.js';
import { seal } from '../../src/cow/bytes.js';
import type { Superblock } from '../../src/cow/superblock.js';
import { Durable, survivors } from './powercut.js';
import { blankStore, Chance, HoldingStore, MemoryStore } from './stores.js';

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
  const store = await blankStore(PARTITION_BYTES);
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

async function blank(): Promise<{ store: MemoryStore; superblock: Superblock }> {
  const store = await blankStore(PARTITION_BYTES);
  return { store, superblock: readSuperblock(store) };
}

void t.test('A twin is what docs/format.md says, to its last byte, and nothing else is one', async (t) => {
  const { store, superblock } = await blank();
  const { stateOffset, uuid } = superblock;
  const records = new Map([
    ['key', Buffer.from('value')],
    ['', Buffer.alloc(0)],
  ]);
  const bytes = encodeState({ sequence: 7, records }, uuid);
  t.equal(bytes.toString('latin1', 0, 8), 'CLDDSTAT');
  t.equal(bytes.toString('latin1', HEADER_BYTES), '\x03\0\x05\0\0\0keyvalue\0\0\0\0\0\0');
  const second = stateOffset + STATE_TWIN_BYTES;
  store.apply(second, bytes);
  t.same(readStateTwin(store, superblock, 1), { sequence: 7, records });
  const full = new Map([['k', Buffer.alloc(STATE_TWIN_BYTES - HEADER_BYTES - 7, 1)]]);
  store.apply(second, encodeState({ sequence: 8, records: full }, uuid));
  t.equal(readStateTwin(store, superblock, 1)?.records.get('k')?.length, full.get('k')?.length);
  for (const length of [0, HEADER_BYTES - 1, STATE_TWIN_BYTES + 1, 2 ** 32 - 1]) {
    const damaged = Buffer.from(bytes);
    damaged.writeUInt32LE(length, 12);
    // As sealed as it can be: a header that is cut short.
    if (length >= 12 && length < HEADER_BYTES) seal(damaged, 'CLDDSTAT', uuid, length);
    store.apply(second, damaged);
    t.equal(readStateTwin(store, superblock, 1), undefined, `${length} bytes`);
  }
  bytes.fill(255, 32, 40);
  seal(bytes, 'CLDDSTAT', uuid);
  store.apply(second, bytes);
  t.equal(readStateTwin(store, superblock, 1), undefined, 'its successor could not be written');
});

void t.test('Only a twin that is stale is made level, once; a save writes both', async (t) => {
  const { superblock } = await blank();
  for (const stale of [undefined, 0, 1]) {
    const positions: number[] = [];
    const syncs: string[] = [];
    const host = {
      superblock,
      writeMetadata: (_: Buffer, position: number): void => void positions.push(position),
      sync: (what: string): Promise<void> => Promise.resolve(void syncs.push(what)),
    };
    const area = new StateArea(host, { sequence: 3, records: new Map() }, stale);
    for (let turn = 0; turn < 2; turn++) await area.makeLevel();
    const { stateOffset } = superblock;
    t.same(positions, stale === undefined ? [] : [stateOffset + stale * STATE_TWIN_BYTES]);
    await new Promise<void>((resolve) => area.save('key', Buffer.alloc(1), () => resolve()));
    t.same(positions.slice(-2), [stateOffset, stateOffset + STATE_TWIN_BYTES]);
    t.same(
      syncs,
      positions.map(() => 'state'),
    );
    const most = STATE_VALUE_BYTES_MAX - (6 + 'key'.length);
    const saved = (bytes: number): Promise<Error | undefined> =>
      new Promise((resolve) => area.save('key', Buffer.alloc(bytes), resolve));
    t.equal(await saved(most), undefined, 'as much as fits');
    t.match(await saved(most + 1), { code: 'STATE_FULL' });
  }
});
