/**
 * Pacing: written data that no sync has begun for is bounded, so that the kernel never has to stop the daemon, and all
 * its sessions with it, in the middle of a write (balance_dirty_pages does so when some 15 % of the memory is dirty),
 * and so that a flush has a bounded amount to wait for. Half of the bound begins a sync in the background; at the bound
 * writes wait for it, each for itself, while reads and other targets go on.
 */

import { totalmem } from 'node:os';

const MIB = 2 ** 20;
const BOUND_MIN_BYTES = 16 * MIB;
const BOUND_MAX_BYTES = 2048 * MIB;
/** Well below the 15 % of which the kernel makes sure; other programs' dirty data count there, too. */
const MEMORY_SHARE = 1 / 16;

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
  #unsyncedBytes = 0;
  #syncing = 0;
  #waiting: (() => void)[] = [];

  /** `startSync` begins a sync of the store, which reports itself by `syncBegins` and `syncEnds`. */
  constructor(boundBytes: number, startSync: () => void) {
    this.#boundBytes = boundBytes;
    this.#startSync = startSync;
  }

  /** True while writes have to wait. */
  get isFull(): boolean {
    return this.#unsyncedBytes >= this.#boundBytes;
  }

  wrote(bytes: number): void {
    this.#unsyncedBytes += bytes;
    if (this.#unsyncedBytes >= this.#boundBytes / 2 && this.#syncing === 0) this.#startSync();
  }

  /** Answers what `syncEnds` wants to know: the bytes that this sync will make durable. */
  syncBegins(): number {
    this.#syncing++;
    return this.#unsyncedBytes;
  }

  /** `bytes`: of `syncBegins`, or 0 if the sync failed. Syncs may overlap. */
  syncEnds(bytes: number): void {
    this.#syncing--;
    this.#unsyncedBytes = Math.max(0, this.#unsyncedBytes - bytes);
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
