/** TEST UNIT READY, REQUEST SENSE and REPORT LUNS (SPC-6 §6.43, §6.38, §6.34). */
import { getU32, putU32 } from '../bytes.js';
import type { Nexus } from '../nexus.js';
import { answer, fail, failField, good } from '../respond.js';
import { SENSE, senseData } from '../sense.js';
import type { Task } from '../task.js';
import type { Path } from '../unit.js';

export function testUnitReady(task: Task): void {
  good(task);
}

const DESC = 0x01;

/** Returns and clears a pending unit attention; else tells how a long operation is getting on. */
export function requestSense(task: Task, path: Path): void {
  const { unit } = path;
  const descriptor = (task.cdb[1] & DESC) !== 0;
  const attention = path.takeAttention();
  let sense: Buffer;
  if (attention !== undefined) sense = senseData(attention, descriptor);
  else if (unit.sanitize.active) {
    sense = senseData(SENSE.SANITIZE_IN_PROGRESS, descriptor, { progress: unit.sanitize.progress });
  } else if (unit.sanitize.failure !== undefined)
    sense = senseData(SENSE.SANITIZE_COMMAND_FAILED, descriptor);
  else sense = senseData(SENSE.NO_ADDITIONAL_SENSE, descriptor);
  answer(task, sense, task.cdb[4]);
}

/** SELECT REPORT values (SPC-6 §6.34, table). */
const SELECT_REPORT = {
  NOT_WELL_KNOWN: 0x00,
  WELL_KNOWN: 0x01,
  ALL: 0x02,
  ADMINISTRATIVE: 0x10,
  NEXT: 0x11,
  SUBSIDIARY: 0x12,
} as const;
const ALLOCATION_BYTES_MIN = 16;

export function reportLuns(task: Task, path: Path): void {
  const allocation = getU32(task.cdb, 6);
  const data = lunList(path.nexus, task.cdb[2]);
  if (data === undefined) failField(task, 2);
  else if (allocation < ALLOCATION_BYTES_MIN) failField(task, 6);
  else {
    path.nexus.lunsReported();
    answer(task, data, allocation);
  }
}

/** The parameter data for one nexus, or undefined if the SELECT REPORT value is unknown. Peripheral addressing, bus 0. */
export function lunList(nexus: Nexus, select: number): Buffer | undefined {
  let luns: number[];
  switch (select) {
    case SELECT_REPORT.NOT_WELL_KNOWN:
    case SELECT_REPORT.ALL:
      luns = nexus.luns.map(({ lun }) => lun).sort((a, b) => a - b);
      break;
    case SELECT_REPORT.WELL_KNOWN:
    case SELECT_REPORT.ADMINISTRATIVE:
    case SELECT_REPORT.NEXT:
    case SELECT_REPORT.SUBSIDIARY:
      luns = [];
      break;
    default:
      return undefined;
  }
  const data = Buffer.alloc(8 + luns.length * 8);
  putU32(data, 0, luns.length * 8);
  luns.forEach((lun, index) => {
    data[8 + index * 8 + 1] = lun;
  });
  return data;
}

/** SEND DIAGNOSTIC (SPC-6 §6.42): the default self-test only, which is to read the first block. */
export function sendDiagnostic(task: Task, path: Path): void {
  const { cdb } = task;
  if ((cdb[1] & 0xe0) !== 0 || (cdb[3] | cdb[4]) !== 0) {
    failField(task, (cdb[1] & 0xe0) !== 0 ? 1 : 3);
    return;
  }
  const { medium } = path.unit;
  if (medium.present && medium.read(0, Buffer.alloc(512), 0, 512) !== 0)
    fail(task, SENSE.LOGICAL_UNIT_FAILURE);
  else good(task);
}
