/**
 * The power-cut simulator: runs the engine with a random workload over a recording store, cuts the power at points
 * of the record, lets a subset of the unsynced writes survive (none, all, some, torn into sectors, out of order),
 * opens what is left with the engine, and compares with the history. Some recoveries are cut again.
 */

import { Engine } from '../../src/cow/engine.js';
import { JOURNAL_BLOCK_RECORDS, UNIT_BYTES } from '../../src/cow/format.js';
import { initStore } from '../../src/cow/init.js';
import { MasterMedium } from '../../src/cow/mediums.js';
import type { Steps } from '../../src/cow/steps.js';
import { Chance, MemoryStore } from './stores.js';
import type { StoreEvent } from './stores.js';
import { History } from './history.js';

const PARTITION_BYTES = 96 * 1024 * 1024;
const BLOCK_BYTES = 4096;
const SECTOR_BYTES = 512;
/** Neighbours within a unit, other units and extents, and another map page. */
const BLOCKS = [0, 1, 2, 3, 15, 16, 17, 700, 1024, 1025, 5000, 8191, 8192, 8193, 8208, 9300];
/** Writes of several metadata blocks are few, and may be torn in many ways. */
const CUTS_IN_LARGE_METADATA = 6;
/** More than one journal block has records. */
const SWEEP_UNITS = JOURNAL_BLOCK_RECORDS + 50;
const DAMAGE = Buffer.alloc(SECTOR_BYTES, 0xdb);
const UUID = Buffer.from('c1dd0000000000000000000000000001', 'hex');

export interface PowerCutOptions {
  seed: number;
  /** How many cuts to make in this run, about. */
  cuts: number;
  operations?: number;
  /** Of a hundred operations, so many more are enables, disables and rollbacks. */
  transitions?: number;
  /** Now and then so many units change at once that their batch takes several journal blocks. */
  wide?: boolean;
  steps?: Steps;
}

export interface PowerCutReport {
  cuts: number;
  violations: string[];
}

const tick = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

class Workload {
  readonly store: MemoryStore;
  readonly history = new History(BLOCKS);
  engine: Engine;
  readonly #chance: Chance;
  readonly #steps: Steps | undefined;
  readonly #transitions: number;
  readonly #wide: boolean;
  #master: MasterMedium;
  #open: Promise<unknown>[] = [];
  #value = 0;

  constructor(store: MemoryStore, engine: Engine, chance: Chance, options: PowerCutOptions) {
    this.store = store;
    this.engine = engine;
    this.#master = new MasterMedium(engine);
    this.#chance = chance;
    this.#steps = options.steps;
    this.#transitions = options.transitions ?? 0;
    this.#wide = options.wide === true;
    this.#watch();
  }

  /** Notes every change of the master, and every transition, in the moment it happens. */
  #watch(): void {
    const { engine, history, store } = this;
    const write = engine.writer.write.bind(engine.writer);
    engine.writer.write = (position, buffer, offset, length) => {
      history.change(store.events.length, position, length, Buffer.from(buffer).readInt32LE(offset));
      return write(position, buffer, offset, length);
    };
    const unmap = engine.writer.unmap.bind(engine.writer);
    engine.writer.unmap = (position, length) => {
      history.change(store.events.length, position, length, 0);
      return unmap(position, length);
    };
    const replace = engine.core.replaceSuperblock.bind(engine.core);
    engine.core.replaceSuperblock = async (next) => {
      const { enabled, epoch } = engine.core.superblock;
      const isTransition = next.enabled !== enabled || next.epoch !== epoch;
      const done = isTransition ? history.transition(store.events.length, next) : undefined;
      await replace(next);
      done?.(store.events.length);
    };
  }

  async run(operations: number): Promise<void> {
    for (let count = 0; count < operations; count++) {
      this.#step();
      if (this.#chance.hits(0.35)) await tick();
      if (this.#chance.hits(0.06)) await this.settle();
      if (this.#chance.hits(0.012)) await this.#kill();
    }
    await this.settle();
  }

  async settle(): Promise<void> {
    await Promise.all(this.#open);
    this.#open = [];
  }

  /** The process dies and another opens the partition; what was written stays readable, as the kernel keeps it. */
  async #kill(): Promise<void> {
    await this.settle();
    this.engine.core.failure = new Error('killed');
    this.engine = await Engine.open(this.store, this.#steps === undefined ? {} : { steps: this.#steps });
    this.#master = new MasterMedium(this.engine);
    this.history.adopt(this.store.events.length, this.engine);
    this.#watch();
  }

  #step(): void {
    if (this.#wide && this.#chance.hits(0.06)) {
      this.#sweep();
      return;
    }
    const roll = this.#chance.below(100 + this.#transitions);
    if (roll < 55) this.#write();
    else if (roll < 65) this.#unmap();
    else if (roll < 82) this.#flush();
    else if (roll < 88) this.#open.push(this.engine.enable().catch(() => undefined));
    else if (roll < 92) this.#open.push(this.engine.disable().catch(() => undefined));
    else if (roll < 95) this.#open.push(this.engine.rollback().catch(() => undefined));
    else if (roll < 100) this.#open.push(this.engine.committer.checkpoint());
    else this.#turn();
  }

  #turn(): void {
    if (!this.engine.core.superblock.enabled) this.#open.push(this.engine.enable().catch(() => undefined));
    else if (this.#chance.hits(0.5)) this.#open.push(this.engine.disable().catch(() => undefined));
    else this.#open.push(this.engine.rollback().catch(() => undefined));
  }

  #write(): void {
    const block = BLOCKS[this.#chance.below(BLOCKS.length)];
    const whole = this.#chance.hits(0.6);
    const sector = whole ? 0 : this.#chance.below(8);
    const length = whole
      ? BLOCK_BYTES * (1 + this.#chance.below(2))
      : SECTOR_BYTES * (1 + this.#chance.below(8 - sector));
    const buffer = Buffer.alloc(length);
    const value = ++this.#value;
    for (let at = 0; at < length; at += 4) buffer.writeInt32LE(value, at);
    const position = block * BLOCK_BYTES + sector * SECTOR_BYTES;
    this.#open.push(new Promise((resolve) => this.#master.writeAsync(position, buffer, 0, length, resolve)));
  }

  /** Writes a block of each of many units, or unmaps them all. */
  #sweep(): void {
    if (this.#chance.hits(0.4)) {
      this.#unmapRange(0, SWEEP_UNITS * UNIT_BYTES);
      return;
    }
    const block = 5 + this.#chance.below(4);
    const buffer = Buffer.alloc(BLOCK_BYTES);
    const value = ++this.#value;
    for (let at = 0; at < buffer.length; at += 4) buffer.writeInt32LE(value, at);
    for (let unit = 0; unit < SWEEP_UNITS; unit++) {
      const position = unit * UNIT_BYTES + block * BLOCK_BYTES;
      this.#open.push(
        new Promise((resolve) => this.#master.writeAsync(position, buffer, 0, BLOCK_BYTES, resolve)),
      );
    }
  }

  #unmap(): void {
    const position = BLOCKS[this.#chance.below(BLOCKS.length)] * BLOCK_BYTES;
    this.#unmapRange(position, BLOCK_BYTES * (1 + this.#chance.below(3)));
  }

  #unmapRange(position: number, length: number): void {
    const wait = (): Promise<unknown> =>
      new Promise((resolve) => {
        const ready = this.#master.prepareWrite(position, length, resolve);
        if (ready !== 1) resolve(ready);
      });
    this.#open.push(
      (async () => {
        while (this.#master.unmap(position, length) === 1) await wait();
      })(),
    );
  }

  #flush(): void {
    const { history, store } = this;
    const { operation } = history;
    this.#open.push(
      new Promise((resolve) =>
        this.#master.flush((result) => {
          if (result === 0) history.promise(store.events.length, operation);
          resolve(result);
        }),
      ),
    );
  }
}

/** Makes a run and its cuts. The same options give the same report. */
export async function simulate(options: PowerCutOptions): Promise<PowerCutReport> {
  const chance = new Chance(options.seed);
  const blank = new MemoryStore(PARTITION_BYTES);
  const { segments } = await initStore(blank, { uuid: UUID, createdAt: 0 });
  blank.recording = false;
  const store = new MemoryStore(PARTITION_BYTES, blank);
  const engineOptions = options.steps === undefined ? {} : { steps: options.steps };
  const violations: string[] = [];
  let workload: Workload;
  try {
    workload = new Workload(store, await Engine.open(store, engineOptions), chance, options);
    await workload.run(options.operations ?? 70);
  } catch (error) {
    return { cuts: 0, violations: [`seed ${options.seed}, without a cut: ${String(error)}`] };
  }
  const { events } = store;
  const every = options.cuts / events.length;
  const durable = new Durable(PARTITION_BYTES, blank, events);
  let cuts = 0;
  for (let moment = 1; moment <= events.length; moment++) {
    durable.follow(events[moment - 1]);
    let here = Math.floor(every) + (chance.hits(every % 1) ? 1 : 0);
    if (isLargeMetadata(events[moment - 1], segments[0].halfA)) here += CUTS_IN_LARGE_METADATA;
    for (; here > 0; here--) {
      const after = survivors(durable.store, durable.unsynced(moment), chance, segments[0].halfA);
      const found = await openAndCompare(
        after,
        workload.history,
        moment,
        chance,
        segments[0].halfA,
        options.steps,
      );
      cuts += found.cuts;
      if (found.violation !== undefined) {
        violations.push(
          `seed ${options.seed}, cut at event ${moment} of ${events.length}: ${found.violation}`,
        );
        if (violations.length >= 5) return { cuts, violations };
      }
    }
  }
  return { cuts, violations };
}

function isLargeMetadata(event: StoreEvent, metadataEnd: number): boolean {
  return event.kind === 'write' && event.position < metadataEnd && event.data.length > BLOCK_BYTES;
}

/** What is on the disk for certain, as the record goes on. */
class Durable {
  readonly store: MemoryStore;
  readonly #events: readonly StoreEvent[];
  #applied = 0;
  /** Events behind those that are durable by themselves. */
  readonly #alone = new Set<number>();

  constructor(sizeBytes: number, base: MemoryStore, events: readonly StoreEvent[]) {
    this.store = new MemoryStore(sizeBytes, base);
    this.#events = events;
  }

  follow(event: StoreEvent): void {
    if (event.kind === 'sync') for (; this.#applied < event.upTo; this.#applied++) this.#apply(this.#applied);
    else if (event.kind === 'durable' && event.write >= this.#applied) {
      this.#apply(event.write);
      this.#alone.add(event.write);
    }
  }

  #apply(index: number): void {
    const event = this.#events[index];
    if (event.kind === 'write' && !this.#alone.delete(index)) this.store.apply(event.position, event.data);
  }

  /** The events before `moment` that a cut may undo. */
  unsynced(moment: number): StoreEvent[] {
    const events: StoreEvent[] = [];
    for (let index = this.#applied; index < moment; index++)
      if (!this.#alone.has(index)) events.push(this.#events[index]);
    return events;
  }
}

/**
 * What a disk may hold after the power went: everything synced, and any of the rest. A sector of metadata that was
 * being written may even be damaged: every structure has a second copy that was not being written then.
 */
function survivors(
  durable: MemoryStore,
  unsynced: readonly StoreEvent[],
  chance: Chance,
  metadataEnd: number,
): MemoryStore {
  const after = new MemoryStore(durable.sizeBytes, durable);
  const way = chance.below(7);
  const kept = [0, 1, 0.5, 0.5, chance.next(), chance.next(), 0.5][way];
  const pieceBytes = way === 6 ? BLOCK_BYTES : SECTOR_BYTES;
  const writes = [...unsynced];
  if (way === 3)
    for (let index = writes.length - 1; index > 0; index--) swap(writes, index, chance.below(index + 1));
  for (const event of writes) {
    if (event.kind !== 'write') continue;
    if (way < 4) {
      if (chance.hits(kept)) after.apply(event.position, event.data);
      continue;
    }
    for (let at = 0; at < event.data.length; at += pieceBytes) {
      const position = event.position + at;
      if (chance.hits(kept)) after.apply(position, event.data.subarray(at, at + pieceBytes));
      else if (way === 5 && position < metadataEnd && chance.hits(0.5)) after.apply(position, DAMAGE);
    }
  }
  return after;
}

function swap(list: unknown[], one: number, other: number): void {
  [list[one], list[other]] = [list[other], list[one]];
}

async function openAndCompare(
  store: MemoryStore,
  history: History,
  moment: number,
  chance: Chance,
  metadataEnd: number,
  steps: Steps | undefined,
): Promise<{ cuts: number; violation: string | undefined }> {
  const again = new MemoryStore(store.sizeBytes, store);
  const first = await compare(again, history, moment, steps);
  if (first !== undefined || !chance.hits(0.2)) return { cuts: 1, violation: first };
  // Cut the recovery, too, somewhere in its own writes.
  const { events } = again;
  const cut = chance.below(events.length + 1);
  const halfway = new Durable(store.sizeBytes, store, events);
  for (const event of events.slice(0, cut)) halfway.follow(event);
  const rest = survivors(halfway.store, halfway.unsynced(cut), chance, metadataEnd);
  const second = await compare(new MemoryStore(store.sizeBytes, rest), history, moment, steps);
  return {
    cuts: 2,
    violation: second === undefined ? undefined : `recovery cut at its event ${cut}: ${second}`,
  };
}

async function compare(
  store: MemoryStore,
  history: History,
  moment: number,
  steps: Steps | undefined,
): Promise<string | undefined> {
  try {
    const engine = await Engine.open(store, steps === undefined ? {} : { steps });
    return await history.violation(engine, moment);
  } catch (error) {
    return `can't be opened: ${String(error)}`;
  }
}
