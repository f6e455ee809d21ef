/** The program on a partition of its own, for the tests of backup, restore and what goes wrong around them. */
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import tap from 'tap';
import { ROOT } from '../../conformance/support/paths.js';
import { run, Running, succeed } from '../../conformance/support/processes.js';
import type { Finished } from '../../conformance/support/processes.js';
import { createFolder } from '../../src/cli/backup/folder.js';

export const PROGRAM = join(ROOT, 'bin/cldd');
/** The program is taken from the build that the tests themselves belong to. */
export const env = { ...process.env, CLDD_DIST: resolve(import.meta.dirname, '../..') };
export const WAIT_MS = 60_000;
const COMMAND_MS = 120_000;

/** A folder that goes when the test file ends. */
export function scratch(name: string): string {
  const folder = mkdtempSync(join(tmpdir(), `cldd-${name}-`));
  tap.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export const cldd = (...args: string[]): Promise<Finished> =>
  run(PROGRAM, args, { env, timeoutMs: COMMAND_MS });

export const parse = (text: string): Record<string, unknown> => JSON.parse(text) as Record<string, unknown>;

/** Names of the finished backups in a folder, the oldest generation first. */
export const finishedIn = (folder: string): string[] =>
  readdirSync(folder)
    .filter((name) => name.endsWith('.cldd'))
    .sort();

export async function until(what: string, look: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + WAIT_MS;
  while (!(await look())) {
    if (performance.now() > deadline) throw new Error(`not in time: ${what}`);
    await sleep(20);
  }
}

export class Served {
  readonly partition: string;
  readonly socket: string;
  /** Where backups go. */
  readonly backups: string;
  readonly #image: string;
  readonly #t: Pick<typeof tap, 'teardown'>;
  daemon!: Running;
  /** Of the master. */
  url = '';

  private constructor(t: Pick<typeof tap, 'teardown'>, place: string) {
    this.#t = t;
    this.partition = join(place, 'p');
    this.backups = join(place, 'backups');
    this.socket = join(place, 's');
    this.#image = join(place, 'image');
  }

  /** Makes a partition in `place` and serves it until the test ends. */
  static async start(t: Pick<typeof tap, 'teardown'>, place: string, size = '32M'): Promise<Served> {
    const served = new Served(t, place);
    createFolder(served.backups);
    await succeed(PROGRAM, ['init', served.partition, '--size', size], { env });
    await served.serve();
    return served;
  }

  /** Again, after its daemon has ended; another partition if one is given. */
  async serve(partition = this.partition): Promise<void> {
    const place = ['--portal', '127.0.0.1:0', '--socket', this.socket];
    const daemon = new Running(PROGRAM, ['serve', '--partition', partition, ...place], { env });
    this.#t.teardown(() => daemon.end());
    this.daemon = daemon;
    const [, target = '', portal = ''] = await daemon.waitFor(/^cldd ready: (\S+) on (\S+),1/m, WAIT_MS);
    this.url = `iscsi://${portal}/${target}/0`;
  }

  /** Runs a command that talks to the daemon. */
  readonly ask = (...given: string[]): Promise<Finished> => cldd(...given, '--socket', this.socket);

  /** The same in the background. */
  readonly begin = (...given: string[]): Running =>
    new Running(PROGRAM, [...given, '--socket', this.socket], { env });

  /** Writes a pattern to the master, as qemu-io takes positions and lengths. */
  readonly write = (pattern: number, position: string, length: string): Promise<string> =>
    succeed('qemu-io', ['-f', 'raw', '-c', `write -P ${pattern} ${position} ${length}`, this.url]);

  /** The master's bytes. */
  readonly image = async (): Promise<Buffer> => {
    await succeed('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', this.url, this.#image]);
    return readFileSync(this.#image);
  };

  readonly disabled = async (): Promise<boolean> => /slave +disabled/.test((await this.ask('status')).stdout);
}
