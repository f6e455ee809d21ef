/** A daemon within the test's own process, on real partitions and sockets. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfiguration } from '../../src/config/load.js';
import { Partition } from '../../src/cow/partition.js';
import { Daemon } from '../../src/daemon/daemon.js';
import type { DaemonLog } from '../../src/daemon/log.js';
import type { OpenPartition } from '../../src/daemon/partition-engine.js';

export interface Logged {
  level: string;
  message: string;
  [field: string]: unknown;
}

export interface Served {
  folder: string;
  file: string;
  daemon: Daemon;
  log: Logged[];
  /** Writes another configuration; `reload` takes it over. */
  configure: (configuration: object) => void;
}

export const PREFIX = 'iqn.2026-01.com.example:';

type Teardown = (end: () => unknown) => void;

/** Makes partitions of the given names and serves what `configuration` makes of the folder. */
export async function serve(
  t: { teardown: Teardown },
  names: readonly string[],
  configuration: (folder: string) => object,
  openPartition?: OpenPartition,
): Promise<Served> {
  const folder = mkdtempSync(join(tmpdir(), 'cldd-daemon-'));
  const file = join(folder, 'cldd.yaml');
  for (const name of names) await Partition.init(join(folder, name), { sizeBytes: 32 << 20 });
  const log: Logged[] = [];
  const write =
    (level: string) =>
    (fields: object, message: string): void => {
      log.push({ ...fields, level, message });
    };
  const sink: DaemonLog = {
    level: 'debug',
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
  };
  // JSON is YAML.
  const configure = (next: object): void =>
    writeFileSync(file, JSON.stringify({ controlSocket: join(folder, 's'), ...next }));
  configure(configuration(folder));
  const load = () => loadConfiguration(file);
  const open = openPartition === undefined ? {} : { openPartition };
  const daemon = await Daemon.start({ configuration: load(), reread: { file, load }, log: sink, ...open });
  t.teardown(async () => {
    await daemon.close();
    rmSync(folder, { recursive: true });
  });
  return { folder, file, daemon, log, configure };
}

/** A target open to everybody. */
export const target = (name: string, more: object = {}): object => ({
  name: PREFIX + name,
  partition: name,
  access: [{ initiator: '*' }],
  ...more,
});

export function url({ portals }: Daemon, name: string, lun = 0, index = 0): string {
  const { host, port } = portals[index];
  return `iscsi://${host}:${port}/${PREFIX}${name}/${lun}`;
}
