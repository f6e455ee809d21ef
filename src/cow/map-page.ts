/**
 * One map page: the states of 8,192 blocks (32 MiB) and the change marks of their 512 units (64 KiB each).
 * In memory a state takes a byte and a mark a word; on disk 3 and 15 bits:
 *
 *     0     magic 'CLDDMAP1', CRC-32C, epoch u32, uuid
 *     32    page number u32, generation base u32, sequence u64, zeros
 *     64    8,192 × 3 bits: eight states in three bytes, the first in the low bits
 *     3136  512 × 15 bits: mark - generation base; the first in the low bits
 */

import { isSealed, readU64, seal, writeU64 } from './bytes.js';
import { HEADER_BYTES, MARK_SPAN, PAGE_BLOCKS, PAGE_BYTES, PAGE_UNITS, UNIT_BLOCKS } from './format.js';
import { DROP, FIRST_DIVERGED, LOCATION_OF_BASE, LOCATION_OF_MASTER } from './states.js';
import type { Transition } from './states.js';

const MAGIC = 'CLDDMAP1';
const STATES_AT = HEADER_BYTES;
const MARKS_AT = STATES_AT + (PAGE_BLOCKS * 3) / 8;

export class MapPage {
  readonly number: number;
  readonly states = new Uint8Array(PAGE_BLOCKS);
  /** The generation in which a unit last changed. */
  readonly marks = new Uint32Array(PAGE_UNITS);
  /** Units whose flips wait for the next journal commit. */
  readonly pending = new Uint8Array(PAGE_UNITS);
  epoch: number;
  sequence = 0;
  /** Differs from its twins on disk. */
  dirty = false;
  /** Its image is on the way to the disk. */
  writing = false;
  /** The twin to overwrite first: never the one that it was read from, since the other one may not be whole. */
  firstTwin: 0 | 1 = 0;
  /** Used since the cache's clock hand came by. */
  used = true;
  /** Extents (one bit each) that the activity log lists for the current generation. */
  active = 0;

  constructor(number: number, epoch: number) {
    this.number = number;
    this.epoch = epoch;
  }

  /** Nothing of it is only in memory: its marks can be relied on after a crash. */
  get settled(): boolean {
    return !this.dirty && !this.writing;
  }

  /** Brings it from the end of its own epoch to `epoch`. Later transitions find no divergence, so only the first counts. */
  normalise(transition: Transition, epoch: number): void {
    this.#normalise(transition, 0, PAGE_BLOCKS);
    this.epoch = epoch;
  }

  /** As `normalise`, where only these units can be diverged. */
  normaliseUnits(transition: Transition, epoch: number, units: readonly number[]): void {
    for (const unit of units) this.#normalise(transition, unit * UNIT_BLOCKS, (unit + 1) * UNIT_BLOCKS);
    this.epoch = epoch;
  }

  #normalise(transition: Transition, from: number, end: number): void {
    const { states } = this;
    const table = transition === DROP ? LOCATION_OF_BASE : LOCATION_OF_MASTER;
    for (let index = from; index < end; index++) {
      if (states[index] >= FIRST_DIVERGED) states[index] = table[states[index]];
    }
  }

  /** The image for the disk, in `out` (4 KiB at `at`). Marks older than 15 bits reach back come out as the oldest. */
  encode(out: Buffer, at: number, uuid: Buffer, generation: number): void {
    const bytes = out.subarray(at, at + PAGE_BYTES);
    const base = Math.max(0, generation - MARK_SPAN);
    bytes.fill(0, 0, HEADER_BYTES);
    bytes.writeUInt32LE(this.epoch, 12);
    bytes.writeUInt32LE(this.number, 32);
    bytes.writeUInt32LE(base, 36);
    writeU64(bytes, 40, this.sequence);
    packStates(this.states, bytes);
    packMarks(this.marks, base, bytes);
    seal(bytes, MAGIC, uuid);
  }

  /** The page that these 4 KiB hold, or undefined if they aren't that page of that partition, whole. */
  static decode(bytes: Buffer, uuid: Buffer, number: number): MapPage | undefined {
    if (!isSealed(bytes, MAGIC, uuid) || bytes.readUInt32LE(32) !== number) return undefined;
    const page = new MapPage(number, bytes.readUInt32LE(12));
    page.sequence = readU64(bytes, 40);
    unpackStates(bytes, page.states);
    unpackMarks(bytes, bytes.readUInt32LE(36), page.marks);
    return page;
  }
}

function packStates(states: Uint8Array, out: Buffer): void {
  for (let from = 0, to = STATES_AT; from < PAGE_BLOCKS; from += 8, to += 3) {
    const low = states[from] | (states[from + 1] << 3) | (states[from + 2] << 6) | (states[from + 3] << 9);
    const high =
      states[from + 4] | (states[from + 5] << 3) | (states[from + 6] << 6) | (states[from + 7] << 9);
    const word = low | (high << 12);
    out[to] = word;
    out[to + 1] = word >>> 8;
    out[to + 2] = word >>> 16;
  }
}

function unpackStates(bytes: Buffer, out: Uint8Array): void {
  for (let to = 0, from = STATES_AT; to < PAGE_BLOCKS; to += 8, from += 3) {
    const word = bytes[from] | (bytes[from + 1] << 8) | (bytes[from + 2] << 16);
    if (word === 0) continue;
    for (let index = 0; index < 8; index++) out[to + index] = (word >>> (3 * index)) & 7;
  }
}

function packMarks(marks: Uint32Array, base: number, out: Buffer): void {
  let held = 0;
  let bits = 0;
  let to = MARKS_AT;
  for (let index = 0; index < PAGE_UNITS; index++) {
    held |= (marks[index] > base ? marks[index] - base : 0) << bits;
    bits += 15;
    for (; bits >= 8; bits -= 8) {
      out[to++] = held;
      held >>>= 8;
    }
  }
}

function unpackMarks(bytes: Buffer, base: number, out: Uint32Array): void {
  let held = 0;
  let bits = 0;
  let from = MARKS_AT;
  for (let index = 0; index < PAGE_UNITS; index++) {
    for (; bits < 15; bits += 8) held |= bytes[from++] << bits;
    out[index] = base + (held & 0x7fff);
    held >>>= 15;
    bits -= 15;
  }
}
