/**
 * What every command passes before it is carried out: order, unit attentions, reservations, CDB, medium, protection. The
 * checks that are seldom due stand behind `Path.special`.
 */
import { firstRefusedByte, VARIABLE_LENGTH } from './command.js';
import type { Command } from './command.js';
import { fail, failField, status } from './respond.js';
import { SENSE, STATUS } from './sense.js';
import type { Task } from './task.js';
import { TASK_ATTRIBUTE } from './task.js';
import { ACCESS_STATE } from './target-ports.js';
import type { Path } from './unit.js';
import { pathOf } from './unit.js';

/** True if the task may start now. False: it waits for its turn, or has been ended. */
export function admit(task: Task, path: Path): boolean {
  if (task.attribute > TASK_ATTRIBUTE.HEAD_OF_QUEUE) {
    // ACA without an auto contingent allegiance, or a value that means nothing (SAM-6 §8.9).
    fail(task, SENSE.INVALID_MESSAGE_ERROR);
    return false;
  }
  return path.unit.tasks.admit(task);
}

/** Starts a task. */
export function execute(task: Task): void {
  const path = pathOf(task);
  const command = path.unit.services.commands.find(task.cdb);
  if (path.special && !specialChecks(task, path, command)) return;
  if (command === undefined) {
    refuseUnknown(task, path);
    return;
  }
  const refused = firstRefusedByte(command, task.cdb);
  if (refused >= 0) {
    failField(task, refused);
    return;
  }
  if (command.opcode === VARIABLE_LENGTH && !hasItsLength(task, command)) {
    failField(task, 7);
    return;
  }
  if (command.needsMedium) {
    if (!path.unit.medium.present) {
      fail(task, SENSE.MEDIUM_NOT_PRESENT);
      return;
    }
    if (command.changesMedium) {
      if (path.writeProtected) {
        fail(
          task,
          path.unit.modes.softwareWriteProtect ? SENSE.SOFTWARE_WRITE_PROTECTED : SENSE.WRITE_PROTECTED,
        );
        return;
      }
      path.lastUseMs = Date.now();
    }
  }
  command.execute(task, path);
}

/** SPC-6 §4.2.3: ADDITIONAL CDB LENGTH is the command's, and as many bytes have come. */
function hasItsLength({ cdb, cdbLength }: Task, { usageData }: Command): boolean {
  return cdb[7] === usageData[7] && cdbLength >= usageData.length;
}

/** SPC-6 §4.2.5: an unknown operation code, or a known one with an unknown service action. */
function refuseUnknown(task: Task, path: Path): void {
  const { cdb } = task;
  if (path.unit.services.commands.hasServiceActions(cdb[0]))
    failField(task, cdb[0] === VARIABLE_LENGTH ? 8 : 1, undefined);
  else fail(task, SENSE.INVALID_COMMAND_OPERATION_CODE, { field: { byte: 0, inCdb: true } });
}

/** SAM-6 §5.14 and SPC-6 §5.14.1, in that order: a reservation conflict does not clear a unit attention. */
function specialChecks(task: Task, path: Path, command: Command | undefined): boolean {
  const { unit } = path;
  if (command?.ignoresAttention !== true) {
    const code = path.takeAttention();
    if (code !== undefined) {
      fail(task, code);
      return false;
    }
  }
  if (command === undefined) return true;
  if (unit.reservations.conflicts(path, command, task.cdb)) {
    status(task, STATUS.RESERVATION_CONFLICT);
    return false;
  }
  if (unit.atomics.replaying && command.needsMedium) {
    fail(task, SENSE.BECOMING_READY);
    return false;
  }
  if (!sanitizeAllows(task, path, command)) return false;
  if (command.reservation !== 'always' || command.needsMedium) return reachable(task, path);
  return true;
}

const START_STOP_UNIT = 0x1b;
const SANITIZE = 0x48;

/** SBC-5 §4.11: no access to the medium during SANITIZE, nor after a failed one, but for what leads out of that. */
function sanitizeAllows(task: Task, { unit: { sanitize } }: Path, command: Command): boolean {
  const { refusal } = sanitize;
  if (refusal === undefined || (!command.needsMedium && command.opcode !== START_STOP_UNIT)) return true;
  if (sanitize.active) {
    fail(task, refusal, { progress: sanitize.progress });
    return false;
  }
  if (command.opcode === SANITIZE) return true;
  fail(task, refusal);
  return false;
}

/** MODE SELECT and SENSE, SEND DIAGNOSTIC, LOG SELECT, SET TARGET PORT GROUPS: beside those that are always allowed. */
const WITHOUT_ACCESS: ReadonlySet<number> = new Set([0x15, 0x1a, 0x1d, 0x4c, 0x55, 0x5a, 0xa4]);

/** SPC-6 §5.18.2.4 and §5.18.2.5: what a port in standby or unavailable state still does. */
function reachable(task: Task, path: Path): boolean {
  const port = path.unit.services.ports.byRelativeId(path.nexus.relativePort);
  if (port === undefined || port.state < ACCESS_STATE.STANDBY || WITHOUT_ACCESS.has(task.cdb[0])) return true;
  fail(task, port.state === ACCESS_STATE.STANDBY ? SENSE.NOT_READY_IN_STANDBY : SENSE.NOT_READY_UNAVAILABLE);
  return false;
}
