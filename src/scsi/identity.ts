/**
 * Who a logical unit is: everything derives from the partition's UUID, so it is stable over restarts and moves with the
 * partition, equal on all ports, and distinct for master and slave.
 */
import { createHash } from 'node:crypto';

export const VENDOR = 'CLDD';

export interface Identity {
  /** PRODUCT IDENTIFICATION, at most 16 characters. */
  product: string;
  /** Unit serial number, 32 hexadecimal digits. */
  serial: string;
  /** NAA Locally Assigned, 8 bytes (SPC-6 §7.7.6.6.4). */
  naa: Buffer;
  /** Logical unit UUID, 16 bytes (RFC 4122 version 8: derived). */
  uuid: Buffer;
  /** iSCSI name of the target device. */
  targetName: string;
}

export function identify(targetName: string, partitionUuid: string, kind: 'master' | 'slave'): Identity {
  const digest = createHash('sha256').update(`cldd ${kind} ${partitionUuid.toLowerCase()}`).digest();
  const naa = Buffer.from(digest.subarray(0, 8));
  naa[0] = 0x30 | (naa[0] & 0x0f);
  const uuid = Buffer.from(digest.subarray(8, 24));
  uuid[6] = 0x80 | (uuid[6] & 0x0f);
  uuid[8] = 0x80 | (uuid[8] & 0x3f);
  return {
    product: kind === 'master' ? 'CLDD master' : 'CLDD slave',
    serial: uuid.toString('hex'),
    naa,
    uuid,
    targetName,
  };
}
