/** When a write may go ahead, and what it notes: the extents that have to be listed before, states, marks and counters. */
import t from 'tap';
import { Engine } from '../../src/cow/engine.js';
import { EXTENT_BLOCKS, PAGE_COVERS_BYTES, UNIT_BLOCKS } from '../../src/cow/format.js';
import { growEngine } from '../../src/cow/grow.js';
import { RESULT } from '../../src/cow/results.js';
import { BLOCK_BYTES } from '../../src/cow/states.js';
import type { Step } from '../../src/cow/steps.js';
import type { MemoryStore } from './stores.js';
import { blankStore } from './stores.js';

const MIB = 2 ** 20;
const SECTOR_BYTES = 512;

/** Two segments: 28 MiB of master, and two map pages more. In generation 1, with the slave disabled again. */
async function opened(without?: Step): Promise<{ engine: Engine; store: MemoryStore; border: number }> {
  const store = await blankStore(60 * MIB);
  const engine = await Engine.open(store, { steps: (step) => step !== without, unsyncedBytesMax: 4 * MIB });
  const border = engine.core.capacityBytes;
  store.sizeBytes = 160 * MIB;
  await growEngine(engine);
  await engine.enable();
  await engine.disable();
  return { engine, store, border };
}

const put = ({ writer }: Engine, position: number, length: number): number =>
  writer.write(position, Buffer.alloc(length, 7), 0, length);

void t.test('Extents are listed where data lie whose mark is not current and durable', async (t) => {
  const { engine } = await opened();
  const { writer } = engine;
  const page = engine.map.forced(0);
  const at = (extent: number, block: number): number => extent * EXTENT_BLOCKS + block;
  const blocks = [at(0, 0), at(1, 5), at(3, 1023), at(6, 0), at(7, 1023)];
  for (const block of blocks) page.states[block] = 1;
  const wanted = (from: number, end: number): number =>
    writer.extentsToActivate(page, from * BLOCK_BYTES, end * BLOCK_BYTES);
  const all = 0b1100_1011;
  t.equal(wanted(0, 8192), all);
  t.equal(writer.extentsToActivate(page, 0, PAGE_COVERS_BYTES, true), all, 'for an unmap, too');
  for (const [from, end, extents] of [
    [0, 1, 0b1],
    [1, 1024, 0],
    [1, at(1, 5), 0],
    [1, at(1, 6), 0b10],
    [at(1, 5), at(1, 6), 0b10],
    [at(1, 6), at(3, 1023), 0],
    [at(2, 0), at(4, 0), 0b1000],
    [at(3, 1023), at(6, 1), 0b100_1000],
    [at(6, 0), at(6, 1), 0b100_0000],
    [at(6, 1), at(7, 1023), 0],
    [at(7, 1023), 8192, 0b1000_0000],
  ])
    t.equal(wanted(from, end), extents, `${from} to ${end}`);
  const part = at(1, 5) * BLOCK_BYTES;
  t.equal(writer.extentsToActivate(page, part - SECTOR_BYTES, part), 0);
  t.equal(writer.extentsToActivate(page, part - SECTOR_BYTES, part + 1), 0b10, 'a byte of a block is enough');
  page.active = 0b0000_1001;
  t.equal(wanted(0, 8192), 0b1100_0010, 'what is listed already');
  page.active = 0;
  const mark = Math.floor(at(1, 5) / UNIT_BLOCKS);
  page.marks[mark] = engine.core.superblock.generation;
  t.equal(wanted(0, 8192), 0b1100_1001, 'a mark that is current');
  page.dirty = true;
  t.equal(wanted(0, 8192), all, 'and may be in memory only');
  page.dirty = false;
  page.states[at(1, 6)] = 2;
  page.states[at(1, 6 + UNIT_BLOCKS)] = 2;
  t.equal(wanted(0, 8192), all, 'another unit of the extent');
  page.states.fill(0);
  t.equal(wanted(0, 8192), 0, 'holes need none');
});

void t.test('Steps that are left out list nothing, for unmaps or at all', async (t) => {
  const range = [0, PAGE_COVERS_BYTES] as const;
  for (const [step, writes, unmaps] of [
    ['activity: list extents before writing in place', 0, 0],
    ['activity: unmaps too', 1, 0],
    [undefined, 1, 1],
  ] as const) {
    const { engine } = await opened(step);
    const page = engine.map.forced(0);
    page.states[0] = 1;
    t.equal(engine.writer.extentsToActivate(page, ...range), writes);
    t.equal(engine.writer.extentsToActivate(page, ...range, true), unmaps);
  }
});

void t.test('A write is admitted when nothing is in its way', async (t) => {
  const { engine, border } = await opened();
  const { writer, core, map } = engine;
  t.equal(writer.admit(0, BLOCK_BYTES), RESULT.OK);
  writer.held = true;
  t.equal(writer.admit(0, BLOCK_BYTES), RESULT.PENDING, 'a transition');
  writer.held = false;
  core.pacing.wrote(0, 4 * MIB);
  t.equal(writer.admit(0, BLOCK_BYTES), RESULT.PENDING, 'too much that is not synced');
  await core.sync();
  t.equal(writer.admit(0, BLOCK_BYTES), RESULT.OK);
  Object.defineProperty(engine.committer, 'hasRoom', { value: false, configurable: true });
  t.equal(writer.admit(0, BLOCK_BYTES), RESULT.PENDING, 'a full journal');
  Reflect.deleteProperty(engine.committer, 'hasRoom');
  // Each page of the range counts, and each segment.
  const range = [border - BLOCK_BYTES, PAGE_COVERS_BYTES + 2 * BLOCK_BYTES] as const;
  t.equal(writer.admit(...range), RESULT.OK);
  for (const [number, block] of [
    [0, border / BLOCK_BYTES - 1],
    [1, 0],
    [1, 8191],
    [2, 0],
  ]) {
    const page = map.forced(number);
    page.states[block] = 1;
    t.equal(writer.admit(...range), RESULT.PENDING, `block ${block} of page ${number} has to be listed`);
    page.states[block] = 0;
    page.states[block === 0 ? 1 : block - 1] = number === 1 ? 0 : 1;
    t.equal(writer.admit(...range), RESULT.OK, 'one beside the range has not');
    page.states.fill(0);
  }
  map.forced(0).states[0] = 1;
  t.equal(writer.admit(0, BLOCK_BYTES), RESULT.PENDING);
  await engine.enable();
  t.equal(writer.admit(0, BLOCK_BYTES), RESULT.OK, 'nor anything while the slave is enabled');
  core.fail(new Error('EIO: injected'));
  writer.held = true;
  t.equal(writer.admit(0, BLOCK_BYTES), RESULT.FAILED);
});

void t.test('An unmap leaves alone what was never written; a write takes a page in', async (t) => {
  const { engine, store, border } = await opened();
  const { writer, map } = engine;
  t.equal(writer.admit(border, PAGE_COVERS_BYTES + MIB, true), RESULT.OK);
  t.ok(map.isBlank(1) && map.isBlank(2));
  t.equal(writer.unmap(border + SECTOR_BYTES, PAGE_COVERS_BYTES), RESULT.OK);
  t.ok(map.isBlank(1) && map.isBlank(2));
  t.equal(writer.admit(border, BLOCK_BYTES), RESULT.OK);
  t.notOk(map.isBlank(1));
  t.ok(map.isBlank(2));
  t.equal(put(engine, border, BLOCK_BYTES), RESULT.OK);
  await engine.close();
  const again = await Engine.open(store);
  for (const unmaps of [false, true])
    t.equal(
      again.writer.admit(border, BLOCK_BYTES, unmaps),
      RESULT.PENDING,
      'a page on the disc has to come in',
    );
  await again.map.load(1);
  t.equal(again.writer.admit(border, BLOCK_BYTES, true), RESULT.OK, 'its mark is current');
  again.core.superblock.generation++;
  t.equal(again.writer.admit(border, BLOCK_BYTES, true), RESULT.PENDING, 'and its extent to be listed');
  again.map.forced(1).active = 1;
  t.equal(again.writer.admit(border, BLOCK_BYTES, true), RESULT.OK);
});

void t.test('What changes is noted: the state once, the mark of its unit in each generation', async (t) => {
  const { engine } = await opened();
  const { core } = engine;
  const page = engine.map.forced(0);
  const unit = 3;
  const position = unit * UNIT_BLOCKS * BLOCK_BYTES;
  t.equal(put(engine, position, BLOCK_BYTES), RESULT.OK);
  t.same([...page.marks.subarray(2, 5)], [0, 1, 0]);
  t.equal(core.counters.firstOverwrites, 1);
  t.equal(core.counters.dataBytesWritten, BLOCK_BYTES);
  await engine.committer.checkpoint();
  t.equal(page.dirty, false);
  put(engine, position, BLOCK_BYTES);
  t.equal(page.dirty, false, 'in place, in the same generation');
  t.equal(core.counters.firstOverwrites, 1);
  core.superblock.generation = 2;
  put(engine, position + SECTOR_BYTES, SECTOR_BYTES);
  t.equal(page.marks[unit], 2);
  t.equal(page.dirty, true, 'in the next one');
  await engine.committer.checkpoint();
  core.superblock.generation = 3;
  t.equal(engine.writer.unmap(position, BLOCK_BYTES), RESULT.OK);
  t.equal(page.marks[unit], 3);
  t.equal(page.states[unit * UNIT_BLOCKS], 0);
  t.equal(core.counters.firstOverwrites, 1, 'an unmap is no overwrite');
  core.superblock.generation = 4;
  t.equal(engine.writer.unmap(position, BLOCK_BYTES), RESULT.OK);
  t.equal(page.marks[unit], 3, 'a hole stays as it is');
});

void t.test('Steps of a write that are left out leave that out, and nothing else', async (t) => {
  const marks = async (step?: Step): Promise<number[]> => {
    const { engine } = await opened(step);
    const page = engine.map.forced(0);
    put(engine, 0, BLOCK_BYTES);
    const written = page.marks[0];
    page.marks[0] = 0;
    engine.writer.unmap(0, BLOCK_BYTES);
    return [written, page.marks[0]];
  };
  t.same(await marks(), [1, 1]);
  t.same(await marks('write: mark the unit changed'), [0, 1]);
  t.same(await marks('unmap: mark the unit changed'), [1, 0]);
  for (const [step, state] of [
    [undefined, 4],
    ['write: leave the base alone', 1],
  ] as const) {
    const { engine } = await opened(step);
    put(engine, 0, BLOCK_BYTES);
    await engine.enable();
    put(engine, 0, BLOCK_BYTES);
    t.equal(engine.map.forced(0).states[0], state);
  }
});

void t.test('A whole block needs nothing of what it held, a part of one the rest', async (t) => {
  const { engine, store } = await opened();
  t.equal(put(engine, 0, 3 * BLOCK_BYTES), RESULT.OK);
  await engine.enable();
  const reads: number[] = [];
  store.readSync = (_buffer, _offset, _length, position) => {
    reads.push(position);
    throw new Error('EIO: injected');
  };
  t.equal(put(engine, 0, BLOCK_BYTES), RESULT.OK);
  t.equal(put(engine, BLOCK_BYTES, 2 * BLOCK_BYTES), RESULT.OK);
  t.same(reads, []);
  await engine.disable();
  await engine.enable();
  t.equal(put(engine, SECTOR_BYTES, SECTOR_BYTES), RESULT.READ_ERROR);
  t.same(reads, [engine.core.segments[0].halfB]);
  t.equal(engine.core.failure, undefined);
});

void t.test('What is written counts for pacing', async (t) => {
  const { engine } = await opened();
  await engine.enable();
  put(engine, 0, 4 * MIB - BLOCK_BYTES);
  t.notOk(engine.core.pacing.isFull);
  put(engine, 4 * MIB, BLOCK_BYTES);
  t.ok(engine.core.pacing.isFull);
});
