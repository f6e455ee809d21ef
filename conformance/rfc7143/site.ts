/**
 * A daemon of our own in the test's process, for requirements that concern what the operator configures: portals,
 * access, limits, redirection. The rows bring their own configuration and change it while sessions go on.
 */
import { PREFIX, serve, target as targetOf, type Logged } from '../../test/daemon/support.js';
import type { Daemon } from '../../src/daemon/daemon.js';
import { isid } from './pdu.js';
import type { Tap } from './requirement.js';
import type { Session } from './session.js';
import type { Target } from './target.js';

export interface Site {
  daemon: Daemon;
  folder: string;
  log: Logged[];
  /** The target `name` as a test of the wire sees it, by one of its portals. */
  at: (name: string, portal?: number) => Target;
  /** Writes another configuration and takes it over. */
  reload: (configuration: object) => Promise<void>;
}

export const ANY_PORT = { listen: '127.0.0.1:0' } as const;
export const site = { PREFIX, target: targetOf } as const;

let qualifier = 0x4000;

/** Serves partitions of the given names. */
export async function startSite(
  t: Tap,
  names: readonly string[],
  configuration: (folder: string) => object,
): Promise<Site> {
  const { daemon, configure, folder, log } = await serve(t, names, (folder) => ({
    shutdownGraceMs: 100,
    ...configuration(folder),
  }));
  const sessions: Session[] = [];
  t.teardown(() => {
    for (const { connection } of sessions) connection.destroy();
  });
  return {
    daemon,
    folder,
    log,
    at: (name, portal = 0) => {
      const { host, port } = daemon.portals[portal] ?? { host: '', port: 0 };
      return {
        host,
        port,
        iqn: PREFIX + name,
        lun: 0,
        profile: {},
        sessions,
        freshIsid: () => isid(++qualifier),
        stop: () => Promise.resolve(),
      };
    },
    reload: async (next) => {
      configure({ shutdownGraceMs: 100, ...next });
      await daemon.reload();
    },
  };
}

/** Stands for the target under test in themes whose rows start what they need. */
export const NO_TARGET: Target = {
  host: '',
  port: 0,
  iqn: '',
  lun: 0,
  profile: {},
  sessions: [],
  freshIsid: () => isid(++qualifier),
  stop: () => Promise.resolve(),
};
