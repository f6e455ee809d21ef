/**
 * Error recovery within a connection (RFC 7143 §7.1.4, §7.2, §7.8, §7.9, §11.16), for one connection of a session of level
 * 1 or above: SNACK requests are answered from what is retained, Data-Out that doesn't come is asked for again, and an
 * initiator that may have missed a status is told its number by a NOP-In.
 */
import { REJECT, RESPONSE, SNACK } from './constants.js';
import type { IscsiTask } from './iscsi-task.js';
import type { Pdu } from './pdu.js';
import { PROTOCOL_SENSE } from './protocol-sense.js';
import { isWhole, resend, resendData, resendResponse } from './resend.js';
import { nextNumber, type KeptTask, type Retained } from './retained.js';
import { serialAdd, serialDistance } from './serial.js';
import type { Session } from './session.js';
import type { TaskHost } from './task-host.js';

/** How often what is overdue is looked for. */
const TICK_MS = 250;
/** A status that is not acknowledged for so long may not have arrived; asked ever more seldom after that. */
const STATUS_OVERDUE_MS = 1000;
const STATUS_OVERDUE_MS_MAX = 16_000;

/** The full feature phase as this file sees it. */
export interface RecoveringPhase extends TaskHost {
  /** `nextDataSN`: of a Data/R2T SNACK, the number that the target would send next for the task (§11.17.2). */
  reject(reason: number, pdu: Pdu, nextDataSN?: number): void;
  /** Ends a task with sense data of this layer. */
  abandon(task: IscsiTask, sense: Buffer): void;
  ping(): void;
  /** What the initiator sends is not read. */
  readonly stalled: boolean;
}

export class Recovery {
  readonly #phase: RecoveringPhase;
  readonly #session: Session;
  readonly retained: Retained;
  readonly #timer: NodeJS.Timeout;
  #askedMs = 0;
  /** When something was last not read: what is missing until then may wait in the socket. */
  #stalledMs = -Infinity;
  #patienceMs = STATUS_OVERDUE_MS;

  constructor(phase: RecoveringPhase, session: Session, retained: Retained) {
    this.#phase = phase;
    this.#session = session;
    this.retained = retained;
    this.#timer = setInterval(() => this.#tick(performance.now()), TICK_MS);
    this.#timer.unref();
  }

  /** ExpStatSN of a PDU that came. */
  acknowledge(expStatSN: number): void {
    const before = this.retained.acknowledged;
    this.retained.acknowledge(expStatSN, this.#phase.peekStatSN());
    if (this.retained.acknowledged !== before) this.#patienceMs = STATUS_OVERDUE_MS;
  }

  /** SNACK Request (§11.16). */
  snack(pdu: Pdu): void {
    const { view, at } = pdu;
    const type = pdu.buffer[at + 1] & 0x0f;
    const tag = view.getUint32(at + 20);
    const begin = view.getUint32(at + 40);
    const run = view.getUint32(at + 44);
    const kept = this.retained.task(view.getUint32(at + 16));
    let refused: number | undefined;
    if (type === SNACK.DATA_OR_R2T) refused = this.#numbered(view.getUint32(at + 16), kept, begin, run);
    else if (type === SNACK.STATUS) refused = this.#statuses(begin, run);
    else if (type === SNACK.DATA_ACK)
      refused = run === 0 && this.retained.acknowledgeData(tag, begin) ? undefined : REJECT.INVALID_DATA_ACK;
    else if (type === SNACK.R_DATA) refused = this.#cutAnew(kept, tag, begin, run);
    else refused = REJECT.PROTOCOL_ERROR;
    const numbered = type === SNACK.DATA_OR_R2T && refused === REJECT.PROTOCOL_ERROR;
    if (refused !== undefined)
      this.#refuse(refused, pdu, numbered && kept !== undefined ? nextNumber(kept) : 0);
  }

  /** What is no longer kept can't be sent: a task that has no status yet fails for that (§7.8). */
  #refuse(reason: number, pdu: Pdu, nextDataSN: number): void {
    this.#phase.reject(reason, pdu, nextDataSN);
    if (reason !== REJECT.SNACK_REJECT) return;
    const task = this.#session.tasks.get(pdu.view.getUint32(pdu.at + 16));
    if (task?.host !== this.#phase) return;
    if (task.held) task.failHeld(PROTOCOL_SENSE.SNACK_REJECTED);
    else this.#phase.abandon(task, PROTOCOL_SENSE.SNACK_REJECTED);
  }

  /** Data-In or R2T PDUs as they were. */
  #numbered(itt: number, kept: KeptTask | undefined, begin: number, run: number): number | undefined {
    if (kept === undefined) {
      // A task that has sent nothing yet has nothing unacknowledged.
      const nothing = begin === 0 && run === 0 && this.#session.tasks.has(itt);
      return nothing ? undefined : REJECT.PROTOCOL_ERROR;
    }
    const next = nextNumber(kept);
    const from = begin === 0 && run === 0 ? kept.first : begin;
    const end = run === 0 ? next : from + run;
    if (from < kept.first || from > end || end > next) return REJECT.PROTOCOL_ERROR;
    if (from === end) return undefined;
    const start = kept.first + kept.missing;
    if (from < start) return REJECT.SNACK_REJECT;
    const wanted = kept.pdus.slice(from - start, end - start);
    // Whoever takes less than before has to ask for a new cut (§11.16.3).
    const { sendSegmentBytes } = this.#phase;
    if (wanted.some((pdu) => pdu.readUIntBE(5, 3) > sendSegmentBytes)) return REJECT.PROTOCOL_ERROR;
    for (const pdu of wanted) resend(this.#phase, pdu);
    return undefined;
  }

  /** Numbered responses. */
  #statuses(begin: number, run: number): number | undefined {
    const { acknowledged } = this.retained;
    const next = this.#phase.peekStatSN();
    const from = begin === 0 && run === 0 ? acknowledged : begin;
    const end = run === 0 ? next : serialAdd(from, run);
    if (
      serialDistance(from, acknowledged) < 0 ||
      serialDistance(end, next) > 0 ||
      serialDistance(end, from) < 0
    )
      return REJECT.PROTOCOL_ERROR;
    const wanted: Buffer[] = [];
    for (let statSN = from; statSN !== end; statSN = serialAdd(statSN, 1)) {
      const status = this.retained.status(statSN);
      if (status === undefined) return REJECT.SNACK_REJECT;
      wanted.push(status.pdu);
    }
    for (const pdu of wanted) resend(this.#phase, pdu);
    return undefined;
  }

  /** R-Data: all unacknowledged data cut anew, and the response under the tag of the request (§11.16.3). */
  #cutAnew(kept: KeptTask | undefined, tag: number, begin: number, run: number): number | undefined {
    if (kept === undefined || begin !== 0 || run !== 0 || tag === 0xffffffff || tag === 0)
      return REJECT.PROTOCOL_ERROR;
    // It is for data of reads: R2Ts are asked for by Data/R2T SNACK (§11.16.1).
    if (kept.pdus.some((pdu) => pdu[0] === RESPONSE.R2T)) return REJECT.PROTOCOL_ERROR;
    if (!isWhole(kept)) return REJECT.SNACK_REJECT;
    const { statSN } = kept;
    const response = statSN === undefined ? undefined : this.retained.status(statSN)?.pdu;
    kept.snackTag = tag;
    resendData(this.#phase, this.retained, kept);
    if (statSN !== undefined && response !== undefined)
      resendResponse(this.#phase, this.retained, kept, response, statSN);
    return undefined;
  }

  #tick(nowMs: number): void {
    const { tasks } = this.#session;
    if (this.#phase.stalled) this.#stalledMs = nowMs;
    for (const task of [...tasks.values()]) {
      // The end of one starts those that waited for it, and these may have ended, too.
      if (tasks.get(task.itt) !== task || task.host !== this.#phase || !task.out.expectsMore()) continue;
      if (task.out.overdue(nowMs, this.#stalledMs) !== undefined)
        this.#phase.abandon(task, PROTOCOL_SENSE.SERVICE_CRC_ERROR);
    }
    const since = this.retained.waitingSinceMs;
    if (since === undefined || this.#phase.transmit.blocked) return;
    if (nowMs - since < STATUS_OVERDUE_MS || nowMs - this.#askedMs < this.#patienceMs) return;
    this.#askedMs = nowMs;
    this.#patienceMs = Math.min(2 * this.#patienceMs, STATUS_OVERDUE_MS_MAX);
    this.#phase.ping();
  }

  /** The connection is gone. */
  close(): void {
    clearInterval(this.#timer);
  }
}
