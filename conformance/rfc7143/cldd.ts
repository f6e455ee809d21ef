/** Our own daemon as the target under test, as users run it: a new partition and a configuration file. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ROOT } from '../support/paths.js';
import { freePort } from '../support/ports.js';
import { Running, succeed } from '../support/processes.js';
import type { Profile, Started } from './target.js';

export const PROGRAM = join(ROOT, 'bin/cldd');
/** The program is taken from the build that the tests belong to. */
export const PROGRAM_ENVIRONMENT = { ...process.env, CLDD_DIST: resolve(import.meta.dirname, '../..') };
const IQN = 'iqn.2026-01.org.example:conformance';
const READY_TIMEOUT_MS = 20_000;
const STOP_TIMEOUT_MS = 20_000;

export async function startCldd(profile: Profile): Promise<Started> {
  const folder = mkdtempSync(join(tmpdir(), 'rfc7143-'));
  const partition = join(folder, 'partition');
  const port = await freePort();
  await succeed(PROGRAM, ['init', partition, '--size', '128M'], { env: PROGRAM_ENVIRONMENT });
  const configuration = join(folder, 'cldd.yaml');
  writeFileSync(configuration, configure(profile, folder, partition, port));
  const { planted } = profile;
  const env =
    planted === undefined
      ? PROGRAM_ENVIRONMENT
      : // Coverage of a changed source, under the name of the true one, would spoil that of the others.
        {
          ...PROGRAM_ENVIRONMENT,
          NODE_OPTIONS: `--import=${pathToFileURL(planted).href}`,
          NODE_V8_COVERAGE: undefined,
        };
  const daemon = new Running(PROGRAM, ['serve', configuration], { env });
  await daemon.waitFor(new RegExp(`127\\.0\\.0\\.1:${port}`), READY_TIMEOUT_MS);
  return {
    host: '127.0.0.1',
    port,
    iqn: IQN,
    lun: 0,
    pid: daemon.pid,
    configuration,
    profile,
    stop: async () => {
      const crashed = !daemon.alive;
      const { code } = await daemon.end('SIGTERM', STOP_TIMEOUT_MS);
      rmSync(folder, { recursive: true, force: true });
      if (crashed || code !== 0)
        throw new Error(`the daemon ended with ${code}:\n${daemon.stdout}${daemon.stderr}`);
    },
  };
}

/** JSON is YAML too. */
function configure(profile: Profile, folder: string, partition: string, port: number): string {
  const { chap, loginTimeoutMs, nopIntervalMs, nopTimeoutMs } = profile;
  const profiled = { loginTimeoutMs, nopIntervalMs, nopTimeoutMs };
  const secretFile = (name: string, secret: string): string => {
    const file = join(folder, name);
    writeFileSync(file, `${secret}\n`, { mode: 0o600 });
    return file;
  };
  return JSON.stringify({
    portals: [{ listen: `127.0.0.1:${port}` }],
    controlSocket: join(folder, 'control.sock'),
    logLevel: 'warn',
    shutdownGraceMs: 200,
    limits: { maxConnections: 8, errorRecoveryLevel: 2, ...profiled },
    targets: [
      {
        name: IQN,
        partition,
        access: [{ initiator: '*' }],
        ...(chap === undefined
          ? {}
          : {
              authentication: {
                users: [{ name: chap.name, secretFile: secretFile('user', chap.secret) }],
                mutual: { name: chap.mutualName, secretFile: secretFile('mutual', chap.mutualSecret) },
              },
            }),
      },
    ],
  });
}
