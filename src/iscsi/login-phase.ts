/**
 * The login phase as its connection sees it: PDUs in, Login Responses out with their numbers, answers to failed attempts
 * held back (RFC 7143 §6.3, §11.12, §11.13). What a login means is decided in login.ts.
 */
import { LOGIN_STATUS, OPCODE_MASK, REQUEST } from './constants.js';
import type { IscsiCounters } from './counters.js';
import type { Login } from './login.js';
import type { LoginAnswer, LoginResult } from './login-services.js';
import type { Parameters } from './negotiation.js';
import type { Log } from './options.js';
import { sendPdu, type Pdu } from './pdu.js';
import { serialAdd } from './serial.js';
import type { Session } from './session.js';
import type { Transmit } from './transmit.js';

/** What the phase needs of its connection. */
export interface LoginOwner {
  readonly transmit: Transmit;
  readonly log: Log;
  readonly counters: IscsiCounters;
  readonly remoteAddress: string;
  /** Commands that a session may have outstanding. */
  readonly commandWindow: number;
  /** The session that the login has made or found. */
  readonly session: Session | undefined;
  statSN: number;
  cid: number;
  endAfterFlush(why: string, how: 'logout' | 'connection-lost'): void;
  enterFullFeature(result: LoginResult): void;
}

export class LoginPhase {
  readonly #owner: LoginOwner;
  readonly #login: Login;
  /** No digests yet, and the segment length that every initiator takes. */
  readonly #parameters: Parameters;
  /** A failed login whose answer is held back. */
  #held: NodeJS.Timeout | undefined;

  constructor(owner: LoginOwner, login: Login, parameters: Parameters) {
    this.#owner = owner;
    this.#login = login;
    this.#parameters = parameters;
  }

  receive(pdu: Pdu): void {
    // The login has failed already: nothing that follows can mend it.
    if (this.#held !== undefined) return;
    if ((pdu.buffer[pdu.at] & OPCODE_MASK) !== REQUEST.LOGIN) {
      this.#notLogin(pdu);
      return;
    }
    this.#owner.cid = pdu.view.getUint16(pdu.at + 20);
    const cmdSN = pdu.view.getUint32(pdu.at + 24);
    const answer = this.#login.request(pdu);
    if (answer.error !== undefined)
      this.#owner.log.error(
        { err: answer.error, address: this.#owner.remoteAddress },
        'internal error: the login is refused',
      );
    if (answer.delayMs > 0) this.#held = setTimeout(() => this.#answer(answer, cmdSN), answer.delayMs);
    else this.#answer(answer, cmdSN);
  }

  #answer(answer: LoginAnswer, cmdSN: number): void {
    const { session, commandWindow } = this.#owner;
    // A login is immediate: it takes no CmdSN (§11.12.8).
    const expCmdSN = session?.expCmdSN ?? cmdSN;
    const maxCmdSN = session?.maxCmdSN() ?? serialAdd(cmdSN, commandWindow - 1);
    this.#send(answer.fields, expCmdSN, maxCmdSN);
    if (answer.outcome === 'failed') this.#failed(answer.why ?? '');
    else if (answer.outcome === 'full-feature') {
      const { result } = this.#login;
      if (result === undefined) throw new Error('full feature phase without a login result');
      this.#owner.enterFullFeature(result);
    }
  }

  #send(fields: LoginAnswer['fields'], expCmdSN: number, maxCmdSN: number): void {
    const { statSN, transmit } = this.#owner;
    this.#owner.statSN = serialAdd(statSN, 1);
    sendPdu(transmit, this.#parameters, { statSN, expCmdSN, maxCmdSN }, fields);
  }

  /** §6.3: any other PDU in the midst of a login is answered so; before it, by nothing. */
  #notLogin(pdu: Pdu): void {
    if (this.#login.initiatorName !== undefined) {
      const cmdSN = pdu.view.getUint32(pdu.at + 24);
      this.#send(this.#login.refuse(pdu, LOGIN_STATUS.INVALID_DURING_LOGIN), cmdSN, cmdSN);
    }
    this.#owner.endAfterFlush('something other than a login request', 'connection-lost');
  }

  #failed(why: string): void {
    const { counters, log, remoteAddress: address } = this.#owner;
    counters.loginsRefused++;
    log.warn({ initiator: this.#login.initiatorName, address, why }, 'login refused');
    this.#owner.endAfterFlush(`login refused: ${why}`, 'connection-lost');
  }

  /** The connection is gone. */
  close(): void {
    clearTimeout(this.#held);
  }
}
