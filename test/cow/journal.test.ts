/** What a batch that a power cut left in part does to later ones. */
import t from 'tap';
import { journalPosition } from '../../src/cow/check-journal.js';
import { seal } from '../../src/cow/bytes.js';
import { dumpStore } from '../../src/cow/dump.js';
import { Engine } from '../../src/cow/engine.js';
import { JOURNAL_BLOCK_BYTES, JOURNAL_BLOCK_RECORDS, UNIT_BYTES } from '../../src/cow/format.js';
import { decodeBlock } from '../../src/cow/journal.js';
import { MasterMedium } from '../../src/cow/mediums.js';
import { RESULT } from '../../src/cow/results.js';
import type { Steps } from '../../src/cow/steps.js';
import { blankStore, MemoryStore } from './stores.js';

const BLOCK_BYTES = 4096;
const SECTOR_BYTES = 512;
/** What an earlier round of the ring may have left in a block. */
const STALE = Buffer.alloc(JOURNAL_BLOCK_BYTES, 0x5a);

async function write(engine: Engine, position: number, value: number): Promise<void> {
  const buffer = Buffer.alloc(BLOCK_BYTES, value);
  const result = await new Promise((resolve) =>
    new MasterMedium(engine).writeAsync(position, buffer, 0, buffer.length, resolve),
  );
  if (result !== RESULT.OK) throw new Error(`a write ended with ${String(result)}`);
}

async function unmap(engine: Engine, position: number): Promise<void> {
  const master = new MasterMedium(engine);
  while (master.unmap(position, BLOCK_BYTES) === RESULT.PENDING) {
    await new Promise<unknown>((resolve) => {
      const ready = master.prepareWrite(position, BLOCK_BYTES, resolve);
      if (ready !== RESULT.PENDING) resolve(ready);
    });
  }
}

function shown(engine: Engine, position: number): number {
  const buffer = Buffer.alloc(BLOCK_BYTES);
  new MasterMedium(engine).read(position, buffer, 0, buffer.length);
  return buffer[0];
}

function bytesAt(store: MemoryStore, position: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  store.readSync(bytes, 0, length, position);
  return bytes;
}

/** The process is gone; another opens what it left. */
function reopened(store: MemoryStore, engine: Engine, steps?: Steps): Promise<Engine> {
  engine.core.failure = new Error('killed');
  return Engine.open(store, steps === undefined ? {} : { steps });
}

void t.test('What is left of a torn batch neither hides later commits nor comes back', async (t) => {
  for (const commits of [1, 2]) {
    const store = await blankStore(160 << 20);
    let engine = await Engine.open(store);
    const first = engine.committer.journal.nextLsn;
    const units = 2 * JOURNAL_BLOCK_RECORDS + 10;
    for (let unit = 0; unit < units; unit++) await write(engine, unit * UNIT_BYTES, 1);
    await engine.committer.flushed();
    t.equal(engine.committer.journal.nextLsn, first + 3, 'a batch of three blocks');
    for (const copy of [0, 1]) {
      const position = journalPosition(engine.core.superblock, first, copy);
      store.apply(position, Buffer.alloc(JOURNAL_BLOCK_BYTES));
    }
    engine = await reopened(store, engine);
    t.equal(shown(engine, (units - 1) * UNIT_BYTES), 0, 'the batch is ignored');
    for (let commit = 0; commit < commits; commit++) {
      await write(engine, commit * UNIT_BYTES, 2);
      await engine.committer.flushed();
    }
    engine = await reopened(store, engine);
    for (let commit = 0; commit < commits; commit++)
      t.equal(shown(engine, commit * UNIT_BYTES), 2, `commit ${commit} of ${commits} is there`);
    t.equal(shown(engine, (units - 1) * UNIT_BYTES), 0, 'what was ignored stays ignored');
    engine.core.failure = new Error('killed');
  }
});

/**
 * Two lives that each end in the middle of a batch of three blocks: of the first batch its last block survives, of the
 * second the others. Answers which block of theirs is there in the end, in words; none may be.
 */
async function remainsOfTwo(steps?: Steps): Promise<string | undefined> {
  const store = await blankStore(512 << 20);
  const units = 2 * JOURNAL_BLOCK_RECORDS + 10;
  for (const life of [1, 2]) {
    let engine = await Engine.open(store, steps === undefined ? {} : { steps });
    const first = engine.committer.journal.nextLsn;
    const lost = (life === 1 ? [0, 1] : [2]).flatMap((index) =>
      [0, 1].map((copy) => {
        const position = journalPosition(engine.core.superblock, first + index, copy);
        const bytes = Buffer.alloc(JOURNAL_BLOCK_BYTES);
        store.readSync(bytes, 0, bytes.length, position);
        return { position, bytes };
      }),
    );
    for (let unit = 0; unit < units; unit++) await write(engine, (unit + life * units) * UNIT_BYTES, life);
    await engine.committer.flushed();
    for (const { position, bytes } of lost) store.apply(position, bytes);
    engine = await reopened(store, engine, steps);
    for (let unit = units; unit < 3 * units; unit++)
      if (shown(engine, unit * UNIT_BYTES) !== 0) return `after life ${life}, unit ${unit} is there`;
    engine.core.failure = new Error('killed');
  }
  return undefined;
}

void t.test('Remains of two torn batches with the same numbers do not make a whole one', async (t) => {
  t.equal(await remainsOfTwo(), undefined);
  t.match(await remainsOfTwo((step) => step !== 'open: number on behind a torn batch'), /after life 2/);
});

/**
 * What a block shows that was written durably between two torn batches. The first one, which unmaps the block, is torn
 * behind its first sector; the second one, in the same place, at its first sector: what it leaves of itself is zeros.
 */
async function sectorsOfTwo(steps?: Steps): Promise<number> {
  const store = await blankStore(16 << 20);
  let engine = await Engine.open(store);
  await write(engine, 0, 1);
  await engine.close();
  engine = await Engine.open(store, steps === undefined ? {} : { steps });
  const places = (): number[] =>
    [0, 1].map((copy) => journalPosition(engine.core.superblock, engine.committer.journal.nextLsn, copy));
  for (const place of places()) store.apply(place, STALE);
  const first = places();
  await unmap(engine, 0);
  await engine.committer.flushed();
  for (const place of first) store.apply(place + SECTOR_BYTES, STALE.subarray(SECTOR_BYTES));
  engine = await reopened(store, engine, steps);
  await write(engine, 0, 2);
  await engine.committer.flushed();
  const second = places();
  const before = second.map((place) => bytesAt(store, place, SECTOR_BYTES));
  await write(engine, UNIT_BYTES, 3);
  await engine.committer.flushed();
  second.forEach((place, copy) => store.apply(place, before[copy]));
  engine = await reopened(store, engine, steps);
  engine.core.failure = new Error('killed');
  return shown(engine, 0);
}

void t.test('Sectors of two torn journal blocks do not make a whole one', async (t) => {
  t.equal(await sectorsOfTwo(), 2);
  t.equal(await sectorsOfTwo((step) => step !== 'open: number on behind a torn batch'), 0, 'else they would');
});

type Edit = (block: Buffer) => void;

/** What the last unit of a batch of three blocks shows after a crash, when its second block has been changed. */
async function afterEdit(edit: Edit): Promise<number> {
  const store = await blankStore(160 << 20);
  const engine = await Engine.open(store);
  const { superblock } = engine.core;
  const first = engine.committer.journal.nextLsn;
  const units = 2 * JOURNAL_BLOCK_RECORDS + 10;
  for (let unit = 0; unit < units; unit++) await write(engine, unit * UNIT_BYTES, 1);
  await engine.committer.flushed();
  for (const copy of [0, 1]) {
    const position = journalPosition(superblock, first + 1, copy);
    const block = bytesAt(store, position, JOURNAL_BLOCK_BYTES);
    edit(block);
    seal(block, 'CLDDJRNL', superblock.uuid);
    store.apply(position, block);
  }
  const { batches } = dumpStore(store).journal ?? {};
  const again = await reopened(store, engine);
  again.core.failure = new Error('killed');
  const value = shown(again, (units - 1) * UNIT_BYTES);
  const whole = batches?.find(({ lsn }) => lsn === first);
  if ((whole?.records === units && whole.blocks === 3) !== (value === 1))
    throw new Error(`dump says otherwise: ${JSON.stringify(batches)}`);
  return value;
}

void t.test('A batch whose blocks do not belong together is none', async (t) => {
  t.equal(await afterEdit(() => undefined), 1, 'as it was written, it is one');
  for (const [what, edit] of [
    ['another epoch', (block) => void block.writeUInt32LE(block.readUInt32LE(12) + 1, 12)],
    ['another tail', (block) => void block.writeUInt32LE(block.readUInt32LE(40) - 1, 40)],
    ['the number of another place', (block) => void block.writeUInt32LE(block.readUInt32LE(32) + 1, 32)],
    ['another size of the batch', (block) => void block.writeUInt16LE(4, 50)],
    ['another count of changed blocks', (block) => void block.writeUIntLE(1, 54, 6)],
    ['more records than it has room for', (block) => void block.writeUInt16LE(JOURNAL_BLOCK_RECORDS + 1, 52)],
  ] as const satisfies readonly (readonly [string, Edit])[])
    t.equal(await afterEdit(edit), 0, what);
});

void t.test('A block is one in its own place only, and with a tail that a number can be', async (t) => {
  const store = await blankStore(16 << 20);
  const engine = await Engine.open(store);
  const { superblock } = engine.core;
  const first = engine.committer.journal.nextLsn;
  for (const commit of [0, 1]) {
    await write(engine, commit * UNIT_BYTES, 1);
    await engine.committer.flushed();
  }
  const places = [0, 1].map((copy) => journalPosition(superblock, first + 1, copy));
  const block = bytesAt(store, places[0], JOURNAL_BLOCK_BYTES);
  const { journalBlocks, uuid } = superblock;
  const slot = (first + 1) % journalBlocks;
  t.match(decodeBlock(block, uuid, slot, journalBlocks), { lsn: first + 1, records: 1 });
  t.equal(decodeBlock(block, uuid, slot - 1, journalBlocks), undefined);
  block.fill(0xff, 40, 48);
  seal(block, 'CLDDJRNL', uuid);
  for (const place of places) store.apply(place, block);
  const again = await reopened(store, engine);
  t.same([shown(again, 0), shown(again, UNIT_BYTES)], [1, 0], 'what was committed before is there');
  again.core.failure = new Error('killed');
});

void t.test('A batch that says it has no blocks is none, and nobody waits for its end', async (t) => {
  const store = await blankStore(16 << 20);
  const engine = await Engine.open(store);
  const { superblock } = engine.core;
  const first = engine.committer.journal.nextLsn;
  await write(engine, 0, 1);
  await engine.committer.flushed();
  for (const copy of [0, 1]) {
    const place = journalPosition(superblock, first, copy);
    const block = bytesAt(store, place, JOURNAL_BLOCK_BYTES);
    block.writeUInt16LE(0, 50);
    seal(block, 'CLDDJRNL', superblock.uuid);
    store.apply(place, block);
  }
  const again = await reopened(store, engine);
  t.equal(shown(again, 0), 0);
  again.core.failure = new Error('killed');
});

void t.test('A block that a later batch proves to have been durable is missed', async (t) => {
  const store = await blankStore(16 << 20);
  const engine = await Engine.open(store);
  const first = engine.committer.journal.nextLsn;
  for (let commit = 0; commit < 3; commit++) {
    await write(engine, commit * UNIT_BYTES, 1);
    await engine.committer.flushed();
  }
  for (const copy of [0, 1]) {
    const position = journalPosition(engine.core.superblock, first + 1, copy);
    store.apply(position, Buffer.alloc(JOURNAL_BLOCK_BYTES));
  }
  const needed = `${engine.core.superblock.tailLsn}..${first + 1}`;
  await t.rejects(reopened(store, engine), {
    code: 'DAMAGED',
    message:
      `journal block ${first + 1} of ${needed} is unreadable in both copies; ` +
      'restore the partition from a backup',
  });
});

void t.test('A crash after any number of commits since the last superblock finds them all', async (t) => {
  const store = await blankStore(64 << 20);
  let engine = await Engine.open(store);
  const { journalBlocks } = engine.core.superblock;
  const first = engine.committer.journal.nextLsn;
  let written = 0;
  // The superblock is not written meanwhile, and the ring goes round twice.
  for (const part of [0.6, 0.9, 1.1, 1.6, 2.2]) {
    const goal = first + Math.ceil(part * journalBlocks);
    while (engine.committer.journal.nextLsn < goal) {
      await write(engine, written * BLOCK_BYTES, 1 + (written % 255));
      await engine.committer.flushed();
      written++;
    }
    const copy = new MemoryStore(store.sizeBytes, store);
    copy.recording = false;
    const reopenedCopy = await Engine.open(copy);
    let wrong = 0;
    for (let block = 0; block < written; block++)
      if (shown(reopenedCopy, block * BLOCK_BYTES) !== 1 + (block % 255)) wrong++;
    t.equal(wrong, 0, `all of ${written} commits, the ring ${part} times round`);
    reopenedCopy.core.failure = new Error('killed');
  }
  engine = await reopened(store, engine);
  t.equal(shown(engine, (written - 1) * BLOCK_BYTES), 1 + ((written - 1) % 255));
  engine.core.failure = new Error('killed');
});

void t.test('In the smallest ring every commit is found, however often it has gone round', async (t) => {
  const store = await blankStore(8 << 20);
  const engine = await Engine.open(store);
  t.equal(engine.core.superblock.journalBlocks, 16);
  const wrong: string[] = [];
  for (let commit = 0; commit < 80; commit++) {
    await write(engine, commit * BLOCK_BYTES, 1 + commit);
    await engine.committer.flushed();
    const copy = new MemoryStore(store.sizeBytes, store);
    copy.recording = false;
    try {
      const again = await Engine.open(copy);
      const lost = Array.from({ length: commit + 1 }, (_, block) => shown(again, block * BLOCK_BYTES)).filter(
        (value, block) => value !== 1 + block,
      );
      if (lost.length > 0) wrong.push(`behind ${commit} commits ${lost.length} are lost`);
      again.core.failure = new Error('killed');
    } catch (error) {
      wrong.push(`behind ${commit} commits: ${String(error)}`);
    }
  }
  t.same(wrong, []);
  engine.core.failure = new Error('killed');
});
