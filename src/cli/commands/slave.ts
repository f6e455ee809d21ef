/** `cldd slave enable|disable`. */
import type { Command } from 'commander';
import type { DaemonOptions } from '../daemon-options.js';
import { request, withDaemon } from '../daemon-options.js';
import { examples } from '../examples.js';
import { print, printJson } from '../output.js';

interface SlaveAnswer {
  target: string;
  enabled: boolean;
  generation: number;
  enabledAt: string;
}

export function addSlave(program: Command): void {
  const slave = program
    .command('slave')
    .description('Freeze the master into the slave, or let the slave go.');
  withDaemon(slave.command('enable [target]'))
    .description('Make the slave show the master as it is now. TARGET may be left out when there is one.')
    .option(
      '--crash-consistent',
      'also while a file system on the master is mounted: an image as after a power cut',
    )
    .option('--dry-run', 'say what would be done, or why it would be refused')
    .addHelpText(
      'after',
      examples('cldd slave enable', 'cldd slave enable iqn.2026-01.com.example:files --json'),
    )
    .action(enable);
  withDaemon(slave.command('disable [target]'))
    .description('Take the slave away. Refused while an initiator has it open or mounted.')
    .option('--force', 'take it away from those who use it: they get I/O errors')
    .option('--dry-run', 'say what would be done, or why it would be refused')
    .addHelpText('after', examples('cldd slave disable', 'cldd slave disable --force'))
    .action(disable);
}

async function enable(
  target: string | undefined,
  options: DaemonOptions & { crashConsistent?: boolean },
): Promise<void> {
  const { crashConsistent = false, dryRun = false } = options;
  const given = { crashConsistent, dryRun, ...(target === undefined ? {} : { target }) };
  const answer = (await request(options, 'slave-enable', given)) as SlaveAnswer;
  if (options.json) printJson(answer);
  else if (!options.quiet)
    print(`${answer.target}: slave ${dryRun ? 'would be ' : ''}enabled, generation ${answer.generation}`);
}

async function disable(
  target: string | undefined,
  options: DaemonOptions & { force?: boolean },
): Promise<void> {
  const { force = false, dryRun = false } = options;
  const given = { force, dryRun, ...(target === undefined ? {} : { target }) };
  const answer = (await request(options, 'slave-disable', given)) as SlaveAnswer;
  if (options.json) printJson(answer);
  else if (!options.quiet)
    print(
      dryRun
        ? `${answer.target}: slave would be disabled, with the image of generation ${answer.generation}`
        : `${answer.target}: slave disabled`,
    );
}
