/**
 * The soak: initiators with verified I/O behind a bad network, while slaves come and go, the daemon is killed, and
 * everything that an operator may do is done. Each actor draws from its own stream of the seed; what meets what
 * depends on time, too.
 */
import { connect } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { randomFrom } from '../../conformance/rfc7143/fuzz.js';
import { NO_TAG, OP } from '../../conformance/rfc7143/pdu.js';
import type { Session } from '../../conformance/rfc7143/session.js';
import { BLOCK_BYTES, identify, read16, synchronizeCache } from './content.js';
import { Host, type Resources } from './host.js';
import { Model } from './model.js';
import { BadNetwork } from './proxy.js';
import { Found, Gate, good, login, noCounts, Worker, type Counts } from './worker.js';

export interface SoakReport {
  counts: Counts & Record<string, number>;
  violations: readonly string[];
  before: Resources;
  after: Resources;
  connectionsLeft: number;
  exitCode: number | undefined;
  checkCode: number | undefined;
}

const WORKERS = 3;
const CHECKER = 90;
const CHECKER_PATIENCE_MS = 60_000;
const CHUNK_BLOCKS = 64;
const GROWS_MAX = 3;
const BAD_MS = 1000;
const FIRST = [
  'slaveSteps',
  'kills',
  'slaveSteps',
  'badWrites',
  'badReads',
  'noRoom',
  'discFull',
  'corruptions',
  'storms',
  'kills',
  'reloads',
  'hammers',
  'resets',
  'grows',
  'slaveSteps',
  'delays',
  'unitResets',
];
/** Task management functions of a storm that leave the connection as it is (RFC 7143 §11.5.1, RFC 7144 §9.1). */
const STORM = { functions: [1, 2, 3, 4, 5, 8, 9, 10, 12], count: 64, logicalUnitReset: 5 };
const LOGICAL_UNIT_RESET = STORM.logicalUnitReset;

export class Soak {
  readonly host: Host;
  readonly model = new Model();
  readonly #seed: number;
  readonly #random: (limit: number) => number;
  readonly #gate = new Gate(WORKERS);
  readonly #events: Record<string, number> = {};
  readonly #workers = noCounts();
  #network: BadNetwork | undefined;
  #begun = 0;
  #end = (): Promise<unknown> => Promise.resolve();

  /** `fault`: one of disc.ts, planted in the daemon. */
  constructor(seed: number, fault = '') {
    this.host = new Host({ fault });
    this.#seed = seed;
    this.#random = randomFrom(seed);
  }

  /** Runs for `ms` and whatever the last checks need. The caller ends it by `stop`. */
  async run(ms: number): Promise<SoakReport> {
    const { host, model } = this;
    await host.start();
    await this.#takeCapacity();
    const network = new BadNetwork(host.port, randomFrom(this.#seed + 1));
    this.#network = network;
    const port = await network.start();
    const workers = Array.from({ length: WORKERS }, (_, index) => {
      const random = randomFrom(this.#seed + 100 + index);
      return new Worker({ index, of: WORKERS, random, model, port, counts: this.#workers });
    });
    const running = workers.map((worker) => worker.run(this.#gate));
    this.#end = () => {
      for (const worker of workers) worker.stop();
      this.#gate.open();
      network.close();
      return Promise.all(running);
    };
    const end = Date.now() + ms;
    while (Date.now() < end && model.violations.length === 0) {
      await pause(100 + this.#random(400));
      await this.#event(network);
      if (!host.alive) throw new Found(`the daemon has ended by itself:\n${host.log}`);
    }
    network.heal();
    await this.#gate.close();
    if (model.enabled) await this.#checkSlave();
    await this.#checkMaster();
    const before = await this.#fresh();
    this.#gate.open();
    if (model.violations.length === 0) await pause(Math.min(ms / 4, 60_000));
    await this.#end();
    await this.#checkMaster();
    const connectionsLeft = await this.#idle();
    const after = await host.resources();
    const exitCode = await host.end('SIGTERM');
    const { code: checkCode } = await host.check();
    const counts = { ...this.#workers, ...this.#events, corrupted: network.corrupted };
    return { counts, violations: model.violations, before, after, connectionsLeft, exitCode, checkCode };
  }

  /** Ends everything, whether the run came to its end or not: no worker, connection or timer is left. */
  async stop(): Promise<void> {
    await this.#end();
    await this.host.stop();
  }

  /** What a run of that length, at most, finds wrong, in a block or in what the daemon says and does. */
  async notices(ms: number): Promise<string | undefined> {
    try {
      const { violations, checkCode } = await this.run(ms);
      return violations.at(0) ?? (checkCode === 0 ? undefined : '`cldd check` finds something');
    } catch (error) {
      if (error instanceof Found) return error.message;
      throw error;
    }
  }

  /** A life of the daemon that has served a little, without a session. */
  async #fresh(): Promise<Resources> {
    await this.#restart();
    await this.#checkMaster();
    await this.#idle();
    return this.host.resources();
  }

  async #idle(): Promise<number> {
    for (let n = 0; ; n++) {
      const { connections } = (await this.host.status()).iscsi;
      if (connections === 0 || n === 50) return connections;
      await pause(100);
    }
  }

  async #takeCapacity(): Promise<void> {
    const [target] = (await this.host.status()).targets;
    this.model.grow((target?.capacityBytes ?? 0) / BLOCK_BYTES);
  }

  async #event(network: BadNetwork): Promise<void> {
    const { host } = this;
    const kinds: [string, number, () => Promise<unknown>][] = [
      ['slaveSteps', 8, () => this.#slaveStep()],
      ['resets', 3, () => Promise.resolve(network.reset(2))],
      ['delays', 2, () => this.#disturb(() => (network.delayMs = 30))],
      ['corruptions', 2, () => this.#disturb(() => (network.corruptPermille = 10))],
      ['reloads', 2, () => (host.configure(), host.ask('reload'))],
      ['hammers', 2, () => this.#hammer()],
      ['kills', 2, () => this.#kill()],
      ['grows', 1, () => this.#grow()],
      ['discFull', 1, () => this.#discFull()],
      ['badReads', 1, () => this.#badReads()],
      ['badWrites', 1, () => this.#badDisc('EIO')],
      ['noRoom', 1, () => this.#badDisc('ENOSPC')],
      ['unitResets', 1, () => this.#unitReset()],
      ['storms', 2, () => this.#storm()],
    ];
    const off = (process.env['SOAK_WITHOUT'] ?? '').split(',');
    // Each of them once, so that a short run has them too, then by chance.
    const first = FIRST[this.#begun++];
    let at = this.#random(kinds.reduce((sum, [, weight]) => sum + weight, 0));
    for (const [kind, weight, run] of kinds) {
      at -= weight;
      if (first === undefined ? at >= 0 : kind !== first) continue;
      if (off.includes(kind)) return;
      this.#events[kind] = (this.#events[kind] ?? 0) + 1;
      if (process.env['SOAK_TRACE'] !== undefined) process.stdout.write(`# ${kind}\n`);
      await run();
      return;
    }
  }

  async #disturb(how: () => unknown): Promise<void> {
    how();
    await pause(1000);
    this.#network?.heal();
  }

  async #slaveStep(): Promise<void> {
    const { host, model } = this;
    if (!model.enabled) {
      const flushed = model.beginFlush();
      model.beginEnable();
      await host.ask('slave-enable', { crashConsistent: true });
      model.endEnable(true);
      flushed();
      return;
    }
    await this.#checkSlave();
    const choice = this.#random(4);
    if (choice === 0) return;
    if (choice === 1) {
      this.#events['rollbacks'] = (this.#events['rollbacks'] ?? 0) + 1;
      await this.#gate.close();
      await host.ask('rollback', { force: true });
      model.rollback();
      await this.#takeSlave();
      this.#gate.open();
      return;
    }
    await host.ask('slave-disable', { force: true });
    model.disable();
  }

  /** After a change of state whose outcome the daemon knows best. */
  async #takeSlave(): Promise<void> {
    const [target] = (await this.host.status()).targets;
    if (!target?.slave.enabled) this.model.disable();
  }

  async #hammer(): Promise<void> {
    const garbage = Array.from({ length: 8 }, (_, n) => {
      const socket = connect(this.host.socket);
      socket.on('error', () => undefined);
      socket.write(['{', '[]\n', '\0\n', '{"cldd":1}\n', `"${'x'.repeat(70_000)}"\n`][n % 5] ?? '');
      return socket.resume();
    });
    const asked = (['status', 'targets', 'sessions', 'status', 'changes'] as const).map((command) =>
      this.host.ask(command),
    );
    try {
      await Promise.all(asked);
    } finally {
      for (const socket of garbage) socket.destroy();
    }
  }

  /** SIGKILL, one time in two in the midst of an enable, else right after a flush: what it covers has to be there. */
  async #kill(): Promise<void> {
    const { host, model } = this;
    const before = (await host.status()).targets[0]?.slave.generation ?? 0;
    const enabling = !model.enabled && this.#random(2) === 0;
    if (enabling) {
      model.beginEnable();
      const asked = host.ask('slave-enable', { crashConsistent: true }).catch(() => undefined);
      await pause(this.#random(20));
      await this.#restart();
      await asked;
      const slave = (await host.status()).targets[0]?.slave;
      model.endEnable(slave?.enabled && slave.generation > before);
    } else {
      await this.#flush();
      await this.#restart();
    }
    await this.#gate.close();
    await this.#checkMaster();
    if (model.enabled) await this.#checkSlave();
    this.#gate.open();
  }

  async #flush(): Promise<void> {
    const flushed = this.model.beginFlush();
    await this.#checker((session) => good(session, { cdb: synchronizeCache() }));
    flushed();
  }

  async #restart(): Promise<void> {
    await this.host.end('SIGKILL');
    this.model.crash();
    await this.host.serve();
  }

  async #grow(): Promise<void> {
    if ((this.#events['grows'] ?? 0) > GROWS_MAX) return;
    this.host.enlarge();
    await this.#gate.close();
    if (this.model.enabled) {
      await this.host.ask('slave-disable', { force: true });
      this.model.disable();
    }
    await this.host.ask('grow');
    await this.#takeCapacity();
    this.#gate.open();
  }

  /** No room in the file system for a while. */
  async #discFull(): Promise<void> {
    if (!this.host.mounted) return;
    this.model.discIsBad = true;
    this.host.fillDisc();
    await pause(BAD_MS);
    this.host.freeDisc();
    await this.#recover();
  }

  async #badDisc(mode: 'EIO' | 'ENOSPC'): Promise<void> {
    this.model.discIsBad = true;
    await this.host.disc(mode);
    await pause(BAD_MS);
    await this.host.disc('good');
    await this.#recover();
  }

  /** A partition that failed takes no writes until a restart; then everything flushed is there. */
  async #recover(): Promise<void> {
    await this.#restart();
    await this.#takeSlave();
    await this.#gate.close();
    this.model.discIsBad = false;
    await this.#checkMaster();
    if (this.model.enabled) await this.#checkSlave();
    this.#gate.open();
  }

  /** What can't be read fails that command, and nothing else. */
  async #badReads(): Promise<void> {
    this.model.discIsBad = true;
    await this.host.disc('EIO reads');
    await pause(BAD_MS);
    await this.host.disc('good');
    await this.#gate.close();
    this.model.discIsBad = false;
    this.#gate.open();
  }

  /** LOGICAL UNIT RESET from elsewhere: tasks of all initiators end without a word (SAM-6, TAS=0). */
  async #unitReset(): Promise<void> {
    await this.#checker((session) => session.manage(LOGICAL_UNIT_RESET));
  }

  /** Many task management functions at once, for tasks that are there and tasks that never were; each is answered. */
  async #storm(): Promise<void> {
    await this.#checker(async (session) => {
      const waiting = new Set<number>();
      for (let n = 0; n < STORM.count; n++) {
        const fn = STORM.functions[this.#random(STORM.functions.length)];
        const referencedTag = this.#random(2) === 0 ? NO_TAG : this.#random(1 << 16);
        waiting.add(session.sendManage(fn, { lun: this.#random(3), referencedTag }));
      }
      while (waiting.size > 0) {
        const pdu = await session.next();
        if (pdu === undefined) throw new Found('the target closed in a storm of task management');
        if (pdu.opcode === OP.TASK_MANAGEMENT_RESPONSE) waiting.delete(pdu.itt);
      }
    });
  }

  /** Something done past the bad network, in a session that ends with it, whatever becomes of it. */
  async #checker<T>(work: (session: Session) => Promise<T>): Promise<T> {
    const session = await login(this.host.port, CHECKER, false, CHECKER_PATIENCE_MS);
    try {
      const answer = await work(session);
      await session.logout();
      return answer;
    } finally {
      session.connection.destroy();
    }
  }

  async #checkMaster(): Promise<void> {
    await this.#whole(0, (block, sequence) => this.model.read(block, sequence, 'master'));
  }

  async #checkSlave(): Promise<void> {
    await this.#whole(1, (block, sequence) => this.model.readSlave(block, sequence));
  }

  async #whole(lun: number, check: (block: number, sequence: number | string) => void): Promise<void> {
    const { blocks } = this.model;
    await this.#checker(async (session) => {
      for (let block = 0; block < blocks; block += CHUNK_BLOCKS) {
        const count = Math.min(CHUNK_BLOCKS, blocks - block);
        const read = count * BLOCK_BYTES;
        const { data } = await good(session, { cdb: read16(block, count), read, lun });
        for (let at = 0; at < count; at++) check(block + at, identify(data, at * BLOCK_BYTES, block + at));
      }
    });
    this.#events['blocksChecked'] = (this.#events['blocksChecked'] ?? 0) + blocks;
  }
}
