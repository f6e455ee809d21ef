/** Reads, writes and unmaps of any range: any alignment, over runs, map pages and segments, against plain arrays. */
import t from 'tap';
import { Engine } from '../../src/cow/engine.js';
import { PAGE_COVERS_BYTES } from '../../src/cow/format.js';
import { growEngine } from '../../src/cow/grow.js';
import { MasterMedium, SlaveMedium } from '../../src/cow/mediums.js';
import { RESULT } from '../../src/cow/results.js';
import { BLOCK_BYTES, FIRST_DIVERGED, LOCATION_OF_BASE, LOCATION_OF_MASTER } from '../../src/cow/states.js';
import type { MemoryStore } from './stores.js';
import { blankStore, Chance } from './stores.js';

const MIB = 2 ** 20;
const SECTOR_BYTES = 512;
const BLOCK_SECTORS = BLOCK_BYTES / SECTOR_BYTES;
const SEED = 1;

/** 28 MiB of master in a first segment, and as much and more in a second one, of two map pages. */
async function opened(): Promise<{ engine: Engine; store: MemoryStore; border: number }> {
  const store = await blankStore(60 * MIB);
  const engine = await Engine.open(store);
  const border = engine.core.capacityBytes;
  store.sizeBytes = 160 * MIB;
  await growEngine(engine);
  return { engine, store, border };
}

/** Reads at once and through the pool; the numbers of the sectors, and how many reads it took. */
async function readBoth(
  engine: Engine,
  side: MasterMedium | SlaveMedium,
  position: number,
  length: number,
): Promise<{ sectors: number[]; reads: number; bytes: number }[]> {
  const { counters } = engine.core;
  const answers = [];
  for (const pooled of [false, true]) {
    const before = counters.dataReads;
    // What lies before and behind it in the buffer is the caller's.
    const buffer = Buffer.alloc(length + 2 * SECTOR_BYTES, 0xee);
    const result = pooled
      ? await new Promise((resolve) => side.readAsync(position, buffer, SECTOR_BYTES, length, resolve))
      : side.read(position, buffer, SECTOR_BYTES, length);
    if (result !== RESULT.OK) throw new Error(`a read ended with ${String(result)}`);
    const edges = [buffer.subarray(0, SECTOR_BYTES), buffer.subarray(SECTOR_BYTES + length)];
    if (!edges.every((edge) => edge.every((byte) => byte === 0xee))) throw new Error('too much was read');
    answers.push({
      sectors: Array.from({ length: length / SECTOR_BYTES }, (_, sector) =>
        buffer.readUInt32LE((1 + sector) * SECTOR_BYTES),
      ),
      reads: counters.dataReads - before,
      bytes: engine.reader.bytesRead,
    });
  }
  return answers;
}

/** Fills a block of a half: each sector says which it is. */
function fill(store: MemoryStore, at: number, first: number): void {
  const block = Buffer.alloc(BLOCK_BYTES);
  for (let sector = 0; sector < BLOCK_SECTORS; sector++)
    block.writeUInt32LE(first + sector, sector * SECTOR_BYTES);
  store.apply(at, block);
}

const isSame = (some: readonly unknown[], others: readonly unknown[]): boolean =>
  some.length === others.length && some.every((one, index) => one === others[index]);

const IN_B = 1 << 24;

/** Gives the blocks of the master from a position on these states, and both their places their own content. */
function arrange(engine: Engine, store: MemoryStore, position: number, states: readonly number[]): void {
  states.forEach((state, index) => {
    const at = position + index * BLOCK_BYTES;
    const segment = engine.core.segmentAt(at);
    const inSegment = at - segment.masterOffset;
    const page = engine.map.forced(segment.firstPage + Math.floor(inSegment / PAGE_COVERS_BYTES));
    page.states[(inSegment % PAGE_COVERS_BYTES) / BLOCK_BYTES] = state;
    const number = at / SECTOR_BYTES;
    fill(store, segment.halfA + inSegment, 1 + number);
    fill(store, segment.halfB + inSegment, 1 + number + IN_B);
  });
}

/** What the sectors of a range have to show. */
function expected(table: Uint8Array, base: number, states: readonly number[], from: number, end: number) {
  return Array.from({ length: (end - from) / SECTOR_BYTES }, (_, index) => {
    const at = from + index * SECTOR_BYTES;
    const location = table[states[Math.floor((at - base) / BLOCK_BYTES)]];
    return location === 0 ? 0 : 1 + at / SECTOR_BYTES + (location === 2 ? IN_B : 0);
  });
}

void t.test('A range of any states shows its own sectors, read at once or through the pool', async (t) => {
  const { engine, store, border } = await opened();
  await engine.enable();
  const chance = new Chance(SEED);
  const wrong: string[] = [];
  const sides = [
    [new MasterMedium(engine), LOCATION_OF_MASTER],
    [new SlaveMedium(engine), LOCATION_OF_BASE],
  ] as const;
  // In the midst of a page, over the border of two segments, and of two pages of the second one.
  for (const middle of [MIB, border, border + PAGE_COVERS_BYTES]) {
    for (let round = 0; round < 60; round++) {
      const blocks = 3 + chance.below(12);
      const base = middle - BLOCK_BYTES * chance.below(blocks + 1);
      const kinds = [
        [1, 2],
        [0, 1],
        [0, 2],
        [0, 1, 2],
        [1, 1, 1, 6],
        [3, 4, 5, 6, 7],
      ][chance.below(6)];
      const states = Array.from({ length: blocks }, () => kinds[chance.below(kinds.length)]);
      arrange(engine, store, base, states);
      const from = base + SECTOR_BYTES * chance.below(2 * BLOCK_SECTORS);
      const last = base + blocks * BLOCK_BYTES - SECTOR_BYTES * chance.below(BLOCK_SECTORS);
      for (const [side, table] of sides)
        for (const { sectors } of await readBoth(engine, side, from, last - from))
          if (!isSame(sectors, expected(table, base, states, from, last)))
            wrong.push(`${states.join('')}: ${from} to ${last}`);
    }
  }
  t.same(wrong, []);
});

void t.test('A range of many MiB of blocks that take turns shows its own sectors', async (t) => {
  const { engine, store } = await opened();
  const blocks = 700;
  const states = Array.from({ length: blocks }, (_, block) => [1, 2, 2, 0, 1][block % 5]);
  arrange(engine, store, 0, states);
  const [from, length] = [3 * SECTOR_BYTES, blocks * BLOCK_BYTES - 5 * SECTOR_BYTES];
  for (const { sectors, reads } of await readBoth(engine, new MasterMedium(engine), from, length)) {
    t.strictSame(sectors, expected(LOCATION_OF_MASTER, 0, states, from, from + length));
    t.ok(reads <= 2 * 3, `${reads} reads: two for each MiB`);
  }
});

void t.test('No more is read than the range has, but where halves that take turns are merged', async (t) => {
  const { engine, store } = await opened();
  const master = new MasterMedium(engine);
  for (const [states, reads, pooled, blocks] of [
    [[1, 1, 1, 1], 1, 1, 4],
    [[2, 2, 2, 2], 1, 1, 4],
    [[0, 0, 0, 0], 0, 0, 0],
    [[0, 1, 0, 0], 1, 1, 1],
    [[0, 0, 2, 0], 1, 1, 1],
    [[1, 1, 2, 2], 2, 2, 4],
    [[2, 1, 1, 0], 2, 2, 3],
    // Two runs are no more than a merge would be, and read nothing twice.
    [[1, 0, 0, 1], 2, 1, 2],
    [[1, 2, 1, 2], 2, 2, 6],
    [[0, 2, 1, 2], 2, 2, 4],
    [[1, 2, 0, 1], 2, 2, 5],
  ] as const) {
    arrange(engine, store, 0, states);
    const [atOnce, through] = await readBoth(engine, master, 0, 4 * BLOCK_BYTES);
    t.strictSame(
      [atOnce.reads, through.reads, atOnce.bytes / BLOCK_BYTES],
      [reads, pooled, blocks],
      states.join(''),
    );
  }
  // Only half A has anything, in more than two runs.
  arrange(engine, store, 0, [1, 0, 1, 0, 1, 0]);
  const [alone] = await readBoth(engine, master, 0, 6 * BLOCK_BYTES);
  t.equal(alone.bytes, 5 * BLOCK_BYTES);
  arrange(engine, store, 0, [2, 0, 2, 0, 2, 0]);
  const [other] = await readBoth(engine, master, 0, 6 * BLOCK_BYTES);
  t.equal(other.bytes, 5 * BLOCK_BYTES);
  // What lies behind the range, or a MiB further, makes no difference.
  arrange(engine, store, 0, [1, 2, 1, 2, 1]);
  const [merged] = await readBoth(engine, master, 0, 4 * BLOCK_BYTES);
  t.equal(merged.bytes, 6 * BLOCK_BYTES);
  arrange(engine, store, 0, [1, 0, 0, 1, 2, 1, 2]);
  const [short] = await readBoth(engine, master, 0, 4 * BLOCK_BYTES);
  t.same([short.reads, short.bytes], [2, 2 * BLOCK_BYTES]);
  arrange(engine, store, 0, [1, ...new Array<number>(254).fill(0), 1, 2, 1, 2]);
  const [long] = await readBoth(engine, master, 0, MIB + 3 * BLOCK_BYTES);
  t.ok(long.bytes < 10 * BLOCK_BYTES, `${long.bytes} bytes`);
  arrange(engine, store, 0, [1, 1, 1, 1]);
  const [{ bytes }] = await readBoth(engine, master, SECTOR_BYTES, 2 * BLOCK_BYTES);
  t.equal(bytes, 2 * BLOCK_BYTES, 'from sector to sector');
});

void t.test('Through the pool one run is asked for in the same turn, wherever it is', async (t) => {
  const { engine, store, border } = await opened();
  const master = new MasterMedium(engine);
  const { counters } = engine.core;
  for (const page of [0, border, border + PAGE_COVERS_BYTES])
    for (const location of [1, 2]) {
      const base = page + 4 * BLOCK_BYTES;
      arrange(engine, store, base, [0, location, location, 3 - location]);
      for (const [from, end, isOne] of [
        [BLOCK_BYTES, 3 * BLOCK_BYTES, true],
        [BLOCK_BYTES + SECTOR_BYTES, 3 * BLOCK_BYTES - SECTOR_BYTES, true],
        [BLOCK_BYTES - SECTOR_BYTES, 3 * BLOCK_BYTES, false],
        [BLOCK_BYTES, 3 * BLOCK_BYTES + SECTOR_BYTES, false],
      ] as const) {
        const before = counters.dataReads;
        const buffer = Buffer.alloc(end - from);
        const read = new Promise((resolve) =>
          master.readAsync(base + from, buffer, 0, buffer.length, resolve),
        );
        t.equal(counters.dataReads - before, isOne ? 1 : 0);
        t.equal(await read, RESULT.OK);
        const first = from < BLOCK_BYTES ? 0 : 1 + (base + from) / SECTOR_BYTES + (location === 2 ? IN_B : 0);
        t.equal(buffer.readUInt32LE(0), first);
      }
    }
});

void t.test(
  'A run that ends with its map page or its segment is one, and one over the border is none',
  async (t) => {
    const { engine, store, border } = await opened();
    const master = new MasterMedium(engine);
    const { counters } = engine.core;
    // What a map page says of blocks behind the end of its segment counts for nothing.
    const { states } = engine.map.forced(0);
    states.fill(1, border / BLOCK_BYTES);
    for (const end of [border, border + PAGE_COVERS_BYTES, master.capacityBytes]) {
      const over = end === master.capacityBytes ? 0 : 2;
      const base = end - 2 * BLOCK_BYTES;
      const around = [1, 1, 1, 1].slice(0, 2 + over);
      arrange(engine, store, base, around);
      for (const [length, isOne] of [
        [2 * BLOCK_BYTES, true],
        [(2 + over) * BLOCK_BYTES, over === 0],
      ] as const) {
        const before = counters.dataReads;
        const buffer = Buffer.alloc(length);
        const read = new Promise((resolve) => master.readAsync(base, buffer, 0, length, resolve));
        t.equal(counters.dataReads - before, isOne ? 1 : 0);
        t.equal(await read, RESULT.OK);
        const sectors = Array.from({ length: length / SECTOR_BYTES }, (_, sector) =>
          buffer.readUInt32LE(sector * SECTOR_BYTES),
        );
        t.ok(isSame(sectors, expected(LOCATION_OF_MASTER, base, around, base, base + length)));
      }
    }
  },
);

void t.test('Of the buffers of merges beside each other eight are kept for the next ones', async (t) => {
  const { engine, store } = await opened();
  const master = new MasterMedium(engine);
  arrange(engine, store, 0, [1, 2, 1, 2]);
  const alloc = Buffer.alloc.bind(Buffer);
  t.teardown(() => (Buffer.alloc = alloc));
  let made = 0;
  Buffer.alloc = (size: number, ...rest: [fill?: string | number, encoding?: BufferEncoding]) => {
    if (size === MIB) made++;
    return alloc(size, ...rest);
  };
  for (const [beside, expected] of [
    [10, 10],
    [10, 2],
    [8, 0],
    [1, 0],
  ]) {
    made = 0;
    await Promise.all(
      Array.from({ length: beside }, () => {
        const buffer = alloc(4 * BLOCK_BYTES);
        return new Promise((resolve) => master.readAsync(0, buffer, 0, buffer.length, resolve));
      }),
    );
    t.equal(made, expected, `${beside} beside each other`);
  }
  arrange(engine, store, 0, [1, 1, 0, 1]);
  made = 0;
  const buffers = Array.from({ length: 10 }, () => alloc(4 * BLOCK_BYTES));
  await Promise.all(
    buffers.map((buffer) => new Promise((resolve) => master.readAsync(0, buffer, 0, buffer.length, resolve))),
  );
  t.equal(made, 0, 'what lies in half A needs none');
});

/** Windows of the master that a history plays in. */
class Windows {
  readonly #places: number[];
  readonly #blocks: number;
  master: number[];
  slave: number[] | undefined;

  constructor(middles: readonly number[], blocks: number) {
    this.#blocks = blocks;
    this.#places = middles.map((middle) => middle - (blocks / 2) * BLOCK_BYTES);
    this.master = new Array<number>(this.sectors).fill(0);
  }

  get sectors(): number {
    return this.#places.length * this.#blocks * BLOCK_SECTORS;
  }

  /** A range within one window: where it is, and its first sector of all. */
  range(chance: Chance): { position: number; first: number; count: number } {
    const all = this.#blocks * BLOCK_SECTORS;
    const window = chance.below(this.#places.length);
    // Whole blocks as often as parts of them.
    const grain = chance.hits(0.5) ? BLOCK_SECTORS : 1;
    const from = grain * chance.below(all / grain);
    const count = grain * (1 + chance.below((all - from) / grain));
    return { position: this.#places[window] + from * SECTOR_BYTES, first: window * all + from, count };
  }

  shown(side: MasterMedium | SlaveMedium): number[] {
    return this.#places.flatMap((place) => {
      const bytes = Buffer.alloc(this.#blocks * BLOCK_BYTES);
      if (side.read(place, bytes, 0, bytes.length) !== RESULT.OK) throw new Error('a read failed');
      return Array.from({ length: bytes.length / SECTOR_BYTES }, (_, sector) =>
        bytes.readUInt32LE(sector * SECTOR_BYTES),
      );
    });
  }

  /** The blocks of the master that hold data, as `provisioning` tells. */
  mapped(side: MasterMedium): boolean[] {
    return this.#places.flatMap((place) => {
      const length = this.#blocks * BLOCK_BYTES;
      const blocks: boolean[] = [];
      while (blocks.length < this.#blocks) {
        const at = blocks.length * BLOCK_BYTES;
        const { mapped, lengthBytes } = side.provisioning(place + at, length - at);
        if (lengthBytes === 0 || lengthBytes % BLOCK_BYTES !== 0) throw new Error(`${lengthBytes} bytes`);
        const more = lengthBytes / BLOCK_BYTES;
        if (blocks.length > 0 && blocks[blocks.length - 1] === mapped) throw new Error('it could be longer');
        for (let block = 0; block < more; block++) blocks.push(mapped);
      }
      return blocks;
    });
  }
}

/** The blocks that the map says differ between master and slave. */
function diverged(engine: Engine): number {
  let count = 0;
  engine.map.forEachCached(({ states }) => {
    for (const state of states) if (state >= FIRST_DIVERGED) count++;
  });
  return count;
}

void t.test('Writes and unmaps of any range do what they say, and nothing beside', async (t) => {
  const { engine, border } = await opened();
  const [master, slave] = [new MasterMedium(engine), new SlaveMedium(engine)];
  const windows = new Windows([border, PAGE_COVERS_BYTES, border + PAGE_COVERS_BYTES], 10);
  const chance = new Chance(SEED);
  const wrong: string[] = [];
  /** Blocks that were written since they were unmapped as a whole. */
  const mapped = new Array<boolean>(windows.sectors / BLOCK_SECTORS).fill(false);
  for (let step = 1; step <= 400; step++) {
    if (step % 40 === 0) {
      if (windows.slave === undefined) {
        await engine.enable();
        windows.slave = [...windows.master];
      } else {
        await engine.disable();
        windows.slave = undefined;
      }
    }
    const { position, first, count } = windows.range(chance);
    const unmaps = chance.hits(0.4);
    const length = count * SECTOR_BYTES;
    if (unmaps) {
      while (master.unmap(position, length) === RESULT.PENDING)
        await new Promise<void>((resolve) => {
          if (master.prepareWrite(position, length, () => resolve()) !== RESULT.PENDING) resolve();
        });
    } else {
      const data = Buffer.alloc(length + SECTOR_BYTES);
      for (let sector = 0; sector < count; sector++)
        data.writeUInt32LE(step * 1000 + sector, (sector + 1) * SECTOR_BYTES);
      const result = await new Promise((resolve) =>
        master.writeAsync(position, data, SECTOR_BYTES, length, resolve),
      );
      if (result !== RESULT.OK) wrong.push(`the answer of step ${step}`);
    }
    for (let sector = 0; sector < count; sector++)
      windows.master[first + sector] = unmaps ? 0 : step * 1000 + sector;
    for (let block = 0; block < mapped.length; block++) {
      const [from, end] = [block * BLOCK_SECTORS, (block + 1) * BLOCK_SECTORS];
      if (!unmaps && first < end && first + count > from) mapped[block] = true;
      if (unmaps && first <= from && first + count >= end) mapped[block] = false;
    }
    const { slave: image } = windows;
    if (!isSame(windows.shown(master), windows.master)) wrong.push(`the master after step ${step}`);
    if (image !== undefined && !isSame(windows.shown(slave), image))
      wrong.push(`the slave after step ${step}`);
    if (!isSame(windows.mapped(master), mapped)) wrong.push(`what holds data after step ${step}`);
    if (engine.core.divergedBlocks !== diverged(engine)) wrong.push(`the count after step ${step}`);
  }
  t.same(wrong, []);
  t.equal(engine.core.failure, undefined);
});

void t.test('What lies together is one write; a part of a shared block is one of the whole', async (t) => {
  const { engine } = await opened();
  const master = new MasterMedium(engine);
  const { counters } = engine.core;
  const writes = (position: number, length: number): number[] => {
    const before = { ...counters };
    t.equal(master.write(position, Buffer.alloc(length, 1), 0, length), RESULT.OK);
    return [
      counters.dataWrites - before.dataWrites,
      counters.dataBytesWritten - before.dataBytesWritten,
      counters.firstOverwrites - before.firstOverwrites,
    ];
  };
  await engine.enable();
  t.same(writes(0, 64 * BLOCK_BYTES), [1, 64 * BLOCK_BYTES, 64]);
  t.same(writes(0, 64 * BLOCK_BYTES), [1, 64 * BLOCK_BYTES, 0], 'in place');
  await engine.disable();
  await engine.enable();
  t.same(writes(SECTOR_BYTES, SECTOR_BYTES), [1, BLOCK_BYTES, 1], 'merged with the rest');
  t.same(writes(SECTOR_BYTES, SECTOR_BYTES), [1, SECTOR_BYTES, 0], 'in place');
  t.equal(engine.core.divergedBlocks, 1);
  await engine.disable();
  await engine.enable();
  t.same(writes(0, 4 * BLOCK_BYTES), [2, 4 * BLOCK_BYTES, 4], 'the first one goes to the other half');
  t.equal(engine.core.divergedBlocks, 4);
});
