/** The targets that are compared, each a process on loopback with a file as its store. */
import { mkdirSync, openSync, closeSync, ftruncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ask } from '../src/admin/client.js';
import { ROOT } from '../conformance/support/paths.js';
import { freePort } from '../conformance/support/ports.js';
import { run, Running, succeed } from '../conformance/support/processes.js';
import { startTgtd } from '../conformance/support/tgtd.js';

const READY_MS = 60_000;
/** The build that the bench itself belongs to is what is measured, unless another checkout is named. */
const OWN = { program: join(ROOT, 'bin/cldd'), dist: join(import.meta.dirname, '..') };

/** One target while it runs. */
export interface Peer {
  readonly name: string;
  readonly version: string;
  readonly pid: number;
  /** Its writable LUN, as libiscsi takes it. */
  readonly url: string;
  /** The file that holds its data. */
  readonly file: string;
  readonly slave?: Slave;
  stop(): Promise<void>;
}

/** What only cldd has. */
export interface Slave {
  readonly url: string;
  enable(): Promise<void>;
  disable(): Promise<void>;
}

/** Starts a target whose LUN has at least `bytes`, its files in `folder`. */
export type Start = (folder: string, bytes: number) => Promise<Peer>;

function store(folder: string, name: string, bytes: number): string {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, name);
  const fd = openSync(file, 'w');
  ftruncateSync(fd, bytes);
  closeSync(fd);
  return file;
}

/**
 * cldd with its defaults: one target on a partition of a little more than twice the size, new unless it is kept. `checkout`:
 * the folder of another version, which has been built there.
 */
export async function startCldd(
  folder: string,
  bytes: number,
  name = 'cldd',
  {
    keep = false,
    env: more = {},
    checkout,
  }: { keep?: boolean; env?: NodeJS.ProcessEnv; checkout?: string } = {},
): Promise<Peer> {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${name}.partition`);
  const socket = join(folder, `${name}.sock`);
  const target = `iqn.2026-01.org.example:${name}`;
  const size = String(Math.ceil((bytes * 2.1 + (64 << 20)) / 4096) * 4096);
  const { program, dist } =
    checkout === undefined ? OWN : { program: join(checkout, 'bin/cldd'), dist: join(checkout, 'dist') };
  const env = { ...process.env, CLDD_DIST: dist };
  if (!keep) await succeed(program, ['init', file, '--size', size, '--yes', '--thin'], { env });
  const args = ['serve', '--partition', file, '--portal', '127.0.0.1:0'];
  const daemon = new Running(program, [...args, '--target', target, '--socket', socket], {
    env: { ...env, ...more },
  });
  const [, port] = await daemon.waitFor(/^cldd ready: \S+ on 127\.0\.0\.1:(\d+)/m, READY_MS);
  const url = `iscsi://127.0.0.1:${port}/${target}`;
  return {
    name,
    version: (await succeed(program, ['--version'], { env })).trim(),
    pid: daemon.pid,
    url: `${url}/0`,
    file,
    slave: {
      url: `${url}/1`,
      enable: async () => {
        await ask(socket, { command: 'slave-enable', arguments: { crashConsistent: true } });
      },
      disable: async () => {
        await ask(socket, { command: 'slave-disable', arguments: { force: true } });
      },
    },
    stop: async () => {
      await daemon.end('SIGTERM', 30_000);
    },
  };
}

/** Parameters that make tgtd's large transfers faster than its defaults. */
const TUNED = {
  MaxRecvDataSegmentLength: '262144',
  MaxXmitDataSegmentLength: '262144',
  FirstBurstLength: '262144',
  MaxBurstLength: '1048576',
  InitialR2T: 'No',
};

/** tgtd refuses digests unless told; initiators that want none get none. */
const DIGESTS = { HeaderDigest: 'CRC32C,None', DataDigest: 'CRC32C,None' };

export async function startTgtdPeer(folder: string, bytes: number, tuned = false): Promise<Peer> {
  const name = tuned ? 'tgtd tuned' : 'tgtd';
  const file = store(folder, `${name.replace(' ', '-')}.img`, bytes);
  const tgtd = await startTgtd([file]);
  for (const [key, value] of Object.entries(tuned ? { ...DIGESTS, ...TUNED } : DIGESTS))
    await tgtd.admin('--op', 'update', '--mode', 'target', '--tid', '1', '-n', key, '-v', value);
  const version = (await run('tgtd', ['-V'])).stdout.trim();
  const url = `iscsi://127.0.0.1:${tgtd.ports[0]}/${tgtd.target}/1`;
  return { name, version, pid: tgtd.pid, url, file, stop: () => tgtd.stop() };
}

export async function startIstgt(folder: string, bytes: number): Promise<Peer> {
  const file = store(folder, 'istgt.img', bytes);
  const port = await freePort();
  const configuration = join(folder, 'istgt.conf');
  writeFileSync(
    configuration,
    `[Global]
  NodeBase "iqn.2025-01.org.example"
  PidFile ${folder}/istgt.pid
  AuthFile ${folder}/istgt-auth.conf
  Timeout 30
  NopInInterval 20
  DiscoveryAuthMethod None
  MaxSessions 16
  MaxConnections 4
  MaxOutstandingR2T 16
  FirstBurstLength 262144
  MaxBurstLength 1048576
  MaxRecvDataSegmentLength 262144
  InitialR2T Yes
[UnitControl]
  AuthMethod None
  AuthGroup None
  Portal UC1 127.0.0.1:${await freePort()}
  Netmask 127.0.0.1
[PortalGroup1]
  Portal DA1 127.0.0.1:${port}
[InitiatorGroup1]
  InitiatorName "ALL"
  Netmask 127.0.0.1
[LogicalUnit1]
  TargetName disk
  Mapping PortalGroup1 InitiatorGroup1
  AuthMethod None
  AuthGroup None
  UseDigest Auto
  UnitType Disk
  LUN0 Storage ${file} Auto
`,
  );
  writeFileSync(join(folder, 'istgt-auth.conf'), '');
  const daemon = new Running('istgt', ['-D', '-c', configuration]);
  const url = `iscsi://127.0.0.1:${port}/iqn.2025-01.org.example:disk/0`;
  await waitForPort(daemon, port);
  const version = /istgt version (\S+)/.exec(daemon.stdout + daemon.stderr)?.[1] ?? 'unknown';
  return {
    name: 'istgt',
    version,
    pid: daemon.pid,
    url,
    file,
    stop: async () => {
      await daemon.end('SIGKILL');
    },
  };
}

/** A Node script that serves env FILE on env PORT and does nothing but move bytes: the limit of the platform. */
export async function startPrototype(script: string, folder: string, bytes: number): Promise<Peer> {
  const file = store(folder, 'prototype.img', bytes);
  const port = await freePort();
  const env = { ...process.env, PORT: String(port), FILE: file, DISK: 'hybrid', FLUSH: '32768', SPIN: '50' };
  const daemon = new Running(process.execPath, [script], { env: { ...env, UV_THREADPOOL_SIZE: '16' } });
  await daemon.waitFor(/ready/, READY_MS);
  const url = `iscsi://127.0.0.1:${port}/iqn.2025-01.org.example:prototype/0`;
  const stop = async (): Promise<void> => {
    await daemon.end('SIGKILL');
  };
  return { name: 'prototype', version: `Node ${process.version}`, pid: daemon.pid, url, file, stop };
}

async function waitForPort(daemon: Running, port: number): Promise<void> {
  const { connect } = await import('node:net');
  const deadline = performance.now() + READY_MS;
  for (;;) {
    const open = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1');
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
      socket.once('close', () => socket.destroy());
      socket.once('connect', () => socket.end());
    });
    if (open) return;
    if (!daemon.alive || performance.now() > deadline)
      throw new Error(`no answer on port ${port}:\n${daemon.stdout}${daemon.stderr}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
