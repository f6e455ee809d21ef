/** PERSISTENT RESERVE IN and OUT (SPC-6 §6.16, §6.17), RESERVE(6) and RELEASE(6) (SPC-2 §7.21, §7.16 with CRH). */
import { getU16, getU32, putU16, putU32 } from '../bytes.js';
import { answer, fail, failField, failParameter, good, status } from '../respond.js';
import { NO_KEY, isAllRegistrants, isRegistrantsOnly, isType } from '../reservations.js';
import type { Registration, Reservations } from '../reservations.js';
import { SENSE, STATUS } from '../sense.js';
import type { Task } from '../task.js';
import type { LogicalUnit, Path } from '../unit.js';
import { receiveAll } from './data-out.js';
import { parseTransportIds, transportId } from './transport-id.js';

// ---- PERSISTENT RESERVE IN

export function readKeys(task: Task, { unit }: Path): void {
  const { reservations } = unit;
  const data = Buffer.alloc(8 + reservations.registrations.length * 8);
  putU32(data, 0, reservations.generation);
  putU32(data, 4, data.length - 8);
  reservations.registrations.forEach((entry, index) => data.write(entry.key, 8 + index * 8, 'hex'));
  answer(task, data, getU16(task.cdb, 7));
}

export function readReservation(task: Task, { unit }: Path): void {
  const { reservations } = unit;
  const data = Buffer.alloc(reservations.type === 0 ? 8 : 24);
  putU32(data, 0, reservations.generation);
  putU32(data, 4, data.length - 8);
  if (reservations.type !== 0) {
    data.write(reservations.holder?.key ?? NO_KEY, 8, 'hex');
    data[21] = reservations.type;
  }
  answer(task, data, getU16(task.cdb, 7));
}

export function reportCapabilities(task: Task, { unit }: Path): void {
  const data = Buffer.alloc(8);
  putU16(data, 0, 8);
  // CRH, SIP_C, ATP_C, PTPL_C.
  data[2] = 0x10 | 0x08 | 0x04 | 0x01;
  // TMV; ALLOW COMMANDS 100b (TEST UNIT READY, MODE SENSE by all under write exclusive types …); PTPL_A.
  data[3] = 0x80 | 0x40 | (unit.reservations.persistThroughPowerLoss ? 0x01 : 0);
  // WR_EX_AR, EX_AC_RO, WR_EX_RO, EX_AC, WR_EX; EX_AC_AR.
  data[4] = 0xea;
  data[5] = 0x01;
  answer(task, data, getU16(task.cdb, 7));
}

export function readFullStatus(task: Task, { unit }: Path): void {
  const { reservations } = unit;
  const descriptors = reservations.registrations.map((entry) => {
    const id = transportId(entry.initiatorPort);
    const descriptor = Buffer.alloc(24 + id.length);
    descriptor.write(entry.key, 0, 'hex');
    if (reservations.isHolder(entry)) {
      descriptor[12] = 0x01;
      descriptor[13] = reservations.type;
    }
    putU16(descriptor, 18, entry.relativePort);
    putU32(descriptor, 20, id.length);
    id.copy(descriptor, 24);
    return descriptor;
  });
  const body = Buffer.concat(descriptors);
  const header = Buffer.alloc(8);
  putU32(header, 0, reservations.generation);
  putU32(header, 4, body.length);
  answer(task, Buffer.concat([header, body]), getU16(task.cdb, 7));
}

// ---- PERSISTENT RESERVE OUT

/** Service actions (SPC-6 §6.17.2). */
const ACTION = {
  REGISTER: 0,
  RESERVE: 1,
  RELEASE: 2,
  CLEAR: 3,
  PREEMPT: 4,
  PREEMPT_AND_ABORT: 5,
  REGISTER_AND_IGNORE: 6,
  REGISTER_AND_MOVE: 7,
} as const;
const PARAMETER_BYTES = 24;
const SPEC_I_PT = 0x08;
const ALL_TG_PT = 0x04;
const APTPL = 0x01;

interface Request {
  task: Task;
  path: Path;
  list: Buffer;
  reservations: Reservations;
  /** Registration of the nexus that sent the command. */
  registration: Registration | undefined;
  key: string;
  actionKey: string;
  type: number;
}

/** How a request that is not carried out ends the task; undefined if it was carried out. */
type Refusal = ((task: Task) => void) | undefined;

const CONFLICT = (task: Task): void => status(task, STATUS.RESERVATION_CONFLICT);

function parameterFault(byte: number): (task: Task) => void {
  return (task) => failParameter(task, byte);
}

export function persistentReserveOut(task: Task, path: Path): void {
  const { cdb } = task;
  const bytes = getU32(cdb, 5);
  const action = cdb[1] & 0x1f;
  if (bytes < PARAMETER_BYTES || bytes > 65_535) {
    fail(task, SENSE.PARAMETER_LIST_LENGTH_ERROR);
    return;
  }
  if (
    action !== ACTION.REGISTER &&
    action !== ACTION.REGISTER_AND_IGNORE &&
    action !== ACTION.CLEAR &&
    action !== ACTION.REGISTER_AND_MOVE
  ) {
    if (cdb[2] >>> 4 !== 0) {
      failField(task, 2, 7);
      return;
    }
    if (!isType(cdb[2] & 0x0f)) {
      failField(task, 2, 3);
      return;
    }
  }
  receiveAll(task, bytes, (list) => {
    if (
      list.length < bytes ||
      (bytes !== PARAMETER_BYTES && action !== ACTION.REGISTER_AND_MOVE && (list[20] & SPEC_I_PT) === 0)
    ) {
      fail(task, SENSE.PARAMETER_LIST_LENGTH_ERROR);
      return;
    }
    const { reservations } = path.unit;
    const refusal = act({
      task,
      path,
      list,
      reservations,
      registration: reservations.registrationOf(path.nexus),
      key: list.toString('hex', 0, 8),
      actionKey: list.toString('hex', 8, 16),
      type: cdb[2] & 0x0f,
    });
    path.unit.refresh();
    if (refusal !== undefined) refusal(task);
    else persist(task, path);
  });
}

/** GOOD only when what is to survive a power loss would. */
function persist(task: Task, path: Path): void {
  task.pending++;
  path.unit.reservations.save((error) => {
    task.pending--;
    if (error === undefined) good(task);
    else {
      path.unit.services.log.error(
        { err: error, unit: path.unit.kind },
        'persistent reservations could not be saved',
      );
      fail(task, SENSE.INTERNAL_TARGET_FAILURE);
    }
  });
}

function act(request: Request): Refusal {
  const { task, registration, key } = request;
  const action = task.cdb[1] & 0x1f;
  if (action === ACTION.REGISTER || action === ACTION.REGISTER_AND_IGNORE)
    return register(request, action === ACTION.REGISTER_AND_IGNORE);
  if (registration?.key !== key) return CONFLICT;
  switch (action) {
    case ACTION.RESERVE:
      return reserve(request, registration);
    case ACTION.RELEASE:
      return release(request, registration);
    case ACTION.CLEAR:
      return clear(request);
    case ACTION.PREEMPT:
    case ACTION.PREEMPT_AND_ABORT:
      return preempt(request, registration, action === ACTION.PREEMPT_AND_ABORT);
    default:
      return registerAndMove(request, registration);
  }
}

/** SPC-6 §5.14.7. */
function register(request: Request, ignoreKey: boolean): Refusal {
  const { path, list, reservations, registration, key, actionKey } = request;
  const { nexus } = path;
  const specific = (list[20] & SPEC_I_PT) !== 0;
  if (specific && ignoreKey) return parameterFault(20);
  if (!ignoreKey && key !== (registration?.key ?? NO_KEY)) return CONFLICT;
  if (specific && registration !== undefined) return parameterFault(20);
  if (registration === undefined) {
    // By the table of §5.14.7 that asks for nothing.
    if (actionKey === NO_KEY) return undefined;
    const initiators = specific ? parseTransportIds(list.subarray(28), getU32(list, 24)) : [];
    if (initiators === undefined) return parameterFault(24);
    const allPorts = (list[20] & ALL_TG_PT) !== 0;
    const ports = allPorts
      ? path.unit.services.ports.all.map((port) => port.relativeId)
      : [nexus.relativePort];
    const wanted = [nexus.initiatorPort, ...initiators].flatMap((initiatorPort) =>
      ports.map((relativePort) => ({ key: actionKey, initiatorPort, relativePort })),
    );
    // Either all of them are registered or none (SPC-6 §5.14.7.3).
    const before = reservations.registrations;
    reservations.registrations = [...before];
    for (const entry of wanted) {
      const same = before.find(
        (other) => other.initiatorPort === entry.initiatorPort && other.relativePort === entry.relativePort,
      );
      if (same === undefined && !reservations.register(entry)) {
        reservations.registrations = before;
        return (task) => fail(task, SENSE.INSUFFICIENT_REGISTRATION_RESOURCES);
      }
    }
  } else if (actionKey === NO_KEY) reservations.unregister(registration);
  else registration.key = actionKey;
  reservations.generation = (reservations.generation + 1) >>> 0;
  reservations.persistThroughPowerLoss = (list[20] & APTPL) !== 0;
  return undefined;
}

/** SPC-6 §5.14.10. */
function reserve({ reservations, type }: Request, registration: Registration): Refusal {
  if (reservations.type === 0) reservations.reserve(registration, type);
  else if (!reservations.isHolder(registration) || reservations.type !== type) return CONFLICT;
  return undefined;
}

/** SPC-6 §5.14.11.1. */
function release({ path, reservations, type }: Request, registration: Registration): Refusal {
  if (!reservations.isHolder(registration)) return undefined;
  if (reservations.type !== type)
    return (task) => fail(task, SENSE.INVALID_RELEASE_OF_PERSISTENT_RESERVATION);
  reservations.release();
  if (isRegistrantsOnly(type) || isAllRegistrants(type))
    reservations.tell(reservations.registrations, SENSE.RESERVATIONS_RELEASED, path.nexus);
  return undefined;
}

/** SPC-6 §5.14.11.6. */
function clear({ path, reservations }: Request): Refusal {
  const gone = reservations.registrations;
  reservations.registrations = [];
  reservations.release();
  reservations.tell(gone, SENSE.RESERVATIONS_PREEMPTED, path.nexus);
  reservations.generation = (reservations.generation + 1) >>> 0;
  return undefined;
}

/** SPC-6 §5.14.11.4 and §5.14.11.5. */
function preempt(request: Request, registration: Registration, abort: boolean): Refusal {
  const { path, reservations, actionKey, type } = request;
  const all = isAllRegistrants(reservations.type);
  const takesOver = all ? actionKey === NO_KEY : reservations.holder?.key === actionKey;
  if (actionKey === NO_KEY && !takesOver) return parameterFault(8);
  const matching = reservations.registrations.filter((entry) =>
    takesOver && all ? true : entry.key === actionKey,
  );
  if (matching.length === 0) return CONFLICT;
  const gone = matching.filter((entry) => entry !== registration);
  const oldType = reservations.type;
  if (takesOver) {
    reservations.registrations = reservations.registrations.filter((entry) => !gone.includes(entry));
    reservations.reserve(registration, type);
    reservations.tell(gone, SENSE.REGISTRATIONS_PREEMPTED, path.nexus);
    // A change of type releases the old reservation for those who stay.
    if (oldType !== type && (isRegistrantsOnly(oldType) || all)) {
      reservations.tell(reservations.registrations, SENSE.RESERVATIONS_RELEASED, path.nexus);
    }
  } else {
    for (const entry of matching) reservations.unregister(entry);
    reservations.tell(gone, SENSE.REGISTRATIONS_PREEMPTED, path.nexus);
  }
  reservations.generation = (reservations.generation + 1) >>> 0;
  if (abort) abortTasksOf(path.unit, gone);
  return undefined;
}

function abortTasksOf(unit: LogicalUnit, registrations: readonly Registration[]): void {
  unit.tasks.abort(({ nexus }) =>
    registrations.some(
      (entry) => entry.initiatorPort === nexus.initiatorPort && entry.relativePort === nexus.relativePort,
    ),
  );
}

const UNREG = 0x02;

/** SPC-6 §5.14.8. */
function registerAndMove(
  { path, list, reservations, actionKey }: Request,
  registration: Registration,
): Refusal {
  if (!reservations.isHolder(registration) || isAllRegistrants(reservations.type)) return CONFLICT;
  if (actionKey === NO_KEY) return parameterFault(8);
  const relativePort = getU16(list, 18);
  if (path.unit.services.ports.byRelativeId(relativePort) === undefined) return parameterFault(18);
  const initiatorPort = parseTransportIds(list.subarray(24), getU32(list, 20))?.at(0);
  if (initiatorPort === undefined) return parameterFault(24);
  if (initiatorPort === registration.initiatorPort && relativePort === registration.relativePort)
    return parameterFault(24);
  let target = reservations.registrations.find(
    (entry) => entry.initiatorPort === initiatorPort && entry.relativePort === relativePort,
  );
  if (target === undefined) {
    target = { key: actionKey, initiatorPort, relativePort };
    if (!reservations.register(target))
      return (task) => fail(task, SENSE.INSUFFICIENT_REGISTRATION_RESOURCES);
  } else target.key = actionKey;
  reservations.reserve(target, reservations.type);
  if ((list[17] & UNREG) !== 0) reservations.unregister(registration);
  reservations.generation = (reservations.generation + 1) >>> 0;
  reservations.persistThroughPowerLoss = (list[17] & APTPL) !== 0;
  return undefined;
}

// ---- SCSI-2

/** With persistent registrations the compatible handling of SPC-6 §5.14.3 applies. */
export function reserve6(task: Task, path: Path): void {
  const { reservations } = path.unit;
  if (reservations.registrations.length > 0) {
    compatible(task, path);
    return;
  }
  if (reservations.reservedBy !== undefined && reservations.reservedBy !== path) {
    CONFLICT(task);
    return;
  }
  reservations.reservedBy = path;
  path.unit.refresh();
  good(task);
}

export function release6(task: Task, path: Path): void {
  const { reservations } = path.unit;
  if (reservations.registrations.length > 0) {
    compatible(task, path);
    return;
  }
  if (reservations.reservedBy === path) {
    reservations.reservedBy = undefined;
    path.unit.refresh();
  }
  good(task);
}

function compatible(task: Task, path: Path): void {
  const { reservations } = path.unit;
  const registration = reservations.registrationOf(path.nexus);
  const allowed =
    registration !== undefined &&
    (reservations.isHolder(registration) || isRegistrantsOnly(reservations.type));
  if (allowed) good(task);
  else CONFLICT(task);
}
