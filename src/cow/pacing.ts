/**
 * Pacing: written data that no sync has begun for is bounded, so that the kernel never has to stop the daemon, and all
 * its sessions with it, in the middle of a write (balance_dirty_pages does so when some 15 % of the memory is dirty),
 * and so that a flush has a bounded amount to wait for. Half of the bound begins a sync in the background; at the bound
 * writes wait for it, each for itself, while reads and other targets go on.
 *
 * What is written again before a sync is in memory once. So the store is counted in areas, none of which counts for more
 * than it holds: who overwrites one region again and again has no sync begun for that. To count each write had cost large
 * writes of 256 MiB an eighth of their rate (docs/performance.md).
 */

import { totalmem } from 'node:os';

const MIB = 2 ** 20;
const BOUND_MIN_BYTES = 16 * MIB;
const BOUND_MAX_BYTES = 2048 * MIB;
/** Well below the 15 % of which the kernel makes sure; other programs' dirty data count there, too. */
const MEMORY_SHARE = 1 / 16;
/** At most, and their least size: tables of 768 KiB at most for each partition. */
const AREAS_MAX = 65_536;
const AREA_BYTES_MIN = MIB / 16;
/** What the kernel writes at once, however little of it has changed. */
const PAGE_BYTES = 4096;

/** The bound for a machine, or a control group, with so much memory. */
export function pacingBytes(memoryBytes: number = memory()): number {
  return Math.min(BOUND_MAX_BYTES, Math.max(BOUND_MIN_BYTES, memoryBytes * MEMORY_SHARE));
}

/** A control group without a limit reports an absurdly large one, and no control group reports 0 or nothing. */
function memory(): number {
  const limit = process.constrainedMemory();
  return limit > 0 ? Math.min(limit, totalmem()) : totalmem();
}

export class Pacing {
  readonly #boundBytes: number;
  readonly #startSync: () => void;
  readonly #areaBytes: number;
  /** Bytes written to each area since `#rounds` says; behind the last area, which is where a store grows, nothing is kept. */
  readonly #written: Float64Array;
  readonly #rounds: Uint32Array;
  /** One more with every sync that begins: what is written from there on is not part of it. */
  #round = 1;
  /** All that was counted since the start, and up to where it is durable. */
  #countedBytes = 0;
  #durableBytes = 0;
  #syncing = 0;
  #waiting: (() => void)[] = [];

  /** `startSync` begins a sync of the store, which reports itself by `syncBegins` and `syncEnds`. */
  constructor(boundBytes: number, storeBytes: number, startSync: () => void) {
    this.#boundBytes = boundBytes;
    this.#startSync = startSync;
    const pages = Math.ceil(storeBytes / AREAS_MAX / PAGE_BYTES);
    this.#areaBytes = Math.max(AREA_BYTES_MIN, pages * PAGE_BYTES);
    const areas = Math.ceil(storeBytes / this.#areaBytes);
    this.#written = new Float64Array(areas);
    this.#rounds = new Uint32Array(areas);
  }

  /** Written, and not known to be durable. */
  get unsyncedBytes(): number {
    return this.#countedBytes - this.#durableBytes;
  }

  /** True while writes have to wait. */
  get isFull(): boolean {
    return this.unsyncedBytes >= this.#boundBytes;
  }

  /** Bytes [position, position + length) of the store were written. */
  wrote(position: number, length: number): void {
    const areaBytes = this.#areaBytes;
    const end = Math.ceil((position + length) / PAGE_BYTES) * PAGE_BYTES;
    for (let from = position - (position % PAGE_BYTES); from < end;) {
      const area = Math.floor(from / areaBytes);
      const to = Math.min(end, (area + 1) * areaBytes);
      const before = this.#rounds[area] === this.#round ? this.#written[area] : 0;
      const after = Math.min(areaBytes, before + to - from);
      this.#rounds[area] = this.#round;
      this.#written[area] = after;
      this.#countedBytes += after - before;
      from = to;
    }
    if (this.unsyncedBytes >= this.#boundBytes / 2 && this.#syncing === 0) this.#startSync();
  }

  /** Answers what `syncEnds` wants to know: up to where this sync will make durable what was written. */
  syncBegins(): number {
    this.#syncing++;
    this.#round = (this.#round + 1) >>> 0;
    return this.#countedBytes;
  }

  /** `upTo`: of `syncBegins`, or 0 if the sync failed. Syncs may overlap. */
  syncEnds(upTo: number): void {
    this.#syncing--;
    this.#durableBytes = Math.max(this.#durableBytes, upTo);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }

  /** Resolves when the next sync has ended; the caller looks again then. */
  room(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      if (this.#syncing === 0) this.#startSync();
    });
  }
}
