/**
 * Real programs, run by tests so that none outlives its test: every child gets a parent-death signal, which works
 * even when the test process itself is killed.
 */
import './without-hook.js';
import { type ChildProcess, spawn } from 'node:child_process';
import { findProgram } from './paths.js';

export interface Ended {
  /** Exit code, or undefined if a signal ended it. */
  code: number | undefined;
  signal: NodeJS.Signals | undefined;
}

export interface Finished extends Ended {
  stdout: string;
  stderr: string;
  /** The time limit ended it. */
  timedOut: boolean;
}

/** Bytes of output kept for each stream; more ends the program, since a test has no use for it. */
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;

/** A program in the background. */
export class Running {
  readonly pid: number;
  readonly ended: Promise<Ended>;
  readonly #child: ChildProcess;
  readonly #stdout: Buffer[] = [];
  readonly #stderr: Buffer[] = [];
  #outputBytes = 0;
  #listeners: (() => void)[] = [];

  constructor(
    program: string,
    args: readonly string[],
    options: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
  ) {
    const setpriv = findProgram('setpriv');
    if (setpriv === undefined) throw new Error('setpriv is missing (Debian package util-linux)');
    const child = spawn(setpriv, ['--pdeathsig', 'KILL', '--', findProgram(program) ?? program, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      ...options,
    });
    this.#child = child;
    this.pid = child.pid ?? -1;
    child.stdout.on('data', (chunk: Buffer) => this.#keep(this.#stdout, chunk));
    child.stderr.on('data', (chunk: Buffer) => this.#keep(this.#stderr, chunk));
    this.ended = new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) => {
        resolve({ code: code ?? undefined, signal: signal ?? undefined });
        this.#tell();
      });
    });
    // Whoever awaits `ended` still sees the error; this only keeps an unawaited one from ending the test process.
    this.ended.catch(() => undefined);
  }

  get stdout(): string {
    return Buffer.concat(this.#stdout).toString('utf8');
  }

  get stderr(): string {
    return Buffer.concat(this.#stderr).toString('utf8');
  }

  get alive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null && this.pid !== -1;
  }

  /** Resolves with the first match in the output so far or to come; rejects when the program ends or time is up. */
  async waitFor(pattern: RegExp, timeoutMs: number): Promise<RegExpExecArray> {
    const find = (): RegExpExecArray | undefined =>
      pattern.exec(this.stdout) ?? pattern.exec(this.stderr) ?? undefined;
    return await this.waitUntil(find, String(pattern), timeoutMs);
  }

  /** As `waitFor`, with a look at the output of the caller's own: the first that is not undefined is the answer. */
  async waitUntil<T>(look: () => T | undefined, wanted: string, timeoutMs: number): Promise<T> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const found = look();
      if (found !== undefined) return found;
      if (!this.alive) throw new Error(`Ended before ${wanted}:\n${this.stdout}${this.stderr}`);
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) throw new Error(`No ${wanted} in ${timeoutMs} ms:\n${this.stdout}${this.stderr}`);
      await this.#output(leftMs);
    }
  }

  /** Sends the signal and waits for the end; SIGKILL follows when `graceMs` have passed. */
  async end(signal: NodeJS.Signals = 'SIGTERM', graceMs = 10_000): Promise<Ended> {
    if (this.alive) this.#child.kill(signal);
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), graceMs);
    try {
      return await this.ended;
    } finally {
      clearTimeout(timer);
    }
  }

  #keep(chunks: Buffer[], chunk: Buffer): void {
    this.#outputBytes += chunk.length;
    if (this.#outputBytes > OUTPUT_BYTES_MAX) this.#child.kill('SIGKILL');
    else chunks.push(chunk);
    this.#tell();
  }

  #tell(): void {
    const listeners = this.#listeners;
    this.#listeners = [];
    for (const listener of listeners) listener();
  }

  /** Resolves at the next output, at the end of the program, or after `timeoutMs`. */
  async #output(timeoutMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeoutMs);
      this.#listeners.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}

/** Runs a program to its end; after `timeoutMs` it is killed. Whether its exit code is good is the caller's business. */
export async function run(
  program: string,
  args: readonly string[],
  options: { timeoutMs?: number; cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<Finished> {
  const { timeoutMs = 60_000, ...rest } = options;
  const running = new Running(program, args, rest);
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    void running.end('SIGKILL');
  }, timeoutMs);
  try {
    const ended = await running.ended;
    return { ...ended, stdout: running.stdout, stderr: running.stderr, timedOut };
  } finally {
    clearTimeout(timer);
  }
}

/** Runs a program that has to succeed; answers its standard output. */
export async function succeed(
  program: string,
  args: readonly string[],
  options: { timeoutMs?: number; cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<string> {
  const done = await run(program, args, options);
  if (done.code === 0) return done.stdout;
  const why = done.timedOut ? 'took too long' : `ended with ${String(done.code ?? done.signal)}`;
  throw new Error(`${program} ${args.join(' ')} ${why}:\n${done.stdout}${done.stderr}`);
}
