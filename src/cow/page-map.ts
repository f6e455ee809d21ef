/**
 * The map pages that are in memory: a directory with one entry per page, and a bounded cache with a clock hand.
 * Only settled pages leave the cache. Pages come out normalised to the current epoch.
 */

import { PAGE_BYTES, pageOffset } from './format.js';
import type { PlacedSegment } from './format.js';
import { MapPage } from './map-page.js';
import { OperationalError } from '../operational-error.js';
import { readStore } from './store.js';
import type { Store } from './store.js';
import { transitionOf } from './superblock.js';
import type { Superblock } from './superblock.js';
import type { WrittenBitmap } from './written-bitmap.js';

export class PageMap {
  readonly #store: Store;
  readonly #superblock: Superblock;
  readonly #segments: PlacedSegment[];
  readonly #written: WrittenBitmap;
  readonly #maxPages: number;
  readonly #directory: (MapPage | undefined)[];
  readonly #cache: MapPage[] = [];
  readonly #empty: MapPage;
  /** Pages whose first twin is being read through the pool, and how often. */
  readonly #loading = new Map<number, number>();
  #hand = 0;
  /** Pages whose first twin was bad and that the second one saved. */
  repairedPages = 0;

  constructor(
    store: Store,
    superblock: Superblock,
    segments: PlacedSegment[],
    written: WrittenBitmap,
    maxPages: number,
  ) {
    this.#store = store;
    this.#superblock = superblock;
    this.#segments = segments;
    this.#written = written;
    this.#maxPages = maxPages;
    const last = segments[segments.length - 1];
    this.#directory = new Array<MapPage | undefined>(last.firstPage + last.pages).fill(undefined);
    this.#empty = new MapPage(-1, superblock.epoch);
  }

  get maxPages(): number {
    return this.#maxPages;
  }

  /** Takes in the pages of a further segment. */
  extend(pages: number): void {
    for (let count = 0; count < pages; count++) this.#directory.push(undefined);
  }

  /** The page if it is in memory. */
  cached(number: number): MapPage | undefined {
    const page = this.#directory[number];
    return page === undefined ? undefined : this.#current(page);
  }

  #current(page: MapPage): MapPage {
    page.used = true;
    if (page.epoch !== this.#superblock.epoch) this.#normalise(page);
    return page;
  }

  /** True if the page was never used at all: then it is all holes. */
  isBlank(number: number): boolean {
    return this.#directory[number] === undefined && !this.#written.has(number);
  }

  /**
   * The page for a look, read at once if need be.
   * @throws OperationalError DAMAGED_MAP if neither twin is whole.
   */
  forReading(number: number): MapPage {
    const page = this.cached(number);
    if (page !== undefined) return page;
    if (!this.#written.has(number)) return this.#empty;
    const first = Buffer.allocUnsafe(PAGE_BYTES);
    this.#readTwin(number, 0, first);
    return this.#adopt(number, first);
  }

  /** As `forReading`, through the thread pool. */
  async load(number: number): Promise<MapPage> {
    const page = this.cached(number);
    if (page !== undefined) return page;
    if (!this.#written.has(number)) return this.#empty;
    const first = Buffer.allocUnsafe(PAGE_BYTES);
    this.#countLoading(number, 1);
    await readStore(this.#store, first, pageOffset(this.#segmentOf(number), number, 0)).catch(() =>
      first.fill(0),
    );
    this.#countLoading(number, -1);
    // Another reader may have brought it in, and changed it, meanwhile.
    return this.cached(number) ?? this.#adopt(number, first);
  }

  #countLoading(number: number, more: number): void {
    const count = (this.#loading.get(number) ?? 0) + more;
    if (count === 0) this.#loading.delete(number);
    else this.#loading.set(number, count);
  }

  /** The page for a change, if it is at hand without reading. Undefined: load it, or wait for a checkpoint. */
  forWriting(number: number): MapPage | undefined {
    const page = this.cached(number);
    if (page !== undefined || this.#written.has(number)) return page;
    return this.#insert(new MapPage(number, this.#superblock.epoch));
  }

  /**
   * The page in its own epoch, taken into the cache whatever its bound: for the replay of the journal, which may name
   * the pages of two cachefuls. A page that has no place on disk begins in epoch 0.
   */
  force(number: number): MapPage {
    const present = this.#directory[number];
    if (present !== undefined) return present;
    let page = new MapPage(number, 0);
    if (this.#written.has(number)) {
      const first = Buffer.allocUnsafe(PAGE_BYTES);
      this.#readTwin(number, 0, first);
      page = this.#decode(number, first);
    }
    this.#cache.push(page);
    this.#directory[number] = page;
    return page;
  }

  /** As `force`, in the current epoch. */
  forced(number: number): MapPage {
    return this.#current(this.force(number));
  }

  get hasRoom(): boolean {
    return this.#cache.length < this.#maxPages || this.#cache.some((page) => this.#mayLeave(page));
  }

  *dirtyPages(): Generator<MapPage> {
    for (const page of this.#cache) if (page.dirty) yield page;
  }

  forEachCached(visit: (page: MapPage) => void): void {
    for (const page of this.#cache) visit(page);
  }

  #adopt(number: number, first: Buffer): MapPage {
    const page = this.#decode(number, first);
    if (page.epoch !== this.#superblock.epoch) this.#normalise(page);
    // A cache full of unsettled pages can't take it; it then serves this one look.
    this.#insert(page);
    return page;
  }

  #decode(number: number, first: Buffer): MapPage {
    let page = MapPage.decode(first, this.#superblock.uuid, number);
    if (page !== undefined) page.firstTwin = 1;
    else {
      this.#readTwin(number, 1, first);
      page = MapPage.decode(first, this.#superblock.uuid, number);
      if (page === undefined) {
        throw new OperationalError(
          'DAMAGED_MAP',
          `map page ${number} is unreadable in both twins; 'cldd check' tells which data that concerns`,
        );
      }
      page.dirty = true;
      this.repairedPages++;
    }
    const { epoch, historyBase } = this.#superblock;
    if (page.epoch > epoch) {
      throw new OperationalError('DAMAGED_MAP', `map page ${number} is newer than the superblock`);
    }
    if (page.epoch < historyBase) {
      throw new OperationalError('DAMAGED_MAP', `map page ${number} is older than the superblock's history`);
    }
    return page;
  }

  #readTwin(number: number, twin: number, into: Buffer): void {
    try {
      this.#store.readSync(into, 0, PAGE_BYTES, pageOffset(this.#segmentOf(number), number, twin));
    } catch (error) {
      // The other twin may still answer; without one, the page is reported as damaged.
      if (twin === 1) {
        throw new OperationalError('DAMAGED_MAP', `map page ${number} can't be read`, { cause: error });
      }
      into.fill(0);
    }
  }

  #normalise(page: MapPage): void {
    page.normalise(transitionOf(this.#superblock, page.epoch), this.#superblock.epoch);
  }

  #segmentOf(number: number): PlacedSegment {
    let index = this.#segments.length - 1;
    while (number < this.#segments[index].firstPage) index--;
    return this.#segments[index];
  }

  #insert(page: MapPage): MapPage | undefined {
    if (this.#cache.length < this.#maxPages) this.#cache.push(page);
    else {
      const slot = this.#findVictim();
      if (slot === undefined) return undefined;
      this.#directory[this.#cache[slot].number] = undefined;
      this.#cache[slot] = page;
    }
    this.#directory[page.number] = page;
    return page;
  }

  /**
   * While its twin is being read for somebody, it stays: else it could come in, change, be written and leave again, and
   * what was read before all that would be taken for the page.
   */
  #mayLeave(page: MapPage): boolean {
    return page.settled && !this.#loading.has(page.number);
  }

  /** Two turns of the clock: the first takes away the mark of use, the second finds a page without. */
  #findVictim(): number | undefined {
    for (let step = 0; step < 2 * this.#cache.length; step++) {
      const slot = this.#hand;
      this.#hand = (slot + 1) % this.#cache.length;
      const page = this.#cache[slot];
      if (!this.#mayLeave(page)) continue;
      if (!page.used) return slot;
      page.used = false;
    }
    return undefined;
  }
}
