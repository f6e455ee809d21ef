/**
 * Requests about the connection rather than about SCSI: NOP-Out, Text Request and Logout Request (RFC 7143 §11.10,
 * §11.14, §11.18) and their answers.
 */
import { LOGOUT_REASON, LOGOUT_RESPONSE, REJECT, RESPONSE, TAG_NONE } from './constants.js';
import type { AnswerFields, Pdu } from './pdu.js';
import type { FullFeatureOwner } from './phase-owner.js';
import type { TextExchange } from './text-exchange.js';

/** The full feature phase as this file sees it. */
export interface AnsweringPhase {
  /** Longest data segment to send. */
  readonly sendSegmentBytes: number;
  send(fields: AnswerFields): void;
  reject(reason: number, pdu: Pdu): void;
}

export class LinkRequests {
  readonly #owner: FullFeatureOwner;
  readonly #phase: AnsweringPhase;
  readonly #text: TextExchange;
  /** The session is logged out: what follows is not heard (§11.14). */
  loggedOut = false;

  constructor(owner: FullFeatureOwner, phase: AnsweringPhase, text: TextExchange) {
    this.#owner = owner;
    this.#phase = phase;
    this.#text = text;
  }

  /** A ping of the initiator, or its answer to ours (§11.18). */
  nopOut(pdu: Pdu): void {
    const itt = pdu.view.getUint32(pdu.at + 16);
    if (itt === TAG_NONE) return;
    const bytes = Math.min(pdu.dataBytes, this.#phase.sendSegmentBytes);
    this.#phase.send({
      opcode: RESPONSE.NOP_IN,
      lunHigh: pdu.view.getUint32(pdu.at + 8),
      lunLow: pdu.view.getUint32(pdu.at + 12),
      itt,
      ttt: TAG_NONE,
      data: pdu.buffer.subarray(pdu.dataAt, pdu.dataAt + bytes),
    });
  }

  textRequest(pdu: Pdu): void {
    const outcome = this.#text.request(pdu);
    if (outcome.kind === 'reject') this.#phase.reject(outcome.reason, pdu);
    else {
      this.#phase.send({ opcode: RESPONSE.TEXT, ...outcome.answer });
      if (outcome.renegotiated) this.#owner.parametersChanged();
    }
  }

  logout(pdu: Pdu): void {
    const reason = pdu.buffer[pdu.at + 1] & 0x7f;
    const itt = pdu.view.getUint32(pdu.at + 16);
    const cid = pdu.view.getUint16(pdu.at + 20);
    let response: number = LOGOUT_RESPONSE.CLOSED;
    if (reason === LOGOUT_REASON.REMOVE_FOR_RECOVERY) response = LOGOUT_RESPONSE.RECOVERY_NOT_SUPPORTED;
    else if (reason === LOGOUT_REASON.CLOSE_CONNECTION && cid !== this.#owner.cid)
      response = LOGOUT_RESPONSE.CID_NOT_FOUND;
    else if (reason > LOGOUT_REASON.REMOVE_FOR_RECOVERY) {
      this.#phase.reject(REJECT.INVALID_PDU_FIELD, pdu);
      return;
    }
    this.#phase.send({ opcode: RESPONSE.LOGOUT, detail: response << 8, itt, words: [0, 0, 0] });
    if (response !== LOGOUT_RESPONSE.CLOSED) return;
    this.loggedOut = true;
    this.#owner.endAfterFlush('logout', 'logout');
  }
}
