/**
 * The power-cut simulator: runs the engine with a random workload over a recording store, cuts the power at points
 * of the record, lets a subset of the unsynced writes survive (none, all, some, torn into sectors, out of order),
 * opens what is left with the engine, and compares with the history. Some recoveries are cut again, and with what one
 * cut has left the work goes on, to be cut again.
 */

import { Engine } from '../../src/cow/engine.js';
import { JOURNAL_BLOCK_RECORDS, UNIT_BYTES } from '../../src/cow/format.js';
import { initStore } from '../../src/cow/init.js';
import { MasterMedium } from '../../src/cow/mediums.js';
import type { EngineOptions } from '../../src/cow/recovery.js';
import type { Steps } from '../../src/cow/steps.js';
import { alwaysQuick, Chance, MemoryStore } from './stores.js';
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
/** The lives of a partition, each ended by a cut, and what is done in all of them together. */
const LIVES = 3;
const OPERATIONS = 105;
const VALUES_PER_LIFE = 100_000;
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
  /** Unmaps are so many that in some units nothing else happens, which would hide them. */
  unmaps?: boolean;
  steps?: Steps;
}

export interface PowerCutReport {
  cuts: number;
  violations: string[];
}

const tick = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/**
 * Every fourth partition has a quick disc and one connection, so that commits wait in the event loop's thread; of each
 * eight, three have so little memory that syncs begin in the background, and that writes wait for them.
 */
function engineOptions({ seed, steps }: PowerCutOptions): EngineOptions {
  const options: EngineOptions = steps === undefined ? {} : { steps };
  if (seed % 8 < 3) options.unsyncedBytesMax = (2 << (seed % 8)) * BLOCK_BYTES;
  if (seed % 4 !== 3) return options;
  return { ...options, quickSyncs: alwaysQuick() };
}

class Workload {
  readonly store: MemoryStore;
  readonly history: History;
  engine: Engine;
  readonly #chance: Chance;
  readonly #options: EngineOptions;
  readonly #transitions: number;
  readonly #wide: boolean;
  readonly #unmaps: boolean;
  #master: MasterMedium;
  #open: Promise<unknown>[] = [];
  #value: number;

  constructor(
    store: MemoryStore,
    engine: Engine,
    history: History,
    firstValue: number,
    chance: Chance,
    options: PowerCutOptions,
  ) {
    this.store = store;
    this.history = history;
    this.#value = firstValue;
    this.engine = engine;
    this.#master = new MasterMedium(engine);
    this.#chance = chance;
    this.#options = engineOptions(options);
    this.#transitions = options.transitions ?? 0;
    this.#wide = options.wide === true;
    this.#unmaps = options.unmaps === true;
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
    engine.core.replaceSuperblock = async (next, also) => {
      const { enabled, epoch } = engine.core.superblock;
      const isTransition = next.enabled !== enabled || next.epoch !== epoch;
      const done = isTransition ? history.transition(store.events.length, next) : undefined;
      await replace(next, also);
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
    this.engine = await Engine.open(this.store, this.#options);
    this.#master = new MasterMedium(this.engine);
    this.history.adopt(this.store.events.length, this.engine);
    this.#watch();
  }

  #step(): void {
    if (this.#wide && this.#chance.hits(0.06)) {
      this.#sweep();
      return;
    }
    if (this.#unmaps && this.#chance.hits(0.4)) {
      if (this.#chance.hits(0.5)) this.#unmap();
      else this.#rewrite();
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
    this.#put(block * BLOCK_BYTES + sector * SECTOR_BYTES, this.#data(length));
  }

  /** Writes a block of each of many units, or unmaps them all. */
  #sweep(): void {
    if (this.#chance.hits(0.4)) {
      this.#unmapRange(0, SWEEP_UNITS * UNIT_BYTES);
      return;
    }
    const block = 5 + this.#chance.below(4);
    const data = this.#data(BLOCK_BYTES);
    for (let unit = 0; unit < SWEEP_UNITS; unit++) this.#put(unit * UNIT_BYTES + block * BLOCK_BYTES, data);
  }

  /** Bytes of a value that nothing else has. */
  #data(length: number): Buffer {
    const data = Buffer.alloc(length);
    const value = ++this.#value;
    for (let at = 0; at < length; at += 4) data.writeInt32LE(value, at);
    return data;
  }

  #put(position: number, data: Buffer): void {
    this.#open.push(
      new Promise((resolve) => this.#master.writeAsync(position, data, 0, data.length, resolve)),
    );
  }

  #unmap(): void {
    const position = BLOCKS[this.#chance.below(BLOCKS.length)] * BLOCK_BYTES;
    this.#unmapRange(position, BLOCK_BYTES * (1 + this.#chance.below(3)));
  }

  /** Unmaps a block and writes it again at once: the hole is not durable, and the data go to where the old ones are. */
  #rewrite(): void {
    const position = BLOCKS[this.#chance.below(BLOCKS.length)] * BLOCK_BYTES;
    this.#unmapRange(position, BLOCK_BYTES);
    this.#put(position, this.#data(BLOCK_BYTES));
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
  const report: PowerCutReport = { cuts: 0, violations: [] };
  let left: Left | undefined = { store: blank, history: new History(BLOCKS) };
  for (let life = 0; life < LIVES && left !== undefined; life++)
    left = await live(left, life, segments[0].halfA, chance, options, report);
  return report;
}

/** What a cut has left, and what was written until then. */
interface Left {
  readonly store: MemoryStore;
  readonly history: History;
}

/** From an open to a cut: works on what is left, tries many cuts, and returns what the last of them has left. */
async function live(
  { store: base, history: earlier }: Left,
  life: number,
  metadataEnd: number,
  chance: Chance,
  options: PowerCutOptions,
  report: PowerCutReport,
): Promise<Left | undefined> {
  const { seed, steps } = options;
  const complain = (what: string): void =>
    void report.violations.push(`seed ${seed}, life ${life + 1}, ${what}`);
  const store = new MemoryStore(PARTITION_BYTES, base);
  let history: History;
  let opened: number;
  try {
    const engine = await Engine.open(store, engineOptions(options));
    history = life === 0 ? earlier : History.after(earlier, engine);
    opened = store.events.length;
    const firstValue = life * VALUES_PER_LIFE;
    const workload = new Workload(store, engine, history, firstValue, chance, options);
    await workload.run(Math.ceil((options.operations ?? OPERATIONS) / LIVES));
  } catch (error) {
    complain(`without a cut: ${String(error)}`);
    return undefined;
  }
  const { events } = store;
  const every = options.cuts / LIVES / (events.length - opened);
  const durable = new Durable(PARTITION_BYTES, base, events);
  for (let moment = 1; moment <= events.length; moment++) {
    durable.follow(events[moment - 1]);
    if (moment <= opened) continue;
    let here = Math.floor(every) + (chance.hits(every % 1) ? 1 : 0);
    if (isLargeMetadata(events[moment - 1], metadataEnd)) here += CUTS_IN_LARGE_METADATA;
    for (; here > 0; here--) {
      const after = survivors(durable.store, durable.unsynced(moment), chance, metadataEnd);
      const found = await openAndCompare(after, history, moment, chance, metadataEnd, steps);
      report.cuts += found.cuts;
      if (found.violation === undefined) continue;
      complain(`cut at event ${moment} of ${events.length}: ${found.violation}`);
      if (report.violations.length >= 5) return undefined;
    }
  }
  const moment = opened + 1 + chance.below(events.length - opened);
  const then = new Durable(PARTITION_BYTES, base, events);
  for (const event of events.slice(0, moment)) then.follow(event);
  const rest = survivors(then.store, then.unsynced(moment), chance, metadataEnd);
  const found = await openAndCompare(rest, history, moment, chance, metadataEnd, steps);
  report.cuts += found.cuts;
  if (found.violation === undefined) return { store: rest, history };
  complain(`last cut, at event ${moment} of ${events.length}: ${found.violation}`);
  return undefined;
}

function isLargeMetadata(event: StoreEvent, metadataEnd: number): boolean {
  return event.kind === 'write' && event.position < metadataEnd && event.data.length > BLOCK_BYTES;
}

/** What is on the disk for certain, as the record goes on. */
export class Durable {
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
export function survivors(
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
