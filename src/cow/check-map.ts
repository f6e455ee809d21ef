/** The written bitmap and the map pages: twins, epochs, states and marks, page by page. */

import type { CheckContext } from './check-context.js';
import { unlessUnreadable } from './check-context.js';
import type { JournalOverlay } from './check-journal.js';
import { SEVERITY } from './check-report.js';
import {
  BITMAP_BLOCK_BYTES,
  BITMAP_BLOCK_PAGES,
  HEADER_BYTES,
  PAGE_BLOCKS,
  PAGE_BYTES,
  pageOffset,
} from './format.js';
import type { PlacedSegment } from './format.js';
import { readU64 } from './bytes.js';
import { MapPage } from './map-page.js';
import { BLOCK_BYTES, FIRST_DIVERGED, HOLE } from './states.js';
import { SUPERBLOCK_OFFSETS, SUPERBLOCK_BYTES } from './format.js';
import type { Superblock } from './superblock.js';
import { bitmapOffset, readBitmapTwin } from './written-bitmap.js';

const CONTRADICTION = {
  severity: SEVERITY.DAMAGED,
  problem: 'it says something else than the other twin, and is as new',
  remedy: 'nothing: which one is true can not be told; compare the data with a backup',
} as const;

/** Long reads are fast, and other work gets its turn between them. */
const RUN_PAGES = 64;

export interface MapFigures {
  pages: number;
  divergedBlocks: number;
}

interface Twin {
  readonly bytes: Buffer;
  readonly page: MapPage | undefined;
}

export async function checkMap(context: CheckContext, overlay: JournalOverlay): Promise<MapFigures> {
  const figures: MapFigures = { pages: 0, divergedBlocks: 0 };
  for (const [segmentIndex, segment] of context.segments.entries()) {
    for (let index = 0; index < segment.bitmapBlocks; index++) {
      const bits = await checkBitmapBlock(context, { segment, segmentIndex, index });
      if (bits !== undefined) await checkPages(context, overlay, figures, { segment, index, bits });
    }
  }
  // What is damaged could not be counted.
  if (context.findings.counts.damaged === 0) compareCount(context, overlay, figures);
  return figures;
}

/** The newer whole twin of a block of the bitmap. */
async function checkBitmapBlock(
  context: CheckContext,
  place: { segment: PlacedSegment; segmentIndex: number; index: number },
): Promise<Buffer | undefined> {
  const { store, findings } = context;
  const { segment, index } = place;
  const { uuid } = context.superblock;
  const twins = await context.settled(
    () => [0, 1].map((twin) => unlessUnreadable(() => readBitmapTwin(store, uuid, { ...place, twin }))),
    (seen) => !seen.includes(undefined),
  );
  const [first, second] = twins;
  const newest =
    first && second ? (readU64(first, 32) >= readU64(second, 32) ? first : second) : (first ?? second);
  for (const [twin, bytes] of twins.entries()) {
    if (newest !== undefined && bytes?.equals(newest) === true) continue;
    const where = {
      structure: `written bitmap, segment ${place.segmentIndex}, block ${index}, twin ${twin}`,
      position: bitmapOffset(segment, index, twin),
      lengthBytes: BITMAP_BLOCK_BYTES,
    };
    if (newest === undefined) {
      const remedy = 'nothing: neither twin is whole; restore the partition from a backup';
      findings.add({ ...where, severity: SEVERITY.DAMAGED, problem: 'it is not whole', remedy });
    } else if (bytes === undefined) {
      const remedy = `--repair writes it from twin ${1 - twin}`;
      findings.add({
        ...where,
        severity: SEVERITY.REPAIRABLE,
        problem: 'it is not whole',
        remedy,
        fix: newest,
      });
    } else if (context.shared) {
      // One twin is written after the other.
    } else if (readU64(newest, 32) === readU64(bytes, 32)) {
      findings.add({ ...where, ...CONTRADICTION });
    } else {
      const crashed = !context.superblock.clean && readU64(newest, 32) - readU64(bytes, 32) === 1;
      const severity = crashed ? SEVERITY.NOTE : SEVERITY.REPAIRABLE;
      const remedy = `the next open, or --repair, writes it from twin ${1 - twin}`;
      findings.add({ ...where, severity, problem: 'it is older than the other twin', remedy, fix: newest });
    }
  }
  return newest;
}

async function checkPages(
  context: CheckContext,
  overlay: JournalOverlay,
  figures: MapFigures,
  { segment, index, bits }: { segment: PlacedSegment; index: number; bits: Buffer },
): Promise<void> {
  const from = segment.firstPage + index * BITMAP_BLOCK_PAGES;
  const end = Math.min(from + BITMAP_BLOCK_PAGES, segment.firstPage + segment.pages);
  const isWritten = (number: number): boolean => {
    const bit = number - from;
    return ((bits[HEADER_BYTES + (bit >> 3)] >> (bit & 7)) & 1) === 1;
  };
  for (let run = from; run < end; run += RUN_PAGES) {
    const pages: number[] = [];
    for (let number = run; number < Math.min(end, run + RUN_PAGES); number++) {
      if (isWritten(number)) pages.push(number);
      else if (overlay.touches(number)) finish(context, overlay, figures, segment, new MapPage(number, 0));
    }
    if (pages.length === 0) continue;
    const raw = [0, 1].map((twin) => readRun(context, segment, pages[0], pages[pages.length - 1], twin));
    for (const number of pages) await checkPage(context, overlay, figures, segment, number, raw, pages[0]);
  }
}

/** Both twins' bytes of a run of pages; undefined if it can't be read in one go. */
function readRun(
  { store }: CheckContext,
  segment: PlacedSegment,
  first: number,
  last: number,
  twin: number,
): Buffer | undefined {
  const bytes = Buffer.alloc((last - first + 1) * PAGE_BYTES);
  return unlessUnreadable(() => {
    store.readSync(bytes, 0, bytes.length, pageOffset(segment, first, twin));
    return bytes;
  });
}

async function checkPage(
  context: CheckContext,
  overlay: JournalOverlay,
  figures: MapFigures,
  segment: PlacedSegment,
  number: number,
  runs: readonly (Buffer | undefined)[],
  firstOfRun: number,
): Promise<void> {
  let fresh = true;
  const look = (): readonly Twin[] =>
    [0, 1].map((twin) => {
      const at = (number - firstOfRun) * PAGE_BYTES;
      const bytes =
        (fresh ? runs[twin]?.subarray(at, at + PAGE_BYTES) : undefined) ??
        readRun(context, segment, number, number, twin);
      if (twin === 1) fresh = false;
      if (bytes === undefined) return { bytes: Buffer.alloc(0), page: undefined };
      return { bytes, page: MapPage.decode(bytes, context.superblock.uuid, number) };
    });
  const twins = await context.settled(look, (seen) =>
    seen.every(
      ({ page }) => page !== undefined && impossible(context.superblock, segment, page) === undefined,
    ),
  );
  figures.pages++;
  const truth = truthOf(twins);
  reportTwins(context, segment, number, twins, truth);
  if (truth?.page !== undefined) finish(context, overlay, figures, segment, truth.page);
}

/** Either may be the newer one: the one that a page was read from is overwritten last. */
function truthOf(twins: readonly Twin[]): Twin | undefined {
  const [first, second] = twins;
  if (first.page === undefined) return second.page === undefined ? undefined : second;
  return second.page !== undefined && second.page.sequence > first.page.sequence ? second : first;
}

function reportTwins(
  context: CheckContext,
  segment: PlacedSegment,
  number: number,
  twins: readonly Twin[],
  truth: Twin | undefined,
): void {
  for (const [twin, { bytes, page }] of twins.entries()) {
    if (truth !== undefined && bytes.equals(truth.bytes)) continue;
    const where = {
      structure: `map page ${number}, twin ${twin}`,
      position: pageOffset(segment, number, twin),
      lengthBytes: PAGE_BYTES,
    };
    if (truth?.page === undefined) {
      const from = segment.masterOffset + (number - segment.firstPage) * PAGE_BLOCKS * BLOCK_BYTES;
      const remedy = `nothing: the master and the slave can't be read from ${from} on for 32 MiB; restore from a backup`;
      context.findings.add({
        ...where,
        severity: SEVERITY.DAMAGED,
        problem: 'neither twin is whole',
        remedy,
      });
      continue;
    }
    const remedy = `--repair writes it from twin ${1 - twin}`;
    const fix = truth.bytes;
    if (page === undefined) {
      context.findings.add({
        ...where,
        severity: SEVERITY.REPAIRABLE,
        problem: 'it is not whole',
        remedy,
        fix,
      });
    } else if (context.shared) {
      // One twin is written after the other.
    } else if (page.sequence === truth.page.sequence) {
      context.findings.add({ ...where, ...CONTRADICTION });
    } else {
      const crashed = !context.superblock.clean;
      const severity = crashed ? SEVERITY.NOTE : SEVERITY.REPAIRABLE;
      const problem = 'it is older than the other twin';
      if (crashed) {
        const left = 'the next open writes it, after what the journal has';
        context.findings.add({
          ...where,
          severity,
          problem: `${problem}, as a crash leaves it`,
          remedy: left,
        });
      } else context.findings.add({ ...where, severity, problem, remedy, fix });
    }
  }
}

/** Looks at what the page says, and counts what it will say after a recovery. */
function finish(
  context: CheckContext,
  overlay: JournalOverlay,
  figures: MapFigures,
  segment: PlacedSegment,
  page: MapPage,
): void {
  const { superblock } = context;
  const isBlank = page.sequence === 0 && page.epoch === 0;
  let problem = isBlank ? undefined : impossible(superblock, segment, page);
  if (problem === undefined && !context.shared) {
    overlay.apply(page, superblock);
    problem = impossible(superblock, segment, page);
    problem = problem === undefined ? undefined : `with what the journal has, ${problem}`;
  }
  if (problem === undefined) {
    for (const state of page.states) if (state >= FIRST_DIVERGED) figures.divergedBlocks++;
    return;
  }
  context.findings.add({
    structure: `map page ${page.number}`,
    position: pageOffset(segment, page.number, 0),
    lengthBytes: PAGE_BYTES,
    severity: SEVERITY.DAMAGED,
    problem,
    remedy: 'nothing: both twins say so; restore the partition from a backup',
  });
}

/** What no page that cldd wrote says at this moment of the partition's life. */
function impossible(superblock: Superblock, segment: PlacedSegment, page: MapPage): string | undefined {
  if (page.epoch > superblock.epoch)
    return `it is of epoch ${page.epoch}, newer than every superblock copy (${superblock.epoch})`;
  if (page.epoch < superblock.historyBase)
    return `it is of epoch ${page.epoch}, of which the history (from ${superblock.historyBase}) does not tell how it ended`;
  const blocks = Math.min(PAGE_BLOCKS, segment.blocks - (page.number - segment.firstPage) * PAGE_BLOCKS);
  const highest = page.epoch === superblock.epoch && !superblock.enabled ? FIRST_DIVERGED : 8;
  for (const [index, state] of page.states.entries()) {
    if (index >= blocks && state !== HOLE)
      return `block ${index} of it has state ${state}, but the segment ends before`;
    if (state >= highest) return `block ${index} of it has state ${state}, but the slave is disabled`;
  }
  const { generation } = superblock;
  const mark = page.marks.findIndex((value) => value > generation);
  if (mark >= 0)
    return `unit ${mark} of it changed in generation ${page.marks[mark]}, but the last one is ${generation}`;
  return undefined;
}

/** Lost writes of both twins leave no other trace than a wrong count. */
function compareCount(context: CheckContext, overlay: JournalOverlay, figures: MapFigures): void {
  if (context.shared || figures.divergedBlocks === overlay.divergedBlocks) return;
  context.findings.add({
    structure: 'map',
    position: SUPERBLOCK_OFFSETS[0],
    lengthBytes: SUPERBLOCK_BYTES,
    severity: SEVERITY.DAMAGED,
    problem:
      `it has ${figures.divergedBlocks} blocks that differ between master and slave, ` +
      `but ${overlay.divergedBlocks} were counted: the device may have lost writes`,
    remedy: 'nothing: compare the data with a backup',
  });
}
