/** What lies where on a partition: docs/format.md, number by number. */
import t from 'tap';
import { isSealed, readU64, seal, uuidText, writeU64 } from '../../src/cow/bytes.js';
import * as format from '../../src/cow/format.js';
import { fitSegment, layoutHead, pageOffset, placeSegments } from '../../src/cow/format.js';
import { MapPage } from '../../src/cow/map-page.js';
import { DROP, FOLD } from '../../src/cow/states.js';
import {
  HISTORY_EPOCHS,
  decodeSuperblock,
  encodeSuperblock,
  endEpoch,
  transitionOf,
} from '../../src/cow/superblock.js';
import { bitmapOffset } from '../../src/cow/written-bitmap.js';
import { crc32c } from '../../src/crc32c.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const TIB = 1024 * GIB;
const BLOCK_BYTES = 4096;
const UUID = Buffer.from('00112233445566778899aabbccddeeff', 'hex');

void t.test(
  'A number of 64 bits is little-endian, and one that a double has not is above every bound',
  (t) => {
    const bytes = Buffer.alloc(24, 0xee);
    writeU64(bytes, 8, 0x1f_2233_4455_6677);
    t.equal(bytes.toString('hex'), `${'ee'.repeat(8)}7766554433221f00${'ee'.repeat(8)}`);
    t.equal(readU64(bytes, 8), 0x1f_2233_4455_6677);
    writeU64(bytes, 8, Number.MAX_SAFE_INTEGER);
    t.equal(readU64(bytes, 8), Number.MAX_SAFE_INTEGER);
    bytes.writeBigUInt64LE(2n ** 53n, 8);
    t.equal(readU64(bytes, 8), Infinity);
    t.end();
  },
);

void t.test('A structure is whole with its magic, its uuid and the checksum of all from byte 12 on', (t) => {
  const whole = Buffer.alloc(128, 0x5a);
  seal(whole, 'CLDDTEST', UUID, 100);
  t.equal(whole.toString('latin1', 0, 8), 'CLDDTEST');
  t.equal(whole.readUInt32LE(8), crc32c(whole, 12, 88));
  t.equal(whole.toString('hex', 16, 32), UUID.toString('hex'));
  t.ok(isSealed(whole, 'CLDDTEST', UUID, 100));
  t.ok(isSealed(whole, 'CLDDTEST', undefined, 100), 'whosesoever it is');
  t.notOk(isSealed(whole, 'CLDDPART', UUID, 100), 'another magic');
  t.notOk(isSealed(whole, 'CLDDTEST', Buffer.alloc(16), 100), 'another uuid');
  t.notOk(isSealed(whole, 'CLDDTEST', UUID), 'another length');
  for (const at of [12, 99]) {
    const damaged = Buffer.from(whole);
    damaged[at] ^= 1;
    t.notOk(isSealed(damaged, 'CLDDTEST', UUID, 100), `byte ${at}`);
  }
  whole[100] ^= 1;
  t.ok(isSealed(whole, 'CLDDTEST', UUID, 100), 'what lies behind it does not count');
  t.equal(uuidText(UUID), '00112233-4455-6677-8899-aabbccddeeff');
  t.end();
});

void t.test('The sizes of things are those of docs/format.md', (t) => {
  t.match(format, {
    FORMAT_VERSION: 2,
    SUPERBLOCK_BYTES: 4 * KIB,
    SUPERBLOCK_OFFSETS: [0, 64 * KIB, 128 * KIB, 192 * KIB],
    MIN_PARTITION_BYTES: 8 * MIB,
    MAX_SEGMENTS: 24,
    HEADER_BYTES: 64,
    PAGE_BLOCKS: 8192,
    PAGE_COVERS_BYTES: 32 * MIB,
    PAGE_UNITS: 512,
    UNIT_BLOCKS: 16,
    UNIT_BYTES: 64 * KIB,
    EXTENT_BLOCKS: 1024,
    EXTENT_UNITS: 64,
    PAGE_EXTENTS: 8,
    MARK_SPAN: 32_767,
    BITMAP_BLOCK_PAGES: 32_256,
    JOURNAL_BLOCK_RECORDS: 403,
    JOURNAL_RECORD_BYTES: 10,
    JOURNAL_BLOCKS_MAX: 2048,
    ACTIVITY_SLOTS: 4,
    ACTIVITY_ENTRY_BYTES: 12,
    STATE_TWIN_BYTES: 264 * KIB,
    STATE_VALUE_BYTES_MAX: 256 * KIB,
    KIB,
    MIB,
    GIB,
  });
  t.end();
});

void t.test('The head of a partition is as large as docs/format.md says', (t) => {
  // The places of a small one: superblocks, 4 slots of 4 KiB, 2 twins of 264 KiB, 2 rings of 16 blocks.
  t.same(layoutHead(8 * MIB), {
    activityOffset: 256 * KIB,
    activitySlotBytes: 4 * KIB,
    stateOffset: 272 * KIB,
    journalOffset: 800 * KIB,
    journalBlocks: 16,
    segmentOffset: 960 * KIB,
  });
  for (const [partitionBytes, journalBlocks, activitySlotBytes] of [
    [64 * MIB, 64, 4 * KIB],
    [1 * GIB, 1024, 4 * KIB],
    // The power of two that a 256th is nearest to, by its logarithm.
    [1.4 * GIB, 1024, 4 * KIB],
    [1.5 * GIB, 2048, 4 * KIB],
    [4 * GIB, 2048, 4 * KIB],
    // Room for four lists of each map page: 84 of them fill 4 KiB.
    [84 * 64 * MIB, 2048, 4 * KIB],
    [84 * 64 * MIB + BLOCK_BYTES, 2048, 8 * KIB],
    [40 * GIB, 2048, 32 * KIB],
    [64 * TIB, 2048, 64 * KIB],
  ]) {
    const head = layoutHead(partitionBytes);
    t.match(head, { journalBlocks, activitySlotBytes }, `${partitionBytes} bytes`);
    t.equal(head.stateOffset, 256 * KIB + 4 * activitySlotBytes);
    t.equal(head.journalOffset, head.stateOffset + 2 * 264 * KIB);
    const end = head.journalOffset + 2 * journalBlocks * BLOCK_BYTES;
    t.equal(head.segmentOffset, Math.ceil(end / (64 * KIB)) * 64 * KIB);
  }
  t.end();
});

void t.test('A segment ends within its room, and leaves less than an alignment of it unused', (t) => {
  for (let room = 136 * KIB; room < 200 * GIB; room = Math.ceil(room * 1.37) + 1234) {
    const deviceOffset = 960 * KIB;
    const segment = fitSegment(deviceOffset, deviceOffset + room, 7);
    if (segment === undefined) throw new Error(`none in ${room} bytes`);
    t.match(segment, { deviceOffset, generation: 7 });
    const [placed] = placeSegments([segment]);
    t.equal(placed.halfB + placed.masterBytes, deviceOffset + segment.deviceBytes);
    const unused = room - segment.deviceBytes;
    t.ok(unused >= 0 && unused < 64 * KIB + 2 * BLOCK_BYTES, `${unused} of ${room} bytes unused`);
  }
  // Both bitmaps and map pages take 16 KiB, and so 64 KiB; the smallest has a block in each half.
  t.match(fitSegment(0, 72 * KIB, 0), { blocks: 1, deviceBytes: 72 * KIB });
  for (const end of [72 * KIB - 1, 64 * KIB, 0, -BLOCK_BYTES]) t.equal(fitSegment(0, end, 0), undefined);
  t.match(fitSegment(0, 80 * KIB - 1, 0), { blocks: 1 });
  t.match(fitSegment(0, 80 * KIB, 0), { blocks: 2 });
  t.end();
});

void t.test('The parts of each segment lie behind each other, and the segments make up the master', (t) => {
  // 2^18 blocks are 32 pages, 32,257 pages are more than one block of the written bitmap has bits for.
  const [first, second] = placeSegments([
    { deviceOffset: MIB, deviceBytes: 5 * GIB, blocks: 2 ** 18, generation: 0 },
    { deviceOffset: 8 * GIB, deviceBytes: 3 * TIB, blocks: 32_256 * 8192 + 1, generation: 3 },
  ]);
  t.same(first, {
    deviceOffset: MIB,
    deviceBytes: 5 * GIB,
    blocks: 2 ** 18,
    generation: 0,
    masterOffset: 0,
    masterBytes: GIB,
    firstPage: 0,
    pages: 32,
    bitmapBlocks: 1,
    bitmapOffset: MIB,
    mapOffset: MIB + 8 * KIB,
    halfA: MIB + 320 * KIB,
    halfB: MIB + 320 * KIB + GIB,
  });
  const halfA = 8 * GIB + Math.ceil((4 * BLOCK_BYTES + 2 * 32_257 * BLOCK_BYTES) / (64 * KIB)) * 64 * KIB;
  const masterBytes = (32_256 * 8192 + 1) * BLOCK_BYTES;
  t.same(second, {
    deviceOffset: 8 * GIB,
    deviceBytes: 3 * TIB,
    blocks: 32_256 * 8192 + 1,
    generation: 3,
    masterOffset: GIB,
    masterBytes,
    firstPage: 32,
    pages: 32_257,
    bitmapBlocks: 2,
    bitmapOffset: 8 * GIB,
    mapOffset: 8 * GIB + 16 * KIB,
    halfA,
    halfB: halfA + masterBytes,
  });
  t.equal(pageOffset(second, 35, 0), 8 * GIB + 16 * KIB + 3 * BLOCK_BYTES);
  t.equal(pageOffset(second, 35, 1), 8 * GIB + 16 * KIB + (32_257 + 3) * BLOCK_BYTES);
  t.same(
    [0, 1].flatMap((twin) => [0, 1].map((index) => bitmapOffset(second, index, twin))),
    [0, 1, 2, 3].map((block) => 8 * GIB + block * BLOCK_BYTES),
  );
  t.end();
});

void t.test('A map page holds states and change marks, the first in the low bits', (t) => {
  const page = new MapPage(0x01020304, 0x0a0b0c0d);
  page.sequence = 0x1_0000_0002;
  page.states.set([1, 2, 3, 4, 5, 6, 7, 0]);
  page.states[8191] = 5;
  const generation = 100_000;
  const base = generation - 32_767;
  page.marks.set([generation, base + 1, base, base - 1, 0, base + 0x1234]);
  page.marks[511] = base + 0x4321;
  const out = Buffer.alloc(3 * BLOCK_BYTES, 0xff);
  page.encode(out, BLOCK_BYTES, UUID, generation);
  const bytes = out.subarray(BLOCK_BYTES, 2 * BLOCK_BYTES);
  t.ok(isSealed(bytes, 'CLDDMAP1', UUID));
  t.equal(bytes.readUInt32LE(12), 0x0a0b0c0d);
  t.equal(bytes.readUInt32LE(32), 0x01020304);
  t.equal(bytes.readUInt32LE(36), base);
  t.equal(readU64(bytes, 40), 0x1_0000_0002);
  t.ok(bytes.subarray(48, 64).equals(Buffer.alloc(16)));
  t.equal(bytes.readUIntLE(64, 3), 0o07654321);
  t.equal(bytes.readUIntLE(3133, 3), 0o50000000);
  const mark = (index: number): number => {
    const bit = index * 15;
    return ((bytes.readUIntLE(3136 + (bit >> 3), 3) >> (bit & 7)) & 0x7fff) >>> 0;
  };
  t.same([0, 1, 2, 3, 4, 5].map(mark), [32_767, 1, 0, 0, 0, 0x1234], 'older ones are as old as can be told');
  t.equal(bytes.readUInt16LE(4094) >> 1, 0x4321);
  t.ok(out.subarray(0, BLOCK_BYTES).every((byte) => byte === 0xff));
  t.ok(out.subarray(2 * BLOCK_BYTES).every((byte) => byte === 0xff));
  const again = MapPage.decode(bytes, UUID, 0x01020304);
  t.match(again, { number: 0x01020304, epoch: 0x0a0b0c0d, sequence: 0x1_0000_0002 });
  t.same(again?.states, page.states);
  t.same([...(again?.marks.subarray(0, 6) ?? [])], [generation, base + 1, base, base, base, base + 0x1234]);
  t.equal(again?.marks[511], base + 0x4321);
  t.equal(MapPage.decode(bytes, UUID, 5), undefined, 'of another number');
  t.equal(MapPage.decode(bytes, Buffer.alloc(16), 0x01020304), undefined, 'of another partition');
  t.end();
});

void t.test('A young partition tells the generation of every change', (t) => {
  const page = new MapPage(0, 0);
  for (let unit = 0; unit < 512; unit++) page.marks[unit] = (unit * 64) % 32_768;
  const bytes = Buffer.alloc(BLOCK_BYTES);
  page.encode(bytes, 0, UUID, 32_767);
  t.equal(bytes.readUInt32LE(36), 0);
  t.same(MapPage.decode(bytes, UUID, 0)?.marks, page.marks);
  t.end();
});

void t.test('When an epoch ends, diverged blocks become what the master had, or what the base was', (t) => {
  const states = [7, 6, 5, 4, 3, 2, 1, 0];
  const [kept, dropped] = [
    [0, 1, 0, 2, 1, 2, 1, 0],
    [2, 2, 1, 1, 0, 2, 1, 0],
  ];
  const after = (transition: typeof DROP | typeof FOLD, units?: number[]): number[][] => {
    const page = new MapPage(0, 3);
    const starts = [0, 16, 32];
    for (const from of starts) page.states.set(states, from);
    if (units === undefined) page.normalise(transition, 9);
    else page.normaliseUnits(transition, 9, units);
    t.equal(page.epoch, 9);
    return starts.map((from) => [...page.states.subarray(from, from + states.length)]);
  };
  t.same(after(FOLD), [kept, kept, kept]);
  t.same(after(DROP), [dropped, dropped, dropped]);
  t.same(after(DROP, [1]), [states, dropped, states], 'in the units named only');
  t.same(after(FOLD, [0, 2]), [kept, states, kept]);
  t.end();
});

const SUPERBLOCK = {
  uuid: UUID,
  sequence: 0x1_0000_0001,
  clean: true,
  enabled: false,
  journalBlocks: 1024,
  deviceBytes: 40 * GIB,
  activityOffset: 256 * KIB,
  activitySlotBytes: 8 * KIB,
  stateOffset: 512 * KIB,
  journalOffset: 2 * MIB,
  nextLsn: 0x1_0000_0003,
  tailLsn: 0x1_0000_0002,
  generation: 17,
  approximateGeneration: 16,
  enabledAt: 1_700_000_000_123,
  createdAt: 1_600_000_000_456,
  epoch: 20,
  historyBase: 5,
  divergedBlocks: 0x0123,
  history: Buffer.alloc(HISTORY_EPOCHS / 8),
  segments: [
    { deviceOffset: 16 * MIB, deviceBytes: 9 * GIB, blocks: 2 ** 20, generation: 0 },
    { deviceOffset: 20 * GIB, deviceBytes: 5 * GIB, blocks: 2 ** 19, generation: 11 },
  ],
};

void t.test('The fields of the superblock are where docs/format.md says', (t) => {
  const history = Buffer.alloc(HISTORY_EPOCHS / 8);
  history[0] = 0xa5;
  history[history.length - 1] = 0x5a;
  const superblock = { ...SUPERBLOCK, history };
  const bytes = encodeSuperblock(superblock);
  t.ok(isSealed(bytes, 'CLDDPART', UUID));
  for (const [at, value] of [
    [12, 2],
    [40, 1],
    [44, 1024],
    [64, 8 * KIB],
    [68, 2],
    [104, 17],
    [108, 16],
    [128, 20],
    [132, 5],
    [216, 0],
    [248, 11],
  ])
    t.equal(bytes.readUInt32LE(at), value, `the 4 bytes at ${at}`);
  for (const [at, value] of [
    [32, 0x1_0000_0001],
    [48, 40 * GIB],
    [56, 256 * KIB],
    [72, 512 * KIB],
    [80, 2 * MIB],
    [88, 0x1_0000_0003],
    [96, 0x1_0000_0002],
    [112, 1_700_000_000_123],
    [120, 1_600_000_000_456],
    [136, 0x0123],
    [192, 16 * MIB],
    [200, 9 * GIB],
    [208, 2 ** 20],
    [224, 20 * GIB],
    [232, 5 * GIB],
    [240, 2 ** 19],
  ])
    t.equal(readU64(bytes, at), value, `the 8 bytes at ${at}`);
  t.equal(bytes[1024], 0xa5);
  t.equal(bytes[4095], 0x5a);
  t.same(decodeSuperblock(bytes), superblock);
  for (const [clean, enabled, flags] of [
    [false, false, 0],
    [false, true, 2],
    [true, true, 3],
  ] as const) {
    const other = encodeSuperblock({ ...superblock, clean, enabled });
    t.equal(other.readUInt32LE(40), flags);
    t.match(decodeSuperblock(other), { clean, enabled });
  }
  t.end();
});

void t.test('The history has a bit for each epoch, the first in the low one: 0 for a disable', (t) => {
  const superblock = { ...SUPERBLOCK, history: Buffer.alloc(HISTORY_EPOCHS / 8, 0xff), epoch: 5 };
  const ends = [FOLD, DROP, DROP, FOLD, FOLD, FOLD, FOLD, FOLD, FOLD, DROP] as const;
  for (const transition of ends) endEpoch(superblock, transition);
  t.equal(superblock.epoch, 15);
  t.same([superblock.history[0], superblock.history[1]], [0b0000_0110, 0b1111_1110]);
  t.same(
    ends.map((_, index) => transitionOf(superblock, 5 + index)),
    ends,
  );
  t.equal(HISTORY_EPOCHS, 24_576);
  t.end();
});
