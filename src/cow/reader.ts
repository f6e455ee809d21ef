/**
 * Reading a side: runs of blocks that lie together on the disc are one read. A region that changes sides more often
 * is read from both halves and merged: two reads at most for every MiB.
 */

import type { Core } from './core.js';
import { MIB, PAGE_COVERS_BYTES } from './format.js';
import type { PlacedSegment } from './format.js';
import type { MapPage } from './map-page.js';
import type { PageMap } from './page-map.js';
import { RESULT } from './results.js';
import type { Result, ResultDone } from './results.js';
import { BLOCK_BYTES, HOLE, IN_A, IN_B } from './states.js';
import type { LocationTable } from './states.js';

const BLOCK_SHIFT = 12;
const MERGE_BYTES = MIB;
/** Merge buffers kept for the next reads through the pool: a new one costs more than the read that it is for. */
const SPARE_MAX = 8;
const NOTHING = Buffer.alloc(0);

export class Reader {
  readonly #core: Core;
  readonly #map: PageMap;
  readonly #scratch = Buffer.alloc(MERGE_BYTES);
  readonly #spare: Buffer[] = [];
  /** What the last `read` asked of the store: more than its length where halves were merged. */
  bytesRead = 0;

  constructor(core: Core, map: PageMap) {
    this.#core = core;
    this.#map = map;
  }

  /** Fills the buffer with what the side that `table` stands for shows there. */
  read(table: LocationTable, position: number, buffer: Uint8Array, offset: number, length: number): Result {
    this.bytesRead = 0;
    try {
      let from = position;
      let to = offset;
      let left = length;
      while (left > 0) {
        const segment = this.#core.segmentAt(from);
        const at = from - segment.masterOffset;
        const pageIndex = Math.floor(at / PAGE_COVERS_BYTES);
        const inPage = at - pageIndex * PAGE_COVERS_BYTES;
        const chunk = Math.min(left, PAGE_COVERS_BYTES - inPage, segment.masterBytes - at);
        const page = this.#map.forReading(segment.firstPage + pageIndex);
        this.#readInPage(table, page, segment, at, inPage, buffer, to, chunk);
        from += chunk;
        to += chunk;
        left -= chunk;
      }
      return RESULT.OK;
    } catch {
      // The device's or the map's error is the command's: MEDIUM ERROR, for this range only.
      return RESULT.READ_ERROR;
    }
  }

  #readInPage(
    table: LocationTable,
    page: MapPage,
    segment: PlacedSegment,
    at: number,
    inPage: number,
    buffer: Uint8Array,
    offset: number,
    length: number,
  ): void {
    const { states } = page;
    const { store, counters } = this.#core;
    const end = inPage + length;
    let from = inPage;
    while (from < end) {
      const runEnd = Math.min(end, endOfRun(table, states, from, end));
      const location = table[states[from >>> BLOCK_SHIFT]];
      const to = offset + from - inPage;
      if (location === HOLE) buffer.fill(0, to, to + runEnd - from);
      else if (runEnd === end || !isInterleaved(table, states, from, Math.min(end, from + MERGE_BYTES))) {
        counters.dataReads++;
        this.bytesRead += runEnd - from;
        store.readSync(buffer, to, runEnd - from, half(segment, location) + at + from - inPage);
      } else {
        const mergeEnd = Math.min(end, from + MERGE_BYTES);
        this.#readMerged(table, states, segment, at - inPage, from, mergeEnd, buffer, to);
        from = mergeEnd;
        continue;
      }
      from = runEnd;
    }
  }

  /** Half A straight into the buffer, half B beside it, then each block of B, and each hole, over what A gave. */
  #readMerged(
    table: LocationTable,
    states: Uint8Array,
    segment: PlacedSegment,
    pageAt: number,
    from: number,
    end: number,
    buffer: Uint8Array,
    offset: number,
  ): void {
    const { store, counters } = this.#core;
    counters.dataReads += 2;
    const firstA = firstOf(IN_A, table, states, from, end);
    const lastA = endOfLast(IN_A, table, states, from, end);
    if (firstA < lastA) {
      this.bytesRead += lastA - firstA;
      store.readSync(buffer, offset + firstA - from, lastA - firstA, segment.halfA + pageAt + firstA);
    }
    const firstB = firstOf(IN_B, table, states, from, end);
    const lastB = endOfLast(IN_B, table, states, from, end);
    if (firstB < lastB) {
      this.bytesRead += lastB - firstB;
      store.readSync(this.#scratch, 0, lastB - firstB, segment.halfB + pageAt + firstB);
    }
    mergeBlocks(table, states, from, end, buffer, offset, this.#scratch, firstB);
  }

  /** As `read`, through the thread pool. */
  readAsync(
    table: LocationTable,
    position: number,
    buffer: Uint8Array,
    offset: number,
    length: number,
    done: ResultDone,
  ): void {
    const segment = this.#core.segmentAt(position);
    const at = position - segment.masterOffset;
    const pageIndex = Math.floor(at / PAGE_COVERS_BYTES);
    const inPage = at - pageIndex * PAGE_COVERS_BYTES;
    const end = inPage + length;
    const page = this.#map.cached(segment.firstPage + pageIndex);
    const simple =
      page !== undefined &&
      end <= PAGE_COVERS_BYTES &&
      at + length <= segment.masterBytes &&
      endOfRun(table, page.states, inPage, end) >= end;
    const location = simple ? table[page.states[inPage >>> BLOCK_SHIFT]] : HOLE;
    if (location !== HOLE) {
      this.#core.counters.dataReads++;
      this.#core.store.read(buffer, offset, length, half(segment, location) + at, (error) =>
        done(error === null ? RESULT.OK : RESULT.READ_ERROR),
      );
      return;
    }
    this.#readPieces(table, position, buffer, offset, length).then(
      () => done(RESULT.OK),
      () => done(RESULT.READ_ERROR),
    );
  }

  async #readPieces(
    table: LocationTable,
    position: number,
    buffer: Uint8Array,
    offset: number,
    length: number,
  ): Promise<void> {
    let from = position;
    while (from < position + length) {
      const segment = this.#core.segmentAt(from);
      const at = from - segment.masterOffset;
      const pageIndex = Math.floor(at / PAGE_COVERS_BYTES);
      const inPage = at - pageIndex * PAGE_COVERS_BYTES;
      const left = position + length - from;
      const chunk = Math.min(left, PAGE_COVERS_BYTES - inPage, segment.masterBytes - at, MERGE_BYTES);
      const { states } = await this.#map.load(segment.firstPage + pageIndex);
      const end = inPage + chunk;
      const to = offset + from - position;
      const reads: Promise<void>[] = [];
      const firstA = firstOf(IN_A, table, states, inPage, end);
      const lastA = endOfLast(IN_A, table, states, inPage, end);
      const firstB = firstOf(IN_B, table, states, inPage, end);
      const lastB = endOfLast(IN_B, table, states, inPage, end);
      // The states may change while the reads run, the locations read from must not be mixed up then.
      const seen = states.slice(inPage >>> BLOCK_SHIFT, (end + BLOCK_BYTES - 1) >>> BLOCK_SHIFT);
      const origin = inPage - (inPage % BLOCK_BYTES);
      const pageAt = at - inPage;
      if (firstA < lastA) {
        reads.push(
          this.#readPart(buffer, to + firstA - inPage, lastA - firstA, segment.halfA + pageAt + firstA),
        );
      }
      const scratch = firstB < lastB ? (this.#spare.pop() ?? Buffer.alloc(MERGE_BYTES)) : NOTHING;
      if (firstB < lastB)
        reads.push(this.#readPart(scratch, 0, lastB - firstB, segment.halfB + pageAt + firstB));
      await Promise.all(reads);
      mergeBlocks(table, seen, inPage - origin, end - origin, buffer, to, scratch, firstB - origin);
      // After a failed read the pool may still write to it: it is not used again then.
      if (scratch !== NOTHING && this.#spare.length < SPARE_MAX) this.#spare.push(scratch);
      from += chunk;
    }
  }

  #readPart(buffer: Uint8Array, offset: number, length: number, position: number): Promise<void> {
    this.#core.counters.dataReads++;
    return new Promise((resolve, reject) => {
      this.#core.store.read(buffer, offset, length, position, (error) =>
        error === null ? resolve() : reject(error),
      );
    });
  }
}

function half(segment: PlacedSegment, location: number): number {
  return location === IN_A ? segment.halfA : segment.halfB;
}

/** Positions here are bytes within the page. Where the run of one location that holds `from` ends; may be past `end`. */
export function endOfRun(table: LocationTable, states: Uint8Array, from: number, end: number): number {
  const last = (end - 1) >>> BLOCK_SHIFT;
  let index = from >>> BLOCK_SHIFT;
  const location = table[states[index]];
  do index++;
  while (index <= last && table[states[index]] === location);
  return index << BLOCK_SHIFT;
}

/** True if more than two runs of data lie in the range. */
function isInterleaved(table: LocationTable, states: Uint8Array, from: number, end: number): boolean {
  let runs = 0;
  for (let at = from; at < end; at = endOfRun(table, states, at, end)) {
    if (table[states[at >>> BLOCK_SHIFT]] !== HOLE && ++runs > 2) return true;
  }
  return false;
}

/** Where the first block of a location begins in the range, `end` if there is none. */
function firstOf(
  location: number,
  table: LocationTable,
  states: Uint8Array,
  from: number,
  end: number,
): number {
  const last = (end - 1) >>> BLOCK_SHIFT;
  let index = from >>> BLOCK_SHIFT;
  while (index <= last && table[states[index]] !== location) index++;
  return index > last ? end : Math.max(from, index << BLOCK_SHIFT);
}

/** Where the last block of a location ends in the range, `from` if there is none. */
function endOfLast(
  location: number,
  table: LocationTable,
  states: Uint8Array,
  from: number,
  end: number,
): number {
  const first = from >>> BLOCK_SHIFT;
  let index = (end - 1) >>> BLOCK_SHIFT;
  while (index >= first && table[states[index]] !== location) index--;
  return index < first ? from : Math.min(end, (index + 1) << BLOCK_SHIFT);
}

/** Puts the blocks that lie in half B (at `scratch`, from `scratchFrom` on) and zeros for holes into the buffer. */
function mergeBlocks(
  table: LocationTable,
  states: Uint8Array,
  from: number,
  end: number,
  buffer: Uint8Array,
  offset: number,
  scratch: Buffer,
  scratchFrom: number,
): void {
  for (let at = from; at < end;) {
    const runEnd = Math.min(end, endOfRun(table, states, at, end));
    const location = table[states[at >>> BLOCK_SHIFT]];
    const to = offset + at - from;
    if (location === HOLE) buffer.fill(0, to, to + runEnd - at);
    else if (location === IN_B) scratch.copy(buffer, to, at - scratchFrom, runEnd - scratchFrom);
    at = runEnd;
  }
}
