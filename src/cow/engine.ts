/**
 * An open partition over a store: recovery at open, the three transitions (enable, disable, rollback), and what a
 * write that can't go ahead waits for. docs/engine.md argues why each step comes where it does.
 */

import assert from 'node:assert/strict';
import type { ActivityLog } from './activity-log.js';
import { Committer, writeBitmap } from './committer.js';
import type { Core } from './core.js';
import { PAGE_COVERS_BYTES, PAGE_EXTENTS } from './format.js';
import type { PlacedSegment } from './format.js';
import type { MapPage } from './map-page.js';
import type { PageMap } from './page-map.js';
import { OperationalError } from '../operational-error.js';
import { Reader } from './reader.js';
import { recover } from './recovery.js';
import type { EngineOptions, EngineParts } from './recovery.js';
import { RESULT } from './results.js';
import type { Result } from './results.js';
import type { StateArea } from './state-area.js';
import { DROP, FOLD } from './states.js';
import type { Transition } from './states.js';
import type { Store } from './store.js';
import { HISTORY_EPOCHS, endEpoch } from './superblock.js';
import type { Superblock } from './superblock.js';
import type { WrittenBitmap } from './written-bitmap.js';
import { Writer } from './writer.js';

export class Engine {
  readonly core: Core;
  readonly map: PageMap;
  readonly reader: Reader;
  readonly writer: Writer;
  readonly committer: Committer;
  readonly state: StateArea;
  readonly #written: WrittenBitmap;
  readonly #activity: ActivityLog;
  #transition: Promise<unknown> = Promise.resolve();
  #released: Promise<void> | undefined;
  #activation: Promise<void> | undefined;
  #wantedExtents = new Map<number, number>();
  #slaveReads = 0;
  #slaveIdle: (() => void) | undefined;
  #closing = false;
  /** The slave is about to be disabled: it takes no new reads. */
  slaveLeaving = false;

  constructor(parts: EngineParts) {
    this.core = parts.core;
    this.map = parts.map;
    this.state = parts.state;
    this.#written = parts.written;
    this.#activity = parts.activity;
    this.committer = new Committer(parts.core, parts);
    this.reader = new Reader(parts.core, parts.map);
    this.writer = new Writer(parts.core, parts.map, this.committer);
  }

  /**
   * Opens what `init` or an earlier run left on the store, recovering from a crash if need be.
   * @throws OperationalError NOT_CLDD, DAMAGED, DEVICE_SHRUNK or UNKNOWN_FORMAT; nothing is written then
   */
  static async open(store: Store, options: EngineOptions = {}): Promise<Engine> {
    const { parts, marked, divergedBlocks } = await recover(store, options);
    const engine = new Engine(parts);
    await engine.#startSession(marked, divergedBlocks);
    return engine;
  }

  /** Brings all structures level, so that from here on every twin can stand in for the other; then marks the session. */
  async #startSession(approximateGeneration: number, divergedBlocks: number): Promise<void> {
    const { core } = this;
    const { clean } = core.superblock;
    core.divergedBlocks = divergedBlocks;
    if (core.does('open: make superblock copies equal')) await core.levelSuperblock();
    await this.committer.checkpoint();
    if (core.does('open: number on behind a torn batch')) this.committer.journal.skipRemains();
    if (this.#written.isDirty) await writeBitmap(core, this.#written);
    await this.state.makeLevel();
    // After a crash the list is needed until the superblock says what became of it; before, it is only a leftover.
    if (clean) await this.#emptyActivityLog();
    const next = core.nextSuperblock();
    next.clean = !core.does('open: mark unclean before the first write');
    next.approximateGeneration = Math.max(next.approximateGeneration, approximateGeneration);
    this.#setJournal(next);
    await core.replaceSuperblock(next);
    if (!clean) await this.#emptyActivityLog();
  }

  async #emptyActivityLog(): Promise<void> {
    const { bytes, positions } = this.#activity.encode();
    for (const position of positions) this.core.writeMetadata(bytes, position);
    await this.core.sync();
  }

  #setJournal(superblock: Superblock): void {
    superblock.nextLsn = this.committer.journal.durableLsn;
    superblock.tailLsn = this.committer.journal.durableTail;
    superblock.divergedBlocks = this.core.divergedBlocks;
  }

  /** The slave becomes what the master now is. `check` may refuse, after everything was flushed. */
  enable(check?: () => Promise<void> | void): Promise<void> {
    return this.#exclusively(async () => {
      const { core } = this;
      if (core.superblock.enabled) {
        throw new OperationalError('ALREADY_ENABLED', 'the slave is enabled already: disable it first');
      }
      await this.#flushForTransition();
      await check?.();
      const next = core.nextSuperblock();
      next.enabled = true;
      next.generation++;
      next.enabledAt = Date.now();
      this.#setJournal(next);
      await core.replaceSuperblock(next, () => {
        if (!core.does('activity: a new generation begins empty')) return;
        this.#activity.startGeneration();
        this.map.forEachCached((page) => (page.active = 0));
      });
    });
  }

  /** The slave's medium goes; what it kept alone is free again. */
  disable(): Promise<void> {
    return this.#exclusively(async () => {
      this.#requireEnabled();
      this.slaveLeaving = true;
      try {
        await this.#slaveReadsDone();
        await this.#endEpoch(FOLD, false);
      } finally {
        this.slaveLeaving = false;
      }
    });
  }

  /** The master becomes the slave's image again; the slave stays enabled and as it is. */
  rollback(): Promise<void> {
    return this.#exclusively(async () => {
      this.#requireEnabled();
      await this.#endEpoch(this.core.does('rollback: drop') ? DROP : FOLD, true);
    });
  }

  #requireEnabled(): void {
    if (!this.core.superblock.enabled) throw new OperationalError('NOT_ENABLED', 'the slave is not enabled');
  }

  async #endEpoch(transition: Transition, enabled: boolean): Promise<void> {
    const { core } = this;
    await this.#flushForTransition();
    if (core.superblock.epoch + 1 - core.superblock.historyBase >= HISTORY_EPOCHS) await this.#renewHistory();
    const next = core.nextSuperblock();
    next.enabled = enabled;
    if (core.does('transition: new epoch')) endEpoch(next, transition);
    this.#setJournal(next);
    next.divergedBlocks = 0;
    await core.replaceSuperblock(next, () => (core.divergedBlocks = 0));
  }

  async #flushForTransition(): Promise<void> {
    if (this.core.does('transition: flush')) await this.committer.flushed();
  }

  /** Normalises every page that was ever used, on the disc or not, so that none needs the epochs before this one. */
  async #renewHistory(): Promise<void> {
    const { core } = this;
    for (let number = 0; number < core.totalPages; number++) {
      if (this.map.isBlank(number)) continue;
      if (!this.map.hasRoom) await this.committer.checkpoint();
      const page = await this.map.load(number);
      page.dirty = true;
      assert(this.map.cached(number) === page, 'a map page found no place in the cache');
      if (number % (this.map.maxPages / 2) === 0) await this.committer.checkpoint();
    }
    await this.committer.checkpoint();
    const next = core.nextSuperblock();
    next.historyBase = core.superblock.epoch;
    next.history = Buffer.alloc(next.history.length);
    this.#setJournal(next);
    await core.replaceSuperblock(next);
  }

  /** Runs one transition at a time, with writes held. */
  #exclusively<T>(transition: () => Promise<T>): Promise<T> {
    const run = this.#transition.then(async () => {
      if (this.core.failure !== undefined) throw failed(this.core.failure);
      if (this.#closing) throw new OperationalError('CLOSED', 'the partition is being closed');
      let release = (): void => undefined;
      this.#released = new Promise((resolve) => (release = resolve));
      this.writer.held = this.core.does('transition: hold writes');
      try {
        return await transition();
      } catch (error) {
        throw this.#explained(error);
      } finally {
        this.writer.held = false;
        this.#released = undefined;
        release();
      }
    });
    this.#transition = run.catch(() => undefined);
    return run;
  }

  #explained(error: unknown): unknown {
    return this.core.failure === undefined ? error : failed(this.core.failure);
  }

  /** Runs `change` with writes held and everything flushed: for grow. */
  withWritesHeld<T>(change: () => Promise<T>): Promise<T> {
    return this.#exclusively(async () => {
      await this.#flushForTransition();
      return change();
    });
  }

  /** Takes in a further segment, whose map is empty; the superblock must follow before anything is written there. */
  async addSegment(segment: PlacedSegment): Promise<void> {
    this.core.segments.push(segment);
    this.map.extend(segment.pages);
    this.#written.addEmpty(this.core.segments.length - 1);
    await writeBitmap(this.core, this.#written);
  }

  /** Replaces the superblock, with the journal's bounds as they now are. */
  async commitSuperblock(next: Superblock): Promise<void> {
    this.#setJournal(next);
    await this.core.replaceSuperblock(next);
  }

  /** Slave reads through the pool end before their locations are freed. */
  slaveReadBegins(): void {
    this.#slaveReads++;
  }

  slaveReadEnds(): void {
    this.#slaveReads--;
    if (this.#slaveReads === 0) this.#slaveIdle?.();
  }

  async #slaveReadsDone(): Promise<void> {
    if (this.#slaveReads > 0) await new Promise<void>((resolve) => (this.#slaveIdle = resolve));
    this.#slaveIdle = undefined;
  }

  /** Waits until one thing that kept a write from being admitted is out of the way, and answers as `admit` does. */
  async obstacle(position: number, length: number, unmaps: boolean): Promise<Result> {
    try {
      if (this.writer.held) await this.#released;
      else if (!this.committer.hasRoom) await this.committer.room();
      else if (this.core.pacing.isFull) await this.core.pacing.room();
      else await this.#obstacleInMap(position, length, unmaps);
    } catch (error) {
      if (this.core.failure !== undefined) return RESULT.FAILED;
      if (error instanceof OperationalError) return RESULT.READ_ERROR;
      throw error;
    }
    return this.writer.admit(position, length, unmaps);
  }

  async #obstacleInMap(position: number, length: number, unmaps: boolean): Promise<void> {
    const end = position + length;
    const wanted: number[] = [];
    let hasWaited = false;
    for (let from = position; from < end;) {
      const segment = this.core.segmentAt(from);
      const at = from - segment.masterOffset;
      const pageIndex = Math.floor(at / PAGE_COVERS_BYTES);
      const inPage = at - pageIndex * PAGE_COVERS_BYTES;
      const chunk = Math.min(end - from, PAGE_COVERS_BYTES - inPage, segment.masterBytes - at);
      const number = segment.firstPage + pageIndex;
      if (!unmaps || !this.map.isBlank(number)) {
        wanted.push(number);
        if (this.map.forWriting(number) === undefined) {
          await this.map.load(number);
          if (this.map.forWriting(number) === undefined) {
            await this.committer.room();
            hasWaited = true;
          }
        }
        const page = this.map.cached(number);
        if (page !== undefined && !this.core.superblock.enabled) {
          page.active = this.#activity.activeExtents(number);
          this.#want(page, this.writer.extentsToActivate(page, inPage, inPage + chunk, unmaps));
        }
      }
      from += chunk;
    }
    // With one place in the cache that may be given up, one page of the range pushes out the other, again and again.
    if (!hasWaited && wanted.some((number) => this.map.cached(number) === undefined))
      await this.committer.room();
    if (this.#wantedExtents.size > 0) await this.#activate();
  }

  /** Asks for extents to be listed, and for what a sequential writer will touch next: the rest of the page, and another. */
  #want(page: MapPage, extents: number): void {
    if (extents === 0) return;
    const goesOn = (extents & 1) !== 0 && this.#activity.activeExtents(page.number - 1) >= LAST_EXTENT;
    const follows = goesOn || ((page.active << 1) & extents) !== 0;
    this.#list(page.number, follows ? ALL_EXTENTS & ~(lowestBit(extents) - 1) : extents | (extents << 1));
    if (follows && page.number + 1 < this.core.totalPages) this.#list(page.number + 1, ALL_EXTENTS);
  }

  #list(page: number, extents: number): void {
    this.#wantedExtents.set(page, (this.#wantedExtents.get(page) ?? 0) | (extents & ALL_EXTENTS));
  }

  /** Makes a list durable that names all extents wanted by then; who asks meanwhile shares the next one. */
  #activate(): Promise<void> {
    this.#activation ??= this.#runActivation().finally(() => (this.#activation = undefined));
    return this.#activation;
  }

  async #runActivation(): Promise<void> {
    const { core } = this;
    await Promise.resolve();
    while (this.#wantedExtents.size > 0) {
      const wanted = this.#wantedExtents;
      this.#wantedExtents = new Map();
      if (!this.#activity.hasRoom(wanted.size)) await this.committer.checkpoint();
      const generation = core.superblock.generation;
      for (const [page, extents] of wanted) if (this.#activity.hasRoom(1)) this.#activity.add(page, extents);
      const { bytes, positions } = this.#activity.encode();
      core.counters.activityWrites++;
      await core.writeTwice(bytes, positions, 'activity: sync the list');
      if (core.superblock.generation !== generation) continue;
      this.#activity.settle();
      for (const page of wanted.keys()) {
        const cached = this.map.cached(page);
        if (cached !== undefined) cached.active = this.#activity.activeExtents(page);
      }
    }
  }

  /** Checkpoints, and marks the partition clean. Nothing may be asked of it afterwards. */
  async close(): Promise<void> {
    this.#closing = true;
    await this.#transition;
    this.writer.held = true;
    // Who still wants to write waits for the end of this, too.
    let release = (): void => undefined;
    this.#released = new Promise((resolve) => (release = resolve));
    await this.state.settled();
    const { core } = this;
    try {
      if (core.failure === undefined) {
        await this.committer.flushed();
        await this.committer.checkpoint();
        const next = core.nextSuperblock();
        next.clean = true;
        this.#setJournal(next);
        next.tailLsn = next.nextLsn;
        await core.replaceSuperblock(next);
      }
    } finally {
      core.failure ??= new Error('the partition is closed');
      release();
      await core.idle();
      await core.store.close();
    }
  }
}

const ALL_EXTENTS = (1 << PAGE_EXTENTS) - 1;
const LAST_EXTENT = 1 << (PAGE_EXTENTS - 1);

function lowestBit(bits: number): number {
  return bits & -bits;
}

function failed(cause: Error): OperationalError {
  return new OperationalError(
    'PARTITION_FAILED',
    `the partition failed (${cause.message}) and takes no more writes; check the device, then restart the daemon`,
    { cause },
  );
}
