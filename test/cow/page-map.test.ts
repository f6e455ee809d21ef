/** The map pages in memory, and the bitmap of those on the disc: what comes in, what leaves, and which twin is believed. */
import t from 'tap';
import { readU64, seal, writeU64 } from '../../src/cow/bytes.js';
import { PAGE_BYTES, pageOffset, placeSegments } from '../../src/cow/format.js';
import type { PlacedSegment } from '../../src/cow/format.js';
import { initStore } from '../../src/cow/init.js';
import { MapPage } from '../../src/cow/map-page.js';
import { PageMap } from '../../src/cow/page-map.js';
import { readSuperblock } from '../../src/cow/recovery.js';
import { DROP } from '../../src/cow/states.js';
import { endEpoch } from '../../src/cow/superblock.js';
import type { Superblock } from '../../src/cow/superblock.js';
import { WrittenBitmap, bitmapOffset } from '../../src/cow/written-bitmap.js';
import type { StoreDone } from '../../src/cow/store.js';
import { WornStore } from './stores.js';

const MIB = 2 ** 20;
const MAX_PAGES = 4;

const EIO = Object.assign(new Error('EIO: injected'), { code: 'EIO' });

/** Gives the bytes of one place all the same when it can't be read. */
class DoubtfulStore extends WornStore {
  doubtful: number | undefined;

  override readSync(buffer: Uint8Array, offset: number, length: number, position: number): void {
    super.readSync(buffer, offset, length, position);
    if (position === this.doubtful) throw EIO;
  }

  override read(buffer: Uint8Array, offset: number, length: number, position: number, done: StoreDone): void {
    super.read(buffer, offset, length, position, (error) => done(position === this.doubtful ? EIO : error));
  }
}

interface Made {
  store: DoubtfulStore;
  superblock: Superblock;
  segments: PlacedSegment[];
  written: WrittenBitmap;
  map: PageMap;
}

/** Two segments of 16 pages each; so many pages from the first on are on the disc, each with its number in block 0. */
async function made(pages: number): Promise<Made> {
  const store = new DoubtfulStore(2048 * MIB);
  store.recording = false;
  await initStore(store);
  const superblock = readSuperblock(store);
  superblock.segments = [MIB, 1100 * MIB].map((deviceOffset) => ({
    deviceOffset,
    deviceBytes: 900 * MIB,
    blocks: 16 * 8192,
    generation: 0,
  }));
  const segments = placeSegments(superblock.segments);
  const written = new WrittenBitmap(superblock.uuid, segments);
  segments.forEach((_, index) => written.addEmpty(index));
  const map = new PageMap(store, superblock, segments, written, MAX_PAGES);
  const all = { store, superblock, segments, written, map };
  for (let number = 0; number < pages; number++) {
    const page = new MapPage(number, superblock.epoch);
    page.states[0] = 1 + (number % 2);
    page.marks[0] = number;
    for (const twin of [0, 1]) put(all, page, twin);
    written.set(number);
  }
  return all;
}

function put({ store, superblock, segments }: Made, page: MapPage, twin: number): void {
  const bytes = Buffer.alloc(PAGE_BYTES);
  page.encode(bytes, 0, superblock.uuid, 100);
  store.apply(placeOf(segments, page.number, twin), bytes);
}

const placeOf = (segments: PlacedSegment[], number: number, twin: number): number =>
  pageOffset(segments[number < 16 ? 0 : 1], number, twin);

function inMemory(map: PageMap): number[] {
  const numbers: number[] = [];
  map.forEachCached(({ number }) => numbers.push(number));
  return numbers.sort((one, other) => one - other);
}

void t.test('A page comes from its own place in its segment, by each of the ways', async (t) => {
  const { map } = await made(20);
  for (const number of [0, 15, 16, 19]) {
    for (const page of [map.forReading(number), await map.load(number), map.forced(number)])
      t.match(page, { number, dirty: false, firstTwin: 1 });
    t.equal(map.forReading(number).marks[0], number);
  }
  t.equal(map.repairedPages, 0);
  t.equal(map.maxPages, MAX_PAGES);
});

void t.test('The page that nobody used since the hand came by gives its place up', async (t) => {
  const { map } = await made(20);
  for (const number of [0, 1, 2, 3]) map.forReading(number);
  t.ok(map.hasRoom);
  map.forReading(4);
  t.same(inMemory(map), [1, 2, 3, 4], 'all were used: it is the first one');
  t.equal(map.cached(0), undefined);
  map.cached(1);
  map.forReading(5);
  t.same(inMemory(map), [1, 3, 4, 5], 'page 1 was used meanwhile');
  map.forReading(6);
  t.same(inMemory(map), [1, 4, 5, 6]);
  await map.load(16);
  t.same(inMemory(map), [4, 5, 6, 16], 'page 1 was passed by once, page 4 came in since');
  t.equal(map.forReading(16).marks[0], 16);
});

void t.test(
  'A page that is not settled stays; one that has no place then serves a look, no write',
  async (t) => {
    const { map } = await made(20);
    for (const number of [0, 1, 2, 3]) map.forReading(number);
    const pages = [0, 1, 2, 3].map((number) => map.forced(number));
    pages[0].dirty = true;
    pages[1].writing = true;
    t.ok(map.hasRoom);
    for (const number of [4, 5, 6]) map.forReading(number);
    t.same(inMemory(map).slice(0, 2), [0, 1]);
    t.equal(inMemory(map).length, MAX_PAGES);
    map.forEachCached((page) => (page.dirty = true));
    t.notOk(map.hasRoom);
    t.match(map.forReading(10), { number: 10 });
    t.equal(map.forReading(10).marks[0], 10);
    t.equal(map.cached(10), undefined);
    t.equal(map.forWriting(10), undefined, 'it has to be loaded');
    t.equal(map.forWriting(25), undefined, 'nor is there a place for a new one');
    t.ok(map.isBlank(25));
    t.same(
      [...map.dirtyPages()].map(({ number }) => number).sort((one, other) => one - other),
      inMemory(map),
    );
    // The replay of a journal takes what it needs.
    t.match(map.force(10), { number: 10, epoch: 0 });
    t.match(map.force(25), { number: 25, epoch: 0 });
    t.equal(inMemory(map).length, MAX_PAGES + 2);
    t.equal(map.force(25), map.cached(25));
    pages[0].dirty = false;
    t.ok(map.hasRoom);
    t.notOk([...map.dirtyPages()].some(({ number }) => number === 0));
  },
);

void t.test('There is room while there are fewer pages than may be, settled or not', async (t) => {
  const { map } = await made(20);
  for (const number of [0, 1, 2, 3]) {
    t.ok(map.hasRoom);
    map.forReading(number);
    map.forced(number).dirty = true;
  }
  t.notOk(map.hasRoom);
});

void t.test(
  'A page of which nothing is on the disc is all holes, and takes no place until it is written',
  async (t) => {
    const { map } = await made(2);
    t.notOk(map.isBlank(0));
    t.ok(map.isBlank(2));
    for (const page of [map.forReading(2), await map.load(2)]) {
      t.equal(page.number, -1, 'it stands for no page');
      t.ok(page.states.every((state) => state === 0));
    }
    t.same(inMemory(map), []);
    const page = map.forWriting(2);
    t.match(page, { number: 2, epoch: 0, dirty: false });
    t.same(inMemory(map), [2]);
    t.notOk(map.isBlank(2));
    t.equal(map.forWriting(0), undefined, 'what is on the disc has to be loaded first');
    t.equal(map.forWriting(2), page);
  },
);

void t.test('A page of this epoch comes in, and is found again, as it is', async (t) => {
  const all = await made(2);
  const { map } = all;
  const page = new MapPage(1, 0);
  page.states.set([3, 4, 5, 6, 7]);
  put(all, page, 0);
  const first = map.forReading(1);
  first.states[5] = 6;
  for (const again of [
    map.forReading(1),
    await map.load(1),
    map.cached(1),
    map.forced(1),
    map.forWriting(1),
  ]) {
    t.equal(again, first);
    t.same([...first.states.subarray(0, 6)], [3, 4, 5, 6, 7, 6]);
  }
});

void t.test('A page of an older epoch comes in as that epoch left it', async (t) => {
  for (const way of ['forReading', 'load', 'forced', 'cached'] as const) {
    const all = await made(2);
    const { map, superblock } = all;
    const page = new MapPage(1, 0);
    page.states[0] = 4;
    put(all, page, 0);
    if (way === 'cached') t.equal(map.forReading(1).states[0], 4);
    endEpoch(superblock, DROP);
    t.match(await map[way](1), { epoch: 1, states: { 0: 1 } }, way);
  }
  const all = await made(2);
  endEpoch(all.superblock, DROP);
  t.match(all.map.force(1), { epoch: 0 }, 'but for the replay');
  t.match(all.map.forWriting(5), { epoch: 1 }, 'a new one is of this epoch');
});

void t.test(
  'A twin that is not whole, or can not be read, is saved by the other one, and written again',
  async (t) => {
    for (const damage of ['zeros', 'spoilt', 'doubtful'] as const)
      for (const way of ['forReading', 'load', 'force'] as const) {
        const { map, store, segments } = await made(20);
        const place = placeOf(segments, 17, 0);
        if (damage === 'zeros') store.apply(place, Buffer.alloc(PAGE_BYTES));
        else if (damage === 'spoilt') store.spoil(place, PAGE_BYTES);
        else store.doubtful = place;
        const page = await map[way](17);
        // The first twin is the one to be written over first.
        t.match(page, { number: 17, dirty: true, firstTwin: 0 }, `${way}, ${damage}`);
        t.equal(page.marks[0], 17);
        t.equal(map.repairedPages, 1);
      }
  },
);

void t.test('What a damaged page is refused with', async (t) => {
  const all = await made(20);
  const { map, store, segments, superblock } = all;
  for (const twin of [0, 1]) store.apply(placeOf(segments, 3, twin), Buffer.alloc(PAGE_BYTES));
  const unreadable = {
    code: 'DAMAGED_MAP',
    message: /^map page 3 is unreadable in both twins; 'cldd check'/,
  };
  t.throws(() => map.forReading(3), unreadable);
  await t.rejects(map.load(3), unreadable);
  for (const twin of [0, 1]) store.spoil(placeOf(segments, 4, twin), PAGE_BYTES);
  const worn = { code: 'DAMAGED_MAP', message: "map page 4 can't be read", cause: { code: 'EIO' } };
  t.throws(() => map.forReading(4), worn);
  await t.rejects(map.load(4), worn);
  superblock.epoch = 7;
  superblock.historyBase = 5;
  for (const [number, epoch] of [
    [5, 4],
    [6, 5],
    [7, 7],
    [8, 8],
  ])
    put(all, new MapPage(number, epoch), 0);
  t.throws(() => map.forReading(5), {
    code: 'DAMAGED_MAP',
    message: "map page 5 is older than the superblock's history",
  });
  t.match(map.forReading(6), { epoch: 7 });
  t.match(map.forReading(7), { epoch: 7 });
  t.throws(() => map.forReading(8), {
    code: 'DAMAGED_MAP',
    message: 'map page 8 is newer than the superblock',
  });
  t.same(inMemory(map), [6, 7]);
});

void t.test('The pages of a further segment have places once it is taken in', async (t) => {
  const { map, segments, written, superblock } = await made(1);
  superblock.segments.push({ deviceOffset: 2000 * MIB, deviceBytes: 0, blocks: 1, generation: 0 });
  segments.push(...placeSegments(superblock.segments).slice(2));
  written.addEmpty(2);
  map.extend(segments[2].pages);
  t.ok(map.isBlank(32));
  t.match(map.forWriting(32), { number: 32 });
});

/** A written bitmap of two segments, the second one of 32,257 pages and so of two blocks; on the disc. */
async function bitmap(): Promise<{ store: WornStore; segments: PlacedSegment[]; uuid: Buffer }> {
  const store = new WornStore(64 * MIB);
  store.recording = false;
  await initStore(store);
  const segments = placeSegments([
    { deviceOffset: 2 * MIB, deviceBytes: MIB, blocks: 16 * 8192, generation: 0 },
    { deviceOffset: 4 * MIB, deviceBytes: MIB, blocks: 32_257 * 8192, generation: 0 },
  ]);
  const uuid = Buffer.alloc(16, 0x11);
  const written = new WrittenBitmap(uuid, segments);
  t.notOk(written.isDirty);
  for (const index of [0, 1]) written.addEmpty(index);
  t.ok(written.isDirty);
  for (const page of [0, 9, 15, 16 + 1, 16 + 32_255, 16 + 32_256]) written.set(page);
  write(store, written);
  return { store, segments, uuid };
}

/** Writes what is dirty; answers the places in the order in which they were. */
function write(store: WornStore, written: WrittenBitmap): number[] {
  const taken = written.takeDirty();
  for (const { bytes, positions } of taken) for (const at of positions) store.apply(at, bytes);
  return taken.flatMap(({ positions }) => positions);
}

const PAGES = [0, 9, 15, 17, 16 + 32_255, 16 + 32_256];

const pagesOf = (written: WrittenBitmap): number[] =>
  [...Array(16 + 32_257).keys()].filter((page) => written.has(page));

void t.test('The written bitmap has a bit for each page, in blocks that name their place', async (t) => {
  const { store, segments, uuid } = await bitmap();
  for (const twin of [0, 1])
    for (const [segment, index, bytes] of [
      [0, 0, { 64: 0b0000_0001, 65: 0b1000_0010 }],
      [1, 0, { 64: 0b0000_0010, 4095: 0b1000_0000 }],
      [1, 1, { 64: 0b0000_0001 }],
    ] as const) {
      const block = Buffer.alloc(4096);
      store.readSync(block, 0, 4096, bitmapOffset(segments[segment], index, twin));
      t.equal(block.toString('latin1', 0, 8), 'CLDDBITS');
      t.equal(block.readUInt32LE(12), index);
      t.equal(readU64(block, 32), 1);
      t.equal(block.readUInt32LE(40), segment);
      const bits = Object.entries(bytes);
      for (const [at, value] of bits) t.equal(block[Number(at)], value, `byte ${at}`);
      t.equal(block.subarray(64).filter((byte) => byte !== 0).length, bits.length);
    }
  const read = new WrittenBitmap(uuid, segments);
  read.read(store);
  t.notOk(read.isDirty);
  t.same(pagesOf(read), PAGES);
  t.same(write(store, read), []);
});

void t.test('Of two twins of a bitmap block the newer one is believed, and written over last', async (t) => {
  for (const newer of [0, 1]) {
    const { store, segments, uuid } = await bitmap();
    const places = [0, 1].map((twin) => bitmapOffset(segments[1], 1, twin));
    const block = Buffer.alloc(4096);
    store.readSync(block, 0, 4096, places[newer]);
    block[64] = 0;
    writeU64(block, 32, 2);
    seal(block, 'CLDDBITS', uuid);
    store.apply(places[newer], block);
    const read = new WrittenBitmap(uuid, segments);
    read.read(store);
    t.ok(read.isDirty, 'they differ');
    t.same(pagesOf(read), PAGES.slice(0, -1));
    t.same(write(store, read), newer === 0 ? [places[1], places[0]] : places);
    t.notOk(read.isDirty);
    store.readSync(block, 0, 4096, places[0]);
    t.equal(readU64(block, 32), 3, 'newer than both');
    read.set(16 + 32_256);
    t.same(write(store, read), places, 'then both are whole: in their order');
    t.same(pagesOf(read), PAGES);
  }
});

void t.test('A twin that is not this block, whole, is written again from the other one', async (t) => {
  const edits: readonly ((block: Buffer) => void)[] = [
    (block) => block.fill(0),
    (block) => void block.writeUInt32LE(0, 12),
    (block) => void block.writeUInt32LE(0, 40),
  ];
  for (const edit of edits)
    for (const twin of [0, 1]) {
      const { store, segments, uuid } = await bitmap();
      const places = [0, 1].map((copy) => bitmapOffset(segments[1], 1, copy));
      const block = Buffer.alloc(4096);
      store.readSync(block, 0, 4096, places[twin]);
      writeU64(block, 32, 9);
      edit(block);
      if (block[0] !== 0) seal(block, 'CLDDBITS', uuid);
      store.apply(places[twin], block);
      const read = new WrittenBitmap(uuid, segments);
      read.read(store);
      t.same(pagesOf(read), PAGES);
      t.same(write(store, read), twin === 0 ? places : [places[1], places[0]], 'the bad one first');
    }
});

void t.test('A bitmap block without a whole twin is told, by its place', async (t) => {
  const { store, segments, uuid } = await bitmap();
  for (const twin of [0, 1]) store.apply(bitmapOffset(segments[1], 1, twin), Buffer.alloc(4096));
  t.throws(() => new WrittenBitmap(uuid, segments).read(store), {
    code: 'DAMAGED',
    message:
      "block 1 of segment 1's written bitmap is unreadable in both twins; restore the partition from a backup",
  });
});
