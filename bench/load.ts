/** The load generator (load.c): compiled when it is needed, run once for every measurement. */
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../conformance/support/paths.js';
import { run, succeed } from '../conformance/support/processes.js';

const FOLDER = join(ROOT, '.cache/bench');
const SOURCE = join(ROOT, 'bench/load.c');
const PROGRAM = join(FOLDER, 'load');

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
  if (existsSync(PROGRAM) && statSync(PROGRAM).mtimeMs >= statSync(SOURCE).mtimeMs) return;
  mkdirSync(FOLDER, { recursive: true });
  await succeed('gcc', ['-O2', '-Wall', '-Wextra', '-o', PROGRAM, SOURCE, '-liscsi']);
}

/** Puts the load on the LUN at `url`, and counts the processor time of process `pid`. */
export async function load(url: string, pid: number, wanted: Load): Promise<Measured> {
  const { operation, order, bytes, depth, connections = 1, fua, headerDigest, ...rest } = wanted;
  const args = ['--url', url, '--pid', String(pid), '--operation', operation, '--order', order];
  args.push('--bytes', String(bytes), '--depth', String(depth), '--connections', String(connections));
  if (fua === true) args.push('--fua');
  if (headerDigest === true) args.push('--header-digest');
  for (const [name, value] of Object.entries(rest)) args.push(`--${name}`, String(value));
  const timeoutMs = 60_000 + 3000 * (rest.seconds ?? 100);
  const done = await run(PROGRAM, args, { timeoutMs });
  if (done.code !== 0)
    throw new Error(`load ${args.join(' ')} ended with ${done.code ?? 'a signal'}:\n${done.stderr}`);
  return JSON.parse(done.stdout) as Measured;
}
