/**
 * Asynchronous messages (RFC 7143 §11.9): what the target tells an initiator without having been asked.
 *
 * Each carries a StatSN, so none may get lost or come twice; but none is worth memory for a peer that doesn't read.
 */
import { ASYNC_EVENT, RESPONSE, TAG_NONE } from './constants.js';
import type { AnswerFields } from './pdu.js';

/** SCSI events that wait for the end of the current callbacks; what exceeds it stays a pending unit attention only. */
const EVENTS_MAX = 16;

/** The way to the initiator. */
export interface MessageSink {
  /** Sends a status-bearing PDU with the next StatSN. */
  send(fields: AnswerFields): void;
  /** The connection is over, or logged out. */
  readonly over: boolean;
  /** The peer doesn't take what is sent. */
  readonly blocked: boolean;
}

interface ScsiEvent {
  lun: number;
  sense: Buffer;
}

export class AsyncMessages {
  readonly #sink: MessageSink;
  #events: ScsiEvent[] = [];
  /** Logical units whose end of tasks was told in this turn. */
  #told = new Set<string>();

  constructor(sink: MessageSink) {
    this.#sink = sink;
  }

  /**
   * Event 0: a unit attention has come up for the initiator (§11.9.1, §11.9.4). Sent when the current callbacks are
   * over, since the one that established it may be in the midst of a PDU of this connection.
   */
  scsiEvent(lun: number, sense: Buffer): void {
    if (this.#events.length >= EVENTS_MAX || this.#sink.blocked) return;
    if (this.#events.length === 0) setImmediate(this.#sendEvents);
    this.#events.push({ lun, sense: Buffer.from(sense) });
  }

  readonly #sendEvents = (): void => {
    const events = this.#events;
    this.#events = [];
    for (const { lun, sense } of events) {
      const data = Buffer.alloc(2 + sense.length);
      data.writeUInt16BE(sense.length);
      sense.copy(data, 2);
      // SAM-6 §4.7: peripheral device addressing, LUNs below 256.
      this.#message(ASYNC_EVENT.SCSI, { lunHigh: lun << 16, data });
    }
  };

  /** Event 1: the initiator is to log out within that many seconds. */
  logoutRequest(withinSeconds: number): void {
    this.#message(ASYNC_EVENT.LOGOUT_REQUEST, { third: withinSeconds });
  }

  /**
   * Event 2: this connection is about to be dropped, or another one of the session is gone; the initiator may come back after `time2Wait` seconds, and has
   * `time2Retain` seconds from then on to reassign its tasks. 0: they end at once.
   */
  connectionDropping(cid: number, time2Wait: number, time2Retain: number): void {
    this.#message(ASYNC_EVENT.CONNECTION_DROP, { first: cid, second: time2Wait, third: time2Retain });
  }

  /** Event 3: all connections of the session are about to be dropped. */
  sessionDropping(time2Wait: number): void {
    this.#message(ASYNC_EVENT.SESSION_DROP, { second: time2Wait });
  }

  /** Event 5: the tasks of the logical unit are over, so no more data is wanted (§4.2.3.4 d); once for all of them. */
  tasksTerminated(lunHigh: number, lunLow: number): void {
    const unit = `${lunHigh}:${lunLow}`;
    if (this.#told.has(unit)) return;
    if (this.#told.size === 0) setImmediate(() => this.#told.clear());
    this.#told.add(unit);
    this.#message(ASYNC_EVENT.TASKS_TERMINATED, { lunHigh, lunLow });
  }

  #message(
    event: number,
    {
      lunHigh = 0,
      lunLow = 0,
      first = 0,
      second = 0,
      third = 0,
      data,
    }: {
      lunHigh?: number;
      lunLow?: number;
      first?: number;
      second?: number;
      third?: number;
      data?: Buffer;
    },
  ): void {
    if (this.#sink.over) return;
    this.#sink.send({
      opcode: RESPONSE.ASYNC_MESSAGE,
      lunHigh,
      lunLow,
      itt: TAG_NONE,
      words: [((event << 24) | (first & 0xffff)) >>> 0, ((second << 16) | (third & 0xffff)) >>> 0, 0],
      ...(data === undefined ? {} : { data }),
    });
  }
}
