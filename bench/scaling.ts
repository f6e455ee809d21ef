/**
 * What more work costs: more sessions, a larger partition, a map of which more has diverged. Rates end at what the
 * generator can do with so many sessions; the processor time of a command is the target's own.
 */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { load, loadAfter, type Measured } from './load.js';
import { diverge, fillAndCheck } from './measure.js';
import { startCldd, type Peer } from './peers.js';
import { barChart } from './report.js';
import { settle } from './stores.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;

export interface ScalingSettings {
  seconds: number;
  /** Bytes of the master that the load uses. */
  region: number;
  sessions: readonly number[];
  /** Sizes of the partition. */
  partitions: readonly number[];
}

export const SCALING: ScalingSettings = {
  seconds: 2,
  region: 256 * MIB,
  sessions: [1, 10, 100, 1000],
  partitions: [GIB, 64 * GIB, 1024 * GIB, 15 * 1024 * GIB],
};

export const SHORT_SCALING: ScalingSettings = {
  seconds: 0.3,
  region: 32 * MIB,
  sessions: [1, 10],
  partitions: [GIB, 64 * GIB],
};

interface Line {
  title: string;
  cells: (string | number)[];
}

const small = { order: 'random', bytes: 4096 } as const;

interface Part {
  /** Markdown. */
  title: string;
  heads: readonly string[];
  lines: Line[];
  /** Of the picture: a line of the table, and the cells with the processor time of reads and of writes. */
  named: (line: string) => string;
  shown: readonly [number, number];
}

/** Measures all of it; the answers are Markdown and an SVG. */
export async function scaling(
  folder: string,
  settings: ScalingSettings,
): Promise<{ text: string; picture: string }> {
  const parts: Part[] = [
    {
      title: '**Sessions** (4 KiB at random, depth 4 on each; memory is the daemon’s resident set)',
      heads: [
        'sessions',
        'reads/s',
        'µs of processor each',
        'writes/s',
        'µs of processor each',
        'MiB idle',
        'MiB busy',
      ],
      lines: await bySessions(folder, settings),
      named: (line) => `${line} session${line === '1' ? '' : 's'}`,
      shown: [1, 3],
    },
    {
      title: '**Size of the partition** (sparse; depth 32; reads and writes in the first part of the master)',
      heads: [
        'partition',
        'start after an orderly end, ms',
        'start after kill -9, ms',
        'MiB after the start',
        'reads/s',
        'µs each',
        'writes/s',
        'µs each',
      ],
      lines: await bySize(folder, settings),
      named: (line) => `partition of ${line}`,
      shown: [4, 6],
    },
    {
      title:
        '**Divergence** (slave enabled; so much of the region has changed since, block by block at random; depth 32)',
      heads: ['diverged', 'reads/s', 'µs each', 'writes/s', 'µs each'],
      lines: await byDivergence(folder, settings),
      named: (line) => `${line} diverged`,
      shown: [1, 3],
    },
  ];
  const text = parts.map(({ title, heads, lines }) => `${title}\n\n${table(heads, lines)}`).join('\n\n');
  const groups = parts.flatMap(({ lines, named, shown }) =>
    lines.map(({ title, cells }) => ({
      title: named(title),
      values: shown.map((cell) => Number(cells[cell])),
    })),
  );
  const picture = barChart({
    heading: 'processor time of one command in µs: flat is what it should be',
    series: ['4 KiB read', '4 KiB write'],
    groups,
  });
  return { text, picture };
}

async function bySessions(folder: string, { seconds, region, sessions }: ScalingSettings): Promise<Line[]> {
  const peer = await startCldd(folder, region);
  try {
    await fillAndCheck(peer, region);
    const lines: Line[] = [];
    for (const connections of sessions) {
      process.stderr.write(`${connections} sessions …\n`);
      const wanted = { ...small, region, seconds, connections, depth: 4 };
      const { measured: read, seen: idle } = await loadAfter(
        peer.url,
        peer.pid,
        { ...wanted, operation: 'read' },
        () => residentMib(peer),
      );
      const write = await load(peer.url, peer.pid, { ...wanted, operation: 'write' });
      const busy = residentMib(peer);
      lines.push({ title: String(connections), cells: [...cost(read), ...cost(write), idle, busy] });
    }
    return lines;
  } finally {
    await peer.stop();
  }
}

async function bySize(folder: string, { seconds, region, partitions }: ScalingSettings): Promise<Line[]> {
  const lines: Line[] = [];
  for (const partition of partitions) {
    process.stderr.write(`a partition of ${partition / GIB} GiB …\n`);
    const bytes = Math.floor((partition - 64 * MIB) / 2.1);
    const name = `size-${lines.length}`;
    const first = await startCldd(folder, bytes, name);
    const used = { ...small, region, seconds, depth: 32 };
    await load(first.url, first.pid, { ...used, operation: 'fill', ops: region / 4096, seconds: 100 });
    process.kill(first.pid, 'SIGKILL');
    await first.stop();
    const [afterKill, killed] = await started(folder, bytes, name);
    await killed.stop();
    const [afterEnd, peer] = await started(folder, bytes, name);
    try {
      const resident = residentMib(peer);
      const read = await load(peer.url, peer.pid, { ...used, operation: 'read' });
      const write = await load(peer.url, peer.pid, { ...used, operation: 'write' });
      const cells = [afterEnd, afterKill, resident, ...cost(read), ...cost(write)];
      lines.push({ title: `${partition / GIB} GiB`, cells });
    } finally {
      await peer.stop();
      rmSync(join(folder, `${name}.partition`));
    }
  }
  return lines;
}

async function started(folder: string, bytes: number, name: string): Promise<[ms: number, peer: Peer]> {
  const begun = performance.now();
  const peer = await startCldd(folder, bytes, name, { keep: true });
  return [Math.round(performance.now() - begun), peer];
}

async function byDivergence(folder: string, { seconds, region }: ScalingSettings): Promise<Line[]> {
  const peer = await startCldd(folder, region, 'diverged');
  try {
    await fillAndCheck(peer, region);
    await peer.slave?.enable();
    const lines: Line[] = [];
    for (const share of [0, 0.5, 1]) {
      process.stderr.write(`diverged by ${share * 100} % …\n`);
      await diverge(peer, region, share);
      await settle(peer.file);
      const used = { ...small, region, seconds, depth: 32 };
      const read = await load(peer.url, peer.pid, { ...used, operation: 'read' });
      const shown = `${share * 100} %`;
      const write =
        share === 1
          ? cost(await load(peer.url, peer.pid, { ...used, operation: 'write' }))
          : await firstOverwrites(peer, region, share);
      lines.push({ title: shown, cells: [...cost(read), ...write] });
    }
    return lines;
  } finally {
    await peer.stop();
  }
}

/** Writes that meet the share of diverged blocks, without making it another for long: a twentieth of the region. */
async function firstOverwrites(peer: Peer, region: number, share: number): Promise<(string | number)[]> {
  const written = await load(peer.url, peer.pid, {
    ...small,
    operation: 'write',
    region,
    depth: 32,
    ops: Math.floor(region / 4096 / 20),
    seed: 77,
  });
  await peer.slave?.disable();
  await peer.slave?.enable();
  if (share > 0) await settle(peer.file);
  return cost(written);
}

const cost = ({ opsPerSecond, targetCpuUs }: Measured): (string | number)[] => [
  Math.round(opsPerSecond).toLocaleString('en-US'),
  targetCpuUs.toFixed(1),
];

function residentMib({ pid }: Peer): number {
  const found = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Math.round(Number(found?.[1]) / 1024);
}

function table(heads: readonly string[], lines: readonly Line[]): string {
  return [
    `| ${heads.join(' | ')} |`,
    `|${'---|'.repeat(heads.length)}`,
    ...lines.map(({ title, cells }) => `| ${[title, ...cells].join(' | ')} |`),
  ].join('\n');
}
