/** One initiator of the soak: writes, reads and flushes its own blocks, and comes back whatever happens to it. */
import { isid, OP } from '../../conformance/rfc7143/pdu.js';
import { STATUS, senseTriple } from '../../conformance/rfc7143/scsi.js';
import { Session, type Command, type Outcome } from '../../conformance/rfc7143/session.js';
import { BLOCK_BYTES, fill, identify, read16, synchronizeCache, unmap, write16 } from './content.js';
import type { Model } from './model.js';

type Random = (limit: number) => number;

/** Workers own runs of this many blocks in turn. */
const RUN = 16;
/** A daemon that starts has no time for refused logins. */
const RETRY_MS = 200;
/** A damaged login may leave both sides waiting; the target ends that, or this. */
const WORKER_PATIENCE_MS = 15_000;

/** Writes under way in an abort, which share a run. */
const ABORTED = 4;
const UNIT_ATTENTION = '06';
const ABORT_TASK = 1;
const ABORT_TASK_SET = 2;
const ABORTED_COMMAND = '0b';

export const IQN = 'iqn.2026-01.org.example:soak';

/** The connection is of no more use, which the soak did itself: no fault of the target. */
class Lost extends Error {}

/** What a target may not do, seen by whoever asked for it: the soak has found something. */
export class Found extends Error {}

/** The target said that it does not do it, which it may only while its disc is bad. */
export class Refused extends Found {}

export interface Counts {
  reads: number;
  writes: number;
  unmaps: number;
  flushes: number;
  aborts: number;
  connections: number;
  lost: number;
}

export const noCounts = (): Counts => ({
  reads: 0,
  writes: 0,
  unmaps: 0,
  flushes: 0,
  aborts: 0,
  connections: 0,
  lost: 0,
});

/** Lets workers through, or holds them between two commands. */
export class Gate {
  #held = 0;
  #open: Promise<void> | undefined;
  #release = (): void => undefined;
  readonly #all: number;
  #told = (): void => undefined;

  constructor(all: number) {
    this.#all = all;
  }

  /** Returns once the gate is open. */
  async pass(): Promise<void> {
    while (this.#open !== undefined) {
      this.#held++;
      this.#told();
      await this.#open;
      this.#held--;
    }
  }

  /** Resolves when all workers stand still. */
  async close(): Promise<void> {
    this.#open = new Promise((resolve) => (this.#release = resolve));
    while (this.#held < this.#all) await new Promise<void>((resolve) => (this.#told = resolve));
  }

  open(): void {
    this.#open = undefined;
    this.#release();
  }
}

export class Worker {
  readonly #index: number;
  readonly #of: number;
  readonly #random: Random;
  readonly #model: Model;
  readonly #port: number;
  readonly #digests: boolean;
  readonly #counts: Counts;
  #session: Session | undefined;
  #stopped = false;

  constructor(o: { index: number; of: number; random: Random; model: Model; port: number; counts: Counts }) {
    this.#index = o.index;
    this.#of = o.of;
    this.#random = o.random;
    this.#model = o.model;
    this.#port = o.port;
    this.#digests = true;
    this.#counts = o.counts;
  }

  stop(): void {
    this.#stopped = true;
  }

  async run(gate: Gate): Promise<void> {
    while (!this.#stopped) {
      await gate.pass();
      try {
        this.#session ??= await this.#login();
        for (let n = 0; n < 4; n++) await this.#step(this.#session);
      } catch (error) {
        // Whatever broke, the target's rules were kept on the way, or the network is to blame.
        if (!(error instanceof Error)) throw error;
        if (error instanceof Refused && !this.#model.discIsBad) this.#model.violations.push(error.message);
        this.#counts.lost++;
        this.#session?.connection.destroy();
        this.#session = undefined;
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
    await this.#session?.logout().catch(() => undefined);
    this.#session?.connection.destroy();
  }

  async #login(): Promise<Session> {
    this.#counts.connections++;
    return await login(this.#port, this.#index, this.#digests);
  }

  async #step(session: Session): Promise<void> {
    const runs = Math.floor(this.#model.blocks / RUN / this.#of);
    const block = (this.#random(runs) * this.#of + this.#index) * RUN;
    switch (this.#random(16)) {
      case 0: {
        await this.#flush(session);
        return;
      }
      case 1: {
        await this.#unmap(session, block);
        return;
      }
      case 2: {
        await this.#abort(session, block);
        return;
      }
      case 3:
      case 4:
      case 5:
      case 6:
      case 7: {
        await this.#read(session, block, RUN);
        return;
      }
      default: {
        await this.#write(session, block + this.#random(8), 1 + this.#random(8));
        return;
      }
    }
  }

  async #write(session: Session, block: number, blocks: number): Promise<void> {
    const durable = this.#random(4) === 0;
    const { versions, data } = this.#make(block, blocks);
    const command: Command = { cdb: write16(block, blocks, durable), write: data };
    if (this.#random(2) === 0) command.immediateBytes = data.length;
    await good(session, command);
    versions.forEach((version, at) => this.#model.acknowledge(block + at, version, durable));
    this.#counts.writes++;
  }

  #make(block: number, blocks: number): { versions: ReturnType<Model['issue']>[]; data: Buffer } {
    const data = Buffer.alloc(blocks * BLOCK_BYTES);
    const versions = Array.from({ length: blocks }, (_, at) => {
      const version = this.#model.issue(block + at);
      fill(data, at * BLOCK_BYTES, block + at, version.sequence, this.#model.generation);
      return version;
    });
    return { versions, data };
  }

  async #unmap(session: Session, block: number): Promise<void> {
    const versions = Array.from({ length: RUN }, (_, at) => this.#model.issue(block + at, true));
    await good(session, unmap(block, RUN));
    versions.forEach((version, at) => this.#model.acknowledge(block + at, version, false));
    this.#counts.unmaps++;
  }

  async #read(session: Session, block: number, blocks: number): Promise<void> {
    const { era } = this.#model;
    const { data } = await good(session, { cdb: read16(block, blocks), read: blocks * BLOCK_BYTES });
    if (era !== this.#model.era) return;
    for (let at = 0; at < blocks; at++) {
      this.#model.read(block + at, identify(data, at * BLOCK_BYTES, block + at), `initiator ${this.#index}`);
    }
    this.#counts.reads++;
  }

  async #flush(session: Session): Promise<void> {
    const done = this.#model.beginFlush();
    await good(session, { cdb: synchronizeCache() });
    done();
    this.#counts.flushes++;
  }

  /** Writes that are aborted one by one or all at once, before their data have come, or after: done or not, never half. */
  async #abort(session: Session, block: number): Promise<void> {
    const pieces = RUN / ABORTED;
    const datas = Array.from({ length: ABORTED }, (_, n) => this.#make(block + n * pieces, pieces).data);
    const refCmdSN = session.cmdSN;
    const tags = datas.map((data, n) =>
      session.sendCommand({ cdb: write16(block + n * pieces, pieces, false), write: data }),
    );
    const managed =
      this.#random(2) === 0
        ? session.sendManage(ABORT_TASK_SET)
        : tags.map((referencedTag, n) =>
            session.sendManage(ABORT_TASK, { referencedTag, refCmdSN: refCmdSN + n }),
          )[ABORTED - 1];
    for (;;) {
      const pdu = await session.next();
      if (pdu === undefined) throw new Lost('closed');
      const data = datas[tags.indexOf(pdu.itt)];
      if (pdu.opcode === OP.R2T && data !== undefined && this.#random(2) === 0) session.answerR2T(pdu, data);
      if (pdu.opcode === OP.TASK_MANAGEMENT_RESPONSE && pdu.itt === managed) break;
    }
    trusted(session);
    this.#counts.aborts++;
    await this.#read(session, block, RUN);
  }
}

/** A session of initiator `index`: the same name and ISID each time, so that it takes the place of a lost one. */
export async function login(
  port: number,
  index: number,
  digests: boolean,
  patienceMs = WORKER_PATIENCE_MS,
): Promise<Session> {
  const target = {
    host: '127.0.0.1',
    port,
    iqn: IQN,
    lun: 0,
    profile: {},
    sessions: [] as Session[],
    freshIsid: () => isid(0x700 + index),
    stop: () => Promise.resolve(),
  };
  const digest = { HeaderDigest: 'CRC32C', DataDigest: 'CRC32C' };
  const session = await Session.connect(target);
  session.connection.patienceMs = patienceMs;
  try {
    await session.enter(target, {
      initiatorName: `iqn.2026-01.org.example:soak-${index}`,
      keys: { MaxRecvDataSegmentLength: '262144', ...(digests ? digest : {}) },
    });
    // A login damaged on its way may have agreed on less, and then nobody would notice the next damage.
    if (digests && !(session.connection.headerDigest && session.connection.dataDigest))
      throw new Lost('no digests');
    return session;
  } catch (error) {
    session.connection.destroy();
    throw error;
  }
}

/** Executes until no unit attention is in the way; anything but GOOD makes the session of no use. */
export async function good(session: Session, command: Command): Promise<Outcome> {
  for (;;) {
    const outcome = await session.execute(command);
    trusted(session);
    if (outcome.status === STATUS.GOOD) return outcome;
    const again = outcome.status === STATUS.BUSY || outcome.status === STATUS.TASK_SET_FULL;
    if (again || senseTriple(outcome.sense).startsWith(UNIT_ATTENTION)) continue;
    const sense = senseTriple(outcome.sense);
    // What a digest found out on its way here ends so.
    if (sense.startsWith(ABORTED_COMMAND)) throw new Lost(sense);
    throw new Refused(`opcode ${command.cdb[0]}: status ${outcome.status}, sense ${sense}`);
  }
}

/** What came with a wrong digest was damaged on the way, and is not believed. */
function trusted(session: Session): void {
  if (session.connection.violations.length > 0) throw new Lost(session.connection.violations.join('; '));
}
