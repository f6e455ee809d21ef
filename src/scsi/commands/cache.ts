/** SYNCHRONIZE CACHE (10/16) and PRE-FETCH (10/16), SBC-5 §5.33, §5.34, §5.12, §5.13. */
import { MEDIUM } from '../medium.js';
import { finish, good, pending } from '../respond.js';
import type { Task } from '../task.js';
import { BLOCK_BYTES } from '../unit.js';
import type { LogicalUnit, Path } from '../unit.js';
import { blocks, inRange, lba } from './block-range.js';
import { readThrough } from './medium-work.js';

const IMMED = 0x02;
/** What one PRE-FETCH reads at most, in blocks. */
const PREFETCH_BLOCKS_MAX = 2048;

/** The whole cache is written, whatever the range (SBC-5 §5.33 allows more than was asked for). */
export function synchronizeCache(task: Task, path: Path): void {
  const { cdb } = task;
  if (!inRange(task, lba(cdb), blocks(cdb), 0xffff_ffff)) return;
  const { unit } = path;
  if (unit.medium.writeProtected) {
    good(task);
    return;
  }
  unit.statistics.flushes++;
  if ((cdb[1] & IMMED) === 0) {
    unit.medium.flush(pending(task, (result) => finish(task, result)));
    return;
  }
  flushBehind(unit, 'SYNCHRONIZE CACHE');
  good(task);
}

/** Writes the cache behind a command with IMMED, which has ended by then: a failure is the operator's to hear of. */
export function flushBehind({ medium, services, kind }: LogicalUnit, command: string): void {
  medium.flush((result) => {
    if (result !== MEDIUM.OK)
      services.log.error({ unit: kind }, `cache could not be written after ${command} with IMMED`);
  });
}

/**
 * Brings blocks into the host's page cache, by reading them; those from the LBA to the end if PREFETCH LENGTH is zero. GOOD
 * rather than CONDITION MET, since nothing promises that they stay there (SBC-5 §5.12).
 */
export function preFetch(task: Task, { unit }: Path): void {
  const { cdb } = task;
  if (!inRange(task, lba(cdb), blocks(cdb), 0xffff_ffff)) return;
  if ((cdb[1] & IMMED) !== 0) {
    good(task);
    return;
  }
  const wanted = blocks(cdb) === 0 ? unit.medium.capacityBytes - task.position : task.remaining;
  const bytes = Math.min(wanted, PREFETCH_BLOCKS_MAX * BLOCK_BYTES);
  const done = pending(task, (result) => finish(task, result));
  readThrough(unit.medium, task.position, bytes, () => -1, done);
}
