/**
 * What the parts of an open partition share: the store, the superblock as it now is, where things lie, and what
 * happens when the device fails.
 */

import { BLOCK_BYTES } from './states.js';
import { SUPERBLOCK_OFFSETS, placeSegments } from './format.js';
import type { PlacedSegment } from './format.js';
import { Pacing, pacingBytes } from './pacing.js';
import type { QuickSyncs } from './quick-syncs.js';
import { ALL_STEPS } from './steps.js';
import type { Step, Steps } from './steps.js';
import { syncStore, writeStoreDurably } from './store.js';
import type { Store } from './store.js';
import { encodeSuperblock } from './superblock.js';
import type { Superblock } from './superblock.js';
import { asError } from '../thrown.js';

/** Counted since the partition was opened. */
export interface Counters {
  dataWrites: number;
  dataBytesWritten: number;
  dataReads: number;
  /** Blocks that got a new location because the slave or a hole had the old one. */
  firstOverwrites: number;
  metadataWrites: number;
  metadataBytesWritten: number;
  flushes: number;
  syncs: number;
  journalCommits: number;
  journalBlocks: number;
  checkpoints: number;
  mapPagesWritten: number;
  activityWrites: number;
}

export class Core {
  readonly store: Store;
  /** One object for the partition's life; a transition changes it once the new version is durable. */
  readonly superblock: Superblock;
  readonly segments: PlacedSegment[];
  readonly does: Steps;
  readonly pacing: Pacing;
  readonly #quickSyncs: QuickSyncs | undefined;
  /** Syncs, and durable writes, that wait for the device in the pool. */
  readonly #syncs = new Set<Promise<void>>();
  readonly #durableWrites = new Set<Promise<void>>();
  readonly counters: Counters = {
    dataWrites: 0,
    dataBytesWritten: 0,
    dataReads: 0,
    firstOverwrites: 0,
    metadataWrites: 0,
    metadataBytesWritten: 0,
    flushes: 0,
    syncs: 0,
    journalCommits: 0,
    journalBlocks: 0,
    checkpoints: 0,
    mapPagesWritten: 0,
    activityWrites: 0,
  };
  capacityBytes: number;
  /** Blocks of the master that differ from the slave. */
  divergedBlocks = 0;
  /** The error that ended all writing. */
  failure: Error | undefined;
  #onFailure: ((error: Error) => void) | undefined;

  constructor(
    store: Store,
    superblock: Superblock,
    does: Steps = ALL_STEPS,
    unsyncedBytesMax: number = pacingBytes(),
    quickSyncs?: QuickSyncs,
  ) {
    this.store = store;
    this.superblock = superblock;
    this.segments = placeSegments(superblock.segments);
    this.capacityBytes = capacityOf(this.segments);
    this.does = does;
    this.#quickSyncs = quickSyncs;
    // A sync that fails has said so by `fail`, and whoever waits for it looks for that.
    this.pacing = new Pacing(
      unsyncedBytesMax,
      store.sizeBytes,
      () => void this.sync().catch((error: unknown) => this.fail(error)),
    );
  }

  onFailure(listener: (error: Error) => void): void {
    this.#onFailure = listener;
  }

  /** Ends all writing for good: after a failed write or sync nobody knows what the disk holds. */
  fail(cause: unknown): Error {
    const error = asError(cause);
    if (this.failure === undefined && this.does('fail-stop')) {
      this.failure = error;
      this.#onFailure?.(error);
    }
    return error;
  }

  /** The segment that holds a position of the master. */
  segmentAt(position: number): PlacedSegment {
    let index = this.segments.length - 1;
    while (position < this.segments[index].masterOffset) index--;
    return this.segments[index];
  }

  segmentOfPage(page: number): PlacedSegment {
    let index = this.segments.length - 1;
    while (page < this.segments[index].firstPage) index--;
    return this.segments[index];
  }

  get totalPages(): number {
    const last = this.segments[this.segments.length - 1];
    return last.firstPage + last.pages;
  }

  writeMetadata(bytes: Buffer, position: number): void {
    if (this.failure !== undefined) throw this.failure;
    this.counters.metadataWrites++;
    this.counters.metadataBytesWritten += bytes.length;
    try {
      this.store.writeSync(bytes, 0, bytes.length, position);
    } catch (error) {
      throw this.fail(error);
    }
  }

  /** fdatasync; `step` names the rule that asks for it. For a `commit` in this thread, if that is quicker. */
  async sync(step?: Step | 'state', commit = false): Promise<void> {
    if (this.failure !== undefined) throw this.failure;
    if (step !== undefined && step !== 'state' && !this.does(step)) return;
    this.counters.syncs++;
    const upTo = this.pacing.syncBegins();
    let synced = 0;
    const quick = commit ? this.#quickSyncs : undefined;
    quick?.begins();
    try {
      if (quick?.atOnce(this.pacing.unsyncedBytes) === true) this.store.syncAtOnce();
      else await this.#among(this.#syncs, syncStore(this.store));
      quick?.ends();
      await this.#others(this.#syncs);
      synced = upTo;
    } catch (error) {
      throw this.fail(error);
    } finally {
      this.pacing.syncEnds(synced);
    }
  }

  async #among(waits: Set<Promise<void>>, wait: Promise<void>): Promise<void> {
    waits.add(wait);
    try {
      await wait;
    } catch (error) {
      throw this.fail(error);
    } finally {
      waits.delete(wait);
    }
  }

  /**
   * A write-back that failed is told once to each open file description (Linux, since 4.13): of two waits beside each
   * other one gets the error, and the other may hear that all is well. So it is well only when those are over, too.
   */
  async #others(waits: ReadonlySet<Promise<void>>): Promise<void> {
    if (waits.size > 0) await Promise.allSettled(waits);
    if (this.failure !== undefined) throw this.failure;
  }

  /** Resolves when nothing waits for the device any more: before the store is closed. */
  async idle(): Promise<void> {
    while (this.#syncs.size + this.#durableWrites.size > 0)
      await Promise.allSettled([...this.#syncs, ...this.#durableWrites]);
  }

  /**
   * Writes two copies, and waits until the first is durable; `step` names the rule that asks for it. The second follows
   * with the next sync: until then no more than the one copy that is being written can be damaged. `commit`: as in `sync`.
   */
  async writeTwice(
    bytes: Buffer,
    positions: readonly [number, number],
    step: Step,
    commit = false,
  ): Promise<void> {
    this.writeMetadata(bytes, positions[1]);
    if (!this.does(step)) {
      this.writeMetadata(bytes, positions[0]);
      return;
    }
    this.counters.metadataWrites++;
    this.counters.metadataBytesWritten += bytes.length;
    this.counters.syncs++;
    const quick = commit ? this.#quickSyncs : undefined;
    quick?.begins();
    try {
      if (quick?.atOnce(bytes.length) === true) this.store.writeDurablyAtOnce(bytes, positions[0]);
      else await this.#among(this.#durableWrites, writeStoreDurably(this.store, bytes, positions[0]));
      quick?.ends();
      await this.#others(this.#durableWrites);
    } catch (error) {
      throw this.fail(error);
    }
  }

  /**
   * Makes `next` durable as the new superblock and then the current one. `also` does in the same moment what has to agree
   * with it: a commit that comes between would note the new epoch with facts of the old one.
   */
  async replaceSuperblock(next: Superblock, also?: () => void): Promise<void> {
    next.sequence = this.superblock.sequence + 1;
    const bytes = encodeSuperblock(next);
    if (this.does('transition: write superblock')) {
      for (const position of SUPERBLOCK_OFFSETS.slice(0, 2)) this.writeMetadata(bytes, position);
      await this.sync('transition: sync first copies');
      for (const position of SUPERBLOCK_OFFSETS.slice(2)) this.writeMetadata(bytes, position);
      await this.sync();
    }
    Object.assign(this.superblock, next);
    also?.();
  }

  /**
   * Gives every copy the newest version. Until then that may be in a single copy, one of the two that the next
   * version overwrites first.
   */
  async levelSuperblock(): Promise<void> {
    const bytes = encodeSuperblock(this.superblock);
    let level = true;
    for (const position of SUPERBLOCK_OFFSETS) {
      if (this.#holds(bytes, position)) continue;
      level = false;
      this.writeMetadata(bytes, position);
    }
    if (!level) await this.sync();
  }

  #holds(bytes: Buffer, position: number): boolean {
    const found = Buffer.alloc(bytes.length);
    try {
      this.store.readSync(found, 0, found.length, position);
    } catch {
      // A sector that can't be read is one to be written again: that is what mends it, if anything does.
      return false;
    }
    return found.equals(bytes);
  }

  /** A copy to change and hand to `replaceSuperblock`. */
  nextSuperblock(): Superblock {
    const { superblock } = this;
    return { ...superblock, history: Buffer.from(superblock.history), segments: [...superblock.segments] };
  }
}

export function capacityOf(segments: readonly PlacedSegment[]): number {
  const last = segments[segments.length - 1];
  return last.masterOffset + last.blocks * BLOCK_BYTES;
}
