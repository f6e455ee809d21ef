/**
 * Text requests of the full feature phase (RFC 7143 §11.10, §11.11, §6.3): SendTargets and the few keys that may be
 * renegotiated, with continuation in both directions.
 */
import { CONTINUE, FINAL, REJECT, TAG_NONE } from './constants.js';
import { NegotiationError, type Negotiation } from './negotiation.js';
import type { AnswerFields, Pdu } from './pdu.js';
import { formatText, parseText, TextError } from './text.js';

/** Text that one request may bring in several PDUs. */
const REQUEST_BYTES_MAX = 65_536;

export type TextOutcome =
  | { kind: 'answer'; answer: Omit<AnswerFields, 'opcode'>; renegotiated: boolean }
  | { kind: 'reject'; reason: number };

export interface TextServices {
  negotiation: Negotiation;
  /** Longest data segment that may be sent now. */
  sendSegmentBytes: () => number;
  takeTransferTag: () => number;
  /** Answers SendTargets; undefined: not allowed. */
  sendTargets: (value: string) => [string, string][] | undefined;
  /** A discovery session: an exchange has to ask for targets (§4.3). */
  sendTargetsOnly: boolean;
}

export class TextExchange {
  readonly #services: TextServices;
  #incoming: Buffer[] = [];
  #incomingBytes = 0;
  /** What is left of an answer that doesn't fit in one PDU. */
  #rest: Buffer | undefined;
  /** The tag under which the initiator continues; TAG_NONE: no exchange is open. */
  #ttt = TAG_NONE;
  /** The initiator's tag of the open exchange (§11.10.3). */
  #itt = TAG_NONE;
  /** SendTargets has come in this exchange. */
  #asked = false;

  constructor(services: TextServices) {
    this.#services = services;
  }

  /** The initiator's tag of the exchange that is open; undefined: none is. */
  get openTag(): number | undefined {
    return this.#ttt === TAG_NONE ? undefined : this.#itt;
  }

  request(pdu: Pdu): TextOutcome {
    const { view, at } = pdu;
    const flags = pdu.buffer[at + 1];
    const final = (flags & FINAL) !== 0;
    const more = (flags & CONTINUE) !== 0;
    const itt = view.getUint32(at + 16);
    const ttt = view.getUint32(at + 20);
    if (itt === TAG_NONE || (final && more)) return this.#refuse(REJECT.PROTOCOL_ERROR);
    // A request without a tag begins a new exchange and ends an open one (§11.10.4).
    if (ttt === TAG_NONE) this.#reset();
    else if (ttt !== this.#ttt || itt !== this.#itt) return this.#refuse(REJECT.INVALID_PDU_FIELD);

    this.#itt = itt;

    if (this.#rest !== undefined) {
      if (pdu.dataBytes > 0) return this.#refuse(REJECT.PROTOCOL_ERROR);
      return this.#send(itt, this.#rest, final);
    }
    this.#incomingBytes += pdu.dataBytes;
    if (this.#incomingBytes > REQUEST_BYTES_MAX) return this.#refuse(REJECT.PROTOCOL_ERROR);
    // Empty ones may come without end: they must not even cost an entry.
    if (pdu.dataBytes > 0)
      this.#incoming.push(Buffer.from(pdu.buffer.subarray(pdu.dataAt, pdu.dataAt + pdu.dataBytes)));
    if (more) return this.#send(itt, EMPTY, false);
    return this.#answer(itt, final);
  }

  #answer(itt: number, final: boolean): TextOutcome {
    const text = Buffer.concat(this.#incoming);
    this.#incoming = [];
    this.#incomingBytes = 0;
    const { negotiation, sendTargets, sendTargetsOnly } = this.#services;
    const reply: [string, string][] = [];
    try {
      const pairs = parseText(text);
      this.#asked ||= pairs.some(([key]) => key === 'SendTargets');
      if (sendTargetsOnly && !this.#asked) return this.#refuse(REJECT.PROTOCOL_ERROR);
      for (const [key, value] of pairs) {
        if (key === 'SendTargets') {
          negotiation.propose(key, value);
          const targets = sendTargets(value);
          if (targets === undefined) reply.push([key, 'Reject']);
          else reply.push(...targets);
          continue;
        }
        const answer = negotiation.offer(key, value, 'full-feature');
        if (answer !== undefined) reply.push([key, answer]);
      }
    } catch (error) {
      if (error instanceof TextError || error instanceof NegotiationError)
        return this.#refuse(REJECT.PROTOCOL_ERROR);
      throw error;
    }
    return this.#send(itt, formatText(reply), final);
  }

  /** Sends as much as fits; what remains waits for the initiator's empty request (§6.3). */
  #send(itt: number, text: Buffer, final: boolean): TextOutcome {
    const room = this.#services.sendSegmentBytes();
    const data = text.subarray(0, room);
    const more = text.length > room;
    const ends = final && !more;
    this.#rest = more ? text.subarray(room) : undefined;
    if (ends) {
      this.#ttt = TAG_NONE;
      this.#asked = false;
    } else if (this.#ttt === TAG_NONE) this.#ttt = this.#services.takeTransferTag();
    return {
      kind: 'answer',
      answer: { final: ends, flags: more ? CONTINUE : 0, itt, ttt: this.#ttt, data },
      // Only the end of the exchange makes the new values hold, on both sides at once (§6.4).
      renegotiated: ends && this.#services.negotiation.settle(),
    };
  }

  #refuse(reason: number): TextOutcome {
    this.#reset();
    return { kind: 'reject', reason };
  }

  #reset(): void {
    this.#incoming = [];
    this.#incomingBytes = 0;
    this.#rest = undefined;
    this.#ttt = TAG_NONE;
    this.#asked = false;
    this.#services.negotiation.restart();
  }
}

const EMPTY = Buffer.alloc(0);
