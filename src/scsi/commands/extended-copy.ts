/**
 * EXTENDED COPY (LID1), SPC-4 §6.3: block to block copies within and between the logical units that this initiator sees
 * in this target. Copying from the slave to the master restores blocks without their crossing the network.
 */
import { getU16, getU24, getU32, getU64, putAscii } from '../bytes.js';
import { VENDOR } from '../identity.js';
import { MEDIUM } from '../medium.js';
import { fail, failParameter, good, pending } from '../respond.js';
import { SENSE } from '../sense.js';
import type { Task } from '../task.js';
import { BLOCK_BYTES } from '../unit.js';
import type { Path } from '../unit.js';
import { copyRange } from './copy-range.js';
import {
  COPY_STATUS,
  DESCRIPTOR_LIST_BYTES_MAX,
  SEGMENT_DESCRIPTORS_MAX,
  SEGMENT_DESCRIPTOR_BYTES,
  SEGMENT_TYPE_BLOCK_TO_BLOCK,
  TARGET_DESCRIPTORS_MAX,
  TARGET_DESCRIPTOR_BYTES,
  TARGET_TYPE_IDENTIFICATION,
  holdResult,
} from './copy-results.js';
import type { CopyResult } from './copy-results.js';
import { receiveAll } from './data-out.js';

const HEADER_BYTES = 16;
const LIST_BYTES_MAX = HEADER_BYTES + 4 * DESCRIPTOR_LIST_BYTES_MAX;
/** LIST ID USAGE 11b: the copy has no identifier and no results are held. */
const WITHOUT_LIST_ID = 3;
const NUL = 0x20;

interface Segment {
  source: number;
  destination: number;
  blocks: number;
  sourceLba: number;
  destinationLba: number;
}

interface Plan {
  listId: number;
  hold: boolean;
  /** The path that each target descriptor names; undefined: nothing that can be reached. */
  targets: (Path | undefined)[];
  segments: Segment[];
}

export function extendedCopy(task: Task, path: Path): void {
  const bytes = getU32(task.cdb, 10);
  if (bytes === 0) {
    good(task);
    return;
  }
  if (bytes > LIST_BYTES_MAX) {
    fail(task, SENSE.PARAMETER_LIST_LENGTH_ERROR);
    return;
  }
  receiveAll(task, bytes, (list) => {
    const plan = parse(task, path, list);
    if (plan !== undefined) run(task, path, plan);
  });
}

/** Undefined if the list was refused and the task ended. */
function parse(task: Task, path: Path, list: Buffer): Plan | undefined {
  const targetBytes = getU16(list, 2);
  const segmentBytes = getU32(list, 8);
  const refuse = (code: number, byte?: number): Plan | undefined => {
    if (byte === undefined) fail(task, code);
    else failParameter(task, byte, code);
    return undefined;
  };
  const fault = (byte: number): Plan | undefined => refuse(SENSE.INVALID_FIELD_IN_PARAMETER_LIST, byte);
  if (HEADER_BYTES + targetBytes + segmentBytes > list.length)
    return refuse(SENSE.PARAMETER_LIST_LENGTH_ERROR);
  if (targetBytes + segmentBytes > DESCRIPTOR_LIST_BYTES_MAX)
    return refuse(SENSE.PARAMETER_LIST_LENGTH_ERROR);
  if (targetBytes > TARGET_DESCRIPTORS_MAX * TARGET_DESCRIPTOR_BYTES)
    return refuse(SENSE.TOO_MANY_TARGET_DESCRIPTORS);
  if (segmentBytes > SEGMENT_DESCRIPTORS_MAX * SEGMENT_DESCRIPTOR_BYTES)
    return refuse(SENSE.TOO_MANY_SEGMENT_DESCRIPTORS);
  if (getU32(list, 12) !== 0) return fault(12);
  const usage = (list[1] >>> 3) & 3;
  if (usage === WITHOUT_LIST_ID && list[0] !== 0) return fault(0);
  if (usage !== WITHOUT_LIST_ID && path.nexus.copies.get(list[0])?.status === COPY_STATUS.IN_PROGRESS) {
    return fault(0);
  }
  const plan: Plan = { listId: list[0], hold: usage !== WITHOUT_LIST_ID, targets: [], segments: [] };
  const end = HEADER_BYTES + targetBytes;
  for (let at = HEADER_BYTES; at < end; at += TARGET_DESCRIPTOR_BYTES) {
    if (list[at] !== TARGET_TYPE_IDENTIFICATION) {
      return refuse(SENSE.UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE, at);
    }
    if (at + TARGET_DESCRIPTOR_BYTES > end) return refuse(SENSE.PARAMETER_LIST_LENGTH_ERROR);
    // LU ID TYPE is obsolete since SPC-5 and ignored: the designator names the logical unit.
    const blockBytes = getU24(list, at + 29);
    if (blockBytes !== BLOCK_BYTES && blockBytes !== 0) return fault(at + 29);
    plan.targets.push(
      (list[at + 1] & NUL) !== 0 ? undefined : resolve(path, list.subarray(at, at + TARGET_DESCRIPTOR_BYTES)),
    );
  }
  for (let at = end; at < end + segmentBytes; at += SEGMENT_DESCRIPTOR_BYTES) {
    if (list[at] !== SEGMENT_TYPE_BLOCK_TO_BLOCK) {
      return refuse(SENSE.UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE, at);
    }
    if (at + SEGMENT_DESCRIPTOR_BYTES > end + segmentBytes) return refuse(SENSE.PARAMETER_LIST_LENGTH_ERROR);
    if (getU16(list, at + 2) !== SEGMENT_DESCRIPTOR_BYTES - 4) return fault(at + 2);
    plan.segments.push({
      source: getU16(list, at + 4),
      destination: getU16(list, at + 6),
      blocks: getU16(list, at + 10),
      sourceLba: getU64(list, at + 12),
      destinationLba: getU64(list, at + 20),
    });
  }
  return plan;
}

/** The logical unit of this nexus that the designator names (NAA, T10 or UUID; SPC-6 §7.7.6). */
function resolve({ nexus }: Path, descriptor: Buffer): Path | undefined {
  const type = descriptor[5] & 0x3f;
  const designator = descriptor.subarray(8, 8 + Math.min(20, descriptor[7]));
  return nexus.paths.find((path) => {
    if (path === undefined) return false;
    const { identity } = path.unit;
    if (type === 3) return designator.equals(identity.naa);
    if (type === 0xa) return designator.equals(Buffer.concat([Buffer.from([0x10, 0]), identity.uuid]));
    if (type !== 1) return false;
    const t10 = Buffer.alloc(20);
    putAscii(t10, 0, 8, VENDOR);
    putAscii(t10, 8, 12, identity.serial);
    return designator.equals(t10);
  });
}

function run(task: Task, path: Path, plan: Plan): void {
  const result: CopyResult = { status: COPY_STATUS.IN_PROGRESS, segments: 0, bytes: 0 };
  if (plan.hold && !holdResult(path.nexus, plan.listId, result)) {
    failParameter(task, 0);
    return;
  }
  const end = pending(task, () => {
    const fault = failure;
    if (fault === undefined) good(task);
    else fail(task, fault);
  });
  let failure: number | undefined;
  const stop = (code: number | undefined): void => {
    failure = code;
    result.status = code === undefined && !task.aborted ? COPY_STATUS.COMPLETED : COPY_STATUS.FAILED;
    end(MEDIUM.OK);
  };
  const next = (): void => {
    const segment = plan.segments.at(result.segments);
    if (segment === undefined || task.aborted) {
      stop(undefined);
      return;
    }
    const from = plan.targets.at(segment.source);
    const to = plan.targets.at(segment.destination);
    if (from === undefined || to === undefined) {
      stop(SENSE.UNREACHABLE_COPY_TARGET);
      return;
    }
    const fault = check(segment, from, to);
    if (fault !== undefined) {
      stop(fault);
      return;
    }
    const { generation } = from.unit.medium;
    // A medium that is exchanged under the copy ends it; the master's generation counts enables and means nothing here.
    const halted = (): boolean =>
      task.aborted ||
      to.writeProtected ||
      !to.nexus.attached ||
      (from.unit.removable && from.unit.medium.generation !== generation);
    copyRange(
      {
        from: from.unit,
        fromPosition: segment.sourceLba * BLOCK_BYTES,
        to: to.unit.medium,
        toPosition: segment.destinationLba * BLOCK_BYTES,
        bytes: segment.blocks * BLOCK_BYTES,
      },
      (bytes) => (result.bytes += bytes),
      halted,
      (outcome) => {
        if (outcome !== MEDIUM.OK || halted()) {
          stop(SENSE.THIRD_PARTY_DEVICE_FAILURE);
          return;
        }
        result.segments++;
        next();
      },
    );
  };
  setImmediate(next);
}

/** Why the segment can't be copied, or undefined. The initiator can do here only what it could do by READ and WRITE. */
function check(segment: Segment, from: Path, to: Path): number | undefined {
  if (!from.unit.medium.present || !to.unit.medium.present) return SENSE.COPY_TARGET_DEVICE_NOT_REACHABLE;
  if (segment.sourceLba + segment.blocks > from.unit.blocks) return SENSE.COPY_TARGET_DEVICE_NOT_REACHABLE;
  if (segment.destinationLba + segment.blocks > to.unit.blocks) return SENSE.COPY_TARGET_DEVICE_NOT_REACHABLE;
  if (to.writeProtected) return SENSE.WRITE_PROTECTED;
  const { commands } = to.unit.services;
  const read = commands.byOpcode(0x88);
  const write = commands.byOpcode(0x8a);
  const conflict =
    (read !== undefined && from.unit.reservations.conflicts(from, read)) ||
    (write !== undefined && to.unit.reservations.conflicts(to, write));
  if (conflict || [from, to].some(({ unit }) => unit.sanitize.refusal !== undefined))
    return SENSE.COPY_TARGET_DEVICE_NOT_REACHABLE;
  return undefined;
}
