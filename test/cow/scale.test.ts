/**
 * What must not depend on the size of the partition or on what was written: the I/O of the transitions, of an open after
 * a crash, and the number of map pages in memory. Counted, since a time says more about the machine than about us.
 */
import t from 'tap';
import { Engine } from '../../src/cow/engine.js';
import { PAGE_COVERS_BYTES } from '../../src/cow/format.js';
import { initStore } from '../../src/cow/init.js';
import { MasterMedium, SlaveMedium } from '../../src/cow/mediums.js';
import { RESULT } from '../../src/cow/results.js';
import type { StoreDone } from '../../src/cow/store.js';
import { MemoryStore } from './stores.js';

const BLOCK_BYTES = 4096;
const GIB = 2 ** 30;
const TIB = 2 ** 40;
const OPEN_BYTES_MAX = 64 << 20;
const OPEN_CALLS_MAX = 20_000;

interface Io {
  reads: number;
  readBytes: number;
  writes: number;
  writtenBytes: number;
  syncs: number;
}

/** Counts what reaches the disk. */
class CountingStore extends MemoryStore {
  io: Io = { reads: 0, readBytes: 0, writes: 0, writtenBytes: 0, syncs: 0 };

  constructor(sizeBytes: number, base?: MemoryStore) {
    super(sizeBytes, base);
    this.recording = false;
  }

  override readSync(buffer: Uint8Array, offset: number, length: number, position: number): void {
    this.io.reads++;
    this.io.readBytes += length;
    super.readSync(buffer, offset, length, position);
  }

  override read(buffer: Uint8Array, offset: number, length: number, position: number, done: StoreDone): void {
    this.io.reads++;
    this.io.readBytes += length;
    super.read(buffer, offset, length, position, done);
  }

  override writeSync(buffer: Uint8Array, offset: number, length: number, position: number): void {
    this.io.writes++;
    this.io.writtenBytes += length;
    super.writeSync(buffer, offset, length, position);
  }

  override sync(done: StoreDone): void {
    this.io.syncs++;
    super.sync(done);
  }

  async during(work: () => Promise<unknown>): Promise<Io> {
    this.io = { reads: 0, readBytes: 0, writes: 0, writtenBytes: 0, syncs: 0 };
    await work();
    return { ...this.io };
  }
}

async function write(engine: Engine, position: number): Promise<void> {
  const master = new MasterMedium(engine);
  const result = await new Promise((resolve) =>
    master.writeAsync(position, Buffer.alloc(BLOCK_BYTES, 1), 0, BLOCK_BYTES, resolve),
  );
  if (result !== RESULT.OK) throw new Error(`the write at ${position} ended with ${String(result)}`);
}

async function made(
  sizeBytes: number,
  cachePages?: number,
): Promise<{ engine: Engine; store: CountingStore }> {
  const store = new CountingStore(sizeBytes);
  await initStore(store);
  return { engine: await Engine.open(store, cachePages === undefined ? {} : { cachePages }), store };
}

async function transitions(sizeBytes: number): Promise<Record<string, Io>> {
  const { engine, store } = await made(sizeBytes);
  for (let page = 0; page < 8; page++) await write(engine, page * PAGE_COVERS_BYTES);
  await engine.committer.flushed();
  const enable = await store.during(() => engine.enable());
  for (let page = 0; page < 8; page++) await write(engine, page * PAGE_COVERS_BYTES);
  await engine.committer.flushed();
  const rollback = await store.during(() => engine.rollback());
  for (let page = 0; page < 8; page++) await write(engine, page * PAGE_COVERS_BYTES);
  await engine.committer.flushed();
  const disable = await store.during(() => engine.disable());
  await engine.close();
  return { enable, rollback, disable };
}

void t.test('enable, rollback and disable issue the same I/O at 1 GiB and at 64 TiB', async (t) => {
  const small = await transitions(GIB);
  const large = await transitions(64 * TIB);
  for (const name of ['enable', 'rollback', 'disable']) {
    t.match(small[name], { reads: 0, writes: 4 }, `${name}: the four copies of the superblock`);
  }
  t.strictSame(large, small);
});

void t.test('a 64 TiB partition opens after a crash with bounded I/O', async (t) => {
  const { engine, store } = await made(64 * TIB);
  const { capacityBytes } = engine.core;
  const stride = Math.floor(capacityBytes / 3000 / PAGE_COVERS_BYTES) * PAGE_COVERS_BYTES;
  for (let index = 0; index < 3000; index++) {
    await write(engine, index * stride);
    if (index % 32 === 31) await engine.committer.flushed();
  }
  await engine.committer.flushed();
  const crashed = new CountingStore(store.sizeBytes, store);
  let reopened: Engine | undefined;
  const io = await crashed.during(async () => (reopened = await Engine.open(crashed)));
  t.comment(`open after a crash: ${JSON.stringify(io)}`);
  t.ok(io.readBytes + io.writtenBytes < OPEN_BYTES_MAX, `${io.readBytes + io.writtenBytes} bytes`);
  t.ok(io.reads + io.writes + io.syncs < OPEN_CALLS_MAX, `${io.reads + io.writes + io.syncs} calls`);
  if (reopened === undefined) return;
  const bytes = Buffer.alloc(BLOCK_BYTES);
  t.equal(new MasterMedium(reopened).read(2999 * stride, bytes, 0, BLOCK_BYTES), RESULT.OK);
  t.equal(bytes[0], 1, 'what was flushed is there');
  await reopened.close();
});

void t.test('the map pages in memory keep to their bound, however much is written', async (t) => {
  const cachePages = 64;
  const { engine } = await made(4 * TIB, cachePages);
  let held = 0;
  for (let page = 0; page < 20 * cachePages; page++) {
    await write(engine, page * PAGE_COVERS_BYTES);
    if (page % cachePages !== 0) continue;
    let now = 0;
    engine.map.forEachCached(() => now++);
    held = Math.max(held, now);
  }
  t.ok(held <= cachePages, `${held} pages`);
  await engine.close();
});

void t.test('a write over more map pages than may be in memory is as good as any other', async (t) => {
  const { engine, store } = await made(GIB, 2);
  // In another epoch than a page that is not on the disc begins in.
  await engine.enable();
  await engine.rollback();
  const [position, length] = [PAGE_COVERS_BYTES - BLOCK_BYTES, PAGE_COVERS_BYTES + 2 * BLOCK_BYTES];
  const master = new MasterMedium(engine);
  const data = Buffer.alloc(length, 1);
  t.equal(await new Promise((resolve) => master.writeAsync(position, data, 0, length, resolve)), RESULT.OK);
  await engine.committer.flushed();
  t.equal(engine.core.failure, undefined);
  t.equal(engine.core.divergedBlocks, length / BLOCK_BYTES);
  const crashed = new CountingStore(store.sizeBytes, store);
  for (const opened of [engine, await Engine.open(crashed, { cachePages: 2 })]) {
    const shown = Buffer.alloc(length + 2 * BLOCK_BYTES, 0xff);
    const side = new MasterMedium(opened);
    t.equal(side.read(position - BLOCK_BYTES, shown, 0, shown.length), RESULT.OK);
    t.ok(shown.subarray(BLOCK_BYTES, BLOCK_BYTES + length).equals(data));
    t.equal(shown[0] + shown[shown.length - 1], 0, 'and its neighbours are as they were');
    t.equal(new SlaveMedium(opened).read(position, shown, 0, length), RESULT.OK);
    t.ok(
      shown.subarray(0, length).every((byte) => byte === 0),
      'as is the slave',
    );
  }
  await engine.close();
});

void t.test('a hole costs no read of data, on the master and on the slave', async (t) => {
  const { engine, store } = await made(64 * TIB);
  await engine.enable();
  const bytes = Buffer.alloc(256 * BLOCK_BYTES, 0xff);
  const results: unknown[] = [];
  const io = await store.during(() => {
    results.push(new MasterMedium(engine).read(8 * TIB, bytes, 0, bytes.length));
    t.ok(
      bytes.every((byte) => byte === 0),
      'the master shows zeros',
    );
    bytes.fill(0xff);
    results.push(new SlaveMedium(engine).read(8 * TIB, bytes, 0, bytes.length));
    return Promise.resolve();
  });
  t.strictSame(results, [RESULT.OK, RESULT.OK]);
  t.ok(
    bytes.every((byte) => byte === 0),
    'the slave shows zeros',
  );
  t.equal(io.reads, 0);
  await engine.close();
});

void t.test('an unmap of what was never written takes no map page into memory', async (t) => {
  const { engine, store } = await made(64 * TIB);
  const master = new MasterMedium(engine);
  const [position, length] = [8 * TIB - 512, 4 * PAGE_COVERS_BYTES + 1024];
  const io = await store.during(async () => {
    t.equal(master.unmap(position, length), RESULT.OK);
    t.equal(await engine.obstacle(position, length, true), RESULT.OK);
  });
  t.match(io, { reads: 0, writes: 0 });
  let held = 0;
  engine.map.forEachCached(() => held++);
  t.equal(held, 0);
  await engine.close();
});

void t.test('a run that alternates between the halves costs at most two reads', async (t) => {
  const { engine, store } = await made(GIB);
  const blocks = 64;
  for (let block = 0; block < blocks; block++) await write(engine, block * BLOCK_BYTES);
  await engine.enable();
  for (let block = 0; block < blocks; block += 2) await write(engine, block * BLOCK_BYTES);
  const bytes = Buffer.alloc(blocks * BLOCK_BYTES);
  const io = await store.during(() => {
    t.equal(new MasterMedium(engine).read(0, bytes, 0, bytes.length), RESULT.OK);
    return Promise.resolve();
  });
  t.ok(bytes.every((byte) => byte === 1));
  t.ok(io.reads <= 2, `${io.reads} reads`);
  for (const side of [new MasterMedium(engine), new SlaveMedium(engine)]) {
    bytes.fill(0xff);
    const pooled = await store.during(
      () => new Promise((resolve) => side.readAsync(0, bytes, 0, bytes.length, resolve)),
    );
    t.ok(bytes.every((byte) => byte === 1));
    t.ok(pooled.reads > 0 && pooled.reads <= 2, `${pooled.reads} reads through the pool`);
  }
  await engine.close();
});

void t.test('32 first overwrites and a flush: one data write each, at most 1.05 of metadata', async (t) => {
  const { engine } = await made(GIB);
  const rounds = 32;
  for (let block = 0; block < 32 * rounds; block++) await write(engine, block * BLOCK_BYTES);
  await engine.committer.checkpoint();
  await engine.enable();
  const before = { ...engine.core.counters };
  for (let block = 0; block < 32 * rounds; block++) {
    await write(engine, block * BLOCK_BYTES);
    if (block % 32 === 31) await engine.committer.flushed();
  }
  const { counters } = engine.core;
  const first = counters.firstOverwrites - before.firstOverwrites;
  t.equal(first, 32 * rounds);
  t.equal(counters.dataWrites - before.dataWrites, first, 'one data write for each');
  const metadata = (counters.metadataWrites - before.metadataWrites) / first;
  t.comment(`${metadata} metadata writes for each`);
  t.ok(metadata <= 1.05, `${metadata} metadata writes for each`);
  await engine.close();
});
