/** A journal made to keep its reader busy, with right checksums: opening costs no more than reading it. */
import t from 'tap';
import { writeU64, seal } from '../../src/cow/bytes.js';
import { journalPosition } from '../../src/cow/check-journal.js';
import { Engine } from '../../src/cow/engine.js';
import {
  HEADER_BYTES,
  JOURNAL_BLOCK_BYTES,
  JOURNAL_BLOCK_RECORDS,
  JOURNAL_RECORD_BYTES,
  PAGE_UNITS,
  SUPERBLOCK_OFFSETS,
} from '../../src/cow/format.js';
import { MapPage } from '../../src/cow/map-page.js';
import { readSuperblock } from '../../src/cow/recovery.js';
import { encodeSuperblock, type Superblock } from '../../src/cow/superblock.js';
import type { MemoryStore } from './stores.js';
import { blankStore, Chance } from './stores.js';

const MIB = 2 ** 20;
const PAGES = 6;
/** More than a replay takes in. */
const PAGES_TOO_MANY = 16_500;

/** Every block of the ring is a batch of its own in an epoch of its own, and names so many pages in turn. */
async function hostile(
  seed: number,
  sizeBytes = 512 * MIB,
  pages = PAGES,
): Promise<{ store: MemoryStore; blocks: number }> {
  const store = await blankStore(sizeBytes);
  const engine = await Engine.open(store);
  engine.core.failure = new Error('killed');
  const superblock = readSuperblock(store);
  const chance = new Chance(seed);
  const blocks = superblock.journalBlocks - 1;
  const first = superblock.nextLsn;
  for (let n = 0; n < blocks; n++) {
    const bytes = Buffer.alloc(JOURNAL_BLOCK_BYTES);
    bytes.writeUInt32LE(superblock.epoch + n, 12);
    writeU64(bytes, 32, first + n);
    writeU64(bytes, 40, superblock.tailLsn);
    bytes.writeUInt16LE(1, 50);
    bytes.writeUInt16LE(JOURNAL_BLOCK_RECORDS, 52);
    for (let record = 0; record < JOURNAL_BLOCK_RECORDS; record++) {
      const at = HEADER_BYTES + record * JOURNAL_RECORD_BYTES;
      const page = (n * JOURNAL_BLOCK_RECORDS + record) % pages;
      bytes.writeUInt32LE(page * PAGE_UNITS + chance.below(PAGE_UNITS), at);
      // Sixteen states of three bits, of which the highest values would be none.
      for (let half = 0; half < 2; half++)
        bytes.writeUIntLE(chance.below(1 << 24) & 0o33333333, at + 4 + 3 * half, 3);
    }
    seal(bytes, 'CLDDJRNL', superblock.uuid);
    for (const copy of [0, 1]) store.apply(journalPosition(superblock, first + n, copy), bytes);
  }
  const history = Buffer.from(superblock.history);
  for (let at = 0; at < history.length; at++) history[at] = chance.below(256);
  const later: Superblock = { ...superblock, clean: false, epoch: superblock.epoch + blocks, history };
  for (const position of SUPERBLOCK_OFFSETS) store.apply(position, encodeSuperblock(later));
  return { store, blocks };
}

async function statesOf(store: MemoryStore): Promise<Buffer[]> {
  const engine = await Engine.open(store);
  const pages = Array.from({ length: PAGES }, (_, number) =>
    Buffer.from(engine.map.forReading(number).states),
  );
  engine.core.failure = new Error('killed');
  return pages;
}

void t.test(
  'A journal with an epoch for every block normalises each page once, and comes out the same',
  async (t) => {
    const { normalise, normaliseUnits } = Object.getOwnPropertyDescriptors(MapPage.prototype);
    const whole = normalise.value as MapPage['normalise'];
    t.teardown(() => Object.defineProperties(MapPage.prototype, { normalise, normaliseUnits }));
    let calls = 0;
    MapPage.prototype.normalise = function (...given) {
      calls++;
      whole.apply(this, given);
    };
    const { store, blocks } = await hostile(1);
    const found = await statesOf(store);
    t.ok(blocks > 50, `${blocks} epochs`);
    t.ok(calls <= 2 * PAGES, `${calls} pages were normalised as a whole`);
    MapPage.prototype.normaliseUnits = function (transition, epoch) {
      whole.call(this, transition, epoch);
    };
    const { store: again } = await hostile(1);
    t.same(
      (await statesOf(again)).map((page, number) => page.equals(found[number] ?? Buffer.alloc(0))),
      found.map(() => true),
      'as if every page had been normalised as a whole each time',
    );
  },
);

void t.test(
  'A journal that names more pages than one can is refused before they fill the memory',
  async (t) => {
    const { store } = await hostile(2, 80 * MIB * PAGES_TOO_MANY, PAGES_TOO_MANY);
    await t.rejects(Engine.open(store), { code: 'DAMAGED', message: /more map pages/ });
  },
);
