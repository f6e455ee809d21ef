/** When writes that flip a state must wait: how many flips may be pending, and how full the journal may be. */
import t from 'tap';
import { Engine } from '../../src/cow/engine.js';
import { JOURNAL_BLOCK_RECORDS, PAGE_UNITS } from '../../src/cow/format.js';
import { growEngine } from '../../src/cow/grow.js';
import { initStore } from '../../src/cow/init.js';
import { MemoryStore } from './stores.js';

const MIB = 2 ** 20;

/** With a small journal and room for more changed units than it has. */
async function opened(): Promise<Engine> {
  const store = new MemoryStore(32 * MIB);
  store.recording = false;
  await initStore(store);
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
