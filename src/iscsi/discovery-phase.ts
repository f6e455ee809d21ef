/**
 * The full feature phase of a discovery session (RFC 7143 §4.3): text requests, NOP and logout; nothing else.
 */
import {
  IMMEDIATE,
  LOGOUT_RESPONSE,
  OPCODE_MASK,
  REJECT,
  REQUEST,
  RESPONSE,
  TAG_NONE,
  BHS_BYTES,
} from './constants.js';
import type { Parameters } from './negotiation.js';
import { sendPdu, type AnswerFields, type Pdu } from './pdu.js';
import { serialAdd } from './serial.js';
import type { TextExchange } from './text-exchange.js';
import type { Transmit } from './transmit.js';

export interface DiscoveryOwner {
  readonly transmit: Transmit;
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
    const itt = view.getUint32(at + 16);
    const pong = opcode === REQUEST.NOP_OUT && itt === TAG_NONE;
    if ((buffer[at] & IMMEDIATE) === 0 && !pong) {
      // One connection, answered in order: a number that isn't the next one is outside what may be sent.
      if (view.getUint32(at + 24) !== this.#expCmdSN) return;
      this.#expCmdSN = serialAdd(this.#expCmdSN, 1);
    }
    if (opcode === REQUEST.TEXT) this.#textRequest(pdu);
    else if (opcode === REQUEST.NOP_OUT) {
      if (!pong) this.#nopIn(pdu, itt);
    } else if (opcode === REQUEST.LOGOUT) {
      this.#send({ opcode: RESPONSE.LOGOUT, detail: LOGOUT_RESPONSE.CLOSED << 8, itt });
      this.#owner.endAfterFlush('logout', 'logout');
    } else this.#reject(REJECT.COMMAND_NOT_SUPPORTED, pdu);
  }

  #nopIn(pdu: Pdu, itt: number): void {
    const bytes = Math.min(pdu.dataBytes, this.#owner.parameters.maxSendDataSegmentBytes);
    const data = pdu.buffer.subarray(pdu.dataAt, pdu.dataAt + bytes);
    this.#send({ opcode: RESPONSE.NOP_IN, itt, ttt: TAG_NONE, data });
  }

  #textRequest(pdu: Pdu): void {
    const outcome = this.#text.request(pdu);
    if (outcome.kind === 'reject') {
      this.#reject(outcome.reason, pdu);
      return;
    }
    this.#send({ opcode: RESPONSE.TEXT, ...outcome.answer });
    if (outcome.renegotiated) this.#owner.parametersChanged();
  }

  #reject(reason: number, pdu: Pdu): void {
    const data = Buffer.from(pdu.buffer.subarray(pdu.at, pdu.at + BHS_BYTES));
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
