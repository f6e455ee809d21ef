/**
 * The full feature phase of a discovery session (RFC 7143 §4.3, §7.4.3): SendTargets and the logout of the session. All
 * else is rejected, and nothing but their responses and rejects is sent.
 */
import {
  IMMEDIATE,
  LOGOUT_REASON,
  LOGOUT_RESPONSE,
  OPCODE_MASK,
  REJECT,
  REQUEST,
  RESPONSE,
  TAG_NONE,
} from './constants.js';
import type { IscsiCounters } from './counters.js';
import type { Parameters } from './negotiation.js';
import { headerOf, sendPdu, type AnswerFields, type Pdu } from './pdu.js';
import { serialAdd } from './serial.js';
import type { TextExchange } from './text-exchange.js';
import type { Transmit } from './transmit.js';

export interface DiscoveryOwner {
  readonly transmit: Transmit;
  readonly counters: IscsiCounters;
  statSN: number;
  readonly parameters: Parameters;
  parametersChanged(): void;
  endAfterFlush(why: string, how: 'logout' | 'connection-lost'): void;
}

export class DiscoveryPhase {
  readonly #owner: DiscoveryOwner;
  readonly #text: TextExchange;
  /** Commands that may be outstanding, as the login response announced. */
  readonly #window: number;
  #expCmdSN: number;

  constructor(owner: DiscoveryOwner, cmdSN: number, window: number, text: TextExchange) {
    this.#owner = owner;
    this.#expCmdSN = cmdSN;
    this.#window = window;
    this.#text = text;
  }

  receive(pdu: Pdu): void {
    const { buffer, view, at } = pdu;
    const opcode = buffer[at] & OPCODE_MASK;
    const isClose = (buffer[at + 1] & 0x7f) === LOGOUT_REASON.CLOSE_SESSION;
    if (opcode !== REQUEST.TEXT && !(opcode === REQUEST.LOGOUT && isClose)) {
      this.reject(REJECT.COMMAND_NOT_SUPPORTED, pdu);
      return;
    }
    if ((buffer[at] & IMMEDIATE) === 0) {
      // One connection, answered in order: a number that isn't the next one is outside what may be sent.
      if (view.getUint32(at + 24) !== this.#expCmdSN) return;
      this.#expCmdSN = serialAdd(this.#expCmdSN, 1);
    }
    if (opcode === REQUEST.TEXT) this.#textRequest(pdu);
    else {
      this.#send({
        opcode: RESPONSE.LOGOUT,
        detail: LOGOUT_RESPONSE.CLOSED << 8,
        itt: view.getUint32(at + 16),
      });
      this.#owner.endAfterFlush('logout', 'logout');
    }
  }

  #textRequest(pdu: Pdu): void {
    const outcome = this.#text.request(pdu);
    if (outcome.kind === 'reject') {
      // What is rejected counts as never received (§7.3).
      if ((pdu.buffer[pdu.at] & IMMEDIATE) === 0) this.#expCmdSN = serialAdd(this.#expCmdSN, -1);
      this.reject(outcome.reason, pdu);
      return;
    }
    this.#send({ opcode: RESPONSE.TEXT, ...outcome.answer });
    if (outcome.renegotiated) this.#owner.parametersChanged();
  }

  /** Reject (§11.17) carries the header that it refuses. */
  reject(reason: number, pdu: Pdu): void {
    this.#owner.counters.rejects++;
    const data = headerOf(pdu, this.#owner.parameters.maxSendDataSegmentBytes);
    this.#send({ opcode: RESPONSE.REJECT, detail: reason << 8, itt: TAG_NONE, data });
  }

  #send(fields: AnswerFields): void {
    const owner = this.#owner;
    const { statSN } = owner;
    owner.statSN = serialAdd(statSN, 1);
    const maxCmdSN = serialAdd(this.#expCmdSN, this.#window - 1);
    sendPdu(owner.transmit, owner.parameters, { statSN, expCmdSN: this.#expCmdSN, maxCmdSN }, fields);
  }
}
