/** All commands of `cldd`, with their help. */
import { Command } from 'commander';
import { packageVersion } from '../package-root.js';
import { addBackup } from './commands/backup.js';
import { addCheck } from './commands/check.js';
import { addCompletion } from './commands/completion.js';
import { addConfig } from './commands/config.js';
import { addDump } from './commands/dump.js';
import { addEngineCommands } from './commands/engine.js';
import { addInit } from './commands/init.js';
import { addOperations } from './commands/operations.js';
import { addSecret } from './commands/secret.js';
import { addServe } from './commands/serve.js';
import { addSlave } from './commands/slave.js';
import { addStatus } from './commands/status.js';

const EXIT_CODES = `
Exit codes:
  0  done
  1  failure
  2  wrong usage
  3  refused; the reason is on stderr
  4  the daemon can't be reached
  5  done, but with warnings, which are on stderr
  6  check: damage found and repaired
  7  check: damage found that --repair mends
  8  check: damaged beyond repair`;

export function createProgram(): Command {
  const program = new Command('cldd')
    .description(
      'Serves a partition over iSCSI as two LUNs: 0, the master, and 1, the slave, a frozen image of it.',
    )
    .version(packageVersion())
    .showHelpAfterError('(add --help for the usage)')
    .addHelpText('after', EXIT_CODES);
  // Set before the commands are added, which inherit it: errors end in main, with our exit codes.
  program.exitOverride();
  for (const add of [
    addInit,
    addServe,
    addStatus,
    addSlave,
    addOperations,
    addEngineCommands,
    addBackup,
    addCheck,
    addDump,
    addConfig,
    addSecret,
    addCompletion,
  ])
    add(program);
  return program;
}
