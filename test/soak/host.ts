/** The daemon under the soak, in a process of its own, on a disc that can run full. */
import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs'; // prettier-ignore
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { ask } from '../../src/admin/client.js';
import type { Arguments, CommandName } from '../../src/admin/protocol.js';
import type { DaemonStatus } from '../../src/daemon/status.js';
import { ROOT } from '../../conformance/support/paths.js';
import { freePort } from '../../conformance/support/ports.js';
import { run, Running, succeed } from '../../conformance/support/processes.js';
import { Found, IQN } from './worker.js';

const PROGRAM = join(ROOT, 'bin/cldd');
const ENVIRONMENT = { ...process.env, CLDD_DIST: resolve(import.meta.dirname, '../..') };
const READY_MS = 60_000;
const MIB = 1 << 20;
/** A signal is looked at within a turn of the daemon's; the machine may be busy. */
const SEEN_TRIES = 600;
const SEEN_MS = 50;
/** Of the file system that the partition lies on, where the test may mount one. */
const DISC_MIB = 160;

/** What may come over the disc for a while (disc.ts). */
export type DiscMode = 'good' | 'EIO' | 'ENOSPC' | 'EIO reads';

export interface HostOptions {
  /** 'lossy': disc.ts lies under the daemon, so that a kill loses what was not synced. 'real': only SIGKILL, no power cut. */
  readonly disc?: 'lossy' | 'real';
  /** Planted in the daemon: see disc.ts. Needs 'lossy'. */
  readonly fault?: string;
}

export interface Resources {
  residentKib: number;
  descriptors: number;
  /** Timers that keep the daemon running. */
  timers: number;
}

export class Host {
  readonly folder = mkdtempSync(join(tmpdir(), 'cldd-soak-'));
  readonly socket = join(this.folder, 's');
  /** Whether the disc can be made to run full. */
  mounted = false;
  port = 0;
  sizeMiB = 64;
  readonly #options: HostOptions;
  #alias = 0;
  #daemon: Running | undefined;

  constructor(options: HostOptions = {}) {
    this.#options = options;
  }

  get partition(): string {
    return join(this.folder, 'disc', 'partition');
  }

  async start(): Promise<void> {
    const disc = join(this.folder, 'disc');
    mkdirSync(disc);
    const { status } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${DISC_MIB}m`, 'soak', disc]);
    this.mounted = status === 0;
    await succeed(PROGRAM, ['init', this.partition, '--size', `${this.sizeMiB}M`], { env: ENVIRONMENT });
    this.port = await freePort();
    this.configure();
    await this.serve();
  }

  /** Writes a configuration unlike the last one. */
  configure(): void {
    const alias = `soak ${this.#alias++}`;
    writeFileSync(
      join(this.folder, 'cldd.yaml'),
      JSON.stringify({
        portals: [{ listen: `127.0.0.1:${this.port}` }],
        controlSocket: this.socket,
        logLevel: this.#alias % 2 === 0 ? 'error' : 'warn',
        shutdownGraceMs: 200,
        targets: [{ name: IQN, partition: this.partition, alias, access: [{ initiator: '*' }] }],
      }),
    );
  }

  async serve(): Promise<void> {
    writeFileSync(this.#control, 'good');
    const disc = {
      NODE_OPTIONS: `--import=${join(import.meta.dirname, 'disc.js')}`,
      SOAK_DISC: this.#control,
      SOAK_PARTITION: this.partition,
      SOAK_FAULT: this.#options.fault ?? '',
    };
    const env = {
      ...ENVIRONMENT,
      UV_THREADPOOL_SIZE: '16',
      ...(this.#options.disc === 'real' ? {} : disc),
    };
    const daemon = new Running(PROGRAM, ['serve', join(this.folder, 'cldd.yaml')], { env });
    this.#daemon = daemon;
    try {
      await daemon.waitFor(/cldd ready/, READY_MS);
    } catch (error) {
      if (daemon.alive) throw error;
      throw new Found(`the daemon does not start: ${this.log}`, { cause: error });
    }
  }

  get #control(): string {
    return join(this.folder, 'control');
  }

  /** From now on the disc is that; answers what keeps the daemon running. */
  async disc(mode: DiscMode): Promise<string[]> {
    const seen = `${this.#control}.seen`;
    rmSync(seen, { force: true });
    writeFileSync(this.#control, mode);
    process.kill(this.#daemon?.pid ?? 0, 'SIGUSR2');
    for (let n = 0; !existsSync(seen); n++) {
      if (n === SEEN_TRIES) throw new Error(`the daemon does not see its disc become ${mode}`);
      await new Promise((resolve) => setTimeout(resolve, SEEN_MS));
    }
    return JSON.parse(readFileSync(seen, 'utf8')) as string[];
  }

  /** Ends the daemon; undefined if a signal did it, else its exit code. */
  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<number | undefined> {
    return (await this.#daemon?.end(signal, 60_000))?.code;
  }

  get alive(): boolean {
    return this.#daemon?.alive ?? false;
  }

  get log(): string {
    return `${this.#daemon?.stdout ?? ''}${this.#daemon?.stderr ?? ''}`.slice(-4000);
  }

  ask(command: CommandName, given: Arguments = {}): Promise<unknown> {
    return ask(this.socket, { command, arguments: given }, 60_000);
  }

  async status(): Promise<DaemonStatus> {
    return (await this.ask('status')) as DaemonStatus;
  }

  /** The kernel's own figures of the daemon. */
  async resources(): Promise<Resources> {
    const active = await this.disc('good');
    const pid = this.#daemon?.pid ?? 0;
    const status = readFileSync(`/proc/${pid}/status`, 'latin1');
    return {
      residentKib: Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1]),
      descriptors: readdirSync(`/proc/${pid}/fd`).length,
      timers: active.filter((one) => one === 'Timeout').length,
    };
  }

  enlarge(): void {
    this.sizeMiB += 8;
    truncateSync(this.partition, this.sizeMiB * MIB);
  }

  /** Takes all room that the file system has left, until `freeDisc`. */
  fillDisc(): void {
    const ballast = openSync(join(this.folder, 'disc', 'ballast'), 'w');
    const piece = Buffer.alloc(64 * 1024, 0xba);
    try {
      for (let n = 0; n < DISC_MIB * 16; n++) writeSync(ballast, piece);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    } finally {
      closeSync(ballast);
    }
  }

  freeDisc(): void {
    rmSync(join(this.folder, 'disc', 'ballast'), { force: true });
  }

  /** `cldd check` of the partition, which nobody serves. */
  async check(): Promise<{ code: number | undefined; output: string }> {
    const { code, stdout, stderr } = await run(PROGRAM, ['check', this.partition], { env: ENVIRONMENT });
    return { code, output: stdout + stderr };
  }

  async stop(): Promise<void> {
    await this.end('SIGKILL');
    if (this.mounted) spawnSync('umount', [join(this.folder, 'disc')]);
    rmSync(this.folder, { recursive: true, force: true });
  }
}
