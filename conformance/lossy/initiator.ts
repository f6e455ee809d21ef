/**
 * An initiator that recovers at error recovery levels 1 and 2 (RFC 7143 §7), as far as a test of a target needs one: it
 * keeps a number of commands under way, retries, asks by SNACK, reconnects and reassigns, and gives up on nothing.
 */
import { Link } from './link.js';
import { ClientTask, type Work } from './task.js';
import { nopOut, OP, type Pdu } from '../rfc7143/pdu.js';

const TICK_MS = 20;
/** Silence after which something is taken for lost. */
const OVERDUE_MS = 80;
const DATA_DIGEST_ERROR = 2;

export interface InitiatorOptions {
  port: number;
  targetName: string;
  isid: Buffer;
  level: number;
  connections: number;
  keys: Record<string, string>;
}

export interface InitiatorCounts {
  commands: number;
  retries: number;
  asked: number;
  statusSnacks: number;
  rejects: number;
  reconnects: number;
  reassigned: number;
  badHeaders: number;
  badData: number;
}

export class RecoveringInitiator {
  readonly #options: InitiatorOptions;
  readonly counts: InitiatorCounts = {
    commands: 0,
    retries: 0,
    asked: 0,
    statusSnacks: 0,
    rejects: 0,
    reconnects: 0,
    reassigned: 0,
    badHeaders: 0,
    badData: 0,
  };
  #links: Link[] = [];
  #tsih = 0;
  #cmdSN = 1;
  #expCmdSN = 1;
  #maxCmdSN = 1;
  #itt = 1;
  #advancedMs = 0;
  readonly #tasks = new Map<number, { task: ClientTask; done: () => void }>();
  /** Tasks by the tag of their TASK REASSIGN. */
  readonly #reassigning = new Map<number, ClientTask>();
  #timer: NodeJS.Timeout | undefined;
  #waiting: (() => void)[] = [];
  #failed: Error | undefined;
  onFailure: ((error: Error) => void) | undefined;

  constructor(options: InitiatorOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    for (let cid = 1; cid <= this.#options.connections; cid++) this.#links.push(await this.#connect(cid));
    this.#timer = setInterval(() => this.#tick(performance.now()), TICK_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
    for (const link of this.#links) {
      link.onDead = undefined;
      link.die();
      this.#count(link);
    }
  }

  async #connect(cid: number): Promise<Link> {
    const { port, targetName, isid, keys, level, connections } = this.#options;
    const leading = {
      ErrorRecoveryLevel: String(level),
      MaxConnections: String(connections),
      DefaultTime2Wait: '0',
      DefaultTime2Retain: '20',
      InitialR2T: 'No',
      ImmediateData: 'Yes',
      ...keys,
    };
    const link = await Link.open({
      port,
      targetName,
      isid,
      tsih: this.#tsih,
      cid,
      cmdSN: this.#cmdSN,
      keys: {
        HeaderDigest: 'CRC32C',
        DataDigest: 'CRC32C',
        MaxRecvDataSegmentLength: '8192',
        ...(this.#tsih === 0 ? leading : {}),
      },
    });
    this.#tsih = link.tsih;
    if (this.#maxCmdSN === 1) this.#maxCmdSN = 32;
    link.onPdu = (pdu) => this.#take(link, pdu);
    link.onDead = () => void this.#reconnect(link);
    return link;
  }

  /** A new connection takes the CID of the one that broke, which logs that out, and its tasks with it. */
  async #reconnect(dead: Link): Promise<void> {
    this.#count(dead);
    if (this.#options.level < 2) {
      this.#fail(new Error('the connection ended at level 1'));
      return;
    }
    this.counts.reconnects++;
    let link: Link | undefined;
    for (let tries = 0; link === undefined; tries++) {
      try {
        link = await this.#connect(dead.cid);
      } catch (error) {
        if (tries > 20) {
          this.#fail(error instanceof Error ? error : new Error(String(error)));
          return;
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
    this.#links = this.#links.map((one) => (one === dead ? link : one));
    for (const { task } of this.#tasks.values()) if (task.link === dead) this.#reassign(task, link);
  }

  #reassign(task: ClientTask, link: Link): void {
    this.#reassigning.delete(task.reassignTag);
    const tag = this.#itt++;
    this.#reassigning.set(tag, task);
    this.counts.reassigned++;
    task.reassign(link, tag, this.#cmdSN, performance.now());
  }

  #count(link: Link): void {
    this.counts.badHeaders += link.counts.badHeaders;
    this.counts.badData += link.counts.badData;
    this.counts.statusSnacks += link.counts.statusSnacks;
  }

  #fail(error: Error): void {
    this.#failed ??= error;
    this.onFailure?.(this.#failed);
  }

  /** Runs one command to its end; resolves with its status and data. */
  async run(work: Work, worker: number): Promise<ClientTask> {
    while (((this.#cmdSN - this.#maxCmdSN) | 0) > 0)
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    if (this.#failed !== undefined) throw this.#failed;
    const cmdSN = this.#cmdSN;
    this.#cmdSN = (cmdSN + 1) >>> 0;
    const link = this.#links[worker % this.#links.length];
    if (link === undefined) throw new Error('no connection');
    const task = new ClientTask(this.#itt++, cmdSN, work, link);
    this.counts.commands++;
    await new Promise<void>((resolve) => {
      this.#tasks.set(task.itt, { task, done: resolve });
      task.send(performance.now());
    });
    return task;
  }

  #take(link: Link, pdu: Pdu): void {
    const nowMs = performance.now();
    if (((pdu.expCmdSN - this.#expCmdSN) | 0) > 0) {
      this.#expCmdSN = pdu.expCmdSN;
      this.#advancedMs = nowMs;
    }
    if (((pdu.maxCmdSN - this.#maxCmdSN) | 0) > 0) {
      this.#maxCmdSN = pdu.maxCmdSN;
      for (const waiting of this.#waiting.splice(0)) waiting();
    }
    const entry = this.#tasks.get(pdu.itt);
    if (entry !== undefined && entry.task.link === link) {
      const { task, done } = entry;
      task.take(pdu, nowMs);
      const statSN = task.finishedBy;
      if (statSN === undefined) {
        // The response is here and data are missing: what is missing is known.
        if (pdu.opcode === OP.SCSI_RESPONSE) this.#ask(task, nowMs);
        return;
      }
      this.#tasks.delete(task.itt);
      this.#reassigning.delete(task.reassignTag);
      link.finished(statSN);
      done();
      return;
    }
    if (pdu.opcode === OP.NOP_IN && pdu.itt === 0xffffffff) {
      if (pdu.ttt !== 0xffffffff)
        link.send(
          nopOut({ itt: 0xffffffff, ttt: pdu.ttt, immediate: true, cmdSN: this.#cmdSN, expStatSN: 0 }).bytes(
            8,
            pdu.bhs.subarray(8, 16),
          ),
        );
      return;
    }
    if (pdu.opcode === OP.R2T || pdu.opcode === OP.DATA_IN) return;
    if (pdu.opcode === OP.REJECT) this.#rejected(pdu, nowMs);
    else if (pdu.opcode === OP.TASK_MANAGEMENT_RESPONSE) this.#reassigned(pdu, nowMs);
    link.finished(pdu.statSN);
  }

  #rejected(pdu: Pdu, nowMs: number): void {
    this.counts.rejects++;
    const opcode = pdu.data.readUInt8(0) & 0x3f;
    const entry = this.#tasks.get(pdu.data.readUInt32BE(16));
    if (pdu.response !== DATA_DIGEST_ERROR || opcode !== OP.SCSI_COMMAND || entry === undefined) return;
    this.counts.retries++;
    entry.task.send(nowMs);
  }

  /** 0 and 3: it belongs to the new connection now. 1: the command itself never arrived. */
  #reassigned(pdu: Pdu, nowMs: number): void {
    const task = this.#reassigning.get(pdu.itt);
    if (task === undefined) return;
    this.#reassigning.delete(pdu.itt);
    task.reassignTag = 0;
    if (pdu.response === 1) {
      this.counts.retries++;
      task.send(nowMs);
    } else if (pdu.response !== 0 && pdu.response !== 3)
      this.#fail(new Error(`TASK REASSIGN: ${pdu.response}`));
  }

  #ask(task: ClientTask, nowMs: number): void {
    this.counts.asked++;
    task.ask(nowMs);
  }

  #tick(nowMs: number): void {
    const pinged = new Set<Link>();
    for (const { task } of this.#tasks.values()) {
      if (task.link.dead || nowMs - task.heardMs < OVERDUE_MS) continue;
      const waits = ((task.cmdSN - this.#expCmdSN) | 0) >= 0;
      if (task.reassignTag !== 0) this.#reassign(task, task.link);
      else if (task.cmdSN === this.#expCmdSN && nowMs - this.#advancedMs >= OVERDUE_MS) {
        this.counts.retries++;
        task.send(nowMs);
      } else if (!waits) this.#ask(task, nowMs);
      pinged.add(task.link);
    }
    // The answer shows which statuses were sent, ExpCmdSN, and where the next PDU begins.
    for (const link of pinged)
      link.send(nopOut({ itt: this.#itt++, immediate: true, cmdSN: this.#cmdSN, expStatSN: 0 }));
    for (const link of this.#links) link.askForStatuses(nowMs);
  }
}
