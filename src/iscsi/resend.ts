/**
 * Sends again what was kept (RFC 7143 §11.16): single PDUs as they were, or all unacknowledged data of a task cut anew,
 * which an R-Data SNACK and a reassignment both ask for.
 */
import { BHS_BYTES, DATA_IN_ACKNOWLEDGE, FINAL, RESPONSE } from './constants.js';
import { dataOffset, seal, wireBytes } from './framing.js';
import { dataInCount, nextNumber, type KeptTask, type Retained } from './retained.js';
import type { TaskHost } from './task-host.js';

const EXP_CMD_SN = 28;
const MAX_CMD_SN = 32;

/** An exact copy, with the current values of the numbers that §11.16 names. `pdu`: header and data. */
export function resend(host: TaskHost, pdu: Buffer): void {
  const dataBytes = pdu.length - BHS_BYTES;
  const offset = place(host, pdu, pdu.subarray(BHS_BYTES));
  if (pdu[0] === RESPONSE.R2T) host.transmit.view.setUint32(offset + 24, host.peekStatSN());
  seal(host.transmit.buffer, offset, dataBytes, host.parameters);
  host.transmit.commit();
}

/** Puts header and data into the slab; returns where the header stands. */
function place(host: TaskHost, header: Buffer, data: Buffer): number {
  const offset = host.transmit.reserve(wireBytes(host.parameters, data.length));
  const { buffer, view } = host.transmit;
  header.copy(buffer, offset, 0, BHS_BYTES);
  data.copy(buffer, offset + dataOffset(host.parameters));
  view.setUint32(offset + 4, data.length);
  view.setUint32(offset + EXP_CMD_SN, host.expCmdSN());
  view.setUint32(offset + MAX_CMD_SN, host.maxCmdSN());
  return offset;
}

/** True if all unacknowledged PDUs of the task are still kept. */
export const isWhole = ({ missing }: KeptTask): boolean => missing === 0;

/**
 * All unacknowledged data of a task, cut to what the initiator now takes: DataSN counts from the acknowledgement
 * reference number on (§11.16.3). The task's record, which is `host`'s, then holds the new PDUs.
 */
export function resendData(host: TaskHost, retained: Retained, task: KeptTask): void {
  const before = task.pdus;
  retained.restart(task);
  for (const pdu of before) {
    if (pdu[0] !== RESPONSE.DATA_IN) continue;
    const position = pdu.readUInt32BE(40);
    for (let at = BHS_BYTES; at < pdu.length;) {
      const end = Math.min(pdu.length, at + host.sendSegmentBytes);
      const flags = end === pdu.length ? pdu[1] : 0;
      sendDataIn(host, retained, task, pdu, pdu.subarray(at, end), position + at - BHS_BYTES, flags);
      at = end;
    }
  }
}

function sendDataIn(
  host: TaskHost,
  retained: Retained,
  task: KeptTask,
  header: Buffer,
  data: Buffer,
  position: number,
  flags: number,
): void {
  const offset = place(host, header, data);
  const { buffer, view } = host.transmit;
  const { parameters } = host;
  const dataSN = nextNumber(task);
  const asks = (flags & DATA_IN_ACKNOWLEDGE) !== 0;
  const tag = asks ? host.takeTransferTag() : 0xffffffff;
  buffer[offset + 1] = flags & (FINAL | DATA_IN_ACKNOWLEDGE);
  view.setUint32(offset + 8, asks ? task.lunHigh : 0);
  view.setUint32(offset + 12, asks ? task.lunLow : 0);
  view.setUint32(offset + 20, tag);
  view.setUint32(offset + 36, dataSN);
  view.setUint32(offset + 40, position);
  seal(buffer, offset, data.length, parameters);
  if (asks) retained.expectAcknowledgement(tag, task, dataSN);
  retained.keep(task, { buffer, offset, dataBytes: data.length, parameters });
  host.transmit.commit();
}

/** The response of a task again, now with the SNACK tag and ExpDataSN that hold; its StatSN may be a new one. */
export function resendResponse(
  host: TaskHost,
  retained: Retained,
  task: KeptTask,
  response: Buffer,
  statSN: number,
): void {
  const data = response.subarray(BHS_BYTES);
  const offset = place(host, response, data);
  const { buffer, view } = host.transmit;
  const { parameters } = host;
  view.setUint32(offset + 20, task.snackTag);
  view.setUint32(offset + 24, statSN);
  view.setUint32(offset + 36, dataInCount(task));
  seal(buffer, offset, data.length, parameters);
  retained.keepStatus(statSN, { buffer, offset, dataBytes: data.length, parameters }, task);
  host.transmit.commit();
}
