/**
 * GET LBA STATUS (16) and (32), SBC-5 §5.5 and §5.6.
 *
 * With a generation as ELEMENT IDENTIFIER the (32) form answers only the blocks that may have changed since, with their
 * true provisioning status: a backup host reads what is mapped and punches holes where nothing is. The field restricts
 * the answer to part of the LBAs by standard, too (to those of one physical element, of which there are none here). The
 * plain forms tell nothing but provisioning, since initiators take what is deallocated for zeros.
 */
import { getU32, getU64, putU32, putU64 } from '../bytes.js';
import type { ChangeMap, MediumDone } from '../medium.js';
import { MEDIUM } from '../medium.js';
import { answer, fail, failField, finish, pending } from '../respond.js';
import { SENSE } from '../sense.js';
import type { Task } from '../task.js';
import { BLOCK_BYTES } from '../unit.js';
import type { LogicalUnit, Path } from '../unit.js';
import { runAt } from './medium-work.js';

const HEADER_BYTES = 8;
const DESCRIPTOR_BYTES = 16;
/** Bounds one answer, whatever the allocation length: the initiator asks again from where it ended. */
const DESCRIPTORS_MAX = 4096;
/** NUMBER OF LOGICAL BLOCKS has 32 bits. */
const RUN_BLOCKS_MAX = 0xffff_ffff;
/** Looked at in one step, and time of a turn of the event loop: the map of a large medium comes from its device. */
const STEP_BYTES = 134_217_728;
const TURN_MS = 2;
/** After so long what there is is answered. */
const LONG_MS = 2000;
/** PROVISIONING STATUS (SBC-5 §5.5.2). */
const PROVISIONING = { MAPPED: 0, DEALLOCATED: 1 } as const;
/** COMPLETION CONDITION: no room for more, SCAN LENGTH was reached, the capacity was. */
const CONDITION = { ALLOCATION: 1, SCAN_LENGTH: 2, CAPACITY: 3 } as const;
/** RTP: the answer is restricted to what was asked for. */
const RTP = 0x01;
/** Asked of the change map at once, so that an aborted command ends soon: 256 GiB. */
const WINDOW_BYTES = 274_877_906_944;

/** REPORT TYPE (SBC-5 §5.5.1), and what each is about; nothing is ever anchored here. */
const REPORT_TYPES: readonly ((mapped: boolean) => boolean)[] = [
  () => true,
  (mapped) => !mapped,
  (mapped) => mapped,
  (mapped) => !mapped,
  () => false,
];

export function getLbaStatus16(task: Task, path: Path): void {
  const { cdb } = task;
  const type = cdb[14] & 0x0f;
  const request = { type, since: 0, first: getU64(cdb, 2), scan: 0, allocation: getU32(cdb, 10) };
  if (type >= REPORT_TYPES.length) failField(task, 14);
  else lbaStatus(task, path, request);
}

export function getLbaStatus32(task: Task, path: Path): void {
  const { cdb } = task;
  const request = {
    type: cdb[10],
    since: getU32(cdb, 24),
    first: getU64(cdb, 12),
    scan: getU32(cdb, 20),
    allocation: getU32(cdb, 28),
  };
  if (request.type >= REPORT_TYPES.length) failField(task, 10);
  else if (request.since === 0) lbaStatus(task, path, request);
  else changedSince(task, path, request);
}

interface Request {
  /** REPORT TYPE. */
  type: number;
  first: number;
  /** Generation, or 0. */
  since: number;
  /** SCAN LENGTH in blocks; 0: to the end of the medium. */
  scan: number;
  allocation: number;
}

function lbaStatus(task: Task, { unit }: Path, request: Request): void {
  const list = begin(task, unit, request);
  if (list === undefined) return;
  const { position, end } = list;
  const done = concluding(task, unit, list, request);
  void add(task, list, position, end).then(() => done(MEDIUM.OK));
}

/** Sends the list, if the medium that it is about is still in. */
function concluding(task: Task, unit: LogicalUnit, list: List, request: Request): MediumDone {
  const { generation } = unit.medium;
  return pending(task, (result) => {
    if (result !== MEDIUM.OK) finish(task, result);
    else if (unit.removable && (!unit.medium.present || unit.medium.generation !== generation))
      fail(task, SENSE.MEDIUM_NOT_PRESENT);
    else list.send(task, request);
  });
}

/** Lists the runs of a range, which is not before what was listed already, as far as there is room. Never rejects. */
async function add(task: Task, list: List, position: number, end: number): Promise<void> {
  list.position = position;
  let turnMs = performance.now();
  while (list.goesOn(task) && list.position < end) {
    list.step(end);
    if (performance.now() - turnMs < TURN_MS) continue;
    await new Promise(setImmediate);
    turnMs = performance.now();
  }
}

function changedSince(task: Task, { unit }: Path, request: Request): void {
  const { changes } = unit.services;
  const { since } = request;
  if (changes?.changedRanges(since, 0, 0) === undefined) {
    failField(task, 24);
    return;
  }
  const list = begin(task, unit, request);
  if (list === undefined) return;
  const done = concluding(task, unit, list, request);
  collect(task, changes, list, since).then(
    () => done(MEDIUM.OK),
    (error: unknown) => {
      unit.services.log.error({ err: error, unit: unit.kind, since }, 'changed blocks cannot be listed');
      done(MEDIUM.READ_ERROR);
    },
  );
}

async function collect(task: Task, changes: ChangeMap, list: List, since: number): Promise<void> {
  const { end } = list;
  for (let at = list.position; at < end; at += WINDOW_BYTES) {
    const until = Math.min(end, at + WINDOW_BYTES);
    const ranges = changes.changedRanges(since, at, until);
    if (ranges === undefined) throw new Error(`generation ${since} was forgotten meanwhile`);
    for await (const range of ranges) {
      // The map is coarser than blocks: what lies outside was not asked for.
      const to = Math.min(range.position + range.length, until);
      await add(task, list, Math.max(range.position, at), to);
      if (list.position < to) return;
    }
    // The rest has not changed.
    list.position = until;
    if (!list.goesOn(task)) return;
  }
}

/** Undefined if the LBA is not on the medium; the task is ended then. */
function begin(task: Task, unit: LogicalUnit, request: Request): List | undefined {
  const { first } = request;
  if (first < unit.blocks) return new List(unit, request);
  fail(task, SENSE.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, {
    information: Math.min(first, Number.MAX_SAFE_INTEGER),
  });
  return undefined;
}

/** LBA status descriptors, as many as there is room for. */
class List {
  /** How far the list tells, in bytes. */
  position: number;
  readonly end: number;
  private readonly unit: LogicalUnit;
  private readonly data: Buffer;
  private readonly wanted: (mapped: boolean) => boolean;
  private at = HEADER_BYTES;
  /** Of the descriptor made last. */
  private last = { end: -1, blocks: 0, mapped: false };
  /** Set when a run found no room. */
  private full = false;
  private readonly longMs = performance.now() + LONG_MS;

  constructor(unit: LogicalUnit, { type, first, scan, allocation }: Request) {
    this.unit = unit;
    this.wanted = REPORT_TYPES[type];
    this.position = first * BLOCK_BYTES;
    const { capacityBytes } = unit.medium;
    this.end = scan === 0 ? capacityBytes : Math.min(capacityBytes, (first + scan) * BLOCK_BYTES);
    const fitting = Math.floor((allocation - HEADER_BYTES) / DESCRIPTOR_BYTES);
    const room = Math.max(1, Math.min(DESCRIPTORS_MAX, fitting));
    this.data = Buffer.alloc(HEADER_BYTES + room * DESCRIPTOR_BYTES);
  }

  /** False if there is no room, nobody waits any more, or it has taken long and there is something to tell. */
  goesOn(task: Task): boolean {
    const late = this.at > HEADER_BYTES && performance.now() > this.longMs;
    return !this.full && !task.aborted && !late;
  }

  /** Takes in the next run, up to `end` at most. */
  step(end: number): void {
    const { position } = this;
    const run = runAt(this.unit, position, Math.min(end - position, STEP_BYTES));
    const blocks = Math.ceil(run.lengthBytes / BLOCK_BYTES);
    const next = position + Math.max(1, blocks) * BLOCK_BYTES;
    if (this.wanted(run.mapped) && !this.put(position, next, run.mapped)) this.full = true;
    else this.position = next;
  }

  /** False if there is no room for it. */
  private put(position: number, end: number, mapped: boolean): boolean {
    const { last } = this;
    const blocks = (end - position) / BLOCK_BYTES;
    if (last.end === position && last.mapped === mapped && last.blocks + blocks <= RUN_BLOCKS_MAX) {
      last.blocks += blocks;
      last.end = end;
      putU32(this.data, this.at - DESCRIPTOR_BYTES + 8, last.blocks);
      return true;
    }
    if (this.at === this.data.length) return false;
    putU64(this.data, this.at, position / BLOCK_BYTES);
    putU32(this.data, this.at + 8, blocks);
    this.data[this.at + 12] = mapped ? PROVISIONING.MAPPED : PROVISIONING.DEALLOCATED;
    this.last = { end, blocks, mapped };
    this.at += DESCRIPTOR_BYTES;
    return true;
  }

  send(task: Task, { type, since, allocation }: Request): void {
    putU32(this.data, 0, this.at - 4);
    let condition: number = CONDITION.ALLOCATION;
    if (this.position >= this.end)
      condition = this.end < this.unit.medium.capacityBytes ? CONDITION.SCAN_LENGTH : CONDITION.CAPACITY;
    this.data[7] = (condition << 1) | (type === 0 && since === 0 ? 0 : RTP);
    answer(task, this.data.subarray(0, this.at), allocation);
  }
}
