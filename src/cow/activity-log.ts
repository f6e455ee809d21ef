/**
 * The activity log lists the extents (4 MiB) that may be written in place without any other record of the change.
 * After a crash they count as changed. A write in place may begin once the list that names its extent is durable.
 *
 * Four slots: list n goes to slots 2(n mod 2) and the one after, so that the list before stays whole meanwhile, and
 * no single damaged place can bring back an older list.
 *
 *     0   magic 'CLDDACTV', CRC-32C, entries u32, uuid
 *     32  sequence u64, zeros
 *     64  entries of 12 bytes: page u32, generation u32, extents u8 (one bit each), zeros
 */

import { isSealed, readU64, seal, writeU64 } from './bytes.js';
import { ACTIVITY_ENTRY_BYTES, ACTIVITY_SLOTS, HEADER_BYTES } from './format.js';
import { readCopies } from './store.js';
import type { Store } from './store.js';
import type { Superblock } from './superblock.js';

const MAGIC = 'CLDDACTV';

export interface ActivityEntry {
  readonly page: number;
  readonly generation: number;
  extents: number;
}

interface CurrentEntry extends ActivityEntry {
  /** Those of `extents` that a durable list names. */
  durable: number;
}

export class ActivityLog {
  readonly #superblock: Superblock;
  readonly #entries: ActivityEntry[] = [];
  /** The current generation's entries by page. */
  readonly #current = new Map<number, CurrentEntry>();
  #sequence: number;

  constructor(superblock: Superblock, sequence: number) {
    this.#superblock = superblock;
    this.#sequence = sequence;
  }

  get entries(): readonly ActivityEntry[] {
    return this.#entries;
  }

  get capacity(): number {
    return Math.floor((this.#superblock.activitySlotBytes - HEADER_BYTES) / ACTIVITY_ENTRY_BYTES);
  }

  /** True if `pages` further pages fit. */
  hasRoom(pages: number): boolean {
    return this.#entries.length + pages <= this.capacity;
  }

  /** The extents of a page that may be written in place. */
  activeExtents(page: number): number {
    return this.#current.get(page)?.durable ?? 0;
  }

  /** Adds to the list in memory; `encode` and a durable write must follow before anybody relies on it. */
  add(page: number, extents: number): void {
    const entry = this.#current.get(page);
    if (entry !== undefined) entry.extents |= extents;
    else {
      const added = { page, generation: this.#superblock.generation, extents, durable: 0 };
      this.#entries.push(added);
      this.#current.set(page, added);
    }
  }

  /** What was encoded last is durable. */
  settle(): void {
    for (const entry of this.#current.values()) entry.durable = entry.extents;
  }

  /** A new generation begins: what is listed stays listed, but no longer permits writes. */
  startGeneration(): void {
    this.#current.clear();
  }

  /** Drops entries that are no longer needed; the list on disk may go on naming them. */
  retire(isNeeded: (page: number) => boolean): void {
    const kept = this.#entries.filter((entry) => isNeeded(entry.page));
    this.#entries.splice(0, this.#entries.length, ...kept);
    for (const page of this.#current.keys()) if (!isNeeded(page)) this.#current.delete(page);
  }

  /** The list as it now is, and where its two copies go. Nobody may rely on it before the first is durable. */
  encode(): { bytes: Buffer; positions: readonly [number, number] } {
    const out = Buffer.alloc(HEADER_BYTES + this.#entries.length * ACTIVITY_ENTRY_BYTES);
    this.#sequence++;
    out.writeUInt32LE(this.#entries.length, 12);
    writeU64(out, 32, this.#sequence);
    this.#entries.forEach((entry, index) => {
      const at = HEADER_BYTES + index * ACTIVITY_ENTRY_BYTES;
      out.writeUInt32LE(entry.page, at);
      out.writeUInt32LE(entry.generation, at + 4);
      out[at + 8] = entry.extents;
    });
    seal(out, MAGIC, this.#superblock.uuid);
    const { activityOffset, activitySlotBytes } = this.#superblock;
    const first = activityOffset + 2 * (this.#sequence % 2) * activitySlotBytes;
    return { bytes: out, positions: [first, first + activitySlotBytes] };
  }
}

/** One slot as read: its sequence and entries, or undefined if it holds no whole list of this partition. */
export function readActivitySlot(
  store: Store,
  superblock: Superblock,
  slot: number,
): { sequence: number; entries: ActivityEntry[] } | undefined {
  const { activityOffset, activitySlotBytes, uuid } = superblock;
  const bytes = Buffer.alloc(activitySlotBytes);
  store.readSync(bytes, 0, bytes.length, activityOffset + slot * activitySlotBytes);
  const count = bytes.readUInt32LE(12);
  const length = HEADER_BYTES + count * ACTIVITY_ENTRY_BYTES;
  if (length > bytes.length || !isSealed(bytes, MAGIC, uuid, length)) return undefined;
  const sequence = readU64(bytes, 32);
  if (sequence === Infinity) return undefined;
  const entries: ActivityEntry[] = [];
  for (let at = HEADER_BYTES; at < length; at += ACTIVITY_ENTRY_BYTES) {
    entries.push({
      page: bytes.readUInt32LE(at),
      generation: bytes.readUInt32LE(at + 4),
      extents: bytes[at + 8],
    });
  }
  return { sequence, entries };
}

/** The newest whole list; an empty one of sequence 0 if there is none, as after `init`. */
export function readActivityLog(
  store: Store,
  superblock: Superblock,
): { sequence: number; entries: ActivityEntry[] } {
  let newest: { sequence: number; entries: ActivityEntry[] } = { sequence: 0, entries: [] };
  for (let slot = 0; slot < ACTIVITY_SLOTS; slot += 2) {
    const copies = [slot, slot + 1].map((copy) => () => readActivitySlot(store, superblock, copy));
    for (const list of readCopies(copies))
      if (list !== undefined && list.sequence > newest.sequence) newest = list;
  }
  return newest;
}
