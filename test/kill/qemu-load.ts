/** A load by qemu's own initiator (libiscsi): one qemu-io that writes, unmaps and flushes blocks of the soak's model. */
import { spawn, type ChildProcess } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { findProgram } from '../../conformance/support/paths.js';
import { BLOCK_BYTES, fill } from '../soak/content.js';
import { IQN } from '../soak/worker.js';
import type { Model } from '../soak/model.js';

/** Every initiator owns runs of this many blocks in turn, as soak/worker.ts has it. */
const RUN = 16;
const WRITE_BLOCKS_MAX = 8;
const PROMPT = 'qemu-io> ';
const FLUSH_EVERY = 16;
const DURABLE_EVERY = 4;

export interface QemuLoadOptions {
  readonly index: number;
  /** How many initiators share the blocks. */
  readonly of: number;
  readonly random: (limit: number) => number;
  readonly model: Model;
  readonly port: number;
  /** A file of its own, for what it writes next. */
  readonly scratch: string;
}

export class QemuLoad {
  readonly #options: QemuLoadOptions;
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  #output = '';
  #told = (): void => undefined;
  #isOver = false;
  /** qemu sends a flush only if it has written since the last one: else that says nothing about others' writes. */
  #mayFlush = false;
  writes = 0;
  flushes = 0;

  constructor(options: QemuLoadOptions) {
    this.#options = options;
    const [setpriv, qemuIo] = [findProgram('setpriv'), findProgram('qemu-io')];
    if (setpriv === undefined || qemuIo === undefined) throw new Error('setpriv or qemu-io is missing');
    const url = `iscsi://127.0.0.1:${options.port}/${IQN}/0`;
    this.#child = spawn(
      setpriv,
      ['--pdeathsig', 'KILL', '--', qemuIo, '-f', 'raw', '-d', 'unmap', '-t', 'writeback', url],
      { stdio: ['pipe', 'pipe', 'ignore'] },
    );
    this.#child.stdout?.on('data', (chunk: Buffer) => {
      this.#output += chunk.toString('latin1');
      this.#told();
    });
    // A program that is killed while it is being told something says so here, too.
    this.#child.stdin?.on('error', () => undefined);
    this.#ended = new Promise((resolve) =>
      this.#child.once('close', () => {
        this.#isOver = true;
        this.#told();
        resolve();
      }),
    );
  }

  /** Works until it is killed, or something fails, as it does when the daemon has gone. */
  async run(): Promise<void> {
    const { random } = this.#options;
    if ((await this.#answer()) === undefined) return;
    for (;;) {
      const roll = random(FLUSH_EVERY);
      const isDone =
        roll === 0 && this.#mayFlush
          ? await this.#flush()
          : roll === 1
            ? await this.#unmap()
            : await this.#write();
      if (!isDone) return;
    }
  }

  /**
   * Stands still, with what it has sent under way. Before the daemon is killed, because a flush that fails looks to us
   * like one that was done: qemu-io says nothing of either.
   */
  pause(): void {
    this.#child.kill('SIGSTOP');
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }

  async #write(): Promise<boolean> {
    const { model, random, scratch } = this.#options;
    const count = 1 + random(WRITE_BLOCKS_MAX);
    const block = this.#run() + random(RUN - WRITE_BLOCKS_MAX);
    const data = Buffer.alloc(count * BLOCK_BYTES);
    const versions = Array.from({ length: count }, (_, at) => {
      const version = model.issue(block + at);
      fill(data, at * BLOCK_BYTES, block + at, version.sequence, model.generation);
      return version;
    });
    writeFileSync(scratch, data);
    const durable = random(DURABLE_EVERY) === 0;
    const said = await this.#say(
      `write ${durable ? '-f ' : ''}-s ${scratch} ${block * BLOCK_BYTES} ${data.length}`,
    );
    if (said?.includes(`wrote ${data.length}/${data.length} bytes`) !== true) return false;
    versions.forEach((version, at) => model.acknowledge(block + at, version, durable));
    this.#mayFlush = true;
    this.writes++;
    return true;
  }

  async #unmap(): Promise<boolean> {
    const { model } = this.#options;
    const block = this.#run();
    const versions = Array.from({ length: RUN }, (_, at) => model.issue(block + at, true));
    const length = RUN * BLOCK_BYTES;
    const said = await this.#say(`discard ${block * BLOCK_BYTES} ${length}`);
    if (said?.includes(`discard ${length}/${length} bytes`) !== true) return false;
    versions.forEach((version, at) => model.acknowledge(block + at, version, false));
    return true;
  }

  async #flush(): Promise<boolean> {
    const done = this.#options.model.beginFlush();
    const said = await this.#say('flush');
    // It says nothing when all is well.
    if (said?.trim() !== '') return false;
    done();
    this.#mayFlush = false;
    this.flushes++;
    return true;
  }

  #run(): number {
    const { model, index, of, random } = this.#options;
    return (random(Math.floor(model.blocks / RUN / of)) * of + index) * RUN;
  }

  #say(command: string): Promise<string | undefined> {
    this.#child.stdin?.write(`${command}\n`);
    return this.#answer();
  }

  /** What is printed up to the next prompt; undefined if the program ends before. */
  async #answer(): Promise<string | undefined> {
    for (;;) {
      const at = this.#output.indexOf(PROMPT);
      if (at >= 0) {
        const said = this.#output.slice(0, at);
        this.#output = this.#output.slice(at + PROMPT.length);
        return said;
      }
      if (this.#isOver) return undefined;
      await new Promise<void>((resolve) => (this.#told = resolve));
    }
  }
}
