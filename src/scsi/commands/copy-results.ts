/** RECEIVE COPY RESULTS (SPC-4 §6.19 to §6.22), and the limits of third-party copies. */
import { getU32, putU16, putU32 } from '../bytes.js';
import type { Nexus } from '../nexus.js';
import { answer, failField } from '../respond.js';
import type { Task } from '../task.js';
import type { Path } from '../unit.js';

export const TARGET_DESCRIPTORS_MAX = 16;
export const SEGMENT_DESCRIPTORS_MAX = 16;
export const TARGET_DESCRIPTOR_BYTES = 32;
export const SEGMENT_DESCRIPTOR_BYTES = 28;
export const DESCRIPTOR_LIST_BYTES_MAX =
  TARGET_DESCRIPTORS_MAX * TARGET_DESCRIPTOR_BYTES + SEGMENT_DESCRIPTORS_MAX * SEGMENT_DESCRIPTOR_BYTES;
/** Descriptor type codes (SPC-4 §6.3.5, §6.3.6). */
export const SEGMENT_TYPE_BLOCK_TO_BLOCK = 0x02;
export const TARGET_TYPE_IDENTIFICATION = 0xe4;
/** Most that one segment can move: 65,535 blocks. */
const SEGMENT_BYTES_MAX = 65_535 * 512;
/** Copies that an I_T nexus may have under way at once, and results that are held for it. */
export const COPIES_PER_NEXUS_MAX = 8;

/** COPY MANAGER STATUS (SPC-4 §6.20). */
export const COPY_STATUS = { IN_PROGRESS: 0, COMPLETED: 1, FAILED: 2 } as const;

export interface CopyResult {
  status: number;
  segments: number;
  bytes: number;
  /** WRITE USING TOKEN: the token stands for fewer blocks than its ranges have. */
  partial?: boolean;
  /** What POPULATE TOKEN made. */
  token?: Buffer;
}

/** Holds a result for the nexus; the oldest that is finished makes room. False if there is none. */
export function holdResult(nexus: Nexus, listId: number, result: CopyResult): boolean {
  nexus.copies.delete(listId);
  if (nexus.copies.size >= COPIES_PER_NEXUS_MAX) {
    const oldest = [...nexus.copies].find(([, held]) => held.status !== COPY_STATUS.IN_PROGRESS);
    if (oldest === undefined) return false;
    nexus.copies.delete(oldest[0]);
  }
  nexus.copies.set(listId, result);
  return true;
}

export function copyStatus(task: Task, { nexus }: Path): void {
  const { cdb } = task;
  const result = nexus.copies.get(cdb[2]);
  if (result === undefined) {
    failField(task, 2);
    return;
  }
  const data = Buffer.alloc(12);
  putU32(data, 0, 8);
  data[4] = result.status;
  putU16(data, 5, result.segments);
  // TRANSFER COUNT UNITS 1: kibibytes.
  data[7] = 1;
  putU32(data, 8, Math.min(0xffff_ffff, Math.floor(result.bytes / 1024)));
  answer(task, data, getU32(cdb, 10));
}

export function copyOperatingParameters(task: Task): void {
  const data = Buffer.alloc(46);
  putU32(data, 0, data.length - 4);
  // SNLID: LIST ID USAGE may be 11b, a copy without identifier.
  data[4] = 0x01;
  putU16(data, 8, TARGET_DESCRIPTORS_MAX);
  putU16(data, 10, SEGMENT_DESCRIPTORS_MAX);
  putU32(data, 12, DESCRIPTOR_LIST_BYTES_MAX);
  putU32(data, 16, SEGMENT_BYTES_MAX);
  putU16(data, 34, COPIES_PER_NEXUS_MAX);
  data[36] = COPIES_PER_NEXUS_MAX;
  // DATA SEGMENT GRANULARITY: 2^9 bytes.
  data[37] = 9;
  data[43] = 2;
  data[44] = SEGMENT_TYPE_BLOCK_TO_BLOCK;
  data[45] = TARGET_TYPE_IDENTIFICATION;
  answer(task, data, getU32(task.cdb, 10));
}
