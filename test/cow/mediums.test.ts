/** The two sides of a partition as the SCSI layer's Medium (src/scsi/medium.ts) asks. */
import t from 'tap';
import { Engine } from '../../src/cow/engine.js';
import { PAGE_COVERS_BYTES } from '../../src/cow/format.js';
import { MasterMedium, SlaveMedium } from '../../src/cow/mediums.js';
import { RESULT } from '../../src/cow/results.js';
import { BLOCK_BYTES } from '../../src/cow/states.js';
import type { MemoryStore } from './stores.js';
import { blankStore } from './stores.js';

const MIB = 2 ** 20;
const SECTOR_BYTES = 512;

async function opened(): Promise<{
  engine: Engine;
  store: MemoryStore;
  master: MasterMedium;
  slave: SlaveMedium;
}> {
  const store = await blankStore(160 * MIB);
  const engine = await Engine.open(store);
  return { engine, store, master: new MasterMedium(engine), slave: new SlaveMedium(engine) };
}

const write = (master: MasterMedium, position: number, length = BLOCK_BYTES): Promise<number> =>
  new Promise((resolve) => master.writeAsync(position, Buffer.alloc(length, 1), 0, length, resolve));

void t.test('Both sides have the size and the generation of the partition', async (t) => {
  const { engine, master, slave } = await opened();
  for (const side of [master, slave])
    t.match(side, { capacityBytes: engine.core.capacityBytes, generation: 0 });
  t.match(master, { present: true, writeProtected: false });
  t.match(slave, { present: false, writeProtected: true });
  await engine.enable();
  for (const side of [master, slave]) t.match(side, { present: true, generation: 1 });
  await engine.disable();
  t.match(slave, { present: false, generation: 1 });
  t.equal(slave.read(0, Buffer.alloc(SECTOR_BYTES), 0, SECTOR_BYTES), RESULT.ABSENT);
});

void t.test('Nobody is told before the call returned', async (t) => {
  const { engine, master, slave } = await opened();
  const bytes = Buffer.alloc(BLOCK_BYTES);
  const calls: Record<string, (done: (result: number) => void) => void> = {
    'an empty read': (done) => master.readAsync(0, bytes, 0, 0, done),
    'a read of holes': (done) => master.readAsync(0, bytes, 0, BLOCK_BYTES, done),
    'a read without a medium': (done) => slave.readAsync(0, bytes, 0, BLOCK_BYTES, done),
    'a write': (done) => master.writeAsync(0, bytes, 0, BLOCK_BYTES, done),
    'a write to the slave': (done) => slave.writeAsync(0, bytes, 0, BLOCK_BYTES, done),
    'a flush': (done) => master.flush(done),
    'a flush of the slave': (done) => slave.flush(done),
  };
  const asked = async (): Promise<Record<string, number>> => {
    const answers: Record<string, number> = {};
    for (const [what, call] of Object.entries(calls)) {
      let returned = false;
      answers[what] = await new Promise((resolve) => {
        call((result) => {
          t.ok(returned, what);
          resolve(result);
        });
        returned = true;
      });
    }
    return answers;
  };
  t.same(await asked(), {
    'an empty read': RESULT.OK,
    'a read of holes': RESULT.OK,
    'a read without a medium': RESULT.ABSENT,
    'a write': RESULT.OK,
    'a write to the slave': RESULT.WRITE_PROTECTED,
    'a flush': RESULT.OK,
    'a flush of the slave': RESULT.ABSENT,
  });
  engine.core.fail(new Error('EIO: injected'));
  t.match(await asked(), {
    'a read of holes': RESULT.OK,
    'a write': RESULT.FAILED,
    'a flush': RESULT.FAILED,
  });
  t.equal(master.write(0, bytes, 0, BLOCK_BYTES), RESULT.FAILED);
  t.equal(master.unmap(0, BLOCK_BYTES), RESULT.FAILED);
  t.equal(
    master.prepareWrite(0, BLOCK_BYTES, () => undefined),
    RESULT.FAILED,
  );
});

void t.test(
  'A read that the device can not answer is told as that, at once and through the pool',
  async (t) => {
    const { engine, store, master } = await opened();
    await write(master, 0);
    const failure = new Error('EIO: injected');
    store.readSync = () => {
      throw failure;
    };
    store.read = (_buffer, _offset, _length, _position, done) => setImmediate(done, failure);
    const bytes = Buffer.alloc(2 * BLOCK_BYTES);
    for (const length of [BLOCK_BYTES, 2 * BLOCK_BYTES]) {
      t.equal(master.read(0, bytes, 0, length), RESULT.READ_ERROR);
      t.equal(
        await new Promise((resolve) => master.readAsync(0, bytes, 0, length, resolve)),
        RESULT.READ_ERROR,
      );
    }
    t.equal(engine.core.failure, undefined);
  },
);

void t.test('An empty read asks the disc for nothing', async (t) => {
  const { engine, master } = await opened();
  await write(master, 0);
  t.equal(await new Promise((resolve) => master.readAsync(0, Buffer.alloc(0), 0, 0, resolve)), RESULT.OK);
  t.equal(engine.core.counters.dataReads, 0);
});

void t.test('What was prepared goes ahead in the same turn', async (t) => {
  const { engine, store, master } = await opened();
  await write(master, 0);
  await write(master, PAGE_COVERS_BYTES);
  await engine.close();
  const again = new MasterMedium(await Engine.open(store));
  const range = [PAGE_COVERS_BYTES - BLOCK_BYTES, 2 * BLOCK_BYTES] as const;
  const bytes = Buffer.alloc(range[1], 2);
  let asked = 0;
  for (;;) {
    asked++;
    const told: number[] = [];
    const ready = await new Promise<number>((resolve) => {
      const at = again.prepareWrite(...range, (result) => {
        told.push(result);
        resolve(RESULT.PENDING);
      });
      if (at !== RESULT.PENDING) resolve(at);
    });
    if (ready === RESULT.OK) {
      await new Promise(setImmediate);
      t.same(told, [], 'nothing more is told');
      break;
    }
    t.same(told, [RESULT.OK], 'it is worth asking again');
  }
  t.ok(asked > 1 && asked < 5, `asked ${asked} times`);
  t.equal(again.write(range[0], bytes, 0, bytes.length), RESULT.OK);
});

void t.test('Who waits to write is told to ask again, however things stand by then', async (t) => {
  const { engine, master } = await opened();
  engine.writer.held = true;
  const told = await new Promise((resolve) => {
    t.equal(master.prepareWrite(0, BLOCK_BYTES, resolve), RESULT.PENDING);
  });
  t.equal(told, RESULT.OK);
  t.equal(
    master.prepareWrite(0, BLOCK_BYTES, () => undefined),
    RESULT.PENDING,
  );
});

void t.test('Who prepares a write to a page that has no place waits until it has one', async (t) => {
  const store = await blankStore(1024 * MIB);
  const engine = await Engine.open(store, { cachePages: 2 });
  const master = new MasterMedium(engine);
  await engine.enable();
  for (const page of [0, 1]) await write(master, page * PAGE_COVERS_BYTES);
  let asked = 0;
  for (let ready: number = RESULT.PENDING; ready !== RESULT.OK; asked++) {
    if (asked === 10) throw new Error('it is asked again and again');
    await new Promise<void>((resolve) => {
      ready = master.prepareWrite(2 * PAGE_COVERS_BYTES, BLOCK_BYTES, () => resolve());
      if (ready === RESULT.OK) resolve();
    });
  }
  t.equal(asked, 2);
});

void t.test('A write is admitted in the turn in which it is done, whatever begins meanwhile', async (t) => {
  const { engine, store, master } = await opened();
  await write(master, 0);
  await engine.close();
  // The page has to be read first.
  const again = await Engine.open(store);
  const { writer } = again;
  const obstacle = again.obstacle.bind(again);
  const real = writer.write.bind(writer);
  const outcomes: number[] = [];
  again.obstacle = async (...asked) => {
    writer.held = false;
    const outcome = await obstacle(...asked);
    // A transition begins before the one who waited has its turn.
    writer.held = outcomes.length === 0;
    outcomes.push(outcome);
    return outcome;
  };
  writer.write = (...what) => {
    t.notOk(writer.held);
    return real(...what);
  };
  t.equal(await write(new MasterMedium(again), 0), RESULT.OK);
  t.same(outcomes, [RESULT.OK, RESULT.OK]);
});

void t.test('Runs of data and holes are told from the byte asked for to where they end', async (t) => {
  const { engine, master, slave } = await opened();
  await write(master, 2 * BLOCK_BYTES, 3 * BLOCK_BYTES);
  await engine.enable();
  const border = PAGE_COVERS_BYTES;
  await write(master, border - 2 * BLOCK_BYTES, 4 * BLOCK_BYTES);
  const told = (side: MasterMedium | SlaveMedium, position: number, most: number): [boolean, number] => {
    const { mapped, lengthBytes } = side.provisioning(position, most);
    return [mapped, lengthBytes];
  };
  t.same(told(master, 0, MIB), [false, 2 * BLOCK_BYTES]);
  t.same(told(master, SECTOR_BYTES, MIB), [false, 2 * BLOCK_BYTES - SECTOR_BYTES]);
  t.same(told(master, 3 * BLOCK_BYTES - SECTOR_BYTES, MIB), [true, 2 * BLOCK_BYTES + SECTOR_BYTES]);
  t.same(
    told(master, 2 * BLOCK_BYTES, BLOCK_BYTES + SECTOR_BYTES),
    [true, BLOCK_BYTES + SECTOR_BYTES],
    'no more',
  );
  t.same(told(master, border - 2 * BLOCK_BYTES, MIB), [true, 4 * BLOCK_BYTES], 'over two map pages');
  t.same(told(master, border - 3 * BLOCK_BYTES, 100 * MIB), [false, BLOCK_BYTES]);
  const end = master.capacityBytes;
  t.same(
    told(master, border + 2 * BLOCK_BYTES, 2 ** 40),
    [false, end - border - 2 * BLOCK_BYTES],
    'to the end',
  );
  t.same(told(master, end - SECTOR_BYTES, MIB), [false, SECTOR_BYTES]);
  t.same(
    told(slave, 5 * BLOCK_BYTES, 2 ** 40),
    [false, end - 5 * BLOCK_BYTES],
    'the slave has holes of its own',
  );
});

void t.test('A read is slow by what it asked of the disc, and each side has its own', async (t) => {
  const { engine, master, slave } = await opened();
  for (const block of [0, 1, 2, 3]) await write(master, block * BLOCK_BYTES);
  await engine.enable();
  for (const block of [1, 3]) await write(master, block * BLOCK_BYTES);
  const now = performance.now.bind(performance);
  t.teardown(() => (performance.now = now));
  let clock = 0;
  let elapsedMs = 0;
  performance.now = () => (clock += elapsedMs);
  const bytes = Buffer.alloc(4 * BLOCK_BYTES);
  const slowAfter = (side: MasterMedium | SlaveMedium, ms: number, position = 0): boolean => {
    elapsedMs = ms;
    for (let count = 0; count < 2; count++) t.equal(side.read(position, bytes, 0, bytes.length), RESULT.OK);
    return side.readsSlowly();
  };
  // 0.03 ms, and 0.4 ms for a million bytes: 16 KiB of one half, or 12 KiB of each of two.
  t.notOk(slowAfter(slave, 0.036));
  t.notOk(slowAfter(master, 0.038), 'two halves are merged');
  t.notOk(slowAfter(master, 0.036, MIB), 'holes, that ask for nothing');
  t.ok(slowAfter(slave, 0.038));
  t.notOk(master.readsSlowly());
  t.ok(slowAfter(master, 0.041));
});
