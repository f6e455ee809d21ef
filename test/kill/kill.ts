/**
 * SIGKILL for the daemon under load, again and again: after each, what initiators were told is durable is there, and the
 * slave has not changed by one bit. Initiators of two kinds write at once: the soak's own, which read as well, and qemu's
 * (libiscsi). Every block says what it is (soak/content.ts), a model knows what each may hold (soak/model.ts).
 */
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { randomFrom } from '../../conformance/rfc7143/fuzz.js';
import { BLOCK_BYTES, identify, read16 } from '../soak/content.js';
import { Host, type HostOptions } from '../soak/host.js';
import { Model } from '../soak/model.js';
import { Gate, Worker, good, login, noCounts, type Counts } from '../soak/worker.js';
import { QemuLoad } from './qemu-load.js';

const OWN = 3;
const QEMUS = 3;
const CHECKER = 91;
const CHUNK_BLOCKS = 64;
/** Small, so that each block is written often, and all are compared after each kill. */
const PARTITION_MIB = 24;
/** So long the load goes on before the next kill. */
const LOAD_MS_MIN = 300;
const LOAD_MS_MAX = 1500;
/** A transition is under way for about so long. */
const TRANSITION_MS = 20;
const READY_TRIES = 100;

export interface KillReport {
  readonly counts: Counts & Record<string, number>;
  readonly violations: readonly string[];
  /** Of SIGTERM in the end, and of `cldd check`. */
  readonly exitCode: number | undefined;
  readonly checkCode: number | undefined;
}

export class KillTest {
  readonly host: Host;
  readonly model = new Model();
  readonly #seed: number;
  readonly #random: (limit: number) => number;
  readonly #gate = new Gate(OWN);
  readonly #own = noCounts();
  readonly #events: Record<string, number> = {};
  #workers: Worker[] = [];
  #qemus: QemuLoad[] = [];
  #qemuRuns: Promise<void>[] = [];

  constructor(seed: number, options: HostOptions) {
    this.#seed = seed;
    this.#random = randomFrom(seed);
    this.host = new Host(options);
    this.host.sizeMiB = PARTITION_MIB;
  }

  /** Kills the daemon so many times, or until something is wrong. The caller ends it by `stop`. */
  async run(kills: number, log: (line: string) => void): Promise<KillReport> {
    const { host, model } = this;
    await host.start();
    const [target] = (await host.status()).targets;
    model.grow((target?.capacityBytes ?? 0) / BLOCK_BYTES);
    const { port } = host;
    this.#workers = Array.from({ length: OWN }, (_, index) => {
      const random = randomFrom(this.#seed + 100 + index);
      return new Worker({ index, of: OWN + QEMUS, random, model, port, counts: this.#own });
    });
    const running = this.#workers.map((worker) => worker.run(this.#gate));
    await this.#startQemus();
    for (let kill = 1; kill <= kills && model.violations.length === 0; kill++) {
      await this.#load();
      const during = await this.#kill();
      await this.#verify();
      log(`kill ${kill} of ${kills}, ${during}: ${model.violations.length} violations`);
      if (model.enabled && this.#random(4) === 0) await this.#rollback();
      this.#gate.open();
      await this.#startQemus();
    }
    await this.#endQemus();
    for (const worker of this.#workers) worker.stop();
    await Promise.all(running);
    const exitCode = await host.end('SIGTERM');
    const { code: checkCode } = await host.check();
    const counts = { ...this.#own, ...this.#events };
    return { counts, violations: model.violations, exitCode, checkCode };
  }

  async stop(): Promise<void> {
    for (const worker of this.#workers) worker.stop();
    await this.#endQemus();
    await this.host.stop();
  }

  #count(event: string, by = 1): void {
    this.#events[event] = (this.#events[event] ?? 0) + by;
  }

  /** Lets all initiators work, and the slave come or go meanwhile. */
  async #load(): Promise<void> {
    const { model, host } = this;
    const ms = LOAD_MS_MIN + this.#random(LOAD_MS_MAX - LOAD_MS_MIN);
    await pause(ms / 2);
    if (!model.enabled) {
      const flushed = model.beginFlush();
      model.beginEnable();
      await host.ask('slave-enable', { crashConsistent: true });
      model.endEnable(true);
      flushed();
      this.#count('enables');
    } else if (this.#random(5) === 0) {
      await this.#checkSlave();
      await host.ask('slave-disable', { force: true });
      model.disable();
      this.#count('disables');
    }
    await pause(ms / 2);
  }

  /** One time in three while the slave is being enabled or disabled. Answers what it fell into. */
  async #kill(): Promise<string> {
    const { host, model } = this;
    const transition = this.#random(3) === 0;
    const { enabled } = model;
    let asked: Promise<unknown> | undefined;
    if (transition) {
      if (!enabled) model.beginEnable();
      asked = host
        .ask(
          enabled ? 'slave-disable' : 'slave-enable',
          enabled ? { force: true } : { crashConsistent: true },
        )
        // Killed, or done just before.
        .catch(() => undefined);
      await pause(this.#random(TRANSITION_MS));
    }
    for (const qemu of this.#qemus) qemu.pause();
    await host.end('SIGKILL');
    await asked;
    await this.#endQemus();
    model.crash();
    await host.serve();
    this.#count('kills');
    const slave = (await host.status()).targets[0]?.slave;
    if (!transition) {
      if (slave?.enabled !== enabled)
        model.violations.push(`the slave came back ${enabled ? 'disabled' : 'enabled'}`);
      return enabled ? 'slave enabled' : 'slave disabled';
    }
    if (!enabled) model.endEnable(slave?.enabled);
    else if (!slave?.enabled) model.disable();
    this.#count('killsInTransitions');
    return enabled ? 'in a disable' : 'in an enable';
  }

  async #verify(): Promise<void> {
    await this.#gate.close();
    await this.#whole(0, (block, sequence) => this.model.read(block, sequence, 'master'));
    if (this.model.enabled) await this.#checkSlave();
  }

  async #checkSlave(): Promise<void> {
    await this.#whole(1, (block, sequence) => this.model.readSlave(block, sequence));
  }

  /** While nobody writes, and the whole slave has been read. */
  async #rollback(): Promise<void> {
    await this.host.ask('rollback', { force: true });
    this.model.rollback();
    this.#count('rollbacks');
  }

  async #whole(lun: number, check: (block: number, sequence: number | string) => void): Promise<void> {
    const session = await login(this.host.port, CHECKER, false);
    const { blocks } = this.model;
    for (let block = 0; block < blocks; block += CHUNK_BLOCKS) {
      const count = Math.min(CHUNK_BLOCKS, blocks - block);
      const { data } = await good(session, { cdb: read16(block, count), read: count * BLOCK_BYTES, lun });
      for (let at = 0; at < count; at++) check(block + at, identify(data, at * BLOCK_BYTES, block + at));
    }
    await session.logout();
    session.connection.destroy();
    this.#count('blocksChecked', blocks);
  }

  async #startQemus(): Promise<void> {
    const { model, host } = this;
    this.#qemus = Array.from({ length: QEMUS }, (_, index) => {
      const scratch = join(host.folder, `qemu-${index}`);
      const random = randomFrom(this.#random(1 << 30));
      return new QemuLoad({ index: OWN + index, of: OWN + QEMUS, random, model, port: host.port, scratch });
    });
    this.#qemuRuns = this.#qemus.map((qemu) => qemu.run());
    // A kill that finds them before their first write would prove nothing.
    const begun = (): boolean => this.#qemus.every(({ writes }) => writes > 0);
    for (let tries = 0; tries < READY_TRIES && !begun(); tries++) await pause(50);
    if (!begun()) throw new Error(`qemu-io does not write; the daemon said:\n${host.log}`);
  }

  async #endQemus(): Promise<void> {
    const qemus = this.#qemus;
    this.#qemus = [];
    await Promise.all(qemus.map((qemu) => qemu.kill()));
    await Promise.all(this.#qemuRuns);
    for (const { writes, flushes } of qemus) {
      this.#count('qemuWrites', writes);
      this.#count('qemuFlushes', flushes);
    }
  }
}
