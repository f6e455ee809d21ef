/** A memory medium, a memory state store, and a task that plays the transport: what the SCSI tests need around a target. */
import { MEDIUM } from '../../src/scsi/medium.js';
import type { Medium, MediumDone, MediumResult, StateStore } from '../../src/scsi/medium.js';
import type { Nexus } from '../../src/scsi/nexus.js';
import { ScsiTarget } from '../../src/scsi/target.js';
import type { ScsiTargetOptions } from '../../src/scsi/target.js';
import { Task } from '../../src/scsi/task.js';
import type { DataInSegment } from '../../src/scsi/task.js';
import type { LunAccess } from '../../src/scsi/port.js';

const UNIT_BYTES = 4096;
const BLOCK_BYTES = 512;
/** Behind the room of a piece of Data-In, where nothing is to be written. */
const GUARD = Buffer.alloc(64, 0xdd);

/** What the interface promises of every range (src/scsi/medium.ts). */
function whole(position: number, length: number): void {
  if (position % BLOCK_BYTES !== 0 || length % BLOCK_BYTES !== 0 || length <= 0)
    throw new Error(`no whole blocks: ${String(length)} bytes at ${String(position)}`);
}

/** Blocks in memory, with holes, and switches that make it slow, pending or failing. */
export class MemoryMedium implements Medium {
  capacityBytes: number;
  present = true;
  writeProtected = false;
  generation = 1;
  readonly bytes: Buffer;
  readonly mapped: Set<number> = new Set();
  slow = false;
  /** Writes answer PENDING and wait for `release`. */
  held = false;
  fail: MediumResult = MEDIUM.OK;
  flushes = 0;
  holdFlush = false;
  /** What is held. */
  waiting: (() => void)[] = [];

  /** `sparse`: of that size by its word only, for commands that move no data. */
  constructor(capacityBytes: number, { sparse = false } = {}) {
    this.capacityBytes = capacityBytes;
    this.bytes = Buffer.alloc(sparse ? 0 : capacityBytes);
  }

  readsSlowly(): boolean {
    return this.slow;
  }

  read(position: number, buffer: Buffer, offset: number, length: number): MediumResult {
    whole(position, length);
    if (!this.present) return MEDIUM.ABSENT;
    if (this.fail === MEDIUM.READ_ERROR) return this.fail;
    this.bytes.copy(buffer, offset, position, position + length);
    return MEDIUM.OK;
  }

  readAsync(position: number, buffer: Buffer, offset: number, length: number, done: MediumDone): void {
    whole(position, length);
    setImmediate(() => done(this.read(position, buffer, offset, length)));
  }

  write(position: number, buffer: Buffer, offset: number, length: number): MediumResult {
    whole(position, length);
    if (this.writeProtected) return MEDIUM.WRITE_PROTECTED;
    if (this.fail === MEDIUM.FAILED) return this.fail;
    if (this.held) return MEDIUM.PENDING;
    this.put(position, buffer, offset, length);
    return MEDIUM.OK;
  }

  private put(position: number, buffer: Buffer, offset: number, length: number): void {
    buffer.copy(this.bytes, position, offset, offset + length);
    for (let at = position - (position % UNIT_BYTES); at < position + length; at += UNIT_BYTES)
      this.mapped.add(at);
  }

  writeAsync(position: number, buffer: Buffer, offset: number, length: number, done: MediumDone): void {
    whole(position, length);
    this.waiting.push(() => {
      if (this.fail === MEDIUM.FAILED) {
        done(this.fail);
        return;
      }
      this.put(position, buffer, offset, length);
      done(MEDIUM.OK);
    });
    if (!this.held) setImmediate(() => this.release());
  }

  prepareWrite(_position: number, _length: number, done: MediumDone): MediumResult {
    if (this.fail === MEDIUM.FAILED) return this.fail;
    if (!this.held) return MEDIUM.OK;
    this.waiting.push(() => done(this.fail === MEDIUM.FAILED ? this.fail : MEDIUM.OK));
    return MEDIUM.PENDING;
  }

  unmap(position: number, length: number): MediumResult {
    if (this.fail === MEDIUM.FAILED) return this.fail;
    if (this.held) return MEDIUM.PENDING;
    if (this.bytes.length > 0) this.bytes.fill(0, position, position + length);
    const first = Math.ceil(position / UNIT_BYTES) * UNIT_BYTES;
    for (let at = first; at + UNIT_BYTES <= position + length; at += UNIT_BYTES) this.mapped.delete(at);
    return MEDIUM.OK;
  }

  flush(done: MediumDone): void {
    this.flushes++;
    const answer = (): void => done(this.fail === MEDIUM.FAILED ? MEDIUM.FAILED : MEDIUM.OK);
    if (this.holdFlush) this.waiting.push(answer);
    else setImmediate(answer);
  }

  provisioning(position: number, maxBytes: number): { mapped: boolean; lengthBytes: number } {
    const first = position - (position % UNIT_BYTES);
    const mapped = this.mapped.has(first);
    let end = first + UNIT_BYTES;
    const limit = Math.min(this.capacityBytes, position + maxBytes);
    while (end < limit && this.mapped.has(end) === mapped) end += UNIT_BYTES;
    return { mapped, lengthBytes: Math.min(end - position, maxBytes) };
  }

  /** Lets everything that waits go ahead. */
  release(): void {
    this.held = false;
    this.holdFlush = false;
    const { waiting } = this;
    this.waiting = [];
    for (const go of waiting) go();
  }
}

export class MemoryState implements StateStore {
  readonly records = new Map<string, Buffer>();
  fails = false;

  load(key: string): Buffer | undefined {
    return this.records.get(key);
  }

  save(key: string, value: Buffer | undefined, done: (error?: Error) => void): void {
    if (!this.fails) {
      if (value === undefined) this.records.delete(key);
      else this.records.set(key, Buffer.from(value));
    }
    setImmediate(() => done(this.fails ? new Error('no space') : undefined));
  }
}

/** Outcome of a task. */
export interface Outcome {
  status: number;
  sense: Buffer | undefined;
  data: Buffer;
  /** "key/asc/ascq" in hexadecimal, or "" without sense data. */
  code: string;
  aborted: boolean;
  ends: number;
}

/** Plays the transport: collects Data-In, delivers Data-Out in chunks. */
export class TestTask extends Task {
  nexus: Nexus;
  readonly dataIn: Buffer[] = [];
  dataOut: Buffer = Buffer.alloc(0);
  /** Bytes in a chunk of Data-Out, and in a piece of Data-In. */
  chunkBytes = 65_536;
  /** Data-Out is not delivered until `deliver`. */
  withheld = false;
  status = -1;
  sense: Buffer | undefined;
  ends = 0;
  /** Calls of `releaseKept`. */
  releases = 0;
  private asked: { bytes: number; whole: boolean } | undefined;
  private begun = 0;
  private room = 0;
  private segments: DataInSegment[] = [];
  private onEnd: (() => void) | undefined;

  constructor(nexus: Nexus, cdb: readonly number[] | Buffer) {
    super();
    this.nexus = nexus;
    Buffer.from(cdb).copy(this.cdb);
    this.cdbLength = Math.max(16, cdb.length);
  }

  expectDataIn(): void {
    // Counts nothing: a peer that reads nothing is the transport's to bear.
  }

  receiveDataOut(bytes: number, whole: boolean): void {
    this.asked = { bytes, whole };
    if (!this.withheld) this.deliver();
  }

  deliver(): void {
    if (this.asked === undefined || this.aborted) return;
    const { bytes, whole } = this.asked;
    this.asked = undefined;
    const total = Math.min(bytes, this.expectedDataOut);
    const step = whole ? Math.max(1, total) : this.chunkBytes;
    // The transport's buffer is reused after each call: the test scribbles over it.
    for (let at = 0; at < total; at += step) {
      const chunk = Buffer.from(this.dataOut.subarray(at, Math.min(at + step, total)));
      this.handler?.onDataOut(this, chunk, 0, chunk.length);
      chunk.fill(0xee);
    }
    this.handler?.onDataOutEnd(this);
  }

  keep(buffer: Buffer, offset: number, length: number): Buffer {
    return Buffer.from(buffer.subarray(offset, offset + length));
  }

  releaseKept(): void {
    this.releases++;
  }

  beginDataIn(bytes: number): number {
    this.begun = Math.min(bytes, this.expectedDataIn);
    return this.begun;
  }

  reserveDataIn(bytes: number): number {
    this.room = Math.min(bytes, this.chunkBytes);
    this.inBuffer = Buffer.alloc(48 + this.room + GUARD.length, 0xdd);
    this.inOffset = 48;
    return this.room;
  }

  commitDataIn(last: boolean): void {
    if (!this.inBuffer.subarray(48 + this.room).equals(GUARD)) throw new Error('written behind the room');
    this.dataIn.push(Buffer.from(this.inBuffer.subarray(48, 48 + this.room)));
    if (last) this.end(0);
  }

  cancelDataIn(): void {
    this.room = 0;
  }

  segmentDataIn(bytes: number): DataInSegment[] {
    if (bytes !== this.begun) throw new Error('segments are for a whole transfer');
    this.segments = [];
    for (let at = 0; at < bytes; at += this.chunkBytes) {
      const length = Math.min(this.chunkBytes, bytes - at);
      this.segments.push({ buffer: Buffer.alloc(length + 48, 0xdd), offset: 48, length });
    }
    return this.segments;
  }

  sendSegments(): void {
    for (const { buffer, offset, length } of this.segments)
      this.dataIn.push(buffer.subarray(offset, offset + length));
    this.end(0);
  }

  sendDataIn(data: Buffer): void {
    this.dataIn.push(Buffer.from(data.subarray(0, this.expectedDataIn)));
    this.end(0);
  }

  discard(): void {
    this.aborted = true;
  }

  complete(status: number, sense?: Buffer): void {
    if (sense !== undefined) this.sense = Buffer.from(sense);
    this.end(status);
  }

  private end(status: number): void {
    this.status = status;
    this.ends++;
    this.onEnd?.();
  }

  get ended(): boolean {
    return this.ends > 0;
  }

  whenEnded(): Promise<Outcome> {
    return new Promise((resolve) => {
      if (this.ended) resolve(this.outcome());
      else this.onEnd = () => resolve(this.outcome());
    });
  }

  outcome(): Outcome {
    return {
      status: this.status,
      sense: this.sense,
      data: Buffer.concat(this.dataIn),
      code: this.sense === undefined ? '' : senseCode(this.sense),
      aborted: this.aborted,
      ends: this.ends,
    };
  }
}

export function senseCode(sense: Buffer): string {
  const fixed = (sense[0] & 0x7f) === 0x70;
  const parts = fixed ? [sense[2] & 0x0f, sense[12], sense[13]] : [sense[1] & 0x0f, sense[2], sense[3]];
  return parts.map((part) => part.toString(16).padStart(2, '0')).join('/');
}

/** The byte that the field pointer of fixed format sense data names (SPC-6 §4.4.2.4.2); undefined if there is none. */
export function fieldOf({ sense }: Outcome): number | undefined {
  return sense !== undefined && (sense[15] & 0x80) !== 0 ? sense.readUInt16BE(16) : undefined;
}

export interface Warning {
  fields: object;
  message: string;
}

export interface Bench {
  target: ScsiTarget;
  master: MemoryMedium;
  slave: MemoryMedium;
  state: MemoryState;
  warnings: Warning[];
  /** A nexus whose first unit attentions have been taken, unless `fresh`. */
  login: (name?: string, options?: { luns?: LunAccess[]; tag?: number; fresh?: boolean }) => Nexus;
  run: (
    nexus: Nexus,
    lun: number,
    cdb: readonly number[] | Buffer,
    dataOut?: Buffer,
    dataInBytes?: number,
  ) => Promise<Outcome>;
  start: (
    nexus: Nexus,
    lun: number,
    cdb: readonly number[] | Buffer,
    dataOut?: Buffer,
    change?: (task: TestTask) => void,
  ) => TestTask;
}

export const BOTH: LunAccess[] = [
  { lun: 0, unit: 'master', readOnly: false },
  { lun: 1, unit: 'slave', readOnly: false },
];

export function bench(
  options: Partial<ScsiTargetOptions> & {
    state?: MemoryState;
    master?: MemoryMedium;
    slave?: MemoryMedium;
    /** SANITIZE at its usual pace, and not as fast as can be. */
    paced?: boolean;
  } = {},
): Bench {
  const master = options.master ?? new MemoryMedium(8 * 1024 * 1024);
  const slave = options.slave ?? new MemoryMedium(8 * 1024 * 1024);
  slave.writeProtected = true;
  const state = options.state ?? new MemoryState();
  const warnings: Warning[] = [];
  const sink = (fields: object, message: string): void => void warnings.push({ fields, message });
  const target = new ScsiTarget({
    name: 'iqn.2024-01.org.example:disk',
    uuid: '4f9a2c1e-0000-4000-8000-000000000001',
    portalGroupTags: [1, 2],
    ...(options.paced === true ? {} : { sanitizeBytesPerSecond: 1e12 }),
    control: {
      load: (_nexus, done) => {
        slave.present = true;
        slave.generation++;
        target.mediumLoaded();
        done();
      },
      eject: (_nexus, done) => {
        slave.present = false;
        target.mediumRemoved();
        done();
      },
    },
    log: { debug: () => undefined, info: () => undefined, warn: sink, error: sink },
    ...options,
    master,
    slave,
    state,
  });
  const start: Bench['start'] = (nexus, lun, cdb, dataOut, change) => {
    const task = new TestTask(nexus, cdb);
    task.lunHigh = lun << 16;
    task.dataOut = dataOut ?? Buffer.alloc(0);
    task.expectedDataOut = task.dataOut.length;
    task.expectedDataIn = dataOut === undefined ? 16 * 1024 * 1024 : 0;
    change?.(task);
    target.submit(task);
    return task;
  };
  const login: Bench['login'] = (
    name = 'iqn.2024-01.org.example:host',
    { luns = BOTH, tag = 1, fresh = false } = {},
  ) => {
    const nexus = target.attach({
      initiatorName: name,
      initiatorPort: `${name},i,0x00023d000001`,
      portalGroupTag: tag,
      luns,
      address: '192.0.2.1',
    });
    for (const { lun } of fresh ? [] : luns) {
      while (senseCode(start(nexus, lun, [3, 0, 0, 0, 252, 0]).outcome().data).startsWith('06')) continue;
    }
    return nexus;
  };
  return {
    target,
    master,
    slave,
    state,
    warnings,
    login,
    start,
    run: (nexus, lun, cdb, dataOut, dataInBytes) =>
      start(nexus, lun, cdb, dataOut, (task) => {
        if (dataInBytes !== undefined) task.expectedDataIn = dataInBytes;
      }).whenEnded(),
  };
}

/** A 10-byte CDB with an LBA and a length in blocks. */
export function cdb10(opcode: number, lba: number, blocks: number, flags = 0): number[] {
  return [
    opcode,
    flags,
    lba >>> 24,
    (lba >>> 16) & 255,
    (lba >>> 8) & 255,
    lba & 255,
    0,
    blocks >>> 8,
    blocks & 255,
    0,
  ];
}

/** A 16-byte CDB with an LBA and a 32-bit length. */
export function cdb16(opcode: number, lba: number, blocks: number, flags = 0): Buffer {
  const cdb = Buffer.alloc(16);
  cdb[0] = opcode;
  cdb[1] = flags;
  cdb.writeBigUInt64BE(BigInt(lba), 2);
  cdb.writeUInt32BE(blocks, 10);
  return cdb;
}
