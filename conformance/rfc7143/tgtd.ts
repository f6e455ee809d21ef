/** tgtd as a stand-in: another implementation, to see whether a failing test is ours or the target's. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { connect, createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Profile, Started } from './target.js';

const IQN = 'iqn.2026-01.org.example:stand-in';

/** A port that nobody listens on now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** Waits until something accepts connections; throws after the limit. */
export async function listening(port: number, limitMs: number): Promise<void> {
  const deadline = Date.now() + limitMs;
  for (;;) {
    const socket = connect(port, '127.0.0.1');
    const open = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
    });
    socket.destroy();
    if (open) return;
    if (Date.now() > deadline) throw new Error(`nothing listens on port ${port} after ${limitMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export async function startTgtd(profile: Profile): Promise<Started> {
  const folder = mkdtempSync(join(tmpdir(), 'rfc7143-'));
  const store = join(folder, 'store');
  writeFileSync(store, '');
  truncateSync(store, 64 * 1024 * 1024);
  const port = await freePort();
  const control = String(port % 32768);
  const daemon = spawn('tgtd', ['-f', '--iscsi', `portal=127.0.0.1:${port}`, '-C', control], {
    stdio: 'ignore',
  });
  await listening(port, 5000);
  const admin = (...args: string[]): void => {
    execFileSync('tgtadm', ['-C', control, '--lld', 'iscsi', ...args], { stdio: 'inherit' });
  };
  admin('--mode', 'target', '--op', 'new', '--tid', '1', '-T', IQN);
  admin('--mode', 'logicalunit', '--op', 'new', '--tid', '1', '--lun', '1', '-b', store);
  admin('--mode', 'target', '--op', 'bind', '--tid', '1', '-I', 'ALL');
  if (profile.chap) {
    const { name, secret, mutualName, mutualSecret } = profile.chap;
    admin('--mode', 'account', '--op', 'new', '--user', name, '--password', secret);
    admin('--mode', 'account', '--op', 'bind', '--tid', '1', '--user', name);
    if (mutualName !== undefined && mutualSecret !== undefined) {
      admin('--mode', 'account', '--op', 'new', '--user', mutualName, '--password', mutualSecret);
      admin('--mode', 'account', '--op', 'bind', '--tid', '1', '--user', mutualName, '--outgoing');
    }
  }
  return {
    host: '127.0.0.1',
    port,
    iqn: IQN,
    lun: 1,
    ...(daemon.pid === undefined ? {} : { pid: daemon.pid }),
    profile: profile.chap ? { chap: profile.chap } : {},
    stop: async () => {
      if (daemon.exitCode === null) {
        daemon.kill('SIGKILL');
        await once(daemon, 'exit');
      }
      rmSync(folder, { recursive: true });
    },
  };
}
