/** Commands that reach into the engine: rollback, changes, grow. */
import type { Command } from 'commander';
import type { Arguments } from '../../admin/protocol.js';
import type { ChangedRange } from '../../daemon/partition-engine.js';
import { OperationalError } from '../../operational-error.js';
import type { DaemonOptions } from '../daemon-options.js';
import { request, withDaemon } from '../daemon-options.js';
import { examples } from '../examples.js';
import { bytes, print, printJson } from '../output.js';
import { parseCount } from '../size.js';

interface ChangesPage {
  target: string;
  since: number | null;
  generation: number;
  full: boolean;
  approximate: boolean;
  granularityBytes: number;
  capacityBytes: number;
  ranges: ChangedRange[];
  next: number | null;
}

export function addEngineCommands(program: Command): void {
  withDaemon(program.command('rollback [target]'))
    .description("Make the master the slave's image again. What was written since the enable is lost.")
    .option('--yes', 'really do it')
    .option('--dry-run', 'say how much would be lost, or why it would be refused')
    .option('--force', 'even while an initiator uses the master')
    .addHelpText('after', examples('cldd rollback iqn.2026-01.com.example:files --yes'))
    .action(rollback);
  withDaemon(program.command('changes [target]'))
    .description(
      'List the byte ranges of the master that differ from an earlier generation: POSITION LENGTH.',
    )
    .option(
      '--since <generation>',
      'the slave of that generation (default: nothing, so all of the master)',
      parseCount,
    )
    .addHelpText('after', examples('cldd changes --since 12', 'cldd changes --since 12 --json'))
    .action(changes);
  withDaemon(program.command('grow [target]'))
    .description('Use what the device or file has gained in size; initiators are told of the new capacity.')
    .option('--dry-run', 'say what would be done, or why it would be refused')
    .addHelpText('after', examples('truncate -s 200G /srv/files.cldd && cldd grow'))
    .action(grow);
}

const named = (target: string | undefined): Arguments => (target === undefined ? {} : { target });

async function rollback(
  target: string | undefined,
  options: DaemonOptions & { yes?: boolean; force?: boolean },
): Promise<void> {
  const { yes = false, force = false, dryRun = false } = options;
  if (!yes && !dryRun) {
    throw new OperationalError(
      'NEEDS_YES',
      'a rollback throws away everything that was written to the master since the slave was enabled; say --yes to do it',
    );
  }
  const answer = (await request(options, 'rollback', { ...named(target), force, dryRun })) as RollbackAnswer;
  if (options.json) printJson(answer);
  else if (!options.quiet) print(dryRun ? plan(answer) : done(answer));
}

interface RollbackAnswer {
  target: string;
  generation: number;
  /** Of a dry run. */
  divergedBytes?: number;
  initiators?: string[];
}

const done = ({ target, generation }: RollbackAnswer): string =>
  `${target}: the master is the slave of generation ${generation} again`;

const plan = ({ target, generation, divergedBytes = 0, initiators = [] }: RollbackAnswer): string =>
  `${target}: would become the slave of generation ${generation} again; ${bytes(divergedBytes)} of changes would be lost; logged in: ${initiators.join(', ') || 'nobody'}`;

async function changes(
  target: string | undefined,
  options: DaemonOptions & { since?: number },
): Promise<void> {
  const given: Arguments = {
    ...named(target),
    ...(options.since === undefined ? {} : { since: options.since }),
  };
  const first = (await request(options, 'changes', given)) as ChangesPage;
  const all: ChangedRange[] = [];
  for (let page = first; ;) {
    if (options.json) all.push(...page.ranges);
    else if (!options.quiet) for (const { position, length } of page.ranges) print(`${position} ${length}`);
    if (page.next === null) break;
    page = (await request(options, 'changes', { ...given, from: page.next })) as ChangesPage;
  }
  if (options.json) {
    const { target: name, since, generation, full, approximate, granularityBytes, capacityBytes } = first;
    printJson({
      target: name,
      since,
      generation,
      full,
      approximate,
      granularityBytes,
      capacityBytes,
      ranges: all,
    });
  } else if (!options.quiet) {
    if (first.full) process.stderr.write('cldd: full: all of the master is listed\n');
    if (first.approximate)
      process.stderr.write('cldd: approximate: after a crash, more is listed than has changed\n');
  }
}

async function grow(target: string | undefined, options: DaemonOptions): Promise<void> {
  const { dryRun = false } = options;
  const answer = await request(options, 'grow', { ...named(target), dryRun });
  const {
    target: name,
    capacityBytes,
    addedBytes,
  } = answer as {
    target: string;
    capacityBytes: number;
    addedBytes: number;
  };
  if (options.json) printJson(answer);
  else if (!options.quiet)
    print(
      `${name}: the master ${dryRun ? 'would have' : 'has'} ${bytes(capacityBytes)}${dryRun ? '' : ' now'}, ${bytes(addedBytes)} more`,
    );
}
