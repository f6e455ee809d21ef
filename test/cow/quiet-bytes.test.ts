/** The quiet check byte by byte: where it looks for file systems, and by what it takes them for mounted. */
import t from 'tap';
import { findMounted } from '../../src/cow/quiet.js';
import type { BusyFileSystem } from '../../src/cow/quiet.js';

const MIB = 2 ** 20;
const SECTOR_BYTES = 512;
const CAPACITY = 8 * MIB;
const GPT_ENTRY_BYTES = 128;

type Part = readonly [at: number, bytes: Buffer];

/** What it finds on a master with these bytes, of which it may read nothing that is not there. */
function quiet(parts: readonly Part[], sizeBytes = CAPACITY): BusyFileSystem[] {
  const image = Buffer.alloc(sizeBytes);
  for (const [at, part] of parts) part.copy(image, at);
  return findMounted((position, buffer) => {
    if (!(position >= 0 && position + buffer.length <= sizeBytes))
      throw new Error(`a read at ${position}, which is outside`);
    image.copy(buffer, 0, position);
  }, sizeBytes);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

/** A VFAT that was not unmounted. */
const fat = (at: number): Part[] => [
  [at + 82, Buffer.from('FAT32')],
  [at + 65, Buffer.of(1)],
];
const vfat = (...places: readonly number[]): BusyFileSystem[] =>
  places.map((offsetBytes) => ({ type: 'vfat', offsetBytes }));

interface GptEntry {
  readonly start: number;
  readonly startHigh?: number;
  readonly isUsed?: boolean;
}

/** A GPT with these entries. */
function gpt(
  entries: readonly GptEntry[],
  numbers: { sector?: number; table?: number; count?: number; entryBytes?: number } = {},
): Part[] {
  const { sector = SECTOR_BYTES, entryBytes = GPT_ENTRY_BYTES, count = entries.length } = numbers;
  const { table = 2 * sector } = numbers;
  return [
    [sector, Buffer.from('EFI PART')],
    [sector + 72, u32(table / sector)],
    [sector + 80, u32(count)],
    [sector + 84, u32(entryBytes)],
    ...entries.flatMap(({ start, startHigh = 0, isUsed = true }, index): Part[] => {
      const at = table + index * entryBytes;
      return [
        [at, Buffer.of(isUsed ? 1 : 0)],
        [at + 16, Buffer.of(1)],
        [at + 32, u32(start / sector)],
        [at + 36, u32(startHigh)],
      ];
    }),
  ];
}

void t.test('A mounted VFAT is found in GPT partitions, of sectors of both sizes', (t) => {
  for (const sector of [SECTOR_BYTES, 4096]) {
    const entries = [{ start: MIB }, { start: 0, isUsed: false }, { start: 4 * MIB }];
    const found = quiet([...gpt(entries, { sector }), ...fat(MIB), ...fat(4 * MIB)]);
    t.same(found, vfat(MIB, 4 * MIB));
    t.same(quiet([...gpt(entries, { sector }), [MIB + 82, Buffer.from('FAT32')]]), [], 'it was unmounted');
    t.same(quiet([...gpt(entries, { sector }), [MIB + 65, Buffer.of(1)]]), [], 'it is none');
  }
  t.end();
});

void t.test('A GPT entry counts if it is used and begins on the master', (t) => {
  for (const entry of [{ start: MIB, isUsed: false }, { start: MIB, startHigh: 1 }, { start: 2 ** 40 }])
    t.same(quiet([...gpt([entry]), ...fat(MIB)]), [], JSON.stringify(entry));
  const [last, later] = [CAPACITY - 65_536, CAPACITY - 65_536 + SECTOR_BYTES];
  t.same(
    quiet([...gpt([{ start: last }]), ...fat(last)]),
    vfat(last),
    'with the 64 KiB that the least one has',
  );
  t.same(quiet([...gpt([{ start: later }]), ...fat(later)]), [], 'with less');
  t.end();
});

void t.test('Of a GPT as many entries are looked at as it says, up to 256', (t) => {
  const blank = { start: 0, isUsed: false };
  const entries = (index: number): GptEntry[] => [...Array<GptEntry>(index).fill(blank), { start: MIB }];
  const found = (index: number, count?: number): BusyFileSystem[] =>
    quiet([...gpt(entries(index), count === undefined ? {} : { count }), ...fat(MIB)]);
  // Four of them fill a sector.
  for (const index of [0, 3, 4, 255]) t.same(found(index), vfat(MIB), `entry ${index}`);
  t.same(found(1, 1), []);
  t.same(found(256), []);
  t.end();
});

void t.test('A GPT table is one with entries of 128 bytes to 4 KiB, all of them on the master', (t) => {
  const one = [{ start: MIB }];
  for (const entryBytes of [128, 4096])
    t.same(quiet([...gpt(one, { entryBytes }), ...fat(MIB)]), vfat(MIB), `${entryBytes}`);
  for (const entryBytes of [64, 8192])
    t.same(quiet([...gpt(one, { entryBytes }), ...fat(MIB)]), [], `${entryBytes}`);
  const four = [...one, ...one, ...one, ...one];
  const fits = CAPACITY - four.length * GPT_ENTRY_BYTES;
  t.same(quiet([...gpt(four, { table: fits }), ...fat(MIB)]), vfat(MIB, MIB, MIB, MIB), 'at the very end');
  t.same(quiet([...gpt(four, { table: fits, count: 5 }), ...fat(MIB)]), [], 'over the end');
  t.end();
});

const entry = (at: number, type: number, start: number): Part[] => [
  [at + 4, Buffer.of(type)],
  [at + 8, u32(start / SECTOR_BYTES)],
];
const mark = (at: number): Part => [at + 510, Buffer.of(0x55, 0xaa)];
/** A table of logical partitions: one that begins `start` behind it, and the next table `next` behind the first one. */
const link = (at: number, start: number, next: number): Part[] => [
  mark(at),
  ...entry(at + 446, 0x83, start),
  ...entry(at + 462, 0x05, next),
];

void t.test('Logical MBR partitions are followed, by each type of an extended one', (t) => {
  for (const type of [0x05, 0x0f, 0x85]) {
    const table = [mark(0), ...entry(446, 0x83, 0), ...entry(462, type, MIB)];
    // Logical 1 begins 64 KiB behind its table; the next table lies 2 MiB behind the first one.
    const parts = [...table, ...link(MIB, 65_536, 2 * MIB), ...link(3 * MIB, 65_536, 0)];
    t.same(
      quiet([...parts, ...fat(MIB + 65_536), ...fat(3 * MIB + 65_536)]),
      vfat(MIB + 65_536, 3 * MIB + 65_536),
      `type ${type}`,
    );
  }
  t.end();
});

void t.test('Of an MBR the four entries count, if they have a type and a beginning, and it its mark', (t) => {
  for (const [index, at] of [446, 462, 478, 494].entries())
    t.same(quiet([mark(0), ...entry(at, 0x83, MIB), ...fat(MIB)]), vfat(MIB), `entry ${index}`);
  t.same(quiet([...entry(446, 0x83, MIB), ...fat(MIB)]), [], 'without its mark');
  t.same(quiet([mark(0), ...entry(446, 0, MIB), ...fat(MIB)]), [], 'without a type');
  t.same(quiet([mark(0), ...entry(510, 0x83, MIB), ...fat(MIB)]), [], 'behind the fourth');
  // A file system on the whole disc ends its first sector with the same mark.
  t.same(quiet([mark(0), ...entry(446, 0x83, 0), ...fat(0)]), vfat(0), 'one that begins at 0 is no other');
  t.end();
});

void t.test('The chain of logical partitions may lead nowhere, outside, or round', (t) => {
  const table = [mark(0), ...entry(446, 0x05, MIB)];
  t.same(quiet([...table, ...link(MIB, 65_536, 2 * MIB)]), [], 'no table where the next one should be');
  const without = link(3 * MIB, 65_536, 0).slice(1);
  t.same(
    quiet([...table, ...link(MIB, 65_536, 2 * MIB), ...without, ...fat(3 * MIB + 65_536)]),
    [],
    'one without its mark',
  );
  t.same(quiet([...table, ...link(MIB, 0, 0), ...fat(MIB)]), [], 'a logical one that begins at its table');
  // The next table in the last sector, and from there back.
  const last = CAPACITY - SECTOR_BYTES;
  t.same(
    quiet([
      ...table,
      ...link(MIB, 65_536, last - MIB),
      ...link(last, 0, 2 * MIB),
      ...link(3 * MIB, 65_536, 0),
      ...fat(3 * MIB + 65_536),
    ]),
    vfat(3 * MIB + 65_536),
    'over the last sector',
  );
  t.same(quiet([...table, ...link(MIB, 65_536, CAPACITY - MIB)]), [], 'behind the end');
  t.same(quiet([...table, ...link(MIB, 65_536, MIB), ...link(2 * MIB, 65_536, MIB)]), [], 'to itself');
  t.end();
});

void t.test('Of a chain of logical partitions 256 are looked at', (t) => {
  const parts: Part[] = [mark(0), ...entry(446, 0x05, MIB)];
  for (let index = 0; index < 257; index++) {
    const at = 2 * SECTOR_BYTES * index;
    const start = index < 255 ? SECTOR_BYTES : (3 + (index - 255)) * MIB - at;
    parts.push(...link(MIB + at, start, at + 2 * SECTOR_BYTES));
  }
  t.same(quiet([...parts, ...fat(4 * MIB), ...fat(5 * MIB)]), vfat(4 * MIB), 'the 256th, not the next one');
  t.end();
});

interface XfsNumbers {
  readonly blockBytes?: number;
  /** The log's first block: the bits above `groupBits` are the number of a group. */
  readonly logStart?: readonly [high: number, low: number];
  readonly logBlocks?: number;
  readonly groupBits?: number;
  readonly logPosition?: number;
}

/** Sectors of a log, each of a turn. */
function log(sectors: number, turnOf: (sector: number) => number = () => 7): Buffer {
  const bytes = Buffer.alloc(sectors * SECTOR_BYTES);
  for (let sector = 0; sector < sectors; sector++) bytes.writeUInt32BE(turnOf(sector), sector * SECTOR_BYTES);
  return bytes;
}

/** Makes a sector the head of a record, and the flags of its first operation what they are to be. */
function record(
  bytes: Buffer,
  sector: number,
  flags: number,
  { operations = 1, lengthBytes = 512 }: { operations?: number; lengthBytes?: number } = {},
): Buffer {
  const at = sector * SECTOR_BYTES;
  const turn = bytes.readUInt32BE(at);
  bytes.writeUInt32BE(0xfeedbabe, at);
  bytes.writeUInt32BE(turn, at + 4);
  bytes.writeUInt32BE(operations, at + 40);
  bytes.writeUInt32BE(lengthBytes, at + 320);
  const headers = Math.max(1, Math.ceil(lengthBytes / 32_768));
  bytes[(at + headers * SECTOR_BYTES + 9) % bytes.length] = flags;
  return bytes;
}

const UNMOUNT = 0x20;

/** An XFS with this log, which lies at 64 KiB unless the numbers say otherwise. */
function xfs(bytes: Buffer, numbers: XfsNumbers = {}): Part[] {
  const { blockBytes = 4096, groupBits = 8, logPosition = 65_536 } = numbers;
  const { logStart = [0, logPosition / blockBytes], logBlocks = bytes.length / blockBytes } = numbers;
  const head = Buffer.alloc(128);
  head.write('XFSB', 'latin1');
  head.writeUInt32BE(blockBytes, 4);
  head.writeUInt32BE(logStart[0], 48);
  head.writeUInt32BE(logStart[1], 52);
  head.writeUInt32BE(256, 84);
  head.writeUInt32BE(logBlocks, 96);
  head[124] = groupBits;
  return [
    [0, head],
    [logPosition, bytes],
  ];
}

const BUSY = [{ type: 'xfs', offsetBytes: 0 }];
const SECTORS = 32;

void t.test('An XFS whose log ends where it began is judged by its last record, if there is one', (t) => {
  // An ordinary one, or one of an unmount, is the first; the other one the last.
  const two = (last: number): Buffer => record(record(log(SECTORS), 0, UNMOUNT - last), 30, last);
  t.same(quiet(xfs(two(UNMOUNT))), [], 'it was unmounted');
  t.same(quiet(xfs(two(0))), BUSY, 'it was not');
  t.same(quiet(xfs(log(SECTORS))), BUSY, 'nothing says that it was');
  t.same(quiet(xfs(record(log(SECTORS), 0, UNMOUNT))), [], 'one record is enough, wherever it is');
  t.end();
});

void t.test('The last record of an XFS lies before the place where the turn of its log changes', (t) => {
  for (let head = 3; head < SECTORS; head++) {
    for (const unmounts of [true, false]) {
      const bytes = log(SECTORS, (sector) => (sector < head ? 8 : 7));
      const [last, others] = unmounts ? [UNMOUNT, 0] : [0, UNMOUNT];
      record(bytes, head - 2, last);
      if (head + 1 < SECTORS) record(bytes, head, others);
      if (head > 4) record(bytes, 0, others);
      t.same(quiet(xfs(bytes)), unmounts ? [] : BUSY, `at ${head}`);
    }
  }
  const round = (flags: number): Buffer =>
    record(
      log(SECTORS, (at) => (at === 0 ? 8 : 7)),
      SECTORS - 1,
      flags,
    );
  t.same(quiet(xfs(round(UNMOUNT))), [], 'a record that goes round the end');
  t.same(quiet(xfs(round(0))), BUSY);
  t.end();
});

void t.test('A record of an XFS that has other operations, or a second header, is no bare unmount', (t) => {
  t.same(quiet(xfs(record(log(SECTORS), 20, UNMOUNT, { operations: 2 }))), BUSY);
  t.same(quiet(xfs(record(log(SECTORS), 20, UNMOUNT, { lengthBytes: 0 }))), [], 'of the first version');
  for (const lengthBytes of [32_768, 32_769, 65_536]) {
    t.same(quiet(xfs(record(log(SECTORS), 20, UNMOUNT, { lengthBytes }))), [], `${lengthBytes}`);
    t.same(quiet(xfs(record(log(SECTORS), 20, 0, { lengthBytes }))), BUSY);
  }
  t.end();
});

void t.test('A record of an XFS is looked for in as much of the log as one can have, and no more', (t) => {
  for (const [back, found] of [
    [600, []],
    [601, BUSY],
  ] as const)
    t.same(quiet(xfs(record(log(800), 800 - back, UNMOUNT))), found, `${back} sectors before its head`);
  t.end();
});

void t.test('The log of an XFS is found in its group, of blocks of every size', (t) => {
  const bytes = log(SECTORS);
  const inGroup = 65_536 + 2 * 256 * 4096;
  t.same(quiet(xfs(bytes, { logPosition: inGroup, logStart: [0, 2 * 256 + 16] })), BUSY);
  const large: XfsNumbers = { groupBits: 31, logPosition: inGroup, logStart: [1, 16] };
  t.same(quiet(xfs(record(bytes, 0, UNMOUNT), large)), [], 'in one with a number of many bits');
  for (const blockBytes of [512, 65_536]) {
    const numbers: XfsNumbers = { blockBytes };
    const sectors = blockBytes === 512 ? 2 : 128;
    t.same(quiet(xfs(log(sectors), numbers)), BUSY, `${blockBytes}`);
    t.same(quiet(xfs(record(log(sectors), 0, UNMOUNT), numbers)), [], `${blockBytes}`);
  }
  t.end();
});

void t.test('A log of an XFS that lies elsewhere, or can be none, says nothing', (t) => {
  const cases: readonly [string, XfsNumbers][] = [
    ['on another device', { logStart: [0, 0] }],
    ['of no blocks', { logBlocks: 0 }],
    ['of blocks that are too many', { logBlocks: 2 ** 20 }],
    ['of blocks that are too small', { blockBytes: 256 }],
    ['of blocks that are too large', { blockBytes: 131_072, logPosition: 131_072, logBlocks: 1 }],
  ];
  for (const [what, numbers] of cases) t.same(quiet(xfs(log(SECTORS), numbers)), [], what);
  const logPosition = CAPACITY - SECTORS * SECTOR_BYTES;
  const numbers = { groupBits: 16, logPosition };
  t.same(quiet(xfs(log(SECTORS), numbers)), BUSY, 'at the very end it is one');
  t.same(quiet(xfs(log(SECTORS), { ...numbers, logBlocks: 5 })), [], 'over the end');
  t.end();
});
