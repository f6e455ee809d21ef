/** INQUIRY (SPC-6 §6.6): standard data; the vital product data pages are in vpd.ts. */
import { getU16, putAscii, putU16 } from '../bytes.js';
import { VENDOR } from '../identity.js';
import type { Nexus } from '../nexus.js';
import { answer, failField } from '../respond.js';
import type { Task } from '../task.js';
import type { LogicalUnit, Path } from '../unit.js';
import { vpdPage } from './vpd.js';

/** PERIPHERAL QUALIFIER 011b, device type 1Fh: no logical unit can be here (SPC-6 §6.6.2). */
export const ABSENT_PERIPHERAL = 0x7f;
const EVPD = 0x01;

/** SPC-6 §6.6.2, table of version descriptors: SAM-5, the transport, then those of the command sets, with no version claimed. */
const versionDescriptors = ({ transportVersion }: Nexus): readonly number[] => [
  0x00a0,
  transportVersion,
  0x0460,
  0x04c0,
  0x05c0,
  0x0600,
];

export function inquiry(task: Task, path: Path): void {
  const { cdb } = task;
  const allocation = getU16(cdb, 3);
  if ((cdb[1] & EVPD) === 0) {
    if (cdb[2] !== 0) failField(task, 2);
    else answer(task, standardInquiry(path.nexus, path.unit), allocation);
    return;
  }
  const page = vpdPage(path, cdb[2]);
  if (page === undefined) failField(task, 2);
  else answer(task, page, allocation);
}

/** Standard INQUIRY data; of a LUN without logical unit if `unit` is undefined. */
export function standardInquiry(nexus: Nexus, unit: LogicalUnit | undefined): Buffer {
  const data = Buffer.alloc(96);
  if (unit === undefined) data[0] = ABSENT_PERIPHERAL;
  data[1] = unit?.removable === true ? 0x80 : 0;
  // VERSION: SPC-4, the newest that initiators of today know; the version descriptors claim more. HISUP, response data
  // format 2.
  data[2] = 0x06;
  data[3] = 0x12;
  data[4] = data.length - 5;
  if (unit !== undefined) {
    // TPGS: implicit and explicit asymmetric access; 3PC: third-party copy.
    data[5] = 0x30 | 0x08;
    // MULTIP.
    data[6] = 0x10;
  }
  // CMDQUE.
  data[7] = 0x02;
  putAscii(data, 8, 8, VENDOR);
  putAscii(data, 16, 16, unit?.identity.product ?? 'CLDD');
  putAscii(data, 32, 4, '0001');
  versionDescriptors(nexus).forEach((descriptor, index) => putU16(data, 58 + index * 2, descriptor));
  return data;
}
