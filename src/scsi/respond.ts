/**
 * The ends of a task: every command ends through one of these (READ also through `commitDataIn`), so that the task set
 * learns of it.
 */
import type { MediumDone } from './medium.js';
import { measure } from './latency.js';
import { MEDIUM } from './medium.js';
import { SENSE, STATUS, senseData } from './sense.js';
import type { SenseDetail } from './sense.js';
import type { Task } from './task.js';
import type { TaskSet } from './task-set.js';
import { PHASE, pathOf } from './unit.js';

/** Counts a task that is about to end, and takes it out of its task set, which is returned if it knew the task. */
export function leave(task: Task): TaskSet | undefined {
  measure(task);
  const tasks = task.phase === PHASE.TRACKED ? pathOf(task).unit.tasks : undefined;
  task.phase = PHASE.ENDED;
  tasks?.remove(task);
  return tasks;
}

function end(task: Task, status: number, sense?: Buffer): void {
  const tasks = leave(task);
  task.complete(status, sense);
  tasks?.advance();
}

/** Ends with GOOD and without (further) Data-In. */
export function good(task: Task): void {
  end(task, STATUS.GOOD);
}

/** Ends with a bare status. */
export function status(task: Task, code: number): void {
  end(task, code);
}

/** Ends with CHECK CONDITION and the sense triple. */
export function fail(task: Task, code: number, detail?: SenseDetail): void {
  end(task, STATUS.CHECK_CONDITION, senseData(code, pathOf(task).unit.modes.descriptorSense, detail));
}

/** INVALID FIELD IN CDB, pointing at the byte. */
export function failField(task: Task, byte: number, bit?: number): void {
  fail(task, SENSE.INVALID_FIELD_IN_CDB, {
    field: bit === undefined ? { byte, inCdb: true } : { byte, bit, inCdb: true },
  });
}

/** INVALID FIELD IN PARAMETER LIST, pointing at the byte. */
export function failParameter(
  task: Task,
  byte: number,
  code: number = SENSE.INVALID_FIELD_IN_PARAMETER_LIST,
): void {
  fail(task, code, { field: { byte, inCdb: false } });
}

/** Ends with Data-In, cut to the allocation length (SPC-6 §4.2.5.6). */
export function answer(task: Task, data: Buffer, allocationBytes: number): void {
  const tasks = leave(task);
  task.sendDataIn(data.subarray(0, allocationBytes));
  tasks?.advance();
}

/** Ends a task whose Data-In segments are filled. */
export function sendSegments(task: Task): void {
  const tasks = leave(task);
  task.sendSegments();
  tasks?.advance();
}

/** Ends a task with what became of a medium operation, GOOD included. */
export function finish(task: Task, result: number, lba?: number): void {
  if (result === MEDIUM.OK) {
    good(task);
    return;
  }
  const { unit } = pathOf(task);
  if (result === MEDIUM.READ_ERROR || result === MEDIUM.FAILED) tellError(task, lba);
  const at: SenseDetail | undefined = lba === undefined ? undefined : { information: lba };
  switch (result) {
    case MEDIUM.READ_ERROR:
      unit.statistics.readErrors++;
      fail(task, SENSE.UNRECOVERED_READ_ERROR, at);
      break;
    case MEDIUM.ABSENT:
      fail(task, SENSE.MEDIUM_NOT_PRESENT);
      break;
    case MEDIUM.WRITE_PROTECTED:
      fail(task, SENSE.WRITE_PROTECTED);
      break;
    default:
      unit.statistics.writeErrors++;
      fail(task, SENSE.LOGICAL_UNIT_FAILURE, at);
  }
}

function tellError(task: Task, lba: number | undefined): void {
  const { unit, nexus } = pathOf(task);
  unit.services.log.error(
    { unit: unit.kind, lba, initiator: nexus.initiatorName, address: nexus.address },
    'the device failed a command',
  );
}

/**
 * Counts an asynchronous operation of the task. The callback runs when it is over; if task management has aborted the
 * task meanwhile, the task is ended instead, once nothing of it is under way.
 */
export function pending(task: Task, then: (result: number) => void): MediumDone {
  task.pending++;
  return (result) => {
    task.pending--;
    if (!task.aborted) then(result);
    else if (task.pending === 0) status(task, STATUS.TASK_ABORTED);
  };
}
