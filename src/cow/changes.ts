/** The change map: which ranges of the master differ between the image of a generation and now. */

import type { Engine } from './engine.js';
import { MARK_SPAN, PAGE_COVERS_BYTES, PAGE_UNITS, UNIT_BYTES } from './format.js';
import { OperationalError } from '../operational-error.js';

export interface ChangedRange {
  readonly position: number;
  readonly length: number;
}

export interface Changes {
  /** The slave of generation `since` is what the ranges compare with; undefined: with nothing, so `full`. */
  readonly since: number | undefined;
  readonly generation: number;
  /** All of the master must be read: nothing was asked for to compare with, or the map does not reach back so far. */
  readonly full: boolean;
  /** A crash made marks coarser since then: more may be listed than has changed, never less. */
  readonly approximate: boolean;
  readonly granularityBytes: number;
  readonly capacityBytes: number;
  /** In ascending order, neighbours joined. As of the moment each part is read. */
  readonly ranges: AsyncIterable<ChangedRange>;
}

/** Part of the master, in bytes. */
export interface ChangesWindow {
  readonly position: number;
  readonly end: number;
}

/**
 * `window`: only what lies within it is looked for; ranges may begin before it and reach behind it by less than 64 KiB.
 * @throws OperationalError NO_SUCH_GENERATION if `since` has not been yet
 */
export function listChanges(engine: Engine, since?: number, window?: ChangesWindow): Changes {
  const { superblock } = engine.core;
  const { generation } = superblock;
  if (since !== undefined && (!Number.isInteger(since) || since < 0 || since > generation)) {
    throw new OperationalError(
      'NO_SUCH_GENERATION',
      `generation ${since} does not exist: the last one is ${generation}`,
    );
  }
  const full = since === undefined || since === 0 || since <= generation - MARK_SPAN;
  return {
    since,
    generation,
    full,
    approximate: !full && superblock.approximateGeneration >= since,
    granularityBytes: UNIT_BYTES,
    capacityBytes: engine.core.capacityBytes,
    ranges: full ? wholeMaster(engine, window) : joined(changedUnits(engine, since, window)),
  };
}

async function* wholeMaster(engine: Engine, window?: ChangesWindow): AsyncGenerator<ChangedRange> {
  await Promise.resolve();
  const { position = 0, end = engine.core.capacityBytes } = window ?? {};
  if (end > position) yield { position, length: end - position };
}

/** The map page of a position of the master. */
function pageOf(engine: Engine, position: number): number {
  const segment = engine.core.segmentAt(position);
  return segment.firstPage + Math.floor((position - segment.masterOffset) / PAGE_COVERS_BYTES);
}

async function* changedUnits(
  engine: Engine,
  since: number,
  window?: ChangesWindow,
): AsyncGenerator<ChangedRange> {
  const { core, map } = engine;
  const { position = 0, end = core.capacityBytes } = window ?? {};
  if (position >= end) return;
  const last = pageOf(engine, end - 1);
  for (let number = pageOf(engine, position); number <= last; number++) {
    const segment = core.segmentOfPage(number);
    const firstUnit = (number - segment.firstPage) * PAGE_UNITS;
    const units = Math.min(PAGE_UNITS, Math.ceil(segment.masterBytes / UNIT_BYTES) - firstUnit);
    // A segment that came later is new as a whole.
    const isNew = segment.generation >= since && segment.generation > 0;
    if (!isNew && map.isBlank(number)) continue;
    const { marks } = isNew ? { marks: undefined } : await map.load(number);
    for (let unit = 0; unit < units; unit++) {
      if (marks !== undefined && marks[unit] < since) continue;
      const at = (firstUnit + unit) * UNIT_BYTES;
      const length = Math.min(UNIT_BYTES, segment.masterBytes - at);
      const from = segment.masterOffset + at;
      if (from < end && from + length > position) yield { position: from, length };
    }
  }
}

async function* joined(ranges: AsyncIterable<ChangedRange>): AsyncGenerator<ChangedRange> {
  let open: ChangedRange | undefined;
  for await (const range of ranges) {
    if (open !== undefined && open.position + open.length === range.position) {
      open = { position: open.position, length: open.length + range.length };
    } else {
      if (open !== undefined) yield open;
      open = range;
    }
  }
  if (open !== undefined) yield open;
}
