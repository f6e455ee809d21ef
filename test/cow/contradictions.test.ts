/** Structures that are whole, and say what can't be true: what check tells, and that it mends only what it can know. */
import t from 'tap';
import { checkStore } from '../../src/cow/check.js';
import { journalPosition } from '../../src/cow/check-journal.js';
import { Engine } from '../../src/cow/engine.js';
import { dumpStore } from '../../src/cow/dump.js';
import {
  ACTIVITY_ENTRY_BYTES,
  FORMAT_VERSION,
  HEADER_BYTES,
  JOURNAL_BLOCK_BYTES,
  SUPERBLOCK_OFFSETS,
} from '../../src/cow/format.js';
import { MasterMedium } from '../../src/cow/mediums.js';
import { readSuperblock } from '../../src/cow/recovery.js';
import { RESULT } from '../../src/cow/results.js';
import { BLOCK_BYTES } from '../../src/cow/states.js';
import { readU64, seal, writeU64 } from '../../src/cow/bytes.js';
import { misreading, over, placesOf } from './damage.js';
import type { Place } from './damage.js';
import {
  ALL,
  BOTH,
  DAMAGED,
  OLDER,
  blocks,
  closed,
  crashed,
  disabled,
  edited,
  expected,
  prepare,
  u32,
  u64,
} from './lies.js';
import { FaultyStore, MemoryStore, blankStore } from './stores.js';

const MIB = 2 ** 20;

t.before(prepare);

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
  const list = readU64(slot, 32);
  t.match(findings, [
    {
      structure: 'activity log, slot 0',
      severity: 'note',
      problem: `it has list ${list}, its copy has list ${list + 2}, as a crash leaves it`,
      remedy: 'the next open writes both',
    },
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

/** A crash that came between the writes of a page's twins. */
function olderPage(): MemoryStore {
  const image = OLDER.find(([what]) => what === 'page, as a power cut leaves it')?.[1];
  if (image === undefined) throw new Error('there is none');
  return image();
}

function bytesOf(store: MemoryStore, { position, lengthBytes }: Place): Buffer {
  const bytes = Buffer.alloc(lengthBytes);
  store.readSync(bytes, 0, lengthBytes, position);
  return bytes;
}

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

void t.test('What a repair could not do is told, without what needs none', async (t) => {
  const damaged = edited(
    crashed,
    'superblock',
    [0],
    u64(32, (n) => n - 1),
  )();
  const [, twin] = placesOf(crashed).filter(({ name }) => name === 'page');
  damaged.apply(twin.position, bytesOf(olderPage(), twin));
  t.match((await checkStore(over(damaged))).counts, { note: 1, repairable: 1, damaged: 0 });
  const lying = new LyingStore(damaged.sizeBytes, damaged);
  const { verdict, findings, counts } = await checkStore(lying, { repair: true });
  t.equal(verdict, 'repairable', 'an older copy counts, since nobody else writes');
  t.same(
    findings.map(({ structure, repaired }) => [structure, repaired]),
    [
      ['superblock, copy 0', true],
      ['superblock, copy 0', false],
    ],
  );
  t.match(counts, { note: 1, repairable: 1 });
});

void t.test('A repair begins and ends with a sync; a check alone asks for none', async (t) => {
  const kinds = async (repair: boolean): Promise<string[]> => {
    const store = edited(
      crashed,
      'superblock',
      [0],
      u64(32, (n) => n - 1),
    )();
    store.recording = true;
    await checkStore(store, { repair });
    return store.events.map(({ kind }) => kind);
  };
  t.same(await kinds(true), ['sync', 'write', 'sync']);
  t.same(await kinds(false), []);
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

void t.test('A page that only the journal knows is clean where the history has begun anew', async (t) => {
  const store = await blankStore(64 * MIB);
  const engine = await Engine.open(store);
  for (let epoch = 0; epoch < 3; epoch++) {
    await engine.enable();
    await engine.disable();
  }
  engine.core.superblock.historyBase = engine.core.superblock.epoch;
  engine.core.superblock.history.fill(0);
  await engine.enable();
  const done = new Promise((resolve) =>
    new MasterMedium(engine).writeAsync(0, Buffer.alloc(BLOCK_BYTES, 1), 0, BLOCK_BYTES, resolve),
  );
  t.equal(await done, RESULT.OK);
  await engine.committer.flushed();
  engine.core.failure = new Error('killed');
  t.match(readSuperblock(store), { epoch: 3, historyBase: 3 });
  t.match(await checkStore(store), { verdict: 'clean', findings: [], mapPages: 0 });
});

void t.test('The images that all this begins with are clean', async (t) => {
  for (const store of [crashed, closed, disabled]) t.equal((await checkStore(over(store))).verdict, 'clean');
  t.equal(await misreading(crashed, expected), undefined);
});
