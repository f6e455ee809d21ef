/**
 * The superblock: identity, geometry, and the few facts that change atomically with an enable, disable or rollback.
 * It has four copies. A new version goes to two of them, is synced, and then goes to the other two, so that at
 * every moment two copies hold one version whole; the newest whole one is the truth.
 *
 * Every disable and rollback ends an *epoch*; one bit an epoch tells which of the two it was, because a map page of
 * an older epoch needs to know whether its divergences were kept (FOLD) or given up (DROP).
 */

import { isSealed, readU64, seal, writeU64 } from './bytes.js';
import { FORMAT_VERSION, MAX_SEGMENTS, SUPERBLOCK_BYTES } from './format.js';
import type { HeadLayout, Segment } from './format.js';
import type { Transition } from './states.js';
import { nonsenseIn } from './superblock-sense.js';

const MAGIC = 'CLDDPART';
const SEGMENTS_AT = 192;
const SEGMENT_BYTES = 32;
const HISTORY_AT = 1024;
const FLAG_CLEAN = 1;
const FLAG_ENABLED = 2;

/** So many disables and rollbacks fit the history before all older pages must be normalised. */
export const HISTORY_EPOCHS = (SUPERBLOCK_BYTES - HISTORY_AT) * 8;

export interface Superblock extends HeadLayout {
  uuid: Buffer;
  sequence: number;
  /** Closed in order: journal and activity log are empty. */
  clean: boolean;
  enabled: boolean;
  deviceBytes: number;
  /** The next journal block's number, and the first one that a recovery needs, when this was written. */
  nextLsn: number;
  tailLsn: number;
  /** How often the slave was enabled. */
  generation: number;
  /** The last generation whose change marks a crash made coarser; 0 if none. */
  approximateGeneration: number;
  /** Milliseconds since 1970 of the last enable; 0 if never. */
  enabledAt: number;
  createdAt: number;
  /** Blocks of the master that differed from the slave when this was written. */
  divergedBlocks: number;
  epoch: number;
  /** The epoch that bit 0 of the history belongs to. */
  historyBase: number;
  history: Buffer;
  segments: Segment[];
}

export function encodeSuperblock(superblock: Superblock): Buffer {
  const out = Buffer.alloc(SUPERBLOCK_BYTES);
  out.writeUInt32LE(FORMAT_VERSION, 12);
  writeU64(out, 32, superblock.sequence);
  out.writeUInt32LE((superblock.clean ? FLAG_CLEAN : 0) | (superblock.enabled ? FLAG_ENABLED : 0), 40);
  out.writeUInt32LE(superblock.journalBlocks, 44);
  writeU64(out, 48, superblock.deviceBytes);
  writeU64(out, 56, superblock.activityOffset);
  out.writeUInt32LE(superblock.activitySlotBytes, 64);
  out.writeUInt32LE(superblock.segments.length, 68);
  writeU64(out, 72, superblock.stateOffset);
  writeU64(out, 80, superblock.journalOffset);
  writeU64(out, 88, superblock.nextLsn);
  writeU64(out, 96, superblock.tailLsn);
  out.writeUInt32LE(superblock.generation, 104);
  out.writeUInt32LE(superblock.approximateGeneration, 108);
  writeU64(out, 112, superblock.enabledAt);
  writeU64(out, 120, superblock.createdAt);
  out.writeUInt32LE(superblock.epoch, 128);
  out.writeUInt32LE(superblock.historyBase, 132);
  writeU64(out, 136, superblock.divergedBlocks);
  superblock.segments.forEach((segment, index) => {
    const at = SEGMENTS_AT + index * SEGMENT_BYTES;
    writeU64(out, at, segment.deviceOffset);
    writeU64(out, at + 8, segment.deviceBytes);
    writeU64(out, at + 16, segment.blocks);
    out.writeUInt32LE(segment.generation, at + 24);
  });
  superblock.history.copy(out, HISTORY_AT);
  seal(out, MAGIC, superblock.uuid);
  return out;
}

/** The superblock that these 4 KiB hold; a text that says what is wrong with them; undefined if there never was one. */
export function decodeSuperblock(bytes: Buffer): Superblock | string | undefined {
  if (bytes.toString('latin1', 0, 8) !== MAGIC) return undefined;
  if (!isSealed(bytes, MAGIC)) return 'its checksum is wrong';
  const version = bytes.readUInt32LE(12);
  if (version !== FORMAT_VERSION) return `it has format ${version}, this program knows ${FORMAT_VERSION}`;
  const segmentCount = bytes.readUInt32LE(68);
  if (segmentCount < 1 || segmentCount > MAX_SEGMENTS) return `it names ${segmentCount} segments`;
  const segments: Segment[] = [];
  for (let at = SEGMENTS_AT; segments.length < segmentCount; at += SEGMENT_BYTES) {
    segments.push({
      deviceOffset: readU64(bytes, at),
      deviceBytes: readU64(bytes, at + 8),
      blocks: readU64(bytes, at + 16),
      generation: bytes.readUInt32LE(at + 24),
    });
  }
  const flags = bytes.readUInt32LE(40);
  const superblock: Superblock = {
    uuid: Buffer.from(bytes.subarray(16, 32)),
    sequence: readU64(bytes, 32),
    clean: (flags & FLAG_CLEAN) !== 0,
    enabled: (flags & FLAG_ENABLED) !== 0,
    journalBlocks: bytes.readUInt32LE(44),
    deviceBytes: readU64(bytes, 48),
    activityOffset: readU64(bytes, 56),
    activitySlotBytes: bytes.readUInt32LE(64),
    stateOffset: readU64(bytes, 72),
    journalOffset: readU64(bytes, 80),
    nextLsn: readU64(bytes, 88),
    tailLsn: readU64(bytes, 96),
    generation: bytes.readUInt32LE(104),
    approximateGeneration: bytes.readUInt32LE(108),
    enabledAt: readU64(bytes, 112),
    createdAt: readU64(bytes, 120),
    epoch: bytes.readUInt32LE(128),
    historyBase: bytes.readUInt32LE(132),
    divergedBlocks: readU64(bytes, 136),
    history: Buffer.from(bytes.subarray(HISTORY_AT)),
    segments,
  };
  return nonsenseIn(superblock, HISTORY_EPOCHS) ?? superblock;
}

/** How `epoch` ended. Callers ask only for epochs between historyBase and the current one. */
export function transitionOf(superblock: Superblock, epoch: number): Transition {
  const bit = epoch - superblock.historyBase;
  return (superblock.history[bit >> 3] >> (bit & 7)) & 1 ? 1 : 0;
}

/** Ends the current epoch. */
export function endEpoch(superblock: Superblock, transition: Transition): void {
  const bit = superblock.epoch - superblock.historyBase;
  if (transition === 1) superblock.history[bit >> 3] |= 1 << (bit & 7);
  else superblock.history[bit >> 3] &= ~(1 << (bit & 7));
  superblock.epoch++;
}
