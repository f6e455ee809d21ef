/**
 * A received PDU where it lies in the receive buffer, and small PDUs going out.
 */
import { BHS_BYTES, FINAL } from './constants.js';
import { dataOffset, seal, wireBytes } from './framing.js';
import type { Parameters } from './negotiation.js';
import type { KeptTask, Retained } from './retained.js';
import type { Transmit } from './transmit.js';

/** One received PDU. The object is reused: nobody keeps it, or the memory that it points to. */
export interface Pdu {
  buffer: Buffer;
  view: DataView;
  /** Start of the basic header segment. */
  at: number;
  /** Start and length of the additional header segments. */
  ahsAt: number;
  ahsBytes: number;
  /** Start and length of the data segment, without padding. */
  dataAt: number;
  dataBytes: number;
}

/** The header of a PDU as a Reject returns it (§11.17.4): with its additional segments, if the initiator takes so much. */
export function headerOf({ buffer, at, ahsBytes }: Pdu, bytesMax: number): Buffer {
  const bytes = BHS_BYTES + ahsBytes;
  return Buffer.from(buffer.subarray(at, at + (bytes > bytesMax ? BHS_BYTES : bytes)));
}

/** Sequence numbers as the header of every answer carries them (RFC 7143 §4.2.2). */
export interface Numbers {
  statSN: number;
  expCmdSN: number;
  maxCmdSN: number;
}

export interface AnswerFields {
  opcode: number;
  /** Byte 1 besides the F bit, which is always set unless `final` is false. */
  flags?: number;
  final?: boolean;
  /** Bytes 2 and 3. */
  detail?: number;
  lunHigh?: number;
  lunLow?: number;
  itt: number;
  ttt?: number;
  /** Words at bytes 36, 40 and 44. */
  words?: readonly [number, number, number];
  data?: Buffer;
}

/**
 * Builds and queues a PDU of the cold paths: everything but Data-In, R2T and SCSI Response. `retained`: keeps it by its
 * StatSN, with what was sent of `task`.
 */
export function sendPdu(
  transmit: Transmit,
  parameters: Parameters,
  numbers: Numbers,
  fields: AnswerFields,
  retained?: Retained,
  task?: KeptTask,
): void {
  const dataBytes = fields.data?.length ?? 0;
  const offset = transmit.reserve(wireBytes(parameters, dataBytes));
  const { view, buffer } = transmit;
  const flags = (fields.final === false ? 0 : FINAL) | (fields.flags ?? 0);
  view.setUint32(offset, (fields.opcode << 24) | (flags << 16) | (fields.detail ?? 0));
  view.setUint32(offset + 4, dataBytes);
  view.setUint32(offset + 8, fields.lunHigh ?? 0);
  view.setUint32(offset + 12, fields.lunLow ?? 0);
  view.setUint32(offset + 16, fields.itt);
  view.setUint32(offset + 20, fields.ttt ?? 0);
  view.setUint32(offset + 24, numbers.statSN);
  view.setUint32(offset + 28, numbers.expCmdSN);
  view.setUint32(offset + 32, numbers.maxCmdSN);
  const words = fields.words ?? [0, 0, 0];
  view.setUint32(offset + 36, words[0]);
  view.setUint32(offset + 40, words[1]);
  view.setUint32(offset + 44, words[2]);
  fields.data?.copy(buffer, offset + dataOffset(parameters));
  seal(buffer, offset, dataBytes, parameters);
  retained?.keepStatus(numbers.statSN, { buffer, offset, dataBytes, parameters }, task);
  transmit.commit();
}
