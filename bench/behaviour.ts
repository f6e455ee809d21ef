/**
 * What a rate doesn't show: what a backup costs those who write, how fairly an overload is shared, how long the event
 * loop stops, what a command allocates, and what the daemon costs while nobody asks for anything.
 */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { load, loadAfter, type Load } from './load.js';
import { diverge, fillAndCheck } from './measure.js';
import { startCldd, type Peer } from './peers.js';
import type { Probed } from './probe.js';
import { median } from './report.js';
import { settle } from './stores.js';

const MIB = 2 ** 20;

export interface BehaviourSettings {
  rounds: number;
  seconds: number;
  /** Bytes of the master that the load uses. */
  region: number;
}

export const BEHAVIOUR: BehaviourSettings = { rounds: 5, seconds: 1, region: 256 * MIB };
export const SHORT_BEHAVIOUR: BehaviourSettings = { rounds: 1, seconds: 0.3, region: 32 * MIB };

const small = { order: 'random', bytes: 4096 } as const;
const large = { order: 'sequential', bytes: 262_144 } as const;
const CLIENTS = 4;
const REST_MS = 3000;

/** Measures all of it; the answer is Markdown. */
export async function behaviour(folder: string, settings: BehaviourSettings): Promise<string> {
  const report = join(folder, 'probe.json');
  const { region } = settings;
  const probe = pathToFileURL(join(import.meta.dirname, 'probe.js')).href;
  const idle = await idleCost(folder);
  // The loader of the probe uses the thread pool, which takes its size then.
  const env = { NODE_OPTIONS: `--import=${probe}`, CLDD_BENCH_PROBE: report, UV_THREADPOOL_SIZE: '16' };
  const peer = await startCldd(folder, region, 'behaviour', { env });
  try {
    await fillAndCheck(peer, region);
    const parts = [
      await besideBackup(peer, settings),
      await overload(peer, settings),
      await stalls(peer, settings, report),
    ];
    return [...parts, idle].join('\n\n');
  } finally {
    await peer.stop();
  }
}

/** Random writes of the master, with and without somebody who reads the slave as a backup does. */
async function besideBackup(peer: Peer, { rounds, seconds, region }: BehaviourSettings): Promise<string> {
  const { slave } = peer;
  if (slave === undefined) throw new Error('there is no slave');
  const alone: number[][] = [];
  const beside: number[][] = [];
  for (let round = 0; round < rounds; round++) {
    process.stderr.write(`beside a backup, round ${round + 1} …\n`);
    for (const withReader of round % 2 === 0 ? [false, true] : [true, false]) {
      await slave.enable();
      await settle(peer.file);
      const write = load(peer.url, peer.pid, {
        ...small,
        operation: 'write',
        depth: 8,
        region,
        seconds,
        seed: round + 1,
      });
      const read = withReader
        ? load(slave.url, peer.pid, { ...large, operation: 'read', depth: 4, region, seconds: seconds + 0.2 })
        : undefined;
      const { p50Us, p99Us, opsPerSecond } = await write;
      const reader = await read;
      (withReader ? beside : alone).push([p50Us, p99Us, opsPerSecond, (reader?.bytesPerSecond ?? 0) / MIB]);
      await slave.disable();
    }
  }
  const line = (title: string, found: number[][]): (string | number)[] => [
    title,
    ...[0, 1, 2, 3].map((column) => whole(median(found.map((one) => one[column])))),
  ];
  const ratio = median(beside.map(([, p99], round) => p99 / alone[round][1]));
  return [
    '**A backup beside users** (4 KiB random writes of the master, depth 8; the slave read in sequence, 256 KiB, depth 4)\n',
    table(
      ['slave', 'write p50, µs', 'p99, µs', 'writes/s', 'MiB/s of the slave'],
      [line('not read', alone), line('read', beside)],
    ),
    `\nThe p99 of writes is ${ratio.toFixed(2)} times what it is without the reader (median of ${rounds} rounds; wanted: at most 1.5).`,
  ].join('\n');
}

/** Several clients that each ask for all they can get. */
async function overload(peer: Peer, { rounds, seconds, region }: BehaviourSettings): Promise<string> {
  process.stderr.write('overload …\n');
  const lines: (string | number)[][] = [];
  for (const operation of ['read', 'write'] as const) {
    const shares: number[] = [];
    const p99s: number[] = [];
    const worst: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const wanted: Load = { ...small, operation, depth: 128, region, seconds };
      const found = await Promise.all(
        Array.from({ length: CLIENTS }, (_, seed) => load(peer.url, peer.pid, { ...wanted, seed: seed + 1 })),
      );
      const rates = found.map(({ opsPerSecond }) => opsPerSecond);
      shares.push(Math.min(...rates) / Math.max(...rates));
      p99s.push(Math.max(...found.map(({ p99Us }) => p99Us)));
      worst.push(Math.max(...found.map(({ maxUs }) => maxUs)));
    }
    const ms = (us: readonly number[]): string => (median(us) / 1000).toFixed(1);
    lines.push([operation, median(shares).toFixed(2), ms(p99s), ms(worst)]);
  }
  return [
    `**Overload** (${CLIENTS} clients with 128 commands of 4 KiB each, more than can be served; nothing may fail)\n`,
    table(['', 'slowest / fastest client', 'p99 of the slowest, ms', 'longest, ms'], lines),
  ].join('\n');
}

/** The event loop under every kind of load, and what a command leaves on the heap. */
async function stalls(peer: Peer, { seconds, region }: BehaviourSettings, report: string): Promise<string> {
  const loads: [title: string, wanted: Omit<Load, 'region'>][] = [
    ['4 KiB random read, depth 32', { ...small, operation: 'read', depth: 32 }],
    ['4 KiB random write, depth 32', { ...small, operation: 'write', depth: 32 }],
    ['256 KiB sequential read, depth 32', { ...large, operation: 'read', depth: 32 }],
    ['256 KiB sequential write, depth 32', { ...large, operation: 'write', depth: 32 }],
    ['4 KiB random write with FUA, depth 32', { ...small, operation: 'write', depth: 32, fua: true }],
  ];
  await peer.slave?.enable();
  await diverge(peer, region, 0.5);
  const lines: (string | number)[][] = [];
  for (const [title, wanted] of loads) {
    process.stderr.write(`the event loop: ${title} …\n`);
    await settle(peer.file);
    // The code is compiled by then.
    await load(peer.url, peer.pid, { ...wanted, region, seconds: seconds / 2 });
    await probed(peer, report);
    const { ops } = await load(peer.url, peer.pid, { ...wanted, region, seconds: 2 * seconds });
    const { stallMs, ownStallMsMax, allocatedBytes } = await probed(peer, report);
    lines.push([
      title,
      stallMs.p99.toFixed(1),
      stallMs.max.toFixed(1),
      ownStallMsMax.toFixed(1),
      whole(allocatedBytes / Math.max(1, ops)),
    ]);
  }
  return [
    '**The event loop** (slave enabled, half diverged; how late a timer of 1 ms came; what of that was no wait for a processor that others had; growth of the heap for each command)\n',
    table(['load', 'p99, ms', 'longest stop, ms', 'longest of its own, ms', 'bytes of heap each'], lines),
  ].join('\n');
}

async function probed({ pid }: Peer, report: string): Promise<Probed> {
  rmSync(report, { force: true });
  process.kill(pid, 'SIGUSR2');
  for (const deadline = performance.now() + 30_000; performance.now() < deadline;) {
    await sleep(10);
    try {
      return JSON.parse(readFileSync(report, 'utf8')) as Probed;
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
    }
  }
  throw new Error('the probe does not answer');
}

/** Processor time without a session, and with one that is silent, of a daemon without the probe. */
async function idleCost(folder: string): Promise<string> {
  process.stderr.write('at rest …\n');
  const peer = await startCldd(folder, 16 * MIB, 'idle');
  const share = async (): Promise<string> => {
    const [before, begun] = [processorMs(peer.pid), performance.now()];
    await sleep(REST_MS);
    return `${((100 * (processorMs(peer.pid) - before)) / (performance.now() - begun)).toFixed(1)} %`;
  };
  try {
    await sleep(1000);
    const none = await share();
    const wanted: Load = { ...small, operation: 'read', depth: 1, region: MIB, ops: 1 };
    const { seen } = await loadAfter(peer.url, peer.pid, wanted, share, REST_MS / 1000 + 3);
    return `**At rest** the daemon takes ${none} of a processor without a session, and ${await seen} with one that is silent.`;
  } finally {
    await peer.stop();
  }
}

/** User and system time of all threads (proc(5)), in clock ticks of 10 ms. */
function processorMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

const whole = (value: number): string => Math.round(value).toLocaleString('en-US');

function table(heads: readonly string[], lines: readonly (readonly (string | number)[])[]): string {
  return [
    `| ${heads.join(' | ')} |`,
    `|${'---|'.repeat(heads.length)}`,
    ...lines.map((cells) => `| ${cells.join(' | ')} |`),
  ].join('\n');
}
