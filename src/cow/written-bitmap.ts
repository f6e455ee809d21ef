/**
 * One bit per map page: it has been written. A page without it is all holes, whatever garbage lies in its place; a
 * page with it must be readable, or is damaged. Kept in blocks of 4 KiB, in two twins per segment.
 *
 *     0   magic 'CLDDBITS', CRC-32C, block number within the segment u32, uuid
 *     32  sequence u64, segment u32, zeros
 *     64  32,256 bits
 */

import { isSealed, readU64, seal, writeU64 } from './bytes.js';
import { BITMAP_BLOCK_BYTES, BITMAP_BLOCK_PAGES, HEADER_BYTES } from './format.js';
import type { PlacedSegment } from './format.js';
import { OperationalError } from '../operational-error.js';
import { readCopies } from './store.js';
import type { Store } from './store.js';

const MAGIC = 'CLDDBITS';
export const BITMAP_TWINS = 2;

interface BitmapBlock {
  readonly segment: number;
  readonly index: number;
  readonly bytes: Buffer;
  sequence: number;
  /** The twin to overwrite first: never the only one that is whole. */
  firstTwin: number;
}

/** Reads one twin of one block; undefined if it is not whole. */
export function readBitmapTwin(
  store: Store,
  uuid: Buffer,
  place: { segment: PlacedSegment; segmentIndex: number; index: number; twin: number },
): Buffer | undefined {
  const bytes = Buffer.alloc(BITMAP_BLOCK_BYTES);
  store.readSync(bytes, 0, bytes.length, bitmapOffset(place.segment, place.index, place.twin));
  const whole = isSealed(bytes, MAGIC, uuid);
  return whole && bytes.readUInt32LE(12) === place.index && bytes.readUInt32LE(40) === place.segmentIndex
    ? bytes
    : undefined;
}

/** Where a block's twins lie. */
export function bitmapOffset(segment: PlacedSegment, index: number, twin: number): number {
  return segment.bitmapOffset + (twin * segment.bitmapBlocks + index) * BITMAP_BLOCK_BYTES;
}

export class WrittenBitmap {
  readonly #uuid: Buffer;
  readonly #segments: PlacedSegment[];
  readonly #blocks: BitmapBlock[][] = [];
  readonly #dirty = new Set<BitmapBlock>();

  constructor(uuid: Buffer, segments: PlacedSegment[]) {
    this.#uuid = uuid;
    this.#segments = segments;
  }

  /** Gives a new segment its all-zero blocks, to be written by `write`. */
  addEmpty(segmentIndex: number): void {
    const blocks: BitmapBlock[] = [];
    for (let index = 0; index < this.#segments[segmentIndex].bitmapBlocks; index++) {
      const block = {
        segment: segmentIndex,
        index,
        bytes: Buffer.alloc(BITMAP_BLOCK_BYTES),
        sequence: 0,
        firstTwin: 0,
      };
      blocks.push(block);
      this.#dirty.add(block);
    }
    this.#blocks[segmentIndex] = blocks;
  }

  /**
   * Reads all blocks; those whose twins differ are left dirty.
   * @throws OperationalError DAMAGED if both twins of a block are bad.
   */
  read(store: Store): void {
    this.#segments.forEach((segment, segmentIndex) => {
      const blocks: BitmapBlock[] = [];
      for (let index = 0; index < segment.bitmapBlocks; index++) {
        const [first, second] = readCopies(
          [0, 1].map(
            (twin) => () => readBitmapTwin(store, this.#uuid, { segment, segmentIndex, index, twin }),
          ),
        );
        const newer =
          first && second ? (readU64(first, 32) >= readU64(second, 32) ? first : second) : (first ?? second);
        if (newer === undefined) {
          throw new OperationalError(
            'DAMAGED',
            `block ${index} of segment ${segmentIndex}'s written bitmap is unreadable in both twins; ` +
              'restore the partition from a backup',
          );
        }
        const block = {
          segment: segmentIndex,
          index,
          bytes: newer,
          sequence: readU64(newer, 32),
          firstTwin: newer === first ? 1 : 0,
        };
        if (first === undefined || second?.equals(first) !== true) this.#dirty.add(block);
        blocks.push(block);
      }
      this.#blocks[segmentIndex] = blocks;
    });
  }

  get isDirty(): boolean {
    return this.#dirty.size > 0;
  }

  has(page: number): boolean {
    const segmentIndex = this.#segmentIndexOf(page);
    const place = page - this.#segments[segmentIndex].firstPage;
    const { bytes } = this.#blocks[segmentIndex][Math.floor(place / BITMAP_BLOCK_PAGES)];
    const bit = place % BITMAP_BLOCK_PAGES;
    return ((bytes[HEADER_BYTES + (bit >> 3)] >> (bit & 7)) & 1) === 1;
  }

  set(page: number): void {
    const segmentIndex = this.#segmentIndexOf(page);
    const place = page - this.#segments[segmentIndex].firstPage;
    const block = this.#blocks[segmentIndex][Math.floor(place / BITMAP_BLOCK_PAGES)];
    const bit = place % BITMAP_BLOCK_PAGES;
    block.bytes[HEADER_BYTES + (bit >> 3)] |= 1 << (bit & 7);
    this.#dirty.add(block);
  }

  /** The images of the dirty blocks, each with its two places in the order in which to write them; they count as clean from here on. */
  takeDirty(): { bytes: Buffer; positions: readonly number[] }[] {
    const taken = [...this.#dirty].map((block) => {
      block.sequence++;
      block.bytes.writeUInt32LE(block.index, 12);
      writeU64(block.bytes, 32, block.sequence);
      block.bytes.writeUInt32LE(block.segment, 40);
      seal(block.bytes, MAGIC, this.#uuid);
      const segment = this.#segments[block.segment];
      const order = [block.firstTwin, 1 - block.firstTwin];
      block.firstTwin = 0;
      return {
        bytes: Buffer.from(block.bytes),
        positions: order.map((twin) => bitmapOffset(segment, block.index, twin)),
      };
    });
    this.#dirty.clear();
    return taken;
  }

  #segmentIndexOf(page: number): number {
    let index = this.#segments.length - 1;
    while (page < this.#segments[index].firstPage) index--;
    return index;
  }
}
