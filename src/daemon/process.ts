/** The daemon as a process: signals, the end, and what happens when something unforeseen is thrown. */
import { Daemon } from './daemon.js';
import type { DaemonOptions } from './daemon.js';
import { inheritedFds, ServiceManager } from './service-manager.js';
import { messageOf } from '../thrown.js';

/** Beyond the initiators' grace: time to make everything durable. */
const CLOSE_MS = 20_000;
const FAILURE = 1;
/** A signal to a process group arrives twice when a parent in that group passes it on, as npm does: one request. */
const SAME_REQUEST_MS = 1000;

/**
 * Serves until a signal says stop, and resolves when all is closed. `ready` is called once everything listens.
 * SIGTERM and SIGINT end it (another one, a second later or more, at once), SIGHUP reloads. An unforeseen error ends the process with code 1:
 * a daemon that is only half alive is worse than one that its supervisor restarts.
 */
export async function runDaemon(options: DaemonOptions, ready: (daemon: Daemon) => void): Promise<void> {
  const { log, configuration } = options;
  const die = (error: unknown, origin: string): void => {
    log.error({ err: error, origin }, 'unforeseen error: the daemon ends');
    process.exit(FAILURE);
  };
  let requested = false;
  let requestedAt = 0;
  let stop = (): void => undefined;
  const stopRequested = new Promise<void>((resolve) => (stop = resolve));
  const onStop = (signal: NodeJS.Signals): void => {
    if (requested && performance.now() - requestedAt < SAME_REQUEST_MS) return;
    if (requested) {
      log.error({ signal }, 'second signal: ending at once');
      process.exit(FAILURE);
    }
    requested = true;
    requestedAt = performance.now();
    log.info({ signal }, 'stopping');
    setTimeout(() => {
      log.error({}, 'the stop takes too long: ending at once');
      process.exit(FAILURE);
    }, configuration.shutdownGraceMs + CLOSE_MS).unref();
    stop();
  };
  const manager = new ServiceManager(log);
  let daemon: Daemon | undefined;
  const onReload = (): void => {
    daemon?.reload().catch((error: unknown) => {
      log.error({ why: messageOf(error) }, 'not reloaded: nothing changed');
    });
  };
  process.on('uncaughtException', die);
  process.on('SIGTERM', onStop);
  process.on('SIGINT', onStop);
  process.on('SIGHUP', onReload);
  try {
    daemon = await Daemon.start({ ...options, inheritedFds: inheritedFds() });
    ready(daemon);
    manager.ready(`serves ${daemon.targets.map(({ name }) => name).join(', ')}`);
    await stopRequested;
    manager.stopping();
    await daemon.close();
    log.info({}, 'stopped');
  } finally {
    await manager.close();
    process.off('SIGTERM', onStop);
    process.off('SIGINT', onStop);
    process.off('SIGHUP', onReload);
    process.off('uncaughtException', die);
  }
}
