/**
 * Sense data for errors that the iSCSI layer itself finds in a command's data (RFC 7143 §11.4.7.2), in the fixed
 * format of SPC-6 §4.4.3, sense key ABORTED COMMAND.
 */
const ABORTED_COMMAND = 0x0b;

function fixedSense(asc: number, ascq: number): Buffer {
  const sense = Buffer.alloc(18);
  sense[0] = 0x70;
  sense[2] = ABORTED_COMMAND;
  sense[7] = 10;
  sense[12] = asc;
  sense[13] = ascq;
  return sense;
}

export const PROTOCOL_SENSE = {
  UNEXPECTED_UNSOLICITED_DATA: fixedSense(0x0c, 0x0c),
  INCORRECT_AMOUNT_OF_DATA: fixedSense(0x0c, 0x0d),
  SERVICE_CRC_ERROR: fixedSense(0x47, 0x05),
  SNACK_REJECTED: fixedSense(0x11, 0x13),
  /** INVALID FIELD IN COMMAND INFORMATION UNIT */
  INVALID_PDU_FIELD: fixedSense(0x0e, 0x03),
} as const;
