/**
 * The full feature phase of one connection (RFC 7143 §4.2.5, §11): admits PDUs by CmdSN and hands SCSI commands and
 * their data to the SCSI layer. Everything else has a file of its own: task-manager.ts, link-requests.ts,
 * async-messages.ts.
 */
import type { Nexus } from '../scsi/nexus.js';
import { ahsFit, ahsKnown, readAhs } from './ahs.js';
import { AsyncMessages } from './async-messages.js';
import type { Carrier } from './command-order.js';
import {
  ATTRIBUTE_ACA,
  COMMAND_ATTRIBUTE_MASK,
  COMMAND_READ,
  COMMAND_WRITE,
  FINAL,
  IMMEDIATE,
  OPCODE_MASK,
  REJECT,
  REQUEST,
  RESPONSE,
  SCSI_CHECK_CONDITION,
  TAG_NONE,
} from './constants.js';
import { IscsiTask, type SentOfTask } from './iscsi-task.js';
import { LinkRequests } from './link-requests.js';
import type { Parameters } from './negotiation.js';
import { headerOf, sendPdu, type AnswerFields, type Pdu } from './pdu.js';
import { DATA_OUT_FAULT } from './data-out-fault.js';
import type { FullFeatureOwner } from './phase-owner.js';
import { PROTOCOL_SENSE } from './protocol-sense.js';
import { Recovery } from './recovery.js';
import type { ResponseFence } from './response-fence.js';
import { nextNumber, Retained, type KeptTask } from './retained.js';
import type { Session } from './session.js';
import type { TaskHost } from './task-host.js';
import type { TextExchange } from './text-exchange.js';
import { SEND_SEGMENT_BYTES_MAX, type Transmit } from './transmit.js';

/** Pooled tasks, shared by all connections. */
const pool: IscsiTask[] = [];
const POOL_MAX = 1024;
/** Immediate commands that may be in flight beside the window (§4.2.2.1 asks for some). */
const IMMEDIATE_MAX = 64;

export class FullFeature implements TaskHost, Carrier {
  readonly #owner: FullFeatureOwner;
  readonly #session: Session;
  readonly #link: LinkRequests;
  /** Undefined at error recovery level 0, like `retained`. */
  readonly #recovery: Recovery | undefined;
  readonly retained: Retained | undefined;
  readonly messages: AsyncMessages = new AsyncMessages(this);
  readonly transmit: Transmit;
  parameters: Parameters;
  readonly nexus: Nexus;
  sendSegmentBytes: number;
  /** Immediate tasks in flight. */
  #immediates = 0;
  #submitting: IscsiTask | undefined;
  /** 1 while a command is submitted that has not been answered yet: it is not among the session's tasks. */
  #unlisted = 0;
  /** True while a request is in hand that has taken a CmdSN. */
  #counted = false;
  #closed = false;
  /** ExpStatSN of the last PDU. */
  acknowledged: number;

  constructor(owner: FullFeatureOwner, session: Session, parameters: Parameters, text: TextExchange) {
    this.#owner = owner;
    this.#session = session;
    this.transmit = owner.transmit;
    this.nexus = session.nexus;
    this.parameters = parameters;
    this.sendSegmentBytes = segmentBytes(parameters);
    this.#link = new LinkRequests(owner, session, this, text);
    this.acknowledged = owner.statSN;
    if (parameters.errorRecoveryLevel > 0) {
      this.retained = new Retained(owner.statSN, owner.retainedBytesMax);
      this.#recovery = new Recovery(this, session, this.retained);
    }
  }

  get fence(): ResponseFence | undefined {
    return this.#session.fences ? this.#session.fence : undefined;
  }

  // ---- TaskHost

  takeStatSN(): number {
    const statSN = this.#owner.statSN;
    this.#owner.statSN = (statSN + 1) >>> 0;
    return statSN;
  }
  peekStatSN(): number {
    return this.#owner.statSN;
  }
  expCmdSN(): number {
    return this.#session.expCmdSN;
  }
  maxCmdSN(): number {
    // What nobody reads opens no window: those who live are told instead.
    return this.#closed ? this.#session.announcedMaxCmdSN : this.#session.maxCmdSN(this.#unlisted);
  }
  takeTransferTag(): number {
    return this.#session.takeTransferTag();
  }
  hasRequest(itt: number): boolean {
    return this.#link.hasRequest(itt);
  }
  pin(bytes: number): void {
    this.#owner.pin(bytes);
  }
  leaves(task: IscsiTask): void {
    // Else the last answer would tell of a window that it has itself made wider: one of a single command stayed shut.
    if (task.submitting) this.#unlisted = 0;
    else this.#session.tasks.delete(task.itt);
  }
  ended(task: IscsiTask): void {
    // A task that ends within its submit is still on the SCSI layer's stack; #command gives it back.
    if (task.submitting) return;
    const shut = this.#session.windowIsShut;
    this.#session.tasks.delete(task.itt);
    // It ended without a word, and nothing else may be due that would tell of the place.
    if (shut && this.#session.hasRoom) this.#session.tellWindow(this);
    this.#recycle(task);
    // Perhaps the last one that its connection was waiting for.
    this.#owner.pin(0);
  }

  discarded(task: IscsiTask): void {
    if (this.over || this.parameters.taskReporting !== 'FastAbort' || !this.#session.tellsOfEnd(this)) return;
    this.messages.tasksTerminated(task.lunHigh, task.lunLow);
  }

  #recycle(task: IscsiTask): void {
    if (task.immediate) this.#immediates--;
    task.rest();
    if (pool.length < POOL_MAX) pool.push(task);
  }

  // ---- PDUs

  /** One PDU whose digests are right. */
  receive(pdu: Pdu): void {
    const opcode = pdu.buffer[pdu.at] & OPCODE_MASK;
    const recovery = this.#recovery;
    if (opcode !== REQUEST.LOGOUT || !this.#link.namesAnother(pdu)) {
      this.acknowledged = pdu.view.getUint32(pdu.at + 28);
      recovery?.acknowledge(this.acknowledged);
    }
    if (this.#session.fence.up) this.#session.fence.check();
    if (opcode === REQUEST.DATA_OUT) {
      this.#dataOut(pdu);
      return;
    }
    if (opcode === REQUEST.SNACK) {
      // Nothing is retained at error recovery level 0 (§11.16).
      if (recovery === undefined) this.reject(REJECT.SNACK_REJECT, pdu);
      else recovery.snack(pdu);
      return;
    }
    if (this.#link.loggedOut) return;
    if (!this.#known(opcode)) {
      this.reject(opcode === REQUEST.LOGIN ? REJECT.PROTOCOL_ERROR : REJECT.COMMAND_NOT_SUPPORTED, pdu);
      if (opcode === REQUEST.LOGIN) this.#owner.fail('a login request in the full feature phase');
      return;
    }
    const numbered = (pdu.buffer[pdu.at] & IMMEDIATE) === 0 && !(opcode === REQUEST.NOP_OUT && isPong(pdu));
    const { order, manager } = this.#session;
    if (numbered && !order.admit(pdu, this)) return;
    this.#counted = numbered;
    this.#dispatch(opcode, pdu);
    this.#counted = false;
    if (order.waiting || manager.waits) this.#session.catchUp();
  }

  /** Carrier. */
  deliver(pdu: Pdu): void {
    if (this.over) return;
    const opcode = pdu.buffer[pdu.at] & OPCODE_MASK;
    this.#counted = opcode !== REQUEST.DATA_OUT;
    this.#dispatch(opcode, pdu);
    this.#counted = false;
  }

  #known(opcode: number): boolean {
    return opcode <= REQUEST.LOGOUT && opcode !== REQUEST.LOGIN;
  }

  #dispatch(opcode: number, pdu: Pdu): void {
    if (opcode === REQUEST.SCSI_COMMAND) this.#command(pdu);
    else if (opcode === REQUEST.DATA_OUT) this.#dataOut(pdu);
    else if (opcode === REQUEST.NOP_OUT) this.#link.nopOut(pdu);
    else if (opcode === REQUEST.TASK_MANAGEMENT) this.#session.manager.request(pdu, this);
    else if (opcode === REQUEST.TEXT) this.#link.textRequest(pdu);
    else this.#link.logout(pdu);
  }

  // ---- SCSI

  /** SCSI Command (§11.3). */
  #command(pdu: Pdu): void {
    const { buffer, view, at } = pdu;
    const session = this.#session;
    const itt = view.getUint32(at + 16);
    const flags = buffer[at + 1];
    const immediate = (buffer[at] & IMMEDIATE) !== 0;
    if (pdu.ahsBytes > 0 && !ahsFit(pdu)) {
      this.#owner.formatError('header segments that do not fit');
      this.#closed = true;
      return;
    }
    const attribute = flags & COMMAND_ATTRIBUTE_MASK;
    // Reserved codes are an error of the protocol (§11).
    if (itt === TAG_NONE || attribute > ATTRIBUTE_ACA || (pdu.ahsBytes > 0 && !ahsKnown(pdu))) {
      this.reject(REJECT.PROTOCOL_ERROR, pdu);
      return;
    }
    if (session.tasks.size > 0 && session.tasks.has(itt)) {
      this.reject(REJECT.TASK_IN_PROGRESS, pdu);
      return;
    }
    if (immediate && ++this.#immediates > IMMEDIATE_MAX) {
      this.#immediates--;
      this.reject(REJECT.IMMEDIATE_COMMAND_REJECT, pdu);
      return;
    }
    if (this.retained !== undefined) session.forgetEnded(itt);
    const task = pool.pop() ?? new IscsiTask();
    task.start(this, itt);
    task.immediate = immediate;
    task.cmdSN = view.getUint32(at + 24);
    task.arrivedMs = this.#owner.heardAtMs;
    const bytes = view.getUint32(at + 20);
    task.bidirectional = (flags & (COMMAND_READ | COMMAND_WRITE)) === (COMMAND_READ | COMMAND_WRITE);
    task.expectedDataOut = (flags & COMMAND_WRITE) !== 0 ? bytes : 0;
    task.expectedDataIn = (flags & (COMMAND_READ | COMMAND_WRITE)) === COMMAND_READ ? bytes : 0;
    task.lunHigh = view.getUint32(at + 8);
    task.lunLow = view.getUint32(at + 12);
    task.attribute = attribute;
    const { cdb } = task;
    for (let i = 0; i < 16; i++) cdb[i] = buffer[at + 32 + i];
    task.cdbLength = 16;
    task.submitting = true;
    this.#submitting = task;
    this.#unlisted = 1;

    const fault =
      pdu.ahsBytes > 0 && !readAhs(task, pdu)
        ? PROTOCOL_SENSE.INVALID_PDU_FIELD
        : pdu.dataBytes > 0 || (flags & (COMMAND_WRITE | FINAL)) !== FINAL
          ? this.#announcedData(task, pdu, flags)
          : undefined;
    if (fault === undefined) session.target.port.submit(task);
    else task.complete(SCSI_CHECK_CONDITION, fault);

    task.submitting = false;
    this.#submitting = undefined;
    this.#unlisted = 0;
    if (task.over && !task.held) this.#recycle(task);
    else {
      session.tasks.set(itt, task);
      task.out.settle();
    }
  }

  /** Immediate data, and unsolicited data that the F bit announces (§11.3.1, §13.10, §13.11). */
  #announcedData(task: IscsiTask, pdu: Pdu, flags: number): Buffer | undefined {
    const { parameters } = this;
    const expected = task.expectedDataOut;
    const follows = (flags & FINAL) === 0;
    const limit = Math.min(parameters.firstBurstBytes, expected);
    if (pdu.dataBytes > 0) {
      if (!parameters.immediateData || (flags & COMMAND_WRITE) === 0)
        return PROTOCOL_SENSE.UNEXPECTED_UNSOLICITED_DATA;
      if (pdu.dataBytes > limit) return PROTOCOL_SENSE.INCORRECT_AMOUNT_OF_DATA;
      task.out.immediate(pdu.buffer, pdu.dataAt, pdu.dataBytes);
    }
    if (follows) {
      if (parameters.initialR2T || (flags & COMMAND_WRITE) === 0)
        return PROTOCOL_SENSE.UNEXPECTED_UNSOLICITED_DATA;
      task.out.announceUnsolicited(limit);
    }
    return undefined;
  }

  /** SCSI Data-Out (§11.7). */
  #dataOut(pdu: Pdu): void {
    const { view, at } = pdu;
    const task = this.#session.tasks.get(view.getUint32(at + 16));
    const ttt = view.getUint32(at + 20);
    const final = (pdu.buffer[at + 1] & FINAL) !== 0;
    const { order } = this.#session;
    if (task === undefined && order.waiting && order.dataOut(pdu, this)) return;
    // Data of a task that is gone (aborted, or ended early) may still be on their way: they are dropped.
    if (task === undefined || (task.aborted && !task.refused)) {
      if (final) this.#session.manager.lateData(ttt);
      return;
    }
    if (task.host !== this) {
      // Data belong on the connection of their command (connection allegiance, §4.2.5.1).
      this.reject(REJECT.PROTOCOL_ERROR, pdu);
      return;
    }
    if (task.out.draining) {
      task.out.drained(ttt, final);
      return;
    }
    const fault = belongsElsewhere(task, pdu, ttt)
      ? DATA_OUT_FAULT.OTHER_UNIT
      : task.out.dataOut(
          ttt,
          view.getUint32(at + 36),
          view.getUint32(at + 40),
          final,
          pdu.buffer,
          pdu.dataAt,
          pdu.dataBytes,
        );
    if (fault === undefined) return;
    if (fault === DATA_OUT_FAULT.LOST) {
      this.abandon(task, fault.sense);
      return;
    }
    this.#owner.log.warn({ initiator: this.nexus.initiatorName, fault: fault.why }, 'Data-Out refused');
    this.reject(fault.reason, pdu);
    this.#refuseData(task, fault.sense, ttt, final);
  }

  /** What came for a task is of no use: the task ends with that when all that is owed has come (§11.17.1). */
  #refuseData(task: IscsiTask, sense: Buffer, ttt: number, final: boolean): void {
    task.out.drain(ttt, final);
    // Ended by the SCSI layer already: its status waits for the rest.
    if (task.over || task.refused) return;
    task.refuse(sense);
    this.#session.abort(task, () => task.endRefused());
  }

  /** True if what gets lost is asked for again (level 1 and above). */
  get recovers(): boolean {
    return this.#recovery !== undefined;
  }

  /**
   * A Data-Out whose digest was wrong is gone: it is asked for again, or its task ends when the rest has come, since it
   * can't be completed at error recovery level 0 (§7.8).
   */
  dataOutLost(pdu: Pdu): void {
    const { view, at } = pdu;
    const task = this.#session.tasks.get(view.getUint32(at + 16));
    if (task?.host !== this || (task.aborted && !task.refused)) return;
    const ttt = view.getUint32(at + 20);
    const final = (pdu.buffer[at + 1] & FINAL) !== 0;
    if (task.out.draining) task.out.drained(ttt, final);
    else if (!this.recovers) this.#refuseData(task, PROTOCOL_SENSE.SERVICE_CRC_ERROR, ttt, final);
    else if (task.out.lost(ttt, view.getUint32(at + 36), final) !== undefined)
      this.abandon(task, PROTOCOL_SENSE.SERVICE_CRC_ERROR);
  }

  /** Ends a task whose data went wrong: the SCSI layer drops it, the initiator gets the sense. */
  abandon(task: IscsiTask, sense: Buffer): void {
    task.out.stop();
    if (task.over) task.releaseHeld();
    else if (!task.aborted) {
      const { sent } = task;
      // The medium may still work for it: its tag is free, and the response true, once that is over.
      this.#session.abort(task, () => this.#respondInOrder(sent, sense));
    }
  }

  #respondInOrder(sent: SentOfTask, sense: Buffer): void {
    const send = (): this | undefined => {
      if (this.over && this.#session.lost.of(this) === undefined) return undefined;
      this.respondTo(sent, sense);
      return this;
    };
    const { fence } = this;
    if (fence === undefined) send();
    else fence.pass({ wantsFence: false, send });
  }

  /** A response with sense data of this layer, kept like any other. */
  respondTo(sent: SentOfTask, sense: Buffer): void {
    const { itt, lunHigh, lunLow, expDataSN, snackTag } = sent;
    const record = this.retained?.begin(itt, lunHigh, lunLow);
    if (record !== undefined && nextNumber(record) === 0)
      Object.assign(record, { first: expDataSN, snackTag, reads: expDataSN > 0 });
    const data = Buffer.alloc(2 + sense.length);
    data.writeUInt16BE(sense.length);
    sense.copy(data, 2);
    const words = [expDataSN, 0, 0] as const;
    this.send(
      { opcode: RESPONSE.SCSI_RESPONSE, detail: SCSI_CHECK_CONDITION, itt, ttt: snackTag, words, data },
      record,
    );
  }

  // ---- sending

  /** NOP-In as a ping (§11.19): the initiator has to answer. */
  ping(): void {
    this.#tell(this.takeTransferTag());
  }

  tellNumbers(): void {
    if (!this.over) this.#tell(TAG_NONE);
  }

  /** A NOP-In carries the numbers of now; one without a tag wants no answer. */
  #tell(ttt: number): void {
    sendPdu(
      this.transmit,
      this.parameters,
      { statSN: this.#owner.statSN, expCmdSN: this.expCmdSN(), maxCmdSN: this.maxCmdSN() },
      { opcode: RESPONSE.NOP_IN, itt: TAG_NONE, ttt },
    );
  }

  /** Sends a status-bearing PDU with the next StatSN. */
  send(fields: AnswerFields, task?: KeptTask): void {
    sendPdu(
      this.transmit,
      this.parameters,
      { statSN: this.takeStatSN(), expCmdSN: this.expCmdSN(), maxCmdSN: this.maxCmdSN() },
      fields,
      this.retained,
      task,
    );
  }

  /**
   * Reject (§11.17) carries the header that it refuses. The CmdSN of a request that is rejected does not count as received:
   * the initiator uses it again, for whatever it likes (§7.3).
   */
  reject(reason: number, pdu: Pdu, nextDataSN = 0): void {
    this.#owner.counters.rejects++;
    if (this.#counted) this.#session.order.giveBack();
    this.#counted = false;
    const data = headerOf(pdu, this.sendSegmentBytes);
    this.send({
      opcode: RESPONSE.REJECT,
      detail: reason << 8,
      itt: TAG_NONE,
      words: [nextDataSN, 0, 0],
      data,
    });
  }

  /** Takes new values after a text negotiation. */
  adopt(parameters: Parameters): void {
    this.parameters = parameters;
    this.sendSegmentBytes = segmentBytes(parameters);
  }

  /** True while a task of this connection is under way that ends without the initiator, and gives back what it holds. */
  waitsForMedium(): boolean {
    for (const task of this.#session.tasks.values()) if (task.pending > 0 && task.host === this) return true;
    return false;
  }

  /** A TARGET COLD RESET that came by this connection is done. */
  targetWasReset(): void {
    this.#owner.targetWasReset();
  }

  /** An I_T NEXUS RESET that came by this connection is done: its session ends (RFC 7144 §6.3). */
  nexusWasReset(): void {
    this.#session.dropOthers(this.#owner.cid, 'I_T nexus reset');
    this.#owner.endAfterFlush('I_T nexus reset', 'connection-lost');
  }

  /** MessageSink: nothing of use reaches the initiator any more. */
  get over(): boolean {
    return this.#closed || this.#link.loggedOut;
  }
  get blocked(): boolean {
    return this.transmit.blocked;
  }

  /** Nothing is read, so that data which don't come may well be here. */
  get stalled(): boolean {
    return this.#owner.stalled;
  }

  /** The connection is gone: nothing waits any more. */
  close(): void {
    this.#closed = true;
    this.#recovery?.close();
    this.#session.order.drop(this);
    // At level 2 its tasks live on (lost-connections.ts), or are ended by the session.
    if (this.parameters.errorRecoveryLevel < 2) this.#submitting?.discard();
  }
}

/** Whole words, which Data-In without F are to be filled to (§11.7.7). */
const segmentBytes = (parameters: Parameters): number =>
  Math.min(parameters.maxSendDataSegmentBytes, SEND_SEGMENT_BYTES_MAX) & ~3;

/** Solicited data carry the LUN of their command (§11.7.4); in others the field is reserved. */
const belongsElsewhere = ({ lunHigh, lunLow }: IscsiTask, { view, at }: Pdu, ttt: number): boolean =>
  ttt !== TAG_NONE && (view.getUint32(at + 8) !== lunHigh || view.getUint32(at + 12) !== lunLow);

/** A NOP-Out that answers ours has no ITT and takes no CmdSN (§11.18.1). */
const isPong = (pdu: Pdu): boolean => pdu.view.getUint32(pdu.at + 16) === TAG_NONE;
