/** PREVENT ALLOW MEDIUM REMOVAL and START STOP UNIT (SBC-5 §5.15, §5.32): the slave as a removable medium. */
import { MEDIUM } from '../medium.js';
import { fail, failField, finish, good, pending } from '../respond.js';
import { SENSE } from '../sense.js';
import type { Task } from '../task.js';
import type { ControlDone, Path } from '../unit.js';
import { flushBehind } from './cache.js';

const PREVENT = 0x01;

/** True if removal is allowed, which no reservation forbids (SPC-6 §5.14.1, SPC-2 §5.5.1). */
export function allows(cdb: Buffer): boolean {
  return (cdb[4] & PREVENT) === 0;
}

export function preventAllow(task: Task, path: Path): void {
  // On the master, a fixed disk, there is nothing to remove.
  if (path.unit.removable) {
    const { holds } = path.unit.services;
    if ((task.cdb[4] & PREVENT) !== 0) holds.hold(path.nexus);
    else holds.release(path.nexus);
  }
  good(task);
}

const START = 0x01;
const LOEJ = 0x02;
const NO_FLUSH = 0x04;
const IMMED = 0x01;

/** True if it only starts the unit, which no reservation forbids (SBC-5 §4.17). To load a medium is more than that. */
export function starts(cdb: Buffer): boolean {
  return cdb[4] >>> 4 === 0 && (cdb[4] & (LOEJ | START)) === START;
}

export function startStopUnit(task: Task, path: Path): void {
  const { cdb } = task;
  const { unit } = path;
  const powerCondition = cdb[4] >>> 4;
  const start = (cdb[4] & START) !== 0;
  if (powerCondition !== 0) {
    // Power conditions exist only in name here: nothing spins. With one given, LOEJ and START are ignored.
    good(task);
    return;
  }
  if ((cdb[4] & LOEJ) === 0) {
    if (start || (cdb[4] & NO_FLUSH) !== 0 || unit.medium.writeProtected) good(task);
    else if ((cdb[1] & IMMED) !== 0) {
      flushBehind(unit, 'START STOP UNIT');
      good(task);
    } else unit.medium.flush(pending(task, (result) => finish(task, result)));
    return;
  }
  if (!unit.removable) {
    failField(task, 4, 1);
    return;
  }
  // A medium that is kept in may also not be exchanged (SBC-5 §5.15): neither eject nor load.
  unit.services.holds.releaseLost(path.nexus);
  if (unit.services.holds.all().length > 0) {
    fail(task, SENSE.MEDIUM_REMOVAL_PREVENTED);
    return;
  }
  if (start === unit.medium.present) {
    good(task);
    return;
  }
  exchange(task, path, start);
}

/** Asks the daemon. IMMED is not used to answer early, since the initiator wants to know whether it was allowed. */
function exchange(task: Task, path: Path, load: boolean): void {
  const { services } = path.unit;
  let refusal: Parameters<ControlDone>[0];
  const end = pending(task, () => {
    if (refusal === undefined) good(task);
    else if (refusal.code === 'in-use') fail(task, SENSE.MEDIUM_REMOVAL_PREVENTED);
    else fail(task, SENSE.MEDIUM_LOAD_OR_EJECT_FAILED);
  });
  const done: ControlDone = (why) => {
    if (services.loadingNexus === path.nexus) services.loadingNexus = undefined;
    refusal = why;
    if (why !== undefined) {
      services.log.warn(
        { initiator: path.nexus.initiatorName, address: path.nexus.address, code: why.code },
        `START STOP UNIT refused: ${why.message}`,
      );
    }
    end(MEDIUM.OK);
  };
  if (load) {
    services.loadingNexus = path.nexus;
    services.control.load(path.nexus, done);
  } else services.control.eject(path.nexus, done);
}
