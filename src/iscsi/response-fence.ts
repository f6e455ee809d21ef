/**
 * Response fences between the connections of a session (RFC 7143 §4.2.2.3): where TaskReporting is ResponseFence or
 * FastAbort, a response that ends the past of many tasks has to arrive behind all that was answered before it on other
 * connections, and before all that is answered after it.
 *
 *   open ──a response that wants a fence──▶ before ──all that was sent is acknowledged──▶ it is sent: after
 *    ▲                                                                                          │
 *    └────────── what came meanwhile is sent, up to the next that wants a fence ◀──it is acknowledged
 *
 * Acknowledgements are asked for by NOP-In, which every initiator has to answer. One that answers without acknowledging
 * is waited for until WAIT_MS are over.
 */
import { serialDistance } from './serial.js';

/** Longest wait for an acknowledgement. */
const WAIT_MS = 10_000;
const UNIT_ATTENTION = 0x06;
const CHECK_CONDITION = 0x02;
const PERSISTENT_RESERVE_OUT = 0x5f;
const PREEMPT_AND_ABORT = 0x05;

/** A connection as a fence sees it. */
export interface FencedConnection {
  /** ExpStatSN that came last. */
  readonly acknowledged: number;
  /** The StatSN to be sent next. */
  peekStatSN(): number;
  /** Asks for an answer, which acknowledges. */
  ping(): void;
  /** It is gone: nothing of it will be acknowledged. */
  readonly over: boolean;
}

interface Held {
  readonly wantsFence: boolean;
  /** Sends the response, or nothing if its task is gone meanwhile; returns the connection that it went by. */
  readonly send: () => FencedConnection | undefined;
}

/** True for a status that wants a fence (§4.2.2.3.4): a unit attention, and the answer to PREEMPT AND ABORT. */
export function wantsFence(cdb: Buffer, status: number, sense: Buffer | undefined): boolean {
  if (status === CHECK_CONDITION && sense !== undefined) {
    const key = (sense[0] & 0x7f) >= 0x72 ? sense[1] : sense[2];
    return (key & 0x0f) === UNIT_ATTENTION;
  }
  return cdb[0] === PERSISTENT_RESERVE_OUT && (cdb[1] & 0x1f) === PREEMPT_AND_ABORT;
}

export class ResponseFence {
  readonly #connections: () => readonly FencedConnection[];
  /** Responses that wait, in order; the first one is the fence's own while it has not been sent. At most a window. */
  #held: Held[] = [];
  /** StatSNs that have to be acknowledged before it goes on. */
  #awaited = new Map<FencedConnection, number>();
  #sent = false;
  #timer: NodeJS.Timeout | undefined;
  up = false;

  constructor(connections: () => readonly FencedConnection[]) {
    this.#connections = connections;
  }

  /** A response in its turn: sent now, unless a fence is up or has to be put up for it. */
  pass(held: Held): void {
    if (this.up) this.#held.push(held);
    else if (held.wantsFence) this.#raise(held);
    else held.send();
  }

  #raise(held: Held): void {
    this.#putUp(held);
    this.check();
  }

  #putUp(held: Held): void {
    this.up = true;
    this.#sent = false;
    this.#held.unshift(held);
    this.#await(this.#connections());
  }

  #await(connections: readonly FencedConnection[]): void {
    this.#awaited = new Map(connections.map((connection) => [connection, connection.peekStatSN()]));
    for (const [connection, statSN] of this.#awaited)
      if (serialDistance(connection.acknowledged, statSN) < 0) connection.ping();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#awaited.clear();
      this.check();
    }, WAIT_MS);
    this.#timer.unref();
  }

  /** A connection is gone. */
  gone(connection: FencedConnection): void {
    if (this.#awaited.delete(connection)) this.check();
  }

  /** Something was acknowledged. */
  check(): void {
    while (this.up) {
      for (const [connection, statSN] of this.#awaited)
        if (!connection.over && serialDistance(connection.acknowledged, statSN) < 0) return;
      if (!this.#sent) {
        this.#sent = true;
        const by = this.#held.shift()?.send();
        this.#await(by === undefined ? [] : [by]);
      } else this.#lower();
    }
  }

  #lower(): void {
    this.#end();
    while (!this.up) {
      const next = this.#held.shift();
      if (next === undefined) return;
      if (next.wantsFence) this.#putUp(next);
      else next.send();
    }
  }

  #end(): void {
    clearTimeout(this.#timer);
    this.#awaited.clear();
    this.up = false;
  }

  /** The session is over. */
  close(): void {
    this.#end();
    this.#held = [];
  }
}
