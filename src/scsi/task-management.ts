/** Task management functions (SAM-6 §7) on the logical units of one target. */
import { findPath } from './addressing.js';
import type { TaskManagementRequest } from './port.js';
import { TASK_MANAGEMENT as TMF, TASK_MANAGEMENT_RESPONSE as RESPONSE } from './port.js';
import { SENSE } from './sense.js';
import type { Task } from './task.js';
import { PHASE, pathOf } from './unit.js';
import type { LogicalUnit, Path } from './unit.js';

type Done = (response: number, additional: number) => void;

export function manage(request: TaskManagementRequest, units: readonly LogicalUnit[], done: Done): void {
  switch (request.function) {
    case TMF.TARGET_WARM_RESET:
    case TMF.TARGET_COLD_RESET:
      resetAll(request, units, done);
      return;
    case TMF.I_T_NEXUS_RESET:
      resetNexus(request, done);
      return;
    case TMF.TASK_REASSIGN:
      done(RESPONSE.REASSIGNMENT_NOT_SUPPORTED, 0);
      return;
    default: {
      const path = findPath(request);
      if (path === undefined) done(RESPONSE.LUN_DOES_NOT_EXIST, 0);
      else onUnit(request, path, done);
    }
  }
}

function onUnit(request: TaskManagementRequest, path: Path, done: Done): void {
  const { unit } = path;
  const { task } = request;
  const isMeant = meantBy(request);
  const complete = (): void => done(RESPONSE.FUNCTION_COMPLETE, 0);
  switch (request.function) {
    case TMF.ABORT_TASK:
      if (task === undefined || task.phase === PHASE.ENDED || task.unit !== path)
        done(RESPONSE.TASK_DOES_NOT_EXIST, 0);
      else abort(unit, (other) => other === task, complete);
      return;
    case TMF.ABORT_TASK_SET:
      abort(unit, (other) => other.unit === path && isMeant(other), complete);
      return;
    case TMF.CLEAR_TASK_SET:
      for (const other of pathsWithTasks(unit))
        if (other !== path) other.attention(SENSE.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR);
      abort(unit, isMeant, complete);
      return;
    case TMF.CLEAR_ACA:
      // NACA is refused, so there is never an ACA condition to clear (SAM-6 §7.4).
      complete();
      return;
    case TMF.LOGICAL_UNIT_RESET:
      reset(path, isMeant, complete);
      return;
    case TMF.QUERY_TASK:
      done(
        task !== undefined && task.phase !== PHASE.ENDED && task.unit === path
          ? RESPONSE.FUNCTION_SUCCEEDED
          : RESPONSE.FUNCTION_COMPLETE,
        0,
      );
      return;
    case TMF.QUERY_TASK_SET:
      for (const other of unit.tasks.all()) {
        if (other.unit !== path) continue;
        done(RESPONSE.FUNCTION_SUCCEEDED, 0);
        return;
      }
      complete();
      return;
    case TMF.QUERY_ASYNCHRONOUS_EVENT:
      queryEvent(path, done);
      return;
    default:
      done(RESPONSE.NOT_SUPPORTED, 0);
  }
}

/** SAM-6 §7.9: is a unit attention pending? Additional information: UADE (one or more), sense key, ASC, ASCQ. */
function queryEvent(path: Path, done: Done): void {
  const code = path.attentions.at(0);
  if (code === undefined) done(RESPONSE.FUNCTION_COMPLETE, 0);
  else
    done(
      RESPONSE.FUNCTION_SUCCEEDED,
      (path.attentions.length > 1 ? 0x20_0000 : 0x10_0000) | (code & 0xf_ffff),
    );
}

function pathsWithTasks(unit: LogicalUnit): Set<Path> {
  const paths = new Set<Path>();
  for (const task of unit.tasks.all()) paths.add(pathOf(task));
  return paths;
}

/** Tells the tasks that the function is about from those that belong behind it. */
function meantBy({ spared }: TaskManagementRequest): (task: Task) => boolean {
  return (task) => spared?.has(task) !== true;
}

function abort(unit: LogicalUnit, matches: (task: Task) => boolean, done: () => void): void {
  unit.tasks.whenEnded(unit.tasks.abort(matches), done);
}

/**
 * Logical unit reset (SAM-6 §6.3.3). On the removable slave only those are told whose commands were lost, and the one
 * that asked: Linux fails I/O on any unit attention of a removable device, and to the others nothing has happened that
 * they could not see otherwise.
 */
function reset(by: Path, isMeant: (task: Task) => boolean, done: () => void): void {
  const { unit } = by;
  const affected = unit.removable ? pathsWithTasks(unit) : new Set(unit.paths);
  affected.add(by);
  unit.reservations.reservedBy = undefined;
  if (unit.removable) unit.services.holds.releaseAll();
  unit.modes.reset();
  for (const path of affected) path.attention(SENSE.BUS_DEVICE_RESET_FUNCTION_OCCURRED);
  unit.refresh();
  abort(unit, isMeant, done);
}

function resetAll(request: TaskManagementRequest, units: readonly LogicalUnit[], done: Done): void {
  const paths = units.map((unit) => request.nexus.paths.find((path) => path?.unit === unit));
  // Who sees one side only must not disturb the users of the other.
  if (!paths.every((path) => path !== undefined)) {
    done(RESPONSE.AUTHORIZATION_FAILED, 0);
    return;
  }
  let left = paths.length;
  for (const path of paths) {
    reset(path, meantBy(request), () => {
      if (--left === 0) done(RESPONSE.FUNCTION_COMPLETE, 0);
    });
  }
}

/** I_T nexus reset (SAM-6 §6.3.5): as a loss of the nexus, but the session goes on. */
function resetNexus(request: TaskManagementRequest, done: Done): void {
  const { nexus } = request;
  const isMeant = meantBy(request);
  const paths = nexus.paths.filter((path) => path !== undefined);
  let left = paths.length;
  if (left === 0) done(RESPONSE.FUNCTION_COMPLETE, 0);
  for (const path of paths) {
    const { unit } = path;
    unit.services.holds.release(nexus);
    if (unit.reservations.reservedBy === path) unit.reservations.reservedBy = undefined;
    path.attention(SENSE.I_T_NEXUS_LOSS_OCCURRED);
    unit.refresh();
    abort(
      unit,
      (task) => task.unit === path && isMeant(task),
      () => {
        if (--left === 0) done(RESPONSE.FUNCTION_COMPLETE, 0);
      },
    );
  }
}
