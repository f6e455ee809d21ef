/**
 * The order of a session's numbered commands, over all its connections (RFC 7143 §4.2.2.1): each is delivered when its
 * CmdSN is the one expected. What comes too early waits as a copy, what lies outside the window is ignored.
 */
import { OPCODE_MASK, REQUEST, TAG_NONE } from './constants.js';
import type { Parameters } from './negotiation.js';
import type { Pdu } from './pdu.js';
import { serialAdd, serialDistance } from './serial.js';
import type { Session } from './session.js';

const HEADER_BYTES = 48;
/** What a waiting Data-Out costs beside its data: header and objects. */
const DATA_OUT_COST_BYTES = 512;
/** Data-Out that a waiting command may have with it: a first burst, cut as small as anybody has a reason for. */
const dataCostMax = (firstBurstBytes: number): number => 2 * firstBurstBytes + 65_536;
/** Data-Out that all waiting commands of a session may have with them. What is beyond is dropped: see `dataOut`. */
const SESSION_DATA_COST_MAX = 33_554_432;

/** The connection that a command came by, and whose task it becomes (connection allegiance, §4.2.5.1). */
export interface Carrier {
  readonly parameters: Parameters;
  /** Counts the bytes of waiting PDUs; negative gives them back. */
  pin(bytes: number): void;
  /** The turn of a PDU that waited has come. */
  deliver(pdu: Pdu): void;
}

/** What it needs of its session. */
export type Numbered = Pick<Session, 'expCmdSN' | 'inWindow'>;

interface Waiting {
  readonly pdu: Pdu;
  /** Undefined: the place of a command that has no effect. */
  readonly carrier: Carrier | undefined;
  /** Unsolicited Data-Out that came behind it, and what they cost. */
  readonly data: Pdu[];
  dataCost: number;
}

export class CommandOrder {
  readonly #session: Numbered;
  /** At most a window of PDUs, by CmdSN. */
  readonly #early = new Map<number, Waiting>();
  #dataCost = 0;

  constructor(session: Numbered) {
    this.#session = session;
  }

  get waiting(): boolean {
    return this.#early.size > 0;
  }

  /** True if the PDU is next; false if it was kept or ignored. */
  admit(pdu: Pdu, carrier: Carrier): boolean {
    const session = this.#session;
    const cmdSN = pdu.view.getUint32(pdu.at + 24);
    // The next one, too, has to wait for the window to open: its holder would else never be done with.
    if (cmdSN === session.expCmdSN && session.inWindow(cmdSN)) {
      session.expCmdSN = (cmdSN + 1) >>> 0;
      return true;
    }
    if (session.inWindow(cmdSN) && !this.#early.has(cmdSN)) this.#keep(cmdSN, pdu, carrier);
    return false;
  }

  /** The last one that was admitted or delivered counts as never received (§7.3). */
  giveBack(): void {
    this.#session.expCmdSN = (this.#session.expCmdSN - 1) >>> 0;
  }

  #keep(cmdSN: number, pdu: Pdu, carrier?: Carrier): void {
    const copy = copyOf(pdu);
    carrier?.pin(copy.buffer.length);
    this.#early.set(cmdSN, { pdu: copy, carrier, data: [], dataCost: 0 });
  }

  /**
   * Unsolicited Data-Out behind a command that waits here: it waits with it. False if there is no such command. Beyond
   * the bounds it is dropped, as if it had been lost on the way: the command then waits for it until its initiator aborts
   * it, or, at error recovery level 1, until it is asked for again.
   */
  dataOut(pdu: Pdu, carrier: Carrier): boolean {
    const itt = pdu.view.getUint32(pdu.at + 16);
    if (pdu.view.getUint32(pdu.at + 20) !== TAG_NONE) return false;
    for (const waiting of this.#early.values()) {
      if (waiting.carrier !== carrier || !isCommand(waiting.pdu, itt)) continue;
      const cost = DATA_OUT_COST_BYTES + pdu.dataBytes;
      const fits = waiting.dataCost + cost <= dataCostMax(carrier.parameters.firstBurstBytes);
      if (fits && this.#dataCost + cost <= SESSION_DATA_COST_MAX) {
        waiting.data.push(copyOf(pdu));
        waiting.dataCost += cost;
        this.#dataCost += cost;
        carrier.pin(cost);
      }
      return true;
    }
    return false;
  }

  /** Delivers the PDU whose turn has come by the last one, on the connection that it came by. False if none waits. */
  deliverNext(): boolean {
    const session = this.#session;
    const cmdSN = session.expCmdSN;
    const waiting = this.#early.get(cmdSN);
    if (waiting === undefined) return false;
    const { pdu, carrier, data } = waiting;
    this.#forget(cmdSN, waiting);
    session.expCmdSN = serialAdd(cmdSN, 1);
    carrier?.deliver(pdu);
    for (const one of data) carrier?.deliver(one);
    return true;
  }

  /**
   * An ABORT TASK, itself of `cmdSN`, names a command that isn't in flight by its tag and its CmdSN (§11.6.1). True if
   * that shows that it has not been delivered yet: it then counts as received, and keeps its place in the order without
   * any effect, whether it waits here or has yet to come.
   */
  abort(itt: number, refCmdSN: number, cmdSN: number): boolean {
    const waiting = this.#early.get(refCmdSN);
    if (waiting === undefined) {
      const session = this.#session;
      const undelivered = serialDistance(refCmdSN, session.expCmdSN) >= 0 && session.inWindow(refCmdSN);
      if (!undelivered || serialDistance(refCmdSN, cmdSN) >= 0) return false;
      const header = Buffer.alloc(HEADER_BYTES);
      this.#keep(refCmdSN, silent(pduOf(header)));
      return true;
    }
    if (!isCommand(waiting.pdu, itt)) return false;
    silent(waiting.pdu);
    return true;
  }

  /** Every command before `cmdSN` that is not here counts as received, and has no effect when it comes (§4.2.3.3 b). */
  plug(cmdSN: number): void {
    for (let missing = this.#session.expCmdSN; missing !== cmdSN; missing = serialAdd(missing, 1))
      if (!this.#early.has(missing)) this.#keep(missing, silent(pduOf(Buffer.alloc(HEADER_BYTES))));
  }

  /** The SCSI commands before `cmdSN` that wait here keep their places without any effect, as far as they are meant. */
  end(cmdSN: number, isMeant: (command: Pdu) => boolean): void {
    for (const [place, { pdu }] of this.#early)
      if (serialDistance(place, cmdSN) < 0 && isCommand(pdu) && isMeant(pdu)) silent(pdu);
  }

  /**
   * A connection is gone: what came by it and was not delivered counts as never received. The initiator sends it again
   * on another connection (§7.2.1).
   */
  drop(carrier: Carrier): void {
    for (const [cmdSN, waiting] of this.#early) {
      if (waiting.carrier === carrier) this.#forget(cmdSN, waiting);
    }
  }

  #forget(cmdSN: number, { pdu, carrier, dataCost }: Waiting): void {
    this.#early.delete(cmdSN);
    this.#dataCost -= dataCost;
    carrier?.pin(-pdu.buffer.length - dataCost);
  }
}

/** Turns a PDU into a NOP-Out without a task tag, which is answered by nothing. */
function silent(pdu: Pdu): Pdu {
  pdu.buffer[pdu.at] = (pdu.buffer[pdu.at] & ~OPCODE_MASK) | REQUEST.NOP_OUT;
  pdu.view.setUint32(pdu.at + 16, TAG_NONE);
  return pdu;
}

/** True of a SCSI Command, with that tag if one is given. */
const isCommand = ({ buffer, view, at }: Pdu, itt?: number): boolean =>
  (buffer[at] & OPCODE_MASK) === REQUEST.SCSI_COMMAND &&
  (itt === undefined || view.getUint32(at + 16) === itt);

/** A copy that stays when the receive buffer moves on; digests and padding are left out behind the data. */
function copyOf(pdu: Pdu): Pdu {
  return {
    ...pduOf(Buffer.from(pdu.buffer.subarray(pdu.at, pdu.dataAt + pdu.dataBytes))),
    ahsAt: pdu.ahsAt - pdu.at,
    ahsBytes: pdu.ahsBytes,
    dataAt: pdu.dataAt - pdu.at,
    dataBytes: pdu.dataBytes,
  };
}

function pduOf(buffer: Buffer): Pdu {
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
  return { buffer, view, at: 0, ahsAt: HEADER_BYTES, ahsBytes: 0, dataAt: HEADER_BYTES, dataBytes: 0 };
}
