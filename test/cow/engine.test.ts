/** Transitions that can't be, and what a write waits for: no more than it has to. */
import t from 'tap';
import { Engine } from '../../src/cow/engine.js';
import { PAGE_COVERS_BYTES } from '../../src/cow/format.js';
import { initStore } from '../../src/cow/init.js';
import { MasterMedium } from '../../src/cow/mediums.js';
import type { EngineOptions } from '../../src/cow/recovery.js';
import { RESULT } from '../../src/cow/results.js';
import { BLOCK_BYTES } from '../../src/cow/states.js';
import { FaultyStore } from './stores.js';

const GIB = 2 ** 30;
const FAILED =
  'the partition failed (EIO: injected) and takes no more writes; check the device, then restart the daemon';

async function opened(options: EngineOptions = {}): Promise<{ store: FaultyStore; engine: Engine }> {
  const store = new FaultyStore(GIB);
  store.recording = false;
  await initStore(store);
  return { store, engine: await Engine.open(store, options) };
}

function write(engine: Engine, position: number): Promise<number> {
  const data = Buffer.alloc(BLOCK_BYTES, 1);
  return new Promise((resolve) =>
    new MasterMedium(engine).writeAsync(position, data, 0, data.length, resolve),
  );
}

void t.test('What is asked of a slave in the wrong state is refused in words', async (t) => {
  const { engine } = await opened();
  for (const refused of [engine.disable(), engine.rollback()])
    await t.rejects(refused, { code: 'NOT_ENABLED', message: 'the slave is not enabled' });
  await engine.enable();
  await t.rejects(engine.enable(), {
    code: 'ALREADY_ENABLED',
    message: 'the slave is enabled already: disable it first',
  });
  await engine.close();
});

void t.test('A transition in which the device fails tells what became of the partition', async (t) => {
  for (const transition of ['enable', 'rollback', 'disable'] as const) {
    const { store, engine } = await opened();
    if (transition !== 'enable') await engine.enable();
    await write(engine, 0);
    store.fault = { kind: 'sync', at: store.calls.sync, persistent: true, code: 'EIO' };
    await t.rejects(engine[transition](), {
      code: 'PARTITION_FAILED',
      message: FAILED,
      cause: { code: 'EIO' },
    });
  }
});

void t.test('A refusal of the caller is told as it is', async (t) => {
  const { engine } = await opened();
  const refusal = new Error('it is mounted');
  await t.rejects(
    engine.enable(() => Promise.reject(refusal)),
    refusal,
  );
  t.equal(engine.core.failure, undefined);
  await engine.close();
});

void t.test('Who waits while the partition fails is told that it has', async (t) => {
  const { store, engine } = await opened();
  await write(engine, 0);
  await engine.committer.checkpoint();
  await engine.enable();
  await engine.disable();
  // An older generation's data: their extent has to be listed, and the list can't be written.
  t.equal(engine.writer.admit(0, BLOCK_BYTES), RESULT.PENDING);
  store.fault = { kind: 'write', at: store.calls.write, persistent: true, code: 'EIO' };
  t.equal(await engine.obstacle(0, BLOCK_BYTES, false), RESULT.FAILED);
});

void t.test('A write that waits for map pages alone begins no checkpoint, and lists nothing', async (t) => {
  const pages = 8;
  const { store, engine } = await opened();
  for (let page = 0; page < pages; page++) await write(engine, page * PAGE_COVERS_BYTES);
  await engine.close();
  for (const enabled of [false, true]) {
    const again = await Engine.open(store, { cachePages: 4 });
    if (enabled) await again.enable();
    const { checkpoints, activityWrites } = again.core.counters;
    // Two of four: with more that have changed a checkpoint begins by itself.
    for (const page of [0, 1]) {
      t.equal(again.map.cached(page), undefined);
      // To where nothing is yet.
      t.equal(await write(again, page * PAGE_COVERS_BYTES + PAGE_COVERS_BYTES / 2), RESULT.OK);
      await again.committer.flushed();
    }
    t.match(again.core.counters, { checkpoints, activityWrites });
    await again.close();
  }
});
