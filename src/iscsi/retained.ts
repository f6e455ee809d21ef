/**
 * What was sent on one connection and is not acknowledged yet, kept to be sent again (RFC 7143 §7.2, §11.16). Only at
 * error recovery level 1 and above; below it no connection has one of these.
 *
 *   by StatSN         every numbered response          released by ExpStatSN
 *   by ITT and        Data-In and R2T of a task        released by DataACK (§11.7.2), and with the task's status
 *   DataSN or R2TSN
 *
 * A PDU is kept as header and data, without digests and padding: those belong to the connection that it is sent on. The
 * bytes are bounded, with what it costs to keep each piece: data go first, those of the oldest task before others, and a
 * request for them is then rejected.
 */
import { BHS_BYTES } from './constants.js';
import { dataOffset } from './framing.js';
import type { Parameters } from './negotiation.js';
import { serialAdd, serialDistance } from './serial.js';

/** Responses that wait for an acknowledgement; what is beyond them has a peer that acknowledges nothing. */
const STATUSES_MAX = 4096;
/** What it costs to keep a PDU, beside its bytes, or a tag: the objects that hold it. */
const KEEPING_BYTES = 128;

/** What was sent for one task. */
export interface KeptTask {
  readonly itt: number;
  readonly lunHigh: number;
  readonly lunLow: number;
  /** The data acknowledgement reference number: the first DataSN or R2TSN that is not acknowledged (§11.5.6). */
  first: number;
  /** PDUs from `first` on that are no longer kept, for want of room. */
  missing: number;
  /** Those behind them. */
  pdus: Buffer[];
  /** StatSN of its response, once there is one. */
  statSN: number | undefined;
  /** Of the last R-Data SNACK, which its response has to carry (§11.16.3). */
  snackTag: number;
  /** Data-In were sent, not R2Ts. */
  reads: boolean;
  /** Tags of its Data-In PDUs that asked for an acknowledgement, with the DataSN that this ends before. */
  readonly tags: Map<number, number>;
}

/** DataSN or R2TSN of what a task sends next: all before it have been sent. */
export const nextNumber = ({ first, missing, pdus }: KeptTask): number => first + missing + pdus.length;

/** ExpDataSN of its response: how many Data-In PDUs there were; R2Ts don't count (§11.4.8). */
export const dataInCount = (task: KeptTask): number => (task.reads ? nextNumber(task) : 0);

const costOf = ({ length }: Buffer): number => length + KEEPING_BYTES;

interface KeptStatus {
  readonly pdu: Buffer;
  readonly task: KeptTask | undefined;
  readonly sentMs: number;
}

/** A PDU where it stands to be sent. */
export interface SentPdu {
  buffer: Buffer;
  /** Start of its header. */
  offset: number;
  dataBytes: number;
  parameters: Parameters;
}

export class Retained {
  readonly #bytesMax: number;
  #bytes = 0;
  readonly #tasks = new Map<number, KeptTask>();
  readonly #statuses = new Map<number, KeptStatus>();
  /** Tasks of which data are kept, oldest first. */
  readonly #withData = new Set<KeptTask>();
  /** Tasks by the tags of their Data-In PDUs that asked for an acknowledgement. */
  readonly #asking = new Map<number, KeptTask>();
  /** The last tag that was given up for want of room: an answer to it, or to one before it, is late and not wrong. */
  #givenUpTag: number | undefined;
  /** The oldest StatSN that is not acknowledged. */
  #acknowledged: number;

  /** `statSN`: the first one of the full feature phase. `bytesMax`: most bytes that are kept. */
  constructor(statSN: number, bytesMax: number) {
    this.#acknowledged = statSN;
    this.#bytesMax = bytesMax;
  }

  get acknowledged(): number {
    return this.#acknowledged;
  }

  /** When the oldest response that is not acknowledged was sent, by performance.now(); undefined: there is none. */
  get waitingSinceMs(): number | undefined {
    for (const { sentMs } of this.#statuses.values()) return sentMs;
    return undefined;
  }

  task(itt: number): KeptTask | undefined {
    return this.#tasks.get(itt);
  }

  /** True while the response of a task is kept. */
  get keepsResponses(): boolean {
    for (const { statSN } of this.#tasks.values()) if (statSN !== undefined) return true;
    return false;
  }

  /** The record of a task that is about to send; a task of before with the same tag has been forgotten. */
  begin(itt: number, lunHigh: number, lunLow: number): KeptTask {
    const known = this.#tasks.get(itt);
    if (known !== undefined) {
      if (known.statSN === undefined) return known;
      this.forget(known);
    }
    const task: KeptTask = {
      itt,
      lunHigh,
      lunLow,
      first: 0,
      missing: 0,
      pdus: [],
      statSN: undefined,
      snackTag: 0,
      reads: false,
      tags: new Map(),
    };
    this.#tasks.set(itt, task);
    return task;
  }

  /** Keeps a Data-In or R2T: the next one of its task. */
  keep(task: KeptTask, sent: SentPdu): void {
    const pdu = copyOf(sent);
    task.pdus.push(pdu);
    this.#withData.add(task);
    this.#bytes += costOf(pdu);
    this.#shrink();
  }

  /** The Data-In of `dataSN` asks for an acknowledgement with this tag. */
  expectAcknowledgement(tag: number, task: KeptTask, dataSN: number): void {
    task.tags.set(tag, dataSN + 1);
    this.#asking.set(tag, task);
    this.#bytes += KEEPING_BYTES;
  }

  /** Keeps a numbered response, in the place of an earlier one of the same number. */
  keepStatus(statSN: number, sent: SentPdu, task?: KeptTask): void {
    const pdu = copyOf(sent);
    const before = this.#statuses.get(statSN);
    if (before !== undefined) this.#bytes -= costOf(before.pdu);
    this.#statuses.set(statSN, { pdu, task, sentMs: before?.sentMs ?? performance.now() });
    if (task !== undefined) task.statSN = statSN;
    this.#bytes += costOf(pdu);
    if (this.#statuses.size > STATUSES_MAX)
      for (const oldest of this.#statuses.keys()) {
        this.#forgetStatus(oldest);
        break;
      }
    this.#shrink();
  }

  status(statSN: number): KeptStatus | undefined {
    return this.#statuses.get(statSN);
  }

  /** ExpStatSN came: what lies before it is acknowledged, data included (§11.7.2). `next`: the StatSN to be sent next. */
  acknowledge(expStatSN: number, next: number): void {
    if (serialDistance(expStatSN, this.#acknowledged) <= 0 || serialDistance(expStatSN, next) > 0) return;
    for (let statSN = this.#acknowledged; statSN !== expStatSN; statSN = serialAdd(statSN, 1))
      this.#forgetStatus(statSN);
    this.#acknowledged = expStatSN;
  }

  /**
   * DataACK (§11.16.1, type 2). `next`: the DataSN that the initiator expects next (§11.16.6), which may be past the one
   * behind the Data-In that asked, if it has waited with its answer. False if no Data-In asked for it, or the number is
   * before that or was not sent yet.
   */
  acknowledgeData(tag: number, next: number): boolean {
    const task = this.#asking.get(tag);
    const least = task?.tags.get(tag);
    if (task === undefined || least === undefined)
      return this.#givenUpTag !== undefined && serialDistance(tag, this.#givenUpTag) <= 0;
    if (next < least || next > nextNumber(task)) return false;
    this.releaseBelow(task, next);
    return true;
  }

  /** The initiator has everything below `number`. */
  releaseBelow(task: KeptTask, number: number): void {
    const count = number - task.first;
    const gone = Math.min(count, task.missing);
    task.missing -= gone;
    for (const pdu of task.pdus.splice(0, count - gone)) this.#bytes -= costOf(pdu);
    task.first = number;
    for (const [tag, next] of task.tags) if (next <= number) this.#dropTag(task, tag);
  }

  #dropTag(task: KeptTask, tag: number): void {
    task.tags.delete(tag);
    if (this.#asking.delete(tag)) this.#bytes -= KEEPING_BYTES;
  }

  /** All that is kept of a task goes: it will be sent anew, from the acknowledgement reference number on. */
  restart(task: KeptTask): void {
    this.#dropData(task);
    task.missing = 0;
  }

  /** With the tags of those that asked for an acknowledgement. */
  #dropData(task: KeptTask): void {
    for (const pdu of task.pdus) this.#bytes -= costOf(pdu);
    task.pdus = [];
    this.#withData.delete(task);
    for (const tag of [...task.tags.keys()]) this.#dropTag(task, tag);
  }

  /** Gives away what was sent of a task, with its response, if it has one. */
  take(itt: number): { task: KeptTask; response: Buffer | undefined } | undefined {
    const task = this.#tasks.get(itt);
    if (task === undefined) return undefined;
    const { missing, pdus, statSN } = task;
    const status = statSN === undefined ? undefined : this.#statuses.get(statSN);
    if (statSN !== undefined && status !== undefined) {
      this.#statuses.delete(statSN);
      this.#bytes -= costOf(status.pdu);
    }
    this.forget(task);
    task.missing = missing;
    task.pdus = pdus;
    task.statSN = undefined;
    return { task, response: status?.pdu };
  }

  /** Takes over what another connection had sent of a task. */
  adopt(task: KeptTask): void {
    const known = this.#tasks.get(task.itt);
    if (known !== undefined) this.forget(known);
    // A SNACK tag was for the response on the connection before (§7.2.2).
    task.snackTag = 0;
    this.#tasks.set(task.itt, task);
    for (const pdu of task.pdus) this.#bytes += costOf(pdu);
    if (task.pdus.length > 0) this.#withData.add(task);
    this.#shrink();
  }

  /** Nothing of the task will be asked for again. */
  forget(task: KeptTask): void {
    this.restart(task);
    if (this.#tasks.get(task.itt) === task) this.#tasks.delete(task.itt);
  }

  /** Data of a task that has ended can't be asked for by its tag any more; its status can, by StatSN. */
  forgetTag(itt: number): void {
    const task = this.#tasks.get(itt);
    if (task !== undefined) this.forget(task);
  }

  #forgetStatus(statSN: number): void {
    const status = this.#statuses.get(statSN);
    if (status === undefined) return;
    this.#statuses.delete(statSN);
    this.#bytes -= costOf(status.pdu);
    if (status.task !== undefined) this.forget(status.task);
  }

  #giveUp(tag: number): void {
    const before = this.#givenUpTag;
    if (before === undefined || serialDistance(tag, before) > 0) this.#givenUpTag = tag;
  }

  #shrink(): void {
    if (this.#bytes <= this.#bytesMax) return;
    for (const task of this.#withData) {
      for (const tag of task.tags.keys()) this.#giveUp(tag);
      task.missing += task.pdus.length;
      this.#dropData(task);
      if (this.#bytes <= this.#bytesMax) return;
    }
    for (const statSN of [...this.#statuses.keys()]) {
      this.#forgetStatus(statSN);
      if (this.#bytes <= this.#bytesMax) return;
    }
  }
}

/** Header and data in one piece. */
function copyOf({ buffer, offset, dataBytes, parameters }: SentPdu): Buffer {
  const pdu = Buffer.allocUnsafeSlow(BHS_BYTES + dataBytes);
  buffer.copy(pdu, 0, offset, offset + BHS_BYTES);
  if (dataBytes > 0) {
    const at = offset + dataOffset(parameters);
    buffer.copy(pdu, BHS_BYTES, at, at + dataBytes);
  }
  return pdu;
}
