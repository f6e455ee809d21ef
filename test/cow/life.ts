/** A short life of a partition in which every kind of I/O occurs, over a store that may fail, and what it was told. */
import { Engine } from '../../src/cow/engine.js';
import { initStore } from '../../src/cow/init.js';
import { MasterMedium, SlaveMedium } from '../../src/cow/mediums.js';
import { RESULT } from '../../src/cow/results.js';
import type { Store } from '../../src/cow/store.js';
import { alwaysQuick, MemoryStore } from './stores.js';

export const PARTITION_BYTES = 8 << 20;
const BLOCK_BYTES = 4096;
export const BLOCKS = [0, 1, 17, 700];
const UUID = Buffer.from('c1dd0000000000000000000000000002', 'hex');

/** What one block may show: what a flush promised, or anything written later. */
type Promised = Map<number, Set<number>>;

/** A life of the partition over a store that may fail, and what it was told. */
export class Life {
  readonly promised: Promised = new Map(BLOCKS.map((block) => [block, new Set([0])]));
  /** What the slave has to show while nobody tried to end it. */
  image: Map<number, number> | undefined;
  readonly wrongReads: string[] = [];
  answers = 0;
  failures = 0;
  engine: Engine | undefined;
  readonly #latest = new Map(BLOCKS.map((block) => [block, 0]));
  /** Blocks of which a write failed: they may show it or not. */
  readonly #unsure = new Set<number>();
  readonly #store: Store;
  readonly #quick: boolean;
  #value = 0;

  /** `quick`: waits for the disc in this thread, as a daemon does that is alone with one connection. */
  constructor(store: Store, quick = false) {
    this.#store = store;
    this.#quick = quick;
  }

  /** Returns once everything was answered. */
  async run(): Promise<void> {
    try {
      this.engine = await Engine.open(this.#store, this.#quick ? { quickSyncs: alwaysQuick() } : {});
    } catch {
      this.failures++;
      return;
    }
    for (const block of BLOCKS) await this.#write(block, BLOCK_BYTES);
    await this.#flush();
    await this.#enable();
    await this.#write(BLOCKS[0], BLOCK_BYTES);
    await this.#write(BLOCKS[1], 512);
    await this.#flush();
    await this.#write(BLOCKS[2], BLOCK_BYTES);
    await this.#read();
    await this.#attempt(this.engine.committer.checkpoint());
    await this.#flush();
    await this.#save();
    this.image = undefined;
    await this.#attempt(this.engine.disable());
    await this.#write(BLOCKS[3], BLOCK_BYTES);
    await this.#flush();
    await this.#enable();
    await this.#write(BLOCKS[0], BLOCK_BYTES);
    await this.#flush();
    await this.#read();
  }

  /** What can be read is right, at once and through the thread pool, on both sides; what can't be is told. */
  async #read(): Promise<void> {
    const master = new MasterMedium(this.#opened);
    const slave = new SlaveMedium(this.#opened);
    for (const [medium, values] of [
      [master, this.#latest],
      [slave, this.image ?? new Map<number, number>()],
    ] as const) {
      for (const [block, value] of values) {
        const [direct, pooled] = [Buffer.alloc(512), Buffer.alloc(512)];
        const result = medium.read(block * BLOCK_BYTES, direct, 0, 512);
        const later = await new Promise((resolve) =>
          medium.readAsync(block * BLOCK_BYTES, pooled, 0, 512, resolve),
        );
        this.answers += 2;
        for (const [answer, buffer] of [
          [result, direct],
          [later, pooled],
        ] as const) {
          if (answer !== RESULT.OK) this.failures++;
          else if (!this.#unsure.has(block) && buffer.readUInt32LE(0) !== value)
            this.wrongReads.push(`block ${block} read as ${buffer.readUInt32LE(0)}, not ${value}`);
        }
      }
    }
  }

  /** A record of the layer above. */
  async #save(): Promise<void> {
    await this.#attempt(
      new Promise<void>((resolve, reject) => {
        this.#opened.state.save('key', Buffer.from('value'), (error) => {
          if (error === undefined) resolve();
          else reject(error);
        });
      }),
    );
  }

  async #attempt(work: Promise<unknown>): Promise<boolean> {
    try {
      await work;
      return true;
    } catch {
      this.failures++;
      return false;
    } finally {
      this.answers++;
    }
  }

  /** All of a block's sectors that are written get one new value; sector 0 is always among them. */
  async #write(block: number, length: number): Promise<void> {
    const value = ++this.#value;
    const buffer = Buffer.alloc(length, Buffer.from(Uint32Array.of(value).buffer));
    this.promised.get(block)?.add(value);
    const result = await new Promise((resolve) =>
      new MasterMedium(this.#opened).writeAsync(block * BLOCK_BYTES, buffer, 0, length, resolve),
    );
    this.answers++;
    if (result === RESULT.OK) this.#latest.set(block, value);
    else {
      this.failures++;
      this.#unsure.add(block);
    }
  }

  async #flush(): Promise<void> {
    const before = new Map(this.#latest);
    const result = await new Promise((resolve) => new MasterMedium(this.#opened).flush(resolve));
    this.answers++;
    if (result !== RESULT.OK) this.failures++;
    else for (const [block, value] of before) this.promised.set(block, new Set([value]));
  }

  async #enable(): Promise<void> {
    const image = new Map(this.#latest);
    if (await this.#attempt(this.#opened.enable())) this.image = image;
  }

  get #opened(): Engine {
    if (this.engine === undefined) throw new Error('not open');
    return this.engine;
  }
}

/** The number that the first sector of a block shows. */
function shown(medium: MasterMedium | SlaveMedium, block: number): number {
  const buffer = Buffer.alloc(512);
  const result = medium.read(block * BLOCK_BYTES, buffer, 0, 512);
  if (result !== RESULT.OK) throw new Error(`block ${String(block)} can't be read: ${String(result)}`);
  return buffer.readUInt32LE(0);
}

/** Opens what the failed life left, and says what is wrong with it. */
export async function complaints(store: Store, life: Life): Promise<string[]> {
  const engine = await Engine.open(store);
  const master = new MasterMedium(engine);
  const wrong: string[] = [];
  for (const [block, values] of life.promised) {
    const value = shown(master, block);
    if (!values.has(value))
      wrong.push(`block ${String(block)} shows ${String(value)}, not ${[...values].join()}`);
  }
  if (life.image === undefined) return wrong;
  if (!engine.core.superblock.enabled) return [...wrong, 'the slave is gone'];
  const slave = new SlaveMedium(engine);
  for (const [block, value] of life.image) {
    if (shown(slave, block) !== value) wrong.push(`the slave's block ${String(block)} changed`);
  }
  return wrong;
}

export async function blank(): Promise<MemoryStore> {
  const store = new MemoryStore(PARTITION_BYTES);
  await initStore(store, { uuid: UUID, createdAt: 0 });
  return store;
}
