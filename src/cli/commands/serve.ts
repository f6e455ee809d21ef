/** `cldd serve`: the daemon, in the foreground. */
import type { Command } from 'commander';
import { hostname } from 'node:os';
import { basename, resolve } from 'node:path';
import { formatHostPort, parseHostPort } from '../../config/addresses.js';
import type { Configuration, LogLevel } from '../../config/configuration.js';
import { LOG_LEVELS } from '../../config/configuration.js';
import { loadConfiguration, parseConfiguration } from '../../config/load.js';
import type { Daemon } from '../../daemon/daemon.js';
import { examples } from '../examples.js';
import { UsageError } from '../exit-codes.js';
import { print } from '../output.js';
import { Option } from 'commander';

interface ServeOptions {
  partition?: string;
  target?: string;
  portal?: string;
  advertise?: string;
  socket?: string;
  logLevel?: LogLevel;
  quiet?: boolean;
}

const DEFAULT_PORTAL = '127.0.0.1:3260';

export function addServe(program: Command): void {
  program
    .command('serve [config]')
    .description('Serve the targets of a configuration file, or one partition, until SIGTERM or SIGINT.')
    .option('--partition <path>', 'serve this one partition, to anybody who reaches the portal')
    .option('--target <iqn>', 'with --partition: iSCSI name of the target')
    .option('--portal <host:port>', `with --partition: where to listen (default ${DEFAULT_PORTAL})`)
    .option('--advertise <host:port>', 'with --partition: address to name in SendTargets')
    .option('-s, --socket <path>', 'control socket, instead of the configured one')
    .addOption(new Option('--log-level <level>', 'instead of the configured one').choices(LOG_LEVELS))
    .option('-q, --quiet', 'do not print the line that says it is ready; the log has its own level')
    .addHelpText(
      'after',
      examples(
        'cldd serve /etc/cldd/cldd.yaml',
        'cldd serve --partition /srv/files.cldd --portal 0.0.0.0:3260',
      ),
    )
    .action(serve);
}

async function serve(file: string | undefined, options: ServeOptions): Promise<void> {
  const override = (configuration: Configuration): Configuration => ({
    ...configuration,
    controlSocket: options.socket === undefined ? configuration.controlSocket : resolve(options.socket),
    logLevel: options.logLevel ?? configuration.logLevel,
  });
  // Only here: the other commands start in half the time without the daemon.
  const [{ createLog }, { runDaemon }] = await Promise.all([
    import('../../daemon/log.js'),
    import('../../daemon/process.js'),
  ]);
  const load = source(file, options);
  const configuration = override(load());
  const log = createLog(configuration.logLevel);
  const reread = file === undefined ? {} : { reread: { file: resolve(file), load: () => override(load()) } };
  const open = file === undefined;
  await runDaemon({ configuration, ...reread, log }, (daemon) => {
    if (options.quiet !== true) print(readyLine(daemon, configuration, open));
  });
}

function source(file: string | undefined, options: ServeOptions): () => Configuration {
  const { partition, target, portal, advertise } = options;
  if (file !== undefined) {
    if (partition ?? target ?? portal ?? advertise)
      throw new UsageError(
        "--partition, --target, --portal and --advertise don't go together with a configuration file",
      );
    return () => loadConfiguration(file);
  }
  if (partition === undefined)
    throw new UsageError('name a configuration file, or a partition with --partition');
  if (parseHostPort(portal ?? DEFAULT_PORTAL) === undefined)
    throw new UsageError(`--portal ${portal ?? ''} is not HOST:PORT`);
  // The same checks as for a file, JSON being YAML.
  const text = JSON.stringify({
    portals: [{ listen: portal ?? DEFAULT_PORTAL, ...(advertise === undefined ? {} : { advertise }) }],
    targets: [
      { name: target ?? defaultName(partition), partition: resolve(partition), access: [{ initiator: '*' }] },
    ],
  });
  return () => parseConfiguration(text, 'command line');
}

/** Stable for a file or device on a host, and unlike that of others. */
function defaultName(partition: string): string {
  const clean = (part: string): string =>
    part
      .toLowerCase()
      .replace(/[^a-z0-9.-]+/g, '-')
      .replace(/^[-.]+|[-.]+$/g, '');
  const name = [clean(hostname()), clean(basename(partition))].filter((part) => part !== '').join(':');
  return `iqn.2026-01.local.cldd:${name || 'default'}`.slice(0, 223);
}

function readyLine(daemon: Daemon, { controlSocket }: Configuration, open: boolean): string {
  const targets = daemon.targets.map(({ name }) => name).join(', ');
  const portals = daemon.portals.map(
    ({ host, port, portalGroupTag }) => `${formatHostPort(host, port)},${portalGroupTag}`,
  );
  const everybody = open ? ', open to everybody who reaches it' : '';
  return `cldd ready: ${targets} on ${portals.join(' ')}${everybody}; control socket ${controlSocket}`;
}
