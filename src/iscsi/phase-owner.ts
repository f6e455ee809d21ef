/**
 * What the full feature phase needs of its connection.
 */
import type { IscsiCounters } from './counters.js';
import type { Log } from './options.js';
import type { Transmit } from './transmit.js';

export interface FullFeatureOwner {
  readonly cid: number;
  readonly transmit: Transmit;
  readonly log: Log;
  readonly counters: IscsiCounters;
  /** When something was last received, by performance.now(). */
  readonly heardAtMs: number;
  /** Most bytes that are kept to be sent again. */
  readonly retainedBytesMax: number;
  /** What the peer sends is not read, until there is room for it. */
  readonly stalled: boolean;
  /** StatSN of the next status. */
  statSN: number;
  pin(bytes: number): void;
  /** Ends the connection after what is queued was sent. */
  endAfterFlush(why: string, how: 'logout' | 'connection-lost'): void;
  /** Breaks the connection off: a protocol error that can't be answered at error recovery level 0 (§7.9). */
  fail(why: string): void;
  /** Breaks the whole session off: a PDU whose fields contradict each other (§7.7). */
  formatError(why: string): void;
  /** Session-wide parameters changed by a text negotiation. */
  parametersChanged(): void;
  /** A TARGET COLD RESET is done: every session of the target ends (§11.5.1). */
  targetWasReset(): void;
}
