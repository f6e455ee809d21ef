/**
 * Opening: find the newest superblock, replay the journal into the map, count active extents as changed.
 * Nothing is written here, so that a refusal leaves the partition as it was; the engine then brings all copies level.
 */

import { ActivityLog, readActivityLog } from './activity-log.js';
import type { ActivityEntry } from './activity-log.js';
import { Core } from './core.js';
import { EXTENT_UNITS, PAGE_UNITS, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, UNIT_BLOCKS } from './format.js';
import { Journal, forEachRecord, readJournal, recoverableBlocks } from './journal.js';
import type { JournalBlock } from './journal.js';
import type { MapPage } from './map-page.js';
import { PageMap } from './page-map.js';
import { OperationalError } from '../operational-error.js';
import type { QuickSyncs } from './quick-syncs.js';
import { StateArea, readStateTwin } from './state-area.js';
import type { StateImage } from './state-area.js';
import { HOLE } from './states.js';
import type { Steps } from './steps.js';
import type { Store } from './store.js';
import { readCopies, syncStore } from './store.js';
import { decodeSuperblock, transitionOf } from './superblock.js';
import type { Superblock } from './superblock.js';
import { WrittenBitmap } from './written-bitmap.js';
import { messageOf } from '../thrown.js';

export interface EngineOptions {
  /** Map pages kept in memory, 10 KiB and 32 MiB of the master each. */
  cachePages?: number;
  /** Written bytes that may wait for a sync before writes do; a sixteenth of the memory unless given. */
  unsyncedBytesMax?: number;
  /** Lets commits wait in the event loop's thread where that is quicker; through the pool only unless given. */
  quickSyncs?: QuickSyncs;
  /** For tests: which ordering steps to do. */
  steps?: Steps;
}

export const DEFAULT_CACHE_PAGES = 4096;
/** Cachefuls of pages that a journal may name: it names two (PageMap.force), and this is more than that. */
const PAGES_REPLAYED = 4;

export interface EngineParts {
  readonly core: Core;
  readonly map: PageMap;
  readonly written: WrittenBitmap;
  readonly journal: Journal;
  readonly activity: ActivityLog;
  readonly state: StateArea;
}

export interface Recovered {
  readonly parts: EngineParts;
  /** The newest generation whose marks had to be made coarser; 0 if none. */
  readonly marked: number;
  readonly divergedBlocks: number;
}

export async function recover(store: Store, options: EngineOptions): Promise<Recovered> {
  const does = options.steps ?? (() => true);
  // A process that was killed leaves writes that are readable but not durable; what is read now must stay true.
  await syncStore(store);
  const superblock = readSuperblock(store);
  requireWholeDevice(store, superblock);
  const core = new Core(store, superblock, does, options.unsyncedBytesMax, options.quickSyncs);
  const written = new WrittenBitmap(superblock.uuid, core.segments);
  written.read(store);
  const map = new PageMap(
    store,
    superblock,
    core.segments,
    written,
    options.cachePages ?? DEFAULT_CACHE_PAGES,
  );
  const { image, staleTwin } = readState(store, superblock);
  const state = new StateArea(core, image, staleTwin);
  const activityList = readActivityLog(store, superblock);
  const activity = new ActivityLog(superblock, activityList.sequence);
  if (superblock.clean) {
    const journal = new Journal(superblock, superblock.nextLsn, superblock.nextLsn);
    const parts = { core, map, written, journal, activity, state };
    return { parts, marked: 0, divergedBlocks: superblock.divergedBlocks };
  }
  const { blocks, nextLsn, tail } = recoverableBlocks(superblock, readJournal(store, superblock), does);
  replay(core, map, blocks, PAGES_REPLAYED * Math.max(map.maxPages, DEFAULT_CACHE_PAGES));
  const marked = does('open: count active extents as changed')
    ? markActive(core, map, activityList.entries)
    : 0;
  const newest = blocks.at(-1);
  // A block of an older epoch was written while a transition was under way, and knows nothing of it.
  const current =
    newest !== undefined && newest.lsn >= superblock.nextLsn && newest.epoch === superblock.epoch;
  const journal = new Journal(superblock, nextLsn, tail);
  const parts = { core, map, written, journal, activity, state };
  return { parts, marked, divergedBlocks: current ? newest.divergedBlocks : superblock.divergedBlocks };
}

function markActive(core: Core, map: PageMap, entries: readonly ActivityEntry[]): number {
  const { generation } = core.superblock;
  const sane = entries.filter((entry) => entry.page < core.totalPages && entry.generation <= generation);
  return markActiveExtents(map, sane, core.does);
}

/**
 * The newest whole copy.
 * @throws OperationalError NOT_CLDD, UNKNOWN_FORMAT or DAMAGED
 */
export function readSuperblock(store: Store): Superblock {
  const bytes = Buffer.alloc(SUPERBLOCK_BYTES);
  let newest: Superblock | undefined;
  let complaint: string | undefined;
  for (const position of SUPERBLOCK_OFFSETS) {
    if (position + SUPERBLOCK_BYTES > store.sizeBytes) break;
    const found = readSuperblockAt(store, position, bytes);
    if (typeof found === 'string') complaint = found;
    else if (found !== undefined && (newest === undefined || found.sequence > newest.sequence))
      newest = found;
  }
  if (newest !== undefined) return newest;
  if (complaint === undefined) {
    throw new OperationalError(
      'NOT_CLDD',
      "this is not a cldd partition; 'cldd init' makes one (and erases what it holds)",
    );
  }
  const unknown = complaint.startsWith('it has format');
  throw new OperationalError(
    unknown ? 'UNKNOWN_FORMAT' : 'DAMAGED',
    `no superblock copy can be used: ${complaint}; ` +
      (unknown ? 'use the version of cldd that made it' : 'restore the partition from a backup'),
  );
}

/** As `decodeSuperblock`. A copy that can't be read is as bad as one that has rotted. */
function readSuperblockAt(store: Store, position: number, bytes: Buffer): Superblock | string | undefined {
  try {
    store.readSync(bytes, 0, bytes.length, position);
  } catch (error) {
    return `it can't be read (${messageOf(error)})`;
  }
  return decodeSuperblock(bytes);
}

function requireWholeDevice(store: Store, superblock: Superblock): void {
  if (store.sizeBytes >= superblock.deviceBytes) return;
  throw new OperationalError(
    'DEVICE_SHRUNK',
    `the device has ${store.sizeBytes} bytes, but the partition was made for ${superblock.deviceBytes}; ` +
      'give the device its size back (nothing was changed)',
  );
}

/** The newer whole twin, and which twin does not hold it. */
function readState(
  store: Store,
  superblock: Superblock,
): { image: StateImage; staleTwin: number | undefined } {
  const [first, second] = readCopies([0, 1].map((twin) => () => readStateTwin(store, superblock, twin)));
  if (first !== undefined && (second === undefined || first.sequence >= second.sequence)) {
    return { image: first, staleTwin: first.sequence === second?.sequence ? undefined : 1 };
  }
  if (second !== undefined) return { image: second, staleTwin: 0 };
  throw new OperationalError(
    'DAMAGED',
    "both twins of the state area are unreadable; 'cldd check --repair --empty-state' makes it empty (reservations are then lost, data are not)",
  );
}

/**
 * Absolute states, in order: a page ends as the journal's last word says, however much of it the page had already.
 *
 * Who made the partition may have made it to keep us busy: a page is normalised as a whole once, and later epochs of the
 * same journal cost no more than the records between them; and no more pages are taken in than a journal can name.
 */
function replay(core: Core, map: PageMap, blocks: readonly JournalBlock[], pagesMax: number): void {
  const { superblock, does } = core;
  /** Units set since the page came to its epoch: what is diverged in it, once it has been normalised here. */
  const since = new Map<MapPage, number[] | undefined>();
  for (const block of blocks) {
    if (block.epoch > superblock.epoch || block.generation > superblock.generation) {
      throw new OperationalError('DAMAGED', `journal block ${block.lsn} is newer than every superblock copy`);
    }
    forEachRecord(block, (unit, states) => {
      const number = Math.floor(unit / PAGE_UNITS);
      if (number >= core.totalPages) {
        throw new OperationalError(
          'DAMAGED',
          `journal block ${block.lsn} names a map page that does not exist`,
        );
      }
      const page = map.force(number);
      if (!since.has(page)) {
        if (since.size >= pagesMax)
          throw new OperationalError('DAMAGED', 'the journal names more map pages than it can');
        since.set(page, undefined);
      }
      if (does('open: rewrite every page that a record touched')) page.dirty = true;
      if (page.epoch > block.epoch && does('open: skip records of an older epoch than their page')) return;
      if (page.epoch < block.epoch && does('open: normalise a page before a record of a later epoch')) {
        const transition = transitionOf(superblock, page.epoch);
        const units = since.get(page);
        if (units === undefined) page.normalise(transition, block.epoch);
        else page.normaliseUnits(transition, block.epoch, units);
        since.set(page, []);
      }
      since.get(page)?.push(unit % PAGE_UNITS);
      page.states.set(states, (unit % PAGE_UNITS) * UNIT_BLOCKS);
      page.marks[unit % PAGE_UNITS] = Math.max(page.marks[unit % PAGE_UNITS], block.generation);
      page.dirty = true;
    });
  }
}

/** Counts every extent in the list as changed: who wrote in place before the crash left no other trace. */
function markActiveExtents(map: PageMap, entries: readonly ActivityEntry[], does: Steps): number {
  let newest = 0;
  for (const entry of entries) {
    if (map.isBlank(entry.page)) continue;
    const page = map.force(entry.page);
    // A checkpoint that was cut may have put the marks in one twin only, and the list will be empty.
    if (does('open: rewrite every page that the list names')) page.dirty = true;
    newest = Math.max(newest, entry.generation);
    for (let unit = 0; unit < page.marks.length; unit++) {
      if (((entry.extents >> Math.floor(unit / EXTENT_UNITS)) & 1) === 0) continue;
      if (page.marks[unit] >= entry.generation || !holdsData(page, unit)) continue;
      page.marks[unit] = entry.generation;
      page.dirty = true;
    }
  }
  return newest;
}

function holdsData(page: MapPage, unit: number): boolean {
  for (let index = unit * UNIT_BLOCKS; index < (unit + 1) * UNIT_BLOCKS; index++) {
    if (page.states[index] !== HOLE) return true;
  }
  return false;
}
