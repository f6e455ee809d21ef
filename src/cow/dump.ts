/** What lies where on a partition, for a person: as far as it can be read, however damaged the rest is. */

import { readActivitySlot } from './activity-log.js';
import { uuidText } from './bytes.js';
import { unlessUnreadable } from './check-context.js';
import { viewJournal } from './check-journal.js';
import { newestOf, readSuperblockCopies } from './check-superblock.js';
import {
  ACTIVITY_SLOTS,
  JOURNAL_BLOCK_BYTES,
  PAGE_BYTES,
  STATE_TWIN_BYTES,
  SUPERBLOCK_BYTES,
  pageOffset,
  placeSegments,
} from './format.js';
import { MapPage } from './map-page.js';
import { STATE_TWINS, readStateTwin } from './state-area.js';
import type { Store } from './store.js';
import type { Superblock } from './superblock.js';
import { bitmapOffset, readBitmapTwin } from './written-bitmap.js';

export interface Region {
  readonly what: string;
  readonly position: number;
  readonly lengthBytes: number;
}

/** Everything that a reader may want as JSON; values of the state area are left out, since keys of reservations are there. */
export interface PartitionDump {
  readonly superblocks: readonly { position: number; sequence: number | null; problem: string | null }[];
  /** The newest whole superblock; null if there is none, and then nothing else can be told. */
  readonly superblock: Readonly<Record<string, string | number | boolean>> | null;
  readonly layout: readonly Region[];
  readonly journal: { tail: number; nextLsn: number; batches: readonly BatchDump[] } | null;
  readonly bitmap: readonly { position: number; twin: number; whole: boolean }[];
  readonly activity: readonly { slot: number; sequence: number | null; entries: number }[];
  readonly state: readonly {
    twin: number;
    sequence: number | null;
    records: readonly { key: string; bytes: number }[];
  }[];
}

export interface BatchDump {
  readonly lsn: number;
  readonly blocks: number;
  readonly records: number;
  readonly epoch: number;
  readonly generation: number;
  readonly divergedBlocks: number;
}

export function dumpStore(store: Store): PartitionDump {
  const copies = readSuperblockCopies(store);
  const superblocks = copies.map(({ position, content }) =>
    typeof content === 'string'
      ? { position, sequence: null, problem: content }
      : { position, sequence: content.sequence, problem: null },
  );
  const newest = newestOf(copies)?.content;
  if (newest === undefined) {
    return { superblocks, superblock: null, layout: [], journal: null, bitmap: [], activity: [], state: [] };
  }
  return {
    superblocks,
    superblock: fieldsOf(newest),
    layout: layoutOf(newest),
    journal: journalOf(store, newest),
    bitmap: placeSegments(newest.segments).flatMap((segment, segmentIndex) =>
      [0, 1].map((twin) => ({
        position: bitmapOffset(segment, 0, twin),
        twin,
        whole: Array.from({ length: segment.bitmapBlocks }, (_, index) =>
          unlessUnreadable(() => readBitmapTwin(store, newest.uuid, { segment, segmentIndex, index, twin })),
        ).every((block) => block !== undefined),
      })),
    ),
    activity: Array.from({ length: ACTIVITY_SLOTS }, (_, slot) => {
      const list = unlessUnreadable(() => readActivitySlot(store, newest, slot));
      return { slot, sequence: list?.sequence ?? null, entries: list?.entries.length ?? 0 };
    }),
    state: Array.from({ length: STATE_TWINS }, (_, twin) => {
      const image = unlessUnreadable(() => readStateTwin(store, newest, twin));
      const records = [...(image?.records ?? [])].map(([key, value]) => ({ key, bytes: value.length }));
      return { twin, sequence: image?.sequence ?? null, records };
    }),
  };
}

function fieldsOf(superblock: Superblock): Record<string, string | number | boolean> {
  const { uuid, sequence, clean, enabled, deviceBytes, generation, approximateGeneration } = superblock;
  const { epoch, historyBase, divergedBlocks, nextLsn, tailLsn, enabledAt, createdAt } = superblock;
  const time = (ms: number): string => (ms === 0 ? 'never' : new Date(ms).toISOString());
  return {
    uuid: uuidText(uuid),
    sequence,
    closedInOrder: clean,
    slaveEnabled: enabled,
    deviceBytes,
    generation,
    approximateGeneration,
    epoch,
    historyBase,
    divergedBlocks,
    nextLsn,
    tailLsn,
    enabledAt: time(enabledAt),
    createdAt: time(createdAt),
  };
}

function layoutOf(superblock: Superblock): Region[] {
  const { activityOffset, activitySlotBytes, stateOffset, journalOffset, journalBlocks } = superblock;
  const regions: Region[] = [
    { what: 'superblock, copy 0', position: 0, lengthBytes: SUPERBLOCK_BYTES },
    { what: 'activity log', position: activityOffset, lengthBytes: ACTIVITY_SLOTS * activitySlotBytes },
    { what: 'state area', position: stateOffset, lengthBytes: STATE_TWINS * STATE_TWIN_BYTES },
    { what: 'journal', position: journalOffset, lengthBytes: 2 * journalBlocks * JOURNAL_BLOCK_BYTES },
  ];
  placeSegments(superblock.segments).forEach((segment, index) => {
    const { bitmapOffset: position, mapOffset, halfA, halfB, masterBytes, pages } = segment;
    const of = `of segment ${index}`;
    regions.push(
      { what: `written bitmap ${of}`, position, lengthBytes: mapOffset - position },
      { what: `map ${of}`, position: mapOffset, lengthBytes: 2 * pages * PAGE_BYTES },
      { what: `half A ${of}`, position: halfA, lengthBytes: masterBytes },
      { what: `half B ${of}`, position: halfB, lengthBytes: masterBytes },
    );
  });
  return regions;
}

function journalOf(store: Store, superblock: Superblock): NonNullable<PartitionDump['journal']> {
  const { tail, nextLsn, union } = viewJournal(store, superblock);
  const batches: BatchDump[] = [];
  for (let lsn = tail; lsn < nextLsn; lsn++) {
    const block = union.get(lsn);
    if (block === undefined) continue;
    const open = batches.at(-1);
    if (open?.lsn === block.batchFirst)
      batches[batches.length - 1] = { ...open, records: open.records + block.records };
    else {
      const { batchFirst, batchBlocks: blocks, records, epoch, generation, divergedBlocks } = block;
      batches.push({ lsn: batchFirst, blocks, records, epoch, generation, divergedBlocks });
    }
  }
  return { tail, nextLsn, batches };
}

export interface PageDump {
  readonly position: number;
  readonly twin: number;
  readonly epoch: number | null;
  readonly sequence: number | null;
  /** Runs of blocks that have one state, by their numbers within the page. */
  readonly runs: readonly { from: number; blocks: number; state: number }[];
}

/** Both twins of a map page; undefined if there is no such page. */
export function dumpPage(store: Store, superblock: Superblock, number: number): PageDump[] | undefined {
  const segment = placeSegments(superblock.segments).find(
    ({ firstPage, pages }) => number >= firstPage && number < firstPage + pages,
  );
  if (segment === undefined) return undefined;
  return [0, 1].map((twin) => {
    const position = pageOffset(segment, number, twin);
    const bytes = Buffer.alloc(PAGE_BYTES);
    const page = unlessUnreadable(() => {
      store.readSync(bytes, 0, PAGE_BYTES, position);
      return MapPage.decode(bytes, superblock.uuid, number);
    });
    const runs: { from: number; blocks: number; state: number }[] = [];
    for (const [from, state] of (page?.states ?? []).entries()) {
      const open = runs.at(-1);
      if (open?.state === state) open.blocks++;
      else runs.push({ from, blocks: 1, state });
    }
    return { position, twin, epoch: page?.epoch ?? null, sequence: page?.sequence ?? null, runs };
  });
}
