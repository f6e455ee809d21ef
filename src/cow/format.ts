/**
 * Where everything lies on a partition; docs/format.md describes it for people.
 *
 *     0, 64, 128, 192 KiB   superblock copies
 *     256 KiB               activity log: 4 slots
 *                           state area: 2 twins
 *                           journal: 2 copies of a ring of 4 KiB blocks
 *                           segment 0, and after a grow further segments:
 *                             written bitmap (2 twins) · map pages (2 twins) · half A · half B
 */

import { BLOCK_BYTES } from './states.js';

export const FORMAT_VERSION = 2;
export const KIB = 1024;
export const MIB = 1024 * KIB;
export const GIB = 1024 * MIB;

export const SUPERBLOCK_BYTES = 4096;
export const SUPERBLOCK_OFFSETS: readonly number[] = [0, 64 * KIB, 128 * KIB, 192 * KIB];
const HEAD_BYTES = 256 * KIB;

export const MIN_PARTITION_BYTES = 8 * MIB;
export const MAX_SEGMENTS = 24;

/** Every metadata structure begins with 64 bytes: magic, CRC-32C of all from byte 12 on, uuid at 16. */
export const HEADER_BYTES = 64;

export const PAGE_BYTES = 4096;
export const PAGE_BLOCKS = 8192;
export const PAGE_COVERS_BYTES = PAGE_BLOCKS * BLOCK_BYTES;
/** The change map's grain. */
export const UNIT_BLOCKS = 16;
export const UNIT_BYTES = UNIT_BLOCKS * BLOCK_BYTES;
export const PAGE_UNITS = PAGE_BLOCKS / UNIT_BLOCKS;
/** The activity log's grain: 4 MiB. */
export const EXTENT_BLOCKS = 1024;
export const PAGE_EXTENTS = PAGE_BLOCKS / EXTENT_BLOCKS;
export const EXTENT_UNITS = EXTENT_BLOCKS / UNIT_BLOCKS;
/** A change mark has 15 bits, so that marks older than this many generations count as this old. */
export const MARK_SPAN = 32767;

export const BITMAP_BLOCK_BYTES = 4096;
export const BITMAP_BLOCK_PAGES = (BITMAP_BLOCK_BYTES - HEADER_BYTES) * 8;

export const JOURNAL_BLOCK_BYTES = 4096;
export const JOURNAL_RECORD_BYTES = 10;
export const JOURNAL_BLOCK_RECORDS = Math.floor((JOURNAL_BLOCK_BYTES - HEADER_BYTES) / JOURNAL_RECORD_BYTES);
const JOURNAL_BLOCKS_MIN = 16;
export const JOURNAL_BLOCKS_MAX = 2048;

export const ACTIVITY_SLOTS = 4;
export const ACTIVITY_ENTRY_BYTES = 12;
const ACTIVITY_SLOT_BYTES_MAX = 64 * KIB;

/** What all records may hold together; each costs its key and six bytes beside. */
export const STATE_VALUE_BYTES_MAX = 256 * KIB;
export const STATE_TWIN_BYTES = 264 * KIB;

export interface Segment {
  readonly deviceOffset: number;
  readonly deviceBytes: number;
  readonly blocks: number;
  /** The generation in which it was added: to every older generation, all of it is a change. */
  readonly generation: number;
}

/** A segment with its places worked out. */
export interface PlacedSegment extends Segment {
  readonly masterOffset: number;
  readonly masterBytes: number;
  readonly firstPage: number;
  readonly pages: number;
  readonly bitmapBlocks: number;
  readonly bitmapOffset: number;
  readonly mapOffset: number;
  readonly halfA: number;
  readonly halfB: number;
}

export interface HeadLayout {
  readonly activityOffset: number;
  readonly activitySlotBytes: number;
  readonly stateOffset: number;
  readonly journalOffset: number;
  readonly journalBlocks: number;
}

/** Regions begin on 64 KiB boundaries where the room allows it. */
const ALIGNMENT = 64 * KIB;
const roundUp = (value: number, grain: number): number => Math.ceil(value / grain) * grain;
const roundDown = (value: number, grain: number): number => Math.floor(value / grain) * grain;
const clamp = (value: number, low: number, high: number): number => Math.min(high, Math.max(low, value));

/** The fixed regions of a new partition, and where its first segment begins. */
export function layoutHead(partitionBytes: number): HeadLayout & { segmentOffset: number } {
  const wished = 2 ** Math.round(Math.log2(partitionBytes / (256 * JOURNAL_BLOCK_BYTES)));
  const journalBlocks = clamp(wished, JOURNAL_BLOCKS_MIN, JOURNAL_BLOCKS_MAX);
  const pages = Math.ceil(partitionBytes / 2 / PAGE_COVERS_BYTES);
  const activitySlotBytes = clamp(
    roundUp(HEADER_BYTES + 4 * pages * ACTIVITY_ENTRY_BYTES, 4 * KIB),
    4 * KIB,
    ACTIVITY_SLOT_BYTES_MAX,
  );
  const activityOffset = HEAD_BYTES;
  const stateOffset = activityOffset + ACTIVITY_SLOTS * activitySlotBytes;
  const journalOffset = stateOffset + 2 * STATE_TWIN_BYTES;
  const segmentOffset = roundUp(journalOffset + 2 * journalBlocks * JOURNAL_BLOCK_BYTES, ALIGNMENT);
  return { activityOffset, activitySlotBytes, stateOffset, journalOffset, journalBlocks, segmentOffset };
}

/** The largest segment that fits between two places of the device, or undefined if not one block does. */
export function fitSegment(deviceOffset: number, deviceEnd: number, generation: number): Segment | undefined {
  const room = roundDown(deviceEnd, BLOCK_BYTES) - deviceOffset;
  let blocks = Math.floor(room / (2 * BLOCK_BYTES));
  while (blocks > 0) {
    const excess = segmentBytes(blocks) - room;
    if (excess <= 0) break;
    blocks -= Math.ceil(excess / (2 * BLOCK_BYTES));
  }
  if (blocks <= 0) return undefined;
  return { deviceOffset, deviceBytes: segmentBytes(blocks), blocks, generation };
}

function segmentBytes(blocks: number): number {
  const { dataOffset } = segmentMetadata(blocks);
  return roundUp(dataOffset, ALIGNMENT) + 2 * blocks * BLOCK_BYTES;
}

function segmentMetadata(blocks: number): {
  pages: number;
  bitmapBlocks: number;
  mapOffset: number;
  dataOffset: number;
} {
  const pages = Math.ceil(blocks / PAGE_BLOCKS);
  const bitmapBlocks = Math.ceil(pages / BITMAP_BLOCK_PAGES);
  const mapOffset = 2 * bitmapBlocks * BITMAP_BLOCK_BYTES;
  return { pages, bitmapBlocks, mapOffset, dataOffset: mapOffset + 2 * pages * PAGE_BYTES };
}

/** Works out the places of all segments, in the order in which they make up the master. */
export function placeSegments(segments: readonly Segment[]): PlacedSegment[] {
  const placed: PlacedSegment[] = [];
  let masterOffset = 0;
  let firstPage = 0;
  for (const segment of segments) {
    const { pages, bitmapBlocks, mapOffset, dataOffset } = segmentMetadata(segment.blocks);
    const halfA = segment.deviceOffset + roundUp(dataOffset, ALIGNMENT);
    const masterBytes = segment.blocks * BLOCK_BYTES;
    placed.push({
      deviceOffset: segment.deviceOffset,
      deviceBytes: segment.deviceBytes,
      blocks: segment.blocks,
      generation: segment.generation,
      masterOffset,
      masterBytes,
      firstPage,
      pages,
      bitmapBlocks,
      bitmapOffset: segment.deviceOffset,
      mapOffset: segment.deviceOffset + mapOffset,
      halfA,
      halfB: halfA + masterBytes,
    });
    masterOffset += masterBytes;
    firstPage += pages;
  }
  return placed;
}

/** Where a map page's twins lie. */
export function pageOffset(segment: PlacedSegment, page: number, twin: number): number {
  return segment.mapOffset + (twin * segment.pages + (page - segment.firstPage)) * PAGE_BYTES;
}
