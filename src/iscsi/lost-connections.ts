/**
 * Connections of one session that have failed, or were logged out for recovery, and whose tasks live on (RFC 7143 §7.2.2,
 * §7.5, §11.14; error recovery level 2). Their tasks go on executing; what they would send is retained as on any connection,
 * until another connection takes the task over (reassign.ts) or the time is up.
 *
 *   failed ──logout for recovery, or a login with its CID──▶ logged out ──TASK REASSIGN of each task
 *      └────────── DefaultTime2Wait + DefaultTime2Retain ────────┴──▶ its tasks end
 */
import type { TaskHost } from './task-host.js';

export interface LostConnection {
  readonly cid: number;
  readonly host: TaskHost;
  /** Until then its tasks are still allegiant to it, and can't be reassigned. */
  loggedOut: boolean;
  timer: NodeJS.Timeout;
}

export class LostConnections {
  readonly #all = new Set<LostConnection>();
  /** Ends the tasks of a host. */
  readonly #endTasks: (host: TaskHost) => void;
  /** Called when the time of one was up. */
  onExpired: (() => void) | undefined;

  constructor(endTasks: (host: TaskHost) => void) {
    this.#endTasks = endTasks;
  }

  get size(): number {
    return this.#all.size;
  }

  add(cid: number, host: TaskHost, loggedOut: boolean): void {
    const lost: LostConnection = { cid, host, loggedOut, timer: this.#expiry(host) };
    this.#all.add(lost);
  }

  #expiry(host: TaskHost): NodeJS.Timeout {
    const { time2WaitSeconds, time2RetainSeconds } = host.parameters;
    const timer = setTimeout(
      () => {
        const lost = this.of(host);
        if (lost === undefined) return;
        this.#remove(lost);
        this.onExpired?.();
      },
      (time2WaitSeconds + time2RetainSeconds) * 1000,
    );
    timer.unref();
    return timer;
  }

  #remove(lost: LostConnection): void {
    clearTimeout(lost.timer);
    this.#all.delete(lost);
    this.#endTasks(lost.host);
  }

  of(host: TaskHost): LostConnection | undefined {
    for (const lost of this.#all) if (lost.host === host) return lost;
    return undefined;
  }

  /** Who has a finished task with this tag, whose response was not acknowledged. */
  withResponse(itt: number): LostConnection | undefined {
    for (const lost of this.#all) if (lost.host.retained?.task(itt)?.statSN !== undefined) return lost;
    return undefined;
  }

  /** Logout for recovery: the tasks may be reassigned, and the time begins anew. False if there is no such CID. */
  logOut(cid: number): boolean {
    const named = [...this.#all].filter((lost) => lost.cid === cid);
    for (const lost of named) {
      clearTimeout(lost.timer);
      lost.loggedOut = true;
      lost.timer = this.#expiry(lost.host);
    }
    return named.length > 0;
  }

  /** Logout to close: the tasks end. False if there is no such CID. */
  drop(cid: number): boolean {
    const named = [...this.#all].filter((lost) => lost.cid === cid);
    for (const lost of named) this.#remove(lost);
    return named.length > 0;
  }

  /** The oldest one goes before its time. */
  dropOldest(): void {
    for (const lost of this.#all) {
      this.#remove(lost);
      this.onExpired?.();
      return;
    }
  }

  /** All tasks end. */
  clear(): void {
    for (const lost of [...this.#all]) this.#remove(lost);
  }
}
