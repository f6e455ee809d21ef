/**
 * `npm run bench:engine`: how long the engine's transitions and a recovery take, at 1 GiB and at 64 TiB.
 *
 * No file system here holds a file of 64 TiB, so that the partition's places are mapped to a real, small file piece by
 * piece as they are written: every write and sync reaches the disc, what was never written reads as zeros. The recovery
 * runs in a process of its own, which tells its time and the most memory that it had.
 */
import { fork } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { Engine } from '../src/cow/engine.js';
import { PAGE_COVERS_BYTES, UNIT_BYTES } from '../src/cow/format.js';
import { initStore } from '../src/cow/init.js';
import { MasterMedium } from '../src/cow/mediums.js';
import { RESULT } from '../src/cow/results.js';
import { BLOCK_BYTES } from '../src/cow/states.js';
import { FileStore, createFile } from '../src/cow/store.js';
import type { Store, StoreDone } from '../src/cow/store.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const TIB = 2 ** 40;
const SIZES = [
  ['1 GiB', GIB],
  ['64 TiB', 64 * TIB],
] as const;
const ROUNDS = 200;
/** Written and flushed between two transitions. */
const BLOCKS_BETWEEN = 32;
/** Before the crash: so many map pages, each with so many units changed. */
const CRASH_PAGES = 4000;
const CRASH_UNITS = 16;
const FLUSH_EVERY = 1024;
const PIECE_BYTES = 64 * 1024;
const FILE_BYTES = 16 * GIB;

/** A device of any size on a small file. */
class MappedStore implements Store {
  readonly sizeBytes: number;
  readonly #file: FileStore;
  readonly #pieces: Map<number, number>;

  constructor(file: FileStore, sizeBytes: number, pieces = new Map<number, number>()) {
    this.#file = file;
    this.sizeBytes = sizeBytes;
    this.#pieces = pieces;
  }

  get pieces(): [number, number][] {
    return [...this.#pieces];
  }

  /** Calls `each` with every part of a range that lies in one piece, and where it lies in the file, if it does. */
  #parts(
    position: number,
    length: number,
    makes: boolean,
    each: (at: number, count: number, place?: number) => void,
  ): void {
    for (let done = 0; done < length;) {
      const index = Math.floor((position + done) / PIECE_BYTES);
      const within = (position + done) % PIECE_BYTES;
      const count = Math.min(PIECE_BYTES - within, length - done);
      let piece = this.#pieces.get(index);
      if (piece === undefined && makes) this.#pieces.set(index, (piece = this.#pieces.size));
      each(done, count, piece === undefined ? undefined : piece * PIECE_BYTES + within);
      done += count;
    }
  }

  readSync(buffer: Uint8Array, offset: number, length: number, position: number): void {
    this.#parts(position, length, false, (at, count, place) => {
      if (place === undefined) buffer.fill(0, offset + at, offset + at + count);
      else this.#file.readSync(buffer, offset + at, count, place);
    });
  }

  writeSync(buffer: Uint8Array, offset: number, length: number, position: number): void {
    this.#parts(position, length, true, (at, count, place = 0) =>
      this.#file.writeSync(buffer, offset + at, count, place),
    );
  }

  read(buffer: Uint8Array, offset: number, length: number, position: number, done: StoreDone): void {
    this.readSync(buffer, offset, length, position);
    setImmediate(done, null);
  }

  sync(done: StoreDone): void {
    this.#file.sync(done);
  }

  syncAtOnce(): void {
    this.#file.syncAtOnce();
  }

  writeDurablyAtOnce(bytes: Buffer, position: number): void {
    this.#parts(position, bytes.length, true, (at, count, place = 0) =>
      this.#file.writeDurablyAtOnce(bytes.subarray(at, at + count), place),
    );
  }

  writeDurably(bytes: Buffer, position: number, done: StoreDone): void {
    let left = 1;
    let failure: Error | null = null;
    const ended: StoreDone = (error) => {
      failure ??= error;
      if (--left === 0) done(failure);
    };
    this.#parts(position, bytes.length, true, (at, count, place = 0) => {
      left++;
      this.#file.writeDurably(bytes.subarray(at, at + count), place, ended);
    });
    ended(null);
  }

  refreshSize(): number {
    return this.sizeBytes;
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

async function write(engine: Engine, position: number): Promise<void> {
  const master = new MasterMedium(engine);
  const data = Buffer.alloc(BLOCK_BYTES, 1);
  const result = await new Promise((resolve) => master.writeAsync(position, data, 0, data.length, resolve));
  if (result !== RESULT.OK) throw new Error(`a write ended with ${String(result)}`);
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}

async function made(path: string, sizeBytes: number): Promise<{ engine: Engine; store: MappedStore }> {
  createFile(path, FILE_BYTES);
  const store = new MappedStore(FileStore.open(path, 'write'), sizeBytes);
  await initStore(store);
  return { engine: await Engine.open(store), store };
}

async function transitions(path: string, sizeBytes: number): Promise<Record<string, number[]>> {
  const { engine } = await made(path, sizeBytes);
  const times: Record<string, number[]> = { enable: [], rollback: [], disable: [] };
  const stride = Math.floor(engine.core.capacityBytes / BLOCKS_BETWEEN / UNIT_BYTES) * UNIT_BYTES;
  const work = async (): Promise<void> => {
    for (let block = 0; block < BLOCKS_BETWEEN; block++) await write(engine, block * stride);
    await engine.committer.flushed();
  };
  for (let round = 0; round < ROUNDS; round++) {
    for (const name of ['enable', 'rollback', 'disable'] as const) {
      await work();
      times[name].push(await timed(() => engine[name]()));
    }
  }
  await engine.close();
  return times;
}

function percentile(times: readonly number[], share: number): string {
  const sorted = [...times].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)].toFixed(1);
}

/** What a crash leaves: a journal that names many map pages. */
async function crash(path: string, sizeBytes: number): Promise<MappedStore> {
  const { engine, store } = await made(path, sizeBytes);
  const stride = Math.floor(engine.core.capacityBytes / CRASH_PAGES / PAGE_COVERS_BYTES) * PAGE_COVERS_BYTES;
  for (let index = 0; index < CRASH_PAGES * CRASH_UNITS; index++) {
    const position = (index % CRASH_PAGES) * stride + Math.floor(index / CRASH_PAGES) * UNIT_BYTES;
    await write(engine, position);
    if (index % FLUSH_EVERY === FLUSH_EVERY - 1) await engine.committer.flushed();
  }
  await engine.committer.flushed();
  process.stdout.write(`crash with ${engine.committer.journal.usedBlocks} blocks in the journal\n`);
  engine.core.failure = new Error('killed');
  return store;
}

/** In a process of its own: opens what the crash left. */
async function recover(path: string, sizeBytes: number): Promise<void> {
  const pieces = new Map(JSON.parse(readFileSync(`${path}.map`, 'utf8')) as [number, number][]);
  const before = process.memoryUsage.rss();
  const store = new MappedStore(FileStore.open(path, 'write'), sizeBytes, pieces);
  const ms = await timed(() => Engine.open(store));
  const most = process.resourceUsage().maxRSS / 1024;
  process.stdout.write(
    `open of ${sizeBytes / TIB} TiB after a crash: ${ms.toFixed(0)} ms, at most ${most.toFixed(0)} MiB resident ` +
      `(${(before / MIB).toFixed(0)} MiB before)\n`,
  );
  process.exit(0);
}

async function main(): Promise<void> {
  const [, self = '', path, size] = process.argv;
  if (path !== undefined) {
    await recover(path, Number(size));
    return;
  }
  const folder = mkdtempSync(join(process.env['BENCH_FOLDER'] ?? tmpdir(), 'cldd-bench-'));
  try {
    for (const [name, sizeBytes] of SIZES) {
      const times = await transitions(join(folder, `transitions-${sizeBytes}`), sizeBytes);
      for (const [what, values] of Object.entries(times)) {
        process.stdout.write(
          `${what} at ${name}: median ${percentile(values, 0.5)} ms, p99 ${percentile(values, 0.99)} ms, ` +
            `slowest ${percentile(values, 1)} ms of ${values.length}\n`,
        );
      }
    }
    const crashed = join(folder, 'crashed');
    const store = await crash(crashed, 64 * TIB);
    writeFileSync(`${crashed}.map`, JSON.stringify(store.pieces));
    await store.close();
    await new Promise<void>((resolve, reject) => {
      fork(self, [crashed, String(64 * TIB)]).once('exit', (code) => {
        if (code === 0) resolve();
        else reject(new Error(`the recovery ended with ${code}`));
      });
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

await main();
