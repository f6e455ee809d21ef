/**
 * The load generators (load.c on libiscsi, and raw.c for digests over data, which libiscsi doesn't speak): compiled when
 * they are needed, run once for every measurement.
 */
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ROOT } from '../conformance/support/paths.js';
import { run, Running, succeed } from '../conformance/support/processes.js';

const FOLDER = join(ROOT, '.cache/bench');
/** What both include. */
const COMMON = join(ROOT, 'bench/common.h');
const PROGRAMS = {
  load: ['-O2', '-liscsi'],
  raw: ['-O2', '-msse4.2'],
};

/** One run of the generator; lengths in bytes. See the head of load.c. */
export interface Load {
  operation: 'read' | 'write' | 'fill' | 'check';
  order: 'random' | 'sequential';
  bytes: number;
  /** Commands under way on each connection. */
  depth: number;
  connections?: number;
  region?: number;
  seconds?: number;
  ops?: number;
  seed?: number;
  fua?: boolean;
  headerDigest?: boolean;
  /** By raw.c, on one connection and in sequence. */
  dataDigest?: boolean;
}

/** What the generator saw. */
export interface Measured {
  ops: number;
  seconds: number;
  opsPerSecond: number;
  bytesPerSecond: number;
  p50Us: number;
  p99Us: number;
  maxUs: number;
  /** Processor time of the target for one command, in microseconds. */
  targetCpuUs: number;
  /** Processors that the target kept busy; 1 is one whole processor. */
  targetCpuShare: number;
  clientCpuShare: number;
}

export async function compileLoad(): Promise<void> {
  mkdirSync(FOLDER, { recursive: true });
  for (const [name, options] of Object.entries(PROGRAMS)) {
    const [source, program] = [join(ROOT, 'bench', `${name}.c`), join(FOLDER, name)];
    const changedMs = Math.max(...[source, COMMON].map((file) => statSync(file).mtimeMs));
    if (existsSync(program) && statSync(program).mtimeMs >= changedMs) continue;
    await succeed('gcc', ['-Wall', '-Wextra', '-o', program, source, ...options]);
  }
}

/** Puts the load on the LUN at `url`, and counts the processor time of process `pid`. */
export async function load(url: string, pid: number, wanted: Load): Promise<Measured> {
  const args = argumentsFor(url, pid, wanted);
  const program = join(FOLDER, wanted.dataDigest === true ? 'raw' : 'load');
  const done = await run(program, args, { timeoutMs: timeoutMs(wanted) });
  if (done.code !== 0)
    throw new Error(`load ${args.join(' ')} ended with ${done.code ?? 'a signal'}:\n${done.stderr}`);
  return JSON.parse(done.stdout) as Measured;
}

/** As `load`, with `look` called while all sessions are logged in and silent. */
export async function loadAfter<T>(
  url: string,
  pid: number,
  wanted: Load,
  look: () => T,
  idleS = 2,
): Promise<{ measured: Measured; seen: T }> {
  const running = new Running(join(FOLDER, 'load'), [
    ...argumentsFor(url, pid, wanted),
    '--idle',
    String(idleS),
  ]);
  await running.waitFor(/^connected$/m, timeoutMs(wanted));
  // What the logins left to be collected may be so by now.
  await sleep(1500);
  const seen = look();
  const { code } = await running.ended;
  if (code !== 0) throw new Error(`load ended with ${code ?? 'a signal'}:\n${running.stderr}`);
  return { measured: JSON.parse(running.stdout) as Measured, seen };
}

const timeoutMs = ({ seconds = 100 }: Load): number => 60_000 + 3000 * seconds;

function argumentsFor(url: string, pid: number, wanted: Load): string[] {
  const { operation, order, bytes, depth, connections = 1, fua, headerDigest, dataDigest, ...rest } = wanted;
  const args = ['--url', url, '--pid', String(pid), '--operation', operation];
  args.push('--bytes', String(bytes), '--depth', String(depth));
  if (dataDigest === true) args.push('--data-digest');
  else args.push('--order', order, '--connections', String(connections));
  if (fua === true) args.push('--fua');
  if (headerDigest === true) args.push('--header-digest');
  for (const [name, value] of Object.entries(rest)) args.push(`--${name}`, String(value));
  return args;
}
