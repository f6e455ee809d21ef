/** The few CDBs that iSCSI tests need (SPC-6 §6, SBC-5 §5), and SCSI statuses (SAM-6 §5.3.1). */
import type { Tap } from './requirement.js';
import type { Session } from './session.js';

export const STATUS = {
  GOOD: 0,
  CHECK_CONDITION: 2,
  BUSY: 8,
  RESERVATION_CONFLICT: 0x18,
  TASK_SET_FULL: 0x28,
} as const;

function cdb(length: number, opcode: number, fill: (bytes: Buffer) => void = () => undefined): Buffer {
  const bytes = Buffer.alloc(length);
  bytes.writeUInt8(opcode, 0);
  fill(bytes);
  return bytes;
}

/** CDBs are always sent as 16 bytes; what a short one leaves is zero. */
export const testUnitReady = (): Buffer => cdb(6, 0x00);
export const inquiry = (allocationBytes: number): Buffer =>
  cdb(6, 0x12, (bytes) => bytes.writeUInt16BE(allocationBytes, 3));
/** INQUIRY for a page of vital product data. */
export const inquiryPage = (page: number, allocationBytes: number): Buffer =>
  cdb(6, 0x12, (bytes) => {
    bytes.writeUInt8(1, 1);
    bytes.writeUInt8(page, 2);
    bytes.writeUInt16BE(allocationBytes, 3);
  });
/** PERSISTENT RESERVE IN and OUT (SPC-6 §6.16, §6.17); `type`: SCOPE and TYPE. */
export const persistentReserveIn = (action: number, allocationBytes: number): Buffer =>
  cdb(10, 0x5e, (bytes) => {
    bytes.writeUInt8(action, 1);
    bytes.writeUInt16BE(allocationBytes, 7);
  });
export const persistentReserveOut = (action: number, parameterBytes: number, type = 0): Buffer =>
  cdb(10, 0x5f, (bytes) => {
    bytes.writeUInt8(action, 1);
    bytes.writeUInt8(type, 2);
    bytes.writeUInt32BE(parameterBytes, 5);
  });
export const readCapacity10 = (): Buffer => cdb(10, 0x25);
export const reportLuns = (allocationBytes: number): Buffer =>
  cdb(12, 0xa0, (bytes) => bytes.writeUInt32BE(allocationBytes, 6));
export const read10 = (lba: number, blocks: number): Buffer =>
  cdb(10, 0x28, (bytes) => {
    bytes.writeUInt32BE(lba, 2);
    bytes.writeUInt16BE(blocks, 7);
  });
export const write10 = (lba: number, blocks: number): Buffer =>
  cdb(10, 0x2a, (bytes) => {
    bytes.writeUInt32BE(lba, 2);
    bytes.writeUInt16BE(blocks, 7);
  });

/** WRITE SAME(16) of one block (SBC-5 §5.57). */
export const writeSame16 = (lba: number, blocks: number): Buffer =>
  cdb(16, 0x93, (bytes) => {
    bytes.writeUInt32BE(lba, 6);
    bytes.writeUInt32BE(blocks, 10);
  });
/** MODE SELECT(6) of pages (SPC-6 §6.13), not saved. */
export const modeSelect6 = (bytes: number): Buffer =>
  cdb(6, 0x15, (fields) => {
    fields.writeUInt8(0x10, 1);
    fields.writeUInt8(bytes, 4);
  });

/** The caching mode page (SBC-5 §6.5.6) as MODE SELECT takes it; WCE is bit 2 of byte 2. */
export async function cachingPage(session: Session): Promise<Buffer> {
  const modeSense6 = cdb(6, 0x1a, (bytes) => {
    bytes.writeUInt8(0x08, 1);
    bytes.writeUInt8(0x08, 2);
    bytes.writeUInt8(0xff, 4);
  });
  const { data } = await session.execute({ cdb: modeSense6, read: 255 });
  const page = Buffer.from(data.subarray(4));
  page.writeUInt8(page.readUInt8(0) & 0x3f, 0);
  return page;
}

/** The next command of a session is told that tasks have ended with their connection (RFC 7143 §11.14.5). */
export async function toldOfCleared(t: Pick<Tap, 'equal'>, session: Session, cmdSN?: number): Promise<void> {
  const command = { cdb: testUnitReady(), ...(cmdSN === undefined ? {} : { cmdSN }) };
  let { sense } = await session.execute(command);
  // A connection that broke may end after what follows it on another one.
  for (let tries = 0; sense.length === 0 && cmdSN === undefined && tries < 100; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    ({ sense } = await session.execute(command));
  }
  t.equal(senseTriple(sense), '06/47/7f', 'SOME COMMANDS CLEARED BY ISCSI PROTOCOL EVENT');
}

/** Sense key, additional sense code and qualifier of fixed or descriptor sense data (SPC-6 §4.4), as hexadecimal. */
export function senseTriple(sense: Buffer): string {
  const format = (sense[0] ?? 0) & 0x7f;
  const [key, asc, ascq] = format >= 0x72 ? [sense[1], sense[2], sense[3]] : [sense[2], sense[12], sense[13]];
  return [(key ?? 0) & 15, asc ?? 0, ascq ?? 0].map((byte) => byte.toString(16).padStart(2, '0')).join('/');
}
