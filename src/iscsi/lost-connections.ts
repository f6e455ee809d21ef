/**
 * Connections of one session that have failed, or were logged out for recovery, and whose tasks live on (RFC 7143 §7.2.2,
 * §7.5, §11.14; error recovery level 2). Their tasks go on executing; what they would send is retained as on any connection,
 * until another connection takes the task over (reassign.ts) or the time is up.
 *
 *   failed ──logout for recovery, or a login with its CID──▶ logged out ──TASK REASSIGN of each task
 *      └────────── DefaultTime2Wait + DefaultTime2Retain ────────┴──▶ its tasks end
 *
 * Time2Wait is the initiator's to choose, up to an hour; of it no more than a minute counts here.
 */
import { whenAllEnd } from './countdown.js';
import type { TaskHost } from './task-host.js';

const TIME2WAIT_SECONDS_MAX = 60;

export interface LostConnection {
  readonly cid: number;
  readonly host: TaskHost;
  /** Until then its tasks are still allegiant to it, and can't be reassigned. */
  loggedOut: boolean;
  /** Where it came from. */
  readonly address: string;
  timer: NodeJS.Timeout;
}

/** What a session does with the tasks of a host. */
export interface TasksOfHost {
  /** Whether a task of it is still under way. */
  has(host: TaskHost): boolean;
  /** Ends them without an answer; `begun` is called for each that takes its time, and what it returns when that is over. */
  end(host: TaskHost, begun?: () => () => void): void;
}

export class LostConnections {
  readonly #all = new Set<LostConnection>();
  readonly #tasks: TasksOfHost;
  /** Called when there is one more. */
  onAdded: (() => void) | undefined;
  /** Called when the time of one was up. */
  onExpired: (() => void) | undefined;

  constructor(tasks: TasksOfHost) {
    this.#tasks = tasks;
  }

  get size(): number {
    return this.#all.size;
  }

  add(cid: number, host: TaskHost, loggedOut: boolean, address: string): void {
    this.prune();
    this.#all.add({ cid, host, loggedOut, address, timer: this.#expiry(host) });
    this.onAdded?.();
  }

  /** True of the tag of a text negotiation that a connection took along. */
  hasRequest(itt: number): boolean {
    return [...this.#all].some(({ host }) => host.hasRequest(itt));
  }

  /** True while a connection has something to recover. */
  hasWork(host: TaskHost): boolean {
    return this.#tasks.has(host) || host.retained?.keepsResponses === true;
  }

  /**
   * Those that the initiator knows to be gone and that have nothing to recover: only as the last of its session one is
   * kept, for the session's sake.
   */
  prune(): void {
    for (const lost of [...this.#all]) {
      if (lost.loggedOut && !this.hasWork(lost.host)) this.#remove(lost);
    }
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
      (Math.min(time2WaitSeconds, TIME2WAIT_SECONDS_MAX) + time2RetainSeconds) * 1000,
    );
    timer.unref();
    return timer;
  }

  #remove(lost: LostConnection, begun?: () => () => void): void {
    clearTimeout(lost.timer);
    this.#all.delete(lost);
    this.#tasks.end(lost.host, begun);
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

  /** A new command of the session has this tag: what an earlier one with it sent can't be meant any more. */
  forgetTag(itt: number): void {
    for (const { host } of this.#all) host.retained?.take(itt);
  }

  /**
   * Logout for recovery: the tasks may be reassigned, and the time begins anew, once. `expStatSN`: what the initiator
   * has of the connection (§11.12.9, §11.14.4). False if there is no such CID.
   */
  logOut(cid: number, expStatSN: number): boolean {
    const named = [...this.#all].filter((lost) => lost.cid === cid);
    for (const lost of named) {
      if (lost.loggedOut) continue;
      lost.host.retained?.acknowledge(expStatSN, lost.host.peekStatSN());
      clearTimeout(lost.timer);
      lost.loggedOut = true;
      lost.timer = this.#expiry(lost.host);
    }
    return named.length > 0;
  }

  /** Logout to close: the tasks end, and `done` is called when they have. False if there is no such CID. */
  drop(cid: number, done: () => void): boolean {
    const named = [...this.#all].filter((lost) => lost.cid === cid);
    if (named.length === 0) return false;
    this.#end(named, done);
    return true;
  }

  /** The tasks of those end that `loses` is true of, by their address. */
  dropFrom(loses: (address: string) => boolean): void {
    this.#end([...this.#all].filter(({ address }) => loses(address)));
  }

  #end(some: readonly LostConnection[], done: () => void = () => undefined): void {
    whenAllEnd((one) => {
      for (const lost of some) this.#remove(lost, one);
    }, done);
  }

  /** The oldest one goes before its time. */
  dropOldest(): void {
    for (const lost of this.#all) {
      this.#remove(lost);
      this.onExpired?.();
      return;
    }
  }

  /** All tasks end; `done` is called when they have. */
  clear(done?: () => void): void {
    this.#end([...this.#all], done);
  }
}
