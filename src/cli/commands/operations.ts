/** Commands to a running daemon besides `status` and `slave`. */
import { Argument } from 'commander';
import type { Command } from 'commander';
import { LOG_LEVELS } from '../../config/configuration.js';
import type { ReloadReport } from '../../daemon/reload.js';
import type { SessionStatus } from '../../daemon/status.js';
import type { DaemonOptions } from '../daemon-options.js';
import { request, withDaemon } from '../daemon-options.js';
import { examples } from '../examples.js';
import { bytes, print, printJson, table } from '../output.js';
import { renderSessions } from '../render-status.js';
import { parseCount } from '../size.js';

interface TargetInfo {
  name: string;
  partition: string;
  capacityBytes: number;
  slaveEnabled: boolean;
  rules: number;
  users: string[];
}

export function addOperations(program: Command): void {
  withDaemon(program.command('targets'))
    .description('List the targets.')
    .addHelpText('after', examples('cldd targets', 'cldd targets --json'))
    .action(targets);
  withDaemon(program.command('sessions [target]'))
    .description('List the sessions, discovery sessions included.')
    .addHelpText('after', examples('cldd sessions', 'cldd sessions iqn.2026-01.com.example:files'))
    .action(sessions);
  withDaemon(program.command('session').description('Work with one session.').command('kill'))
    .argument('<session>', 'its number in `cldd sessions`', parseCount)
    .description(
      'End a session; its initiator will probably log in again, unless the access rules forbid it.',
    )
    .option('--dry-run', 'say what would be done, or why it would be refused')
    .addHelpText('after', examples('cldd session kill 3'))
    .action(killSession);
  withDaemon(program.command('reload'))
    .description("Take over what changed in the daemon's configuration file, without a restart.")
    .option('--dry-run', 'only say what would change')
    .addHelpText(
      'after',
      examples('cldd reload --dry-run', 'cldd config check /etc/cldd/cldd.yaml && cldd reload'),
    )
    .action(reload);
  withDaemon(program.command('log-level'))
    .addArgument(new Argument('[level]', 'the new level').choices(LOG_LEVELS))
    .description('Show or change the least important messages that the daemon logs.')
    .option('--dry-run', 'only say what would change')
    .addHelpText('after', examples('cldd log-level', 'cldd log-level debug'))
    .action(logLevel);
}

async function targets(options: DaemonOptions): Promise<void> {
  const list = (await request(options, 'targets')) as TargetInfo[];
  if (options.json) printJson(list);
  if (options.json || options.quiet) return;
  const rows = list.map(({ name, partition, capacityBytes, slaveEnabled, rules, users }) => [
    name,
    partition,
    bytes(capacityBytes),
    slaveEnabled ? 'enabled' : 'disabled',
    String(rules),
    users.join(',') || 'none',
  ]);
  print(table(['target', 'partition', 'master', 'slave', 'rules', 'CHAP users'], rows));
}

async function sessions(target: string | undefined, options: DaemonOptions): Promise<void> {
  const list = (await request(
    options,
    'sessions',
    target === undefined ? {} : { target },
  )) as SessionStatus[];
  if (options.json) printJson(list);
  else if (!options.quiet) print(list.length === 0 ? 'no sessions' : renderSessions(list, Date.now()));
}

interface KilledSession {
  initiator: string;
  address: string;
}

async function killSession(session: number, options: DaemonOptions): Promise<void> {
  const { dryRun = false } = options;
  const answer = (await request(options, 'session-kill', { session, dryRun })) as KilledSession;
  if (options.json) printJson(answer);
  else if (!options.quiet)
    print(
      `session ${session} of ${answer.initiator} (${answer.address}) ${dryRun ? 'would be ended' : 'ended'}`,
    );
}

async function reload(options: DaemonOptions): Promise<void> {
  const { dryRun = false } = options;
  const report = (await request(options, 'reload', { dryRun })) as ReloadReport;
  if (options.json) {
    printJson(report);
    return;
  }
  if (options.quiet) return;
  const entries = [
    ['added', report.added],
    ['removed', report.removed],
    ['changed', report.changed],
    ['taken over', report.settings],
    ['changed, but needs a restart', report.needRestart],
  ] as const;
  const lines = entries
    .filter(([, names]) => names.length > 0)
    .map(([what, names]) => `${what}: ${names.join(', ')}`);
  print(lines.length === 0 ? 'nothing changed' : lines.join('\n'));
}

async function logLevel(level: string | undefined, options: DaemonOptions): Promise<void> {
  const { dryRun = false } = options;
  const given = { dryRun, ...(level === undefined ? {} : { level }) };
  const answer = (await request(options, 'log-level', given)) as { level: string; next?: string };
  if (options.json) printJson(answer);
  else if (!options.quiet)
    print(
      answer.next === undefined || answer.next === answer.level
        ? answer.level
        : `${answer.level}, would be ${answer.next}`,
    );
}
