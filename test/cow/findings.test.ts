/**
 * What check says of each damage, word for word, and what a repair makes of it: test/cow/golden/findings.txt
 * (UPDATE_DOCS=1 writes it). A place in it that is wrong sends somebody to the wrong bytes of his disc.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import process from 'node:process';
import timers from 'node:timers/promises';
import t, { type Test } from 'tap';
import { checkStore } from '../../src/cow/check.js';
import type { CheckOptions, CheckReport } from '../../src/cow/check.js';
import { journalPosition } from '../../src/cow/check-journal.js';
import { Findings } from '../../src/cow/check-report.js';
import { Engine } from '../../src/cow/engine.js';
import {
  BITMAP_BLOCK_PAGES,
  JOURNAL_BLOCK_RECORDS,
  PAGE_BLOCKS,
  PAGE_COVERS_BYTES,
  PAGE_UNITS,
  UNIT_BYTES,
  pageOffset,
} from '../../src/cow/format.js';
import { growEngine } from '../../src/cow/grow.js';
import { initStore } from '../../src/cow/init.js';
import { MapPage } from '../../src/cow/map-page.js';
import { MasterMedium } from '../../src/cow/mediums.js';
import { readSuperblock } from '../../src/cow/recovery.js';
import { BLOCK_BYTES } from '../../src/cow/states.js';
import { packageRoot } from '../package-root.js';
import { over, placesOf } from './damage.js';
import { ALL, BOTH, DAMAGED, OLDER, closed, crashed, edited, first, last, page, pageToCome, prepare, second, u32, u64 } from './lies.js'; // prettier-ignore
import type { Image } from './lies.js';
import { blankStore, MemoryStore, WornStore } from './stores.js';

const FILE = join(packageRoot(), 'test/cow/golden/findings.txt');
const MIB = 2 ** 20;
const BAD = Buffer.alloc(512, 0xdb);
const UUID = Buffer.from('c1dd0000000000000000000000000003', 'hex');

t.before(prepare);
/** A check beside a daemon looks again a moment later: here at once. */
const { setTimeout } = timers;
const moments: unknown[] = [];
timers.setTimeout = ((ms: number) => Promise.resolve(moments.push(ms))) as typeof setTimeout;
syncBuiltinESMExports();
t.teardown(() => {
  timers.setTimeout = setTimeout;
  syncBuiltinESMExports();
});

function told(report: CheckReport): string[] {
  const { verdict, closedInOrder, mapPages, findings, omitted, notChecked, counts } = report;
  const counted = Object.entries(counts).flatMap(([severity, count]) =>
    count > 0 ? [`${count} ${severity}`] : [],
  );
  return [
    [
      verdict,
      closedInOrder === undefined
        ? 'unknown how closed'
        : closedInOrder
          ? 'closed in order'
          : 'not closed in order',
      `${mapPages} map pages`,
      ...counted,
      ...(omitted > 0 ? [`${omitted} omitted`] : []),
      ...notChecked.map((what) => `not checked: ${what}`),
    ].join('; '),
    ...findings.map(
      ({ severity, structure, position, lengthBytes, problem, remedy, repaired }) =>
        `  ${repaired ? 'repaired' : severity}: ${structure} (${lengthBytes} bytes at ${position}): ${problem}; ${remedy}`,
    ),
  ];
}

/** A check, and what a repair says in its place: with the same findings, of which some are repaired, only its first line. */
async function sayings(image: Image, also: CheckOptions = {}): Promise<string[]> {
  const looked = told(await checkStore(image(), also));
  if (also.shared === true) return looked;
  const repaired = told(await checkStore(image(), { ...also, repair: true }));
  if (repaired.join('\n') === looked.join('\n')) return looked;
  const [verdict, ...findings] = repaired;
  const same = looked.slice(1).map((line) => line.replace(/^ {2}\w+:/, '  repaired:'));
  return [...looked, `repair: ${verdict}`, ...(findings.join('\n') === same.join('\n') ? [] : findings)];
}

/** The image with some copies of a structure overwritten, or unreadable. */
const without =
  (base: MemoryStore, kind: string, copies: readonly number[], unreadable = false): Image =>
  () => {
    const store = new WornStore(base.sizeBytes, base);
    store.recording = false;
    for (const { name, copy, position } of placesOf(base)) {
      if (name.split(' ', 1)[0] !== kind || !copies.includes(copy)) continue;
      if (unreadable) store.spoil(position, 1);
      else store.apply(position, BAD);
    }
    return store;
  };

/** These bytes are bad. */
const hit =
  (base: MemoryStore, ...positions: readonly number[]): Image =>
  () => {
    const store = over(base);
    for (const position of positions) store.apply(position, BAD);
    return store;
  };

const crashedEarly = without(crashed, 'superblock', [0]);

type Case = readonly [what: string, image: Image, options?: CheckOptions];

const CASES: readonly Case[] = [
  ['nothing', () => over(crashed)],
  ['nothing, after an orderly close', () => over(closed)],
  ['nothing, beside a daemon', () => over(crashed), { shared: true }],
  ...DAMAGED.map(([what, image]) => [what, image] as const),
  ...OLDER.map(([what, image]) => [`an older ${what}`, image] as const),
  ...(
    [
      ['superblock', [[0], [3], [0, 1], [0, 1, 2]]],
      ['activity', [[0], [3], [0, 1], [0, 2]]],
      ['state', [[0], [1], BOTH]],
      ['journal', [[0], [1], BOTH]],
      ['bitmap', [[0], [1], BOTH]],
      ['page', [[0], [1], BOTH]],
    ] as const
  ).flatMap(([kind, sets]) =>
    sets.flatMap((copies) =>
      [false, true].map(
        (unreadable) =>
          [
            `${kind} ${copies.join(' and ')}: ${unreadable ? 'unreadable' : 'overwritten'}`,
            without(crashed, kind, copies, unreadable),
          ] as const,
      ),
    ),
  ),
  ['every superblock unreadable', without(crashed, 'superblock', ALL, true)],
  ['an activity list without a whole copy, after an orderly close', without(closed, 'activity', BOTH)],
  ['a state area without a whole copy, to be emptied', without(crashed, 'state', BOTH), { emptyState: true }],
  ['a state area with a whole copy, to be emptied', without(crashed, 'state', [1]), { emptyState: true }],
  [
    'an old state area twin by two',
    edited(
      crashed,
      'state',
      [1],
      u64(32, (n) => n - 2),
    ),
  ],
  [
    'an old bitmap twin by two',
    edited(
      crashed,
      'bitmap',
      [1],
      u64(32, (n) => n - 2),
    ),
  ],
  ['a state twin overwritten, beside a daemon', without(crashed, 'state', [0]), { shared: true }],
  ['a page twin overwritten, beside a daemon', without(crashed, 'page', [0]), { shared: true }],
  [
    'an older state twin, beside a daemon',
    edited(
      crashed,
      'state',
      [0],
      u64(32, (n) => n - 1),
    ),
    { shared: true },
  ],
  [
    'an older page, beside a daemon',
    edited(
      closed,
      'page',
      [0],
      page((it) => it.sequence--),
    ),
    { shared: true },
  ],
  ['a page of an epoch to come, beside a daemon', pageToCome, { shared: true }],
  [
    'a divergence that nobody counted, beside a daemon',
    edited(
      closed,
      'page',
      BOTH,
      page((it) => (it.states[700] = 3)),
    ),
    { shared: true },
  ],
  [
    'a damaged superblock copy beside a lie',
    () => {
      const store = edited(
        closed,
        'page',
        BOTH,
        page((it) => (it.states[700] = 3)),
      )();
      store.apply(0, BAD);
      return store;
    },
  ],
  ['a superblock copy of a crash', crashedEarly],
  [
    'a journal block that needs more than there is room for',
    edited(
      crashed,
      last,
      BOTH,
      u64(32, (n) => n + 16 * 4),
    ),
  ],
  [
    'a first block of an older epoch',
    edited(
      crashed,
      first,
      BOTH,
      u32(12, () => 0),
    ),
  ],
  [
    'a journal block of a generation to come',
    edited(
      crashed,
      first,
      BOTH,
      u32(60, (n) => n + 100),
    ),
  ],
  [
    'a journal whose epoch goes back',
    edited(
      crashed,
      second,
      BOTH,
      u32(12, () => 0),
    ),
  ],
  [
    'a journal whose tail goes back',
    edited(
      crashed,
      second,
      BOTH,
      u64(40, () => 0),
    ),
  ],
  [
    'a record of the first page that does not exist',
    edited(
      crashed,
      first,
      BOTH,
      u32(64, () => PAGE_UNITS),
    ),
  ],
  [
    'state twins as new as each other that differ',
    edited(
      crashed,
      'state',
      [1],
      (bytes) => void bytes.writeUInt8(bytes[bytes.length - 1] ^ 1, bytes.length - 1),
    ),
  ],
  [
    'a device that shrank',
    () => {
      const store = over(crashed);
      store.sizeBytes -= 65_536;
      return store;
    },
  ],
];

async function write(engine: Engine, position: number): Promise<void> {
  const data = Buffer.alloc(BLOCK_BYTES, 1);
  await new Promise((resolve) =>
    new MasterMedium(engine).writeAsync(position, data, 0, data.length, resolve),
  );
}

/** The last one of them is the last of its segment, and not full. */
const WIDE_PAGES = [0, 1, 62, 63, 64, 65, 66, 71];

/** Pages here and there of two segments, on the disc; then others that only the journal knows, and a crash. */
async function wide(): Promise<{ store: MemoryStore; page: (number: number, twin: number) => number }> {
  const store = new MemoryStore(4608 * MIB);
  store.recording = false;
  await initStore(store, { uuid: UUID, createdAt: 0 });
  let engine = await Engine.open(store);
  store.sizeBytes += 256 * MIB;
  await growEngine(engine);
  for (const number of WIDE_PAGES) await write(engine, number * PAGE_COVERS_BYTES);
  const [, grown] = engine.core.segments;
  await write(engine, grown.masterOffset + PAGE_COVERS_BYTES);
  await engine.close();
  engine = await Engine.open(store);
  await engine.enable();
  await write(engine, 10 * PAGE_COVERS_BYTES);
  await write(engine, grown.masterOffset);
  await engine.committer.flushed();
  // A batch of three blocks.
  for (let unit = 0; unit < 2 * JOURNAL_BLOCK_RECORDS + 1; unit++)
    await write(engine, 12 * PAGE_COVERS_BYTES + unit * UNIT_BYTES);
  await engine.committer.flushed();
  engine.core.failure = new Error('killed');
  const { core } = engine;
  return { store, page: (number, twin) => pageOffset(core.segmentOfPage(number), number, twin) };
}

/** A partition whose bitmap has two blocks a twin, with a page in the second one. */
async function large(): Promise<{ store: MemoryStore; bitmap: number; page: (twin: number) => number }> {
  const store = new MemoryStore(3 * 2 ** 40);
  store.recording = false;
  const { segments } = await initStore(store, { uuid: UUID, createdAt: 0 });
  const engine = await Engine.open(store);
  const number = BITMAP_BLOCK_PAGES + 5;
  for (const one of [0, number]) await write(engine, one * PAGE_COVERS_BYTES);
  await engine.close();
  const [segment] = engine.core.segments;
  return { store, bitmap: segments[0].deviceOffset, page: (twin) => pageOffset(segment, number, twin) };
}

async function wideCases(): Promise<readonly Case[]> {
  const many = await wide();
  const unread =
    (position: number): Image =>
    () => {
      const store = new WornStore(many.store.sizeBytes, many.store);
      store.recording = false;
      store.spoil(position, 1);
      return store;
    };
  const grown = many.store.sizeBytes;
  const superblock = readSuperblock(many.store);
  const inSecond = Math.ceil((superblock.segments[0].blocks * BLOCK_BYTES) / PAGE_COVERS_BYTES) + 1;
  const behind =
    (number: number, block: number): Image =>
    () => {
      const store = over(many.store);
      for (const twin of BOTH) {
        const at = many.page(number, twin);
        const bytes = Buffer.alloc(BLOCK_BYTES);
        store.readSync(bytes, 0, bytes.length, at);
        const found = MapPage.decode(bytes, superblock.uuid, number);
        if (found === undefined) throw new Error(`there is no page ${number}`);
        found.states[block] = 1;
        found.encode(bytes, 0, superblock.uuid, superblock.generation);
        store.apply(at, bytes);
      }
      return store;
    };
  return [
    [`nothing, of ${grown} bytes in two segments`, () => over(many.store)],
    ['pages 63 to 66, twin 0', hit(many.store, ...[63, 64, 65, 66].map((number) => many.page(number, 0)))],
    ['page 64, both twins', hit(many.store, ...BOTH.map((twin) => many.page(64, twin)))],
    ['page 64, twin 1: unreadable', unread(many.page(64, 1))],
    ['a page between two that are there: unreadable', unread(many.page(30, 0))],
    ['a page of the second segment, twin 1', hit(many.store, many.page(inSecond, 1))],
    [
      'a page of the second segment, both twins',
      hit(many.store, ...BOTH.map((twin) => many.page(inSecond, twin))),
    ],
    [
      'the first block behind the first segment',
      behind(71, superblock.segments[0].blocks - 71 * PAGE_BLOCKS),
    ],
    ['the last block of the first segment', behind(71, superblock.segments[0].blocks - 71 * PAGE_BLOCKS - 1)],
    [
      'a journal block of pages that are not on the disc',
      hit(many.store, journalPosition(superblock, superblock.nextLsn, 1)),
    ],
  ];
}

async function largeCases(): Promise<readonly Case[]> {
  const huge = await large();
  return [
    ['nothing, of 3 TiB', () => over(huge.store)],
    ['block 1 of the bitmap, twin 0', hit(huge.store, huge.bitmap + 4096)],
    ['block 1 of the bitmap, both twins', hit(huge.store, huge.bitmap + 4096, huge.bitmap + 3 * 4096)],
    ['a page of block 1 of the bitmap, twin 0', hit(huge.store, huge.page(0))],
  ];
}

const updates = process.env['UPDATE_DOCS'] === '1';
const written = new Map<string, string>();
const wanted = new Map(
  readFileSync(FILE, 'utf8')
    .trimEnd()
    .split('\n\n')
    .map((text) => [text.split('\n', 1)[0], text]),
);
if (updates) t.teardown(() => writeFileSync(FILE, `${[...written.values()].join('\n\n')}\n`));

async function compare(t: Test, [what, image, options]: Case): Promise<void> {
  const text = [what, ...(await sayings(image, options)).map((line) => `  ${line}`)].join('\n');
  written.set(what, text);
  if (!updates) t.equal(text, wanted.get(what), what);
}

for (const one of CASES) void t.test(`What check says of ${one[0]}`, (t) => compare(t, one));

void t.test('What check says of a partition of many pages, in two segments', async (t) => {
  for (const one of await wideCases()) await compare(t, one);
});

void t.test('What check says of a partition of 3 TiB', async (t) => {
  for (const one of await largeCases()) await compare(t, one);
});

void t.test('Nothing else is in findings.txt', (t) => {
  t.strictSame([...written.keys()], updates ? [...written.keys()] : [...wanted.keys()]);
  t.end();
});

void t.test('Of very many findings the first 10,000 are told, and all are counted', (t) => {
  const findings = new Findings(new MemoryStore(MIB), false);
  const complaint = { structure: 'map', lengthBytes: 1, problem: 'none', remedy: 'none' };
  for (const [severity, count] of [
    ['note', 5000],
    ['repairable', 3000],
    ['damaged', 2000],
    ['note', 1],
    ['repairable', 2],
    ['damaged', 4],
  ] as const) {
    if (severity === 'note' && count === 1) t.equal(findings.omitted, 0);
    for (let position = 0; position < count; position++) findings.add({ ...complaint, severity, position });
  }
  t.equal(findings.list.length, 10_000);
  t.equal(findings.omitted, 7);
  t.same(findings.counts, { note: 5001, repairable: 3002, damaged: 2004 });
  t.end();
});

void t.test('What init has made is clean, of every size', async (t) => {
  const wrong: string[] = [];
  for (
    let sizeBytes = 8 * MIB;
    sizeBytes < 2 ** 44;
    sizeBytes = 4096 * Math.ceil((sizeBytes * 1.37) / 4096)
  ) {
    const store = await blankStore(sizeBytes);
    const { verdict, findings } = await checkStore(store);
    if (verdict !== 'clean') wrong.push(`${sizeBytes}: ${findings[0]?.problem}`);
  }
  t.same(wrong, []);
});

void t.test('Beside a daemon what looks bad is looked at six times, 60 ms apart', async (t) => {
  moments.length = 0;
  await checkStore(over(crashed), { shared: true });
  t.same(moments, []);
  await checkStore(without(crashed, 'state', [0])(), { shared: true });
  t.same(moments, Array(5).fill(60));
  await checkStore(without(crashed, 'state', [0])());
  t.equal(moments.length, 5, 'and without one once');
  moments.length = 0;
  await checkStore(pageToCome(), { shared: true });
  t.same(moments, Array(5).fill(60), 'a page newer than the superblock was when it was read, too');
});
