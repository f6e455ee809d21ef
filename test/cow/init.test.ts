/** Making a partition: what is there when it is done, and what a cut in the midst of it leaves. */
import t from 'tap';
import { checkStore } from '../../src/cow/check.js';
import { Engine } from '../../src/cow/engine.js';
import { STATE_TWIN_BYTES, SUPERBLOCK_OFFSETS } from '../../src/cow/format.js';
import { initStore } from '../../src/cow/init.js';
import { MasterMedium } from '../../src/cow/mediums.js';
import { readSuperblock } from '../../src/cow/recovery.js';
import { RESULT } from '../../src/cow/results.js';
import { BLOCK_BYTES } from '../../src/cow/states.js';
import { bitmapOffset } from '../../src/cow/written-bitmap.js';
import { Durable, survivors } from './powercut.js';
import { Chance, MemoryStore } from './stores.js';

const MIB = 2 ** 20;
const SEED = 1;
const WAYS = 30;

/** A store that holds old things everywhere in its first MiB. */
function used(sizeBytes: number): MemoryStore {
  const store = new MemoryStore(sizeBytes);
  store.apply(0, Buffer.alloc(MIB, 0xdb));
  return store;
}

void t.test('A new partition is clean, closed in order, disabled, and all holes', async (t) => {
  const store = used(64 * MIB);
  const before = Date.now();
  const { superblock, capacityBytes } = await initStore(store);
  const { uuid, createdAt, segments, history, ...others } = readSuperblock(store);
  t.match(others, {
    clean: true,
    enabled: false,
    deviceBytes: 64 * MIB,
    generation: 0,
    approximateGeneration: 0,
    enabledAt: 0,
    divergedBlocks: 0,
    epoch: 0,
    historyBase: 0,
    nextLsn: 1,
    tailLsn: 1,
    journalBlocks: 64,
    activitySlotBytes: 4096,
  });
  t.ok(createdAt >= before && createdAt <= Date.now());
  t.equal(uuid.length, 16);
  t.ok(uuid.equals(superblock.uuid));
  t.match(uuid.toString('hex'), /^.{12}4.{3}[89ab]/, 'a random one, as RFC 9562 has them');
  t.match(segments, [{ generation: 0 }]);
  t.equal(segments[0].blocks * BLOCK_BYTES, capacityBytes);
  t.ok(segments[0].deviceOffset + segments[0].deviceBytes > 64 * MIB - 65_536 - BLOCK_BYTES * 2);
  t.ok(history.equals(Buffer.alloc(3072)));
  t.match(await checkStore(store), { verdict: 'clean' });
  const engine = await Engine.open(store);
  t.same(new MasterMedium(engine).provisioning(0, capacityBytes), {
    mapped: false,
    lengthBytes: capacityBytes,
  });
  await engine.close();
});

void t.test('Old superblocks are gone before anything is written, and new ones come last', async (t) => {
  const store = used(64 * MIB);
  const { superblock, segments } = await initStore(store);
  const [first, second, third, fourth] = SUPERBLOCK_OFFSETS;
  const [twin, other] = [0, 1].map((copy) => bitmapOffset(segments[0], 0, copy));
  t.same(
    store.events.map((event) => (event.kind === 'write' ? event.position : event.kind)),
    [
      ...[first, second, third, fourth, 'sync'],
      ...[superblock.stateOffset, superblock.stateOffset + STATE_TWIN_BYTES],
      ...[twin, 'sync', other, 'sync'],
      ...[first, second, 'sync', third, fourth, 'sync'],
    ],
  );
});

void t.test('No two partitions have the same uuid, unless it is given', async (t) => {
  const uuids = await Promise.all(
    Array.from({ length: 3 }, async () => (await initStore(used(8 * MIB))).superblock.uuid.toString('hex')),
  );
  t.equal(new Set(uuids).size, 3);
  const uuid = Buffer.from('00112233445566778899aabbccddeeff', 'hex');
  const store = used(8 * MIB);
  await initStore(store, { uuid, createdAt: 5 });
  t.match(readSuperblock(store), { uuid, createdAt: 5 });
});

void t.test('Eight MiB are enough, one byte less is not, and then nothing is written', async (t) => {
  const store = used(8 * MIB - 1);
  await t.rejects(initStore(store), {
    code: 'TOO_SMALL',
    message: 'a partition needs at least 8 MiB, this has 8388607 bytes',
  });
  t.same(store.events, []);
  t.ok((await initStore(used(8 * MIB))).capacityBytes > 3 * MIB);
});

void t.test('Cut anywhere, there is the old partition with its data, none, or the new one', async (t) => {
  const base = new MemoryStore(8 * MIB);
  base.recording = false;
  const { segments } = await initStore(base);
  const engine = await Engine.open(base);
  const data = Buffer.alloc(BLOCK_BYTES, 1);
  t.equal(new MasterMedium(engine).write(0, data, 0, data.length), RESULT.OK);
  await engine.close();
  const old = readSuperblock(base).uuid;
  const store = new MemoryStore(base.sizeBytes, base);
  const { superblock } = await initStore(store);
  const chance = new Chance(SEED);
  const durable = new Durable(base.sizeBytes, base, store.events);
  const outcomes = new Set<string>();
  const wrong: string[] = [];
  const outcome = async (left: MemoryStore): Promise<string> => {
    let opened: Engine;
    try {
      opened = await Engine.open(left);
    } catch (error) {
      return `none: ${(error as { code?: string }).code ?? String(error)}`;
    }
    const shown = Buffer.alloc(BLOCK_BYTES);
    const result = new MasterMedium(opened).read(0, shown, 0, shown.length);
    opened.core.failure = new Error('killed');
    const which = opened.core.superblock.uuid.equals(old) ? 'old' : 'new';
    if (result !== RESULT.OK || shown[0] !== (which === 'old' ? 1 : 0)) return `${which}, with other data`;
    return which;
  };
  for (let moment = 0; moment <= store.events.length; moment++) {
    if (moment > 0) durable.follow(store.events[moment - 1]);
    for (let way = 0; way < WAYS; way++) {
      const left = survivors(durable.store, durable.unsynced(moment), chance, segments[0].halfA);
      const seen = await outcome(left);
      outcomes.add(seen);
      if (moment === store.events.length && seen !== 'new') wrong.push(`in the end: ${seen}`);
      // What is there for good once the wipe is durable: no old one.
      if (seen === 'old' && durable.store.find(0)?.every((byte) => byte === 0) === true)
        wrong.push(`event ${moment}: the old one is back`);
    }
  }
  t.same(wrong, []);
  t.same([...outcomes].sort(), ['new', 'none: DAMAGED', 'none: NOT_CLDD', 'old']);
  t.ok(SUPERBLOCK_OFFSETS.every((at) => store.find(at / BLOCK_BYTES)?.includes(superblock.uuid) === true));
});
