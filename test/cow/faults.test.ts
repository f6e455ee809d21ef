/**
 * Every I/O call of a short life fails in turn, once or from then on. Whatever fails: everybody gets an answer, a write
 * or sync that failed ends all writing (fail-stop), and the next open finds what was acknowledged and the slave as it was.
 */
import t from 'tap';
import { Engine } from '../../src/cow/engine.js';
import { initStore } from '../../src/cow/init.js';
import { MasterMedium, SlaveMedium } from '../../src/cow/mediums.js';
import { RESULT } from '../../src/cow/results.js';
import { FaultyStore, MemoryStore } from './stores.js';
import type { FaultKind } from './stores.js';

const PARTITION_BYTES = 8 << 20;
const BLOCK_BYTES = 4096;
const BLOCKS = [0, 1, 17, 700];
const UUID = Buffer.from('c1dd0000000000000000000000000002', 'hex');

/** What one block may show: what a flush promised, or anything written later. */
type Promised = Map<number, Set<number>>;

/** A life of the partition over a store that may fail, and what it was told. */
class Life {
  readonly promised: Promised = new Map(BLOCKS.map((block) => [block, new Set([0])]));
  /** What the slave has to show while nobody tried to end it. */
  image: Map<number, number> | undefined;
  answers = 0;
  failures = 0;
  engine: Engine | undefined;
  readonly #latest = new Map(BLOCKS.map((block) => [block, 0]));
  readonly #store: FaultyStore;
  #value = 0;

  constructor(store: FaultyStore) {
    this.#store = store;
  }

  /** Returns once everything was answered. */
  async run(): Promise<void> {
    try {
      this.engine = await Engine.open(this.#store);
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
    await this.#attempt(this.engine.committer.checkpoint());
    await this.#flush();
    this.image = undefined;
    await this.#attempt(this.engine.disable());
    await this.#write(BLOCKS[3], BLOCK_BYTES);
    await this.#flush();
    await this.#enable();
    await this.#write(BLOCKS[0], BLOCK_BYTES);
    await this.#flush();
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
    else this.failures++;
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
async function complaints(store: MemoryStore, life: Life): Promise<string[]> {
  const engine = await Engine.open(new MemoryStore(PARTITION_BYTES, store));
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

async function blank(): Promise<MemoryStore> {
  const store = new MemoryStore(PARTITION_BYTES);
  await initStore(store, { uuid: UUID, createdAt: 0 });
  return store;
}

void t.test('The life without faults has no failures, and the check finds what is wrong', async (t) => {
  const store = new FaultyStore(PARTITION_BYTES, await blank());
  const life = new Life(store);
  await life.run();
  t.equal(life.failures, 0);
  t.same(await complaints(store, life), []);
  life.promised.set(BLOCKS[0], new Set([4711]));
  life.image?.set(BLOCKS[1], 4711);
  t.equal((await complaints(store, life)).length, 2);
});

for (const kind of ['read', 'write', 'sync'] satisfies FaultKind[]) {
  for (const persistent of [false, true]) {
    for (const code of ['EIO', 'ENOSPC']) {
      const how = persistent ? 'from then on' : 'once';
      void t.test(`Every ${kind} fails in turn with ${code}, ${how}`, async (t) => {
        const base = await blank();
        const wrong: string[] = [];
        let tried = 0;
        for (let at = 0; ; at++, tried++) {
          const store = new FaultyStore(PARTITION_BYTES, base);
          store.fault = { kind, at, persistent, code };
          const life = new Life(store);
          await life.run();
          if (!store.tripped) break;
          const name = `${kind} ${String(at)}`;
          if (kind !== 'read' && life.failures === 0) wrong.push(`${name}: nobody was told`);
          const { engine } = life;
          if (kind !== 'read' && engine !== undefined) {
            if (engine.core.failure === undefined) wrong.push(`${name}: no fail-stop`);
            store.fault = undefined;
            const writes = store.calls.write;
            await engine.enable().catch(() => undefined);
            await engine.committer.checkpoint().catch(() => undefined);
            if (store.calls.write !== writes) wrong.push(`${name}: it was written on`);
          }
          for (const complaint of await complaints(store, life)) wrong.push(`${name}: ${complaint}`);
        }
        t.same(wrong, []);
        t.ok(tried > 5, `${String(tried)} calls failed in turn`);
      });
    }
  }
}
