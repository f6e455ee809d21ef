/**
 * The journal: a ring of 4 KiB blocks, kept in two copies. Block number (LSN) L lies at place L mod ring size.
 * All blocks of one commit form a *batch* and are synced together, and a batch begins only when the one before is
 * durable; so after a crash only the last batch can be in part, and it is then ignored: nobody was told of it.
 *
 *     0   magic 'CLDDJRNL', CRC-32C, epoch u32, uuid
 *     32  LSN u64, tail u64: the first block that a recovery needs
 *     48  place in the batch u16, blocks in the batch u16, records u16, diverged blocks u48, generation u32
 *     64  records of 10 bytes: unit u32, 16 states of 3 bits
 *
 * A record is the whole truth about a unit (its mark is the block's generation), so replaying twice does no harm.
 */

import assert from 'node:assert/strict';
import { isSealed, readU64, seal, writeU64 } from './bytes.js';
import {
  HEADER_BYTES,
  JOURNAL_BLOCK_BYTES,
  JOURNAL_BLOCK_RECORDS,
  JOURNAL_RECORD_BYTES,
  PAGE_UNITS,
  UNIT_BLOCKS,
} from './format.js';
import type { MapPage } from './map-page.js';
import { OperationalError } from '../operational-error.js';
import { ALL_STEPS } from './steps.js';
import type { Steps } from './steps.js';
import { readCopies } from './store.js';
import type { Store } from './store.js';
import type { Superblock } from './superblock.js';

const MAGIC = 'CLDDJRNL';
export const JOURNAL_COPIES = 2;
const HALF_UNIT = UNIT_BLOCKS / 2;

export interface JournalBlock {
  readonly lsn: number;
  readonly tail: number;
  readonly epoch: number;
  readonly batchFirst: number;
  readonly batchBlocks: number;
  readonly records: number;
  readonly divergedBlocks: number;
  readonly generation: number;
  readonly bytes: Buffer;
}

/** What the block's header says about the whole batch. */
export interface BatchFacts {
  readonly epoch: number;
  readonly generation: number;
  readonly divergedBlocks: number;
}

/** Bytes that go to a place in either copy of the ring. */
export interface BatchPiece {
  readonly bytes: Buffer;
  readonly positions: readonly [number, number];
}

export interface PlacedBatch {
  readonly tail: number;
  readonly lsn: number;
  /** Two where the batch goes round the end of the ring. */
  readonly pieces: readonly BatchPiece[];
}

export class Journal {
  readonly #superblock: Superblock;
  nextLsn: number;
  /** What the next block will name as the first block needed. */
  tail: number;
  /** What the last durable block named: blocks from here on must not be overwritten. */
  durableTail: number;
  /** Blocks before this one are durable. */
  durableLsn: number;

  constructor(superblock: Superblock, nextLsn: number, tail: number) {
    this.#superblock = superblock;
    this.nextLsn = nextLsn;
    this.tail = tail;
    this.durableTail = tail;
    this.durableLsn = nextLsn;
  }

  get usedBlocks(): number {
    return this.nextLsn - this.durableTail;
  }

  /**
   * Encodes the units of `count` records as a batch; at least one block. `pageOf` must know every unit's page.
   * The batch is fixed in the moment of this call, and is written by `append`.
   */
  encode(units: Uint32Array, count: number, pageOf: (page: number) => MapPage, facts: BatchFacts): Buffer {
    const blocks = Math.max(1, Math.ceil(count / JOURNAL_BLOCK_RECORDS));
    const batch = Buffer.alloc(blocks * JOURNAL_BLOCK_BYTES);
    for (let block = 0; block < blocks; block++) {
      const bytes = batch.subarray(block * JOURNAL_BLOCK_BYTES, (block + 1) * JOURNAL_BLOCK_BYTES);
      const first = block * JOURNAL_BLOCK_RECORDS;
      const records = Math.min(JOURNAL_BLOCK_RECORDS, count - first);
      bytes.writeUInt32LE(facts.epoch, 12);
      bytes.writeUInt16LE(block, 48);
      bytes.writeUInt16LE(blocks, 50);
      bytes.writeUInt16LE(records, 52);
      bytes.writeUIntLE(facts.divergedBlocks, 54, 6);
      bytes.writeUInt32LE(facts.generation, 60);
      for (let record = 0; record < records; record++) {
        const unit = units[first + record];
        const page = pageOf(Math.floor(unit / PAGE_UNITS));
        encodeRecord(bytes, HEADER_BYTES + record * JOURNAL_RECORD_BYTES, unit, page.states);
      }
    }
    return batch;
  }

  /**
   * Gives a batch its place behind the last one. Its pieces are to be written there, both copies; the answer is for
   * `settle`, to be called when that is durable.
   */
  place(batch: Buffer): PlacedBatch {
    const blocks = batch.length / JOURNAL_BLOCK_BYTES;
    const { journalBlocks, journalOffset, uuid } = this.#superblock;
    assert(this.nextLsn + blocks - this.durableTail <= journalBlocks, 'the journal is full');
    for (let block = 0; block < blocks; block++) {
      const bytes = batch.subarray(block * JOURNAL_BLOCK_BYTES, (block + 1) * JOURNAL_BLOCK_BYTES);
      writeU64(bytes, 32, this.nextLsn + block);
      writeU64(bytes, 40, this.tail);
      seal(bytes, MAGIC, uuid);
    }
    const slot = this.nextLsn % journalBlocks;
    const straight = Math.min(blocks, journalBlocks - slot) * JOURNAL_BLOCK_BYTES;
    const copyBytes = journalBlocks * JOURNAL_BLOCK_BYTES;
    const piece = (bytes: Buffer, offset: number): BatchPiece => {
      const first = journalOffset + offset;
      return { bytes, positions: [first, first + copyBytes] };
    };
    const pieces = [piece(batch.subarray(0, straight), slot * JOURNAL_BLOCK_BYTES)];
    if (straight < batch.length) pieces.push(piece(batch.subarray(straight), 0));
    this.nextLsn += blocks;
    return { tail: this.tail, lsn: this.nextLsn, pieces };
  }

  /**
   * Goes on one ring further, with numbers that no block can have: what was begun before the crash lay less than a ring
   * behind what it made durable. A batch with the numbers of a torn one could complete it when it is torn itself: blocks
   * of both would make a whole batch, and sectors of both a whole block. The journal must be empty, and a superblock
   * must follow.
   */
  skipRemains(): void {
    const next = this.nextLsn + this.#superblock.journalBlocks;
    this.nextLsn = this.tail = this.durableTail = this.durableLsn = next;
  }

  settle(written: PlacedBatch): void {
    this.durableTail = written.tail;
    this.durableLsn = written.lsn;
  }
}

function encodeRecord(bytes: Buffer, at: number, unit: number, states: Uint8Array): void {
  const first = (unit % PAGE_UNITS) * UNIT_BLOCKS;
  bytes.writeUInt32LE(unit, at);
  for (let half = 0; half < 2; half++) {
    let word = 0;
    for (let index = 0; index < HALF_UNIT; index++)
      word |= states[first + half * HALF_UNIT + index] << (3 * index);
    bytes.writeUIntLE(word, at + 4 + 3 * half, 3);
  }
}

/** Calls `apply` with every record: the unit, and its states in a reused array. */
export function forEachRecord(block: JournalBlock, apply: (unit: number, states: Uint8Array) => void): void {
  const states = new Uint8Array(UNIT_BLOCKS);
  for (let record = 0; record < block.records; record++) {
    const at = HEADER_BYTES + record * JOURNAL_RECORD_BYTES;
    for (let half = 0; half < 2; half++) {
      const word = block.bytes.readUIntLE(at + 4 + 3 * half, 3);
      for (let index = 0; index < HALF_UNIT; index++)
        states[half * HALF_UNIT + index] = (word >>> (3 * index)) & 7;
    }
    apply(block.bytes.readUInt32LE(at), states);
  }
}

/** The block that these 4 KiB hold; undefined if it is not whole, of another partition, or not of this place. */
export function decodeBlock(
  bytes: Buffer,
  uuid: Buffer,
  slot: number,
  journalBlocks: number,
): JournalBlock | undefined {
  if (!isSealed(bytes, MAGIC, uuid)) return undefined;
  const lsn = readU64(bytes, 32);
  const records = bytes.readUInt16LE(52);
  const tail = readU64(bytes, 40);
  if (lsn % journalBlocks !== slot || tail === Infinity || records > JOURNAL_BLOCK_RECORDS) return undefined;
  return {
    lsn,
    tail,
    epoch: bytes.readUInt32LE(12),
    batchFirst: lsn - bytes.readUInt16LE(48),
    batchBlocks: bytes.readUInt16LE(50),
    records,
    divergedBlocks: bytes.readUIntLE(54, 6),
    generation: bytes.readUInt32LE(60),
    bytes,
  };
}

/** Every whole block of the ring, by LSN; where the two copies differ, either will do. */
export function readJournal(store: Store, superblock: Superblock): Map<number, JournalBlock> {
  const { journalBlocks, uuid } = superblock;
  const found = new Map<number, JournalBlock>();
  const copies = Array.from({ length: JOURNAL_COPIES }, (_, copy) => readRing(store, superblock, copy));
  for (let slot = 0; slot < journalBlocks; slot++) {
    const reads = copies.map((blockAt) => () => decodeBlock(blockAt(slot), uuid, slot, journalBlocks));
    for (const block of readCopies(reads))
      if (block !== undefined && !found.has(block.lsn)) found.set(block.lsn, block);
  }
  return found;
}

/** One copy of the ring, read in one go; where the device can't do that, block by block as each is asked for. */
function readRing(store: Store, superblock: Superblock, copy: number): (slot: number) => Buffer {
  const { journalBlocks, journalOffset } = superblock;
  const ring = Buffer.alloc(journalBlocks * JOURNAL_BLOCK_BYTES);
  const position = journalOffset + copy * ring.length;
  let isRead = true;
  try {
    store.readSync(ring, 0, ring.length, position);
  } catch {
    // One bad sector is enough for that. Those who ask for its block get the error.
    isRead = false;
  }
  return (slot) => {
    const at = slot * JOURNAL_BLOCK_BYTES;
    const block = ring.subarray(at, at + JOURNAL_BLOCK_BYTES);
    if (!isRead) store.readSync(block, 0, block.length, position + at);
    return block;
  };
}

/**
 * The blocks that a recovery replays, in order, and the LSN to go on with. The superblock bounds what counts:
 * blocks before its `nextLsn` were durable when it was written.
 * @throws OperationalError DAMAGED if a block is missing that was durable.
 */
export function recoverableBlocks(
  superblock: Superblock,
  found: ReadonlyMap<number, JournalBlock>,
  does: Steps = ALL_STEPS,
): { blocks: JournalBlock[]; nextLsn: number; tail: number } {
  const { nextLsn, tail, needed } = recoverableRange(superblock, found, does);
  const blocks: JournalBlock[] = [];
  for (let lsn = tail; lsn < needed; lsn++) {
    const block = found.get(lsn);
    if (block === undefined) {
      throw new OperationalError(
        'DAMAGED',
        `journal block ${lsn} of ${tail}..${needed - 1} is unreadable in both copies; ` +
          'restore the partition from a backup',
      );
    }
    blocks.push(block);
  }
  return { blocks, nextLsn, tail };
}

/**
 * Which blocks a recovery needs: those from `tail` to below `needed`. Normally that is `nextLsn`, where the last whole
 * batch ends; it is more if a later batch was begun, which proves that all before it were durable.
 *
 * A batch that is not whole may leave blocks behind it that nothing has overwritten yet. They belong to a batch
 * that began earlier than where they lie, so that they neither continue the chain nor prove anything.
 */
export function recoverableRange(
  superblock: Superblock,
  found: ReadonlyMap<number, JournalBlock>,
  does: Steps = ALL_STEPS,
): { nextLsn: number; tail: number; needed: number } {
  let { nextLsn, tail } = chainStart(superblock, found);
  for (;;) {
    const first = found.get(nextLsn);
    if (first?.batchFirst !== nextLsn || first.batchBlocks === 0) break;
    if (!isBatchWhole(first, found) && does('open: ignore a batch that is not whole')) break;
    nextLsn += first.batchBlocks;
    tail = Math.max(tail, first.tail);
  }
  let needed = nextLsn;
  for (const block of found.values()) {
    if (block.batchFirst > nextLsn) needed = Math.max(needed, block.batchFirst);
  }
  return { nextLsn, tail, needed };
}

/**
 * Where the chain of batches is sure to be unbroken: at the superblock's `nextLsn`, as long as the ring has not gone
 * round since, and else at the newest tail that a whole batch names. A batch is written only when all before it are
 * durable, and the pages that its tail vouches for are, too, so such a tail is true; it is where a batch begins; and from
 * it on nothing is overwritten, because the place of a block is used again only when a durable batch names a tail behind
 * it, and that one would be newer. Remains of a batch that was never whole name a tail as well, but are no whole batch.
 */
function chainStart(
  superblock: Superblock,
  found: ReadonlyMap<number, JournalBlock>,
): { nextLsn: number; tail: number } {
  let { nextLsn, tailLsn: tail } = superblock;
  for (const block of found.values()) {
    if (block.batchFirst !== block.lsn || block.lsn < superblock.nextLsn) continue;
    if (block.tail <= nextLsn || block.tail > block.lsn || !isBatchWhole(block, found)) continue;
    nextLsn = tail = block.tail;
  }
  return { nextLsn, tail };
}

/** The blocks of one batch say the same of it. */
function isBatchWhole(first: JournalBlock, found: ReadonlyMap<number, JournalBlock>): boolean {
  for (let lsn = first.lsn; lsn < first.lsn + first.batchBlocks; lsn++) {
    const block = found.get(lsn);
    if (block?.batchFirst !== first.lsn || block.batchBlocks !== first.batchBlocks) return false;
    if (block.tail !== first.tail || block.epoch !== first.epoch) return false;
    if (block.divergedBlocks !== first.divergedBlocks) return false;
  }
  return true;
}
