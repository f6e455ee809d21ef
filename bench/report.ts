/** What the bench prints and keeps: a table, the figures behind it, and a picture. */
import type { Measured } from './load.js';
import type { Row, Settings } from './measure.js';
import type { Workload } from './workloads.js';

export interface Results {
  at: string;
  machine: string;
  node: string;
  settings: Settings;
  /** Column to the program's version. */
  peers: Record<string, string>;
  rows: { workload: Workload; measured: Row }[];
}

/** The columns of the table: ours, and what each is compared with. */
const DISABLED = 'cldd';
const ENABLED = 'cldd, slave enabled';
const BASE = 'tgtd';
/** Another version of cldd. */
export const BEFORE = 'before';
/** Of its rate, the least that a change may leave. */
const KEPT = 0.98;

export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

const rates = (measured: readonly Measured[]): number[] => measured.map(({ opsPerSecond }) => opsPerSecond);

/** Median of the ratios of one round each, since both sides of a round met the same machine; and their range. */
export function ratio(
  row: Row,
  column: string,
  base = BASE,
): { median: number; low: number; high: number } | undefined {
  if (row[column] === undefined || row[base] === undefined) return undefined;
  const ours = rates(row[column]);
  const theirs = rates(row[base]);
  const ratios = ours.map((rate, round) => rate / theirs[round]);
  return { median: median(ratios), low: Math.min(...ratios), high: Math.max(...ratios) };
}

function cell(found: ReturnType<typeof ratio>, goal?: number): string {
  if (found === undefined) return '';
  const range = `${found.median.toFixed(2)} (${found.low.toFixed(2)}–${found.high.toFixed(2)})`;
  return goal === undefined ? range : `${range} ${found.median >= goal ? '✓' : `· wanted ${goal}`}`;
}

function figures(measured: readonly Measured[] | undefined): string {
  if (measured === undefined) return '';
  const middle = (pick: (one: Measured) => number): number => median(measured.map(pick));
  const rate = Math.round(middle((one) => one.opsPerSecond)).toLocaleString('en-US');
  const [p50, p99, cpu] = [
    middle((one) => one.p50Us),
    middle((one) => one.p99Us),
    middle((one) => one.targetCpuUs),
  ];
  return `${rate} · ${p50.toFixed(0)} / ${p99.toFixed(0)} · ${cpu.toFixed(1)}`;
}

/** Where, with what, how and when it was measured. */
function circumstances({ at, machine, node, peers, settings }: Results): string {
  const versions = Object.entries(peers).map(([column, version]) => `${column}: ${version}`);
  const { rounds, seconds, region } = settings;
  return `${machine}; Node ${node}; ${versions.join(', ')}. ${rounds} rounds of ${seconds} s, ${region >> 20} MiB of each LUN; ${at}.`;
}

/** What came of it in absolute figures, all columns. */
function absolute({ rows, peers }: Results): string[] {
  const columns = Object.keys(peers);
  return [
    'Commands a second · latency p50 / p99 in µs · processor time of the target for one command in µs (medians).',
    '',
    `| workload | ${columns.join(' | ')} |`,
    `|---|${columns.map(() => '---|').join('')}`,
    ...rows.map(
      ({ workload, measured }) =>
        `| ${[workload.title, ...columns.map((column) => figures(measured[column]))].join(' | ')} |`,
    ),
  ];
}

/** cldd beside another version of itself. */
export function toComparison(results: Results): string {
  const lines = [
    circumstances(results),
    '',
    'Rates as ratios to the version before: the median of all rounds, and the range.',
    '',
    '| workload | ratio |',
    '|---|---|',
    ...results.rows.map(
      ({ workload, measured }) => `| ${workload.title} | ${cell(ratio(measured, DISABLED, BEFORE), KEPT)} |`,
    ),
    '',
    ...absolute(results),
  ];
  return `${lines.join('\n')}\n`;
}

export function toMarkdown(results: Results): string {
  const { rows, peers } = results;
  const others = Object.keys(peers).filter((column) => ![DISABLED, ENABLED, BASE].includes(column));
  const lines = [
    circumstances(results),
    '',
    'Rates as ratios to tgtd with its defaults: the median of all rounds, and the range.',
    '',
    `| workload | slave disabled | slave enabled | ${others.join(' | ')} |`,
    `|---|---|---|${others.map(() => '---|').join('')}`,
    ...rows.map(({ workload, measured }) => {
      const { disabled, enabled } = workload.goal;
      const cells = [cell(ratio(measured, DISABLED), disabled), cell(ratio(measured, ENABLED), enabled)];
      return `| ${[workload.title, ...cells, ...others.map((column) => cell(ratio(measured, column)))].join(' | ')} |`;
    }),
    '',
    ...absolute(results),
  ];
  return `${lines.join('\n')}\n`;
}

const BAR = { height: 14, gap: 10, left: 360, width: 420 };
const COLOURS = ['#2563eb', '#60a5fa'];

export interface Chart {
  heading: string;
  series: readonly string[];
  groups: readonly { title: string; values: readonly number[] }[];
  /** A dashed line at this value. */
  mark?: number;
}

/** A bar for each ratio; the line at 1 is tgtd. */
export function toSvg(results: Results): string {
  return barChart({
    heading: 'rate as a multiple of tgtd (dashed line: 1)',
    series: [DISABLED, ENABLED],
    groups: results.rows.map(({ workload, measured }) => ({
      title: workload.title,
      values: [DISABLED, ENABLED].map((column) => ratio(measured, column)?.median ?? 0),
    })),
    mark: 1,
  });
}

/** An SVG with a group of bars for each title, a bar in it for each series. */
export function barChart({ heading, series, groups, mark }: Chart): string {
  const largest = Math.max(1, ...groups.flatMap(({ values }) => values));
  const scale = BAR.width / largest;
  const step = series.length * BAR.height + BAR.gap;
  const top = 40;
  const height = top + groups.length * step + 10;
  const text = (x: number, y: number, words: string, more = ''): string =>
    `<text x="${x}" y="${y}" ${more}>${words}</text>`;
  const bars = groups.flatMap(({ title, values }, index) => {
    const y = top + index * step;
    return [
      text(BAR.left - 8, y + BAR.height + 4, title, 'text-anchor="end"'),
      ...values.map((value, place) => {
        const at = y + place * BAR.height;
        const length = (value * scale).toFixed(1);
        return (
          `<rect x="${BAR.left}" y="${at}" width="${length}" height="${BAR.height - 2}" fill="${COLOURS[place]}"/>` +
          text(BAR.left + value * scale + 4, at + BAR.height - 4, value.toFixed(1))
        );
      }),
    ];
  });
  const at = (BAR.left + (mark ?? 0) * scale).toFixed(1);
  const dashed =
    mark === undefined
      ? ''
      : `<line x1="${at}" y1="${top - 6}" x2="${at}" y2="${height - 8}" stroke="#444" stroke-dasharray="4 3"/>\n`;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${BAR.left + BAR.width + 50}" height="${height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
${text(BAR.left, 18, heading)}
${series.map((name, place) => `<rect x="${8 + place * 150}" y="10" width="10" height="10" fill="${COLOURS[place]}"/>${text(22 + place * 150, 19, name)}`).join('\n')}
${bars.join('\n')}
${dashed}</svg>
`;
}
