/** The daemon's status in the Prometheus text format, version 0.0.4. */
import { LATENCY_BOUNDS_SECONDS } from '../scsi/latency.js';
import type { DaemonStatus, TargetStatus } from './status.js';

type Labels = Record<string, string>;
type Samples = (readonly [Labels, number])[];

interface Metric<Of> {
  name: string;
  type: 'gauge' | 'counter';
  help: string;
  /** Values with their labels. */
  of: (status: Of) => Samples;
}

const UNITS = ['master', 'slave'] as const;
const one = (value: number): Samples => [[{}, value]];
const gauge = <Of>(name: string, help: string, of: (status: Of) => Samples): Metric<Of> => ({
  name: `cldd_${name}`,
  type: 'gauge',
  help,
  of,
});
const counter = <Of>(name: string, help: string, of: (status: Of) => Samples): Metric<Of> => ({
  name: `cldd_${name}_total`,
  type: 'counter',
  help,
  of,
});
const labelled = (label: string, values: Record<string, number>): Samples =>
  Object.entries(values).map(([name, value]) => [{ [label]: name }, value]);

const OF_DAEMON: readonly Metric<DaemonStatus>[] = [
  gauge('info', 'Version of the daemon.', ({ version }) => [[{ version }, 1]]),
  gauge('start_time_seconds', 'When the daemon started.', ({ startedAt }) =>
    one(Date.parse(startedAt) / 1000),
  ),
  gauge('discovery_sessions', 'Discovery sessions.', ({ discoverySessions }) =>
    one(discoverySessions.length),
  ),
  gauge('connections', 'TCP connections of initiators.', ({ iscsi }) => one(iscsi.connections)),
  counter('connections_accepted', 'Connections accepted.', ({ iscsi }) => one(iscsi.connectionsAccepted)),
  counter('connections_refused', 'Connections over a limit.', ({ iscsi }) => one(iscsi.connectionsRefused)),
  counter('connections_dropped', 'Connections broken off by cldd: errors, silence.', ({ iscsi }) =>
    one(iscsi.connectionsDropped),
  ),
  counter('logins', 'Sessions begun.', ({ iscsi }) => one(iscsi.logins)),
  counter('logins_refused', 'Logins refused for whatever reason.', ({ iscsi }) => one(iscsi.loginsRefused)),
  counter('authentication_failures', 'Logins with a wrong secret.', ({ iscsi }) => one(iscsi.failedLogins)),
  counter('digest_errors', 'PDUs with a wrong digest.', ({ iscsi }) =>
    labelled('kind', { header: iscsi.headerDigestErrors, data: iscsi.dataDigestErrors }),
  ),
  counter('rejects', 'Reject PDUs sent.', ({ iscsi }) => one(iscsi.rejects)),
  gauge('event_loop_delay_seconds', 'How late the event loop was, in the last 10 s.', ({ health }) => {
    const { p50, p99, max } = health.eventLoopDelayMs;
    return labelled('quantile', { '0.5': p50 / 1000, '0.99': p99 / 1000, '1': max / 1000 });
  }),
  gauge('memory_bytes', 'Memory of the process.', ({ health }) => labelled('kind', health.memoryBytes)),
  counter('cpu_seconds', 'Processor time of the process.', ({ health }) =>
    labelled('mode', health.cpuSeconds),
  ),
];

const perUnit =
  (field: 'readOps' | 'readBytes' | 'writeOps' | 'writeBytes' | 'flushes' | 'readErrors' | 'writeErrors') =>
  ({ units }: TargetStatus): Samples =>
    UNITS.map((unit) => [{ unit }, units[unit][field]]);

/** The engine's counters by their names there. */
const ENGINE: Readonly<Record<string, readonly [string, string]>> = {
  dataReads: ['engine_data_reads', 'Reads of the device.'],
  dataWrites: ['engine_data_writes', 'Writes of data to the device.'],
  dataBytesWritten: ['engine_data_written_bytes', 'Data written to the device.'],
  firstOverwrites: ['engine_first_overwrites', 'Blocks that changed place while the slave was enabled.'],
  metadataWrites: ['engine_metadata_writes', 'Writes of metadata.'],
  metadataBytesWritten: ['engine_metadata_written_bytes', 'Metadata written.'],
  syncs: ['engine_syncs', 'Times that the device was made durable.'],
  journalCommits: ['engine_journal_commits', 'Commits of the journal.'],
  journalBlocks: ['engine_journal_blocks', 'Blocks written to the journal.'],
  checkpoints: ['engine_checkpoints', 'Checkpoints.'],
  mapPagesWritten: ['engine_map_pages_written', 'Map pages written by checkpoints.'],
  activityWrites: ['engine_activity_writes', 'Writes of the activity log.'],
};

const OF_TARGET: readonly Metric<TargetStatus>[] = [
  gauge('capacity_bytes', 'Capacity of the master.', ({ capacityBytes }) => one(capacityBytes)),
  gauge('partition_failed', '1 if the partition takes no more writes.', ({ failed }) =>
    one(failed === null ? 0 : 1),
  ),
  gauge('slave_enabled', '1 while the slave is enabled.', ({ slave }) => one(slave.enabled ? 1 : 0)),
  gauge('slave_generation', 'Number of enables so far.', ({ slave }) => one(slave.generation)),
  gauge(
    'slave_enabled_timestamp_seconds',
    'When it was last enabled; absent before the first time.',
    ({ slave }) => (slave.enabledAt === null ? [] : one(Date.parse(slave.enabledAt) / 1000)),
  ),
  gauge('slave_age_seconds', 'How long the slave has been enabled; 0 if it is not.', ({ slave }) =>
    one(
      slave.enabled && slave.enabledAt !== null
        ? Math.max(0, Date.now() - Date.parse(slave.enabledAt)) / 1000
        : 0,
    ),
  ),
  gauge('slave_diverged_bytes', 'Of the master, changed since the enable.', ({ slave }) =>
    one(slave.divergedBytes),
  ),
  gauge('slave_holders', 'Initiators that have the slave open or mounted.', ({ slave }) =>
    one(slave.heldBy.length),
  ),
  gauge('sessions', 'iSCSI sessions of the target.', ({ sessions }) => one(sessions.length)),
  gauge('queue_depth', 'Commands under way or waiting.', ({ performance }) =>
    UNITS.map((unit) => [{ unit }, performance[unit].queueDepth]),
  ),
  counter('read_ops', 'Read commands.', perUnit('readOps')),
  counter('read_bytes', 'Bytes read.', perUnit('readBytes')),
  counter('write_ops', 'Write commands.', perUnit('writeOps')),
  counter('write_bytes', 'Bytes written.', perUnit('writeBytes')),
  counter('flushes', 'Flushes.', perUnit('flushes')),
  counter('read_errors', 'Reads that the device failed.', perUnit('readErrors')),
  counter('write_errors', 'Writes and flushes that the device failed.', perUnit('writeErrors')),
  ...Object.entries(ENGINE).map(([field, [name, help]]) =>
    counter(name, help, ({ engine }: TargetStatus) => {
      const value = (engine as Record<string, unknown>)[field];
      return typeof value === 'number' ? one(value) : [];
    }),
  ),
];

export function renderPrometheus(status: DaemonStatus): string {
  const lines: string[] = [];
  for (const { name, type, help, of } of OF_DAEMON) {
    lines.push(...head(name, type, help));
    for (const [labels, value] of of(status)) lines.push(sample(name, labels, value));
  }
  for (const { name, type, help, of } of OF_TARGET) {
    lines.push(...head(name, type, help));
    for (const target of status.targets)
      for (const [labels, value] of of(target))
        lines.push(sample(name, { target: target.name, ...labels }, value));
  }
  lines.push(...renderLatencies(status.targets));
  return `${lines.join('\n')}\n`;
}

const LATENCY = 'cldd_command_duration_seconds';

function renderLatencies(targets: readonly TargetStatus[]): string[] {
  const lines = head(LATENCY, 'histogram', 'From the arrival of a command to its answer.');
  for (const { name: target, performance } of targets)
    for (const unit of UNITS)
      for (const [kind, { counts, sumSeconds }] of Object.entries(performance[unit].latencies)) {
        const labels = { target, unit, class: kind };
        let sum = 0;
        counts.forEach((count, bucket) => {
          sum += count;
          const le = String(LATENCY_BOUNDS_SECONDS.at(bucket) ?? '+Inf');
          lines.push(sample(`${LATENCY}_bucket`, { ...labels, le }, sum));
        });
        lines.push(sample(`${LATENCY}_sum`, labels, sumSeconds), sample(`${LATENCY}_count`, labels, sum));
      }
  return lines;
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
