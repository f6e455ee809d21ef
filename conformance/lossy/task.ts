/** One command of the recovering initiator, from its PDU to a status that may be acknowledged. */
import type { Link } from './link.js';
import {
  COMMAND,
  dataOut,
  NO_TAG,
  OP,
  scsiCommand,
  SNACK,
  snack,
  taskManagement,
  type Pdu,
} from '../rfc7143/pdu.js';
import { read10, write10 } from '../rfc7143/scsi.js';

export interface Work {
  lba: number;
  blocks: number;
  /** Data to write; undefined: a read. */
  write: Buffer | undefined;
  /** How a write begins: bytes with the command, and unsolicited behind it. */
  immediateBytes: number;
  unsolicitedBytes: number;
}

export const BLOCK_BYTES = 512;
const PIECE_BYTES = 4096;
const TASK_REASSIGN = 8;

export class ClientTask {
  readonly itt: number;
  readonly cmdSN: number;
  readonly work: Work;
  readonly data: Buffer;
  link: Link;
  /** Something came of it, by performance.now(). */
  heardMs = 0;
  status = -1;
  /** Tag of a TASK REASSIGN that has no answer yet. */
  reassignTag = 0;
  #seen = new Set<number>();
  #ends = new Map<number, { end: number; tag: number }>();
  #response: { statSN: number; expDataSN: number } | undefined;

  constructor(itt: number, cmdSN: number, work: Work, link: Link) {
    this.itt = itt;
    this.cmdSN = cmdSN;
    this.work = work;
    this.link = link;
    this.data = work.write ?? Buffer.alloc(work.blocks * BLOCK_BYTES);
  }

  /** The command with the data that go with it; also its retry (§7.2.1). */
  send(nowMs: number): void {
    const { write, lba, blocks, immediateBytes, unsolicitedBytes } = this.work;
    this.heardMs = nowMs;
    const flags =
      (unsolicitedBytes > 0 ? 0 : COMMAND.FINAL) |
      (write === undefined ? COMMAND.READ : COMMAND.WRITE) |
      COMMAND.SIMPLE;
    this.link.send(
      scsiCommand({
        itt: this.itt,
        cmdSN: this.cmdSN,
        expStatSN: 0,
        flags,
        edtl: this.data.length,
        cdb: write === undefined ? read10(lba, blocks) : write10(lba, blocks),
        ...(write === undefined ? {} : { data: write.subarray(0, immediateBytes) }),
      }),
    );
    if (unsolicitedBytes > 0) this.#sendData(NO_TAG, immediateBytes, immediateBytes + unsolicitedBytes);
  }

  #sendData(ttt: number, from: number, end: number): void {
    for (let offset = from, dataSN = 0; offset < end; offset += PIECE_BYTES, dataSN++) {
      const pieceEnd = Math.min(end, offset + PIECE_BYTES);
      this.link.send(
        dataOut({
          itt: this.itt,
          ttt,
          expStatSN: 0,
          dataSN,
          offset,
          data: this.data.subarray(offset, pieceEnd),
          final: pieceEnd === end,
        }),
      );
    }
  }

  /** A PDU of this task. */
  take(pdu: Pdu, nowMs: number): void {
    this.heardMs = nowMs;
    if (pdu.opcode === OP.R2T)
      this.#sendData(pdu.ttt, pdu.bufferOffset, pdu.bufferOffset + pdu.desiredLength);
    else if (pdu.opcode === OP.DATA_IN) {
      pdu.data.copy(this.data, pdu.bufferOffset);
      this.#seen.add(pdu.dataSN);
      if ((pdu.flags & 0x40) !== 0) this.#ends.set(pdu.dataSN, { end: pdu.dataSN + 1, tag: pdu.ttt });
      this.#acknowledge();
    } else if (pdu.opcode === OP.SCSI_RESPONSE) {
      this.status = pdu.scsiStatus;
      this.#response = { statSN: pdu.statSN, expDataSN: pdu.dataSN };
    }
  }

  /** DataACK for what was asked about and has no holes before it (§11.7.2). */
  #acknowledge(): void {
    const whole = this.#contiguous();
    for (const [dataSN, { end, tag }] of this.#ends) {
      if (end > whole) continue;
      this.#ends.delete(dataSN);
      this.link.send(snack({ type: SNACK.DATA_ACK, itt: NO_TAG, expStatSN: 0, begin: end, run: 0, tag }));
    }
  }

  #contiguous(): number {
    let next = 0;
    while (this.#seen.has(next)) next++;
    return next;
  }

  /** StatSN of its status, if the task has all that belongs to it. */
  get finishedBy(): number | undefined {
    const response = this.#response;
    if (response === undefined) return undefined;
    const whole = this.work.write !== undefined || this.#contiguous() >= response.expDataSN;
    return whole ? response.statSN : undefined;
  }

  /** Nothing came for a while: asks for what is missing. */
  ask(nowMs: number): void {
    this.heardMs = nowMs;
    const begin = this.#response === undefined ? 0 : this.#contiguous();
    this.link.send(
      snack({
        type: SNACK.DATA_OR_R2T,
        itt: this.itt,
        expStatSN: 0,
        begin,
        run: this.#response === undefined ? 0 : this.#gap(begin, this.#response.expDataSN),
      }),
    );
  }

  #gap(begin: number, end: number): number {
    let next = begin;
    while (next < end && !this.#seen.has(next)) next++;
    return next - begin;
  }

  /** Takes the task over to another connection (§7.2.2). */
  reassign(link: Link, tag: number, cmdSN: number, nowMs: number): void {
    if (this.link !== link) {
      // What is behind a hole is discarded: it comes again.
      const whole = this.#contiguous();
      this.#seen = new Set(Array.from({ length: whole }, (_, i) => i));
      this.#ends.clear();
      this.#response = undefined;
    }
    this.link = link;
    this.heardMs = nowMs;
    this.reassignTag = tag;
    const expDataSN = this.work.write === undefined ? this.#contiguous() : 0;
    link.send(
      taskManagement({
        function: TASK_REASSIGN,
        itt: tag,
        cmdSN,
        expStatSN: 0,
        referencedTag: this.itt,
        expDataSN,
      }),
    );
  }
}
