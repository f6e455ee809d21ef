/**
 * Durability: group commit and checkpoint, in one loop that runs as long as somebody waits for it.
 *
 * A round: capture the pending flips (and, during a checkpoint pass, the images of some dirty pages: in the same
 * moment, so that an image never holds a flip whose data is not yet durable) · fdatasync the data · write the journal
 * batch durably · tell those who wait · write the images' first twins · fdatasync · second twins · fdatasync · bitmap.
 * When a pass has been through all pages that were dirty at its start, the journal's tail moves to where the journal
 * ended at that moment.
 */

import assert from 'node:assert/strict';
import type { Core } from './core.js';
import { JOURNAL_BLOCK_BYTES, JOURNAL_BLOCK_RECORDS, PAGE_BYTES, PAGE_UNITS, pageOffset } from './format.js';
import type { ActivityLog } from './activity-log.js';
import type { Journal } from './journal.js';
import type { MapPage } from './map-page.js';
import type { PageMap } from './page-map.js';
import type { WrittenBitmap } from './written-bitmap.js';

export type CommitDone = (error?: Error) => void;

/** So many page images are captured at once: about 2 ms of work. */
const PASS_BATCH_PAGES = 128;

interface Pass {
  /** Where the journal's tail goes when the pass ends. */
  readonly tail: number;
  readonly pages: MapPage[];
  /** Who asked for it before it began. */
  readonly waiters: CommitDone[];
}

interface Captured {
  readonly batch: Buffer | undefined;
  readonly images: { page: MapPage; bytes: Buffer }[];
}

export class Committer {
  readonly #core: Core;
  readonly #map: PageMap;
  readonly #written: WrittenBitmap;
  readonly #activity: ActivityLog;
  readonly journal: Journal;
  #pending = new Uint32Array(1024);
  #pendingCount = 0;
  readonly #pendingMax: number;
  #waiters: CommitDone[] = [];
  #passWaiters: CommitDone[] = [];
  #pass: Pass | undefined;
  #passWanted = false;
  #commitWanted = false;
  #running = false;
  /** Resolves those who wait for room: for pending flips, in the journal, or in the page cache. */
  #roomWaiters: (() => void)[] = [];

  constructor(
    core: Core,
    parts: { map: PageMap; written: WrittenBitmap; activity: ActivityLog; journal: Journal },
  ) {
    this.#core = core;
    this.#map = parts.map;
    this.#written = parts.written;
    this.#activity = parts.activity;
    this.journal = parts.journal;
    const { journalBlocks } = core.superblock;
    this.#pendingMax = Math.floor(journalBlocks / 8) * JOURNAL_BLOCK_RECORDS;
  }

  /** False while writes that flip a state must wait for a commit or checkpoint. */
  get hasRoom(): boolean {
    const { journalBlocks } = this.#core.superblock;
    return (
      this.#pendingCount < this.#pendingMax - PAGE_UNITS && this.journal.usedBlocks < (journalBlocks * 3) / 4
    );
  }

  /** A state flipped: the unit joins the next commit. */
  noteFlip(page: MapPage, unit: number): void {
    page.dirty = true;
    if (page.pending[unit] !== 0) return;
    page.pending[unit] = 1;
    if (this.#pendingCount === this.#pending.length) {
      const larger = new Uint32Array(2 * this.#pending.length);
      larger.set(this.#pending);
      this.#pending = larger;
    }
    this.#pending[this.#pendingCount++] = page.number * PAGE_UNITS + unit;
    if (this.#pendingCount === this.#pendingMax >> 1) {
      this.#commitWanted = true;
      this.#start();
    }
  }

  /** Calls `done` when all that completed before this call is durable. Those who ask in one turn share one commit. */
  flush(done: CommitDone): void {
    this.#core.counters.flushes++;
    this.#waiters.push(done);
    this.#start();
  }

  flushed(): Promise<void> {
    return new Promise((resolve, reject) =>
      this.flush((error) => (error === undefined ? resolve() : reject(error))),
    );
  }

  /** Brings every page's twins up to date and empties the journal of what came before. */
  checkpoint(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#passWaiters.push((error) => (error === undefined ? resolve() : reject(error)));
      this.#passWanted = true;
      this.#start();
    });
  }

  /** Starts a checkpoint, and resolves when something has become free (or the partition failed). */
  room(): Promise<void> {
    return new Promise((resolve) => {
      this.#roomWaiters.push(resolve);
      this.#passWanted = true;
      this.#start();
    });
  }

  #start(): void {
    if (this.#running) return;
    this.#running = true;
    process.nextTick(() => void this.#run());
  }

  async #run(): Promise<void> {
    let group: CommitDone[] = [];
    try {
      while (this.#hasWork()) {
        this.#maybeStartPass();
        group = this.#waiters;
        this.#waiters = [];
        this.#commitWanted = false;
        const captured = await this.#commit();
        for (const done of group) done();
        group = [];
        await this.#writeImages(captured.images);
        if (this.#pass?.pages.length === 0) await this.#endPass(this.#pass);
        if (this.hasRoom && this.#map.hasRoom) this.#wakeRoomWaiters();
      }
    } catch (cause) {
      const error = this.#core.fail(cause);
      const told = [...group, ...this.#waiters, ...this.#passWaiters, ...(this.#pass?.waiters ?? [])];
      this.#waiters = [];
      this.#passWaiters = [];
      this.#pass = undefined;
      this.#passWanted = false;
      this.#commitWanted = false;
      for (const done of told) done(error);
    }
    // Those still waiting look again, and ask again if there still is no room.
    this.#wakeRoomWaiters();
    this.#running = false;
    if (this.#hasWork()) this.#start();
  }

  #hasWork(): boolean {
    return this.#waiters.length > 0 || this.#commitWanted || this.#passWanted || this.#pass !== undefined;
  }

  #maybeStartPass(): void {
    if (this.#pass !== undefined) return;
    const { journalBlocks } = this.#core.superblock;
    if (!this.#passWanted && this.journal.usedBlocks <= journalBlocks / 2) {
      if (this.#core.counters.journalCommits % 16 !== 0) return;
      if ([...this.#map.dirtyPages()].length <= this.#map.maxPages / 2) return;
    }
    this.#passWanted = false;
    this.#pass = {
      tail: this.journal.nextLsn,
      pages: [...this.#map.dirtyPages()],
      waiters: this.#passWaiters,
    };
    this.#passWaiters = [];
    if (!this.#core.does('checkpoint: move tail after pages')) this.journal.tail = this.#pass.tail;
  }

  /** Makes everything up to now durable. */
  async #commit(): Promise<Captured> {
    let captured = this.#capture();
    await this.#core.sync('commit: sync data', true);
    if (!this.#core.does('commit: capture before the data sync')) captured = this.#capture();
    const { batch } = captured;
    if (batch === undefined) return captured;
    if (this.#core.does('commit: write journal')) {
      await this.#append(batch);
    }
    return captured;
  }

  #capture(): Captured {
    const { superblock } = this.#core;
    let batch: Buffer | undefined;
    if (this.#pendingCount > 0) {
      const facts = {
        epoch: superblock.epoch,
        generation: superblock.generation,
        divergedBlocks: this.#core.divergedBlocks,
      };
      batch = this.journal.encode(this.#pending, this.#pendingCount, (page) => this.#pageOf(page), facts);
      for (let index = 0; index < this.#pendingCount; index++) {
        const unit = this.#pending[index];
        this.#pageOf(Math.floor(unit / PAGE_UNITS)).pending[unit % PAGE_UNITS] = 0;
      }
      this.#pendingCount = 0;
    }
    const pages = this.#pass?.pages.splice(0, PASS_BATCH_PAGES) ?? [];
    return { batch, images: pages.map((page) => ({ page, bytes: this.#image(page) })) };
  }

  /** Pending units' pages are dirty, and dirty pages stay in memory. */
  #pageOf(number: number): MapPage {
    const page = this.#map.cached(number);
    assert(page !== undefined, 'a map page left the cache with flips pending');
    return page;
  }

  #image(page: MapPage): Buffer {
    const { superblock } = this.#core;
    const bytes = Buffer.alloc(PAGE_BYTES);
    page.dirty = false;
    page.writing = true;
    page.sequence++;
    page.encode(bytes, 0, superblock.uuid, superblock.generation);
    return bytes;
  }

  /** Not by a sync, which would wait for all that was written since the last one, too. */
  async #append(batch: Buffer): Promise<void> {
    const { counters } = this.#core;
    counters.journalCommits++;
    counters.journalBlocks += batch.length / JOURNAL_BLOCK_BYTES;
    const placed = this.journal.place(batch);
    for (const { bytes, positions } of placed.pieces)
      await this.#core.writeTwice(bytes, positions, 'commit: sync journal', true);
    this.journal.settle(placed);
  }

  async #writeImages(images: Captured['images']): Promise<void> {
    if (images.length === 0) return;
    const core = this.#core;
    for (const turn of ['first', 'second'] as const) {
      if (!core.does(`checkpoint: write ${turn} twin`)) continue;
      for (const image of images) {
        if (!core.does('checkpoint: only committed flips')) {
          image.page.encode(image.bytes, 0, core.superblock.uuid, core.superblock.generation);
        }
        const { number } = image.page;
        const first = core.does('checkpoint: not over the only whole twin') ? image.page.firstTwin : 0;
        const twin = turn === 'first' ? first : 1 - first;
        core.writeMetadata(image.bytes, pageOffset(core.segmentOfPage(number), number, twin));
        core.counters.mapPagesWritten++;
      }
      if (turn === 'first' && !core.does('checkpoint: bitmap after pages')) await this.#writeBitmap(images);
      await core.sync(`checkpoint: sync ${turn} twin`);
    }
    await this.#writeBitmap(images);
    for (const { page } of images) page.writing = false;
  }

  async #writeBitmap(images: Captured['images']): Promise<void> {
    for (const { page } of images) if (!this.#written.has(page.number)) this.#written.set(page.number);
    if (!this.#written.isDirty || !this.#core.does('checkpoint: write bitmap')) return;
    await writeBitmap(this.#core, this.#written);
  }

  async #endPass(pass: Pass): Promise<void> {
    this.#core.counters.checkpoints++;
    this.#retireActivity();
    if (pass.tail > this.journal.durableTail) {
      this.journal.tail = pass.tail;
      const { superblock, divergedBlocks } = this.#core;
      const facts = { epoch: superblock.epoch, generation: superblock.generation, divergedBlocks };
      await this.#appendMark(facts);
    }
    this.#pass = undefined;
    for (const done of pass.waiters) done();
  }

  /** What the pass made durable needs no listing. A list with much room stays as it is: most of it will be wanted again. */
  #retireActivity(): void {
    if (this.#activity.hasRoom(this.#activity.capacity / 2)) return;
    const keeps = this.#core.does('activity: keep until the page is durable');
    this.#activity.retire((number) => keeps && this.#map.cached(number)?.settled === false);
    this.#map.forEachCached((page) => (page.active = this.#activity.activeExtents(page.number)));
  }

  /** A batch without records, to make the new tail durable. Its block count must not claim uncommitted divergence. */
  async #appendMark(facts: { epoch: number; generation: number; divergedBlocks: number }): Promise<void> {
    const captured = this.#capture();
    if (captured.batch !== undefined) await this.#core.sync('commit: sync data');
    const mark = captured.batch ?? this.journal.encode(this.#pending, 0, (page) => this.#pageOf(page), facts);
    await this.#append(mark);
  }

  #wakeRoomWaiters(): void {
    const waiting = this.#roomWaiters;
    this.#roomWaiters = [];
    for (const resolve of waiting) resolve();
  }
}

/** Writes the dirty bitmap blocks, one twin after the other. */
export async function writeBitmap(core: Core, written: WrittenBitmap): Promise<void> {
  const blocks = written.takeDirty();
  for (let twin = 0; twin < 2; twin++) {
    for (const { bytes, positions } of blocks) core.writeMetadata(bytes, positions[twin]);
    await core.sync();
  }
}
