/** The range of logical blocks that a command addresses, read from its CDB by the CDB's group. */
import { getU16, getU24, getU32, getU64 } from '../bytes.js';
import { failField, fail } from '../respond.js';
import { SENSE } from '../sense.js';
import type { Task } from '../task.js';
import { BLOCK_BYTES, pathOf } from '../unit.js';

/** MAXIMUM TRANSFER LENGTH that the Block Limits page promises, in blocks: bounds what one command can pin. */
export const TRANSFER_BLOCKS_MAX = 16_384;

export function lba(cdb: Buffer): number {
  switch (cdb[0] >>> 5) {
    case 0:
      return getU24(cdb, 1) & 0x1f_ffff;
    case 1:
    case 2:
    case 5:
      return getU32(cdb, 2);
    default:
      return getU64(cdb, 2);
  }
}

export function blocks(cdb: Buffer): number {
  switch (cdb[0] >>> 5) {
    case 0:
      // READ(6) and WRITE(6): 0 means 256 (SBC-5 §5.17).
      return cdb[4] === 0 ? 256 : cdb[4];
    case 1:
    case 2:
      return getU16(cdb, 7);
    case 5:
      return getU32(cdb, 6);
    default:
      return getU32(cdb, 10);
  }
}

/** True if the range is on the medium; else the task has been ended. Sets `task.position` and `task.remaining` in bytes. */
export function inRange(
  task: Task,
  first: number,
  count: number,
  blocksMax: number = TRANSFER_BLOCKS_MAX,
): boolean {
  const capacity = pathOf(task).unit.blocks;
  if (first + count > capacity) {
    fail(task, SENSE.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, {
      information: Math.min(first, Number.MAX_SAFE_INTEGER),
    });
    return false;
  }
  if (count > blocksMax) {
    failField(task, lengthByte(task.cdb));
    return false;
  }
  task.position = first * BLOCK_BYTES;
  task.remaining = count * BLOCK_BYTES;
  return true;
}

/** Where the transfer length stands, for the field pointer. No length of a 6-byte command is ever refused. */
export function lengthByte(cdb: Buffer): number {
  switch (cdb[0] >>> 5) {
    case 1:
    case 2:
      return 7;
    case 5:
      return 6;
    default:
      return 10;
  }
}
