/** LOG SENSE and LOG SELECT (SPC-6 §6.8, §6.7, §7.3; SBC-5 §6.4): counters of the unit, as they are. */
import { getU16, putU16, putU32, putU64 } from '../bytes.js';
import type { Census } from '../census.js';
import { MEDIUM } from '../medium.js';
import { answer, failField, good, pending } from '../respond.js';
import type { Task } from '../task.js';
import { BLOCK_BYTES } from '../unit.js';
import type { LogicalUnit, Path, UnitStatistics } from '../unit.js';

/** FORMAT AND LINKING 11b: binary list; DU: not updated by the medium. */
const BINARY_LIST = 0x03;
/** Counters that saturate and can be cleared. */
const COUNTER = 0x00;
const SPF = 0x40;

type LogPage = (unit: LogicalUnit, census: Census) => Buffer;
const PROVISIONING_PAGE = 0x0c;
const NOT_TAKEN: Census = { mappedBytes: 0, seenBytes: 0 };

const PAGES: readonly { page: number; subpage: number; name: string; parameters: LogPage }[] = [
  { page: 0x00, subpage: 0, name: 'Supported Log Pages', parameters: () => supportedPages() },
  {
    page: 0x00,
    subpage: 0xff,
    name: 'Supported Log Pages and Subpages',
    parameters: () => supportedSubpages(),
  },
  {
    page: 0x02,
    subpage: 0,
    name: 'Write Error Counters',
    parameters: (unit) => errorCounters(since(unit, 'writeBytes'), since(unit, 'writeErrors')),
  },
  {
    page: 0x03,
    subpage: 0,
    name: 'Read Error Counters',
    parameters: (unit) => errorCounters(since(unit, 'readBytes'), since(unit, 'readErrors')),
  },
  {
    page: 0x05,
    subpage: 0,
    name: 'Verify Error Counters',
    parameters: (unit) => errorCounters(since(unit, 'verifyBytes'), 0),
  },
  {
    page: PROVISIONING_PAGE,
    subpage: 0,
    name: 'Logical Block Provisioning',
    parameters: provisioningResources,
  },
  { page: 0x0d, subpage: 0, name: 'Temperature', parameters: temperature },
  { page: 0x10, subpage: 0, name: 'Self-Test Results', parameters: selfTests },
  { page: 0x15, subpage: 0, name: 'Background Scan Results', parameters: backgroundScan },
  { page: 0x19, subpage: 0, name: 'General Statistics and Performance', parameters: generalStatistics },
  { page: 0x2f, subpage: 0, name: 'Informational Exceptions', parameters: informationalExceptions },
  { page: 0x39, subpage: 0, name: 'Generation (vendor specific)', parameters: generation },
];

export function logSense(task: Task, { unit }: Path): void {
  const { cdb } = task;
  const page = cdb[2] & 0x3f;
  const subpage = cdb[3];
  const entry = PAGES.find((known) => known.page === page && known.subpage === subpage);
  if (entry === undefined) {
    failField(task, PAGES.some((known) => known.page === page) ? 3 : 2);
    return;
  }
  if (page === PROVISIONING_PAGE) {
    let census = NOT_TAKEN;
    const taken = pending(task, () => sendPage(task, page, subpage, entry.parameters(unit, census)));
    unit.census.take((result) => {
      census = result;
      taken(MEDIUM.OK);
    });
  } else sendPage(task, page, subpage, entry.parameters(unit, NOT_TAKEN));
}

function sendPage(task: Task, page: number, subpage: number, all: Buffer): void {
  const { cdb } = task;
  const parameters = fromParameter(all, page === 0 ? 0 : getU16(cdb, 5));
  if (parameters === undefined) {
    failField(task, 5);
    return;
  }
  const header = Buffer.alloc(4);
  header[0] = page | (subpage === 0 ? 0 : SPF);
  header[1] = subpage;
  putU16(header, 2, parameters.length);
  answer(task, Buffer.concat([header, parameters]), getU16(cdb, 7));
}

/** PARAMETER POINTER (SPC-6 §6.8): parameters from that code on; undefined if there is none. */
function fromParameter(parameters: Buffer, pointer: number): Buffer | undefined {
  let at = 0;
  while (at < parameters.length && getU16(parameters, at) < pointer) at += 4 + parameters[at + 3];
  return at < parameters.length ? parameters.subarray(at) : undefined;
}

const PARAMETER_CODE_RESET = 0x02;

/** Without a parameter list, PCR=1 sets all counters to zero; nothing else can be selected. */
export function logSelect(task: Task, { unit }: Path): void {
  if ((task.cdb[1] & PARAMETER_CODE_RESET) !== 0) {
    Object.assign(unit.countedBefore, unit.statistics);
    unit.timedBefore = processingSeconds(unit);
  }
  good(task);
}

/** What has been counted since LOG SELECT last cleared the counters; the operator's own are never cleared. */
function since(unit: LogicalUnit, counter: keyof UnitStatistics): number {
  return unit.statistics[counter] - unit.countedBefore[counter];
}

function parameter(code: number, control: number, value: Buffer): Buffer {
  const header = Buffer.alloc(4);
  putU16(header, 0, code);
  header[2] = control;
  header[3] = value.length;
  return Buffer.concat([header, value]);
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  putU64(bytes, 0, value);
  return bytes;
}

function supportedPages(): Buffer {
  return Buffer.from(PAGES.filter(({ subpage }) => subpage === 0).map(({ page }) => page));
}

function supportedSubpages(): Buffer {
  return Buffer.from(PAGES.flatMap(({ page, subpage }) => [page, subpage]));
}

/** SPC-6 §7.3.22, parameters 0005h (total bytes processed) and 0006h (total uncorrected errors). */
function errorCounters(bytes: number, errors: number): Buffer {
  return Buffer.concat([parameter(0x0005, COUNTER, u64(bytes)), parameter(0x0006, COUNTER, u64(errors))]);
}

/**
 * SBC-5 §6.4.5, parameter 0003h, available provisioning resource percentage: what is not mapped. Without a medium there is
 * nothing to provision, hence all. The counts in threshold sets (0001h, 0002h) belong to thresholds, which warn of running
 * out; here every block has its places, so there are none (THRESHOLD EXPONENT 0).
 */
function provisioningResources(_unit: LogicalUnit, { mappedBytes, seenBytes }: Census): Buffer {
  const value = Buffer.alloc(4);
  const used = seenBytes === 0 ? 0 : Math.ceil((mappedBytes / seenBytes) * 100);
  putU16(value, 0, 100 - used);
  return parameter(0x0003, BINARY_LIST, value);
}

/** Parameter 0000h: the generation of the partition, which names the slave's medium; GET LBA STATUS (32) takes it. */
function generation(unit: LogicalUnit): Buffer {
  return parameter(0x0000, BINARY_LIST, u64(unit.medium.generation));
}

/** FFh: no sensor. */
function temperature(): Buffer {
  return Buffer.concat([
    parameter(0x0000, BINARY_LIST, Buffer.from([0, 0xff])),
    parameter(0x0001, BINARY_LIST, Buffer.from([0, 0xff])),
  ]);
}

/** Twenty entries of zeros: no self-test has been run (SPC-6 §7.3.20). */
function selfTests(): Buffer {
  return Buffer.concat(
    Array.from({ length: 20 }, (_, index) => parameter(index + 1, BINARY_LIST, Buffer.alloc(16))),
  );
}

/** SBC-5 §6.4.2: no scans are made here, since the device below does its own; only the time that the target is up. */
function backgroundScan(): Buffer {
  const value = Buffer.alloc(12);
  putU32(value, 0, Math.floor(performance.now() / 60_000));
  return parameter(0x0000, BINARY_LIST, value);
}

/** Seconds from arrival to answer of all READ and of all WRITE commands so far. */
function processingSeconds({ latencies }: LogicalUnit): { read: number; write: number } {
  const { read, write } = latencies.figures();
  return { read: read.sumSeconds, write: write.sumSeconds };
}

/** The time interval of the page: 1 × 10^-6 s. */
const INTERVAL = { integer: 1, negativeExponent: 6 } as const;

function intervals(seconds: number): number {
  return Math.max(0, Math.round(seconds * 10 ** INTERVAL.negativeExponent));
}

/** SPC-6 §7.3.11: commands, blocks and processing times, as counted. Idle and weighted times are not kept: 0. */
function generalStatistics(unit: LogicalUnit): Buffer {
  const value = Buffer.alloc(64);
  const seconds = processingSeconds(unit);
  putU64(value, 0, since(unit, 'readOps'));
  putU64(value, 8, since(unit, 'writeOps'));
  putU64(value, 16, Math.floor(since(unit, 'writeBytes') / BLOCK_BYTES));
  putU64(value, 24, Math.floor(since(unit, 'readBytes') / BLOCK_BYTES));
  putU64(value, 32, intervals(seconds.read - unit.timedBefore.read));
  putU64(value, 40, intervals(seconds.write - unit.timedBefore.write));
  const interval = Buffer.alloc(8);
  putU32(interval, 0, INTERVAL.negativeExponent);
  putU32(interval, 4, INTERVAL.integer);
  return Buffer.concat([
    parameter(0x0001, BINARY_LIST, value),
    parameter(0x0002, BINARY_LIST, Buffer.alloc(8)),
    parameter(0x0003, BINARY_LIST, interval),
  ]);
}

/** SPC-6 §7.3.12: nothing predicted; no temperature. */
function informationalExceptions(): Buffer {
  const value = Buffer.alloc(4);
  value[2] = 0xff;
  return parameter(0x0000, BINARY_LIST, value);
}
