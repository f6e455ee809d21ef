/** GET LBA STATUS (16) and (32), SBC-5 §5.5 and §5.6, and READ DEFECT DATA (10) and (12), §5.22 and §5.23. */
import { getU16, getU32, getU64, putU32, putU64 } from '../bytes.js';
import { answer, fail, failField } from '../respond.js';
import { SENSE } from '../sense.js';
import type { Task } from '../task.js';
import { BLOCK_BYTES } from '../unit.js';
import type { Path } from '../unit.js';

const HEADER_BYTES = 8;
const DESCRIPTOR_BYTES = 16;
/** Bounds one answer, whatever the allocation length: the initiator asks again from where it ended. */
const DESCRIPTORS_MAX = 4096;
/** PROVISIONING STATUS (SBC-5 §5.5.2). */
const PROVISIONING = { MAPPED: 0, DEALLOCATED: 1 } as const;

export function getLbaStatus16(task: Task, path: Path): void {
  if ((task.cdb[14] & 0x0f) !== 0) failField(task, 14);
  else lbaStatus(task, path, getU64(task.cdb, 2), getU32(task.cdb, 10));
}

export function getLbaStatus32(task: Task, path: Path): void {
  if (task.cdb[10] !== 0) failField(task, 10);
  else lbaStatus(task, path, getU64(task.cdb, 12), getU32(task.cdb, 28));
}

function lbaStatus(task: Task, { unit }: Path, first: number, allocation: number): void {
  if (first >= unit.blocks) {
    fail(task, SENSE.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, {
      information: Math.min(first, Number.MAX_SAFE_INTEGER),
    });
    return;
  }
  const room = Math.max(
    1,
    Math.min(DESCRIPTORS_MAX, Math.floor((allocation - HEADER_BYTES) / DESCRIPTOR_BYTES)),
  );
  const data = Buffer.alloc(HEADER_BYTES + room * DESCRIPTOR_BYTES);
  const capacity = unit.medium.capacityBytes;
  let position = first * BLOCK_BYTES;
  let at = HEADER_BYTES;
  while (at < data.length && position < capacity) {
    const run = unit.medium.provisioning(position, Math.min(capacity - position, 0xffff_ffff * BLOCK_BYTES));
    const blocks = Math.floor(run.lengthBytes / BLOCK_BYTES);
    if (blocks === 0) break;
    putU64(data, at, position / BLOCK_BYTES);
    putU32(data, at + 8, blocks);
    data[at + 12] = run.mapped ? PROVISIONING.MAPPED : PROVISIONING.DEALLOCATED;
    position += blocks * BLOCK_BYTES;
    at += DESCRIPTOR_BYTES;
  }
  putU32(data, 0, at - 4);
  // COMPLETION CONDITION: 1 the allocation length was reached first, 2 the capacity was.
  data[7] = position < capacity ? 0x02 : 0x06;
  answer(task, data.subarray(0, at), allocation);
}

/** No defects are known here: the partition's device keeps its own lists. */
export function readDefectData10(task: Task): void {
  const data = Buffer.alloc(4);
  data[1] = task.cdb[2] & 0x1f;
  answer(task, data, getU16(task.cdb, 7));
}

export function readDefectData12(task: Task): void {
  const data = Buffer.alloc(8);
  data[1] = task.cdb[1] & 0x1f;
  answer(task, data, getU32(task.cdb, 6));
}
