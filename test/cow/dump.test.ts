/** What dump tells: every number that docs/format.md names, of a whole partition and of a damaged one. */
import t from 'tap';
import { journalPosition } from '../../src/cow/check-journal.js';
import { dumpPage, dumpStore } from '../../src/cow/dump.js';
import { Engine } from '../../src/cow/engine.js';
import {
  FORMAT_VERSION,
  JOURNAL_BLOCK_BYTES,
  JOURNAL_BLOCK_RECORDS,
  SUPERBLOCK_BYTES,
  SUPERBLOCK_OFFSETS,
  UNIT_BYTES,
} from '../../src/cow/format.js';
import { growEngine } from '../../src/cow/grow.js';
import { initStore } from '../../src/cow/init.js';
import { MasterMedium } from '../../src/cow/mediums.js';
import { readSuperblock } from '../../src/cow/recovery.js';
import { BLOCK_BYTES } from '../../src/cow/states.js';
import { over, placesOf } from './damage.js';
import { loadGolden } from './golden/golden.js';
import { blankStore, MemoryStore, WornStore } from './stores.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const { store: golden } = loadGolden(FORMAT_VERSION);

const RECORDS = [
  { key: 'first key', bytes: 11 },
  { key: 'second', bytes: 300 },
];

void t.test('All that is on the golden image is told as it is', (t) => {
  t.strictSame(dumpStore(golden), {
    superblocks: [0, 64 * KIB, 128 * KIB, 192 * KIB].map((position) => ({
      position,
      sequence: 8,
      problem: null,
    })),
    superblock: {
      uuid: 'c1dd9000-0000-0000-0000-000000000022',
      sequence: 8,
      closedInOrder: false,
      slaveEnabled: true,
      deviceBytes: 8 * MIB,
      generation: 3,
      approximateGeneration: 0,
      epoch: 3,
      historyBase: 0,
      divergedBlocks: 0,
      nextLsn: 7,
      tailLsn: 5,
      enabledAt: '2026-11-24T13:46:13.412Z',
      createdAt: '2026-11-24T13:46:13.392Z',
    },
    layout: [
      { what: 'superblock, copy 0', position: 0, lengthBytes: 4 * KIB },
      { what: 'activity log', position: 256 * KIB, lengthBytes: 4 * 4 * KIB },
      { what: 'state area', position: 272 * KIB, lengthBytes: 2 * 264 * KIB },
      { what: 'journal', position: 800 * KIB, lengthBytes: 2 * 16 * 4 * KIB },
      { what: 'written bitmap of segment 0', position: 960 * KIB, lengthBytes: 2 * 4 * KIB },
      { what: 'map of segment 0', position: 968 * KIB, lengthBytes: 2 * 4 * KIB },
      { what: 'half A of segment 0', position: 1024 * KIB, lengthBytes: 3584 * KIB },
      { what: 'half B of segment 0', position: 4608 * KIB, lengthBytes: 3584 * KIB },
    ],
    journal: {
      tail: 5,
      nextLsn: 9,
      batches: [
        { lsn: 5, blocks: 1, records: 2, epoch: 1, generation: 2, divergedBlocks: 7 },
        { lsn: 6, blocks: 1, records: 0, epoch: 1, generation: 2, divergedBlocks: 7 },
        { lsn: 7, blocks: 1, records: 2, epoch: 3, generation: 3, divergedBlocks: 8 },
        { lsn: 8, blocks: 1, records: 1, epoch: 3, generation: 3, divergedBlocks: 11 },
      ],
    },
    bitmap: [
      { position: 960 * KIB, twin: 0, whole: true },
      { position: 964 * KIB, twin: 1, whole: true },
    ],
    activity: [
      { slot: 0, sequence: 2, entries: 1 },
      { slot: 1, sequence: 2, entries: 1 },
      { slot: 2, sequence: 1, entries: 0 },
      { slot: 3, sequence: 1, entries: 0 },
    ],
    state: [
      { twin: 0, sequence: 3, records: RECORDS },
      { twin: 1, sequence: 3, records: RECORDS },
    ],
  });
  const runs = [
    [3, 2],
    [6, 6],
    [1, 2],
    [10, 1],
    [3, 0],
    [7, 1],
    [1, 5],
    [9, 1],
    [60, 0],
    [2, 1],
    [98, 0],
    [4, 1],
    [7988, 0],
  ];
  let from = 0;
  const expected = runs.map(([blocks, state]) => {
    from += blocks;
    return { from: from - blocks, blocks, state };
  });
  t.strictSame(dumpPage(golden, readSuperblock(golden), 0), [
    { position: 968 * KIB, twin: 0, epoch: 1, sequence: 2, runs: expected },
    { position: 972 * KIB, twin: 1, epoch: 1, sequence: 2, runs: expected },
  ]);
  t.end();
});

void t.test('Of a damaged partition it tells what can be read', (t) => {
  const worn = new WornStore(golden.sizeBytes, golden);
  for (const { position, lengthBytes, name } of placesOf(golden))
    if (!name.startsWith('superblock')) worn.spoil(position, lengthBytes);
  worn.spoil(SUPERBLOCK_OFFSETS[1], 1);
  worn.apply(SUPERBLOCK_OFFSETS[2] + 100, Buffer.of(0xdb));
  const dark = dumpStore(worn);
  t.match(dark.superblocks, [
    { position: 0, sequence: 8, problem: null },
    { position: 64 * KIB, sequence: null, problem: /can't be read: EIO/ },
    { position: 128 * KIB, sequence: null, problem: 'its checksum is wrong' },
    { position: 192 * KIB, sequence: 8, problem: null },
  ]);
  t.same(dark.journal, { tail: 5, nextLsn: 7, batches: [] });
  t.same(
    dark.bitmap.map(({ whole }) => whole),
    [false, false],
  );
  t.same(
    dark.activity,
    [0, 1, 2, 3].map((slot) => ({ slot, sequence: null, entries: 0 })),
  );
  t.same(
    dark.state,
    [0, 1].map((twin) => ({ twin, sequence: null, records: [] })),
  );
  t.match(dumpPage(worn, readSuperblock(golden), 0), [
    { twin: 0, epoch: null, sequence: null, runs: [] },
    { twin: 1, epoch: null, sequence: null, runs: [] },
  ]);
  t.end();
});

void t.test('Without a superblock it tells what is wrong with each copy, and no more', (t) => {
  const lost = over(golden);
  for (const at of SUPERBLOCK_OFFSETS) lost.apply(at, Buffer.alloc(SUPERBLOCK_BYTES));
  t.strictSame(dumpStore(lost), {
    superblocks: SUPERBLOCK_OFFSETS.map((position) => ({
      position,
      sequence: null,
      problem: 'no superblock is there',
    })),
    superblock: null,
    layout: [],
    journal: null,
    bitmap: [],
    activity: [],
    state: [],
  });
  t.end();
});

void t.test('A block of the journal that is lost is left out', (t) => {
  const store = over(golden);
  for (const copy of [0, 1])
    store.apply(journalPosition(readSuperblock(golden), 5, copy), Buffer.alloc(JOURNAL_BLOCK_BYTES));
  t.match(dumpStore(store).journal, { tail: 5, nextLsn: 9, batches: [{ lsn: 6 }, { lsn: 7 }, { lsn: 8 }] });
  t.end();
});

void t.test('A batch of several blocks is told as one', async (t) => {
  const store = new MemoryStore(160 * MIB);
  store.recording = false;
  await initStore(store, { createdAt: 0 });
  t.match(dumpStore(store), { superblock: { enabledAt: 'never', createdAt: 'never' } });
  const engine = await Engine.open(store);
  const records = 2 * JOURNAL_BLOCK_RECORDS + 10;
  const data = Buffer.alloc(BLOCK_BYTES, 1);
  for (let unit = 0; unit < records; unit++)
    new MasterMedium(engine).write(unit * UNIT_BYTES, data, 0, data.length);
  await engine.committer.flushed();
  const batches = dumpStore(store).journal?.batches ?? [];
  t.match(batches.slice(-1), [{ blocks: 3, records }]);
  t.equal(new Set(batches.map(({ lsn }) => lsn)).size, batches.length);
  engine.core.failure = new Error('killed');
});

void t.test(
  'Each segment of a partition that has grown is told with its places, and its pages',
  async (t) => {
    const store = await blankStore(80 * MIB);
    const engine = await Engine.open(store);
    store.sizeBytes = 256 * MIB;
    await growEngine(engine);
    const [first, second] = engine.core.segments;
    t.same([first.pages, second.pages], [2, 3]);
    const { layout } = dumpStore(store);
    t.same(
      layout.map(({ what }) => what),
      [
        'superblock, copy 0',
        'activity log',
        'state area',
        'journal',
        ...[0, 1].flatMap((index) =>
          ['written bitmap', 'map', 'half A', 'half B'].map((what) => `${what} of segment ${index}`),
        ),
      ],
    );
    t.same(
      layout.filter(({ what }) => what.startsWith('map')).map(({ lengthBytes }) => lengthBytes),
      [16 * KIB, 24 * KIB],
      'each page twice',
    );
    for (const [index, { position, lengthBytes, what }] of layout.entries()) {
      const next = layout.at(index + 1)?.position ?? store.sizeBytes;
      t.ok(lengthBytes > 0 && position + lengthBytes <= next, `${what} ends before what follows it`);
    }
    const { superblock } = engine.core;
    for (const [number, position] of [
      [0, first.mapOffset],
      [1, first.mapOffset + 4 * KIB],
      [2, second.mapOffset],
      [4, second.mapOffset + 8 * KIB],
    ]) {
      const twins = dumpPage(store, superblock, number);
      t.match(twins, [{ position, twin: 0 }, { twin: 1 }], `page ${number}`);
      t.strictSame(
        twins?.map(({ runs }) => runs),
        [[], []],
      );
    }
    for (const number of [-1, 5]) t.equal(dumpPage(store, superblock, number), undefined, `page ${number}`);
    engine.core.failure = new Error('killed');
  },
);

void t.test('A twin of the bitmap is whole if all its blocks are', async (t) => {
  const store = new MemoryStore(3 * 2 ** 40);
  store.recording = false;
  const { segments } = await initStore(store);
  t.match(dumpStore(store).bitmap, [{ whole: true }, { whole: true }]);
  // Of two blocks a twin, the second one of twin 1.
  store.apply(segments[0].deviceOffset + 3 * 4 * KIB, Buffer.alloc(512, 0xdb));
  t.match(dumpStore(store).bitmap, [{ whole: true }, { whole: false }]);
});
