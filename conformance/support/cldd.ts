/** The program itself, as its users run it: ./bin/cldd in processes of its own. */
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { ROOT } from './paths.js';
import { freePort } from './ports.js';
import { type Finished, run, Running } from './processes.js';

/** The part of `cldd status --json` that the tests look at. */
export interface TargetStatus {
  name: string;
  capacityBytes: number;
  slave: {
    enabled: boolean;
    generation: number;
    divergedBlocks: number;
    divergedBytes: number;
    heldBy: unknown[];
  };
  sessions: { initiator: string; address: string; luns: number[] }[];
}

/** Exit codes of the program. */
export const EXIT = { DONE: 0, FAILURE: 1, USAGE: 2, REFUSED: 3, NOT_REACHABLE: 4, WARNINGS: 5 } as const;

const PROGRAM = path.join(ROOT, 'bin/cldd');
/** The program is taken from the build that the tests themselves belong to. */
const ENVIRONMENT = { ...process.env, CLDD_DIST: path.resolve(import.meta.dirname, '../..') };
const READY_TIMEOUT_MS = 60_000;

export interface ClddOptions {
  /** Size of the partition file in MiB. */
  sizeMiB?: number;
  /** Host name or address that discovery answers instead of 127.0.0.1 (the port is the portal's own). */
  advertiseHost?: string;
  /** Portals, each a portal group of its own; 1 if left out. */
  portals?: number;
  /** Whether an initiator may enable the slave by START STOP UNIT. */
  allowLoad?: boolean;
  /** False: initiators that are idle for long, and can't answer while they sleep, are not asked whether they are alive. */
  pings?: boolean;
  /** Physical block size that initiators are told. */
  physicalBlockBytes?: 512 | 4096;
  /** WRITE SAME of zero blocks goes to the end of the medium. */
  writeSameToEnd?: boolean;
  /** Initiators may ask for changed blocks. */
  reportChanges?: boolean;
}

const TARGET = 'iqn.2026-01.org.example:conformance';

/** A daemon serving a new file-backed partition in a folder of its own, on portals that restarts keep. */
export class Cldd {
  readonly folder: string;
  readonly partition: string;
  readonly socket: string;
  readonly ports: readonly number[];
  /** iSCSI name of the one target. */
  readonly target = TARGET;
  readonly #configuration: string;
  #daemon: Running | undefined;

  private constructor(folder: string, ports: readonly number[]) {
    this.folder = folder;
    this.partition = path.join(folder, 'partition');
    this.socket = path.join(folder, 'control.sock');
    this.ports = ports;
    this.#configuration = path.join(folder, 'cldd.yaml');
  }

  /** Creates the partition and serves it. */
  static async start(options: ClddOptions = {}): Promise<Cldd> {
    const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'cldd-conformance-'));
    const ports: number[] = [];
    while (ports.length < (options.portals ?? 1)) ports.push(await freePort());
    const cldd = new Cldd(folder, ports);
    try {
      await fs.writeFile(cldd.#configuration, cldd.#configure(options));
      await cldd.expect(EXIT.DONE, 'init', cldd.partition, '--size', `${options.sizeMiB ?? 256}M`);
      await cldd.serve();
    } catch (error) {
      await cldd.stop();
      throw error;
    }
    return cldd;
  }

  /** The first portal's port. */
  get port(): number {
    return this.ports[0];
  }

  /** URL for libiscsi and qemu; LUN 0 is the master, 1 the slave. */
  url(unit: 'master' | 'slave', port = this.port): string {
    return `iscsi://127.0.0.1:${port}/${this.target}/${unit === 'master' ? 0 : 1}`;
  }

  /** JSON, which is YAML. */
  #configure({
    advertiseHost,
    allowLoad = false,
    pings = true,
    physicalBlockBytes = 4096,
    writeSameToEnd = false,
    reportChanges = false,
  }: ClddOptions): string {
    const portals = this.ports.map((port, index) => ({
      listen: `127.0.0.1:${port}`,
      portalGroupTag: index + 1,
      ...(advertiseHost === undefined ? {} : { advertise: `${advertiseHost}:${port}` }),
    }));
    const target = {
      name: this.target,
      partition: this.partition,
      access: [{ initiator: '*' }],
      allowLoad,
      physicalBlockBytes,
      writeSameToEnd,
      reportChanges,
    };
    const limits = pings ? {} : { nopIntervalMs: 0 };
    return JSON.stringify({ portals, targets: [target], controlSocket: this.socket, limits });
  }

  /** Starts the daemon on the partition and waits until it is ready. */
  async serve(): Promise<void> {
    this.#daemon = new Running(PROGRAM, ['serve', this.#configuration], { env: ENVIRONMENT });
    await this.#daemon.waitFor(new RegExp(`127\\.0\\.0\\.1:${this.port}`), READY_TIMEOUT_MS);
  }

  /** Ends the daemon by a signal; SIGTERM has to end it cleanly. Answers what it printed. */
  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<string> {
    const daemon = this.#daemon;
    if (daemon === undefined) return '';
    const ended = await daemon.end(signal, 30_000);
    const output = `${daemon.stdout}${daemon.stderr}`;
    this.#daemon = undefined;
    if (signal === 'SIGTERM' && ended.code !== 0) {
      throw new Error(`SIGTERM ended the daemon with ${String(ended.code ?? ended.signal)}:\n${output}`);
    }
    return output;
  }

  /** What the daemon has printed since it started, for failure messages. */
  get log(): string {
    return `${this.#daemon?.stdout ?? ''}${this.#daemon?.stderr ?? ''}`;
  }

  /** Ends the daemon without asking about its manners, and removes everything. */
  async stop(): Promise<void> {
    await this.#daemon?.end('SIGTERM', 10_000);
    await fs.rm(this.folder, { recursive: true, force: true });
  }

  /** Runs a command of the program; `init` apart, it talks to the daemon. */
  async command(...args: string[]): Promise<Finished> {
    const socket = args[0] === 'init' ? [] : ['--socket', this.socket];
    return await run(PROGRAM, [...args, ...socket], { timeoutMs: 60_000, env: ENVIRONMENT });
  }

  /** Runs a command that has to end with the given code; answers what it printed. */
  async expect(code: number, ...args: string[]): Promise<string> {
    const done = await this.command(...args);
    if (done.code === code) return `${done.stdout}${done.stderr}`;
    throw new Error(
      `cldd ${args.join(' ')}: code ${String(done.code ?? done.signal)} instead of ${code}\n` +
        `${done.stdout}${done.stderr}\nDaemon:\n${this.log.slice(-4000)}`,
    );
  }

  async status(): Promise<TargetStatus> {
    const text = await this.expect(EXIT.DONE, 'status', '--json');
    const { targets } = JSON.parse(text) as { targets: TargetStatus[] };
    const target = targets.at(0);
    if (target === undefined) throw new Error(`No target in ${text}`);
    return target;
  }

  /** Freezes the master as it is, whatever its file system says. */
  async enableSlave(): Promise<void> {
    await this.expect(EXIT.DONE, 'slave', 'enable', '--crash-consistent');
  }
}
