/**
 * Requests about the connection rather than about SCSI: NOP-Out, Text Request and Logout Request (RFC 7143 §11.10,
 * §11.14, §11.18) and their answers.
 */
import { LOGOUT_REASON, LOGOUT_RESPONSE, REJECT, RESPONSE, TAG_NONE } from './constants.js';
import type { Parameters } from './negotiation.js';
import type { AnswerFields, Pdu } from './pdu.js';
import type { FullFeatureOwner } from './phase-owner.js';
import type { Session } from './session.js';
import type { TextExchange } from './text-exchange.js';
import { SEND_SEGMENT_BYTES_MAX } from './transmit.js';

/** The full feature phase as this file sees it. */
export interface AnsweringPhase {
  readonly parameters: Parameters;
  send(fields: AnswerFields): void;
  reject(reason: number, pdu: Pdu): void;
}

export class LinkRequests {
  readonly #owner: FullFeatureOwner;
  readonly #session: Session;
  readonly #phase: AnsweringPhase;
  readonly #text: TextExchange;
  /** Logouts that wait for the end of tasks. */
  readonly #logouts = new Set<number>();
  /** The connection is logged out: what follows is not heard (§11.14). */
  loggedOut = false;

  constructor(owner: FullFeatureOwner, session: Session, phase: AnsweringPhase, text: TextExchange) {
    this.#owner = owner;
    this.#session = session;
    this.#phase = phase;
    this.#text = text;
  }

  /** True while a text negotiation or a logout with this tag is under way. */
  hasRequest(itt: number): boolean {
    return this.#text.openTag === itt || this.#logouts.has(itt);
  }

  /** A ping of the initiator, or its answer to ours (§11.18). */
  nopOut(pdu: Pdu): void {
    const itt = pdu.view.getUint32(pdu.at + 16);
    if (itt === TAG_NONE) return;
    const { maxSendDataSegmentBytes } = this.#phase.parameters;
    const bytes = Math.min(pdu.dataBytes, maxSendDataSegmentBytes, SEND_SEGMENT_BYTES_MAX);
    this.#phase.send({
      opcode: RESPONSE.NOP_IN,
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

  /** True of a Logout Request for another connection: its ExpStatSN is that one's (§11.14.4). */
  namesAnother(pdu: Pdu): boolean {
    const reason = pdu.buffer[pdu.at + 1] & 0x7f;
    return reason !== LOGOUT_REASON.CLOSE_SESSION && pdu.view.getUint16(pdu.at + 20) !== this.#owner.cid;
  }

  /** Logout of the session, of this connection, or of another one of the session (§11.14). */
  logout(pdu: Pdu): void {
    const reason = pdu.buffer[pdu.at + 1] & 0x7f;
    const itt = pdu.view.getUint32(pdu.at + 16);
    const cid = pdu.view.getUint16(pdu.at + 20);
    const session = this.#session;
    const own = this.#owner.cid;
    this.#logouts.add(itt);
    if (reason === LOGOUT_REASON.CLOSE_SESSION)
      session.dropOthers(own, 'its session was logged out', () => this.#leave(itt));
    else if (reason === LOGOUT_REASON.CLOSE_CONNECTION && cid === own) this.#leave(itt);
    else if (reason === LOGOUT_REASON.CLOSE_CONNECTION) {
      const other = session.connections.get(cid);
      const closed = (): void => this.#answerLogout(itt, LOGOUT_RESPONSE.CLOSED);
      if (other === undefined) {
        if (!session.lost.drop(cid, closed)) this.#answerLogout(itt, LOGOUT_RESPONSE.CID_NOT_FOUND);
      } else {
        session.detach(other, closed);
        other.drop('logged out by another connection');
      }
    } else if (reason === LOGOUT_REASON.REMOVE_FOR_RECOVERY)
      this.#removeForRecovery(itt, cid, pdu.view.getUint32(pdu.at + 28));
    else {
      this.#logouts.delete(itt);
      this.#phase.reject(REJECT.PROTOCOL_ERROR, pdu);
    }
  }

  /** The tasks of the named connection are prepared for a new allegiance (§11.14.1, reason 2). */
  #removeForRecovery(itt: number, cid: number, expStatSN: number): void {
    const session = this.#session;
    const named = session.connections.get(cid);
    if (!session.recoversConnections) this.#answerLogout(itt, LOGOUT_RESPONSE.RECOVERY_NOT_SUPPORTED);
    else if (named === undefined)
      this.#answerLogout(
        itt,
        session.lost.logOut(cid, expStatSN) ? LOGOUT_RESPONSE.CLOSED : LOGOUT_RESPONSE.CID_NOT_FOUND,
      );
    else {
      if (cid !== this.#owner.cid) session.acknowledge(named, expStatSN);
      session.suspend(named, true);
      if (cid === this.#owner.cid) this.#leave(itt);
      else {
        named.drop('logged out for recovery by another connection');
        this.#answerLogout(itt, LOGOUT_RESPONSE.CLOSED);
      }
    }
  }

  /** At level 2 it tells how long tasks wait to be reassigned (§11.15.3, §11.15.4). */
  #answerLogout(itt: number, response: number): void {
    this.#logouts.delete(itt);
    const { errorRecoveryLevel, time2WaitSeconds, time2RetainSeconds } = this.#phase.parameters;
    const times =
      errorRecoveryLevel === 2 && response === LOGOUT_RESPONSE.CLOSED
        ? time2WaitSeconds * 0x10000 + time2RetainSeconds
        : 0;
    this.#phase.send({ opcode: RESPONSE.LOGOUT, detail: response << 8, itt, words: [0, times, 0] });
  }

  #leave(itt: number): void {
    this.#answerLogout(itt, LOGOUT_RESPONSE.CLOSED);
    this.loggedOut = true;
    this.#owner.endAfterFlush('logout', 'logout');
  }
}
