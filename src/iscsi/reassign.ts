/**
 * TASK REASSIGN: a task of a connection that is gone goes on by another one (RFC 7143 §7.2.2, §11.5.6, §11.6.1).
 */
import { TASK_MANAGEMENT_RESPONSE } from '../scsi/port.js';
import { RESPONSE } from './constants.js';
import type { IscsiTask, SentOfTask } from './iscsi-task.js';
import { PROTOCOL_SENSE } from './protocol-sense.js';
import { isWhole, resendData, resendResponse } from './resend.js';
import { dataInCount, nextNumber, type KeptTask, type Retained } from './retained.js';
import type { Session } from './session.js';
import type { TaskHost } from './task-host.js';

const { FUNCTION_COMPLETE, REASSIGNMENT_NOT_SUPPORTED, TASK_DOES_NOT_EXIST, TASK_STILL_ALLEGIANT } =
  TASK_MANAGEMENT_RESPONSE;

/** The connection that takes a task over. */
export interface NewHost extends TaskHost {
  /** Ends a task with sense data of this layer. */
  abandon(task: IscsiTask, sense: Buffer): void;
  /** A response with sense data, for a task that is over. */
  respondTo(sent: SentOfTask, sense: Buffer): void;
}

/** What the request gets for an answer; `proceed` then does it, behind the response. */
export function reassignment(
  session: Session,
  to: NewHost,
  itt: number,
  expDataSN: number,
): { response: number; proceed?: () => void } {
  const { retained } = to;
  if (retained === undefined || !session.recoversConnections) return { response: REASSIGNMENT_NOT_SUPPORTED };
  const task = session.tasks.get(itt);
  const lost = task === undefined ? session.lost.withResponse(itt) : session.lost.of(task.host);
  if (lost === undefined) {
    const live = [...session.connections.values()];
    const known = task !== undefined || live.some(({ host }) => host?.retained?.task(itt) !== undefined);
    return { response: known ? TASK_STILL_ALLEGIANT : TASK_DOES_NOT_EXIST };
  }
  // It is about to end with a response of this layer, which can be asked for then.
  if (!lost.loggedOut || task?.aborted === true) return { response: TASK_STILL_ALLEGIANT };
  const from = lost.host;
  return {
    response: FUNCTION_COMPLETE,
    proceed: () => {
      const taken = from.retained?.take(itt);
      if (taken !== undefined) retained.adopt(taken.task);
      if (task !== undefined) proceedWith(task, to, retained, taken?.task, expDataSN);
      else if (taken?.response !== undefined) repeat(to, retained, taken.task, taken.response, expDataSN);
      session.lost.prune();
    },
  };
}

/**
 * An ABORT TASK names a task of a connection that was logged out. If it had ended, and its status was not acknowledged,
 * that comes again before the answer (§11.5.1); data don't, since nobody wants them any more.
 */
export function repeatStatus(session: Session, to: NewHost, itt: number): void {
  const { retained } = to;
  const lost = session.lost.withResponse(itt);
  if (retained === undefined || lost?.loggedOut !== true) return;
  const taken = lost.host.retained?.take(itt);
  if (taken?.response !== undefined) {
    retained.adopt(taken.task);
    resendResponse(to, retained, taken.task, taken.response, to.takeStatSN());
  }
  session.lost.prune();
}

/** The task has not ended: its data, as far as they were sent, and then the rest. */
function proceedWith(
  task: IscsiTask,
  to: NewHost,
  retained: Retained,
  kept: KeptTask | undefined,
  expDataSN: number,
): void {
  task.moveTo(to);
  if (kept !== undefined && !sendData(to, retained, kept, expDataSN)) {
    to.abandon(task, PROTOCOL_SENSE.SNACK_REJECTED);
    return;
  }
  // R2Ts begin anew.
  if (kept !== undefined && !hasDataIn(kept)) retained.restart(kept);
  if (task.out.wantedBytes > 0 || task.out.expectsMore()) task.out.askAnew();
}

/** The task has ended, and its status perhaps never arrived. */
function repeat(to: NewHost, retained: Retained, kept: KeptTask, response: Buffer, expDataSN: number): void {
  if (sendData(to, retained, kept, expDataSN)) resendResponse(to, retained, kept, response, to.takeStatSN());
  else {
    retained.forget(kept);
    to.respondTo({ ...kept, expDataSN: dataInCount(kept) }, PROTOCOL_SENSE.SNACK_REJECTED);
  }
}

/** All Data-In from ExpDataSN or the last acknowledgement on. False if data are not kept. */
function sendData(to: TaskHost, retained: Retained, kept: KeptTask, expDataSN: number): boolean {
  if (expDataSN > kept.first && expDataSN <= nextNumber(kept)) retained.releaseBelow(kept, expDataSN);
  if (!isWhole(kept)) return false;
  if (hasDataIn(kept)) resendData(to, retained, kept);
  return true;
}

const hasDataIn = ({ pdus }: KeptTask): boolean => pdus.some((pdu) => pdu[0] === RESPONSE.DATA_IN);
