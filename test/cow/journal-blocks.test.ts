/** What the journal's blocks hold, and where in the ring they lie. */
import t from 'tap';
import { Engine } from '../../src/cow/engine.js';
import { JOURNAL_BLOCK_BYTES, JOURNAL_BLOCK_RECORDS, PAGE_COVERS_BYTES, PAGE_UNITS, UNIT_BLOCKS, UNIT_BYTES } from '../../src/cow/format.js'; // prettier-ignore
import { growEngine } from '../../src/cow/grow.js';
import { Journal, decodeBlock, forEachRecord, recoverableRange } from '../../src/cow/journal.js';
import { MapPage } from '../../src/cow/map-page.js';
import { MasterMedium } from '../../src/cow/mediums.js';
import { readSuperblock } from '../../src/cow/recovery.js';
import { BLOCK_BYTES } from '../../src/cow/states.js';
import type { Superblock } from '../../src/cow/superblock.js';
import { blankStore, Chance } from './stores.js';

const MIB = 2 ** 20;
const SEED = 1;

async function superblockOf(sizeBytes: number): Promise<Superblock> {
  return readSuperblock(await blankStore(sizeBytes));
}

void t.test('A record has the states of all sixteen blocks of its unit', async (t) => {
  const superblock = await superblockOf(16 * MIB);
  const chance = new Chance(SEED);
  const pages = [3, 5].map((number) => {
    const page = new MapPage(number, 0);
    page.states.forEach((_, index) => (page.states[index] = chance.below(8)));
    return page;
  });
  const pageOf = (number: number): MapPage => {
    const page = pages.find((one) => one.number === number);
    if (page === undefined) throw new Error(`there is no page ${number}`);
    return page;
  };
  // One more than a block has room for.
  const count = JOURNAL_BLOCK_RECORDS + 1;
  const units = Uint32Array.from(
    { length: count },
    (_, index) => (index % 2 === 0 ? 3 : 5) * PAGE_UNITS + index,
  );
  const facts = { epoch: 7, generation: 9, divergedBlocks: 2 ** 40 + 5 };
  const journal = new Journal(superblock, 14, 13);
  const { pieces, lsn, tail } = journal.place(journal.encode(units, count, pageOf, facts));
  t.same({ lsn, tail, used: journal.usedBlocks }, { lsn: 16, tail: 13, used: 3 });
  const bytes = Buffer.concat(pieces.map((piece) => piece.bytes));
  const found: number[] = [];
  for (const place of [0, 1]) {
    const block = decodeBlock(
      bytes.subarray(place * JOURNAL_BLOCK_BYTES, (place + 1) * JOURNAL_BLOCK_BYTES),
      superblock.uuid,
      14 + place,
      superblock.journalBlocks,
    );
    t.match(block, { ...facts, lsn: 14 + place, tail: 13, batchFirst: 14, batchBlocks: 2 });
    if (block === undefined) continue;
    t.equal(block.records, place === 0 ? JOURNAL_BLOCK_RECORDS : 1);
    forEachRecord(block, (unit, states) => {
      found.push(unit);
      const from = (unit % PAGE_UNITS) * UNIT_BLOCKS;
      const page = pageOf(Math.floor(unit / PAGE_UNITS));
      if (!Buffer.from(states).equals(page.states.subarray(from, from + UNIT_BLOCKS)))
        t.fail(`unit ${unit} came back otherwise`);
    });
  }
  t.same(found, [...units]);
});

void t.test(
  'A batch may fill the ring, round its end; one that does not fit is a mistake of our own',
  async (t) => {
    const superblock = await superblockOf(16 * MIB);
    const { journalBlocks, journalOffset } = superblock;
    t.equal(journalBlocks, 16);
    const batch = (blocks: number): Buffer => Buffer.alloc(blocks * JOURNAL_BLOCK_BYTES);
    const placesOf = (first: number, blocks: number): [number, number, number][] => {
      const { pieces } = new Journal(superblock, first, first).place(batch(blocks));
      return pieces.map(({ bytes, positions: [one, other] }) => [
        (one - journalOffset) / JOURNAL_BLOCK_BYTES,
        (other - journalOffset) / JOURNAL_BLOCK_BYTES,
        bytes.length / JOURNAL_BLOCK_BYTES,
      ]);
    };
    t.same(placesOf(32, 16), [[0, 16, 16]]);
    t.same(placesOf(29, 3), [[13, 29, 3]], 'up to the end');
    t.same(placesOf(29, 4), [[13, 29, 3], [0, 16, 1]], 'and beyond'); // prettier-ignore
    t.throws(() => placesOf(32, 17), { message: 'the journal is full' });
    const journal = new Journal(superblock, 40, 32);
    t.throws(() => journal.place(batch(9)), { message: 'the journal is full' });
    t.doesNotThrow(() => journal.place(batch(8)));
  },
);

void t.test('A crash behind a batch that goes round the end of the ring finds all of it', async (t) => {
  const store = await blankStore(160 * MIB);
  const engine = await Engine.open(store);
  const { journal } = engine.committer;
  const { journalBlocks } = engine.core.superblock;
  const master = new MasterMedium(engine);
  const data = Buffer.alloc(BLOCK_BYTES, 1);
  const units = 2 * JOURNAL_BLOCK_RECORDS + 10;
  let unit = units;
  for (; journal.nextLsn % journalBlocks !== journalBlocks - 2; unit++) {
    master.write(unit * UNIT_BYTES, data, 0, BLOCK_BYTES);
    await engine.committer.flushed();
  }
  const before = journal.nextLsn;
  for (let one = 0; one < units; one++) master.write(one * UNIT_BYTES, data, 0, BLOCK_BYTES);
  await engine.committer.flushed();
  t.equal(journal.nextLsn, before + 3);
  engine.core.failure = new Error('killed');
  const again = new MasterMedium(await Engine.open(store));
  const shown = Buffer.alloc(BLOCK_BYTES);
  let lost = 0;
  for (let one = 0; one < units; one++) {
    again.read(one * UNIT_BYTES, shown, 0, BLOCK_BYTES);
    if (shown[0] !== 1) lost++;
  }
  t.equal(lost, 0);
});

void t.test(
  'Units that changed since the last commit have one record each, however many they are',
  async (t) => {
    const store = await blankStore(160 * MIB);
    const engine = await Engine.open(store);
    const { counters } = engine.core;
    const master = new MasterMedium(engine);
    const data = Buffer.alloc(BLOCK_BYTES, 1);
    const before = { ...counters };
    const units = 1100;
    for (const block of [0, 1])
      for (let unit = 0; unit < units; unit++)
        master.write(unit * UNIT_BYTES + block * BLOCK_BYTES, data, 0, BLOCK_BYTES);
    await engine.committer.flushed();
    t.equal(counters.flushes - before.flushes, 1);
    t.equal(counters.journalCommits - before.journalCommits, 1);
    t.equal(counters.journalBlocks - before.journalBlocks, Math.ceil(units / JOURNAL_BLOCK_RECORDS));
    engine.core.failure = new Error('killed');
    const again = new MasterMedium(await Engine.open(store));
    t.same(again.provisioning((units - 1) * UNIT_BYTES, BLOCK_BYTES), {
      mapped: true,
      lengthBytes: BLOCK_BYTES,
    });
    const shown = Buffer.alloc(BLOCK_BYTES);
    let lost = 0;
    for (let unit = 0; unit < units; unit++) {
      again.read(unit * UNIT_BYTES, shown, 0, BLOCK_BYTES);
      if (shown[0] !== 1) lost++;
    }
    t.equal(lost, 0);
  },
);

void t.test('Half of the changes that may wait for a flush begin a commit without one', async (t) => {
  const store = await blankStore(32 * MIB);
  const engine = await Engine.open(store);
  store.sizeBytes = 256 * MIB;
  await growEngine(engine);
  const { counters, superblock } = engine.core;
  const half = (superblock.journalBlocks / 16) * JOURNAL_BLOCK_RECORDS;
  const master = new MasterMedium(engine);
  const data = Buffer.alloc(BLOCK_BYTES, 1);
  const before = counters.journalCommits;
  const settle = async (): Promise<number> => {
    for (let turns = 0; turns < 50; turns++) await new Promise(setImmediate);
    return counters.journalCommits - before;
  };
  for (let unit = 0; unit < half - 1; unit++) master.write(unit * UNIT_BYTES, data, 0, BLOCK_BYTES);
  t.equal(await settle(), 0);
  master.write((half - 1) * UNIT_BYTES, data, 0, BLOCK_BYTES);
  t.equal(await settle(), 1);
  await engine.close();
});

void t.test(
  'A checkpoint begins by itself when more than half of the map pages in memory wait for one',
  async (t) => {
    for (const pages of [4, 5]) {
      const engine = await Engine.open(await blankStore(1024 * MIB), { cachePages: 8 });
      const { counters } = engine.core;
      const master = new MasterMedium(engine);
      const data = Buffer.alloc(BLOCK_BYTES, 1);
      const before = counters.checkpoints;
      // It is looked at with every sixteenth commit, as the journal is far from half full.
      for (let commit = 0; commit < 33; commit++) {
        master.write((commit % pages) * PAGE_COVERS_BYTES + commit * UNIT_BYTES, data, 0, BLOCK_BYTES);
        await engine.committer.flushed();
      }
      for (let turns = 0; turns < 50; turns++) await new Promise(setImmediate);
      t.equal(counters.checkpoints > before, pages === 5, `${pages} pages`);
      await engine.close();
    }
  },
);

void t.test(
  'A batch that vouches for all before it is where a recovery begins, once the ring has gone round',
  async (t) => {
    const superblock = await superblockOf(16 * MIB);
    const { nextLsn, journalBlocks } = superblock;
    const facts = { epoch: 0, generation: 0, divergedBlocks: 0 };
    /** What a recovery takes of a ring that has one mark only. */
    const range = (lsn: number, tail: number): unknown => {
      const journal = new Journal(superblock, lsn, tail);
      const { pieces } = journal.place(journal.encode(new Uint32Array(), 0, () => new MapPage(0, 0), facts));
      const block = decodeBlock(pieces[0].bytes, superblock.uuid, lsn % journalBlocks, journalBlocks);
      t.match(block, { lsn, tail });
      return recoverableRange(superblock, new Map(block && [[lsn, block]]));
    };
    // The mark behind a checkpoint names itself as the tail, and nothing before it is there any more.
    const mark = nextLsn + 3 * journalBlocks;
    t.same(range(mark, mark), { nextLsn: mark + 1, tail: mark, needed: mark + 1 });
    t.match(
      range(nextLsn, nextLsn + 9),
      { nextLsn: nextLsn + 1 },
      'not where a forged one names what is to come',
    );
  },
);
