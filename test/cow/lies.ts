/** Partitions whose structures are whole, and say what can't be true, or are older than their copies. */
import { viewJournal } from '../../src/cow/check-journal.js';
import { Engine } from '../../src/cow/engine.js';
import { FORMAT_VERSION, PAGE_BLOCKS, PAGE_UNITS } from '../../src/cow/format.js';
import { MapPage } from '../../src/cow/map-page.js';
import { MasterMedium } from '../../src/cow/mediums.js';
import { readSuperblock } from '../../src/cow/recovery.js';
import { BLOCK_BYTES, FIRST_DIVERGED } from '../../src/cow/states.js';
import { HISTORY_EPOCHS } from '../../src/cow/superblock.js';
import { readU64, writeU64 } from '../../src/cow/bytes.js';
import { crc32c } from '../../src/crc32c.js';
import { over, placesOf } from './damage.js';
import { loadGolden } from './golden/golden.js';
import type { MemoryStore } from './stores.js';

const CRC_AT = 8;
const COVERED_FROM = 12;
const SEGMENT_AT = 192;

export const { store: crashed, expected } = loadGolden(FORMAT_VERSION);
/** What an orderly close leaves of it: with the slave as it was, and disabled. */
export const closed = over(crashed);
export const disabled = over(crashed);
/** Has to run before `closed` and `disabled` are used. */
export async function prepare(): Promise<void> {
  for (const store of [closed, disabled]) {
    const engine = await Engine.open(store);
    if (store === disabled) await engine.disable();
    // So that the page is of the current epoch, and both twins of everything are level.
    await write(engine, 600);
    await engine.close();
  }
}

async function write(engine: Engine, block: number): Promise<void> {
  const master = new MasterMedium(engine);
  await new Promise((resolve) =>
    master.writeAsync(block * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, 1), 0, BLOCK_BYTES, resolve),
  );
}

export type Edit = (bytes: Buffer) => void;

export type Image = () => MemoryStore;

/** The image with some copies of a structure edited, under checksums that are right. */
export const edited =
  (
    base: MemoryStore,
    kind: 'superblock' | 'bitmap' | 'page' | 'state' | `journal ${number}`,
    copies: readonly number[],
    edit: Edit,
  ): Image =>
  () => {
    const store = over(base);
    const places = placesOf(base).filter(({ name, copy }) => name === kind && copies.includes(copy));
    if (places.length !== copies.length) throw new Error(`${kind} is not there ${copies.length} times`);
    for (const { position, lengthBytes } of places) {
      const bytes = Buffer.alloc(lengthBytes);
      store.readSync(bytes, 0, lengthBytes, position);
      edit(bytes);
      bytes.writeUInt32LE(crc32c(bytes, COVERED_FROM, lengthBytes - COVERED_FROM), CRC_AT);
      store.apply(position, bytes);
    }
    return store;
  };

export const u32 =
  (at: number, change: (value: number) => number): Edit =>
  (bytes) =>
    void bytes.writeUInt32LE(change(bytes.readUInt32LE(at)), at);
export const u64 =
  (at: number, change: (value: number) => number): Edit =>
  (bytes) =>
    writeU64(bytes, at, change(readU64(bytes, at)));

/** Changes what a map page says. */
export const page =
  (change: (page: MapPage) => void): Edit =>
  (bytes) => {
    const { uuid, generation } = readSuperblock(crashed);
    const found = MapPage.decode(bytes, uuid, 0);
    if (found === undefined) throw new Error('there is no page');
    change(found);
    found.encode(bytes, 0, uuid, generation);
  };

export const ALL = [0, 1, 2, 3];
export const BOTH = [0, 1];
export const blocks = viewJournal(crashed, readSuperblock(crashed));
export const first: `journal ${number}` = `journal ${blocks.tail}`;
export const second: `journal ${number}` = `journal ${blocks.tail + 1}`;
export const last: `journal ${number}` = `journal ${blocks.needed - 1}`;

/** A page of an epoch that no superblock knows. */
export const pageToCome = edited(
  closed,
  'page',
  BOTH,
  page((it) => it.epoch++),
);

/** Beyond repair: nobody can know what is true. Nothing of it may be written. */
export const DAMAGED: readonly [what: string, image: Image, problem: RegExp][] = [
  [
    'a superblock as new as another, that says something else',
    edited(
      closed,
      'superblock',
      [2],
      u64(112, (ms) => ms + 1),
    ),
    /says something else than the copy at 0/,
  ],
  [
    'a journal longer than its ring',
    edited(closed, 'superblock', ALL, (bytes) => writeU64(bytes, 96, 0)),
    /more than the ring holds/,
  ],
  [
    'a segment of another size',
    edited(
      closed,
      'superblock',
      ALL,
      u64(SEGMENT_AT + 16, (n) => n - 1),
    ),
    /does not fit its place/,
  ],
  [
    'a history that is too long',
    edited(closed, 'superblock', ALL, (bytes) => {
      bytes.writeUInt32LE(bytes.readUInt32LE(132) + HISTORY_EPOCHS, 128);
    }),
    /does not reach epoch/,
  ],
  ['a page of an epoch to come', pageToCome, /newer than every superblock/],
  [
    'a page from before the history',
    edited(closed, 'superblock', ALL, (bytes) => {
      bytes.writeUInt32LE(bytes.readUInt32LE(128) + 2, 128);
      bytes.writeUInt32LE(bytes.readUInt32LE(128), 132);
    }),
    /does not tell how it ended/,
  ],
  [
    'a block behind the end',
    edited(
      closed,
      'page',
      BOTH,
      page((it) => (it.states[PAGE_BLOCKS - 1] = 1)),
    ),
    /the segment ends before/,
  ],
  [
    'a divergence while the slave is disabled',
    edited(
      disabled,
      'page',
      BOTH,
      page((it) => (it.states[600] = 4)),
    ),
    /the slave is disabled/,
  ],
  [
    'a change in a generation to come',
    edited(
      closed,
      'page',
      BOTH,
      page((it) => (it.marks[3] = readSuperblock(closed).generation + 5)),
    ),
    /unit 3 of it changed in generation/,
  ],
  [
    'twins as new as each other that differ',
    edited(
      closed,
      'page',
      [1],
      page((it) => (it.states[0] = it.states[0] === 1 ? 2 : 1)),
    ),
    /says something else than the other twin/,
  ],
  [
    'bitmap twins as new as each other that differ',
    edited(
      crashed,
      'bitmap',
      [1],
      u32(100, () => 1),
    ),
    /says something else than the other twin/,
  ],
  [
    'the least divergence while the slave is disabled',
    edited(
      disabled,
      'page',
      BOTH,
      page((it) => (it.states[600] = FIRST_DIVERGED)),
    ),
    /state 3, but the slave is disabled/,
  ],
  [
    'a change of the first unit in a generation to come',
    edited(
      closed,
      'page',
      BOTH,
      page((it) => (it.marks[0] = readSuperblock(closed).generation + 1)),
    ),
    /unit 0 of it changed in generation/,
  ],
  [
    'a divergence that nobody counted',
    edited(
      closed,
      'page',
      BOTH,
      page((it) => (it.states[700] = 3)),
    ),
    /blocks that differ between master and slave, but/,
  ],
  [
    'a journal block of an epoch to come',
    edited(
      crashed,
      first,
      BOTH,
      u32(12, (epoch) => epoch + 100),
    ),
    /newer than every superblock copy/,
  ],
  [
    'a tail to come',
    edited(
      crashed,
      first,
      BOTH,
      u64(40, (tail) => tail + 100),
    ),
    /which comes later/,
  ],
  [
    'a journal that goes back',
    edited(
      crashed,
      second,
      BOTH,
      u32(60, () => 0),
    ),
    /goes back behind the block before/,
  ],
  [
    'a batch that changes its size',
    edited(crashed, second, BOTH, (bytes) => {
      bytes.writeUInt16LE(1, 48);
      bytes.writeUInt16LE(2, 50);
    }),
    /does not continue the batch before/,
  ],
  [
    'a block in the midst of a batch that nothing begins',
    edited(crashed, second, BOTH, (bytes) => void bytes.writeUInt16LE(3, 48)),
    /and begins none/,
  ],
  [
    'a record of blocks behind the end',
    edited(
      crashed,
      last,
      BOTH,
      u32(64, () => PAGE_UNITS - 1),
    ),
    /with what the journal has, .* the segment ends before/,
  ],
  [
    'a record of a page that does not exist',
    edited(
      crashed,
      first,
      BOTH,
      u32(64, () => 3 * PAGE_UNITS),
    ),
    /names map page 3, which does not exist/,
  ],
];

/** Of two whole copies the newer one is true. */
export const OLDER: readonly [what: string, image: Image, severity: 'note' | 'repairable'][] = [
  [
    'superblock 0',
    edited(
      closed,
      'superblock',
      [0],
      u64(32, (n) => n - 1),
    ),
    'repairable',
  ],
  [
    'superblock 3, as a power cut leaves it',
    edited(
      closed,
      'superblock',
      [3],
      u64(32, (n) => n - 1),
    ),
    'note',
  ],
  [
    'superblock 3, by two',
    edited(
      closed,
      'superblock',
      [3],
      u64(32, (n) => n - 2),
    ),
    'repairable',
  ],
  [
    'page, after an orderly close',
    edited(
      closed,
      'page',
      [1],
      page((it) => it.sequence--),
    ),
    'repairable',
  ],
  [
    'page, the first twin',
    edited(
      closed,
      'page',
      [0],
      page((it) => it.sequence--),
    ),
    'repairable',
  ],
  [
    'page, as a power cut leaves it',
    edited(
      crashed,
      'page',
      [1],
      page((it) => it.sequence--),
    ),
    'note',
  ],
  [
    'bitmap, after an orderly close',
    edited(
      closed,
      'bitmap',
      [1],
      u64(32, (n) => n - 1),
    ),
    'repairable',
  ],
  [
    'bitmap, the first twin',
    edited(
      closed,
      'bitmap',
      [0],
      u64(32, (n) => n - 1),
    ),
    'repairable',
  ],
  [
    'bitmap, as a power cut leaves it',
    edited(
      crashed,
      'bitmap',
      [1],
      u64(32, (n) => n - 1),
    ),
    'note',
  ],
  [
    'state, after an orderly close',
    edited(
      closed,
      'state',
      [1],
      u64(32, (n) => n - 1),
    ),
    'repairable',
  ],
  [
    'state, the first twin',
    edited(
      crashed,
      'state',
      [0],
      u64(32, (n) => n - 1),
    ),
    'repairable',
  ],
  [
    'state, as a power cut leaves it',
    edited(
      crashed,
      'state',
      [1],
      u64(32, (n) => n - 1),
    ),
    'note',
  ],
];
