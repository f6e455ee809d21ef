/**
 * What can be wrong with a Data-Out PDU, how it is rejected (RFC 7143 §11.17.1) and what its task ends with (§11.4.7.2).
 * Data whose DataSN leaves a gap count as lost on the way (§7.9), all else as a mistake of the initiator's.
 */
import { REJECT } from './constants.js';
import { PROTOCOL_SENSE } from './protocol-sense.js';

export interface DataOutFault {
  /** For the log. */
  readonly why: string;
  /** Reject reason. */
  readonly reason: number;
  readonly sense: Buffer;
}

const { INCORRECT_AMOUNT_OF_DATA, SERVICE_CRC_ERROR, UNEXPECTED_UNSOLICITED_DATA } = PROTOCOL_SENSE;

/** §11.17.1, note 2: a field that describes a data transfer has a value that can't be. */
const field = (why: string): DataOutFault => ({
  why,
  reason: REJECT.INVALID_PDU_FIELD,
  sense: INCORRECT_AMOUNT_OF_DATA,
});
const broken = (why: string, sense: Buffer = INCORRECT_AMOUNT_OF_DATA): DataOutFault => ({
  why,
  reason: REJECT.PROTOCOL_ERROR,
  sense,
});

export const DATA_OUT_FAULT = {
  OTHER_UNIT: field('the LUN is not that of the command'),
  UNKNOWN_TAG: field('unknown target transfer tag'),
  OFFSET: field('buffer offset out of order'),
  BEYOND_SEQUENCE: field('data beyond the sequence'),
  TWICE: field('data that came before'),
  DATA_SN: broken('DataSN out of order', SERVICE_CRC_ERROR),
  NOT_ANNOUNCED: broken('unsolicited data that were not announced', UNEXPECTED_UNSOLICITED_DATA),
  BEYOND_FIRST_BURST: broken('unsolicited data beyond FirstBurstLength'),
  SHORT_FIRST_BURST: broken('less unsolicited data than FirstBurstLength'),
  BEYOND_R2T: broken('data beyond the R2T'),
  WRONG_END: broken('F bit at the wrong place'),
  /** No fault of the last PDU: error recovery gives up (level 1 and above). */
  LOST: broken('data that were asked for too often', SERVICE_CRC_ERROR),
} as const satisfies Record<string, DataOutFault>;
