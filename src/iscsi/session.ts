/**
 * A normal session (RFC 7143 §4.2.2, §4.3): its identity, its I_T nexus, the command window and the tasks in flight.
 */
import type { Nexus } from '../scsi/nexus.js';
import type { IscsiTask } from './iscsi-task.js';
import type { IscsiTargetOptions } from './options.js';
import { serialAdd, serialDistance } from './serial.js';

export interface SessionIdentity {
  initiatorName: string;
  /** Six bytes in hexadecimal (§11.12.5). */
  isid: string;
  portalGroupTag: number;
  user: string | undefined;
}

/** What a session needs of the connection that carries it. */
export interface SessionConnection {
  /** Connection identifier (§11.12.6). */
  readonly cid: number;
  /** Closes the connection; its session, if it still has one, has been detached from it. */
  drop(why: string): void;
}

export class Session {
  readonly tsih: number;
  readonly identity: SessionIdentity;
  readonly target: IscsiTargetOptions;
  readonly nexus: Nexus;
  readonly since = new Date();
  connection: SessionConnection | undefined;

  /** Tasks that didn't end within their submit, by ITT. */
  readonly tasks = new Map<number, IscsiTask>();
  expCmdSN: number;
  #maxCmdSN: number;
  readonly #window: number;
  #transferTag = 0;

  constructor(
    tsih: number,
    identity: SessionIdentity,
    target: IscsiTargetOptions,
    nexus: Nexus,
    cmdSN: number,
    window: number,
  ) {
    this.tsih = tsih;
    this.identity = identity;
    this.target = target;
    this.nexus = nexus;
    this.expCmdSN = cmdSN;
    this.#window = window;
    this.#maxCmdSN = serialAdd(cmdSN, window - 1);
  }

  /**
   * The window that is left beside the tasks in flight. MaxCmdSN never goes back (§4.2.2.1): a smaller window shows
   * by staying where it is while ExpCmdSN moves on.
   */
  maxCmdSN(): number {
    const wanted = serialAdd(this.expCmdSN, this.#window - 1 - this.tasks.size);
    if (serialDistance(wanted, this.#maxCmdSN) > 0) this.#maxCmdSN = wanted;
    return this.#maxCmdSN;
  }

  /** True if a command with this number may be taken now or later (§4.2.2.1); others are ignored. */
  inWindow(cmdSN: number): boolean {
    return serialDistance(cmdSN, this.expCmdSN) >= 0 && serialDistance(cmdSN, this.#maxCmdSN) <= 0;
  }

  /** A tag for an R2T or a text continuation; never the reserved one (§11.7.4). */
  takeTransferTag(): number {
    this.#transferTag = this.#transferTag >= 0xfffffffe ? 1 : this.#transferTag + 1;
    return this.#transferTag;
  }
}
