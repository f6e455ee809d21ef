/** What a command gets where the map or the data can't be read: its own error, while all else goes on. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { Engine } from '../../src/cow/engine.js';
import { PAGE_COVERS_BYTES, pageOffset } from '../../src/cow/format.js';
import { initStore } from '../../src/cow/init.js';
import { MasterMedium, SlaveMedium } from '../../src/cow/mediums.js';
import { Partition } from '../../src/cow/partition.js';
import { RESULT } from '../../src/cow/results.js';
import { BLOCK_BYTES } from '../../src/cow/states.js';
import { FaultyFs } from './faulty-fs.js';
import { HoldingStore, WornStore } from './stores.js';
import type { MemoryStore } from './stores.js';

const MIB = 2 ** 20;
const SECTOR_BYTES = 512;

async function opened<S extends MemoryStore>(
  store: S,
): Promise<{ engine: Engine; store: S; master: MasterMedium }> {
  store.recording = false;
  await initStore(store);
  const engine = await Engine.open(store);
  return { engine, store, master: new MasterMedium(engine) };
}

function write(master: MasterMedium, position: number, value: number, length = BLOCK_BYTES): Promise<number> {
  const data = Buffer.alloc(length, value);
  return new Promise((resolve) => master.writeAsync(position, data, 0, length, resolve));
}

const flush = (master: MasterMedium): Promise<number> => new Promise((resolve) => master.flush(resolve));

/** The first byte of each sector; throws if they can't be read. */
function shown(side: MasterMedium | SlaveMedium, position: number, length = SECTOR_BYTES): number[] {
  const bytes = Buffer.alloc(length);
  const result = side.read(position, bytes, 0, length);
  if (result !== RESULT.OK) throw new Error(`a read ended with ${String(result)}`);
  return Array.from({ length: length / SECTOR_BYTES }, (_, sector) => bytes[sector * SECTOR_BYTES]);
}

/** Two pages on the disc, of which the second one is not in memory. */
async function withPages(
  store: MemoryStore,
): Promise<{ engine: Engine; master: MasterMedium; twins: number[] }> {
  const { engine, master } = await opened(store);
  for (const page of [0, 1]) await write(master, page * PAGE_COVERS_BYTES, 1);
  const twins = [0, 1].map((twin) => pageOffset(engine.core.segments[0], 1, twin));
  await engine.close();
  const again = await Engine.open(store);
  return { engine: again, master: new MasterMedium(again), twins };
}

void t.test('A write where both twins of the map page are damaged fails, and no other does', async (t) => {
  const store = new WornStore(256 * MIB);
  const { engine, master, twins } = await withPages(store);
  for (const twin of twins) store.apply(twin, Buffer.alloc(BLOCK_BYTES, 0xdb));
  t.equal(await write(master, PAGE_COVERS_BYTES, 2), RESULT.READ_ERROR);
  const prepared = new Promise((resolve) => {
    t.equal(master.prepareWrite(PAGE_COVERS_BYTES, BLOCK_BYTES, resolve), RESULT.PENDING);
  });
  t.equal(await prepared, RESULT.READ_ERROR);
  t.equal(engine.core.failure, undefined);
  t.equal(await write(master, 0, 2), RESULT.OK);
  t.equal(await flush(master), RESULT.OK);
  t.same(shown(master, 0), [2]);
  await engine.close();
});

void t.test(
  'A map page whose first twin can not be read is served by the second, and written again',
  async (t) => {
    const store = new WornStore(256 * MIB);
    const { engine, master, twins } = await withPages(store);
    store.spoil(twins[0], BLOCK_BYTES);
    const bytes = Buffer.alloc(BLOCK_BYTES);
    t.equal(
      await new Promise((resolve) => master.readAsync(PAGE_COVERS_BYTES, bytes, 0, BLOCK_BYTES, resolve)),
      RESULT.OK,
    );
    t.equal(bytes[0], 1);
    await engine.committer.checkpoint();
    t.doesNotThrow(() => store.readSync(bytes, 0, BLOCK_BYTES, twins[0]));
    await engine.close();
  },
);

void t.test('A mistake of our own while a write waits ends all writing, and is no silence', async (t) => {
  for (const prepares of [false, true]) {
    const { engine, master } = await withPages(new WornStore(256 * MIB));
    const mistake = new TypeError('injected');
    engine.map.load = () => Promise.reject(mistake);
    const answer = prepares
      ? new Promise((resolve) => master.prepareWrite(PAGE_COVERS_BYTES, BLOCK_BYTES, resolve))
      : write(master, PAGE_COVERS_BYTES, 2);
    t.equal(await answer, RESULT.FAILED);
    t.equal(engine.core.failure, mistake);
    await engine.close();
  }
});

void t.test(
  'A read through the pool fails if one of the halves that it needs does, and not for good',
  async (t) => {
    const blocks = 8;
    const { engine, store, master } = await opened(new HoldingStore(64 * MIB));
    await write(master, 0, 1, blocks * BLOCK_BYTES);
    await engine.enable();
    for (let block = 0; block < blocks; block += 2) await write(master, block * BLOCK_BYTES, 2);
    for (const [side, values] of [
      [master, [2, 1]],
      [new SlaveMedium(engine), [1, 1]],
    ] as const) {
      const bytes = Buffer.alloc(blocks * BLOCK_BYTES);
      const read = (): Promise<number> =>
        new Promise((resolve) => side.readAsync(0, bytes, 0, bytes.length, resolve));
      store.holds.add('read');
      for (let failing = 0, parts = 1; failing < parts; failing++) {
        const answer = read();
        while (store.held.length === 0) await new Promise(setImmediate);
        parts = store.held.length;
        t.equal(parts, side === master ? 2 : 1);
        store.held.forEach(({ end }, part) => end(part === failing ? new Error('EIO: injected') : undefined));
        store.held.length = 0;
        t.equal(await answer, RESULT.READ_ERROR, `part ${failing} of ${parts}`);
      }
      store.holds.clear();
      t.equal(await read(), RESULT.OK);
      t.same([bytes[0], bytes[BLOCK_BYTES]], values);
    }
    t.equal(engine.core.failure, undefined);
    await engine.close();
  },
);

void t.test(
  'An unmap of part of a block whose rest can not be read fails, and may be repeated',
  async (t) => {
    const { engine, store, master } = await opened(new WornStore(64 * MIB));
    await write(master, 0, 1, 3 * BLOCK_BYTES);
    await engine.enable();
    const { halfA } = engine.core.segments[0];
    store.spoil(halfA, SECTOR_BYTES);
    const [position, length] = [3 * SECTOR_BYTES, 2 * BLOCK_BYTES];
    const rest = Array.from({ length: 24 }, () => 1);
    t.equal(master.unmap(position, length), RESULT.READ_ERROR);
    t.equal(engine.core.failure, undefined);
    store.writeSync(Buffer.alloc(SECTOR_BYTES, 1), 0, SECTOR_BYTES, halfA);
    t.same(shown(master, BLOCK_BYTES, 2 * BLOCK_BYTES), [...rest.slice(0, 8).fill(0), ...rest.slice(0, 8)]);
    t.equal(master.unmap(position, length), RESULT.OK);
    t.same(shown(master, 0, 3 * BLOCK_BYTES), [...rest].fill(0, 3, 3 + 16));
    t.same(shown(new SlaveMedium(engine), 0, 3 * BLOCK_BYTES), rest, 'the slave is as it was');
    await engine.close();
  },
);

void t.test('A slave is not enabled where it can not be read whether the master is mounted', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'cldd-unreadable-'));
  const path = join(folder, 'partition');
  const faulty = new FaultyFs(path);
  t.teardown(() => {
    faulty.restore();
    rmSync(folder, { recursive: true, force: true });
  });
  await Partition.init(path, { sizeBytes: 16 * MIB });
  const partition = await Partition.open(path);
  t.equal(await write(partition.master, 0, 1), RESULT.OK);
  faulty.begin({ call: 'pread', at: 0, persistent: true, answer: 'EIO' });
  await t.rejects(partition.enableSlave(), { code: 'MASTER_UNREADABLE', message: /read at 0/ });
  faulty.begin(undefined);
  t.match(partition.status(), { failed: undefined, slave: { enabled: false, generation: 0 } });
  t.match(await partition.enableSlave(), { enabled: true, generation: 1 });
  await partition.close();
});
