/**
 * Status codes and sense data (SAM-6 §5.3, SPC-6 §4.4): every sense triple that this target reports, by its standard
 * name, in one table, and the two formats that it is reported in.
 */
import { putU16, putU32, putU64 } from './bytes.js';

/** SAM-6 §5.3.1. */
export const STATUS = {
  GOOD: 0x00,
  CHECK_CONDITION: 0x02,
  BUSY: 0x08,
  RESERVATION_CONFLICT: 0x18,
  TASK_SET_FULL: 0x28,
  TASK_ABORTED: 0x40,
} as const;

/** SPC-6 §4.4.8. */
export const SENSE_KEY = {
  NO_SENSE: 0x0,
  NOT_READY: 0x2,
  MEDIUM_ERROR: 0x3,
  HARDWARE_ERROR: 0x4,
  ILLEGAL_REQUEST: 0x5,
  UNIT_ATTENTION: 0x6,
  DATA_PROTECT: 0x7,
  COPY_ABORTED: 0xa,
  ABORTED_COMMAND: 0xb,
  MISCOMPARE: 0xe,
} as const;

/** Sense key, additional sense code and qualifier in one number: key << 16 | ASC << 8 | ASCQ. */
export const SENSE = {
  NO_ADDITIONAL_SENSE: 0x00_0000,

  BECOMING_READY: 0x02_0401,
  NOT_READY_IN_STANDBY: 0x02_040b,
  NOT_READY_UNAVAILABLE: 0x02_040c,
  SANITIZE_IN_PROGRESS: 0x02_041b,
  MEDIUM_NOT_PRESENT: 0x02_3a00,

  UNRECOVERED_READ_ERROR: 0x03_1100,
  SANITIZE_COMMAND_FAILED: 0x03_3103,

  INTERNAL_TARGET_FAILURE: 0x04_4400,
  LOGICAL_UNIT_FAILURE: 0x04_3e01,

  INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT: 0x05_0e03,
  PARAMETER_LIST_LENGTH_ERROR: 0x05_1a00,
  INVALID_COMMAND_OPERATION_CODE: 0x05_2000,
  LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE: 0x05_2100,
  INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN: 0x05_2304,
  INVALID_TOKEN_OPERATION_TOKEN_REVOKED: 0x05_2306,
  INVALID_TOKEN_OPERATION_TOKEN_EXPIRED: 0x05_2307,
  INVALID_FIELD_IN_CDB: 0x05_2400,
  LOGICAL_UNIT_NOT_SUPPORTED: 0x05_2500,
  INVALID_FIELD_IN_PARAMETER_LIST: 0x05_2600,
  INVALID_RELEASE_OF_PERSISTENT_RESERVATION: 0x05_2604,
  TOO_MANY_TARGET_DESCRIPTORS: 0x05_2606,
  UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE: 0x05_2607,
  TOO_MANY_SEGMENT_DESCRIPTORS: 0x05_2608,
  UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE: 0x05_2609,
  INVALID_MESSAGE_ERROR: 0x05_4900,
  MEDIUM_REMOVAL_PREVENTED: 0x05_5302,
  MEDIUM_LOAD_OR_EJECT_FAILED: 0x05_5300,
  INSUFFICIENT_REGISTRATION_RESOURCES: 0x05_5504,

  NOT_READY_TO_READY_CHANGE: 0x06_2800,
  /** The general form, since initiators (libiscsi) take it for granted after a login and fail on 29h/01h. */
  POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED: 0x06_2900,
  BUS_DEVICE_RESET_FUNCTION_OCCURRED: 0x06_2903,
  I_T_NEXUS_LOSS_OCCURRED: 0x06_2907,
  MODE_PARAMETERS_CHANGED: 0x06_2a01,
  RESERVATIONS_PREEMPTED: 0x06_2a03,
  RESERVATIONS_RELEASED: 0x06_2a04,
  REGISTRATIONS_PREEMPTED: 0x06_2a05,
  ASYMMETRIC_ACCESS_STATE_CHANGED: 0x06_2a06,
  CAPACITY_DATA_HAS_CHANGED: 0x06_2a09,
  COMMANDS_CLEARED_BY_ANOTHER_INITIATOR: 0x06_2f00,
  REPORTED_LUNS_DATA_HAS_CHANGED: 0x06_3f0e,
  SOME_COMMANDS_CLEARED_BY_ISCSI_PROTOCOL_EVENT: 0x06_477f,

  WRITE_PROTECTED: 0x07_2700,
  SOFTWARE_WRITE_PROTECTED: 0x07_2702,

  UNREACHABLE_COPY_TARGET: 0x0a_0804,
  THIRD_PARTY_DEVICE_FAILURE: 0x0a_0d01,
  COPY_TARGET_DEVICE_NOT_REACHABLE: 0x0a_0d02,

  MISCOMPARE_DURING_VERIFY_OPERATION: 0x0e_1d00,
} as const;
export type SenseCode = (typeof SENSE)[keyof typeof SENSE];

/** What may accompany a sense triple. */
export interface SenseDetail {
  /** INFORMATION field: an LBA, or the offset of the first byte that differs. */
  information?: number;
  /** Field pointer (SPC-6 §4.4.2.4.2): the byte, and optionally the bit, in the CDB or the parameter list. */
  field?: { byte: number; bit?: number; inCdb: boolean };
  /** Progress indication in 65,536ths (SPC-6 §4.4.2.4.4). */
  progress?: number;
}

const NO_DETAIL: SenseDetail = {};

/** Most that `senseData` makes: a descriptor format header, an information and a sense key specific descriptor. */
export const SENSE_BYTES_MAX = 8 + 12 + 8;

/** Sense data of a current error in fixed (70h) or descriptor (72h) format. Freshly allocated, zeroed where unused. */
export function senseData(code: number, descriptorFormat: boolean, detail: SenseDetail = NO_DETAIL): Buffer {
  return descriptorFormat ? descriptorSense(code, detail) : fixedSense(code, detail);
}

function fixedSense(code: number, detail: SenseDetail): Buffer {
  const sense = Buffer.alloc(18);
  sense[0] = 0x70;
  sense[2] = code >>> 16;
  if (detail.information !== undefined && detail.information <= 0xffff_ffff) {
    sense[0] |= 0x80;
    putU32(sense, 3, detail.information);
  }
  sense[7] = 10;
  sense[12] = code >>> 8;
  sense[13] = code;
  putSenseKeySpecific(sense, 15, detail);
  return sense;
}

function descriptorSense(code: number, detail: SenseDetail): Buffer {
  const specific = detail.field !== undefined || detail.progress !== undefined;
  const sense = Buffer.alloc(8 + (detail.information === undefined ? 0 : 12) + (specific ? 8 : 0));
  sense[0] = 0x72;
  sense[1] = code >>> 16;
  sense[2] = code >>> 8;
  sense[3] = code;
  sense[7] = sense.length - 8;
  let at = 8;
  if (detail.information !== undefined) {
    sense[at + 1] = 0x0a;
    sense[at + 2] = 0x80;
    putU64(sense, at + 4, detail.information);
    at += 12;
  }
  if (specific) {
    sense[at] = 0x02;
    sense[at + 1] = 0x06;
    putSenseKeySpecific(sense, at + 4, detail);
  }
  return sense;
}

/** Three bytes: SKSV, then field pointer or progress indication. */
function putSenseKeySpecific(sense: Buffer, at: number, detail: SenseDetail): void {
  if (detail.field !== undefined) {
    const { byte, bit, inCdb } = detail.field;
    sense[at] = 0x80 | (inCdb ? 0x40 : 0) | (bit === undefined ? 0 : 0x08 | bit);
    putU16(sense, at + 1, byte);
  } else if (detail.progress !== undefined) {
    sense[at] = 0x80;
    putU16(sense, at + 1, detail.progress);
  }
}
