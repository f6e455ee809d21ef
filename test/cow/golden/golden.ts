/**
 * A small partition with something of everything: pages of older epochs, blocks that differ between master and slave,
 * holes, a journal that no checkpoint has emptied, a filled state area and activity log; left as by a power cut.
 *
 * One is kept for every version of the format, with what master and slave showed, so that later programs prove that
 * they still read it. To make one, after raising FORMAT_VERSION:
 *
 *     npm run build && node dist/test/cow/golden/make.js
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { Engine } from '../../../src/cow/engine.js';
import { FORMAT_VERSION } from '../../../src/cow/format.js';
import { initStore } from '../../../src/cow/init.js';
import { MasterMedium } from '../../../src/cow/mediums.js';
import { RESULT } from '../../../src/cow/results.js';
import { packageRoot } from '../../package-root.js';
import { MemoryStore } from '../stores.js';

const PARTITION_BYTES = 8 << 20;
export const BLOCK_BYTES = 4096;
const FOLDER = join(packageRoot(), 'test/cow/golden');

/** A block holds its value in every four bytes, 0 is left out. */
export interface Expected {
  readonly uuid: string;
  readonly generation: number;
  readonly capacityBytes: number;
  readonly master: Readonly<Record<string, number>>;
  readonly slave: Readonly<Record<string, number>>;
  /** Values in hexadecimal digits. */
  readonly state: Readonly<Record<string, string>>;
}

export interface Golden {
  readonly store: MemoryStore;
  readonly expected: Expected;
}

/** The image of a format, in memory. */
export function loadGolden(format: number): Golden {
  const image = gunzipSync(readFileSync(join(FOLDER, `format-${format}.img.gz`)));
  const expected = JSON.parse(readFileSync(join(FOLDER, `format-${format}.json`), 'utf8')) as Expected;
  const store = new MemoryStore(image.length);
  store.recording = false;
  for (let at = 0; at < image.length; at += BLOCK_BYTES) {
    const chunk = image.subarray(at, at + BLOCK_BYTES);
    if (!chunk.every((byte) => byte === 0)) store.apply(at, chunk);
  }
  return { store, expected };
}

export function imageOf(store: MemoryStore): Buffer {
  const image = Buffer.alloc(store.sizeBytes);
  store.readSync(image, 0, image.length, 0);
  return image;
}

/** Writes the image of the current format. One that exists is the proof for all that was made with it: it stays. */
export async function makeGolden(): Promise<string> {
  const path = join(FOLDER, `format-${FORMAT_VERSION}.img.gz`);
  if (existsSync(path)) throw new Error(`${path} exists: a format's image is made once`);
  const { store, expected } = await live();
  writeFileSync(path, gzipSync(imageOf(store), { level: 9 }));
  writeFileSync(join(FOLDER, `format-${FORMAT_VERSION}.json`), `${JSON.stringify(expected, undefined, 2)}\n`);
  return path;
}

class Life {
  readonly engine: Engine;
  readonly master = new Map<number, number>();
  slave = new Map<number, number>();
  #value = 0;

  constructor(engine: Engine) {
    this.engine = engine;
  }

  async write(from: number, end: number): Promise<void> {
    for (let block = from; block < end; block++) {
      const value = ++this.#value;
      const buffer = Buffer.alloc(BLOCK_BYTES, Buffer.from(Uint32Array.of(value).buffer));
      const result = await new Promise((resolve) =>
        new MasterMedium(this.engine).writeAsync(block * BLOCK_BYTES, buffer, 0, BLOCK_BYTES, resolve),
      );
      if (result !== RESULT.OK) throw new Error('a write failed');
      this.master.set(block, value);
    }
  }

  async unmap(from: number, end: number): Promise<void> {
    const medium = new MasterMedium(this.engine);
    const [position, length] = [from * BLOCK_BYTES, (end - from) * BLOCK_BYTES];
    while (medium.unmap(position, length) === RESULT.PENDING) {
      await new Promise<void>((resolve) => {
        if (medium.prepareWrite(position, length, () => resolve()) !== RESULT.PENDING) resolve();
      });
    }
    for (let block = from; block < end; block++) this.master.delete(block);
  }

  async enable(): Promise<void> {
    await this.engine.enable();
    this.slave = new Map(this.master);
  }

  async rollback(): Promise<void> {
    await this.engine.rollback();
    this.master.clear();
    for (const [block, value] of this.slave) this.master.set(block, value);
  }

  save(key: string, value: Buffer): Promise<void> {
    return new Promise((resolve, reject) =>
      this.engine.state.save(key, value, (error) => (error === undefined ? resolve() : reject(error))),
    );
  }
}

/** Every kind of change, and then the process is gone. */
export async function live(): Promise<Golden> {
  const store = new MemoryStore(PARTITION_BYTES);
  store.recording = false;
  await initStore(store, { uuid: Buffer.from('c1dd90000000000000000000000000'.padEnd(32, '2'), 'hex') });
  const engine = await Engine.open(store);
  const life = new Life(engine);
  const { committer } = engine;
  await life.write(0, 40);
  await life.write(200, 204);
  await committer.flushed();
  await life.enable();
  await life.write(0, 10);
  await life.unmap(20, 23);
  await committer.flushed();
  await committer.checkpoint();
  await engine.disable();
  await life.write(5, 7);
  await life.write(100, 102);
  // In place, in a unit that has not changed in this generation: the activity log lists it.
  await life.write(200, 202);
  await life.enable();
  await life.write(3, 9);
  await life.unmap(30, 31);
  await committer.checkpoint();
  // The page on the disc is of an epoch that ends here, and only the superblock tells how.
  await life.rollback();
  await engine.disable();
  await life.write(9, 11);
  await committer.flushed();
  await life.enable();
  await life.write(0, 6);
  await life.unmap(35, 37);
  await committer.flushed();
  const state = { 'first key': Buffer.from('first value'), second: Buffer.alloc(300, 0xa5) };
  for (const [key, value] of Object.entries(state)) await life.save(key, value);
  await life.write(500, 503);
  await life.write(2, 4);
  await committer.flushed();
  const { uuid, generation } = engine.core.superblock;
  const { capacityBytes } = engine.core;
  engine.core.failure = new Error('killed');
  return {
    store,
    expected: {
      uuid: uuid.toString('hex'),
      generation,
      capacityBytes,
      master: Object.fromEntries(life.master),
      slave: Object.fromEntries(life.slave),
      state: Object.fromEntries(Object.entries(state).map(([key, value]) => [key, value.toString('hex')])),
    },
  };
}
