/**
 * The real engine against a model of ten lines: random histories, and every short one. After each step master, slave
 * and change map have to show what the model does. A process that is killed may lose what was not flushed, sector by
 * sector, and nothing else.
 */
import process from 'node:process';
import fc from 'fast-check';
import t from 'tap';
import { Engine } from '../../src/cow/engine.js';
import { initStore } from '../../src/cow/init.js';
import { listChanges } from '../../src/cow/changes.js';
import { MasterMedium, SlaveMedium } from '../../src/cow/mediums.js';
import { UNIT_BYTES } from '../../src/cow/format.js';
import { RESULT } from '../../src/cow/results.js';
import { MemoryStore } from './stores.js';

/** The part of the histories to play: mutation testing, which runs this once for each mutant, takes a few. */
const PART = Number(process.env.CLDD_TEST_PART ?? 1);
const PARTITION_BYTES = 8 << 20;
const SECTOR_BYTES = 512;
/** So much of the master is used: four blocks of eight sectors, two of them in another unit of the change map. */
const SECTORS = 32;
const PLACES = [0, 15].flatMap((block) => Array.from({ length: 16 }, (_, sector) => block * 8 + sector));

type Operation =
  | { kind: 'write' | 'unmap'; from: number; count: number }
  | { kind: 'flush' | 'enable' | 'disable' | 'rollback' | 'checkpoint' | 'restart' | 'kill' };

/** What the two disks have to show: a number a sector. */
class Model {
  master = new Array<number>(SECTORS).fill(0);
  slave: number[] | undefined;
  /** The image of each generation, from 1. */
  readonly images: number[][] = [];
  /** What a kill may bring back of each sector: the values since the last flush. */
  volatile: number[][] = this.master.map((value) => [value]);

  apply(operation: Operation, value: number): void {
    const { kind } = operation;
    if (kind === 'write' || kind === 'unmap') {
      const now = kind === 'write' ? value : 0;
      this.master.fill(now, operation.from, operation.from + operation.count);
      this.volatile
        .slice(operation.from, operation.from + operation.count)
        .forEach((values) => values.push(now));
      return;
    }
    // What can't be done now is refused before anything is flushed.
    const needsSlave = kind === 'disable' || kind === 'rollback';
    if (needsSlave ? this.slave === undefined : kind === 'enable' && this.slave !== undefined) return;
    if (kind === 'enable') this.images.push((this.slave = [...this.master]));
    else if (kind === 'disable') this.slave = undefined;
    else if (kind === 'rollback' && this.slave !== undefined) this.master = [...this.slave];
    if (kind !== 'kill' && kind !== 'checkpoint') this.volatile = this.master.map((now) => [now]);
  }

  /** After a kill: takes over what is shown, if it may be. */
  accept(master: number[]): void {
    if (!master.every((now, sector) => this.volatile[sector].includes(now))) return;
    this.master = master;
    this.volatile = master.map((now) => [now]);
  }

  /** The units that differ between the image of a generation and now. */
  changedUnits(generation: number): Set<number> {
    const image = this.images[generation - 1];
    return new Set(PLACES.filter((_, index) => image[index] !== this.master[index]).map(unitOf));
  }
}

const unitOf = (place: number): number => Math.floor((place * SECTOR_BYTES) / UNIT_BYTES);

/** Neighbouring sectors of the model are so in the runs of 16 that PLACES has. */
const RUN = 16;

class System {
  #engine: Engine;
  readonly #store: MemoryStore;

  private constructor(store: MemoryStore, engine: Engine) {
    this.#store = store;
    this.#engine = engine;
  }

  static async make(base: MemoryStore): Promise<System> {
    const store = new MemoryStore(PARTITION_BYTES, base);
    store.recording = false;
    return new System(store, await Engine.open(store));
  }

  async apply(operation: Operation, value: number): Promise<void> {
    const engine = this.#engine;
    const master = new MasterMedium(engine);
    switch (operation.kind) {
      case 'write':
        for (const [position, length] of extents(operation)) {
          const buffer = Buffer.alloc(length, value);
          await new Promise((resolve) => master.writeAsync(position, buffer, 0, length, resolve));
        }
        break;
      case 'unmap':
        for (const [position, length] of extents(operation)) {
          while (master.unmap(position, length) === RESULT.PENDING)
            await new Promise((resolve) => {
              if (master.prepareWrite(position, length, resolve) !== RESULT.PENDING) resolve(undefined);
            });
        }
        break;
      case 'flush':
        await new Promise((resolve) => master.flush(resolve));
        break;
      case 'checkpoint':
        await engine.committer.checkpoint();
        break;
      case 'kill':
      case 'restart':
        // A process that dies leaves what it has written.
        if (operation.kind === 'kill') engine.core.failure = new Error('killed');
        else await engine.close();
        this.#engine = await Engine.open(this.#store);
        break;
      default:
        // What can't be done now is refused, and changes nothing.
        await engine[operation.kind]().catch(() => undefined);
    }
  }

  get enabled(): boolean {
    return this.#engine.core.superblock.enabled;
  }

  master(): number[] {
    return sectors(new MasterMedium(this.#engine));
  }

  slave(): number[] | undefined {
    return this.enabled ? sectors(new SlaveMedium(this.#engine)) : undefined;
  }

  async changedUnits(generation: number): Promise<Set<number>> {
    const units = new Set<number>();
    for await (const { position, length } of listChanges(this.#engine, generation).ranges) {
      for (let at = position; at < position + length; at += UNIT_BYTES) units.add(at / UNIT_BYTES);
    }
    return units;
  }
}

/** The byte ranges of a range of the model. */
function extents({ from, count }: { from: number; count: number }): [position: number, length: number][] {
  const ranges: [number, number][] = [];
  for (let run = 0; run < SECTORS; run += RUN) {
    const first = Math.max(from, run);
    const last = Math.min(from + count, run + RUN);
    if (first < last) ranges.push([PLACES[first] * SECTOR_BYTES, (last - first) * SECTOR_BYTES]);
  }
  return ranges;
}

function sectors(medium: MasterMedium | SlaveMedium): number[] {
  return PLACES.map((place) => {
    const buffer = Buffer.alloc(SECTOR_BYTES);
    medium.read(place * SECTOR_BYTES, buffer, 0, SECTOR_BYTES);
    return buffer.every((byte) => byte === buffer[0]) ? buffer.readUInt8(0) : -1;
  });
}

/** The first difference between engine and model, in words; undefined if there is none. */
async function play(base: MemoryStore, operations: readonly Operation[]): Promise<string | undefined> {
  const system = await System.make(base);
  const model = new Model();
  for (const [index, operation] of operations.entries()) {
    const value = (index % 250) + 1;
    await system.apply(operation, value);
    model.apply(operation, value);
    if (operation.kind === 'kill') model.accept(system.master());
    const [was, is] = [model, { master: system.master(), slave: system.slave() }].map(({ master, slave }) =>
      JSON.stringify({ master, slave }),
    );
    const then = `after ${JSON.stringify(operations.slice(0, index + 1))}`;
    if (was !== is) return `${then}: ${is}, not ${was}`;
    for (let generation = 1; generation <= model.images.length; generation++) {
      const reported = await system.changedUnits(generation);
      const hidden = [...model.changedUnits(generation)].filter((unit) => !reported.has(unit));
      if (hidden.length > 0) return `${then}: units ${hidden.join()} changed since ${generation}, unreported`;
    }
  }
  return undefined;
}

async function blank(): Promise<MemoryStore> {
  const store = new MemoryStore(PARTITION_BYTES);
  await initStore(store);
  return store;
}

const range = fc
  .tuple(fc.nat(SECTORS - 1), fc.integer({ min: 1, max: 24 }))
  .map(([from, count]) => ({ from, count: Math.min(count, SECTORS - from) }));
const operation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 8, arbitrary: range.map((sectorRange) => ({ kind: 'write' as const, ...sectorRange })) },
  { weight: 3, arbitrary: range.map((sectorRange) => ({ kind: 'unmap' as const, ...sectorRange })) },
  {
    weight: 7,
    arbitrary: fc
      .constantFrom('flush', 'enable', 'disable', 'rollback', 'checkpoint', 'restart', 'kill')
      .map((kind) => ({ kind })),
  },
);

void t.test('Random histories: master and slave show what the model shows, after each step', async (t) => {
  const base = await blank();
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { maxLength: 40, size: 'max' }), async (operations) => {
      const difference = await play(base, operations);
      if (difference !== undefined) throw new Error(difference);
    }),
    { numRuns: Math.ceil(200 * PART) },
  );
  t.pass();
});

/** The unmap zeros a part of the first block, and frees the second one, of which the second write hits a part. */
const ALPHABET: readonly Operation[] = [
  { kind: 'write', from: 0, count: 16 },
  { kind: 'write', from: 9, count: 2 },
  { kind: 'unmap', from: 4, count: 12 },
  { kind: 'enable' },
  { kind: 'disable' },
  { kind: 'rollback' },
  { kind: 'flush' },
  { kind: 'kill' },
];

const STEPS = PART === 1 ? 4 : 2;

void t.test(`Every history of ${STEPS} steps`, async (t) => {
  const base = await blank();
  const differences: string[] = [];
  let count = 0;
  const extend = async (operations: readonly Operation[]): Promise<void> => {
    if (operations.length === STEPS) {
      count++;
      const difference = await play(base, operations);
      if (difference !== undefined) differences.push(difference);
      return;
    }
    for (const next of ALPHABET) await extend([...operations, next]);
  };
  await extend([]);
  t.same(differences, []);
  t.equal(count, ALPHABET.length ** STEPS);
});
