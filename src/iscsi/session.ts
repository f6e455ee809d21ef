/**
 * A normal session (RFC 7143 §4.2.2, §4.3): its identity, its I_T nexus, the command window and the tasks in flight.
 */
import type { Nexus } from '../scsi/nexus.js';
import { TASK_MANAGEMENT } from '../scsi/port.js';
import { CommandOrder, type Carrier } from './command-order.js';
import { whenAllEnd } from './countdown.js';
import { LostConnections } from './lost-connections.js';
import type { Negotiation } from './negotiation.js';
import type { IscsiTask } from './iscsi-task.js';
import type { IscsiTargetOptions } from './options.js';
import { ResponseFence } from './response-fence.js';
import { serialAdd, serialDistance } from './serial.js';
import type { TaskHost } from './task-host.js';
import { TaskManager } from './task-manager.js';

export interface SessionIdentity {
  initiatorName: string;
  /** Six bytes in hexadecimal (§11.12.5). */
  isid: string;
  portalGroupTag: number;
  user: string | undefined;
}

/** The leading login of a session. */
export interface SessionLogin {
  identity: SessionIdentity;
  target: IscsiTargetOptions;
  cmdSN: number;
  negotiation: Negotiation;
}

/** What a session needs of a connection that carries it. */
export interface SessionConnection {
  /** Connection identifier (§11.12.6). */
  readonly cid: number;
  readonly remoteAddress: string;
  /** What its tasks and waiting commands belong to; undefined before the full feature phase. */
  readonly host: (TaskHost & Carrier) | undefined;
  /** The peer doesn't take what is sent. */
  readonly blocked: boolean;
  /** What the peer sends is not read now. */
  readonly stalled: boolean;
  /** The initiator has logged it out: it has done with its tasks. */
  readonly loggedOut: boolean;
  /** A unit attention has come up for the nexus: tells the initiator (asynchronous event 0, §11.9.1). */
  scsiEvent(lun: number, sense: Buffer): void;
  /** Tells the initiator that its session is about to end (event 3). */
  announceEnd(): void;
  /** Tells the initiator that another connection of the session is gone (event 2). */
  announceLoss(cid: number): void;
  /** Closes the connection; its session, if it still has one, has been detached from it. */
  drop(why: string): void;
}

export class Session {
  readonly tsih: number;
  readonly identity: SessionIdentity;
  readonly target: IscsiTargetOptions;
  readonly nexus: Nexus;
  /** Of the leading login: session-wide keys hold for every connection. */
  readonly negotiation: Negotiation;
  readonly since = new Date();
  /** By CID. */
  readonly connections = new Map<number, SessionConnection>();
  /** Connections that are gone and whose tasks live on (error recovery level 2). */
  readonly lost: LostConnections = new LostConnections({
    has: (host) => this.hasTasks(host),
    end: (host, begun) => this.#endTasks(host, begun),
  });
  readonly order: CommandOrder = new CommandOrder(this);
  readonly fence: ResponseFence = new ResponseFence(() =>
    [...this.connections.values()].flatMap(({ host }) => host ?? []),
  );
  readonly manager: TaskManager = new TaskManager(this);

  /** Tasks that didn't end within their submit, by ITT. */
  readonly tasks = new Map<number, IscsiTask>();
  expCmdSN: number;
  #maxCmdSN: number;
  /** Commands that may be outstanding. */
  readonly window: number;
  #transferTag = 0;
  readonly #fencesWanted: boolean;
  #endingOwnTasks = false;
  /** By which of its connections a function came that ends many tasks, while it does. */
  #issuer: TaskHost | undefined;
  #missing: { readonly cmdSN: number; readonly sinceMs: number } | undefined;
  /** All its connections are to go, so that none is worth recovering. */
  #ending = false;

  constructor(tsih: number, login: SessionLogin, nexus: Nexus, window: number) {
    this.tsih = tsih;
    this.identity = login.identity;
    this.target = login.target;
    this.negotiation = login.negotiation;
    this.nexus = nexus;
    this.expCmdSN = login.cmdSN;
    this.window = window;
    this.#maxCmdSN = serialAdd(login.cmdSN, window - 1);
    this.#fencesWanted = login.negotiation.value('TaskReporting') !== 'RFC3720';
  }

  /** True while responses may need a fence (§4.2.2.3.3): with one connection their order is enough. */
  get fences(): boolean {
    return this.fence.up || (this.connections.size > 1 && this.#fencesWanted);
  }

  /** Connections that it may have (§13.2). */
  get connectionsMax(): number {
    return Number(this.negotiation.value('MaxConnections') ?? 1);
  }

  /** The connection for what concerns the whole session: one whose peer reads, if there is one. */
  anyConnection(): SessionConnection | undefined {
    const all = [...this.connections.values()];
    return all.find(({ blocked }) => !blocked) ?? all.at(0);
  }

  /**
   * A connection no longer belongs to the session, which goes on: its tasks end without an answer, its commands that
   * wait for their turn count as never received (§7.2.1). `done` is called when the tasks have ended.
   */
  detach(connection: SessionConnection, done: () => void = () => undefined): void {
    const { host } = connection;
    this.#leave(connection);
    if (host === undefined) {
      done();
      return;
    }
    this.order.drop(host);
    whenAllEnd((one) => this.#endTasks(host, one), done);
  }

  #leave(connection: SessionConnection): void {
    const { cid } = connection;
    if (this.connections.get(cid) === connection) this.connections.delete(cid);
    const { host } = connection;
    if (host === undefined) return;
    // Its answers can't be waited for any more.
    this.fence.gone(host);
    this.manager.drop(host);
  }

  hasTasks(host: TaskHost): boolean {
    for (const task of this.tasks.values()) if (task.host === host) return true;
    return false;
  }

  /**
   * The tasks of a connection end without an answer, or some of them; `begun` is called for each that takes its time.
   */
  #endTasks(
    host: TaskHost,
    begun?: () => () => void,
    isMeant: (task: IscsiTask) => boolean = () => true,
  ): void {
    const units = new Map<string, { lunHigh: number; lunLow: number }>();
    // Newest first, so that what waits for an older one does not start because that one ends.
    for (const task of [...this.tasks.values()].reverse()) {
      // The end of one may start, and end, others.
      if (this.tasks.get(task.itt) !== task || task.host !== host || !isMeant(task)) continue;
      const { lunHigh, lunLow } = task;
      units.set(`${lunHigh}:${lunLow}`, { lunHigh, lunLow });
      if (task.held) task.abandonHeld();
      else {
        task.withdrawRefusal();
        this.abort(task, begun?.());
      }
    }
    if (this.#ending) return;
    // The next command to each logical unit is told, on whichever connection it comes (§11.14.5).
    this.endsOwnTasks(() => {
      for (const { lunHigh, lunLow } of units.values())
        this.target.port.commandsCleared(this.nexus, lunHigh, lunLow);
    });
  }

  /** True if the tasks of a connection outlive it (§7.1.5, §13.16). */
  get recoversConnections(): boolean {
    const { negotiation } = this;
    return (
      !this.#ending &&
      negotiation.value('ErrorRecoveryLevel') === 2 &&
      negotiation.value('DefaultTime2Retain') !== 0
    );
  }

  /**
   * A connection is gone, and its tasks wait to be reassigned, but for immediate ones, which end (§7.14). Its commands
   * that wait for their turn count as never received (§7.2.1). `loggedOut`: the initiator knows that it is gone.
   */
  suspend(connection: SessionConnection, loggedOut: boolean): void {
    const { cid, host, remoteAddress } = connection;
    this.#leave(connection);
    if (host === undefined) return;
    this.order.drop(host);
    this.#endTasks(host, undefined, ({ immediate }) => immediate);
    // With others left, one that the initiator knows to be gone is of use for its tasks alone.
    if (!loggedOut || this.connections.size === 0 || this.lost.hasWork(host))
      this.lost.add(cid, host, loggedOut, remoteAddress);
  }

  /** True of the tag of a task management function, a text negotiation or a logout: they are no tasks to be managed. */
  hasRequest(itt: number): boolean {
    if (this.manager.has(itt) || this.lost.hasRequest(itt)) return true;
    return [...this.connections.values()].some(({ host }) => host?.hasRequest(itt) === true);
  }

  /** A new command takes this tag, so that nobody asks any more for what an earlier one with it has sent. */
  forgetEnded(itt: number): void {
    for (const { host } of this.connections.values()) host?.retained?.forgetTag(itt);
    this.lost.forgetTag(itt);
  }

  /** ExpStatSN that another connection brings for one that is about to go (§11.12.9, §11.14.4). */
  acknowledge({ host }: SessionConnection, expStatSN: number): void {
    host?.retained?.acknowledge(expStatSN, host.peekStatSN());
  }

  /** All connections but one leave the session, which is to end with that. `done` is called when their tasks have ended. */
  dropOthers(but: number, why: string, done: () => void = () => undefined): void {
    this.#ending = true;
    const others = [...this.connections.values()].filter(({ cid }) => cid !== but);
    whenAllEnd((one) => {
      this.lost.clear(one());
      for (const other of others) {
        this.detach(other, one());
        other.drop(why);
      }
    }, done);
  }

  /** ExpCmdSN has moved on: what waited for that follows, commands and functions each in its place (§4.2.2.1). */
  catchUp(): void {
    do if (this.manager.waits) this.manager.commandsArrived();
    while (this.order.deliverNext());
  }

  /**
   * How long a command has been missing that others wait for, as far as this is asked regularly, in ms. Time is not
   * counted while it may be here and is not read, or while a lost connection may be recovered.
   */
  missesCommandMs(nowMs: number): number {
    const { expCmdSN } = this;
    const mayCome = this.lost.size > 0 || [...this.connections.values()].some(({ stalled }) => stalled);
    if (!this.order.waiting || mayCome) this.#missing = undefined;
    else if (this.#missing?.cmdSN !== expCmdSN) this.#missing = { cmdSN: expCmdSN, sinceMs: nowMs };
    return this.#missing === undefined ? 0 : nowMs - this.#missing.sinceMs;
  }

  /** Ends one task without an answer. */
  abort(task: IscsiTask, done: () => void = () => undefined): void {
    const { lunHigh, lunLow } = task;
    const request = { nexus: this.nexus, function: TASK_MANAGEMENT.ABORT_TASK, lunHigh, lunLow, task };
    this.endsOwnTasks(() => this.target.port.manage(request, done));
  }

  /** True while tasks end by the session's own request, or with it: its initiator needs no message of that. */
  get endingOwnTasks(): boolean {
    return this.#endingOwnTasks;
  }

  /** `issuer`: the connection by which its initiator has asked for the end of many tasks. */
  endsOwnTasks(action: () => void, issuer?: TaskHost): void {
    const before = { ending: this.#endingOwnTasks, issuer: this.#issuer };
    this.#endingOwnTasks = true;
    this.#issuer = issuer;
    try {
      action();
    } finally {
      this.#endingOwnTasks = before.ending;
      this.#issuer = before.issuer;
    }
  }

  /**
   * True if the end of a task of this connection is told to its initiator (FastAbort, §4.2.3.4 f): where another session
   * ends it, or a function for many tasks that came by another connection of this one.
   */
  tellsOfEnd(host: TaskHost): boolean {
    return !this.#endingOwnTasks || (this.#issuer !== undefined && this.#issuer !== host);
  }

  /** True once all its connections are to go: none may join it any more. */
  get ending(): boolean {
    return this.#ending;
  }

  /** True while something is under way that ends without the initiator, and then gives back what it holds. */
  waitsForMedium(): boolean {
    for (const task of this.tasks.values()) if (task.pending > 0) return true;
    return false;
  }

  /** Ends the tasks that only wait to report what the SCSI layer has decided, or this one has. */
  abandonHeld(): void {
    for (const task of [...this.tasks.values()])
      if (task.held) task.abandonHeld();
      else task.withdrawRefusal();
  }

  /**
   * The window that is left beside the tasks in flight. MaxCmdSN never goes back (§4.2.2.1): a smaller window shows
   * by staying where it is while ExpCmdSN moves on. `unlisted`: commands that are about to join the tasks.
   */
  maxCmdSN(unlisted = 0): number {
    const wanted = serialAdd(this.expCmdSN, this.window - 1 - this.tasks.size - unlisted);
    if (serialDistance(wanted, this.#maxCmdSN) > 0) this.#maxCmdSN = wanted;
    return this.#maxCmdSN;
  }

  /** MaxCmdSN as the initiator knows it, or will. */
  get announcedMaxCmdSN(): number {
    return this.#maxCmdSN;
  }

  /** A place has come up with a task of `host`, which said nothing itself: by a connection that lives. */
  tellWindow(host: TaskHost): void {
    const own = [...this.connections.values()].find((connection) => connection.host === host);
    (own ?? this.anyConnection())?.host?.tellNumbers();
  }

  /** True while the initiator knows of no place for a command. */
  get windowIsShut(): boolean {
    return serialDistance(this.expCmdSN, this.#maxCmdSN) > 0;
  }

  /** True if one more command could be outstanding. */
  get hasRoom(): boolean {
    return this.tasks.size < this.window;
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
