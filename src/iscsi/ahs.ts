/** Additional header segments of a SCSI Command (RFC 7143 §11.2.2). */
import { CDB_BYTES_MAX } from '../scsi/task.js';
import { AHS_BIDIRECTIONAL_READ_LENGTH, AHS_EXTENDED_CDB } from './constants.js';
import type { IscsiTask } from './iscsi-task.js';
import type { Pdu } from './pdu.js';

/** Takes an extended CDB or a bidirectional read length over into the task. False if they are malformed. */
export function readAhs(task: IscsiTask, pdu: Pdu): boolean {
  const end = pdu.ahsAt + pdu.ahsBytes;
  for (let at = pdu.ahsAt; at < end;) {
    // AHSLength counts what follows the type byte, without padding (§11.2.2.2).
    const length = pdu.view.getUint16(at);
    const type = pdu.buffer[at + 2];
    const next = at + 3 + length + (-(3 + length) & 3);
    if (length === 0 || next > end) return false;
    if (type === AHS_EXTENDED_CDB) {
      const extraBytes = length - 1;
      if (16 + extraBytes > CDB_BYTES_MAX) return false;
      pdu.buffer.copy(task.cdb, 16, at + 4, at + 4 + extraBytes);
      task.cdbLength = 16 + extraBytes;
    } else if (type === AHS_BIDIRECTIONAL_READ_LENGTH) {
      if (length !== 5) return false;
      task.expectedDataIn = pdu.view.getUint32(at + 4);
    } else return false;
    at = next;
  }
  return true;
}
