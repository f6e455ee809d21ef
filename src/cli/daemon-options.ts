/** How a command finds the daemon that it talks to. */
import type { Command } from 'commander';
import { ask } from '../admin/client.js';
import type { Arguments, CommandName } from '../admin/protocol.js';
import { defaultControlSocket } from '../config/runtime-folder.js';

export interface DaemonOptions {
  socket?: string;
  config?: string;
  json?: boolean;
  quiet?: boolean;
  dryRun?: boolean;
}

/** Adds --socket, --config, --json and --quiet to a command. */
export function withDaemon(command: Command): Command {
  return command
    .option('-s, --socket <path>', 'control socket of the daemon (also environment variable CLDD_SOCKET)')
    .option('-c, --config <file>', 'configuration file that names the control socket')
    .option('--json', 'print JSON')
    .option('-q, --quiet', 'print nothing unless it fails');
}

export async function socketPath({ socket, config }: DaemonOptions): Promise<string> {
  if (socket !== undefined) return socket;
  if (config !== undefined) {
    const { loadConfiguration } = await import('../config/load.js');
    return loadConfiguration(config).controlSocket;
  }
  return process.env['CLDD_SOCKET'] ?? defaultControlSocket();
}

/** Asks the daemon that the options select. */
export async function request(
  options: DaemonOptions,
  command: CommandName,
  given: Arguments = {},
): Promise<unknown> {
  return await ask(await socketPath(options), { command, arguments: given });
}
