/**
 * Writing the master. A block whose location only the master uses is written in place; any other gets the other
 * location, and its state flips in memory, to become durable with the next flush. `admit` says whether a range can
 * be written now; `write` and `unmap` may only follow an OK in the same turn of the event loop.
 */

import type { Committer } from './committer.js';
import type { Core } from './core.js';
import { EXTENT_BLOCKS, PAGE_COVERS_BYTES, UNIT_BLOCKS } from './format.js';
import type { PlacedSegment } from './format.js';
import type { MapPage } from './map-page.js';
import type { PageMap } from './page-map.js';
import { RESULT } from './results.js';
import type { Result } from './results.js';
import {
  BLOCK_BYTES,
  FIRST_DIVERGED,
  HOLE,
  IN_A,
  LOCATION_OF_MASTER,
  UNMAPPED_DISABLED,
  UNMAPPED_ENABLED,
  WRITTEN_DISABLED,
  WRITTEN_ENABLED,
} from './states.js';

const BLOCK_SHIFT = 12;
const BLOCK_MASK = BLOCK_BYTES - 1;
const ZEROS = Buffer.alloc(BLOCK_BYTES);

export class Writer {
  readonly #core: Core;
  readonly #map: PageMap;
  readonly #committer: Committer;
  readonly #block = Buffer.alloc(BLOCK_BYTES);
  /** Writes wait while a transition is under way. */
  held = false;

  constructor(core: Core, map: PageMap, committer: Committer) {
    this.#core = core;
    this.#map = map;
    this.#committer = committer;
  }

  /** OK: go ahead now. PENDING: `obstacle` in the engine knows what to wait for. */
  admit(position: number, length: number, unmaps = false): Result {
    if (this.#core.failure !== undefined) return RESULT.FAILED;
    if (this.held || !this.#committer.hasRoom || this.#core.pacing.isFull) return RESULT.PENDING;
    const end = position + length;
    for (let from = position; from < end;) {
      const segment = this.#core.segmentAt(from);
      const at = from - segment.masterOffset;
      const pageIndex = Math.floor(at / PAGE_COVERS_BYTES);
      const inPage = at - pageIndex * PAGE_COVERS_BYTES;
      const chunk = Math.min(end - from, PAGE_COVERS_BYTES - inPage, segment.masterBytes - at);
      const number = segment.firstPage + pageIndex;
      if (!unmaps || !this.#map.isBlank(number)) {
        const page = this.#map.forWriting(number);
        if (page === undefined) return RESULT.PENDING;
        if (
          !this.#core.superblock.enabled &&
          this.extentsToActivate(page, inPage, inPage + chunk, unmaps) !== 0
        ) {
          return RESULT.PENDING;
        }
      }
      from += chunk;
    }
    return RESULT.OK;
  }

  /**
   * The extents (one bit each) that the activity log must list before this part of the page is written in place:
   * those where a block holds data and whose change mark is not both current and durable. A hole needs none, since
   * its flip is in the journal before anybody can see the data.
   */
  extentsToActivate(page: MapPage, from: number, end: number, unmaps = false): number {
    const { does, superblock } = this.#core;
    if (!does('activity: list extents before writing in place')) return 0;
    if (unmaps && !does('activity: unmaps too')) return 0;
    const first = from >>> BLOCK_SHIFT;
    const last = (end - 1) >>> BLOCK_SHIFT;
    const { active, settled } = page;
    let wanted = 0;
    for (
      let extent = Math.floor(first / EXTENT_BLOCKS);
      extent <= Math.floor(last / EXTENT_BLOCKS);
      extent++
    ) {
      if (((active >> extent) & 1) !== 0) continue;
      const extentEnd = Math.min(last, (extent + 1) * EXTENT_BLOCKS - 1);
      for (let index = Math.max(first, extent * EXTENT_BLOCKS); index <= extentEnd; index++) {
        if (page.states[index] === HOLE) continue;
        if (settled && page.marks[Math.floor(index / UNIT_BLOCKS)] === superblock.generation) continue;
        wanted |= 1 << extent;
        break;
      }
    }
    return wanted;
  }

  write(position: number, buffer: Uint8Array, offset: number, length: number): Result {
    const end = position + length;
    try {
      for (let from = position; from < end;) {
        const segment = this.#core.segmentAt(from);
        const at = from - segment.masterOffset;
        const pageIndex = Math.floor(at / PAGE_COVERS_BYTES);
        const inPage = at - pageIndex * PAGE_COVERS_BYTES;
        const chunk = Math.min(end - from, PAGE_COVERS_BYTES - inPage, segment.masterBytes - at);
        const page = this.#pageAtHand(segment.firstPage + pageIndex);
        this.#writeInPage(
          page,
          segment,
          at - inPage,
          inPage,
          inPage + chunk,
          buffer,
          offset + from - position,
        );
        from += chunk;
      }
      return RESULT.OK;
    } catch (error) {
      if (error instanceof UnreadableBlock) return RESULT.READ_ERROR;
      // What the range now holds is unknown, and so is whether later writes would hold.
      this.#core.fail(error);
      return RESULT.FAILED;
    }
  }

  #writeInPage(
    page: MapPage,
    segment: PlacedSegment,
    pageAt: number,
    start: number,
    end: number,
    buffer: Uint8Array,
    offset: number,
  ): void {
    const written = this.#writtenTable();
    for (let from = start; from < end;) {
      const index = from >>> BLOCK_SHIFT;
      const to = offset + from - start;
      if ((from & BLOCK_MASK) !== 0 || end - from < BLOCK_BYTES) {
        const partEnd = Math.min(end, (index + 1) << BLOCK_SHIFT);
        this.#writePart(page, segment, pageAt, from, partEnd, buffer, to);
        from = partEnd;
        continue;
      }
      const location = LOCATION_OF_MASTER[written[page.states[index]]];
      const blocksEnd = end >>> BLOCK_SHIFT;
      let next = index + 1;
      while (next < blocksEnd && LOCATION_OF_MASTER[written[page.states[next]]] === location) next++;
      const runEnd = next << BLOCK_SHIFT;
      this.#put(buffer, to, runEnd - from, half(segment, location) + pageAt + from);
      for (let block = index; block < next; block++)
        this.#turn(page, block, written[page.states[block]], false);
      from = runEnd;
    }
  }

  /** Part of one block: in place if the master has the location for itself, else the whole block to the other one. */
  #writePart(
    page: MapPage,
    segment: PlacedSegment,
    pageAt: number,
    from: number,
    end: number,
    buffer: Uint8Array,
    offset: number,
  ): void {
    const index = from >>> BLOCK_SHIFT;
    const state = page.states[index];
    const next = this.#writtenTable()[state];
    const location = LOCATION_OF_MASTER[state];
    if (next === state) {
      this.#put(buffer, offset, end - from, half(segment, location) + pageAt + from);
    } else {
      const blockAt = pageAt + (index << BLOCK_SHIFT);
      const block = this.#block;
      if (location === HOLE) block.fill(0);
      else this.#readBlock(half(segment, location) + blockAt);
      block.set(buffer.subarray(offset, offset + end - from), from & BLOCK_MASK);
      this.#put(block, 0, BLOCK_BYTES, half(segment, LOCATION_OF_MASTER[next]) + blockAt);
    }
    this.#turn(page, index, next, false);
  }

  /** Whole blocks become holes; the edges are written with zeros. */
  unmap(position: number, length: number): Result {
    const end = position + length;
    const firstWhole = Math.min(end, Math.ceil(position / BLOCK_BYTES) * BLOCK_BYTES);
    const endWhole = Math.max(firstWhole, Math.floor(end / BLOCK_BYTES) * BLOCK_BYTES);
    this.#unmapBlocks(firstWhole, endWhole);
    let result: Result = RESULT.OK;
    if (position < firstWhole) result = this.#zero(position, firstWhole);
    if (endWhole < end && result === RESULT.OK) result = this.#zero(endWhole, end);
    return result;
  }

  /** Less than a block. A hole is left as it is. */
  #zero(from: number, end: number): Result {
    const segment = this.#core.segmentAt(from);
    const at = from - segment.masterOffset;
    const number = segment.firstPage + Math.floor(at / PAGE_COVERS_BYTES);
    if (this.#map.isBlank(number)) return RESULT.OK;
    const index = Math.floor(at / BLOCK_BYTES) % (PAGE_COVERS_BYTES / BLOCK_BYTES);
    if (LOCATION_OF_MASTER[this.#pageAtHand(number).states[index]] === HOLE) return RESULT.OK;
    return this.write(from, ZEROS, 0, end - from);
  }

  #unmapBlocks(start: number, end: number): void {
    const unmapped = this.#core.superblock.enabled ? UNMAPPED_ENABLED : UNMAPPED_DISABLED;
    for (let from = start; from < end;) {
      const segment = this.#core.segmentAt(from);
      const at = from - segment.masterOffset;
      const pageIndex = Math.floor(at / PAGE_COVERS_BYTES);
      const inPage = at - pageIndex * PAGE_COVERS_BYTES;
      const chunk = Math.min(end - from, PAGE_COVERS_BYTES - inPage, segment.masterBytes - at);
      const number = segment.firstPage + pageIndex;
      if (!this.#map.isBlank(number)) {
        const page = this.#pageAtHand(number);
        const last = (inPage + chunk) >>> BLOCK_SHIFT;
        for (let index = inPage >>> BLOCK_SHIFT; index < last; index++) {
          const next = unmapped[page.states[index]];
          if (next !== page.states[index]) this.#turn(page, index, next, true);
        }
      }
      from += chunk;
    }
  }

  /** The block's content has changed: notes its new state and its unit's mark. */
  #turn(page: MapPage, index: number, next: number, unmaps: boolean): void {
    const { superblock, does } = this.#core;
    const unit = index >>> 4;
    const state = page.states[index];
    if (does(unmaps ? 'unmap: mark the unit changed' : 'write: mark the unit changed')) {
      if (page.marks[unit] !== superblock.generation) {
        page.marks[unit] = superblock.generation;
        page.dirty = true;
      }
    }
    if (next === state) return;
    page.states[index] = next;
    this.#core.divergedBlocks += (next >= FIRST_DIVERGED ? 1 : 0) - (state >= FIRST_DIVERGED ? 1 : 0);
    if (!unmaps) this.#core.counters.firstOverwrites++;
    this.#committer.noteFlip(page, unit);
  }

  #put(buffer: Uint8Array, offset: number, length: number, position: number): void {
    const { counters, store, pacing } = this.#core;
    counters.dataWrites++;
    counters.dataBytesWritten += length;
    store.writeSync(buffer, offset, length, position);
    pacing.wrote(position, length);
  }

  #readBlock(position: number): void {
    try {
      this.#core.store.readSync(this.#block, 0, BLOCK_BYTES, position);
    } catch (error) {
      throw new UnreadableBlock("the rest of the block can't be read", { cause: error });
    }
  }

  #writtenTable(): Uint8Array {
    const { superblock, does } = this.#core;
    return superblock.enabled && does('write: leave the base alone') ? WRITTEN_ENABLED : WRITTEN_DISABLED;
  }

  #pageAtHand(number: number): MapPage {
    // A range of many pages and a cache full of unsettled ones: `admit` may have pushed its own first page out.
    return this.#map.forWriting(number) ?? this.#map.forced(number);
  }
}

/** Part of a block was to be written, and the device does not give the rest: the command fails, the partition does not. */
class UnreadableBlock extends Error {}

function half(segment: PlacedSegment, location: number): number {
  return location === IN_A ? segment.halfA : segment.halfB;
}
