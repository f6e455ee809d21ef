/**
 * Offloaded copies by token, as Windows (ODX) and ESXi use them: POPULATE TOKEN and WRITE USING TOKEN (SBC-5 §5.11, §5.58),
 * RECEIVE ROD TOKEN INFORMATION (SPC-6 §6.26). The copies run before their command ends; nothing goes on in the background.
 */
import { getU16, getU32, getU64, putU16, putU32, putU64 } from '../bytes.js';
import { MEDIUM } from '../medium.js';
import type { MediumResult } from '../medium.js';
import { answer, fail, failField, failParameter, good, pending } from '../respond.js';
import { SENSE } from '../sense.js';
import type { Task } from '../task.js';
import { BLOCK_BYTES } from '../unit.js';
import type { Path } from '../unit.js';
import { copyRange } from './copy-range.js';
import { COPY_STATUS, holdResult } from './copy-results.js';
import type { CopyResult } from './copy-results.js';
import { receiveAll } from './data-out.js';
import { fillRange } from './medium-work.js';
import { RANGES_MAX, ROD_TYPE, TIMEOUT_DEFAULT_S, TIMEOUT_MAX_S, TOKEN_BYTES } from './token-store.js';
import type { Range, Rod } from './token-store.js';

/** Blocks that one token can stand for: 2 GiB. */
export const TOKEN_BLOCKS_MAX = 4_194_304;
const POPULATE_TOKEN = 0x10;
const RANGE_BYTES = 16;
const RTV = 0x02;
const DEL_TKN = 0x02;

export function populateToken(task: Task, path: Path): void {
  receiveAll(task, Math.min(getU32(task.cdb, 10), 65_536), (list) => {
    if (list.length < 16) {
      fail(task, SENSE.PARAMETER_LIST_LENGTH_ERROR);
      return;
    }
    const timeoutSeconds = getU32(list, 4);
    if (timeoutSeconds > TIMEOUT_MAX_S) {
      failParameter(task, 4);
      return;
    }
    const type = getU32(list, 8);
    const own = path.unit.removable ? ROD_TYPE.POINT_IN_TIME_PERSISTENT : ROD_TYPE.ACCESS_UPON_REFERENCE;
    if ((list[2] & RTV) !== 0 && type !== ROD_TYPE.UNSPECIFIED && type !== own) {
      failParameter(task, 8);
      return;
    }
    const ranges = parseRanges(task, path, list, 14);
    if (ranges === undefined) return;
    const token = path.unit.services.tokens.create(
      path.unit,
      ranges,
      timeoutSeconds === 0 ? TIMEOUT_DEFAULT_S : timeoutSeconds,
    );
    const result: CopyResult = {
      status: COPY_STATUS.COMPLETED,
      segments: ranges.length,
      bytes: sum(ranges) * BLOCK_BYTES,
      token,
    };
    if (holdResult(path.nexus, resultKey(getU32(task.cdb, 6)), result)) good(task);
    else failField(task, 6);
  });
}

function sum(list: readonly { blocks: number }[]): number {
  return list.reduce((total, { blocks }) => total + blocks, 0);
}

/** Token list identifiers have 32 bits and a space of their own beside those of EXTENDED COPY. */
function resultKey(listId: number): number {
  return 0x1_0000_0000 + listId;
}

/** Block device range descriptors (SBC-5 §5.11.3); undefined if they were refused and the task ended. */
function parseRanges(task: Task, path: Path, list: Buffer, lengthAt: number): Range[] | undefined {
  const bytes = getU16(list, lengthAt);
  const first = lengthAt + 2;
  if (bytes < RANGE_BYTES || bytes % RANGE_BYTES !== 0 || first + bytes > list.length) {
    failParameter(task, lengthAt);
    return undefined;
  }
  if (bytes / RANGE_BYTES > RANGES_MAX) {
    fail(task, SENSE.TOO_MANY_SEGMENT_DESCRIPTORS);
    return undefined;
  }
  const ranges: Range[] = [];
  let total = 0;
  for (let at = first; at < first + bytes; at += RANGE_BYTES) {
    const range = { lba: getU64(list, at), blocks: getU32(list, at + 8) };
    if (range.lba + range.blocks > path.unit.blocks) {
      fail(task, SENSE.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, {
        information: Math.min(range.lba, Number.MAX_SAFE_INTEGER),
      });
      return undefined;
    }
    // Overlapping ranges would make the result depend on the order of the copies.
    if (
      ranges.some((other) => range.lba < other.lba + other.blocks && other.lba < range.lba + range.blocks)
    ) {
      failParameter(task, at);
      return undefined;
    }
    total += range.blocks;
    if (total > TOKEN_BLOCKS_MAX) {
      failParameter(task, at + 8);
      return undefined;
    }
    ranges.push(range);
  }
  return ranges;
}

const TOKEN_AT = 16;

export function writeUsingToken(task: Task, path: Path): void {
  receiveAll(task, Math.min(getU32(task.cdb, 10), 65_536), (list) => {
    if (list.length < 536) {
      fail(task, SENSE.PARAMETER_LIST_LENGTH_ERROR);
      return;
    }
    const ranges = parseRanges(task, path, list, 534);
    if (ranges === undefined) return;
    const token = list.subarray(TOKEN_AT, TOKEN_AT + TOKEN_BYTES);
    const zero = getU32(token, 0) === ROD_TYPE.BLOCK_ZERO;
    const { tokens } = path.unit.services;
    const rod = zero ? undefined : tokens.find(token);
    if (rod === 'unknown') fail(task, SENSE.INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN);
    else if (rod === 'expired') fail(task, SENSE.INVALID_TOKEN_OPERATION_TOKEN_EXPIRED);
    else if (rod === 'revoked') fail(task, SENSE.INVALID_TOKEN_OPERATION_TOKEN_REVOKED);
    else if (rod !== undefined && !readable(path, rod))
      fail(task, SENSE.INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN);
    else if (rod !== undefined && getU64(list, 8) >= rod.blocks) failParameter(task, 8);
    else {
      if ((list[2] & DEL_TKN) !== 0) tokens.delete(token);
      run(task, path, ranges, rod, getU64(list, 8));
    }
  });
}

/** A token must not show blocks of a unit that this initiator can't read itself. */
function readable({ nexus }: Path, rod: Rod): boolean {
  const from = nexus.paths.find((path) => path?.unit === rod.unit);
  const read = rod.unit.services.commands.byOpcode(0x88);
  return from !== undefined && read !== undefined && !rod.unit.reservations.conflicts(from, read);
}

interface Step {
  to: number;
  from: number | undefined;
  blocks: number;
}

/** What is copied from where: the ROD's ranges laid end to end, from the offset on, over the destination ranges. */
function plan(ranges: readonly Range[], rod: Rod | undefined, offset: number): Step[] {
  if (rod === undefined) return ranges.map(({ lba, blocks }) => ({ to: lba, from: undefined, blocks }));
  const steps: Step[] = [];
  const sources = rod.ranges.map((range) => ({ ...range }));
  let skip = offset;
  for (const range of ranges) {
    let { lba, blocks } = range;
    while (blocks > 0) {
      const source = sources.at(0);
      if (source === undefined) return steps;
      const skipped = Math.min(skip, source.blocks);
      skip -= skipped;
      source.lba += skipped;
      source.blocks -= skipped;
      const length = Math.min(blocks, source.blocks);
      if (length > 0) steps.push({ to: lba, from: source.lba, blocks: length });
      lba += length;
      blocks -= length;
      source.lba += length;
      source.blocks -= length;
      if (source.blocks === 0) sources.shift();
    }
  }
  return steps;
}

function run(task: Task, path: Path, ranges: readonly Range[], rod: Rod | undefined, offset: number): void {
  const steps = plan(ranges, rod, offset);
  const partial = sum(steps) < sum(ranges);
  const result: CopyResult = { status: COPY_STATUS.IN_PROGRESS, segments: 0, bytes: 0, partial };
  if (!holdResult(path.nexus, resultKey(getU32(task.cdb, 6)), result)) {
    failField(task, 6);
    return;
  }
  const to = path.unit.medium;
  const end = pending(task, (outcome) => {
    if (outcome === MEDIUM.OK) good(task);
    else fail(task, SENSE.THIRD_PARTY_DEVICE_FAILURE);
  });
  // A medium that is exchanged under the copy ends it: what came after would be other data.
  const stop = (): boolean =>
    task.aborted ||
    path.writeProtected ||
    (rod !== undefined && rod.unit.removable && rod.generation !== rod.unit.medium.generation);
  const next = (outcome: MediumResult): void => {
    const step = outcome === MEDIUM.OK && !stop() ? steps.shift() : undefined;
    if (step === undefined) {
      const complete = outcome === MEDIUM.OK && !stop();
      result.status = complete ? COPY_STATUS.COMPLETED : COPY_STATUS.FAILED;
      end(complete ? MEDIUM.OK : MEDIUM.FAILED);
      return;
    }
    const bytes = step.blocks * BLOCK_BYTES;
    const done = (after: MediumResult): void => {
      result.segments++;
      next(after);
    };
    if (rod === undefined || step.from === undefined) {
      const filling = fillRange(to, step.to * BLOCK_BYTES, bytes, undefined, stop, (after) => {
        result.bytes += filling.doneBytes;
        done(after);
      });
      return;
    }
    const job = {
      from: rod.unit,
      fromPosition: step.from * BLOCK_BYTES,
      to,
      toPosition: step.to * BLOCK_BYTES,
      bytes,
    };
    copyRange(job, (moved) => (result.bytes += moved), stop, done);
  };
  setImmediate(() => next(MEDIUM.OK));
}

/** COPY OPERATION STATUS (SPC-6 §6.26): completed, completed with errors, in progress in the foreground. */
const OPERATION_STATUS: Readonly<Record<number, number>> = {
  [COPY_STATUS.COMPLETED]: 0x01,
  [COPY_STATUS.FAILED]: 0x02,
  [COPY_STATUS.IN_PROGRESS]: 0x11,
};
/** Completed without errors, but with partial ROD token usage. */
const COMPLETED_PARTIALLY = 0x03;
/** TRANSFER COUNT UNITS F1h: logical blocks. */
const UNITS_BLOCKS = 0xf1;

export function receiveTokenInformation(task: Task, { nexus }: Path): void {
  const result = nexus.copies.get(resultKey(getU32(task.cdb, 2)));
  if (result === undefined) {
    failField(task, 2);
    return;
  }
  const { token, status, partial } = result;
  const data = Buffer.alloc(token === undefined ? 36 : 36 + 2 + TOKEN_BYTES);
  putU32(data, 0, data.length - 4);
  data[4] = token === undefined ? 0x11 : POPULATE_TOKEN;
  data[5] =
    status === COPY_STATUS.COMPLETED && partial === true ? COMPLETED_PARTIALLY : OPERATION_STATUS[status];
  data[15] = UNITS_BLOCKS;
  putU64(data, 16, result.bytes / BLOCK_BYTES);
  putU16(data, 24, result.segments);
  if (token !== undefined) {
    putU32(data, 32, 2 + TOKEN_BYTES);
    token.copy(data, 38);
  }
  answer(task, data, getU32(task.cdb, 10));
}
