/** What an open after a crash takes from the superblocks, the journal and the activity log, and what it refuses. */
import t from 'tap';
import { readActivityLog } from '../../src/cow/activity-log.js';
import { seal, writeU64 } from '../../src/cow/bytes.js';
import { listChanges } from '../../src/cow/changes.js';
import { checkStore } from '../../src/cow/check.js';
import { Engine } from '../../src/cow/engine.js';
import { ACTIVITY_ENTRY_BYTES, EXTENT_BLOCKS, HEADER_BYTES, PAGE_BYTES, PAGE_COVERS_BYTES, PAGE_UNITS, STATE_TWIN_BYTES, SUPERBLOCK_OFFSETS, UNIT_BYTES, pageOffset } from '../../src/cow/format.js'; // prettier-ignore
import { MasterMedium } from '../../src/cow/mediums.js';
import { readSuperblock } from '../../src/cow/recovery.js';
import { RESULT } from '../../src/cow/results.js';
import { BLOCK_BYTES } from '../../src/cow/states.js';
import { encodeSuperblock } from '../../src/cow/superblock.js';
import type { Superblock } from '../../src/cow/superblock.js';
import { over } from './damage.js';
import { BOTH, OLDER, crashed, edited, first, prepare, u32 } from './lies.js';
import { Durable } from './powercut.js';
import { blankStore, MemoryStore, WornStore } from './stores.js';

const MIB = 2 ** 20;
const EXTENT_BYTES = EXTENT_BLOCKS * BLOCK_BYTES;

t.before(prepare);

async function blank(sizeBytes = 64 * MIB): Promise<MemoryStore> {
  return blankStore(sizeBytes);
}

async function write(engine: Engine, position: number): Promise<void> {
  const master = new MasterMedium(engine);
  const data = Buffer.alloc(BLOCK_BYTES, 1);
  const result = await new Promise((resolve) => master.writeAsync(position, data, 0, data.length, resolve));
  if (result !== RESULT.OK) throw new Error(`a write ended with ${String(result)}`);
}

async function changed(engine: Engine, since: number): Promise<number[]> {
  const positions: number[] = [];
  for await (const { position, length } of listChanges(engine, since).ranges)
    for (let at = position; at < position + length; at += UNIT_BYTES) positions.push(at);
  return positions;
}

/** The process is gone; another opens what it left. */
function reopened(store: MemoryStore, engine: Engine): Promise<Engine> {
  engine.core.failure = new Error('killed');
  return Engine.open(store);
}

/** Data at both ends of the first four extents, of generation 0; the first one has been written in place in generation 1. */
async function writtenInPlace(): Promise<{ store: MemoryStore; engine: Engine }> {
  const store = await blank();
  const engine = await Engine.open(store);
  for (const extent of [0, 1, 2, 3])
    for (const at of [0, EXTENT_BYTES - UNIT_BYTES]) await write(engine, extent * EXTENT_BYTES + at);
  await engine.committer.checkpoint();
  await engine.enable();
  await engine.disable();
  await write(engine, EXTENT_BYTES);
  return { store, engine };
}

void t.test(
  'The first commit since the superblock was written has the count of changed blocks',
  async (t) => {
    const store = await blank();
    const engine = await Engine.open(store);
    await engine.enable();
    await write(engine, 0);
    await engine.committer.flushed();
    const again = await reopened(store, engine);
    t.equal(again.core.divergedBlocks, 1);
    t.equal((await reopened(store, again)).core.divergedBlocks, 1, 'and then the superblock has it');
  },
);

void t.test('After a crash the extents that are listed count as changed, where they hold data', async (t) => {
  const { store, engine } = await writtenInPlace();
  t.match(readActivityLog(store, engine.core.superblock).entries, [
    { page: 0, generation: 1, extents: 0b110 },
  ]);
  const again = await reopened(store, engine);
  t.same(
    await changed(again, 1),
    [1, 2].flatMap((extent) => [extent * EXTENT_BYTES, (extent + 1) * EXTENT_BYTES - UNIT_BYTES]),
  );
  t.equal(again.core.superblock.approximateGeneration, 1);
  t.equal(listChanges(again, 1).approximate, true);
  t.same(readActivityLog(store, again.core.superblock).entries, [], 'the list is empty then');
  await again.close();
  t.equal(listChanges(await Engine.open(store), 1).approximate, true, 'for good');
});

void t.test('After an orderly close a list that is left counts for nothing', async (t) => {
  const { store, engine } = await writtenInPlace();
  await engine.close();
  t.equal(readActivityLog(store, engine.core.superblock).entries.length, 1, 'there is one');
  const again = await Engine.open(store);
  t.same(await changed(again, 1), [EXTENT_BYTES]);
  t.equal(again.core.superblock.approximateGeneration, 0);
  const later = await reopened(store, again);
  t.same(await changed(later, 1), [EXTENT_BYTES], 'nor does it after a crash that comes later');
  t.equal(later.core.superblock.approximateGeneration, 0);
  await later.close();
});

void t.test(
  'Cut anywhere in the recovery, the next one still says that more may be listed than has changed',
  async (t) => {
    const { store: base, engine } = await writtenInPlace();
    engine.core.failure = new Error('killed');
    const store = new MemoryStore(base.sizeBytes, base);
    await Engine.open(store);
    const durable = new Durable(base.sizeBytes, base, store.events);
    const wrong: number[] = [];
    for (const [index, event] of store.events.entries()) {
      durable.follow(event);
      const again = await Engine.open(over(durable.store));
      if (!listChanges(again, 1).approximate) wrong.push(index);
      again.core.failure = new Error('killed');
    }
    t.ok(store.events.length > 10);
    t.same(wrong, []);
  },
);

void t.test('An open makes all copies level, without a repair', async (t) => {
  for (const [what, image] of OLDER) {
    // A map page is looked at when it is used first; the journal and the list name those that a crash may leave unlike.
    if (what === 'page, after an orderly close' || what === 'page, the first twin') continue;
    const store = image();
    const engine = await Engine.open(store);
    engine.core.failure = new Error('killed');
    t.same((await checkStore(store)).findings, [], what);
  }
});

/** Both copies of map page 0, as they are on the disc. */
function pageTwins(store: MemoryStore, engine: Engine): Buffer[] {
  const [segment] = engine.core.segments;
  return BOTH.map((twin) => {
    const bytes = Buffer.alloc(PAGE_BYTES);
    store.readSync(bytes, 0, bytes.length, pageOffset(segment, 0, twin));
    return bytes;
  });
}

void t.test(
  'A page of which one twin only has what the journal or a list made of it is written to both',
  async (t) => {
    for (const by of ['the journal', 'a list']) {
      const base = await blank();
      const store = new MemoryStore(base.sizeBytes, base);
      const engine = await Engine.open(store);
      await write(engine, 0);
      // The second one leaves no record in the journal.
      for (let count = 0; count < 2; count++) await engine.committer.checkpoint();
      await engine.enable();
      if (by === 'the journal') await write(engine, 0);
      await engine.disable();
      if (by === 'a list') await write(engine, 0);
      const left = new Durable(base.sizeBytes, base, store.events);
      store.events.forEach((event) => left.follow(event));
      let whole: MemoryStore = store;
      if (by === 'the journal') {
        // The page comes to the new epoch, which the record in the journal is not of.
        await write(engine, UNIT_BYTES);
        await engine.committer.checkpoint();
      } else {
        whole = over(left.store);
        await (await Engine.open(whole)).close();
      }
      engine.core.failure = new Error('killed');
      const [after, other] = pageTwins(whole, engine);
      t.ok(after.equals(other));
      for (const twin of BOTH) {
        // As a power cut leaves it between the two.
        const image = over(left.store);
        image.apply(pageOffset(engine.core.segments[0], 0, twin), after);
        t.notOk(pageTwins(image, engine)[1 - twin].equals(after));
        (await Engine.open(image)).core.failure = new Error('killed');
        const [one, two] = pageTwins(image, engine);
        t.ok(one.equals(two), `${by}, twin ${twin}`);
      }
    }
  },
);

/** A list newer than all others, that names all extents of one page. */
function list(store: MemoryStore, superblock: Superblock, page: number, generation: number): void {
  const { sequence } = readActivityLog(store, superblock);
  const bytes = Buffer.alloc(HEADER_BYTES + ACTIVITY_ENTRY_BYTES);
  bytes.writeUInt32LE(1, 12);
  writeU64(bytes, 32, sequence + 1);
  bytes.writeUInt32LE(page, HEADER_BYTES);
  bytes.writeUInt32LE(generation, HEADER_BYTES + 4);
  bytes[HEADER_BYTES + 8] = 0xff;
  seal(bytes, 'CLDDACTV', superblock.uuid);
  const slot = 2 * ((sequence + 1) % 2);
  store.apply(superblock.activityOffset + slot * superblock.activitySlotBytes, bytes);
}

void t.test('What a list names and nobody ever wrote to is not made a page', async (t) => {
  const store = await blank(256 * MIB);
  const engine = await Engine.open(store);
  list(store, engine.core.superblock, 2, 0);
  const again = await reopened(store, engine);
  t.equal(again.map.isBlank(2), true);
  await again.close();
});

void t.test('An open leaves a state area alone that is level', async (t) => {
  const store = await blank();
  const engine = await Engine.open(store);
  await new Promise((resolve) => engine.state.save('key', Buffer.from('value'), resolve));
  await engine.close();
  store.recording = true;
  store.events.length = 0;
  const { stateOffset } = (await Engine.open(store)).core.superblock;
  t.ok(store.events.length > 0);
  t.same(
    store.events.filter(
      (event) =>
        event.kind === 'write' &&
        event.position >= stateOffset &&
        event.position < stateOffset + 2 * STATE_TWIN_BYTES,
    ),
    [],
  );
});

void t.test('What a list says of pages or generations that there are not is left out', async (t) => {
  for (const [page, generation] of [
    [1, 1],
    [2 ** 31, 1],
    [0, 2],
  ]) {
    const { store, engine } = await writtenInPlace();
    const { superblock, totalPages } = engine.core;
    t.equal(totalPages, 1);
    list(store, superblock, page, generation);
    const again = await reopened(store, engine);
    t.same(await changed(again, 1), [], `page ${page}, generation ${generation}`);
    t.equal(again.core.superblock.approximateGeneration, 0);
    again.core.failure = new Error('killed');
  }
});

void t.test('Of the copies of the superblock the newest whole one counts, wherever it is', async (t) => {
  const store = await blank();
  const superblock = readSuperblock(store);
  for (const newest of SUPERBLOCK_OFFSETS.keys()) {
    const image = over(store);
    const next: Superblock = { ...superblock, sequence: superblock.sequence + 1, enabledAt: 4711 };
    image.apply(SUPERBLOCK_OFFSETS[newest], encodeSuperblock(next));
    t.equal(readSuperblock(image).enabledAt, 4711, `copy ${newest}`);
  }
});

void t.test('Of the twins of the state area the newer one counts, whichever it is', async (t) => {
  for (const newer of BOTH) {
    const store = await blank();
    let engine = await Engine.open(store);
    const { stateOffset } = engine.core.superblock;
    const save = (value: string): Promise<unknown> =>
      new Promise((resolve) => engine.state.save('key', Buffer.from(value), resolve));
    await save('old');
    const old = Buffer.alloc(4096);
    store.readSync(old, 0, old.length, stateOffset);
    await save('new');
    store.apply(stateOffset + (1 - newer) * STATE_TWIN_BYTES, old);
    engine = await reopened(store, engine);
    t.equal(engine.state.load('key')?.toString(), 'new', `twin ${newer}`);
    engine.core.failure = new Error('killed');
  }
});

void t.test('A crash may be followed by an open with less memory for map pages', async (t) => {
  const store = await blank(1024 * MIB);
  const engine = await Engine.open(store);
  const pages = 12;
  for (let page = 0; page < pages; page++) await write(engine, page * PAGE_COVERS_BYTES);
  await engine.committer.flushed();
  engine.core.failure = new Error('killed');
  const again = await Engine.open(store, { cachePages: 2 });
  const shown = Buffer.alloc(BLOCK_BYTES);
  for (let page = 0; page < pages; page++) {
    t.equal(new MasterMedium(again).read(page * PAGE_COVERS_BYTES, shown, 0, shown.length), RESULT.OK);
    t.equal(shown[0], 1);
  }
  await again.close();
});

void t.test('A copy of the superblock at the very end of the device counts, too', async (t) => {
  const superblock = encodeSuperblock({ ...readSuperblock(await blank()), enabledAt: 4711 });
  for (const position of SUPERBLOCK_OFFSETS) {
    const store = new MemoryStore(position + superblock.length);
    store.apply(position, superblock);
    t.equal(readSuperblock(store).enabledAt, 4711, `at ${position}`);
  }
});

void t.test('What ends within a copy of the superblock is no partition, and no damaged one', async (t) => {
  for (const sizeBytes of [0, 4095, 65_536, 65_536 + 4095, 131_072 + 1, 196_608 + 4095])
    await t.rejects(Engine.open(new MemoryStore(sizeBytes)), { code: 'NOT_CLDD' }, `${sizeBytes} bytes`);
});

void t.test('What can not be opened is told with what to do', async (t) => {
  const store = await blank();
  const superblock = readSuperblock(store);
  const backup = 'restore the partition from a backup';
  const journalSays = (at: number, change: (was: number) => number): MemoryStore =>
    edited(crashed, first, BOTH, u32(at, change))();
  const refusals: readonly (readonly [image: MemoryStore, code: string, message: string])[] = [
    [
      new MemoryStore(64 * MIB),
      'NOT_CLDD',
      "this is not a cldd partition; 'cldd init' makes one (and erases what it holds)",
    ],
    [
      spoilt(store),
      'DAMAGED',
      `no superblock copy can be used: it can't be read (EIO: sector 384); ${backup}`,
    ],
    [rotten(store), 'DAMAGED', `no superblock copy can be used: its checksum is wrong; ${backup}`],
    [
      shorter(store, 4096),
      'DEVICE_SHRUNK',
      `the device has ${64 * MIB - 4096} bytes, but the partition was made for ${64 * MIB}; ` +
        'give the device its size back (nothing was changed)',
    ],
    [
      stateless(store, superblock),
      'DAMAGED',
      "both twins of the state area are unreadable; 'cldd check --repair --empty-state' makes it empty " +
        '(reservations are then lost, data are not)',
    ],
    [
      journalSays(12, (epoch) => epoch + 100),
      'DAMAGED',
      'journal block 5 is newer than every superblock copy',
    ],
    [
      journalSays(60, (generation) => generation + 100),
      'DAMAGED',
      'journal block 5 is newer than every superblock copy',
    ],
    [journalSays(64, () => PAGE_UNITS), 'DAMAGED', 'journal block 5 names a map page that does not exist'],
  ];
  for (const [image, code, message] of refusals) {
    image.recording = true;
    await t.rejects(Engine.open(image), { code, message }, message);
    t.notOk(
      image.events.some(({ kind }) => kind === 'write'),
      'nothing was written',
    );
  }
});

function spoilt(base: MemoryStore): MemoryStore {
  const store = new WornStore(base.sizeBytes, base);
  for (const position of SUPERBLOCK_OFFSETS) store.spoil(position, 1);
  return store;
}

function rotten(base: MemoryStore): MemoryStore {
  const store = over(base);
  for (const position of SUPERBLOCK_OFFSETS) store.apply(position + 1000, Buffer.of(0xdb));
  return store;
}

function shorter(base: MemoryStore, lessBytes: number): MemoryStore {
  const store = over(base);
  store.sizeBytes -= lessBytes;
  return store;
}

function stateless(base: MemoryStore, { stateOffset }: Superblock): MemoryStore {
  const store = over(base);
  for (const twin of BOTH) store.apply(stateOffset + twin * STATE_TWIN_BYTES, Buffer.alloc(512, 0xdb));
  return store;
}
