/** Structures that are whole, and say what can't be true: what check tells, and that it mends only what it can know. */
import t from 'tap';
import { checkStore } from '../../src/cow/check.js';
import { journalPosition, viewJournal } from '../../src/cow/check-journal.js';
import { Engine } from '../../src/cow/engine.js';
import { dumpStore } from '../../src/cow/dump.js';
import {
  ACTIVITY_ENTRY_BYTES,
  FORMAT_VERSION,
  HEADER_BYTES,
  JOURNAL_BLOCK_BYTES,
  PAGE_BLOCKS,
  PAGE_UNITS,
  SUPERBLOCK_OFFSETS,
} from '../../src/cow/format.js';
import { MapPage } from '../../src/cow/map-page.js';
import { MasterMedium } from '../../src/cow/mediums.js';
import { readSuperblock } from '../../src/cow/recovery.js';
import { RESULT } from '../../src/cow/results.js';
import { BLOCK_BYTES } from '../../src/cow/states.js';
import { HISTORY_EPOCHS } from '../../src/cow/superblock.js';
import { readU64, seal, writeU64 } from '../../src/cow/bytes.js';
import { crc32c } from '../../src/crc32c.js';
import { misreading, over, placesOf } from './damage.js';
import { loadGolden } from './golden/golden.js';
import { FaultyStore, MemoryStore } from './stores.js';

const CRC_AT = 8;
const COVERED_FROM = 12;
const SEGMENT_AT = 192;

const { store: crashed, expected } = loadGolden(FORMAT_VERSION);
/** What an orderly close leaves of it: with the slave as it was, and disabled. */
const closed = over(crashed);
const disabled = over(crashed);
t.before(async () => {
  for (const store of [closed, disabled]) {
    const engine = await Engine.open(store);
    if (store === disabled) await engine.disable();
    // So that the page is of the current epoch, and both twins of everything are level.
    await write(engine, 600);
    await engine.close();
  }
});

async function write(engine: Engine, block: number): Promise<void> {
  const master = new MasterMedium(engine);
  await new Promise((resolve) =>
    master.writeAsync(block * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, 1), 0, BLOCK_BYTES, resolve),
  );
}

type Edit = (bytes: Buffer) => void;

type Image = () => MemoryStore;

/** The image with some copies of a structure edited, under checksums that are right. */
const edited =
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

const u32 =
  (at: number, change: (value: number) => number): Edit =>
  (bytes) =>
    void bytes.writeUInt32LE(change(bytes.readUInt32LE(at)), at);
const u64 =
  (at: number, change: (value: number) => number): Edit =>
  (bytes) =>
    writeU64(bytes, at, change(readU64(bytes, at)));

/** Changes what a map page says. */
const page =
  (change: (page: MapPage) => void): Edit =>
  (bytes) => {
    const { uuid, generation } = readSuperblock(crashed);
    const found = MapPage.decode(bytes, uuid, 0);
    if (found === undefined) throw new Error('there is no page');
    change(found);
    found.encode(bytes, 0, uuid, generation);
  };

const ALL = [0, 1, 2, 3];
const BOTH = [0, 1];
const blocks = viewJournal(crashed, readSuperblock(crashed));
const first: `journal ${number}` = `journal ${blocks.tail}`;
const second: `journal ${number}` = `journal ${blocks.tail + 1}`;
const last: `journal ${number}` = `journal ${blocks.needed - 1}`;

/** Beyond repair: nobody can know what is true. Nothing of it may be written. */
const DAMAGED: readonly [what: string, image: Image, problem: RegExp][] = [
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
  [
    'a page of an epoch to come',
    edited(
      closed,
      'page',
      BOTH,
      page((it) => it.epoch++),
    ),
    /newer than every superblock/,
  ],
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

for (const [what, image, problem] of DAMAGED) {
  void t.test(`${what}: damaged, and nothing is written`, async (t) => {
    const { verdict, findings } = await checkStore(image());
    t.equal(verdict, 'damaged');
    t.ok(
      findings.some((finding) => finding.severity === 'damaged' && problem.test(finding.problem)),
      findings.map((finding) => finding.problem).join('; '),
    );
    const repaired = image();
    repaired.recording = true;
    t.equal((await checkStore(repaired, { repair: true })).verdict, 'damaged');
    t.same(
      repaired.events.filter(({ kind }) => kind === 'write'),
      [],
    );
  });
}

/** Of two whole copies the newer one is true. */
const OLDER: readonly [what: string, image: Image, severity: 'note' | 'repairable'][] = [
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

for (const [what, image, severity] of OLDER) {
  void t.test(`An older copy of ${what}: ${severity}`, async (t) => {
    const { verdict, findings } = await checkStore(image());
    t.equal(verdict, severity === 'note' ? 'clean' : 'repairable');
    t.match(
      findings.map((finding) => finding.severity),
      [severity],
    );
    const repaired = image();
    const { verdict: after } = await checkStore(repaired, { repair: true });
    t.match(after, severity === 'note' ? /clean|repaired/ : /repaired/);
    t.equal((await checkStore(repaired)).verdict, 'clean');
    const engine = await Engine.open(repaired);
    await engine.close();
    t.strictSame((await checkStore(repaired)).findings, [], 'an open leaves no trace of it');
    t.match(
      await checkStore(image(), { shared: true }),
      { verdict: 'clean', findings: [] },
      'while somebody is writing it is to be expected',
    );
  });
}

void t.test('Of two copies of an activity list one may be older after a crash', async (t) => {
  const superblock = readSuperblock(crashed);
  const { activityOffset, activitySlotBytes, uuid } = superblock;
  const store = over(crashed);
  const slot = Buffer.alloc(activitySlotBytes);
  store.readSync(slot, 0, slot.length, activityOffset);
  writeU64(slot, 32, readU64(slot, 32) - 2);
  seal(slot, 'CLDDACTV', uuid, HEADER_BYTES + slot.readUInt32LE(12) * ACTIVITY_ENTRY_BYTES);
  store.apply(activityOffset, slot);
  const { verdict, findings } = await checkStore(over(store));
  t.equal(verdict, 'clean');
  t.match(findings, [
    { structure: 'activity log, slot 0', severity: 'note', remedy: 'the next open writes both' },
  ]);
  t.same((await checkStore(over(store), { shared: true })).findings, []);
  t.equal(await misreading(store, expected), undefined);
});

void t.test('An open does not believe what can not be true', async (t) => {
  const found = (what: string): MemoryStore => {
    const image = DAMAGED.find(([name]) => name === what)?.[1];
    if (image === undefined) throw new Error(`there is no ${what}`);
    return image();
  };
  await t.rejects(Engine.open(found('a record of a page that does not exist')), {
    code: 'DAMAGED',
    message: /names a map page that does not exist/,
  });
  const engine = await Engine.open(found('a page of an epoch to come'));
  t.throws(() => engine.map.forReading(0), { code: 'DAMAGED_MAP', message: /newer than the superblock/ });
  t.equal(new MasterMedium(engine).read(0, Buffer.alloc(512), 0, 512), RESULT.READ_ERROR);
  t.equal(engine.core.failure, undefined);
});

void t.test('What a newer version has made is neither opened nor mended, and told', async (t) => {
  const store = edited(
    crashed,
    'superblock',
    ALL,
    u32(12, () => FORMAT_VERSION + 1),
  )();
  store.recording = true;
  const unknown = { code: 'UNKNOWN_FORMAT', message: /use the version of cldd that made it/ };
  await t.rejects(Engine.open(store), unknown);
  await t.rejects(checkStore(store), unknown);
  await t.rejects(checkStore(store, { repair: true }), unknown);
  t.match(dumpStore(store), {
    superblock: null,
    superblocks: [{ problem: /has format 3, this program knows 2/ }],
  });
  t.same(
    store.events.filter(({ kind }) => kind === 'write'),
    [],
  );
});

void t.test('What has no room for all copies of the superblock holds no partition', async (t) => {
  await t.rejects(Engine.open(new MemoryStore(100_000)), { code: 'NOT_CLDD' });
});

void t.test('A needed block that neither copy of the journal has is told, for each copy', async (t) => {
  const store = over(crashed);
  const superblock = readSuperblock(crashed);
  for (const copy of BOTH)
    store.apply(journalPosition(superblock, blocks.tail, copy), Buffer.alloc(JOURNAL_BLOCK_BYTES));
  const { verdict, findings } = await checkStore(store, { repair: true });
  t.equal(verdict, 'damaged');
  t.match(
    findings.filter(({ structure }) => structure.startsWith('journal')),
    [{ remedy: /neither copy is whole/ }, { remedy: /neither copy is whole/ }],
  );
  await t.rejects(Engine.open(over(store)), { code: 'DAMAGED' });
});

void t.test('A repair that the device refuses is told as such, and the rest is done', async (t) => {
  const damaged = edited(
    closed,
    'superblock',
    [0],
    u64(32, (n) => n - 1),
  )();
  const worse = over(damaged);
  for (const { name, copy, position } of placesOf(damaged))
    if (name === 'page' && copy === 0) worse.apply(position, Buffer.alloc(512, 0xdb));
  const disc = new FaultyStore(worse.sizeBytes, worse);
  disc.fault = { kind: 'write', at: 0, persistent: true, code: 'EIO' };
  const { verdict, findings } = await checkStore(disc, { repair: true });
  t.equal(verdict, 'damaged');
  t.match(
    findings.find(({ structure }) => structure.startsWith('map page')),
    {
      severity: 'damaged',
      repaired: false,
      remedy: /takes no write there \(EIO: injected\)/,
    },
  );
});

/** Says that it has written. */
class LyingStore extends MemoryStore {
  override writeSync(): void {
    // It forgets.
  }
}

void t.test('A repair that the device only says it has taken is none', async (t) => {
  const damaged = over(crashed);
  const [place] = placesOf(crashed).filter(({ name }) => name === 'page');
  damaged.apply(place.position, Buffer.alloc(512, 0xdb));
  const { verdict, findings } = await checkStore(new LyingStore(damaged.sizeBytes, damaged), {
    repair: true,
  });
  t.equal(verdict, 'repairable');
  t.match(
    findings.filter(({ severity }) => severity !== 'note'),
    [
      { structure: 'map page 0, twin 0', repaired: true },
      { structure: 'map page 0, twin 0', repaired: false },
    ],
  );
});

void t.test('A disc that dies while it is checked is told as that', async (t) => {
  const disc = new FaultyStore(closed.sizeBytes, closed);
  // Not yet as the copies are looked for, but as they are compared.
  disc.fault = { kind: 'read', at: SUPERBLOCK_OFFSETS.length, persistent: true, code: 'EIO' };
  const { verdict, findings } = await checkStore(disc, { repair: true });
  t.equal(verdict, 'damaged');
  const problem = /can't be read: EIO/;
  t.match(
    findings.filter(({ structure }) => structure.startsWith('superblock')),
    SUPERBLOCK_OFFSETS.map((position) => ({ position, problem, severity: 'damaged' })),
  );
  t.equal(disc.calls.write, 0);
});

/** The first reads that touch a place find it half written. */
class BeingWrittenStore extends MemoryStore {
  torn: { position: number; length: number; reads: number } | undefined;

  override readSync(buffer: Uint8Array, offset: number, length: number, position: number): void {
    super.readSync(buffer, offset, length, position);
    const { torn } = this;
    if (torn === undefined || torn.reads === 0) return;
    const from = Math.max(position, torn.position);
    const end = Math.min(position + length, torn.position + torn.length);
    if (from >= end) return;
    torn.reads--;
    buffer.fill(0xdb, offset + from - position, offset + end - position);
  }
}

void t.test(
  'Beside a daemon: what is whole a moment later is good, and what stays bad is told',
  async (t) => {
    const kinds = new Set<string>();
    for (const { name, copy, position } of placesOf(crashed)) {
      const store = new BeingWrittenStore(crashed.sizeBytes, crashed);
      store.torn = { position, length: 512, reads: 2 };
      const where = `${name}, copy ${copy}`;
      t.match(await checkStore(store, { shared: true }), { verdict: 'clean', findings: [] }, where);
      t.equal(store.torn.reads, 0);
      const kind = name.split(' ', 1)[0];
      if (kinds.has(kind)) continue;
      kinds.add(kind);
      store.torn.reads = Infinity;
      t.match(
        await checkStore(store, { shared: true }),
        { verdict: 'repairable', findings: [{ position }] },
        where,
      );
    }
  },
);

void t.test('The images that all this begins with are clean', async (t) => {
  for (const store of [crashed, closed, disabled]) t.equal((await checkStore(over(store))).verdict, 'clean');
  t.equal(await misreading(crashed, expected), undefined);
});
