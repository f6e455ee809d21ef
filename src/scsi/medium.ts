/**
 * The one interface between the SCSI layer and whatever stores its blocks.
 *
 * The CLDD engine (src/cow) satisfies it by shape, without importing it; the daemon joins the two and the
 * compiler checks the fit there. Positions and lengths are bytes, and multiples of 512 unless said otherwise.
 * Nothing here allocates per call, because every command passes through it.
 */

/** How an operation on a medium went. Plain numbers, so that the hot path allocates nothing. */
export const MEDIUM = {
  /** Done. */
  OK: 0,
  /** Nothing was done: the range can't be written at once. Ask `prepareWrite`, or use `writeAsync`. */
  PENDING: 1,
  /** The device could not be read here (MEDIUM ERROR, UNRECOVERED READ ERROR). */
  READ_ERROR: 2,
  /** The partition has failed and takes no more writes (HARDWARE ERROR); reads may go on. */
  FAILED: 3,
  /** No medium: the slave is disabled (NOT READY, MEDIUM NOT PRESENT). */
  ABSENT: 4,
  /** This side is never written (DATA PROTECT). */
  WRITE_PROTECTED: 5,
} as const;
export type MediumResult = (typeof MEDIUM)[keyof typeof MEDIUM];

/** Told how an asynchronous operation ended; never MEDIUM.PENDING. Never called before the call returned. */
export type MediumDone = (result: MediumResult) => void;

/** One side of a partition: the master, or the frozen slave. */
export interface Medium {
  /** Usable size in bytes, a multiple of 4,096. Changes only with a grow. */
  readonly capacityBytes: number;
  /** False while the slave is disabled; always true for the master. */
  readonly present: boolean;
  /** True for the slave. */
  readonly writeProtected: boolean;
  /** Counts the enables of this partition; 0 before the first. The medium in the slave is named by it. */
  readonly generation: number;

  /** True if the next read of that length would probably block the event loop: use `readAsync` then. */
  readsSlowly(length: number): boolean;
  /** Fills `length` bytes of `buffer` from `offset`. Holes read as zeros. Never MEDIUM.PENDING. */
  read(position: number, buffer: Buffer, offset: number, length: number): MediumResult;
  /** As `read`, through the thread pool. The buffer must stay untouched until `done`. */
  readAsync(position: number, buffer: Buffer, offset: number, length: number, done: MediumDone): void;

  /** Writes at once (not yet durable), or answers MEDIUM.PENDING having written nothing. */
  write(position: number, buffer: Buffer, offset: number, length: number): MediumResult;
  /** Writes as soon as it may. The buffer must stay untouched until `done`. */
  writeAsync(position: number, buffer: Buffer, offset: number, length: number, done: MediumDone): void;
  /**
   * MEDIUM.OK if a `write` or `unmap` of the range would go ahead now, so that a read, a comparison and the write
   * can run in one turn of the event loop and be atomic. MEDIUM.PENDING: `done` is called when it is worth asking
   * again (the answer may then be PENDING once more).
   */
  prepareWrite(position: number, length: number, done: MediumDone): MediumResult;
  /**
   * Makes the range read as zeros: whole 4 KiB blocks become holes, remaining edges are written with zeros.
   * MEDIUM.PENDING as for `write`, except that a part may be done: ask again for all of it.
   */
  unmap(position: number, length: number): MediumResult;

  /** All writes and unmaps that completed before this call are durable when `done` says MEDIUM.OK. */
  flush(done: MediumDone): void;

  /**
   * The run of equal provisioning that begins at `position`, for GET LBA STATUS: `mapped` tells whether it holds
   * data (false: a hole, which reads as zeros), `lengthBytes` how far it reaches, at most `maxBytes`.
   */
  provisioning(position: number, maxBytes: number): { mapped: boolean; lengthBytes: number };
}

/** Which blocks may differ between generations of the slave's medium. */
export interface ChangeMap {
  /**
   * What may differ between the image of generation `since` and the master or slave as it is now, within `position` and
   * `end`, ascending: more may be listed than has changed, never less. Undefined: there has been no such generation, or
   * initiators may not ask.
   */
  changedRanges(
    since: number,
    position: number,
    end: number,
  ): AsyncIterable<{ position: number; length: number }> | undefined;
}

/**
 * Small durable records kept inside the partition, so that they move with it (persistent reservations, saved mode
 * pages, which initiators have been told of a medium change).
 */
export interface StateStore {
  /** The record as last saved, or undefined. */
  load(key: string): Buffer | undefined;
  /** Replaces the record (undefined deletes it). `done` gets an error if it is not durable. At most 256 KiB in all. */
  save(key: string, value: Buffer | undefined, done: (error?: Error) => void): void;
}
