/** The R2T PDU (RFC 7143 §11.8), built in the slab: on the path of every large write. */
import { FINAL, RESPONSE } from './constants.js';
import { seal, wireBytes } from './framing.js';
import type { IscsiTask } from './iscsi-task.js';
import type { LooseSequence } from './loose-sequence.js';

/** An R2T whose data are still to come. */
export interface OpenR2T {
  ttt: number;
  /** First byte behind its range. */
  end: number;
  /** DataSN that its next Data-Out carries. */
  dataSN: number;
  /** Where its data gather if they may come in any order. */
  loose: LooseSequence | undefined;
}

/** Asks for `bytes` of a task's data from `position` on, under a target transfer tag. */
export function sendR2T(task: IscsiTask, ttt: number, position: number, bytes: number): void {
  const { host } = task;
  const { parameters, transmit } = host;
  const offset = transmit.reserve(wireBytes(parameters, 0));
  const { view, buffer } = transmit;
  view.setUint32(offset, (RESPONSE.R2T << 24) | (FINAL << 16));
  view.setUint32(offset + 4, 0);
  view.setUint32(offset + 8, task.lunHigh);
  view.setUint32(offset + 12, task.lunLow);
  view.setUint32(offset + 16, task.itt);
  view.setUint32(offset + 20, ttt);
  view.setUint32(offset + 24, host.peekStatSN());
  view.setUint32(offset + 28, host.expCmdSN());
  view.setUint32(offset + 32, host.maxCmdSN());
  view.setUint32(offset + 36, task.takeDataSN());
  view.setUint32(offset + 40, position);
  view.setUint32(offset + 44, bytes);
  seal(buffer, offset, 0, parameters);
  task.retain(buffer, offset, 0);
  transmit.commit();
}
