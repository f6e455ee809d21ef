/** The two sides of a partition, shaped as the SCSI layer's Medium asks. */

import type { Engine } from './engine.js';
import { PAGE_COVERS_BYTES } from './format.js';
import { endOfRun } from './reader.js';
import { RESULT } from './results.js';
import type { Result, ResultDone } from './results.js';
import { SlowReads } from './slow-reads.js';
import { BLOCK_BYTES, HOLE, LOCATION_OF_BASE, LOCATION_OF_MASTER } from './states.js';
import type { LocationTable } from './states.js';

abstract class Side {
  protected readonly engine: Engine;
  readonly #table: LocationTable;
  readonly #slowReads: SlowReads;

  constructor(engine: Engine, table: LocationTable, slowReads: SlowReads) {
    this.engine = engine;
    this.#table = table;
    this.#slowReads = slowReads;
  }

  get capacityBytes(): number {
    return this.engine.core.capacityBytes;
  }

  get generation(): number {
    return this.engine.core.superblock.generation;
  }

  abstract get present(): boolean;

  readsSlowly(): boolean {
    return this.#slowReads.next();
  }

  read(position: number, buffer: Buffer, offset: number, length: number): Result {
    if (!this.present) return RESULT.ABSENT;
    const begin = performance.now();
    const { reader } = this.engine;
    const result = reader.read(this.#table, position, buffer, offset, length);
    this.#slowReads.note(performance.now() - begin, Math.max(length, reader.bytesRead));
    return result;
  }

  readAsync(position: number, buffer: Buffer, offset: number, length: number, done: ResultDone): void {
    if (!this.present) process.nextTick(done, RESULT.ABSENT);
    else if (length === 0) process.nextTick(done, RESULT.OK);
    else this.engine.reader.readAsync(this.#table, position, buffer, offset, length, done);
  }

  provisioning(position: number, maxBytes: number): { mapped: boolean; lengthBytes: number } {
    const end = Math.min(this.capacityBytes, position + maxBytes);
    let mapped: boolean | undefined;
    let at = position;
    while (at < end) {
      const segment = this.engine.core.segmentAt(at);
      const inSegment = at - segment.masterOffset;
      const pageIndex = Math.floor(inSegment / PAGE_COVERS_BYTES);
      const inPage = inSegment - pageIndex * PAGE_COVERS_BYTES;
      const pageEnd = Math.min(
        PAGE_COVERS_BYTES,
        inPage + end - at,
        inPage + segment.masterBytes - inSegment,
      );
      const { states } = this.engine.map.forReading(segment.firstPage + pageIndex);
      const here = this.#table[states[Math.floor(inPage / BLOCK_BYTES)]] !== HOLE;
      if (mapped !== undefined && mapped !== here) break;
      mapped = here;
      at += Math.min(pageEnd, endOfRun(this.#table, states, inPage, pageEnd)) - inPage;
    }
    return { mapped: mapped ?? false, lengthBytes: at - position };
  }
}

/** LUN 0: what users work on. */
export class MasterMedium extends Side {
  readonly present = true;
  readonly writeProtected = false;

  constructor(engine: Engine) {
    super(engine, LOCATION_OF_MASTER, new SlowReads());
  }

  write(position: number, buffer: Buffer, offset: number, length: number): Result {
    const { writer } = this.engine;
    const admitted = writer.admit(position, length);
    return admitted === RESULT.OK ? writer.write(position, buffer, offset, length) : admitted;
  }

  writeAsync(position: number, buffer: Buffer, offset: number, length: number, done: ResultDone): void {
    this.#writeWhenAdmitted(position, buffer, offset, length).then(done, (error: unknown) => {
      this.engine.core.fail(error);
      done(RESULT.FAILED);
    });
  }

  async #writeWhenAdmitted(
    position: number,
    buffer: Buffer,
    offset: number,
    length: number,
  ): Promise<Result> {
    // Never before the call returned, and admission must come in the same turn as the write.
    await Promise.resolve();
    let admitted = this.engine.writer.admit(position, length);
    while (admitted === RESULT.PENDING) {
      const outcome = await this.engine.obstacle(position, length, false);
      admitted = outcome === RESULT.OK ? this.engine.writer.admit(position, length) : outcome;
    }
    return admitted === RESULT.OK ? this.engine.writer.write(position, buffer, offset, length) : admitted;
  }

  /** Also vouches for the first step of an `unmap` of the range. */
  prepareWrite(position: number, length: number, done: ResultDone): Result {
    const admitted = this.engine.writer.admit(position, length);
    if (admitted === RESULT.PENDING) {
      this.engine.obstacle(position, length, false).then(
        (outcome) => done(outcome === RESULT.PENDING ? RESULT.OK : outcome),
        (error: unknown) => {
          this.engine.core.fail(error);
          done(RESULT.FAILED);
        },
      );
    }
    return admitted;
  }

  /**
   * In steps of a map page's range, since there is room for the flips of one, however small the journal is. So where it
   * has to wait, a part may be done; who asks again asks for all of it.
   */
  unmap(position: number, length: number): Result {
    const { writer } = this.engine;
    const end = position + length;
    for (let from = position; from < end;) {
      const next = Math.min(end, (Math.floor(from / PAGE_COVERS_BYTES) + 1) * PAGE_COVERS_BYTES);
      const admitted = writer.admit(from, next - from, true);
      const result = admitted === RESULT.OK ? writer.unmap(from, next - from) : admitted;
      if (result !== RESULT.OK) return result;
      from = next;
    }
    return RESULT.OK;
  }

  flush(done: ResultDone): void {
    if (this.engine.core.failure !== undefined) process.nextTick(done, RESULT.FAILED);
    else this.engine.committer.flush((error) => done(error === undefined ? RESULT.OK : RESULT.FAILED));
  }
}

/** LUN 1: the master as it was at the last enable; absent while the slave is disabled. */
export class SlaveMedium extends Side {
  readonly writeProtected = true;

  constructor(engine: Engine) {
    super(engine, LOCATION_OF_BASE, new SlowReads());
  }

  get present(): boolean {
    return this.engine.core.superblock.enabled && !this.engine.slaveLeaving;
  }

  override readAsync(
    position: number,
    buffer: Buffer,
    offset: number,
    length: number,
    done: ResultDone,
  ): void {
    this.engine.slaveReadBegins();
    super.readAsync(position, buffer, offset, length, (result) => {
      this.engine.slaveReadEnds();
      done(result);
    });
  }

  write(): Result {
    return RESULT.WRITE_PROTECTED;
  }

  writeAsync(_position: number, _buffer: Buffer, _offset: number, _length: number, done: ResultDone): void {
    process.nextTick(done, RESULT.WRITE_PROTECTED);
  }

  prepareWrite(): Result {
    return RESULT.WRITE_PROTECTED;
  }

  unmap(): Result {
    return RESULT.WRITE_PROTECTED;
  }

  /** Nothing was ever written here. */
  flush(done: ResultDone): void {
    process.nextTick(done, this.present ? RESULT.OK : RESULT.ABSENT);
  }
}
