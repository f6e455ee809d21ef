/**
 * The Data-Out side of one task: immediate data, unsolicited Data-Out, and data that the target asks for by R2T
 * (RFC 7143 §4.2.5.2, §11.7, §11.8).
 *
 * Data come in order unless the initiator has asked otherwise (loose-sequence.ts), so one position tells everything: bytes
 * below `#received` are here, R2Ts are out up to `#asked`. Chunks go to the SCSI layer where they lie in the receive
 * buffer; only what must wait, or isn't whole blocks, is copied.
 *
 * At error recovery level 1 and above data may get lost (§7.8, §7.9). Then one R2T is out at a time, whatever
 * MaxOutstandingR2T allows, so that the stream needs no memory for what lies behind a gap: the rest of the sequence is
 * dropped, and at its end, or when that doesn't come in time, everything from `#received` on is asked for by a new R2T (a
 * recovery R2T). Data that come twice, or late, are dropped without a word.
 */
import { TAG_NONE } from './constants.js';
import { DATA_OUT_FAULT, type DataOutFault } from './data-out-fault.js';
import type { IscsiTask } from './iscsi-task.js';
import { LOOSE_SEQUENCE_BYTES_MAX, LooseSequence } from './loose-sequence.js';
import { sendR2T, type OpenR2T } from './r2t.js';
import { serialDistance } from './serial.js';

const BLOCK_BYTES = 512;
const EMPTY = Buffer.alloc(0);
/** Recovery R2Ts in a row that bring nothing, until the task is given up. */
const ATTEMPTS_MAX = 8;
/** How long data may be silent before they are taken for lost; twice as long with every attempt, up to a limit. */
const OVERDUE_MS = 1500;
const OVERDUE_DOUBLINGS_MAX = 4;

export class OutTransfer {
  readonly #task: IscsiTask;
  /** What the CDB asks for; may exceed what the initiator announced. */
  wantedBytes = 0;
  /** What will be delivered: the smaller of both. */
  #total = 0;
  #begun = false;
  /** The SCSI layer was told that all data are here: once, since the command may go on for long after that. */
  #endTold = false;
  #ignoring = false;
  /** Data are taken for their F bit alone. */
  draining = false;

  /** Bytes of the initiator's stream that have arrived, and that have gone to the SCSI layer. */
  #received = 0;
  #delivered = 0;
  #asked = 0;
  /** The initiator will send unsolicited Data-Out up to this position (exclusive); 0: none. */
  #unsolicitedEnd = 0;
  #unsolicitedOpen = false;
  #unsolicitedDataSN = 0;
  #open: OpenR2T[] = [];
  /** Sequences in any order: the unsolicited one, and those that are whole but wait for one before them. */
  #looseUnsolicited: LooseSequence | undefined;
  #whole: LooseSequence[] = [];

  /** Immediate data where they lie in the receive buffer, valid only while the command is submitted. */
  #immediateBuffer: Buffer = EMPTY;
  #immediateOffset = 0;
  #immediateBytes = 0;
  /** Copies of data that came before the SCSI layer asked. */
  #early: Buffer[] = [];
  /** Everything, where the SCSI layer wants it in one chunk. */
  #gather: Buffer | undefined;
  #gathered = 0;
  /** The beginning of a block whose rest is still to come. */
  #tail = EMPTY;
  /** When data were last asked for or came (level 1 and above), and recovery R2Ts since data last came. */
  #heardMs = 0;
  #attempts = 0;
  /** R2Ts that were overdue, the last ones. */
  #late: OpenR2T[] = [];

  constructor(task: IscsiTask) {
    this.#task = task;
  }

  reset(): void {
    this.wantedBytes = 0;
    this.#total = 0;
    this.#begun = false;
    this.#endTold = false;
    this.#ignoring = false;
    this.draining = false;
    this.#received = 0;
    this.#delivered = 0;
    this.#asked = 0;
    this.#unsolicitedEnd = 0;
    this.#unsolicitedOpen = false;
    this.#unsolicitedDataSN = 0;
    if (this.#open.length > 0) this.#open = [];
    this.#looseUnsolicited = undefined;
    if (this.#whole.length > 0) this.#whole = [];
    this.#immediateBytes = 0;
    this.#immediateBuffer = EMPTY;
    if (this.#early.length > 0) this.#early = [];
    this.#gather = undefined;
    this.#gathered = 0;
    this.#tail = EMPTY;
    this.#attempts = 0;
    if (this.#late.length > 0) this.#late = [];
  }

  /** The command brought immediate data. */
  immediate(buffer: Buffer, offset: number, bytes: number): void {
    this.#immediateBuffer = buffer;
    this.#immediateOffset = offset;
    this.#immediateBytes = bytes;
    this.#received = bytes;
  }

  /** Unsolicited Data-Out will follow the command (its F bit was 0), up to `end` bytes of the stream. */
  announceUnsolicited(end: number): void {
    this.#unsolicitedOpen = true;
    this.#unsolicitedEnd = end;
    if (this.#recovers) this.#heardMs = performance.now();
  }

  /** Submit is over, and the receive buffer moves on: what the SCSI layer has not asked for yet is copied. */
  settle(): void {
    if (this.#immediateBytes > 0 && !this.#begun)
      this.#early.push(this.#task.keep(this.#immediateBuffer, this.#immediateOffset, this.#immediateBytes));
    this.#immediateBytes = 0;
  }

  begin(bytes: number, whole: boolean): void {
    const task = this.#task;
    this.wantedBytes = bytes;
    this.#total = Math.min(bytes, task.expectedDataOut);
    this.#begun = true;
    this.#endTold = false;
    if (whole && this.#total > this.#immediateBytes) this.#startGather();
    const immediateBytes = this.#immediateBytes;
    this.#immediateBytes = 0;
    if (immediateBytes > 0) this.#deliver(this.#immediateBuffer, this.#immediateOffset, immediateBytes);
    const early = this.#early;
    if (early.length > 0) {
      this.#early = [];
      for (const chunk of early) this.#deliver(chunk, 0, chunk.length);
    }
    this.#advance();
  }

  /** True while the initiator owes data that it announced or was asked for. */
  expectsMore(): boolean {
    return this.#unsolicitedOpen || this.#open.length > 0;
  }

  /** Tags of the R2Ts whose data are still to come. */
  openTags(): number[] {
    return this.#open.map(({ ttt }) => ttt);
  }

  /** The task has ended: remaining data are taken and dropped. */
  ignoreRest(): void {
    this.#ignoring = true;
    this.#gather = undefined;
  }

  /**
   * Something is wrong with the data, so none of them are of use any more: what the initiator still owes is taken,
   * whatever it is, up to the F bit of each sequence (§7.8, §11.17.1). `ttt` and `final` are of the PDU that was refused.
   */
  drain(ttt: number, final: boolean): void {
    this.ignoreRest();
    this.draining = true;
    this.drained(ttt, final);
  }

  /** A Data-Out PDU while the data are drained. */
  drained(ttt: number, final: boolean): void {
    if (this.#recovers) this.#heardMs = performance.now();
    if (!final) return;
    if (ttt === TAG_NONE) this.#unsolicitedOpen = false;
    else this.#open = this.#open.filter((r2t) => r2t.ttt !== ttt);
    if (!this.expectsMore()) this.#task.releaseHeld();
  }

  /** The task was aborted: nothing more is asked for or taken. */
  stop(): void {
    this.#ignoring = true;
    this.#unsolicitedOpen = false;
    this.#open = [];
    this.#gather = undefined;
  }

  /**
   * A Data-Out PDU for this task. Returns a fault if it breaks the protocol; nothing was taken then.
   */
  dataOut(
    ttt: number,
    dataSN: number,
    bufferOffset: number,
    final: boolean,
    buffer: Buffer,
    offset: number,
    bytes: number,
  ): DataOutFault | undefined {
    if (this.#task.aborted) return undefined;
    if (this.#recovers) {
      this.#takeBack(ttt, dataSN, bufferOffset);
      const expected = this.#expectedDataSN(ttt);
      const distance = expected === undefined ? -1 : serialDistance(dataSN, expected);
      if (distance < 0) return undefined;
      if (distance > 0) return final ? this.#recover() : undefined;
    }
    if (!this.#task.host.parameters.dataInOrder)
      return this.#loose(ttt, dataSN, bufferOffset, final, buffer, offset, bytes);
    const end = bufferOffset + bytes;
    if (ttt === TAG_NONE) {
      if (!this.#unsolicitedOpen) return DATA_OUT_FAULT.NOT_ANNOUNCED;
      // A gap in the numbers explains a gap in the data.
      if (dataSN !== this.#unsolicitedDataSN) return DATA_OUT_FAULT.DATA_SN;
      if (bufferOffset !== this.#received) return DATA_OUT_FAULT.OFFSET;
      if (end > this.#unsolicitedEnd) return DATA_OUT_FAULT.BEYOND_FIRST_BURST;
      if (final && this.#isShortFirstBurst(end)) return DATA_OUT_FAULT.SHORT_FIRST_BURST;
      this.#unsolicitedDataSN++;
      if (final) this.#unsolicitedOpen = false;
    } else {
      const r2t = this.#open.at(0);
      if (r2t?.ttt !== ttt) return DATA_OUT_FAULT.UNKNOWN_TAG;
      if (dataSN !== r2t.dataSN) return DATA_OUT_FAULT.DATA_SN;
      if (bufferOffset !== this.#received) return DATA_OUT_FAULT.OFFSET;
      if (end > r2t.end) return DATA_OUT_FAULT.BEYOND_R2T;
      if (final !== (end === r2t.end)) return DATA_OUT_FAULT.WRONG_END;
      r2t.dataSN++;
      if (final) this.#open.shift();
    }
    this.#arrived(buffer, offset, bytes);
    return undefined;
  }

  /** §11.4.7.2: unsolicited Data-Out of a command that has more data than FirstBurstLength are just as many as that. */
  #isShortFirstBurst(end: number): boolean {
    return end < this.#unsolicitedEnd && this.#unsolicitedEnd < this.#task.expectedDataOut;
  }

  // ---- error recovery

  get #recovers(): boolean {
    return this.#task.host.retained !== undefined;
  }

  /** DataSN of the next Data-Out with this tag; undefined if none is awaited. */
  #expectedDataSN(ttt: number): number | undefined {
    if (ttt === TAG_NONE) {
      if (!this.#unsolicitedOpen) return undefined;
      return this.#task.host.parameters.dataInOrder
        ? this.#unsolicitedDataSN
        : (this.#looseUnsolicited?.dataSN ?? 0);
    }
    const r2t = this.#open.find((one) => one.ttt === ttt);
    return r2t?.loose?.dataSN ?? r2t?.dataSN;
  }

  /** A Data-Out came with a wrong digest: its data are lost. Returns a fault if they can't be had. */
  lost(ttt: number, dataSN: number, final: boolean): DataOutFault | undefined {
    const expected = this.#expectedDataSN(ttt);
    if (expected === undefined || !final || serialDistance(dataSN, expected) < 0) return undefined;
    return this.#recover();
  }

  /**
   * Asks again for data that are overdue; `deafMs`: when the connection was last not read. Returns a fault if that has
   * been tried too often.
   */
  overdue(nowMs: number, deafMs: number): DataOutFault | undefined {
    const patienceMs = OVERDUE_MS * 2 ** Math.min(this.#attempts, OVERDUE_DOUBLINGS_MAX);
    if (nowMs - Math.max(this.#heardMs, deafMs) < patienceMs) return undefined;
    const late = this.#open.at(0);
    if (late !== undefined && late.loose === undefined) {
      this.#late.push(late);
      if (this.#late.length > ATTEMPTS_MAX) this.#late.shift();
    }
    return this.#recover();
  }

  /**
   * Data that were only late come for an R2T in the place of which another was sent: they are as good. Without this an
   * initiator that is slower than the patience would never get on.
   */
  #takeBack(ttt: number, dataSN: number, bufferOffset: number): void {
    const index = this.#late.findIndex((r2t) => r2t.ttt === ttt);
    const late = this.#late.at(index);
    if (index < 0 || late?.dataSN !== dataSN || bufferOffset !== this.#received) return;
    this.#late.splice(index, 1);
    this.#late.push(...this.#open.filter(({ loose }) => loose === undefined));
    this.#open = [late];
    // The other R2T may have asked for more than this one: what lies behind it is asked for in its turn.
    this.#asked = late.end;
  }

  /** The sequence under way is given up; a new R2T asks for what is missing of it (recovery R2T, §7.8, §7.9). */
  #recover(): DataOutFault | undefined {
    if (this.#attempts >= ATTEMPTS_MAX) return DATA_OUT_FAULT.LOST;
    this.#attempts++;
    this.askAnew();
    return undefined;
  }

  /** Nothing of what was asked for or announced will come: all that is missing is asked for by new R2Ts. */
  askAnew(): void {
    this.#unsolicitedOpen = false;
    this.#open = [];
    this.#looseUnsolicited = undefined;
    this.#whole = [];
    this.#asked = this.#received;
    if (this.#ignoring) this.#task.releaseHeld();
    else if (this.#begun) this.#advance();
  }

  /** The next bytes of the stream are here. */
  #arrived(buffer: Buffer, offset: number, bytes: number): void {
    this.#received += bytes;
    if (this.#recovers) {
      this.#heardMs = performance.now();
      this.#attempts = 0;
    }
    if (this.#ignoring) {
      if (!this.expectsMore()) this.#task.releaseHeld();
      return;
    }
    if (!this.#begun) {
      this.#early.push(this.#task.keep(buffer, offset, bytes));
      return;
    }
    this.#deliver(buffer, offset, bytes);
    if (this.#task.held) {
      if (!this.expectsMore()) this.#task.releaseHeld();
    } else this.#advance();
  }

  /** As `dataOut`, where DataPDUInOrder or DataSequenceInOrder is No (§13.18, §13.19). */
  #loose(
    ttt: number,
    dataSN: number,
    bufferOffset: number,
    final: boolean,
    buffer: Buffer,
    offset: number,
    bytes: number,
  ): DataOutFault | undefined {
    const { pduInOrder, sequenceInOrder } = this.#task.host.parameters;
    const unsolicited = ttt === TAG_NONE;
    if (unsolicited && !this.#unsolicitedOpen) return DATA_OUT_FAULT.NOT_ANNOUNCED;
    const index = this.#open.findIndex((r2t) => r2t.ttt === ttt);
    if (!unsolicited && (sequenceInOrder ? index !== 0 : index < 0)) return DATA_OUT_FAULT.UNKNOWN_TAG;
    const sequence = unsolicited
      ? (this.#looseUnsolicited ??= new LooseSequence(this.#received, this.#unsolicitedEnd - this.#received))
      : this.#open[index].loose;
    const fault = sequence?.take(dataSN, bufferOffset, pduInOrder, buffer, offset, bytes);
    if (fault !== undefined || sequence === undefined || !final) return fault;
    if (unsolicited ? !sequence.gapless : !sequence.full) return DATA_OUT_FAULT.WRONG_END;
    if (unsolicited && this.#isShortFirstBurst(sequence.start + sequence.data.length))
      return DATA_OUT_FAULT.SHORT_FIRST_BURST;
    if (unsolicited) this.#unsolicitedOpen = false;
    else this.#open.splice(index, 1);
    this.#whole.push(sequence);
    for (let next = this.#takeNext(); next !== undefined; next = this.#takeNext())
      this.#arrived(next, 0, next.length);
    return undefined;
  }

  /** Data of the sequence that continues the stream, if it is whole. */
  #takeNext(): Buffer | undefined {
    const index = this.#whole.findIndex(({ start }) => start === this.#received);
    return index < 0 ? undefined : this.#whole.splice(index, 1)[0].data;
  }

  #startGather(): void {
    const bytes = this.#total - this.#delivered;
    this.#gather = Buffer.allocUnsafeSlow(bytes);
    this.#gathered = 0;
    this.#task.pin(bytes);
  }

  #deliver(buffer: Buffer, offset: number, available: number): void {
    const task = this.#task;
    if (task.over || task.aborted) return;
    const missing = this.#total - this.#delivered - this.#gathered - this.#tail.length;
    const bytes = Math.min(available, missing);
    if (bytes === 0) return;
    const gather = this.#gather;
    if (gather !== undefined) {
      buffer.copy(gather, this.#gathered, offset, offset + bytes);
      this.#gathered += bytes;
      if (this.#gathered < gather.length) return;
      this.#gather = undefined;
      this.#gathered = 0;
      this.#delivered = this.#total;
      task.handler?.onDataOut(task, gather, 0, gather.length);
      return;
    }
    const odd = bytes < missing ? (this.#tail.length + bytes) % BLOCK_BYTES : 0;
    if (odd > 0 || this.#tail.length > 0) {
      this.#deliverBlocks(buffer, offset, bytes, odd);
      return;
    }
    this.#delivered += bytes;
    task.handler?.onDataOut(task, buffer, offset, bytes);
  }

  /** A piece that begins or ends inside a block: its last `odd` bytes wait for the next one. */
  #deliverBlocks(buffer: Buffer, offset: number, bytes: number, odd: number): void {
    const task = this.#task;
    const joined = Buffer.concat([this.#tail, buffer.subarray(offset, offset + bytes)]);
    const blocks = joined.length - odd;
    this.#tail = Buffer.from(joined.subarray(blocks));
    if (blocks === 0) return;
    this.#delivered += blocks;
    task.handler?.onDataOut(task, joined, 0, blocks);
  }

  /** Everything here: tells the SCSI layer. Something missing and not under way: asks for it. */
  #advance(): void {
    const task = this.#task;
    if (task.over || task.aborted) return;
    if (this.#delivered === this.#total) {
      if (this.#endTold || this.#unsolicitedOpen || this.#open.length > 0) return;
      this.#endTold = true;
      const { handler } = task;
      handler?.onDataOutEnd(task);
      return;
    }
    if (this.#unsolicitedOpen) return;
    if (this.#asked < this.#received) this.#asked = this.#received;
    const { parameters } = task.host;
    const openMax = this.#recovers ? 1 : parameters.maxOutstandingR2T;
    while (this.#asked < this.#total && this.#open.length < openMax) {
      const bytes = Math.min(
        this.#total - this.#asked,
        parameters.maxBurstBytes,
        parameters.dataInOrder ? Infinity : LOOSE_SEQUENCE_BYTES_MAX,
      );
      this.#sendR2T(this.#asked, bytes);
      this.#asked += bytes;
    }
  }

  #sendR2T(position: number, bytes: number): void {
    const task = this.#task;
    const { host } = task;
    const ttt = host.takeTransferTag();
    if (this.#recovers) this.#heardMs = performance.now();
    const loose = host.parameters.dataInOrder ? undefined : new LooseSequence(position, bytes);
    this.#open.push({ ttt, end: position + bytes, dataSN: 0, loose });
    sendR2T(task, ttt, position, bytes);
  }
}
