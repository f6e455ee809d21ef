/** UNMAP (SBC-5 §5.36). */
import { getU16, getU32, getU64 } from '../bytes.js';
import { MEDIUM } from '../medium.js';
import type { MediumResult } from '../medium.js';
import { fail, failParameter, finish, good, pending } from '../respond.js';
import { SENSE } from '../sense.js';
import type { Task } from '../task.js';
import { BLOCK_BYTES } from '../unit.js';
import type { Path } from '../unit.js';
import { endWrite } from './compare-and-write.js';
import { receiveAll } from './data-out.js';
import { fillRange } from './medium-work.js';

/** MAXIMUM UNMAP LBA COUNT, of all descriptors together, and MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT. */
export const UNMAP_BLOCKS_MAX = 1_048_576;
export const UNMAP_DESCRIPTORS_MAX = 256;
const HEADER_BYTES = 8;
const DESCRIPTOR_BYTES = 16;

interface Extent {
  position: number;
  bytes: number;
}

export function unmap(task: Task, path: Path): void {
  const bytes = getU16(task.cdb, 7);
  if (bytes === 0) {
    good(task);
    return;
  }
  receiveAll(task, bytes, (list) => {
    const extents = parse(task, path, list);
    if (extents !== undefined) next(task, path, extents);
  });
}

/** The extents, or undefined if the list was refused and the task ended. Nothing is unmapped if one is wrong. */
function parse(task: Task, path: Path, list: Buffer): Extent[] | undefined {
  if (list.length < HEADER_BYTES) {
    fail(task, SENSE.PARAMETER_LIST_LENGTH_ERROR);
    return undefined;
  }
  const count = Math.floor(Math.min(getU16(list, 2), list.length - HEADER_BYTES) / DESCRIPTOR_BYTES);
  if (count > UNMAP_DESCRIPTORS_MAX) {
    failParameter(task, 2);
    return undefined;
  }
  const extents: Extent[] = [];
  let total = 0;
  for (let i = 0; i < count; i++) {
    const at = HEADER_BYTES + i * DESCRIPTOR_BYTES;
    const first = getU64(list, at);
    const blocks = getU32(list, at + 8);
    if (first + blocks > path.unit.blocks) {
      fail(task, SENSE.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, {
        information: Math.min(first, Number.MAX_SAFE_INTEGER),
      });
      return undefined;
    }
    total += blocks;
    if (total > UNMAP_BLOCKS_MAX) {
      failParameter(task, at + 8);
      return undefined;
    }
    if (blocks > 0) extents.push({ position: first * BLOCK_BYTES, bytes: blocks * BLOCK_BYTES });
  }
  return extents;
}

function next(task: Task, path: Path, extents: Extent[]): void {
  const extent = extents.shift();
  if (extent === undefined) {
    endWrite(task, path, false);
    return;
  }
  const go = (result: MediumResult): void => {
    if (result === MEDIUM.OK) next(task, path, extents);
    else finish(task, result);
  };
  const { medium } = path.unit;
  const result = medium.unmap(extent.position, extent.bytes);
  if (result === MEDIUM.PENDING)
    fillRange(
      medium,
      extent.position,
      extent.bytes,
      undefined,
      () => task.aborted,
      pending(task, (r) => go(r as MediumResult)),
    );
  else go(result);
}
