/** All commands of `cldd`, with their help. */
import { Command } from 'commander';
import { packageVersion } from '../package-root.js';

/** Adds its commands to the program. */
type Add = (program: Command) => void;

/**
 * The files of the commands, in the order of the help, with the commands that each adds. A file loads what its commands
 * work with, so that a command line which names one of them waits for that file alone: most of the time of a short
 * command is the loading of modules.
 */
const FILES: readonly { names: readonly string[]; load: () => Promise<Add> }[] = [
  { names: ['init'], load: async () => (await import('./commands/init.js')).addInit },
  { names: ['serve'], load: async () => (await import('./commands/serve.js')).addServe },
  { names: ['status', 'metrics'], load: async () => (await import('./commands/status.js')).addStatus },
  { names: ['slave'], load: async () => (await import('./commands/slave.js')).addSlave },
  {
    names: ['targets', 'sessions', 'session', 'reload', 'log-level'],
    load: async () => (await import('./commands/operations.js')).addOperations,
  },
  {
    names: ['rollback', 'changes', 'grow'],
    load: async () => (await import('./commands/engine.js')).addEngineCommands,
  },
  {
    names: ['backup', 'verify', 'restore', 'prune'],
    load: async () => (await import('./commands/backup.js')).addBackup,
  },
  { names: ['check'], load: async () => (await import('./commands/check.js')).addCheck },
  { names: ['dump'], load: async () => (await import('./commands/dump.js')).addDump },
  { names: ['config'], load: async () => (await import('./commands/config.js')).addConfig },
  { names: ['secret'], load: async () => (await import('./commands/secret.js')).addSecret },
  // It tells about all commands, so it does not go alone.
  { names: [], load: async () => (await import('./commands/completion.js')).addCompletion },
];

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

/** With every command. */
export async function createProgram(): Promise<Command> {
  return await assemble(FILES);
}

/** With the command that a line begins with, and those of its file; with all if it begins with anything else. */
export async function programFor(argv: readonly string[]): Promise<Command> {
  const [first] = argv;
  const file = FILES.find(({ names }) => names.includes(first));
  return await assemble(file === undefined ? FILES : [file]);
}

async function assemble(files: typeof FILES): Promise<Command> {
  const program = new Command('cldd')
    .description(
      'Serves a partition over iSCSI as two LUNs: 0, the master, and 1, the slave, a frozen image of it.',
    )
    .version(packageVersion())
    .showHelpAfterError('(add --help for the usage)')
    .addHelpText('after', EXIT_CODES);
  // Set before the commands are added, which inherit it: errors end in main, with our exit codes.
  program.exitOverride();
  for (const add of await Promise.all(files.map(({ load }) => load()))) add(program);
  return program;
}
