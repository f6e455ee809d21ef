/**
 * What a partition may look like after a cut: the history of every sector that the workload uses, the images of all
 * generations, and what was promised at which moment. Moments are indices into the store's events.
 */

import { UNIT_BYTES } from '../../src/cow/format.js';
import { listChanges } from '../../src/cow/changes.js';
import type { Engine } from '../../src/cow/engine.js';
import { BLOCK_BYTES, FIRST_DIVERGED, LOCATION_OF_BASE, LOCATION_OF_MASTER } from '../../src/cow/states.js';

const SECTOR_BYTES = 512;
const BLOCK_SECTORS = BLOCK_BYTES / SECTOR_BYTES;

interface Change {
  readonly operation: number;
  readonly moment: number;
  readonly value: number;
  /** The transition that made it, if it is a rollback's. */
  readonly transition: number | undefined;
}

interface Transition {
  readonly operation: number;
  readonly enabled: boolean;
  readonly generation: number;
  readonly epoch: number;
  readonly issued: number;
  done: number;
}

export class History {
  /** The blocks of the master that the workload uses. */
  readonly blocks: readonly number[];
  /** The newest value of every sector, 0 for zeros. */
  readonly master: Int32Array;
  readonly #changes: Change[][];
  readonly #images = new Map<number, Int32Array>();
  readonly #transitions: Transition[] = [
    { operation: 0, enabled: false, generation: 0, epoch: 0, issued: 0, done: 0 },
  ];
  readonly #promises: { moment: number; operation: number }[] = [{ moment: 0, operation: 0 }];
  operation = 0;

  constructor(blocks: readonly number[], master: Int32Array = new Int32Array(blocks.length * BLOCK_SECTORS)) {
    this.blocks = blocks;
    this.master = master.slice();
    this.#changes = Array.from(master, (value) => [
      { operation: 0, moment: 0, value, transition: undefined },
    ]);
  }

  #sectorsOf(position: number, length: number): number[] {
    const sectors: number[] = [];
    for (let at = position; at < position + length; at += SECTOR_BYTES) {
      const index = this.blocks.indexOf(Math.floor(at / BLOCK_BYTES));
      if (index >= 0) sectors.push(index * BLOCK_SECTORS + (at % BLOCK_BYTES) / SECTOR_BYTES);
    }
    return sectors;
  }

  /** The range is about to become `value`. */
  change(moment: number, position: number, length: number, value: number): void {
    this.operation++;
    for (const sector of this.#sectorsOf(position, length)) this.#set(sector, moment, value, undefined);
  }

  #set(sector: number, moment: number, value: number, transition: number | undefined): void {
    this.#changes[sector].push({ operation: this.operation, moment, value, transition });
    this.master[sector] = value;
  }

  /** All operations up to `operation` were reported durable. */
  promise(moment: number, operation: number): void {
    this.#promises.push({ moment, operation });
  }

  /** The superblock of a transition is about to be written. Returns what to call when it is durable. */
  transition(
    moment: number,
    next: { enabled: boolean; generation: number; epoch: number },
  ): (moment: number) => void {
    const before = this.#transitions[this.#transitions.length - 1];
    this.operation++;
    if (next.generation > before.generation) this.#images.set(next.generation, this.master.slice());
    else if (next.enabled) {
      const image = this.#images.get(next.generation);
      image?.forEach((value, sector) => {
        if (value !== this.master[sector]) this.#set(sector, moment, value, this.#transitions.length);
      });
    }
    const transition = { ...next, operation: this.operation, issued: moment, done: Infinity };
    this.#transitions.push(transition);
    return (done) => (transition.done = done);
  }

  /** The history that begins with a partition that was opened after a cut, and showed nothing wrong. */
  static after(earlier: History, engine: Engine): History {
    const { enabled, generation, epoch } = engine.core.superblock;
    const shown = readSectors(engine, LOCATION_OF_MASTER, earlier.blocks);
    if (typeof shown === 'string') throw new Error(shown);
    const history = new History(earlier.blocks, shown);
    for (const [number, image] of earlier.#images)
      if (number <= generation) history.#images.set(number, image);
    history.#transitions[0] = { operation: 0, enabled, generation, epoch, issued: 0, done: 0 };
    return history;
  }

  /** The process was killed and the partition opened again: what it shows now is durable. */
  adopt(moment: number, engine: Engine): void {
    this.operation++;
    const shown = readSectors(engine, LOCATION_OF_MASTER, this.blocks);
    if (typeof shown === 'string') throw new Error(shown);
    shown.forEach((value, sector) => {
      if (value !== this.master[sector]) this.#set(sector, moment, value, undefined);
    });
    const current = this.#matching(engine, Infinity);
    // A transition that had not become durable will not become so any more.
    if (current !== undefined) this.#transitions.length = current + 1;
    for (const [generation] of this.#images)
      if (generation > engine.core.superblock.generation) this.#images.delete(generation);
    this.#transitions[this.#transitions.length - 1].done = Math.min(
      moment,
      this.#transitions[this.#transitions.length - 1].done,
    );
    this.promise(moment, this.operation);
  }

  #matching(engine: Engine, moment: number): number | undefined {
    const { enabled, generation, epoch } = engine.core.superblock;
    for (let index = this.#transitions.length - 1; index >= 0; index--) {
      const transition = this.#transitions[index];
      if (transition.issued > moment) continue;
      if (
        transition.enabled === enabled &&
        transition.generation === generation &&
        transition.epoch === epoch
      )
        return index;
      if (transition.done <= moment) return undefined;
    }
    return undefined;
  }

  /** What is wrong with a partition that was opened after a cut at `moment`; undefined if nothing is. */
  async violation(engine: Engine, moment: number): Promise<string | undefined> {
    const current = this.#matching(engine, moment);
    if (current === undefined) {
      const { enabled, generation, epoch } = engine.core.superblock;
      return `came back as generation ${generation}, epoch ${epoch}, ${enabled ? 'enabled' : 'disabled'}`;
    }
    const transition = this.#transitions[current];
    const promised = this.#promises.findLast((promise) => promise.moment <= moment)?.operation ?? 0;
    const master = readSectors(engine, LOCATION_OF_MASTER, this.blocks);
    if (typeof master === 'string') return `master: ${master}`;
    const floor = Math.max(promised, transition.operation);
    for (let sector = 0; sector < master.length; sector++) {
      if (!this.#allows(sector, master[sector], floor, moment, current)) {
        return `master sector ${this.#name(sector)} shows ${master[sector]}, promised up to operation ${floor}`;
      }
    }
    if (transition.enabled) {
      const image = this.#images.get(transition.generation);
      const slave = readSectors(engine, LOCATION_OF_BASE, this.blocks);
      if (typeof slave === 'string') return `slave: ${slave}`;
      const wrong = slave.findIndex((value, sector) => value !== image?.[sector]);
      if (wrong >= 0)
        return `slave sector ${this.#name(wrong)} shows ${slave[wrong]} instead of ${image?.[wrong]}`;
    }
    return (await this.#unreportedChange(engine, master)) ?? wrongCount(engine);
  }

  #name(sector: number): string {
    return `${this.blocks[Math.floor(sector / BLOCK_SECTORS)]}.${sector % BLOCK_SECTORS}`;
  }

  #allows(sector: number, value: number, floor: number, moment: number, current: number): boolean {
    const changes = this.#changes[sector].filter(
      (change) => change.transition === undefined || change.transition <= current,
    );
    const settled = changes.findLast((change) => change.operation <= floor);
    if (settled?.value === value) return true;
    return changes.some(
      (change) => change.operation > floor && change.moment <= moment && change.value === value,
    );
  }

  async #unreportedChange(engine: Engine, master: Int32Array): Promise<string | undefined> {
    for (const [generation, image] of this.#images) {
      if (generation > engine.core.superblock.generation) continue;
      const units = new Set<number>();
      for await (const range of listChanges(engine, generation).ranges) {
        for (let at = range.position; at < range.position + range.length; at += UNIT_BYTES)
          units.add(at / UNIT_BYTES);
      }
      for (let sector = 0; sector < master.length; sector++) {
        if (master[sector] === image[sector]) continue;
        const block = this.blocks[Math.floor(sector / BLOCK_SECTORS)];
        if (!units.has(Math.floor((block * BLOCK_BYTES) / UNIT_BYTES))) {
          return `sector ${this.#name(sector)} changed since generation ${generation}, but is not reported`;
        }
      }
    }
    return undefined;
  }
}

/** The value of every sector of the blocks, or what is wrong with them. */
function readSectors(engine: Engine, table: Uint8Array, blocks: readonly number[]): Int32Array | string {
  const values = new Int32Array(blocks.length * BLOCK_SECTORS);
  const bytes = Buffer.alloc(BLOCK_BYTES);
  for (const [index, block] of blocks.entries()) {
    if (engine.reader.read(table, block * BLOCK_BYTES, bytes, 0, BLOCK_BYTES) !== 0)
      return `block ${block} is unreadable`;
    for (let sector = 0; sector < BLOCK_SECTORS; sector++) {
      const value = bytes.readInt32LE(sector * SECTOR_BYTES);
      if (bytes.readInt32LE(sector * SECTOR_BYTES + 508) !== value)
        return `block ${block} has a sector that is a mixture`;
      values[index * BLOCK_SECTORS + sector] = value;
    }
  }
  return values;
}

function wrongCount(engine: Engine): string | undefined {
  let diverged = 0;
  for (let number = 0; number < engine.core.totalPages; number++) {
    for (const state of engine.map.forReading(number).states) if (state >= FIRST_DIVERGED) diverged++;
  }
  if (diverged === engine.core.divergedBlocks) return undefined;
  return `counts ${engine.core.divergedBlocks} diverged blocks, the map has ${diverged}`;
}
