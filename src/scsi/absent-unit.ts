/** What a LUN answers that has no logical unit for this nexus (SAM-6 §5.11, SPC-6 §6.6.1): as little as possible. */
import { getU16, getU32 } from './bytes.js';
import { ABSENT_PERIPHERAL, standardInquiry } from './commands/inquiry.js';
import { lunList } from './commands/sense-and-luns.js';
import { SENSE, STATUS, senseData } from './sense.js';
import type { Task } from './task.js';

const INQUIRY = 0x12;
const REQUEST_SENSE = 0x03;
const REPORT_LUNS = 0xa0;

/** `lunZero`: REPORT LUNS must work there even if the nexus sees no logical unit 0 (SPC-6 §6.34). */
export function executeAbsent(task: Task, lunZero: boolean): void {
  const { cdb } = task;
  if (cdb[0] === INQUIRY) {
    if ((cdb[1] & 0x01) === 0 && cdb[2] === 0)
      answer(task, standardInquiry(task.nexus, undefined), getU16(cdb, 3));
    // Page 00h alone, so that a prober learns that there is nothing more.
    else if (cdb[2] === 0) answer(task, Buffer.from([ABSENT_PERIPHERAL, 0, 0, 1, 0]), getU16(cdb, 3));
    else refuse(task, SENSE.INVALID_FIELD_IN_CDB);
  } else if (cdb[0] === REQUEST_SENSE) {
    answer(task, senseData(SENSE.LOGICAL_UNIT_NOT_SUPPORTED, (cdb[1] & 0x01) !== 0), cdb[4]);
  } else if (cdb[0] === REPORT_LUNS && lunZero) {
    const data = lunList(task.nexus, cdb[2]);
    if (data === undefined || getU32(cdb, 6) < 16) refuse(task, SENSE.INVALID_FIELD_IN_CDB);
    else answer(task, data, getU32(cdb, 6));
  } else refuse(task, SENSE.LOGICAL_UNIT_NOT_SUPPORTED);
}

function answer(task: Task, data: Buffer, allocation: number): void {
  const bytes = Math.min(data.length, allocation);
  if (bytes === 0) task.complete(STATUS.GOOD);
  else task.sendDataIn(data.subarray(0, bytes));
}

function refuse(task: Task, code: number): void {
  task.complete(STATUS.CHECK_CONDITION, senseData(code, false));
}
