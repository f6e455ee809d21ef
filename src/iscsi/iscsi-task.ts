/**
 * A SCSI task as iSCSI carries it: command in, Data-Out gathered by unsolicited data and R2T, Data-In cut into PDUs,
 * status with residuals (RFC 7143 §4.2.5, §11.3, §11.4, §11.7, §11.8).
 *
 * Tasks are pooled. Everything on the path of a small read or write is plain stores into the slab. That is why this is one
 * file, though a long one: both directions share the private state of one object that is never allocated anew.
 */
import type { Nexus } from '../scsi/nexus.js';
import { Task, type DataInSegment } from '../scsi/task.js';
import {
  DATA_IN_ACKNOWLEDGE,
  DATA_IN_STATUS,
  FINAL,
  RESIDUAL_OVERFLOW,
  RESIDUAL_UNDERFLOW,
  RESPONSE,
  SCSI_CHECK_CONDITION,
  SCSI_GOOD,
  TAG_NONE,
} from './constants.js';
import { OutTransfer } from './out-transfer.js';
import { COPY_BYTES_MAX, givePiece, takePiece, type Piece } from './pieces.js';
import { dataOffset, seal, wireBytes } from './framing.js';
import { wantsFence } from './response-fence.js';
import { dataInCount, nextNumber, type KeptTask } from './retained.js';
import type { TaskHost } from './task-host.js';

const NOTHING = Buffer.alloc(0);
const NO_PIECES: readonly Piece[] = [];

/** What a response has to tell of a task that did not make it itself. */
export interface SentOfTask {
  readonly itt: number;
  readonly lunHigh: number;
  readonly lunLow: number;
  /** Data-In PDUs that were sent (§11.4.8). */
  readonly expDataSN: number;
  readonly snackTag: number;
}

export class IscsiTask extends Task {
  #host: TaskHost | undefined;
  override nexus!: Nexus;
  /** Initiator task tag. */
  itt = 0;
  cmdSN = 0;
  immediate = false;
  /** Reads and writes at once (R and W, §11.3.1): residuals are counted apart. */
  bidirectional = false;
  /** True once the SCSI layer has ended the task. */
  over = false;
  /** True while the transport's receive callback that brought the command is still in it. */
  submitting = false;
  readonly out: OutTransfer = new OutTransfer(this);

  #dataInBytes = 0;
  #dataInWanted = 0;
  #dataInSent = 0;
  #burstSent = 0;
  #dataSN = 0;
  /** What was sent of the task, from its first Data-In, R2T or response on; only at error recovery level 1 and above. */
  #kept: KeptTask | undefined;
  #reservedBytes = 0;
  #reservedAt = 0;
  #pieces = NO_PIECES;
  /** The connection that the pieces were cut for. */
  #piecesHost: TaskHost | undefined;
  #pinnedBytes = 0;
  #heldStatus = 0;
  #heldSense: Buffer | undefined;
  #held = false;
  /** What is held waits for other responses of the session, and for no data any more. */
  #atFence = false;
  /** Sense data that the task ends with, whatever the SCSI layer says; undefined: it says what. */
  #refusal: Buffer | undefined;
  /** Counts what was held, so that a task that is used again is told from itself. */
  #holding = 0;

  /** Prepares a pooled task for a command. CDB, LUN and attribute are the caller's to fill. */
  start(host: TaskHost, itt: number): void {
    this.#host = host;
    this.nexus = host.nexus;
    this.itt = itt;
    this.over = false;
    this.aborted = false;
    this.#dataInBytes = 0;
    this.#dataInWanted = 0;
    this.#dataInSent = 0;
    this.#burstSent = 0;
    this.#dataSN = 0;
    this.#reservedBytes = 0;
    this.#held = false;
    this.#atFence = false;
    this.#refusal = undefined;
    this.out.reset();
  }

  /** Back to the pool: a task at rest keeps no connection alive. */
  rest(): void {
    this.#host = undefined;
    this.inBuffer = NOTHING;
    this.unit = undefined;
  }

  /** Another connection takes the task over. */
  moveTo(host: TaskHost): void {
    this.host.pin(-this.#pinnedBytes);
    host.pin(this.#pinnedBytes);
    this.#host = host;
    // Counted by the connection that it came by.
    this.immediate = false;
  }

  get host(): TaskHost {
    if (this.#host === undefined) throw new Error('a task without a connection');
    return this.#host;
  }

  // ---- Data-Out

  override receiveDataOut(bytes: number, whole: boolean): void {
    this.out.begin(bytes, whole);
  }

  override keep(buffer: Buffer, offset: number, length: number): Buffer {
    const copy = Buffer.allocUnsafeSlow(length);
    buffer.copy(copy, 0, offset, offset + length);
    this.pin(length);
    return copy;
  }

  override releaseKept(): void {
    this.host.pin(-this.#pinnedBytes);
    this.#pinnedBytes = 0;
  }

  /** Counts memory that lives until the task ends, or until `releaseKept`. */
  pin(bytes: number): void {
    this.#pinnedBytes += bytes;
    this.host.pin(bytes);
  }

  /** DataSN or R2TSN of the next PDU, which is counted: by its record, where one is kept of it. */
  takeDataSN(): number {
    const kept = this.#record();
    return kept === undefined ? this.#dataSN++ : nextNumber(kept);
  }

  get sent(): SentOfTask {
    const { itt, lunHigh, lunLow } = this;
    return { itt, lunHigh, lunLow, expDataSN: this.#expDataSN, snackTag: this.#kept?.snackTag ?? 0 };
  }

  /** No command here sends Data-In and asks for data, too, so that one count serves for both. */
  get #expDataSN(): number {
    if (this.#kept !== undefined) return dataInCount(this.#kept);
    return this.#dataInSent > 0 ? this.#dataSN : 0;
  }

  #record(): KeptTask | undefined {
    const { retained } = this.host;
    if (retained === undefined) return undefined;
    return (this.#kept ??= retained.begin(this.itt, this.lunHigh, this.lunLow));
  }

  /** A Data-In or R2T of this task stands complete at `offset`: keeps what error recovery may ask for. */
  retain(buffer: Buffer, offset: number, dataBytes: number): void {
    const { retained, parameters } = this.host;
    const kept = this.#kept;
    if (retained === undefined || kept === undefined) return;
    retained.keep(kept, { buffer, offset, dataBytes, parameters });
  }

  // ---- Data-In

  override beginDataIn(bytes: number): number {
    this.#dataInWanted = bytes;
    this.#dataInBytes = Math.min(bytes, this.expectedDataIn);
    return this.#dataInBytes;
  }

  override reserveDataIn(bytes: number): number {
    const host = this.host;
    const length = this.#pieceBytes(bytes);
    this.#reservedBytes = length;
    const offset = host.transmit.reserve(wireBytes(host.parameters, length));
    this.#reservedAt = offset;
    this.inBuffer = host.transmit.buffer;
    this.inOffset = offset + dataOffset(host.parameters);
    return length;
  }

  /** The next PDU's data length: within the initiator's segment length and the rest of the burst (§11.7.1). */
  #pieceBytes(bytes: number): number {
    const host = this.host;
    return Math.min(bytes, host.sendSegmentBytes, host.parameters.maxBurstBytes - this.#burstSent);
  }

  override cancelDataIn(): void {
    const host = this.host;
    host.transmit.cancel(wireBytes(host.parameters, this.#reservedBytes));
    this.#reservedBytes = 0;
  }

  override commitDataIn(last: boolean): void {
    const host = this.host;
    if (this.aborted) {
      this.cancelDataIn();
      if (last) this.#finish();
      return;
    }
    this.#dataInHeader(host.transmit.view, this.#reservedAt, this.#reservedBytes, last);
    seal(host.transmit.buffer, this.#reservedAt, this.#reservedBytes, host.parameters);
    if (host.retained !== undefined) this.retain(host.transmit.buffer, this.#reservedAt, this.#reservedBytes);
    host.transmit.commit();
    if (last) this.#dataInEnded();
  }

  #dataInEnded(): void {
    if (this.#collapses) this.#finish();
    else if (!this.#waitsAtFence(SCSI_GOOD, undefined)) {
      this.#respond(SCSI_GOOD, undefined);
      this.#finish();
    }
  }

  /**
   * §11.7: status travels in the last PDU (phase collapse). Not where PDUs may be asked for again: data and status then
   * have each a number of their own, and ExpDataSN in the response tells how many PDUs there were. Nor for a command that
   * has two residuals.
   */
  get #collapses(): boolean {
    const { retained, fence } = this.host;
    return retained === undefined && !this.bidirectional && fence?.up !== true;
  }

  #dataInHeader(view: DataView, offset: number, length: number, last: boolean): void {
    const host = this.host;
    const position = this.#dataInSent;
    this.#dataInSent += length;
    this.#burstSent += length;
    let flags = 0;
    if (last || this.#burstSent === host.parameters.maxBurstBytes || this.#dataInSent === this.#dataInBytes) {
      flags = FINAL;
      this.#burstSent = 0;
    }
    let residual = 0;
    const status = last && this.#collapses;
    if (status) {
      residual = this.#residual();
      flags |= DATA_IN_STATUS | residualFlag(residual);
      host.leaves(this);
    }
    const dataSN = this.takeDataSN();
    if (this.#kept !== undefined) this.#kept.reads = true;
    view.setUint32(offset + 8, 0);
    view.setUint32(offset + 12, 0);
    view.setUint32(offset + 20, TAG_NONE);
    if (this.#kept !== undefined && flags === FINAL && this.#dataInSent < this.#dataInBytes) {
      flags |= DATA_IN_ACKNOWLEDGE;
      const tag = host.takeTransferTag();
      view.setUint32(offset + 8, this.lunHigh);
      view.setUint32(offset + 12, this.lunLow);
      view.setUint32(offset + 20, tag);
      host.retained?.expectAcknowledgement(tag, this.#kept, dataSN);
    }
    view.setUint32(offset, (RESPONSE.DATA_IN << 24) | (flags << 16) | SCSI_GOOD);
    view.setUint32(offset + 4, length);
    view.setUint32(offset + 16, this.itt);
    view.setUint32(offset + 24, status ? host.takeStatSN() : 0);
    view.setUint32(offset + 28, host.expCmdSN());
    view.setUint32(offset + 32, host.maxCmdSN());
    view.setUint32(offset + 36, dataSN);
    view.setUint32(offset + 40, position);
    view.setUint32(offset + 44, Math.abs(residual));
  }

  override expectDataIn(bytes: number): void {
    this.pin(bytes);
  }

  override segmentDataIn(bytes: number): DataInSegment[] {
    const host = this.host;
    const pieces: Piece[] = [];
    let burst = 0;
    for (let left = bytes; left > 0;) {
      const length = Math.min(left, host.sendSegmentBytes, host.parameters.maxBurstBytes - burst);
      const total = wireBytes(host.parameters, length);
      const piece = takePiece(total);
      piece.offset = dataOffset(host.parameters);
      piece.length = length;
      this.pin(piece.buffer.length);
      pieces.push(piece);
      burst = burst + length === host.parameters.maxBurstBytes ? 0 : burst + length;
      left -= length;
    }
    this.#pieces = pieces;
    this.#piecesHost = host;
    return pieces;
  }

  override sendSegments(): void {
    const host = this.host;
    const pieces = this.#pieces;
    this.#pieces = NO_PIECES;
    if (this.aborted) {
      this.#finish();
      return;
    }
    // None is longer than the first.
    if (this.#piecesHost !== host || pieces[0].length > host.sendSegmentBytes) {
      this.#sendRecut(pieces);
      return;
    }
    for (let i = 0; i < pieces.length; i++) this.#sendPiece(host, pieces[i], i === pieces.length - 1);
    host.transmit.schedule();
    this.#dataInEnded();
  }

  /** Other lengths and digests hold than when they were cut: the task was reassigned, or a text negotiation came. */
  #sendRecut(pieces: readonly Piece[]): void {
    pieces.forEach(({ buffer, offset, length }, index) => {
      const isLast = index === pieces.length - 1;
      for (let sent = 0; sent < length;) {
        const bytes = this.reserveDataIn(length - sent);
        buffer.copy(this.inBuffer, this.inOffset, offset + sent, offset + sent + bytes);
        sent += bytes;
        this.commitDataIn(isLast && sent === length);
      }
    });
  }

  #sendPiece(host: TaskHost, piece: Piece, last: boolean): void {
    const { buffer, view, total, length } = piece;
    this.#dataInHeader(view, 0, length, last);
    seal(buffer, 0, length, host.parameters);
    if (host.retained !== undefined) this.retain(buffer, 0, length);
    if (total > COPY_BYTES_MAX) {
      host.transmit.sendBuffer(buffer);
      return;
    }
    const offset = host.transmit.reserve(total);
    buffer.copy(host.transmit.buffer, offset, 0, total);
    givePiece(piece);
    host.transmit.commit();
  }

  override sendDataIn(data: Buffer): void {
    let left = this.beginDataIn(data.length);
    if (left === 0) {
      this.complete(SCSI_GOOD);
      return;
    }
    for (let sent = 0; left > 0;) {
      const length = this.reserveDataIn(left);
      data.copy(this.inBuffer, this.inOffset, sent, sent + length);
      sent += length;
      left -= length;
      this.commitDataIn(left === 0);
    }
  }

  // ---- the end

  /**
   * What was expected and not moved is positive (underflow), what did not fit is negative (overflow); §11.4.5.
   */
  #residual(): number {
    if (this.bidirectional) return this.expectedDataOut - this.out.wantedBytes;
    if (this.#dataInWanted > this.expectedDataIn) return this.expectedDataIn - this.#dataInWanted;
    if (this.out.wantedBytes > this.expectedDataOut) return this.expectedDataOut - this.out.wantedBytes;
    return this.expectedDataIn - this.#dataInSent + (this.expectedDataOut - this.out.wantedBytes);
  }

  /** Of a bidirectional command's read (§11.4.4). */
  #readResidual(): number {
    if (!this.bidirectional) return 0;
    const moved = this.#dataInWanted > this.expectedDataIn ? this.#dataInWanted : this.#dataInSent;
    return this.expectedDataIn - moved;
  }

  override discard(): void {
    if (!this.aborted) this.host.discarded(this);
    this.aborted = true;
    if (!this.refused) this.out.stop();
  }

  /**
   * What came for the task is refused: it ends with that sense data, as soon as the SCSI layer has let go of it and the
   * initiator has sent what it owes (§7.8, §11.17.1). The caller has the SCSI layer abort it.
   */
  refuse(sense: Buffer): void {
    this.#refusal = sense;
  }

  /** True from `refuse` on, until the status is due. */
  get refused(): boolean {
    return this.#refusal !== undefined;
  }

  /** Somebody else ends the task, and without a status. */
  withdrawRefusal(): void {
    if (!this.refused) return;
    this.#refusal = undefined;
    if (this.aborted) this.out.stop();
  }

  /** The SCSI layer has let go of a task that was refused. */
  endRefused(): void {
    if (this.refused) this.complete(SCSI_CHECK_CONDITION);
  }

  override complete(status: number, sense?: Buffer): void {
    const refusal = this.#refusal;
    if (refusal !== undefined) {
      this.#refusal = undefined;
      this.aborted = false;
      this.#conclude(SCSI_CHECK_CONDITION, refusal);
    } else if (this.aborted) this.#finish();
    else this.#conclude(status, sense);
  }

  #conclude(status: number, sense: Buffer | undefined): void {
    // The initiator may still be sending what it was asked for, or what it announced; a status before its end would
    // free the task tag under that data.
    if (this.out.expectsMore()) {
      this.#hold(status, sense);
      this.out.ignoreRest();
      return;
    }
    if (this.#waitsAtFence(status, sense)) return;
    this.#respond(status, sense);
    this.#finish();
  }

  /** True if the response has to wait for others of the session (§4.2.2.3), or others for it. */
  #waitsAtFence(status: number, sense: Buffer | undefined): boolean {
    const { fence } = this.host;
    if (fence === undefined) return false;
    const wants = wantsFence(this.cdb, status, sense);
    if (!wants && !fence.up) return false;
    if (!this.#held) this.#hold(status, sense);
    this.#atFence = true;
    // All its data are on their way. What they held must not keep the acknowledgement unread that the fence waits for.
    this.releaseKept();
    const holding = this.#holding;
    fence.pass({
      wantsFence: wants,
      send: () => {
        // Aborted meanwhile, and perhaps somebody else's by now.
        if (this.#holding !== holding || !this.#held) return undefined;
        const { host } = this;
        this.#release();
        return host;
      },
    });
    return true;
  }

  #hold(status: number, sense: Buffer | undefined): void {
    this.#held = true;
    this.#holding++;
    this.#heldStatus = status;
    this.#heldSense = sense === undefined ? undefined : Buffer.from(sense);
    this.over = true;
  }

  /** The last data of a task that had already ended arrived: its status can go, in its order. */
  releaseHeld(): void {
    if (!this.#held || this.#atFence) return;
    if (this.aborted || !this.#waitsAtFence(this.#heldStatus, this.#heldSense)) this.#release();
  }

  #release(): void {
    this.#held = false;
    this.#atFence = false;
    if (!this.aborted) this.#respond(this.#heldStatus, this.#heldSense);
    this.#finish();
  }

  /** A status that waits says that the task has failed instead. */
  failHeld(sense: Buffer): void {
    this.#heldStatus = SCSI_CHECK_CONDITION;
    this.#heldSense = sense;
  }

  /** Its status will never be sent: the session is over, or the initiator has ended the task. */
  abandonHeld(): void {
    if (!this.#held) return;
    this.aborted = true;
    this.out.stop();
    this.#release();
  }

  /** True while the status waits for the initiator's data, or for other responses. */
  get held(): boolean {
    return this.#held;
  }

  /** SCSI Response (§11.4); sense goes behind its own two-byte length (§11.4.7). */
  #respond(status: number, sense: Buffer | undefined): void {
    const host = this.host;
    const senseBytes = sense === undefined || sense.length === 0 ? 0 : 2 + sense.length;
    const offset = host.transmit.reserve(wireBytes(host.parameters, senseBytes));
    const { view, buffer } = host.transmit;
    const residual = this.#residual();
    const readResidual = this.#readResidual();
    // The flags of the read stand two bits higher (§11.4.1).
    const flags = FINAL | residualFlag(residual) | (residualFlag(readResidual) << 2);
    host.leaves(this);
    view.setUint32(offset, (RESPONSE.SCSI_RESPONSE << 24) | (flags << 16) | status);
    view.setUint32(offset + 4, senseBytes);
    view.setUint32(offset + 8, 0);
    view.setUint32(offset + 12, 0);
    const kept = this.#record();
    const statSN = host.takeStatSN();
    view.setUint32(offset + 16, this.itt);
    view.setUint32(offset + 20, kept?.snackTag ?? 0);
    view.setUint32(offset + 24, statSN);
    view.setUint32(offset + 28, host.expCmdSN());
    view.setUint32(offset + 32, host.maxCmdSN());
    view.setUint32(offset + 36, this.#expDataSN);
    view.setUint32(offset + 40, Math.abs(readResidual));
    view.setUint32(offset + 44, Math.abs(residual));
    if (sense !== undefined && senseBytes > 0) {
      const at = offset + dataOffset(host.parameters);
      view.setUint16(at, sense.length);
      sense.copy(buffer, at + 2);
    }
    seal(buffer, offset, senseBytes, host.parameters);
    const { retained, parameters } = host;
    retained?.keepStatus(statSN, { buffer, offset, dataBytes: senseBytes, parameters }, kept);
    host.transmit.commit();
  }

  #finish(): void {
    this.over = true;
    const host = this.host;
    if (this.#kept !== undefined) {
      // A task that was aborted has no response: what was sent of it is of no use.
      if (this.#kept.statSN === undefined) host.retained?.forget(this.#kept);
      this.#kept = undefined;
    }
    this.out.reset();
    if (this.#pinnedBytes > 0) {
      host.pin(-this.#pinnedBytes);
      this.#pinnedBytes = 0;
    }
    this.#heldSense = undefined;
    this.#refusal = undefined;
    this.#pieces = NO_PIECES;
    this.#piecesHost = undefined;
    this.handler = undefined;
    this.scratch = undefined;
    host.ended(this);
  }
}

const residualFlag = (residual: number): number =>
  residual === 0 ? 0 : residual > 0 ? RESIDUAL_UNDERFLOW : RESIDUAL_OVERFLOW;
