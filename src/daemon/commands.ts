/** Requests of the control socket, executed. */
import type { Arguments, CommandName, Request } from '../admin/protocol.js';
import type { LogLevel } from '../config/configuration.js';
import { OperationalError } from '../operational-error.js';
import type { Daemon } from './daemon.js';
import { readSlave } from './read-slave.js';
import { sessionStatus } from './status.js';
import type { ChangedRange } from './partition-engine.js';

/** Ranges in one answer: some 2 MB of JSON. */
const RANGES_MAX = 50_000;

type Execute = (daemon: Daemon, given: Arguments) => unknown;

const COMMANDS: Record<CommandName, Execute> = {
  status: (daemon, { target }) => {
    const status = daemon.status();
    if (target === undefined) return status;
    const { name } = daemon.target(target);
    return { ...status, targets: status.targets.filter((one) => one.name === name) };
  },
  targets: (daemon) =>
    daemon.targets.map(({ name, configuration, partition }) => ({
      name,
      alias: configuration.alias ?? null,
      partition: partition.path,
      capacityBytes: partition.master.capacityBytes,
      slaveEnabled: partition.slave.present,
      rules: configuration.access.length,
      users: configuration.authentication.users.map((user) => user.name),
      allowEject: configuration.allowEject,
      allowLoad: configuration.allowLoad,
    })),
  sessions: (daemon, { target }) => {
    const sessions = daemon.sessions().map(sessionStatus);
    if (target === undefined) return sessions;
    const { name } = daemon.target(target);
    return sessions.filter((session) => session.target === name);
  },
  'session-kill': (daemon, { session = 0, dryRun = false }) => {
    const found = daemon.sessions().find(({ id }) => id === session);
    if (found === undefined || !(dryRun || daemon.killSession(session)))
      throw new OperationalError(
        'NO_SUCH_SESSION',
        `there is no session ${session}; \`cldd sessions\` lists them`,
      );
    const { initiator, address, target = null } = found;
    return { session, target, initiator, address, ...dry(dryRun) };
  },
  'slave-enable': async (daemon, { target, crashConsistent = false, dryRun = false }) => {
    const served = daemon.target(target);
    if (dryRun)
      return { target: served.name, enabled: true, ...served.would.enable({ crashConsistent }), dryRun };
    const { generation, enabledAt } = await served.enable({ crashConsistent });
    return { target: served.name, enabled: true, generation, enabledAt };
  },
  'slave-disable': async (daemon, { target, force = false, dryRun = false }) => {
    const served = daemon.target(target);
    if (dryRun) return { target: served.name, enabled: false, ...served.would.disable({ force }), dryRun };
    await served.disable({ force });
    return { target: served.name, enabled: false };
  },
  'slave-read': async (daemon, { target, generation = 0, position = 0, length = 0 }) => {
    const { name, partition } = daemon.target(target);
    return await readSlave(name, partition, { generation, position, length });
  },
  rollback: async (daemon, { target, force = false, dryRun = false }) => {
    const served = daemon.target(target);
    if (dryRun)
      return { target: served.name, ...served.would.rollback({ force }, daemon.sessions()), dryRun };
    await served.rollback({ force }, daemon.sessions());
    return { target: served.name, generation: served.partition.slave.generation };
  },
  changes: async (daemon, { target, since, from = 0 }) => {
    const served = daemon.target(target);
    const { ranges, ...changes } = served.partition.changes(since);
    return { target: served.name, ...changes, since: since ?? null, ...(await pageOf(ranges, from)) };
  },
  grow: async (daemon, { target, dryRun = false }) => {
    const served = daemon.target(target);
    const grown = dryRun ? served.would.grow() : await served.grow();
    return { target: served.name, ...grown, ...dry(dryRun) };
  },
  reload: (daemon, { dryRun }) => daemon.reload({ dryRun: dryRun === true }),
  'log-level': (daemon, { level, dryRun = false }) => {
    if (dryRun) return { level: daemon.logLevel, next: level ?? daemon.logLevel, dryRun };
    if (level !== undefined) daemon.logLevel = level as LogLevel;
    return { level: daemon.logLevel };
  },
};

const dry = (dryRun: boolean): object => (dryRun ? { dryRun } : {});

export async function answer(daemon: Daemon, { command, arguments: given }: Request): Promise<unknown> {
  return await COMMANDS[command](daemon, given);
}

/** A page of ranges and where the next page begins, so that no answer grows without bound. */
async function pageOf(
  ranges: AsyncIterable<ChangedRange>,
  from: number,
): Promise<{ ranges: ChangedRange[]; next: number | null }> {
  const page: ChangedRange[] = [];
  for await (const { position, length } of ranges) {
    const end = position + length;
    if (end <= from) continue;
    if (page.length === RANGES_MAX) return { ranges: page, next: position };
    const begin = Math.max(position, from);
    page.push({ position: begin, length: end - begin });
  }
  return { ranges: page, next: null };
}
