/**
 * Whether a superblock's numbers can be true together. A checksum proves that nothing rotted, not that the partition was
 * made by this program: whoever makes the disc makes the checksum, too. What passes here may be used as positions and
 * counts without further questions.
 */
import {
  ACTIVITY_SLOTS,
  JOURNAL_BLOCKS_MAX,
  JOURNAL_BLOCK_BYTES,
  KIB,
  STATE_TWIN_BYTES,
  SUPERBLOCK_BYTES,
  SUPERBLOCK_OFFSETS,
  placeSegments,
} from './format.js';
import type { Superblock } from './superblock.js';

const SECTOR_BYTES = 512;
const ACTIVITY_SLOT_BYTES_MAX = 64 * KIB;
/** The last millisecond that a Date can hold. */
const TIME_MAX = 8.64e15;
/** Counters may be raised for longer than a disc lives, and still fit their fields. */
const COUNT_MAX = 2 ** 52;
const SMALL_COUNT_MAX = 2 ** 31;
const HEAD_END = Math.max(...SUPERBLOCK_OFFSETS) + SUPERBLOCK_BYTES;

/** What is nonsense in it, in words; undefined if nothing is. */
export function nonsenseIn(superblock: Superblock, historyEpochs: number): string | undefined {
  return regionFault(superblock) ?? segmentFault(superblock) ?? countFault(superblock, historyEpochs);
}

/** The regions follow each other in docs/format.md's order, without overlap, up to the first segment. */
function regionFault(superblock: Superblock): string | undefined {
  const { activityOffset, activitySlotBytes, stateOffset, journalOffset, journalBlocks, segments } =
    superblock;
  if (journalBlocks < 1 || journalBlocks > JOURNAL_BLOCKS_MAX)
    return `it names a journal of ${journalBlocks} blocks`;
  if (
    activitySlotBytes < SECTOR_BYTES ||
    activitySlotBytes > ACTIVITY_SLOT_BYTES_MAX ||
    activitySlotBytes % SECTOR_BYTES !== 0
  )
    return `it names an activity log of ${activitySlotBytes} bytes a slot`;
  const places = [
    [HEAD_END, activityOffset],
    [activityOffset + ACTIVITY_SLOTS * activitySlotBytes, stateOffset],
    [stateOffset + 2 * STATE_TWIN_BYTES, journalOffset],
    [journalOffset + 2 * journalBlocks * JOURNAL_BLOCK_BYTES, segments[0].deviceOffset],
  ];
  if (places.some(([end, next]) => !(end <= next) || next % SECTOR_BYTES !== 0)) return 'its regions overlap';
  return undefined;
}

/** Segments ascend on the device, and each has room for its bitmap, map and halves. */
function segmentFault({ segments, deviceBytes }: Superblock): string | undefined {
  if (deviceBytes === Infinity) return 'it names a device without end';
  let end = 0;
  for (const segment of segments) {
    const { deviceOffset, deviceBytes: length, blocks } = segment;
    const [placed] = placeSegments([segment]);
    const segmentEnd = deviceOffset + length;
    if (
      !(blocks >= 1) ||
      deviceOffset % SECTOR_BYTES !== 0 ||
      !(placed.halfB + placed.masterBytes <= segmentEnd)
    )
      return 'a segment has no room for its blocks';
    if (deviceOffset < end || !(segmentEnd <= deviceBytes)) return 'its segments do not lie on the device';
    end = segmentEnd;
  }
  return undefined;
}

function countFault(superblock: Superblock, historyEpochs: number): string | undefined {
  const { sequence, nextLsn, tailLsn, epoch, historyBase, divergedBlocks, segments } = superblock;
  if (sequence > COUNT_MAX || nextLsn > COUNT_MAX || tailLsn > nextLsn || epoch > SMALL_COUNT_MAX)
    return 'its counters are out of order';
  if (historyBase > epoch || epoch - historyBase > historyEpochs) return 'its history is out of order';
  if (superblock.createdAt > TIME_MAX || superblock.enabledAt > TIME_MAX) return 'it was made at no time';
  const { generation, approximateGeneration } = superblock;
  if (generation > SMALL_COUNT_MAX) return 'its counters are out of order';
  if (approximateGeneration > generation || segments.some((segment) => segment.generation > generation))
    return 'its generations are out of order';
  const blocks = segments.reduce((sum, segment) => sum + segment.blocks, 0);
  return divergedBlocks > blocks ? 'more blocks differ than there are' : undefined;
}
