/**
 * PDUs of RFC 7143 §11 as 48 bytes, AHS and data, where everything can be set wrong on purpose.
 *
 * A `Pdu` is nothing but its bytes with named offsets. The functions below it build well-formed requests; a test that
 * wants a bad one changes the result: `nopOut({…}).u8(4, 3)` claims 12 bytes of AHS that are not there, and
 * `encode(pdu, { dataSegmentLength: 5 })` lies about the length of the data.
 */
import { digestOf } from './crc32c.js';

/** Opcodes (RFC 7143 §11.2.1.2). */
export const OP = {
  NOP_OUT: 0x00,
  SCSI_COMMAND: 0x01,
  TASK_MANAGEMENT: 0x02,
  LOGIN: 0x03,
  TEXT: 0x04,
  DATA_OUT: 0x05,
  LOGOUT: 0x06,
  SNACK: 0x10,
  NOP_IN: 0x20,
  SCSI_RESPONSE: 0x21,
  TASK_MANAGEMENT_RESPONSE: 0x22,
  LOGIN_RESPONSE: 0x23,
  TEXT_RESPONSE: 0x24,
  DATA_IN: 0x25,
  LOGOUT_RESPONSE: 0x26,
  R2T: 0x31,
  ASYNC: 0x32,
  REJECT: 0x3f,
} as const;

/** The reserved tag (RFC 7143 §11.2.1.8, §11.18.2). */
export const NO_TAG = 0xffffffff;

/** Stages (RFC 7143 §11.12.3). */
export const STAGE = { SECURITY: 0, OPERATIONAL: 1, RESERVED: 2, FULL_FEATURE: 3 } as const;

const EMPTY = Buffer.alloc(0);

export class Pdu {
  readonly bhs: Buffer;
  ahs: Buffer;
  data: Buffer;

  constructor(bhs: Buffer = Buffer.alloc(48), ahs: Buffer = EMPTY, data: Buffer = EMPTY) {
    this.bhs = bhs;
    this.ahs = ahs;
    this.data = data;
  }

  // ---- setting any field, by its offset in the basic header segment
  u8(offset: number, value: number): this {
    this.bhs.writeUInt8(value & 0xff, offset);
    return this;
  }
  u16(offset: number, value: number): this {
    this.bhs.writeUInt16BE(value & 0xffff, offset);
    return this;
  }
  u32(offset: number, value: number): this {
    this.bhs.writeUInt32BE(value >>> 0, offset);
    return this;
  }
  bytes(offset: number, value: Buffer): this {
    value.copy(this.bhs, offset);
    return this;
  }

  // ---- fields that several PDUs share
  get opcode(): number {
    return this.bhs.readUInt8(0) & 0x3f;
  }
  get immediate(): boolean {
    return (this.bhs.readUInt8(0) & 0x40) !== 0;
  }
  /** Byte 1: F and the opcode's own bits. */
  get flags(): number {
    return this.bhs.readUInt8(1);
  }
  get final(): boolean {
    return (this.flags & 0x80) !== 0;
  }
  /** C bit of Text and Login PDUs. */
  get continues(): boolean {
    return (this.flags & 0x40) !== 0;
  }
  get totalAhsLength(): number {
    return this.bhs.readUInt8(4);
  }
  get dataSegmentLength(): number {
    return this.bhs.readUIntBE(5, 3);
  }
  get itt(): number {
    return this.bhs.readUInt32BE(16);
  }
  get ttt(): number {
    return this.bhs.readUInt32BE(20);
  }
  get statSN(): number {
    return this.bhs.readUInt32BE(24);
  }
  get expCmdSN(): number {
    return this.bhs.readUInt32BE(28);
  }
  get maxCmdSN(): number {
    return this.bhs.readUInt32BE(32);
  }
  /** DataSN, R2TSN or ExpDataSN. */
  get dataSN(): number {
    return this.bhs.readUInt32BE(36);
  }
  get bufferOffset(): number {
    return this.bhs.readUInt32BE(40);
  }
  /** Residual Count of Data-In and SCSI Response. */
  get residual(): number {
    return this.bhs.readUInt32BE(44);
  }
  /** Desired Data Transfer Length of an R2T. */
  get desiredLength(): number {
    return this.bhs.readUInt32BE(44);
  }
  /** Response of SCSI, task management and logout responses; reason of a Reject. */
  get response(): number {
    return this.bhs.readUInt8(2);
  }
  get scsiStatus(): number {
    return this.bhs.readUInt8(3);
  }
  /** AsyncEvent of an Asynchronous Message, and its three parameters (RFC 7143 §11.9). */
  get asyncEvent(): number {
    return this.bhs.readUInt8(36);
  }
  get asyncParameters(): [number, number, number] {
    return [this.bhs.readUInt16BE(38), this.bhs.readUInt16BE(40), this.bhs.readUInt16BE(42)];
  }
  /** Current stage of a Login PDU. */
  get csg(): number {
    return (this.flags >> 2) & 3;
  }
  get nsg(): number {
    return this.flags & 3;
  }
  get isid(): Buffer {
    return this.bhs.subarray(8, 14);
  }
  get tsih(): number {
    return this.bhs.readUInt16BE(14);
  }
  /** Status-Class and Status-Detail of a Login Response as one number, for example 0x0201. */
  get loginStatus(): number {
    return this.bhs.readUInt16BE(36);
  }
  /** Sense data of a SCSI Response (RFC 7143 §11.4.7.2), empty if there is none. */
  get sense(): Buffer {
    if (this.data.length < 2) return EMPTY;
    return this.data.subarray(2, 2 + this.data.readUInt16BE(0));
  }
}

export interface EncodeOptions {
  headerDigest?: boolean;
  dataDigest?: boolean;
  /** What the header claims, whatever follows it. */
  dataSegmentLength?: number;
  totalAhsLength?: number;
  /** Byte that the padding is made of. */
  padByte?: number;
  /** Send a digest that does not fit. */
  badHeaderDigest?: boolean;
  badDataDigest?: boolean;
}

/** The bytes of a PDU on the wire (RFC 7143 §11.1, §11.2). The lengths in the header are set from the segments. */
export function encode(pdu: Pdu, options: EncodeOptions = {}): Buffer {
  const header = Buffer.concat([pdu.bhs, pdu.ahs]);
  header.writeUInt8(options.totalAhsLength ?? pdu.ahs.length >> 2, 4);
  header.writeUIntBE(options.dataSegmentLength ?? pdu.data.length, 5, 3);
  const parts: Buffer[] = [header];
  if (options.headerDigest) parts.push(broken(digestOf(header), options.badHeaderDigest));
  if (pdu.data.length > 0) {
    const padding = Buffer.alloc(-pdu.data.length & 3, options.padByte ?? 0);
    parts.push(pdu.data, padding);
    if (options.dataDigest) parts.push(broken(digestOf(pdu.data, padding), options.badDataDigest));
  }
  return Buffer.concat(parts);
}

function broken(digest: Buffer, really: boolean | undefined): Buffer {
  if (really) digest[0] = (digest[0] ?? 0) ^ 0x01;
  return digest;
}

/** An additional header segment (RFC 7143 §11.2.2), padded to a word. AHSLength counts what follows the type. */
export function ahs(type: number, specific: Buffer, ahsLength: number = specific.length): Buffer {
  const bytes = Buffer.alloc((3 + specific.length + 3) & ~3);
  bytes.writeUInt16BE(ahsLength, 0);
  bytes.writeUInt8(type, 2);
  specific.copy(bytes, 3);
  return bytes;
}

/** Extended CDB AHS: one reserved byte and the CDB from its 17th byte on (RFC 7143 §11.2.2.3). */
export const extendedCdb = (rest: Buffer): Buffer => ahs(1, Buffer.concat([Buffer.alloc(1), rest]));

/** Bidirectional Read Expected Data Transfer Length AHS (RFC 7143 §11.2.2.4). */
export function bidirectionalReadLength(bytes: number): Buffer {
  const specific = Buffer.alloc(5);
  specific.writeUInt32BE(bytes, 1);
  return ahs(2, specific);
}

/** LUN field for a LUN under 256 (SAM-6 §4.7, peripheral device addressing). */
export function lunField(lun: number): Buffer {
  const field = Buffer.alloc(8);
  field.writeUInt8(lun, 1);
  return field;
}

function request(opcode: number, flags: number, immediate: boolean): Pdu {
  return new Pdu().u8(0, opcode | (immediate ? 0x40 : 0)).u8(1, flags);
}

export interface Numbers {
  itt: number;
  cmdSN: number;
  expStatSN: number;
  immediate?: boolean;
}

const numbered = (pdu: Pdu, n: Numbers): Pdu => pdu.u32(16, n.itt).u32(24, n.cmdSN).u32(28, n.expStatSN);

/** SCSI Command flags (RFC 7143 §11.3.1). */
export const COMMAND = {
  FINAL: 0x80,
  READ: 0x40,
  WRITE: 0x20,
  SIMPLE: 1,
  ORDERED: 2,
  HEAD: 3,
  ACA: 4,
} as const;

export function scsiCommand(
  n: Numbers & { flags: number; lun?: number; edtl: number; cdb: Buffer; data?: Buffer },
): Pdu {
  const pdu = numbered(request(OP.SCSI_COMMAND, n.flags, n.immediate ?? false), n)
    .bytes(8, lunField(n.lun ?? 0))
    .u32(20, n.edtl)
    .bytes(32, n.cdb.subarray(0, 16));
  if (n.cdb.length > 16) pdu.ahs = extendedCdb(n.cdb.subarray(16));
  pdu.data = n.data ?? EMPTY;
  return pdu;
}

export function dataOut(o: {
  itt: number;
  ttt?: number;
  lun?: number;
  expStatSN: number;
  dataSN: number;
  offset: number;
  data: Buffer;
  final: boolean;
}): Pdu {
  const pdu = request(OP.DATA_OUT, o.final ? 0x80 : 0, false)
    .bytes(8, lunField(o.lun ?? 0))
    .u32(16, o.itt)
    .u32(20, o.ttt ?? NO_TAG)
    .u32(28, o.expStatSN)
    .u32(36, o.dataSN)
    .u32(40, o.offset);
  pdu.data = o.data;
  return pdu;
}

export function nopOut(n: Numbers & { ttt?: number; lun?: number; data?: Buffer }): Pdu {
  const pdu = numbered(request(OP.NOP_OUT, 0x80, n.immediate ?? false), n)
    .bytes(8, lunField(n.lun ?? 0))
    .u32(20, n.ttt ?? NO_TAG);
  pdu.data = n.data ?? EMPTY;
  return pdu;
}

export function textRequest(
  n: Numbers & { ttt?: number; final?: boolean; more?: boolean; data: Buffer },
): Pdu {
  const flags = ((n.final ?? true) ? 0x80 : 0) | (n.more ? 0x40 : 0);
  const pdu = numbered(request(OP.TEXT, flags, n.immediate ?? false), n).u32(20, n.ttt ?? NO_TAG);
  pdu.data = n.data;
  return pdu;
}

export function logoutRequest(n: Numbers & { reason: number; cid?: number }): Pdu {
  return numbered(request(OP.LOGOUT, 0x80 | n.reason, n.immediate ?? false), n).u16(20, n.cid ?? 0);
}

/** Task management functions (RFC 7143 §11.5.1, RFC 7144 §6.1). */
export const TASK_FUNCTION = {
  ABORT_TASK: 1,
  ABORT_TASK_SET: 2,
  CLEAR_ACA: 3,
  CLEAR_TASK_SET: 4,
  LOGICAL_UNIT_RESET: 5,
  TARGET_WARM_RESET: 6,
  TARGET_COLD_RESET: 7,
  TASK_REASSIGN: 8,
  QUERY_TASK: 9,
  QUERY_TASK_SET: 10,
  I_T_NEXUS_RESET: 11,
  QUERY_ASYNCHRONOUS_EVENT: 12,
} as const;

export function taskManagement(
  n: Numbers & {
    function: number;
    lun?: number;
    referencedTag?: number;
    refCmdSN?: number;
    expDataSN?: number;
  },
): Pdu {
  return numbered(request(OP.TASK_MANAGEMENT, 0x80 | n.function, n.immediate ?? true), n)
    .bytes(8, lunField(n.lun ?? 0))
    .u32(20, n.referencedTag ?? NO_TAG)
    .u32(32, n.refCmdSN ?? 0)
    .u32(36, n.expDataSN ?? 0);
}

/** SNACK types (RFC 7143 §11.16.1). */
export const SNACK = { DATA_OR_R2T: 0, STATUS: 1, DATA_ACK: 2, R_DATA: 3 } as const;

/** `tag`: the target's of a DataACK, the SNACK tag of an R-Data. */
export function snack(o: {
  type: number;
  itt: number;
  expStatSN: number;
  begin: number;
  run: number;
  tag?: number;
}): Pdu {
  return request(OP.SNACK, 0x80 | o.type, false)
    .u32(16, o.itt)
    .u32(20, o.tag ?? NO_TAG)
    .u32(28, o.expStatSN)
    .u32(40, o.begin)
    .u32(44, o.run);
}

export interface LoginFields {
  transit: boolean;
  more?: boolean;
  csg: number;
  nsg?: number;
  versionMax?: number;
  versionMin?: number;
  isid?: Buffer;
  tsih?: number;
  itt?: number;
  cid?: number;
  cmdSN?: number;
  expStatSN?: number;
  data?: Buffer;
}

export function loginRequest(o: LoginFields): Pdu {
  const flags = (o.transit ? 0x80 : 0) | (o.more ? 0x40 : 0) | (o.csg << 2) | (o.nsg ?? 0);
  const pdu = request(OP.LOGIN, flags, true)
    .u8(2, o.versionMax ?? 0)
    .u8(3, o.versionMin ?? 0)
    .bytes(8, o.isid ?? DEFAULT_ISID)
    .u16(14, o.tsih ?? 0)
    .u32(16, o.itt ?? 1)
    .u16(20, o.cid ?? 0)
    .u32(24, o.cmdSN ?? 1)
    .u32(28, o.expStatSN ?? 0);
  pdu.data = o.data ?? EMPTY;
  return pdu;
}

/** An ISID of the random format (RFC 7143 §11.12.5). */
export const isid = (qualifier: number): Buffer =>
  Buffer.from([0x80, 0x12, 0x34, 0x56, qualifier >> 8, qualifier & 0xff]);

const DEFAULT_ISID = isid(1);

/** The one that ended a task. Throws if there is none. */
export function lastOf(pdus: readonly Pdu[]): Pdu {
  const pdu = pdus.at(-1);
  if (pdu === undefined) throw new Error('no PDU came');
  return pdu;
}
