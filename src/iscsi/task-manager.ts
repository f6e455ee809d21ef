/**
 * Task management functions of one session (RFC 7143 §4.2.3, §11.5, §11.6; RFC 7144 §4).
 *
 * Functions that end many tasks have two semantics, by TaskReporting (§13.23):
 *
 *                                        standard (§4.2.3.3)                   FastAbort (§4.2.3.4)
 *   commands numbered before it          are waited for                        are waited for
 *   data that R2Ts of ours asked for     are waited for, then the response     are not; they are dropped when they come
 *   other sessions                       find a unit attention                 are told by asynchronous event 5, too
 *   other connections of the session     go on                                 are told by asynchronous event 5
 *
 * A wait has a limit: Linux by default answers no R2T once it has sent a reset, whatever was negotiated, and must not
 * hang on that.
 */
import { TASK_MANAGEMENT, TASK_MANAGEMENT_RESPONSE } from '../scsi/port.js';
import { IMMEDIATE, RESPONSE } from './constants.js';
import type { IscsiTask } from './iscsi-task.js';
import type { Pdu } from './pdu.js';
import { reassignment, repeatStatus, type NewHost } from './reassign.js';
import { serialDistance } from './serial.js';
import type { Session } from './session.js';
import type { TaskHost } from './task-host.js';
import type { MessageSink } from './async-messages.js';

/** Longest wait for commands or data before a function goes on without them. */
const WAIT_MS = 1000;
/** Functions that wait at once; more go on without waiting. */
const WAITING_MAX = 64;
/** Functions of a session that the medium, data or a fence keeps; of more none is begun (they are answered as rejected). */
const UNDER_WAY_MAX = 512;
/** From this iSCSIProtocolLevel on, RFC 7144's task management functions may be used (RFC 7144 §7.1.1). */
const PROTOCOL_LEVEL_RFC7144 = 2;

const {
  ABORT_TASK,
  ABORT_TASK_SET,
  CLEAR_TASK_SET,
  I_T_NEXUS_RESET,
  LOGICAL_UNIT_RESET,
  QUERY_TASK,
  TARGET_COLD_RESET,
  TARGET_WARM_RESET,
  TASK_REASSIGN,
} = TASK_MANAGEMENT;
const { FUNCTION_COMPLETE, NOT_SUPPORTED, REJECTED, TASK_DOES_NOT_EXIST } = TASK_MANAGEMENT_RESPONSE;

/** Functions that end several tasks, by what they reach. */
const REACH: ReadonlyMap<number, 'unit' | 'nexus' | 'target'> = new Map([
  [ABORT_TASK_SET, 'unit'],
  [CLEAR_TASK_SET, 'unit'],
  [LOGICAL_UNIT_RESET, 'unit'],
  [I_T_NEXUS_RESET, 'nexus'],
  [TARGET_WARM_RESET, 'target'],
  [TARGET_COLD_RESET, 'target'],
]);

const NONE: ReadonlySet<IscsiTask> = new Set();
/** Functions that end the session, so that nothing is behind their response. */
const ENDS_SESSION: ReadonlySet<number> = new Set([TARGET_COLD_RESET, I_T_NEXUS_RESET]);

/** A request, read out of its PDU. */
interface Request {
  /** The connection that it came by and is answered on. */
  phase: ManagedPhase;
  functionCode: number;
  itt: number;
  cmdSN: number;
  lunHigh: number;
  lunLow: number;
  referenced: number;
}

/** A function that waits for the commands before it. */
interface Early {
  readonly request: Request;
  readonly timer: NodeJS.Timeout;
}

/** The full feature phase as this file sees it. */
export interface ManagedPhase extends MessageSink, NewHost {
  targetWasReset(): void;
  nexusWasReset(): void;
}

export class TaskManager {
  readonly #session: Session;
  #early: Early[] = [];
  /** Who waits for the data of a target transfer tag whose task was aborted. */
  readonly #late = new Map<number, () => void>();
  readonly #timers = new Set<NodeJS.Timeout>();
  #underWay = 0;
  /** Tags of the functions that have not been answered. */
  readonly #tags = new Set<number>();

  constructor(session: Session) {
    this.#session = session;
  }

  /** Task Management Function Request (§11.5). */
  request(pdu: Pdu, phase: ManagedPhase): void {
    const { view, at } = pdu;
    const functionCode = pdu.buffer[at + 1] & 0x7f;
    const cmdSN = view.getUint32(at + 24);
    const request: Request = {
      phase,
      functionCode,
      itt: view.getUint32(at + 16),
      cmdSN,
      lunHigh: view.getUint32(at + 8),
      lunLow: view.getUint32(at + 12),
      referenced: view.getUint32(at + 20),
    };
    this.#tags.add(request.itt);
    const { protocolLevel } = phase.parameters;
    if (functionCode > TASK_REASSIGN && protocolLevel < PROTOCOL_LEVEL_RFC7144)
      this.#respond(request, NOT_SUPPORTED);
    else if (this.#underWay >= UNDER_WAY_MAX || this.#namesNoTask(request)) this.#respond(request, REJECTED);
    else if (functionCode === TASK_REASSIGN) this.#reassign(request, view.getUint32(at + 36));
    else if (functionCode === ABORT_TASK) this.#abortTask(request, view.getUint32(at + 32));
    else {
      const reach = REACH.get(functionCode);
      const immediate = (pdu.buffer[at] & IMMEDIATE) !== 0;
      if (reach === undefined || !immediate) this.#perform(request);
      else this.#afterCommands(request, reach === 'target');
    }
  }

  /** True while a function with this tag is under way. */
  has(itt: number): boolean {
    return this.#tags.has(itt);
  }

  /**
   * Another task management function is not to be aborted or queried (§11.5.1, RFC 7144 §6.3); nor are that, a text
   * negotiation or a logout to be reassigned.
   */
  #namesNoTask({ functionCode, referenced }: Request): boolean {
    if (functionCode === TASK_REASSIGN) return this.#session.hasRequest(referenced);
    return (functionCode === ABORT_TASK || functionCode === QUERY_TASK) && this.#tags.has(referenced);
  }

  #reassign(request: Request, expDataSN: number): void {
    const { phase, referenced } = request;
    const { response, proceed } = reassignment(this.#session, phase, referenced, expDataSN);
    this.#respond(request, response);
    proceed?.();
  }

  #abortTask(request: Request, refCmdSN: number): void {
    const { referenced, cmdSN } = request;
    const task = this.#session.tasks.get(referenced);
    if (task === undefined) {
      repeatStatus(this.#session, request.phase, referenced);
      const counts = this.#session.order.abort(referenced, refCmdSN, cmdSN);
      this.#respond(request, counts ? FUNCTION_COMPLETE : TASK_DOES_NOT_EXIST);
    } else if (task.lunHigh !== request.lunHigh || task.lunLow !== request.lunLow) {
      this.#perform(request);
    } else if (task.held) {
      // Ended already; only its status waits for data that the initiator now won't send.
      task.abandonHeld();
      this.#respond(request, FUNCTION_COMPLETE);
    } else {
      task.withdrawRefusal();
      this.#perform(request);
    }
  }

  /**
   * An immediate function concerns the commands numbered before it, also those that are not here yet (§4.2.3.3 b); for
   * a reset of the target they count as received (the same clause). Where they don't come, what waits for them ends.
   */
  #afterCommands(request: Request, plugs: boolean): void {
    const session = this.#session;
    const { cmdSN } = request;
    const missing = serialDistance(cmdSN, session.expCmdSN);
    if (missing <= 0 || missing > session.window || this.#early.length >= WAITING_MAX) {
      this.#perform(request);
      return;
    }
    const withoutThem = (): void => {
      if (!this.#perform(request)) return;
      if (plugs) session.order.plug(cmdSN);
      session.order.end(cmdSN, ({ view, at }) =>
        isAbout(request, { lunHigh: view.getUint32(at + 8), lunLow: view.getUint32(at + 12) }),
      );
    };
    if (plugs) {
      withoutThem();
      return;
    }
    const timer = this.#timer(() => {
      this.#early = this.#early.filter((one) => one.timer !== timer);
      withoutThem();
    });
    this.#early.push({ request, timer });
  }

  /** True while a function waits for commands. */
  get waits(): boolean {
    return this.#early.length > 0;
  }

  /** ExpCmdSN has moved on. */
  commandsArrived(): void {
    const { expCmdSN } = this.#session;
    const ready = this.#early.filter(({ request }) => serialDistance(request.cmdSN, expCmdSN) <= 0);
    if (ready.length === 0) return;
    this.#early = this.#early.filter((one) => !ready.includes(one));
    for (const { request, timer } of ready) {
      this.#stopTimer(timer);
      this.#perform(request);
    }
  }

  /** False if the function was refused at once. */
  #perform(request: Request): boolean {
    const session = this.#session;
    const { phase, functionCode, lunHigh, lunLow, referenced } = request;
    const named = functionCode === ABORT_TASK || functionCode === QUERY_TASK;
    const spared = this.#overtaking(request);
    const affected = this.#affected(request).filter((task) => !spared.has(task));
    const owed = this.#owedTags(request, affected);
    const held = affected.filter((task) => task.held || task.refused).map(({ itt }) => itt);
    const task = named ? session.tasks.get(referenced) : undefined;
    let refused = false;
    const ended = (response: number, additional: number): void => {
      const complete = response === FUNCTION_COMPLETE;
      refused = !complete;
      if (complete) this.#abandon(held);
      this.#whenTaken(owed, () => {
        this.#respondInOrder(request, response, additional);
        if (!complete) return;
        if (functionCode === TARGET_COLD_RESET) phase.targetWasReset();
        if (functionCode === I_T_NEXUS_RESET) phase.nexusWasReset();
      });
    };
    this.#underWay++;
    session.endsOwnTasks(
      () =>
        session.target.port.manage(
          { nexus: session.nexus, function: functionCode, lunHigh, lunLow, task, spared },
          ended,
        ),
      REACH.has(functionCode) ? phase : undefined,
    );
    return !refused;
  }

  /** The SCSI layer knows no more of what has failed and only waits to say so; behind the response it may not (§11.6). */
  #abandon(tags: readonly number[]): void {
    for (const itt of tags) {
      const task = this.#session.tasks.get(itt);
      if (task?.held === true) task.abandonHeld();
    }
  }

  /** Commands numbered behind a function that they have overtaken on another connection (§4.2.2.1). */
  #overtaking({ phase, functionCode, cmdSN }: Request): ReadonlySet<IscsiTask> {
    if (!REACH.has(functionCode)) return NONE;
    const isBehind = ({ host, immediate, cmdSN: its }: IscsiTask): boolean =>
      host !== phase && !immediate && serialDistance(its, cmdSN) >= 0;
    return new Set([...this.#session.tasks.values()].filter(isBehind));
  }

  /** Tasks of this session that a function for many tasks ends. */
  #affected(request: Request): IscsiTask[] {
    if (!REACH.has(request.functionCode)) return [];
    return [...this.#session.tasks.values()].filter((task) => isAbout(request, task));
  }

  /** Target transfer tags whose data the initiator still owes (§4.2.3.3 a). */
  #owedTags({ phase }: Request, tasks: readonly IscsiTask[]): number[] {
    if (phase.parameters.taskReporting === 'FastAbort') return [];
    // By a connection that is gone no data will come.
    return tasks.filter(({ host }) => !host.over).flatMap((task) => task.out.openTags());
  }

  #whenTaken(tags: readonly number[], done: () => void): void {
    const owed = new Set(tags);
    if (owed.size === 0) {
      done();
      return;
    }
    const finish = (): void => {
      this.#stopTimer(timer);
      for (const tag of tags) this.#late.delete(tag);
      done();
    };
    const timer = this.#timer(finish);
    for (const tag of tags)
      this.#late.set(tag, () => {
        owed.delete(tag);
        if (owed.size === 0) finish();
      });
  }

  /** The last data of a sequence came whose task is gone: they are dropped, but may have been waited for. */
  lateData(tag: number): void {
    this.#late.get(tag)?.();
  }

  #respond({ phase, itt }: Request, response: number): void {
    this.#tags.delete(itt);
    if (phase.over) return;
    this.#send(phase, itt, response, 0);
  }

  /** The response to a function for many tasks wants a fence (§4.2.2.3.4), but where all connections end with it. */
  #respondInOrder(request: Request, response: number, additional: number): void {
    const { phase, functionCode, itt } = request;
    const wantsFence =
      response === FUNCTION_COMPLETE && REACH.has(functionCode) && !ENDS_SESSION.has(functionCode);
    const send = (): ManagedPhase | undefined => {
      this.#underWay--;
      this.#tags.delete(itt);
      if (phase.over) return undefined;
      this.#send(phase, itt, response, additional);
      return phase;
    };
    const { fence } = phase;
    if (fence === undefined) send();
    else fence.pass({ wantsFence, send });
  }

  /** Task Management Function Response (§11.6); `additional`: response information of three bytes (RFC 7144 §6.4.1). */
  #send(phase: ManagedPhase, itt: number, response: number, additional: number): void {
    phase.send({
      opcode: RESPONSE.TASK_MANAGEMENT,
      detail: response << 8,
      itt,
      lunHigh: (additional << 8) >>> 0,
    });
  }

  #timer(expired: () => void): NodeJS.Timeout {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      expired();
    }, WAIT_MS);
    this.#timers.add(timer);
    return timer;
  }

  #stopTimer(timer: NodeJS.Timeout): void {
    clearTimeout(timer);
    this.#timers.delete(timer);
  }

  /** A connection is gone, and with it what came by it and waits for commands: it was immediate (§7.14). */
  drop(host: TaskHost): void {
    for (const { request, timer } of this.#early) {
      if (request.phase !== host) continue;
      this.#stopTimer(timer);
      this.#tags.delete(request.itt);
    }
    this.#early = this.#early.filter(({ request }) => request.phase !== host);
  }

  /** The session is over. */
  close(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    this.#early = [];
    this.#tags.clear();
    this.#late.clear();
  }
}

/** True of what a function for many tasks reaches in its session, by LUN. */
function isAbout(
  { functionCode, lunHigh, lunLow }: Request,
  to: Pick<Request, 'lunHigh' | 'lunLow'>,
): boolean {
  return REACH.get(functionCode) !== 'unit' || (to.lunHigh === lunHigh && to.lunLow === lunLow);
}
