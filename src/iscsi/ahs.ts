/** Additional header segments of a SCSI Command (RFC 7143 §11.2.2). */
import { CDB_BYTES_MAX } from '../scsi/task.js';
import { AHS_BIDIRECTIONAL_READ_LENGTH, AHS_EXTENDED_CDB } from './constants.js';
import type { IscsiTask } from './iscsi-task.js';
import type { Pdu } from './pdu.js';

/** The upper two bits of AHSType are reserved (§11.2.2.1). */
const AHS_CODE_MASK = 0x3f;

/** True if each segment ends where the next begins, and the last one at the end of them all. */
export function ahsFit(pdu: Pdu): boolean {
  const end = pdu.ahsAt + pdu.ahsBytes;
  let at = pdu.ahsAt;
  while (at < end) at = nextAhs(pdu, at);
  return at === end;
}

/** True if each has a type that is not reserved. */
export function ahsKnown(pdu: Pdu): boolean {
  const end = pdu.ahsAt + pdu.ahsBytes;
  for (let at = pdu.ahsAt; at < end; at = nextAhs(pdu, at)) {
    const type = pdu.buffer[at + 2] & AHS_CODE_MASK;
    if (type !== AHS_EXTENDED_CDB && type !== AHS_BIDIRECTIONAL_READ_LENGTH) return false;
  }
  return true;
}

/** AHSLength counts what follows the type byte, without padding (§11.2.2.2). */
function nextAhs(pdu: Pdu, at: number): number {
  const bytes = 3 + pdu.view.getUint16(at);
  return at + bytes + (-bytes & 3);
}

/** Takes an extended CDB or a bidirectional read length over into the task. False if one has a wrong length. */
export function readAhs(task: IscsiTask, pdu: Pdu): boolean {
  const end = pdu.ahsAt + pdu.ahsBytes;
  for (let at = pdu.ahsAt; at < end;) {
    const length = pdu.view.getUint16(at);
    const type = pdu.buffer[at + 2] & AHS_CODE_MASK;
    if (length === 0) return false;
    if (type === AHS_EXTENDED_CDB) {
      const extraBytes = length - 1;
      if (16 + extraBytes > CDB_BYTES_MAX) return false;
      pdu.buffer.copy(task.cdb, 16, at + 4, at + 4 + extraBytes);
      task.cdbLength = 16 + extraBytes;
    } else {
      if (length !== 5) return false;
      task.expectedDataIn = pdu.view.getUint32(at + 4);
    }
    at = nextAhs(pdu, at);
  }
  return true;
}
