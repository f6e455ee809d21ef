/** After the device grew: a further segment of two halves behind the others. */

import type { Engine } from './engine.js';
import { MAX_SEGMENTS, MIB, fitSegment, placeSegments } from './format.js';
import type { Segment } from './format.js';
import { capacityOf } from './core.js';
import { OperationalError } from '../operational-error.js';

const MIN_GROWTH_BYTES = 4 * MIB;
const ALIGNMENT = 64 * 1024;

export interface Growth {
  /** Of the master, with what it gains. */
  capacityBytes: number;
  addedBytes: number;
}

/**
 * What `growEngine` would add; nothing is changed.
 * @throws OperationalError NOT_GROWN, TOO_MANY_SEGMENTS
 */
export function planGrowth({ core }: Engine): Growth & { segment: Segment; deviceBytes: number } {
  const deviceBytes = core.store.refreshSize();
  const last = core.segments[core.segments.length - 1];
  const from = Math.ceil((last.deviceOffset + last.deviceBytes) / ALIGNMENT) * ALIGNMENT;
  const segment = fitSegment(from, deviceBytes, core.superblock.generation);
  if (deviceBytes - core.superblock.deviceBytes < MIN_GROWTH_BYTES || segment === undefined) {
    throw new OperationalError(
      'NOT_GROWN',
      `the device has ${deviceBytes} bytes, the partition uses ${core.superblock.deviceBytes}: ` +
        'enlarge the device by at least 4 MiB first',
    );
  }
  if (core.segments.length === MAX_SEGMENTS) {
    throw new OperationalError('TOO_MANY_SEGMENTS', `a partition grows at most ${MAX_SEGMENTS - 1} times`);
  }
  const capacityBytes = capacityOf(placeSegments([...core.superblock.segments, segment]));
  return { segment, deviceBytes, capacityBytes, addedBytes: capacityBytes - core.capacityBytes };
}

/**
 * Adds what the device has gained to the master.
 * @throws OperationalError NOT_GROWN, TOO_MANY_SEGMENTS
 */
export function growEngine(engine: Engine): Promise<Growth> {
  const { core } = engine;
  return engine.withWritesHeld(async () => {
    const { segment, deviceBytes } = planGrowth(engine);
    const next = core.nextSuperblock();
    next.segments.push(segment);
    next.deviceBytes = deviceBytes;
    await engine.addSegment(placeSegments(next.segments)[next.segments.length - 1]);
    await engine.commitSuperblock(next);
    const before = core.capacityBytes;
    core.capacityBytes = capacityOf(core.segments);
    return { capacityBytes: core.capacityBytes, addedBytes: core.capacityBytes - before };
  });
}
