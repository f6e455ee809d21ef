/** What the parts of an open partition share: places, counters, the superblock's copies, and the failure of the device. */
import t from 'tap';
import { Core } from '../../src/cow/core.js';
import { SUPERBLOCK_OFFSETS } from '../../src/cow/format.js';
import { initStore } from '../../src/cow/init.js';
import { readSuperblock } from '../../src/cow/recovery.js';
import type { Step } from '../../src/cow/steps.js';
import { alwaysQuick, FaultyStore, HoldingStore, MemoryStore, WornStore } from './stores.js';
import type { StoreEvent } from './stores.js';

const MIB = 2 ** 20;
const PAGE_BYTES = 4096;
const BLOCK_BYTES = 4096;
const EIO = Object.assign(new Error('EIO: injected'), { code: 'EIO' });

/** A partition on a store, whose events begin here. */
async function made(store: MemoryStore, does?: (step: Step) => boolean): Promise<Core> {
  await initStore(store);
  store.events.length = 0;
  return new Core(store, readSuperblock(store), does);
}

const places = (events: readonly StoreEvent[]): (number | string)[] =>
  events.map((event) => (event.kind === 'write' ? event.position : event.kind));

void t.test('A position and a page are found in the segment that holds them', async (t) => {
  const store = new MemoryStore(64 * MIB);
  await initStore(store);
  const superblock = readSuperblock(store);
  superblock.segments = [1, 30, 50].map((mib) => ({
    deviceOffset: mib * MIB,
    deviceBytes: 10 * MIB,
    blocks: 8193,
    generation: 0,
  }));
  const core = new Core(store, superblock);
  const { segments } = core;
  const bytes = 8193 * BLOCK_BYTES;
  t.equal(core.capacityBytes, 3 * bytes);
  t.equal(core.totalPages, 6);
  for (const index of [0, 1, 2]) {
    for (const at of [index * bytes, (index + 1) * bytes - 1]) t.equal(core.segmentAt(at), segments[index]);
    for (const page of [2 * index, 2 * index + 1]) t.equal(core.segmentOfPage(page), segments[index]);
  }
});

void t.test('What is written of the metadata is counted, as are syncs', async (t) => {
  const store = new MemoryStore(16 * MIB);
  const core = await made(store);
  const { counters } = core;
  t.match(counters, { metadataWrites: 0, metadataBytesWritten: 0, syncs: 0, dataWrites: 0, dataReads: 0 });
  core.writeMetadata(Buffer.alloc(512), MIB);
  t.match(counters, { metadataWrites: 1, metadataBytesWritten: 512 });
  await core.sync();
  t.match(counters, { metadataWrites: 1, syncs: 1 });
  await core.writeTwice(Buffer.alloc(4096), [MIB, 2 * MIB], 'commit: sync journal');
  t.match(counters, { metadataWrites: 3, metadataBytesWritten: 512 + 2 * 4096, syncs: 2 });
  t.same(places(store.events), [MIB, 'sync', 2 * MIB, MIB, 'durable'], 'the second copy is the durable one');
});

void t.test('A step that is left out is not waited for', async (t) => {
  const store = new MemoryStore(16 * MIB);
  const core = await made(store, (step) => !['commit: sync data', 'commit: sync journal'].includes(step));
  await core.sync('commit: sync data');
  await core.writeTwice(Buffer.alloc(512), [MIB, 2 * MIB], 'commit: sync journal');
  t.same(places(store.events), [2 * MIB, MIB]);
  t.match(core.counters, { syncs: 0, metadataWrites: 2 });
  for (const [left, expected] of [
    ['transition: write superblock', []],
    ['transition: sync first copies', [...SUPERBLOCK_OFFSETS, 'sync']],
  ] as const) {
    const its = new MemoryStore(16 * MIB);
    const other = await made(its, (step) => step !== left);
    await other.replaceSuperblock({ ...other.nextSuperblock(), generation: 7 });
    t.same(places(its.events), expected);
    t.equal(other.superblock.generation, 7);
  }
  await core.sync('checkpoint: sync first twin');
  await core.sync('state');
  t.equal(core.counters.syncs, 2);
});

void t.test('A new superblock is durable in two copies before the other two are written', async (t) => {
  const store = new MemoryStore(16 * MIB);
  const core = await made(store);
  const { superblock } = core;
  const before = superblock.sequence;
  const next = core.nextSuperblock();
  next.generation = 7;
  next.history[0] = 1;
  next.segments.push(next.segments[0]);
  t.equal(superblock.history[0], 0, 'what is prepared is a copy');
  t.equal(superblock.segments.length, 1);
  next.segments.pop();
  const also: unknown[] = [];
  await core.replaceSuperblock(next, () =>
    also.push([core.superblock.generation, places(store.events).length]),
  );
  const [first, second, third, fourth] = SUPERBLOCK_OFFSETS;
  t.same(places(store.events), [first, second, 'sync', third, fourth, 'sync']);
  t.same(also, [[7, 6]], 'with what goes with it');
  t.equal(core.superblock, superblock, 'one object for the life of the partition');
  t.match(superblock, { generation: 7, sequence: before + 1 });
  t.match(readSuperblock(store), { generation: 7, sequence: before + 1 });
});

void t.test(
  'Copies of the superblock that are not the newest one are written again, and no other',
  async (t) => {
    const store = new WornStore(16 * MIB);
    const core = await made(store);
    await core.levelSuperblock();
    t.same(store.events, [], 'all are level');
    store.apply(SUPERBLOCK_OFFSETS[1] + 4000, Buffer.of(1));
    store.spoil(SUPERBLOCK_OFFSETS[3], 512);
    await core.levelSuperblock();
    t.same(places(store.events), [SUPERBLOCK_OFFSETS[1], SUPERBLOCK_OFFSETS[3], 'sync']);
    await core.levelSuperblock();
    t.equal(store.events.length, 3);
    // What could not be read may be right by chance: it is written all the same, which mends it.
    store.readSync = (buffer, offset, length, position) => {
      MemoryStore.prototype.readSync.call(store, buffer, offset, length, position);
      if (position === SUPERBLOCK_OFFSETS[2]) throw EIO;
    };
    await core.levelSuperblock();
    t.same(places(store.events.slice(3)), [SUPERBLOCK_OFFSETS[2], 'sync']);
  },
);

void t.test('The first failure ends all writing, and is told once', async (t) => {
  const store = new FaultyStore(16 * MIB);
  const core = await made(store);
  const told: Error[] = [];
  core.onFailure((error) => told.push(error));
  store.fault = { kind: 'write', at: store.calls.write, persistent: false, code: 'EIO' };
  t.throws(() => core.writeMetadata(Buffer.alloc(512), MIB), { code: 'EIO' });
  const events = store.events.length;
  const { failure } = core;
  t.match(failure, { code: 'EIO' });
  t.equal(core.fail('another').message, 'another', 'who fails has an Error to throw');
  t.equal(core.failure, failure);
  t.same(told, [failure]);
  t.throws(() => core.writeMetadata(Buffer.alloc(512), MIB), { code: 'EIO' });
  await t.rejects(core.sync(), { code: 'EIO' });
  await t.rejects(core.writeTwice(Buffer.alloc(512), [MIB, 2 * MIB], 'commit: sync journal'), {
    code: 'EIO',
  });
  await t.rejects(core.replaceSuperblock(core.nextSuperblock()), { code: 'EIO' });
  t.equal(store.events.length, events, 'nothing more was written');
});

void t.test('Nobody need listen, and who leaves the failure out goes on', async (t) => {
  const core = await made(new MemoryStore(16 * MIB));
  core.fail(EIO);
  t.equal(core.failure, EIO);
  const going = await made(new MemoryStore(16 * MIB), (step) => step !== 'fail-stop');
  t.equal(going.fail(EIO), EIO);
  t.equal(going.failure, undefined);
});

void t.test('Only a commit may wait in this thread', async (t) => {
  const store = new MemoryStore(16 * MIB);
  await initStore(store);
  const core = new Core(store, readSuperblock(store), undefined, undefined, alwaysQuick());
  const places = [MIB, 2 * MIB] as const;
  for (const commit of [undefined, false, true]) {
    for (const wait of [
      () => core.sync('commit: sync data', commit),
      () => core.writeTwice(Buffer.alloc(512), places, 'commit: sync journal', commit),
    ]) {
      const before = store.events.filter(({ kind }) => kind !== 'write').length;
      const waited = wait();
      const after = store.events.filter(({ kind }) => kind !== 'write').length;
      t.equal(after - before, commit === true ? 1 : 0);
      await waited;
    }
  }
});

void t.test('It is idle when neither a sync nor a durable write waits for the device', async (t) => {
  for (const [kind, begin] of [
    ['sync', (core: Core) => core.sync()],
    [
      'durable write',
      (core: Core) => core.writeTwice(Buffer.alloc(512), [MIB, 2 * MIB], 'commit: sync journal'),
    ],
  ] as const)
    for (const error of [undefined, EIO]) {
      const store = new HoldingStore(16 * MIB);
      const core = await made(store);
      await core.idle();
      store.holds.add(kind);
      const begun = begin(core).then(
        () => 'done',
        () => 'failed',
      );
      let idle = false;
      const waited = core.idle().then(() => (idle = true));
      for (let turns = 0; turns < 5; turns++) await new Promise(setImmediate);
      t.notOk(idle);
      store.held[0].end(error);
      await waited;
      t.equal(await begun, error === undefined ? 'done' : 'failed');
      t.equal(core.failure, error);
    }
});

void t.test('A sync that failed makes no room for what was written', async (t) => {
  const store = new FaultyStore(16 * MIB);
  await initStore(store);
  const core = new Core(store, readSuperblock(store), undefined, 4 * PAGE_BYTES);
  core.pacing.wrote(0, PAGE_BYTES);
  t.equal(core.counters.syncs, 0);
  store.fault = { kind: 'sync', at: store.calls.sync, persistent: true, code: 'EIO' };
  core.pacing.wrote(PAGE_BYTES, 3 * PAGE_BYTES);
  t.equal(core.counters.syncs, 1, 'begun in the background');
  for (let turns = 0; turns < 5; turns++) await new Promise(setImmediate);
  t.match(core.failure, { code: 'EIO' });
  t.ok(core.pacing.isFull);
});
