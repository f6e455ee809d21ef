/** `cldd status` for people. */
import { formatHostPort } from '../config/addresses.js';
import type { DaemonStatus, IoStatus, SessionStatus, TargetStatus } from '../daemon/status.js';
import { bytes, count, duration, paint, table } from './output.js';

/** An earlier status, for rates. */
export interface Previous {
  status: DaemonStatus;
  elapsedMs: number;
}

export function renderStatus(status: DaemonStatus, previous?: Previous, now = Date.now()): string {
  const portals = status.portals.map(({ host, port }) => formatHostPort(host, port)).join(', ');
  const up = duration(now - Date.parse(status.startedAt));
  const head = `cldd ${status.version}, process ${status.pid}, up ${up}, on ${portals}`;
  const targets = status.targets.map((target) => {
    const before = previous?.status.targets.find(({ name }) => name === target.name);
    return renderTarget(
      target,
      now,
      before && previous ? { io: before.io, elapsedMs: previous.elapsedMs } : undefined,
    );
  });
  return [head, ...targets].join('\n\n');
}

function renderTarget(
  target: TargetStatus,
  now: number,
  before?: { io: IoStatus; elapsedMs: number },
): string {
  const { name, alias, partition, capacityBytes, failed, io } = target;
  const lines = [
    `${paint('bold', name)}${alias === null ? '' : ` (${alias})`}`,
    `  partition  ${partition}, master of ${bytes(capacityBytes)}`,
    `  slave      ${renderSlave(target, now)}`,
    `  I/O        ${renderIo(io)}`,
  ];
  if (failed !== null) lines.push(`  ${paint('red', `FAILED     ${failed}: takes no more writes`)}`);
  if (before !== undefined) lines.push(`  now        ${renderRates(io, before.io, before.elapsedMs)}`);
  if (target.sessions.length === 0) lines.push('  sessions   none');
  else lines.push(renderSessions(target.sessions, now, '  '));
  return lines.join('\n');
}

function renderSlave({ slave, capacityBytes }: TargetStatus, now: number): string {
  if (!slave.enabled || slave.enabledAt === null)
    return `${paint('dim', 'disabled')} (generation ${slave.generation})`;
  const age = duration(now - Date.parse(slave.enabledAt));
  const share = ((slave.divergedBytes / capacityBytes) * 100).toFixed(1);
  const held = slave.heldBy.map(
    ({ initiator, address }) => `\n             held by ${initiator} (${address})`,
  );
  const state = paint('green', 'enabled');
  const changed = `${bytes(slave.divergedBytes)} (${share} %) of the master changed since`;
  return `${state} ${age} ago (generation ${slave.generation}), ${changed}${held.join('')}`;
}

function renderIo(io: IoStatus): string {
  const reads = `${count(io.readOps)} reads (${bytes(io.readBytes)})`;
  const writes = `${count(io.writeOps)} writes (${bytes(io.writeBytes)})`;
  return `${reads}, ${writes}, ${count(io.flushes)} flushes`;
}

function renderRates(now: IoStatus, before: IoStatus, elapsedMs: number): string {
  const rate = (key: keyof IoStatus): number =>
    Math.max(0, Math.round(((now[key] - before[key]) * 1000) / elapsedMs));
  const reads = `${count(rate('readOps'))} reads/s (${bytes(rate('readBytes'))}/s)`;
  const writes = `${count(rate('writeOps'))} writes/s (${bytes(rate('writeBytes'))}/s)`;
  return `${reads}, ${writes}, ${count(rate('flushes'))} flushes/s`;
}

export function renderSessions(sessions: readonly SessionStatus[], now: number, indent = ''): string {
  const rows = sessions.map(({ id, initiator, connections, address, luns, since, user }) => [
    String(id),
    initiator,
    String(connections),
    address,
    luns.join(','),
    duration(now - Date.parse(since)),
    user ?? '-',
  ]);
  return table(['session', 'initiator', 'connections', 'address', 'LUNs', 'since', 'user'], rows, indent);
}
