/** `cldd metrics`: the daemon's status in the Prometheus text format, version 0.0.4. */
import type { DaemonStatus, TargetStatus } from '../daemon/status.js';

type Labels = Record<string, string>;

interface Metric {
  name: string;
  type: 'gauge' | 'counter';
  help: string;
  /** Values with their labels, of one target. */
  of: (target: TargetStatus) => (readonly [Labels, number])[];
}

const one = (value: number): (readonly [Labels, number])[] => [[{}, value]];
const perLun =
  (field: 'readOps' | 'readBytes' | 'writeOps' | 'writeBytes' | 'flushes') =>
  ({ units }: TargetStatus): (readonly [Labels, number])[] =>
    (['master', 'slave'] as const).map((unit) => [{ unit }, units[unit][field]]);

const METRICS: readonly Metric[] = [
  {
    name: 'cldd_capacity_bytes',
    type: 'gauge',
    help: 'Capacity of the master.',
    of: (target) => one(target.capacityBytes),
  },
  {
    name: 'cldd_partition_failed',
    type: 'gauge',
    help: '1 if the partition takes no more writes.',
    of: (target) => one(target.failed === null ? 0 : 1),
  },
  {
    name: 'cldd_slave_enabled',
    type: 'gauge',
    help: '1 while the slave is enabled.',
    of: ({ slave }) => one(slave.enabled ? 1 : 0),
  },
  {
    name: 'cldd_slave_generation',
    type: 'gauge',
    help: 'Number of enables so far.',
    of: ({ slave }) => one(slave.generation),
  },
  {
    name: 'cldd_slave_enabled_timestamp_seconds',
    type: 'gauge',
    help: 'When the slave was last enabled; absent before the first time.',
    of: ({ slave }) => (slave.enabledAt === null ? [] : one(Date.parse(slave.enabledAt) / 1000)),
  },
  {
    name: 'cldd_slave_diverged_bytes',
    type: 'gauge',
    help: 'Of the master, changed since the enable.',
    of: ({ slave }) => one(slave.divergedBytes),
  },
  {
    name: 'cldd_slave_holders',
    type: 'gauge',
    help: 'Initiators that have the slave open or mounted.',
    of: ({ slave }) => one(slave.heldBy.length),
  },
  {
    name: 'cldd_sessions',
    type: 'gauge',
    help: 'iSCSI sessions of the target.',
    of: ({ sessions }) => one(sessions.length),
  },
  { name: 'cldd_read_ops_total', type: 'counter', help: 'Read commands.', of: perLun('readOps') },
  { name: 'cldd_read_bytes_total', type: 'counter', help: 'Bytes read.', of: perLun('readBytes') },
  { name: 'cldd_write_ops_total', type: 'counter', help: 'Write commands.', of: perLun('writeOps') },
  { name: 'cldd_write_bytes_total', type: 'counter', help: 'Bytes written.', of: perLun('writeBytes') },
  { name: 'cldd_flushes_total', type: 'counter', help: 'Flushes.', of: perLun('flushes') },
];

export function renderPrometheus({ targets, startedAt, version }: DaemonStatus): string {
  const lines = [
    ...head('cldd_info', 'gauge', 'Version of the daemon.'),
    sample('cldd_info', { version }, 1),
    ...head('cldd_start_time_seconds', 'gauge', 'When the daemon started.'),
    sample('cldd_start_time_seconds', {}, Date.parse(startedAt) / 1000),
  ];
  for (const { name, type, help, of } of METRICS) {
    lines.push(...head(name, type, help));
    for (const target of targets)
      for (const [labels, value] of of(target))
        lines.push(sample(name, { target: target.name, ...labels }, value));
  }
  return lines.join('\n');
}

function head(name: string, type: string, help: string): string[] {
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`];
}

function sample(name: string, labels: Labels, value: number): string {
  const list = Object.entries(labels).map(([key, text]) => `${key}="${escape(text)}"`);
  return `${name}${list.length === 0 ? '' : `{${list.join(',')}}`} ${value}`;
}

function escape(text: string): string {
  return text.replace(/\\/g, '\\\\').replace(/"/g, '\\"').replace(/\n/g, '\\n');
}
