/** Stores for tests: sparse memory that records every write and sync, and one that fails on demand. */

import { initStore } from '../../src/cow/init.js';
import { QuickSyncs } from '../../src/cow/quick-syncs.js';
import type { Store, StoreDone } from '../../src/cow/store.js';

const CHUNK_BYTES = 4096;
const SECTOR_BYTES = 512;

export type StoreEvent =
  | { readonly kind: 'write'; readonly position: number; readonly data: Buffer }
  /** A sync ended: writes before event `upTo` are durable. */
  | { readonly kind: 'sync'; readonly upTo: number }
  /** A durable write ended: the write of this event is durable, whatever became of others. */
  | { readonly kind: 'durable'; readonly write: number };

/** Sparse memory over an optional base that is left as it is. */
export class MemoryStore implements Store {
  sizeBytes: number;
  readonly events: StoreEvent[] = [];
  readonly #base: MemoryStore | undefined;
  readonly #chunks = new Map<number, Buffer>();
  recording = true;
  closed = false;

  constructor(sizeBytes: number, base?: MemoryStore) {
    this.sizeBytes = sizeBytes;
    this.#base = base;
  }

  find(chunk: number): Buffer | undefined {
    return this.#chunks.get(chunk) ?? this.#base?.find(chunk);
  }

  readSync(buffer: Uint8Array, offset: number, length: number, position: number): void {
    this.#fetch(buffer, offset, length, position);
  }

  #fetch(buffer: Uint8Array, offset: number, length: number, position: number): void {
    if (position + length > this.sizeBytes) throw new Error('read past the end');
    let at = position;
    let to = offset;
    const end = position + length;
    while (at < end) {
      const inChunk = at % CHUNK_BYTES;
      const count = Math.min(CHUNK_BYTES - inChunk, end - at);
      const chunk = this.find(Math.floor(at / CHUNK_BYTES));
      if (chunk === undefined) buffer.fill(0, to, to + count);
      else buffer.set(chunk.subarray(inChunk, inChunk + count), to);
      at += count;
      to += count;
    }
  }

  writeSync(buffer: Uint8Array, offset: number, length: number, position: number): void {
    if (position + length > this.sizeBytes) throw new Error('write past the end');
    const data = Buffer.from(buffer.subarray(offset, offset + length));
    this.apply(position, data);
    if (this.recording) this.events.push({ kind: 'write', position, data });
  }

  /** Writes without recording. */
  apply(position: number, data: Uint8Array): void {
    for (let done = 0; done < data.length;) {
      const at = position + done;
      const index = Math.floor(at / CHUNK_BYTES);
      const inChunk = at % CHUNK_BYTES;
      const count = Math.min(CHUNK_BYTES - inChunk, data.length - done);
      let chunk = this.#chunks.get(index);
      if (chunk === undefined) {
        chunk = Buffer.alloc(CHUNK_BYTES);
        this.#base?.find(index)?.copy(chunk);
        this.#chunks.set(index, chunk);
      }
      chunk.set(data.subarray(done, done + count), inChunk);
      done += count;
    }
  }

  read(buffer: Uint8Array, offset: number, length: number, position: number, done: StoreDone): void {
    setImmediate(() => {
      let failure: Error | null = null;
      try {
        this.#fetch(buffer, offset, length, position);
      } catch (error) {
        failure = error as Error;
      }
      done(failure);
    });
  }

  sync(done: StoreDone): void {
    const upTo = this.events.length;
    setImmediate(() => {
      if (this.recording) this.events.push({ kind: 'sync', upTo });
      done(null);
    });
  }

  syncAtOnce(): void {
    if (this.recording) this.events.push({ kind: 'sync', upTo: this.events.length });
  }

  writeDurablyAtOnce(bytes: Buffer, position: number): void {
    const write = this.events.length;
    this.writeSync(bytes, 0, bytes.length, position);
    if (this.recording) this.events.push({ kind: 'durable', write });
  }

  writeDurably(bytes: Buffer, position: number, done: StoreDone): void {
    const write = this.events.length;
    let failure: Error | null = null;
    try {
      this.writeSync(bytes, 0, bytes.length, position);
    } catch (error) {
      failure = error as Error;
    }
    setImmediate(() => {
      if (this.recording && failure === null) this.events.push({ kind: 'durable', write });
      done(failure);
    });
  }

  refreshSize(): number {
    return this.sizeBytes;
  }

  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }
}

export type FaultKind = 'read' | 'pooled read' | 'write' | 'sync';

/** Fails the n-th call of a kind (counted from 0), once or from then on. */
export class FaultyStore extends MemoryStore {
  readonly calls = { read: 0, 'pooled read': 0, write: 0, sync: 0 };
  fault: { kind: FaultKind; at: number; persistent: boolean; code: string } | undefined;
  tripped = false;

  #trips(kind: FaultKind): Error | undefined {
    const call = this.calls[kind]++;
    const { fault } = this;
    if (fault?.kind !== kind || !(call === fault.at || (fault.persistent && call > fault.at)))
      return undefined;
    this.tripped = true;
    return Object.assign(new Error(`${fault.code}: injected`), { code: fault.code });
  }

  override readSync(buffer: Uint8Array, offset: number, length: number, position: number): void {
    const error = this.#trips('read');
    if (error !== undefined) throw error;
    super.readSync(buffer, offset, length, position);
  }

  /** Of what was asked for, a part may have been read. */
  override read(buffer: Uint8Array, offset: number, length: number, position: number, done: StoreDone): void {
    const error = this.#trips('pooled read');
    super.read(buffer, offset, length, position, (failure) => done(failure ?? error ?? null));
  }

  override writeSync(buffer: Uint8Array, offset: number, length: number, position: number): void {
    const error = this.#trips('write');
    if (error !== undefined) {
      // Part of it may have reached the disk.
      super.writeSync(buffer, offset, Math.min(length, 512), position);
      throw error;
    }
    super.writeSync(buffer, offset, length, position);
  }

  override sync(done: StoreDone): void {
    const error = this.#trips('sync');
    if (error === undefined) super.sync(done);
    else setImmediate(done, error);
  }

  override syncAtOnce(): void {
    const error = this.#trips('sync');
    if (error !== undefined) throw error;
    super.syncAtOnce();
  }

  override writeDurablyAtOnce(bytes: Buffer, position: number): void {
    const error = this.#trips('sync');
    super.writeDurablyAtOnce(bytes, position);
    if (error !== undefined) throw error;
  }

  /** Can fail as a write does, and as a sync does. */
  override writeDurably(bytes: Buffer, position: number, done: StoreDone): void {
    const error = this.#trips('sync');
    super.writeDurably(bytes, position, (failure) => done(failure ?? error ?? null));
  }
}

/** Has sectors that can't be read until they are written again, as a disc whose write was interrupted. */
export class WornStore extends MemoryStore {
  readonly #bad = new Set<number>();

  spoil(position: number, length: number): void {
    for (let at = position; at < position + length; at += SECTOR_BYTES)
      this.#bad.add(Math.floor(at / SECTOR_BYTES));
  }

  #failure(position: number, length: number): Error | undefined {
    const last = Math.floor((position + length - 1) / SECTOR_BYTES);
    for (let sector = Math.floor(position / SECTOR_BYTES); sector <= last; sector++)
      if (this.#bad.has(sector))
        return Object.assign(new Error(`EIO: sector ${sector}`), { code: 'EIO', syscall: 'read' });
    return undefined;
  }

  override readSync(buffer: Uint8Array, offset: number, length: number, position: number): void {
    const failure = this.#failure(position, length);
    if (failure !== undefined) throw failure;
    super.readSync(buffer, offset, length, position);
  }

  override read(buffer: Uint8Array, offset: number, length: number, position: number, done: StoreDone): void {
    const failure = this.#failure(position, length);
    if (failure === undefined) super.read(buffer, offset, length, position, done);
    else setImmediate(done, failure);
  }

  override writeSync(buffer: Uint8Array, offset: number, length: number, position: number): void {
    super.writeSync(buffer, offset, length, position);
    for (
      let sector = Math.floor(position / SECTOR_BYTES);
      sector * SECTOR_BYTES < position + length;
      sector++
    )
      this.#bad.delete(sector);
  }
}

type Waiting = 'read' | 'sync' | 'durable write';

/** Keeps answers of the thread pool back on demand; the answer to a read is what was there when it was asked for. */
export class HoldingStore extends MemoryStore {
  readonly holds = new Set<Waiting>();
  readonly held: { readonly kind: Waiting; readonly end: (error?: Error) => void }[] = [];

  #keep(kind: Waiting, end: (error?: Error) => void): void {
    this.held.push({ kind, end });
  }

  override read(buffer: Uint8Array, offset: number, length: number, position: number, done: StoreDone): void {
    if (!this.holds.has('read')) {
      super.read(buffer, offset, length, position, done);
      return;
    }
    const bytes = Buffer.alloc(length);
    this.readSync(bytes, 0, length, position);
    this.#keep('read', (error) => {
      buffer.set(bytes, offset);
      done(error ?? null);
    });
  }

  override sync(done: StoreDone): void {
    if (this.holds.has('sync')) this.#keep('sync', (error) => done(error ?? null));
    else super.sync(done);
  }

  override writeDurably(bytes: Buffer, position: number, done: StoreDone): void {
    if (!this.holds.has('durable write')) {
      super.writeDurably(bytes, position, done);
      return;
    }
    this.writeSync(bytes, 0, bytes.length, position);
    this.#keep('durable write', (error) => done(error ?? null));
  }
}

/** A small reproducible source of chance (mulberry32). */
export class Chance {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** 0 to below 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** An integer from 0 to below `limit`. */
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  hits(probability: number): boolean {
    return this.next() < probability;
  }
}

/** A store with a partition that was just made; its I/O is not recorded. */
export async function blankStore(sizeBytes: number): Promise<MemoryStore> {
  const store = new MemoryStore(sizeBytes);
  store.recording = false;
  await initStore(store);
  return store;
}

/** Every wait counts as quick, so that all that may be done at once is. */
export function alwaysQuick(): QuickSyncs {
  const quickSyncs = new QuickSyncs(
    () => true,
    () => 0,
  );
  while (!quickSyncs.atOnce(0)) quickSyncs.ends();
  return quickSyncs;
}
