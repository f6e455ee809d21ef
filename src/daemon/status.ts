/** What `cldd status --json` prints: stable names, times in ISO 8601, sizes in bytes. */
import type { PortalOptions, SessionInfo } from '../iscsi/options.js';
import type { IscsiCounters } from '../iscsi/counters.js';
import type { TargetConfiguration } from '../config/configuration.js';
import type { CommandClass, LatencyFigures } from '../scsi/latency.js';
import type { ScsiTarget, UnitStatistics } from '../scsi/target.js';
import type { HealthStatus } from './health.js';
import type { PartitionEngine } from './partition-engine.js';

export interface IoStatus {
  readOps: number;
  readBytes: number;
  writeOps: number;
  writeBytes: number;
  flushes: number;
}

/** As IoStatus, with what went wrong. */
export interface UnitStatus extends IoStatus {
  readErrors: number;
  writeErrors: number;
}

export interface UnitPerformance {
  /** Commands under way or waiting. */
  queueDepth: number;
  /** Per class of command, by the buckets of LATENCY_BOUNDS_SECONDS. */
  latencies: Record<CommandClass, LatencyFigures>;
}

export interface IscsiStatus extends IscsiCounters {
  connections: number;
  /** Of the refused logins, those with a wrong secret. */
  failedLogins: number;
}

export interface SessionStatus {
  id: number;
  target: string | null;
  initiator: string;
  /** Of the session (RFC 7143 MaxConnections); address and portal are those of the first. */
  connections: number;
  address: string;
  portal: string;
  user: string | null;
  luns: number[];
  since: string;
  digests: { header: boolean; data: boolean };
}

export interface TargetStatus {
  name: string;
  alias: string | null;
  partition: string;
  uuid: string;
  capacityBytes: number;
  /** Why the partition takes no more writes; null while all is well. */
  failed: string | null;
  slave: {
    enabled: boolean;
    /** Counts the enables. */
    generation: number;
    enabledAt: string | null;
    divergedBlocks: number;
    divergedBytes: number;
    heldBy: { initiator: string; address: string }[];
  };
  sessions: SessionStatus[];
  /** Both units together, since the daemon's start. */
  io: IoStatus;
  units: { master: UnitStatus; slave: UnitStatus };
  performance: { master: UnitPerformance; slave: UnitPerformance };
  engine: object;
}

export interface DaemonStatus {
  version: string;
  pid: number;
  startedAt: string;
  configuration: string | null;
  controlSocket: string;
  logLevel: string;
  portals: PortalStatus[];
  targets: TargetStatus[];
  discoverySessions: SessionStatus[];
  /** The address of the HTTP port for monitoring. */
  metrics: { host: string; port: number } | null;
  iscsi: IscsiStatus;
  health: HealthStatus;
}

export type PortalStatus = Pick<PortalOptions, 'host' | 'port' | 'portalGroupTag'>;

export function sessionStatus(session: SessionInfo): SessionStatus {
  const { id, initiator, connections, address, portal, luns } = session;
  return {
    id,
    target: session.target ?? null,
    initiator,
    connections,
    address,
    portal,
    user: session.user ?? null,
    luns: [...luns],
    since: session.since.toISOString(),
    digests: { header: session.headerDigest, data: session.dataDigest },
  };
}

export function targetStatus(
  configuration: TargetConfiguration,
  partition: PartitionEngine,
  scsi: ScsiTarget,
  sessions: readonly SessionInfo[],
): TargetStatus {
  const { capacityBytes, slave, failed, counters } = partition.status();
  const statistics = scsi.statistics();
  const units = { master: unit(statistics.master), slave: unit(statistics.slave) };
  const { master, slave: slavePerformance } = scsi.performance();
  return {
    name: configuration.name,
    alias: configuration.alias ?? null,
    partition: partition.path,
    uuid: partition.uuid,
    capacityBytes,
    failed: failed ?? null,
    slave: {
      enabled: slave.enabled,
      generation: slave.generation,
      enabledAt: slave.enabledAt ?? null,
      divergedBlocks: slave.divergedBlocks,
      divergedBytes: slave.divergedBytes,
      heldBy: scsi.slaveHolders().map(({ initiator, address }) => ({ initiator, address })),
    },
    sessions: sessions.map(sessionStatus),
    io: sum(units.master, units.slave),
    units,
    performance: { master: performanceOf(master), slave: performanceOf(slavePerformance) },
    engine: counters,
  };
}

function unit(statistics: Readonly<UnitStatistics>): UnitStatus {
  const { readOps, readBytes, writeOps, writeBytes, flushes, readErrors, writeErrors } = statistics;
  return { readOps, readBytes, writeOps, writeBytes, flushes, readErrors, writeErrors };
}

function performanceOf({
  queueDepth,
  latencies,
}: ReturnType<ScsiTarget['performance']>['master']): UnitPerformance {
  return { queueDepth, latencies: latencies.figures() };
}

function sum(a: IoStatus, b: IoStatus): IoStatus {
  return {
    readOps: a.readOps + b.readOps,
    readBytes: a.readBytes + b.readBytes,
    writeOps: a.writeOps + b.writeOps,
    writeBytes: a.writeBytes + b.writeBytes,
    flushes: a.flushes + b.flushes,
  };
}
