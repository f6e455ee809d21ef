/**
 * What a task needs of the connection that it came by (its allegiance, RFC 7143 §4.2.5.1): sequence numbers,
 * negotiated lengths, the send side and the memory budget.
 */
import type { Nexus } from '../scsi/nexus.js';
import type { Parameters } from './negotiation.js';
import type { IscsiTask } from './iscsi-task.js';
import type { FencedConnection, ResponseFence } from './response-fence.js';
import type { Retained } from './retained.js';
import type { Transmit } from './transmit.js';

export interface TaskHost extends FencedConnection {
  readonly transmit: Transmit;
  readonly parameters: Parameters;
  readonly nexus: Nexus;
  /** What was sent and may be asked for again; undefined at error recovery level 0. */
  readonly retained: Retained | undefined;
  /** Where responses wait for others; undefined: in this session, as it is now, none has to. */
  readonly fence: ResponseFence | undefined;
  /** Longest data segment of a Data-In to send, a multiple of 4. */
  readonly sendSegmentBytes: number;
  /** StatSN of the next status, which is counted. */
  takeStatSN(): number;
  expCmdSN(): number;
  /** MaxCmdSN to announce now. */
  maxCmdSN(): number;
  takeTransferTag(): number;
  /** Tells the initiator the command window of now, without being asked. */
  tellNumbers(): void;
  /** True while a text negotiation or a logout with this tag is under way here. */
  hasRequest(itt: number): boolean;
  /** Counts bytes that tasks hold; negative gives them back. */
  pin(bytes: number): void;
  /** The SCSI layer gives the task up: nothing more of it reaches the initiator. */
  discarded(task: IscsiTask): void;
  /** The status is about to go: the task no longer takes a place in the command window. */
  leaves(task: IscsiTask): void;
  /** The task's end was reported (or swallowed); it can be forgotten. */
  ended(task: IscsiTask): void;
}
