/** Damage of more than one place, and what check says and does about it: docs/check.md. */
import t from 'tap';
import { checkStore } from '../../src/cow/check.js';
import { Engine } from '../../src/cow/engine.js';
import { FORMAT_VERSION, JOURNAL_BLOCK_BYTES, PAGE_BLOCKS, UNIT_BLOCKS } from '../../src/cow/format.js';
import { MasterMedium } from '../../src/cow/mediums.js';
import { RESULT } from '../../src/cow/results.js';
import { BLOCK_BYTES } from '../../src/cow/states.js';
import { misreading, over, placesOf } from './damage.js';
import { loadGolden } from './golden/golden.js';
import type { MemoryStore } from './stores.js';
import { blankStore } from './stores.js';

const golden = loadGolden(FORMAT_VERSION);
const places = placesOf(golden.store);

/** The image with some copies of a structure overwritten. */
function without(kind: string, copies: readonly number[]): MemoryStore {
  const store = over(golden.store);
  const hit = places.filter(({ name, copy }) => name.split(' ', 1)[0] === kind && copies.includes(copy));
  for (const { position, lengthBytes } of hit) store.apply(position, Buffer.alloc(lengthBytes, 0xdb));
  return store;
}

const REPAIRABLE: readonly [string, readonly number[]][] = [
  ['superblock', [0]],
  ['superblock', [0, 1]],
  ['superblock', [1, 2, 3]],
  ['activity', [0]],
  ['activity', [3]],
  ['state', [0]],
  ['state', [1]],
  ['journal', [0]],
  ['journal', [1]],
  ['bitmap', [0]],
  ['bitmap', [1]],
  ['page', [0]],
  ['page', [1]],
];

for (const [kind, copies] of REPAIRABLE) {
  void t.test(`${kind}: copies ${copies.join(', ')} are written again from a whole one`, async (t) => {
    const store = without(kind, copies);
    const before = await checkStore(store);
    t.equal(before.verdict, 'repairable');
    t.ok(
      before.findings.some(
        ({ structure, severity }) => structure.includes(kind) && severity === 'repairable',
      ),
    );
    t.equal(await misreading(store, golden.expected), undefined, 'an open is right before the repair');
    t.equal((await checkStore(store, { repair: true })).verdict, 'repaired');
    t.equal((await checkStore(store)).verdict, 'clean');
    t.equal(await misreading(store, golden.expected), undefined, 'and after it');
  });
}

for (const [kind, copies] of [
  ['superblock', [0, 1, 2, 3]],
  ['state', [0, 1]],
  ['bitmap', [0, 1]],
  ['page', [0, 1]],
] as const) {
  void t.test(`${kind}: without a whole copy it is beyond repair, and nothing is written`, async (t) => {
    const store = without(kind, copies);
    if (kind === 'superblock') {
      await t.rejects(checkStore(store), { code: 'NOT_CLDD' });
      return;
    }
    const { verdict } = await checkStore(store, { repair: true });
    t.equal(verdict, 'damaged');
    const shown = await misreading(store, golden.expected).catch((error: unknown) => String(error));
    t.match(shown, /DAMAGED|damaged|unreadable|ended with/);
  });
}

void t.test('An activity slot that was never written is written from its copy', async (t) => {
  const store = over(golden.store);
  const slots = places.filter(({ name }) => name === 'activity');
  const wipe = ({ position, lengthBytes }: (typeof slots)[number]): void =>
    store.apply(position, Buffer.alloc(lengthBytes));
  wipe(slots[3]);
  const { verdict, findings } = await checkStore(store, { repair: true });
  t.equal(verdict, 'repaired');
  t.match(findings, [{ structure: 'activity log, slot 3', repaired: true }]);
  slots.slice(2).forEach(wipe);
  t.match(await checkStore(store), { verdict: 'clean', findings: [] }, 'a list that never was is no loss');
});

void t.test('Without a whole copy of an activity list it is told whether that matters', async (t) => {
  for (const closes of [false, true]) {
    const store = over(golden.store);
    if (closes) await (await Engine.open(store)).close();
    for (const { name, copy, position } of places)
      if (name === 'activity' && copy < 2) store.apply(position, Buffer.alloc(512, 0xdb));
    const { verdict, findings } = await checkStore(store);
    t.equal(verdict, 'clean');
    const remedy = closes ? /nothing is needed/ : /make the next incremental backup a full one/;
    t.match(findings, [
      { severity: 'note', remedy },
      { severity: 'note', remedy },
    ]);
  }
});

void t.test('A journal block may name several map pages, some of them newer than it', async (t) => {
  const store = await blankStore(256 << 20);
  const engine = await Engine.open(store);
  const write = async (block: number): Promise<void> => {
    const [position, data] = [block * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, 1)];
    await new Promise((resolve) =>
      new MasterMedium(engine).writeAsync(position, data, 0, data.length, resolve),
    );
  };
  await engine.enable();
  // In each page as many blocks as in no other.
  const writeTo = async (pages: readonly number[]): Promise<void> => {
    for (const page of pages)
      for (let block = 0; block <= page; block++) await write(page * PAGE_BLOCKS + block);
  };
  await writeTo([0, 1, 2]);
  // A unit of which the next epoch writes nothing.
  await write(PAGE_BLOCKS + 5 * UNIT_BLOCKS);
  await engine.committer.flushed();
  await engine.disable();
  await engine.enable();
  // Of the next epoch, while the journal still begins in the one before.
  await writeTo([1, 2]);
  await engine.committer.flushed();
  // A cut when a checkpoint has written the pages, and the journal does not say so yet.
  const { journalOffset, journalBlocks } = engine.core.superblock;
  const ring = Buffer.alloc(2 * journalBlocks * JOURNAL_BLOCK_BYTES);
  store.readSync(ring, 0, ring.length, journalOffset);
  await engine.committer.checkpoint();
  store.apply(journalOffset, ring);
  const { divergedBlocks } = engine.core;
  engine.core.failure = new Error('killed');
  t.equal(divergedBlocks, 2 + 3);
  t.match(await checkStore(over(store)), { verdict: 'clean' }, 'its count is the engine’s');
});

void t.test('A mark in the journal from before a disable does not count its blocks', async (t) => {
  const store = await blankStore(64 << 20);
  const engine = await Engine.open(store);
  const { core } = engine;
  await engine.enable();
  const data = Buffer.alloc(BLOCK_BYTES, 1);
  t.equal(new MasterMedium(engine).write(0, data, 0, data.length), RESULT.OK);
  // A checkpoint that ends while the superblock of the disable is on its way.
  const replace = core.replaceSuperblock.bind(core);
  core.replaceSuperblock = async (next, also) => {
    const { journal } = engine.committer;
    const before = journal.nextLsn;
    await engine.committer.checkpoint();
    t.equal(journal.nextLsn, before + 1, 'its mark has the count of the epoch that ends');
    await replace(next, also);
  };
  await engine.disable();
  core.failure = new Error('killed');
  t.match(await checkStore(over(store)), { verdict: 'clean', findings: [] });
  const again = await Engine.open(store);
  t.equal(again.core.divergedBlocks, 0);
  again.core.failure = new Error('killed');
});

void t.test('A state area without a whole copy can be emptied: the data are whole', async (t) => {
  const store = without('state', [0, 1]);
  t.equal((await checkStore(store, { repair: true, emptyState: true })).verdict, 'repaired');
  t.equal(await misreading(store, { ...golden.expected, state: {} }), undefined);
});

void t.test('A device that shrank is told, and left alone', async (t) => {
  const store = over(golden.store);
  store.sizeBytes -= 65_536;
  const { verdict, findings } = await checkStore(store, { repair: true });
  t.equal(verdict, 'damaged');
  t.match(findings[0]?.problem, /the device has/);
});
