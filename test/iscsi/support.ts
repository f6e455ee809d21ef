/** A SCSI target of a few commands over memory, so that the iSCSI layer is tested without the layers below. */
import { Nexus } from '../../src/scsi/nexus.js';
import type { NexusEnd, NexusOptions, ScsiPort, TaskManagementRequest } from '../../src/scsi/port.js';
import type { DataOutHandler, Task } from '../../src/scsi/task.js';
import {
  DEFAULT_LIMITS,
  type IscsiLimits,
  type IscsiServerOptions,
  type IscsiTargetOptions,
} from '../../src/iscsi/options.js';
import { IscsiServer } from '../../src/iscsi/server.js';

export const TARGET = 'iqn.2026-11.example:memory';

const GOOD = 0;
const CHECK_CONDITION = 2;

/** Fixed-format sense: ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE. */
const INVALID_OPCODE = Buffer.from([0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0]);

export class MemoryPort implements ScsiPort {
  readonly memory: Buffer;
  readonly attached = new Set<Nexus>();
  readonly ends: NexusEnd[] = [];
  /** Reads of LBAs from here on never end by themselves: they wait in `stuck`. */
  stuckFromLba = Infinity;
  readonly stuck = new Set<Task>();
  /** Stuck writes keep their data until `unstick`. */
  keeps = false;
  /** Bytes kept. */
  keptBytes = 0;
  /** Reads are answered in a later turn, through `segmentDataIn`. */
  asynchronous = false;
  answered = 0;
  /** Task management functions end when `endFunctions` says so. */
  slowFunctions = false;
  readonly #functions: (() => void)[] = [];

  constructor(bytes: number) {
    this.memory = Buffer.alloc(bytes);
  }

  attach(options: NexusOptions): Nexus {
    const nexus = new Nexus(options);
    this.attached.add(nexus);
    return nexus;
  }

  detach(nexus: Nexus, why: NexusEnd): void {
    this.attached.delete(nexus);
    this.ends.push(why);
    for (const task of [...this.stuck]) if (task.nexus === nexus) this.#abort(task);
  }

  changeAccess(nexus: Nexus, luns: NexusOptions['luns']): void {
    nexus.luns = luns;
  }

  commandsCleared(): void {
    // No unit attentions here.
  }

  manage(request: TaskManagementRequest, done: (response: number, additional: number) => void): void {
    const { task } = request;
    const end = (): void => {
      if (task !== undefined && this.stuck.has(task)) this.#abort(task);
      done(0, 0);
    };
    if (!this.slowFunctions) end();
    else {
      task?.discard();
      this.#functions.push(end);
    }
  }

  endFunctions(): void {
    this.slowFunctions = false;
    for (const end of this.#functions.splice(0)) end();
  }

  #abort(task: Task): void {
    this.stuck.delete(task);
    task.pending = 0;
    task.discard();
    task.complete(0x40);
  }

  readonly #write: DataOutHandler = {
    onDataOut: (task, buffer, offset, length) => {
      buffer.copy(this.memory, task.position, offset, offset + length);
      task.position += length;
    },
    onDataOutEnd: (task) => task.complete(GOOD),
  };

  /** As a slow medium would: an operation is under way while data are kept. */
  readonly #hold: DataOutHandler = {
    onDataOut: (task, buffer, offset, length) => {
      task.keep(buffer, offset, length);
      task.scratch = Number(task.scratch ?? 0) + length;
      this.keptBytes += length;
      task.pending = 1;
      if (!this.keeps) setImmediate(() => this.#written(task));
    },
    onDataOutEnd: (task) => {
      task.remaining = 0;
      if (task.pending > 0) return;
      this.stuck.delete(task);
      task.complete(GOOD);
    },
  };

  #written(task: Task): void {
    if (task.pending === 0 || !this.stuck.has(task)) return;
    task.pending = 0;
    this.keptBytes -= Number(task.scratch);
    task.scratch = 0;
    task.releaseKept();
    if (task.remaining > 0) return;
    this.stuck.delete(task);
    task.complete(GOOD);
  }

  /** The medium works again. */
  unstick(): void {
    this.keeps = false;
    for (const task of this.stuck) this.#written(task);
  }

  submit(task: Task): void {
    task.pending = 0;
    task.remaining = 1;
    task.scratch = undefined;
    const { cdb } = task;
    const lba = cdb.readUInt32BE(2);
    const bytes = cdb.readUInt16BE(7) * 512;
    switch (cdb[0]) {
      case 0x00:
        task.complete(GOOD);
        return;
      case 0x12:
        task.sendDataIn(
          Buffer.from('\x00\x00\x05\x02\x1f\x00\x00\x02CLDD    MEMORY          0001', 'latin1'),
        );
        return;
      case 0x25: {
        const capacity = Buffer.alloc(8);
        capacity.writeUInt32BE(this.memory.length / 512 - 1, 0);
        capacity.writeUInt32BE(512, 4);
        task.sendDataIn(capacity);
        return;
      }
      case 0x28:
        if (lba >= this.stuckFromLba) this.stuck.add(task);
        else this.#read(task, lba * 512, bytes);
        return;
      case 0x2a:
        if (lba >= this.stuckFromLba) this.stuck.add(task);
        task.position = lba * 512;
        task.handler = this.keeps ? this.#hold : this.#write;
        task.receiveDataOut(bytes, false);
        return;
      case 0xa0:
        task.sendDataIn(Buffer.from([0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        return;
      default:
        task.complete(CHECK_CONDITION, INVALID_OPCODE);
    }
  }

  #readLater(task: Task, position: number, bytes: number): void {
    const segments = task.segmentDataIn(bytes);
    task.pending = 1;
    setImmediate(() => {
      task.pending = 0;
      let at = position;
      for (const { buffer, offset, length } of segments) {
        this.memory.copy(buffer, offset, at, at + length);
        at += length;
      }
      this.answered++;
      task.sendSegments();
    });
  }

  #read(task: Task, position: number, bytes: number): void {
    let left = task.beginDataIn(bytes);
    if (left === 0) task.complete(GOOD);
    else if (this.asynchronous) {
      this.#readLater(task, position, left);
      return;
    }
    for (let at = position; left > 0;) {
      const length = task.reserveDataIn(left);
      this.memory.copy(task.inBuffer, task.inOffset, at, at + length);
      at += length;
      left -= length;
      task.commitDataIn(left === 0);
    }
  }
}

export const SILENT = {
  debug: (): void => undefined,
  info: (): void => undefined,
  warn: (): void => undefined,
  error: (): void => undefined,
};

/** A server on a port that the system picks, with one memory target that everybody may use. */
export async function startServer(
  limits: Partial<IscsiLimits> = {},
  target: Partial<IscsiTargetOptions> = {},
  server: Partial<IscsiServerOptions> = {},
): Promise<{ server: IscsiServer; port: number; memory: MemoryPort }> {
  const memory = new MemoryPort(64 << 20);
  const nobody = { users: [], algorithms: [] };
  const iscsi = new IscsiServer({
    portals: [{ host: '127.0.0.1', port: 0, portalGroupTag: 1 }],
    targets: [
      {
        name: TARGET,
        port: memory,
        access: () => [{ lun: 0, unit: 'master', readOnly: false }],
        authentication: () => nobody,
        ...target,
      },
    ],
    discoveryAuthentication: () => nobody,
    limits: { ...DEFAULT_LIMITS, ...limits },
    log: SILENT,
    ...server,
  });
  const [{ port }] = await iscsi.listen();
  return { server: iscsi, port, memory };
}
