/** Which superblocks under a right checksum are believed: each number at its bound, and one step beyond. */
import t from 'tap';
import { seal } from '../../src/cow/bytes.js';
import { HISTORY_EPOCHS, decodeSuperblock, encodeSuperblock } from '../../src/cow/superblock.js';
import type { Superblock } from '../../src/cow/superblock.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const SECTOR_BYTES = 512;
const BLOCK_BYTES = 4096;
/** Numbers that are read as no number (src/cow/bytes.ts). */
const ENDLESS = 2 ** 53;

/** A segment that fits its place exactly: 16 KiB of bitmap and map, rounded up, and two halves. */
const segment = (deviceOffset: number, blocks: number, generation = 0) => ({
  deviceOffset,
  deviceBytes: 64 * KIB + 2 * blocks * BLOCK_BYTES,
  blocks,
  generation,
});
const FIRST = segment(1024 * KIB, 100);
const SECOND = segment(FIRST.deviceOffset + FIRST.deviceBytes, 50, 5);

/** Everything lies as close together as it may. */
const TIGHT: Superblock = {
  uuid: Buffer.alloc(16, 7),
  sequence: 1,
  clean: true,
  enabled: false,
  deviceBytes: SECOND.deviceOffset + SECOND.deviceBytes,
  activityOffset: 196 * KIB,
  activitySlotBytes: SECTOR_BYTES,
  stateOffset: 198 * KIB,
  journalOffset: 726 * KIB,
  journalBlocks: 37,
  nextLsn: 9,
  tailLsn: 9,
  generation: 5,
  approximateGeneration: 5,
  enabledAt: 0,
  createdAt: 0,
  divergedBlocks: 150,
  epoch: 3,
  historyBase: 3,
  history: Buffer.alloc(HISTORY_EPOCHS / 8),
  segments: [FIRST, SECOND],
};

const decoded = (change: Partial<Superblock>): Superblock | string | undefined =>
  decodeSuperblock(encodeSuperblock({ ...TIGHT, ...change }));

/** What is believed, and what is not, with the words for it. */
const BOUNDS: readonly [good: Partial<Superblock>, bad: readonly Partial<Superblock>[], words: string][] = [
  [{ journalBlocks: 1 }, [{ journalBlocks: 0 }], 'it names a journal of 0 blocks'],
  [
    { journalBlocks: 2048, segments: [segment(32 * MIB, 100)], deviceBytes: 64 * MIB, divergedBlocks: 0 },
    [{ journalBlocks: 2049, segments: [segment(32 * MIB, 100)], deviceBytes: 64 * MIB }],
    'it names a journal of 2049 blocks',
  ],
  [{}, [{ activitySlotBytes: 0 }], 'it names an activity log of 0 bytes a slot'],
  [{}, [{ activitySlotBytes: 511 }], 'it names an activity log of 511 bytes a slot'],
  [{}, [{ activitySlotBytes: 520 }], 'it names an activity log of 520 bytes a slot'],
  [
    {
      activitySlotBytes: 64 * KIB,
      stateOffset: MIB,
      journalOffset: 2 * MIB,
      segments: [segment(4 * MIB, 100)],
      deviceBytes: 8 * MIB,
      divergedBlocks: 0,
    },
    [{ activitySlotBytes: 64 * KIB + SECTOR_BYTES }],
    'it names an activity log of 66048 bytes a slot',
  ],
  [
    { journalBlocks: 37 },
    [
      { activityOffset: TIGHT.activityOffset - SECTOR_BYTES },
      { stateOffset: TIGHT.stateOffset - SECTOR_BYTES },
      { journalOffset: TIGHT.journalOffset - SECTOR_BYTES },
      { journalBlocks: 38 },
      // Without an overlap, but in no sector's place.
      { activityOffset: TIGHT.activityOffset + 1, stateOffset: MIB },
      { stateOffset: TIGHT.stateOffset - SECTOR_BYTES + 1 },
      { journalBlocks: 1, journalOffset: TIGHT.journalOffset + 1 },
      { segments: [{ ...FIRST, deviceOffset: FIRST.deviceOffset + 1 }] },
      { activityOffset: ENDLESS },
      { segments: [{ ...FIRST, deviceOffset: ENDLESS }] },
    ],
    'its regions overlap',
  ],
  [{}, [{ deviceBytes: ENDLESS }], 'it names a device without end'],
  [
    { segments: [segment(FIRST.deviceOffset, 1)], divergedBlocks: 1 },
    [
      { segments: [segment(FIRST.deviceOffset, 0)], divergedBlocks: 0 },
      { segments: [{ ...FIRST, blocks: ENDLESS }] },
      { segments: [{ ...FIRST, deviceBytes: FIRST.deviceBytes - 1 }] },
      { segments: [FIRST, { ...SECOND, deviceBytes: SECOND.deviceBytes - 1 }] },
      { segments: [FIRST, segment(SECOND.deviceOffset + 1, 40)] },
    ],
    'a segment has no room for its blocks',
  ],
  [
    {},
    [
      { deviceBytes: TIGHT.deviceBytes - 1 },
      { segments: [FIRST, { ...SECOND, deviceOffset: SECOND.deviceOffset - SECTOR_BYTES }] },
      { segments: [SECOND, FIRST] },
      { segments: [{ ...FIRST, deviceBytes: ENDLESS }] },
    ],
    'its segments do not lie on the device',
  ],
  [
    { sequence: 2 ** 52, nextLsn: 2 ** 52 },
    [
      { sequence: 2 ** 52 + 1 },
      { nextLsn: 2 ** 52 + 1 },
      { tailLsn: 10 },
      { epoch: 2 ** 31 + 1, historyBase: 2 ** 31 },
      { generation: 2 ** 31 + 1 },
    ],
    'its counters are out of order',
  ],
  [
    { epoch: 2 ** 31, historyBase: 2 ** 31 - HISTORY_EPOCHS, tailLsn: 0 },
    [{ historyBase: 4 }, { epoch: 4 + HISTORY_EPOCHS, historyBase: 3 }],
    'its history is out of order',
  ],
  [
    { createdAt: 8.64e15, enabledAt: 8.64e15 },
    [{ createdAt: 8.64e15 + 1 }, { enabledAt: 8.64e15 + 1 }],
    'it was made at no time',
  ],
  [
    { generation: 2 ** 31, approximateGeneration: 2 ** 31 },
    [
      { approximateGeneration: 6 },
      { generation: 4, approximateGeneration: 0 },
      { segments: [{ ...FIRST, generation: 6 }, SECOND] },
    ],
    'its generations are out of order',
  ],
  [{ divergedBlocks: 0 }, [{ divergedBlocks: 151 }], 'more blocks differ than there are'],
];

for (const [good, bad, words] of BOUNDS) {
  void t.test(`Refused: ${words}`, (t) => {
    t.match(decoded(good), { ...good }, 'at its bound it is believed');
    for (const change of bad) t.equal(decoded(change), words, JSON.stringify(change));
    t.end();
  });
}

void t.test('A number of segments that there is no room for is refused before they are read', (t) => {
  for (const count of [0, 25, 2 ** 32 - 1]) {
    const bytes = encodeSuperblock(TIGHT);
    bytes.writeUInt32LE(count, 68);
    seal(bytes, 'CLDDPART', TIGHT.uuid);
    t.equal(decodeSuperblock(bytes), `it names ${count} segments`);
  }
  const segments = Array.from({ length: 24 }, (_, index) => segment((1 + index) * MIB, 10));
  t.match(decoded({ segments, deviceBytes: 32 * MIB }), { segments });
  t.end();
});

void t.test('What never was a superblock is told from one that is not whole, or of another format', (t) => {
  const bytes = encodeSuperblock(TIGHT);
  bytes[4095] ^= 1;
  t.equal(decodeSuperblock(bytes), 'its checksum is wrong');
  bytes[0] ^= 1;
  t.equal(decodeSuperblock(bytes), undefined);
  const newer = encodeSuperblock(TIGHT);
  newer.writeUInt32LE(3, 12);
  seal(newer, 'CLDDPART', TIGHT.uuid);
  t.equal(decodeSuperblock(newer), 'it has format 3, this program knows 2');
  t.end();
});
