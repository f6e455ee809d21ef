/**
 * Small records of other layers, kept in the partition: all of them in one image, in two twins. A save writes twin 0,
 * syncs, writes twin 1 and syncs; the newer whole twin is the truth.
 *
 *     0   magic 'CLDDSTAT', CRC-32C, length u32, uuid
 *     32  sequence u64, records u32, zeros
 *     64  records: key length u16, value length u32, key (UTF-8), value
 */

import { isSealed, readU64, seal, writeU64 } from './bytes.js';
import { HEADER_BYTES, STATE_TWIN_BYTES, STATE_VALUE_BYTES_MAX } from './format.js';
import { OperationalError } from '../operational-error.js';
import type { Store } from './store.js';
import type { Superblock } from './superblock.js';
import { asError } from '../thrown.js';

const MAGIC = 'CLDDSTAT';
const RECORD_HEADER_BYTES = 6;
export const STATE_TWINS = 2;

export interface StateImage {
  readonly sequence: number;
  readonly records: Map<string, Buffer>;
}

/** One twin as read, or undefined if it is not whole. */
export function readStateTwin(store: Store, superblock: Superblock, twin: number): StateImage | undefined {
  const bytes = Buffer.alloc(STATE_TWIN_BYTES);
  store.readSync(bytes, 0, bytes.length, superblock.stateOffset + twin * STATE_TWIN_BYTES);
  const length = bytes.readUInt32LE(12);
  if (length < HEADER_BYTES || length > bytes.length) return undefined;
  if (!isSealed(bytes, MAGIC, superblock.uuid, length)) return undefined;
  const sequence = readU64(bytes, 32);
  // No writer has come so far: its successor could not be written.
  if (sequence === Infinity) return undefined;
  const records = new Map<string, Buffer>();
  for (let at = HEADER_BYTES; at + RECORD_HEADER_BYTES <= length;) {
    const keyEnd = at + RECORD_HEADER_BYTES + bytes.readUInt16LE(at);
    const valueEnd = keyEnd + bytes.readUInt32LE(at + 2);
    records.set(bytes.toString('utf8', at + RECORD_HEADER_BYTES, keyEnd), bytes.subarray(keyEnd, valueEnd));
    at = valueEnd;
  }
  return { sequence, records };
}

export function encodeState(image: StateImage, uuid: Buffer): Buffer {
  const parts: Buffer[] = [Buffer.alloc(HEADER_BYTES)];
  for (const [key, value] of image.records) {
    const name = Buffer.from(key);
    const header = Buffer.alloc(RECORD_HEADER_BYTES);
    header.writeUInt16LE(name.length, 0);
    header.writeUInt32LE(value.length, 2);
    parts.push(header, name, value);
  }
  const out = Buffer.concat(parts);
  out.writeUInt32LE(out.length, 12);
  writeU64(out, 32, image.sequence);
  out.writeUInt32LE(image.records.size, 40);
  seal(out, MAGIC, uuid);
  return out;
}

/** What the area needs of the engine: writes and syncs that end in fail-stop if they fail. */
export interface StateHost {
  readonly superblock: Superblock;
  writeMetadata(bytes: Buffer, position: number): void;
  sync(what: 'state'): Promise<void>;
}

export class StateArea {
  readonly #host: StateHost;
  #image: StateImage;
  #saving: Promise<void> | undefined;
  #waiting: ((error?: Error) => void)[] = [];

  #staleTwin: number | undefined;

  /** `staleTwin`: the twin, if any, that does not hold the image. */
  constructor(host: StateHost, image: StateImage, staleTwin: number | undefined) {
    this.#host = host;
    this.#image = image;
    this.#staleTwin = staleTwin;
  }

  /** Writes the twin that was behind or damaged. */
  async makeLevel(): Promise<void> {
    if (this.#staleTwin === undefined) return;
    await this.#write([this.#staleTwin]);
    this.#staleTwin = undefined;
  }

  load(key: string): Buffer | undefined {
    const value = this.#image.records.get(key);
    return value === undefined ? undefined : Buffer.from(value);
  }

  /** Replaces a record (undefined deletes it). Saves that arrive meanwhile share the next write. */
  save(key: string, value: Buffer | undefined, done: (error?: Error) => void): void {
    const records = new Map(this.#image.records);
    if (value === undefined) records.delete(key);
    else records.set(key, Buffer.from(value));
    const image = { sequence: this.#image.sequence + 1, records };
    if (sizeOf(records) > STATE_VALUE_BYTES_MAX) {
      const error = new OperationalError(
        'STATE_FULL',
        `the partition's state area holds ${STATE_VALUE_BYTES_MAX} bytes`,
      );
      process.nextTick(done, error);
      return;
    }
    this.#image = image;
    this.#waiting.push(done);
    this.#saving ??= this.#run();
  }

  /** Resolves when no save is under way. */
  async settled(): Promise<void> {
    while (this.#saving !== undefined) await this.#saving;
  }

  async #run(): Promise<void> {
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const group = this.#waiting;
      this.#waiting = [];
      let failure: Error | undefined;
      try {
        await this.#write([0, 1]);
      } catch (error) {
        failure = asError(error);
      }
      for (const done of group) done(failure);
    }
    this.#saving = undefined;
  }

  async #write(twins: readonly number[]): Promise<void> {
    const { superblock } = this.#host;
    const bytes = encodeState(this.#image, superblock.uuid);
    for (const twin of twins) {
      this.#host.writeMetadata(bytes, superblock.stateOffset + twin * STATE_TWIN_BYTES);
      await this.#host.sync('state');
    }
  }
}

/** Values and keys count towards the limit, so that what fits the limit fits the twin whatever the number of keys. */
function sizeOf(records: ReadonlyMap<string, Buffer>): number {
  let total = 0;
  for (const [key, value] of records) total += value.length + (RECORD_HEADER_BYTES + Buffer.byteLength(key));
  return total;
}
