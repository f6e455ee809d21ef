/**
 * A SCSI task: one command on its way, as the transport hands it to the SCSI layer (SAM-6 §8).
 *
 * The transport extends this class and keeps a pool of its own kind, so nothing is allocated per command. The SCSI
 * layer never learns which transport it is: everything that it may ask of one is an abstract method here.
 *
 * Life of a task:
 *   transport fills the public fields   → `ScsiTarget.submit(task)`
 *   SCSI layer wants Data-Out           → `receiveDataOut`; the transport calls `onDataOut` for each chunk, in
 *                                         order, then `onDataOutEnd`
 *   SCSI layer has Data-In              → `reserveDataIn`/`commitDataIn` (hot), `segmentDataIn`/`sendSegments`
 *                                         (asynchronous reads), or `sendDataIn` (everything small)
 *   exactly one end                     → `commitDataIn(…, last)`, `sendSegments`, `sendDataIn`, or `complete`
 * Each end may happen inside `submit` or at any time later. After it the SCSI layer forgets the task.
 */
import type { MediumResult } from './medium.js';
import type { Nexus } from './nexus.js';

/** SCSI task attributes (SAM-6 §8.9), numbered as iSCSI carries them (RFC 7143 §11.3.1). */
export const TASK_ATTRIBUTE = { UNTAGGED: 0, SIMPLE: 1, ORDERED: 2, HEAD_OF_QUEUE: 3, ACA: 4 } as const;

/** What the SCSI layer attaches to a task that wants Data-Out. Shared, stateless: state lives in the task. */
export interface DataOutHandler {
  /**
   * The next chunk. The buffer is the transport's and is reused after the call returns: consume it, or `keep` it.
   * With `whole` it comes once, with all bytes.
   */
  onDataOut(task: Task, buffer: Buffer, offset: number, length: number): void;
  /** All Data-Out has arrived (also when `expectedDataOut` was shorter than what was asked). */
  onDataOutEnd(task: Task): void;
}

/** One piece of an asynchronous Data-In transfer: fill `length` bytes of `buffer` from `offset`. */
export interface DataInSegment {
  buffer: Buffer;
  offset: number;
  length: number;
}

/** The longest CDB that is carried: 16 bytes in the header and up to 244 in an extended CDB (RFC 7143 §11.2.2.4). */
export const CDB_BYTES_MAX = 260;

const EMPTY = Buffer.alloc(0);

export abstract class Task {
  // ---- set by the transport before submit
  /** The I_T nexus that the command came by. */
  abstract nexus: Nexus;
  /** LUN field as received (SAM-6 §4.7), most significant half. */
  lunHigh = 0;
  /** Least significant half. */
  lunLow = 0;
  /** The CDB: the first `cdbLength` bytes are valid, the rest is zero up to byte 16. */
  readonly cdb: Buffer = Buffer.alloc(CDB_BYTES_MAX);
  cdbLength = 16;
  /** One of TASK_ATTRIBUTE; unknown values are the SCSI layer's to refuse. */
  attribute = 0;
  /** Bytes that the initiator is ready to send (its EDTL for a write); 0 if it sends none. */
  expectedDataOut = 0;
  /** Bytes that the initiator has room for (its EDTL for a read); 0 if it takes none. */
  expectedDataIn = 0;
  /** When the command arrived, by performance.now(); 0 if the transport does not tell. */
  arrivedMs = 0;
  /** Set by `discard`: nothing more of this task reaches the initiator. The SCSI layer still ends it once. */
  aborted = false;

  // ---- the SCSI layer's own per-task state (reset by it in submit)
  /** Byte position on the medium where the next chunk goes or comes from. */
  position = 0;
  /** Bytes that the command still has to move. */
  remaining = 0;
  /** Asynchronous operations under way. */
  pending = 0;
  /** First MediumResult other than OK. */
  result = 0;
  /** Whatever else a command wants to remember; undefined on the hot path. */
  scratch: unknown = undefined;
  /** The logical unit, found in submit. */
  unit: unknown = undefined;
  handler: DataOutHandler | undefined = undefined;
  /** Where the task is in its life, one of the PHASE values of unit.ts. */
  phase = 0;
  /** Bits of the command under way (data has ended, FUA, …). */
  flags = 0;
  /** Made once per task object and kept when it is reused: told how asynchronous medium operations end. */
  mediumDone: ((result: MediumResult) => void) | undefined = undefined;

  // ---- Data-In, filled by reserveDataIn
  inBuffer: Buffer = EMPTY;
  inOffset = 0;

  /**
   * Asks for `bytes` of Data-Out (the length that the CDB implies). The transport delivers the smaller of it and
   * `expectedDataOut`, to `this.handler`, possibly before this call returns, and accounts for the residual.
   * `whole`: collect everything into one chunk (parameter lists, COMPARE AND WRITE). Chunks are multiples of 512
   * bytes except perhaps the last.
   */
  abstract receiveDataOut(bytes: number, whole: boolean): void;
  /** A stable copy of a chunk, counted against the connection's memory budget and released when the task ends. */
  abstract keep(buffer: Buffer, offset: number, length: number): Buffer;
  /** Nothing that was kept so far is needed any more, though the task goes on: it counts no longer. */
  abstract releaseKept(): void;

  /**
   * Tells how many bytes of Data-In the command produces in all, before the first `reserveDataIn` or
   * `segmentDataIn`: the transport sends the smaller of it and `expectedDataIn`, and accounts for the residual.
   * Returns that smaller number.
   */
  abstract beginDataIn(bytes: number): number;
  /**
   * Room for the next piece of Data-In, at most `bytes`: sets `inBuffer` and `inOffset` and returns the piece's
   * length (> 0). Fill all of it, then `commitDataIn`. Nothing else of this connection may run in between.
   */
  abstract reserveDataIn(bytes: number): number;
  /** Sends the reserved piece; `last` also ends the task with GOOD status. */
  abstract commitDataIn(last: boolean): void;
  /** Drops the reserved piece (the read failed); end the task with `complete` after it. */
  abstract cancelDataIn(): void;
  /** Data-In of that length is about to be made in later turns of the event loop: it counts as if it were held already. */
  abstract expectDataIn(bytes: number): void;
  /** Room for an asynchronous transfer of `bytes` (as returned by beginDataIn), in pieces in order. */
  abstract segmentDataIn(bytes: number): DataInSegment[];
  /** Sends the segments and ends the task with GOOD status. */
  abstract sendSegments(): void;
  /** Copies `data` out as Data-In and ends the task with GOOD status. `data` is already cut to the allocation length. */
  abstract sendDataIn(data: Buffer): void;

  /**
   * Called by the SCSI layer when task management aborts the task: sets `aborted`, stops asking for Data-Out (no
   * handler call follows), and swallows whatever the task sends from now on. It must still be ended with
   * `complete`, when the operations that it has under way are over.
   */
  abstract discard(): void;

  /**
   * Ends the task with a status (SAM-6 §5.3) and, for CHECK CONDITION, sense data (SPC-6 §4.4), which is copied.
   * GOOD for commands without Data-In.
   */
  abstract complete(status: number, sense?: Buffer): void;
}
