/** What the control socket, the HTTP port and the log answer when something stands in the way. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { request } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { createServer, connect } from 'node:net';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import tap from 'tap';
import { MetricsServer } from '../../src/admin/metrics-server.js';
import type { Arguments, CommandName } from '../../src/admin/protocol.js';
import { renderStatus } from '../../src/cli/render-status.js';
import { Partition } from '../../src/cow/partition.js';
import { answer } from '../../src/daemon/commands.js';
import { Daemon } from '../../src/daemon/daemon.js';
import { explainListenError } from '../../src/daemon/listen-error.js';
import { limitRepeats } from '../../src/daemon/log.js';
import { renderPrometheus } from '../../src/daemon/prometheus.js';
import { readSlave } from '../../src/daemon/read-slave.js';
import type { SessionInfo } from '../../src/iscsi/options.js';
import { MEDIUM } from '../../src/scsi/medium.js';
import type { Nexus } from '../../src/scsi/nexus.js';
import { loadConfiguration } from '../../src/config/load.js';
import { MemoryMedium, TestTask, cdb10 } from '../scsi/support.js';
import type { Outcome } from '../scsi/support.js';
import { env, PROGRAM } from '../cli/support.js';
import { PREFIX, serve, target } from './support.js';
import type { Served } from './support.js';

const PORTALS = [{ listen: '127.0.0.1:0' }];
const one = () => ({ portals: PORTALS, targets: [target('one')] });
const HOST = 'iqn.2026-01.com.example:host';

const asker =
  ({ daemon }: Served) =>
  (command: CommandName, given: Arguments = {}): Promise<unknown> =>
    answer(daemon, { command, arguments: given });

function login({ daemon }: Served, name = 'one'): Nexus {
  return daemon.target(PREFIX + name).scsi.attach({
    initiatorName: HOST,
    initiatorPort: `${HOST},i,0x00023d000001`,
    portalGroupTag: 1,
    luns: [
      { lun: 0, unit: 'master', readOnly: false },
      { lun: 1, unit: 'slave', readOnly: true },
    ],
    address: '192.0.2.7',
  });
}

function run(
  { daemon }: Served,
  nexus: Nexus,
  lun: number,
  cdb: readonly number[],
  data = Buffer.alloc(0),
): Promise<Outcome> {
  const task = new TestTask(nexus, cdb);
  task.lunHigh = lun << 16;
  task.dataOut = data;
  task.expectedDataOut = data.length;
  task.expectedDataIn = data.length > 0 ? 0 : 65_536;
  daemon.target(undefined).scsi.submit(task);
  return task.whenEnded();
}

/** Until nothing is pending. */
async function settled(served: Served, nexus: Nexus, lun: number): Promise<void> {
  while ((await run(served, nexus, lun, [0, 0, 0, 0, 0, 0])).code.startsWith('06/')) continue;
}

void tap.test('which target is meant has to be said where there are several', async (t) => {
  const served = await serve(t, ['one', 'two'], () => ({
    portals: PORTALS,
    targets: [target('one', { alias: 'the first' }), target('two')],
  }));
  const ask = asker(served);
  await t.rejects(ask('slave-enable'), {
    code: 'TARGET_AMBIGUOUS',
    message: /example:one, iqn.*example:two/,
  });
  await t.rejects(ask('sessions', { target: 'iqn.2026-01.com.example:three' }), { code: 'NO_SUCH_TARGET' });
  t.same(await ask('sessions', { target: `${PREFIX}one` }), []);
  t.match(await ask('targets'), [
    { name: `${PREFIX}one`, alias: 'the first', slaveEnabled: false },
    { name: `${PREFIX}two`, alias: null },
  ]);
  await ask('slave-enable', { target: `${PREFIX}two` });
  const status = served.daemon.status();
  t.match(renderStatus(status), /one \(the first\)/);
  t.match(
    renderPrometheus(status),
    /^cldd_slave_enabled_timestamp_seconds\{target="iqn\.2026-01\.com\.example:two"\} \d+/m,
  );
  t.notMatch(renderPrometheus(status), /^cldd_slave_enabled_timestamp_seconds\{target=".*:one"\}/m);
});

void tap.test(
  'a slave that an initiator holds is disabled only by force, also when only looked at',
  async (t) => {
    const served = await serve(t, ['one'], one);
    const ask = asker(served);
    await ask('slave-enable');
    const nexus = login(served);
    await settled(served, nexus, 1);
    t.equal((await run(served, nexus, 1, [0x1e, 0, 0, 0, 1, 0])).status, 0, 'PREVENT ALLOW MEDIUM REMOVAL');
    const held = { code: 'SLAVE_HELD', message: /iqn.2026-01.com.example:host \(192.0.2.7\)/ };
    await t.rejects(ask('slave-disable'), held);
    await t.rejects(ask('slave-disable', { dryRun: true }), held);
    t.match(await ask('slave-disable', { dryRun: true, force: true }), { generation: 1, dryRun: true });
    t.ok(served.daemon.target(undefined).partition.status().slave.enabled);
    t.match(await ask('slave-disable', { force: true }), { enabled: false });
    t.match(served.log.at(-1), { message: 'slave disabled', forced: true });
  },
);

void tap.test('a master in use is rolled back only by force, also when only looked at', async (t) => {
  const served = await serve(t, ['one'], one);
  const ask = asker(served);
  const nexus = login(served);
  await settled(served, nexus, 0);
  await ask('slave-enable', { crashConsistent: true });
  t.equal((await run(served, nexus, 0, cdb10(0x2a, 0, 8), Buffer.alloc(4096, 1))).status, 0);
  const used = { code: 'MASTER_IN_USE', message: /in use by iqn.2026-01.com.example:host/ };
  await t.rejects(ask('rollback'), used);
  t.match(served.log.at(-1), { level: 'warn', message: 'master not rolled back' });
  await t.rejects(ask('rollback', { dryRun: true }), used);
  t.match(await ask('rollback', { dryRun: true, force: true }), { generation: 1, initiators: [] });
  t.match(await ask('rollback', { force: true }), { generation: 1 });
  t.match(served.log.at(-1), { message: 'master rolled back', forced: true });
  await settled(served, nexus, 0);
  const { data } = await run(served, nexus, 0, cdb10(0x28, 0, 8));
  t.ok(data.equals(Buffer.alloc(4096)));
});

void tap.test('who is logged in to a master that says it is mounted uses it, and nobody else', async (t) => {
  const served = await serve(t, ['one'], one);
  const disk = served.daemon.target(undefined);
  const { master } = disk.partition;
  // An ext2 superblock (at byte 1024) whose state is not clean.
  const superblock = Buffer.alloc(4096);
  superblock.writeUInt32LE(8192, 1024 + 4);
  superblock.writeUInt16LE(0xef53, 1024 + 56);
  superblock.writeUInt32LE(1, 1024 + 76);
  t.equal(master.write(0, superblock, 0, superblock.length), MEDIUM.OK);
  await t.rejects(disk.enable({}), { code: 'MASTER_MOUNTED' });
  await disk.enable({ crashConsistent: true });
  const session = (name: string, luns: number[]): SessionInfo =>
    ({ target: disk.name, initiator: HOST + name, address: '192.0.2.7', luns }) as unknown as SessionInfo;
  const rolledBack = (sessions: SessionInfo[]): object => disk.would.rollback({ force: false }, sessions);
  t.throws(() => rolledBack([session('a', [0, 1])]), { code: 'MASTER_IN_USE', message: /hosta/ });
  t.match(
    rolledBack([session('b', [1])]),
    { generation: 1, initiators: [`${HOST}b`] },
    'who sees the slave only',
  );
  const read = master.read.bind(master);
  master.read = () => MEDIUM.READ_ERROR;
  t.match(rolledBack([session('a', [0])]), { generation: 1 }, 'what cannot be read says nothing');
  master.read = read;
});

void tap.test('the log level is told, and changed unless it is only looked at', async (t) => {
  const served = await serve(t, ['one'], one);
  const ask = asker(served);
  t.same(await ask('log-level', { dryRun: true }), { level: 'debug', next: 'debug', dryRun: true });
  t.same(await ask('log-level', { dryRun: true, level: 'warn' }), {
    level: 'debug',
    next: 'warn',
    dryRun: true,
  });
  t.same(await ask('log-level', { level: 'warn' }), { level: 'warn' });
  t.same(await ask('log-level'), { level: 'warn' });
});

void tap.test('changes are told from a position on, in pages', async (t) => {
  const served = await serve(t, ['one'], one);
  const { partition } = served.daemon.target(undefined);
  const changes = partition.changes.bind(partition);
  let first = 0;
  partition.changes = (since) => ({
    ...changes(since),
    ranges: (async function* () {
      for (let n = first; n <= 50_000; n++) yield await Promise.resolve({ position: n * 8192, length: 4096 });
    })(),
  });
  const ask = asker(served);
  const page = (await ask('changes')) as { ranges: { position: number; length: number }[]; next: number };
  t.same([page.ranges.length, page.next], [50_000, 50_000 * 8192]);
  first = 49_999;
  const rest = (await ask('changes', { from: page.next })) as typeof page;
  t.same([rest.ranges, rest.next], [[{ position: page.next, length: 4096 }], null]);
  const within = (await ask('changes', { from: page.next + 512 })) as typeof page;
  t.same(within.ranges, [{ position: page.next + 512, length: 3584 }]);
});

void tap.test(
  'the slave is read of one generation, within its end, and what cannot be read is said',
  async (t) => {
    const slave = new MemoryMedium(65_536);
    slave.mapped.add(0);
    slave.bytes.fill(5, 0, 4096);
    const read = (generation: number, position: number, length: number): Promise<unknown> =>
      readSlave('x', { slave }, { generation, position, length });
    t.same(await read(1, 0, 65_536), {
      position: 0,
      length: 4096,
      data: Buffer.alloc(4096, 5).toString('base64'),
    });
    t.same(await read(1, 4096, 61_440), { position: 4096, length: 61_440, data: null });
    await t.rejects(read(1, 4096, 65_536), { code: 'BAD_REQUEST', message: /ends at 65536/ });
    await t.rejects(read(2, 0, 512), { code: 'SLAVE_GONE' });
    slave.fail = MEDIUM.READ_ERROR;
    await t.rejects(read(1, 0, 4096), { code: 'SLAVE_UNREADABLE', message: /at byte 0/ });
    slave.fail = MEDIUM.OK;
    const gone = read(1, 0, 4096);
    slave.generation = 2;
    await t.rejects(gone, { code: 'SLAVE_GONE' }, 'what was read meanwhile is not told');
  },
);

async function http(port: number, path: string): Promise<[code: number | undefined, body: string]> {
  const asked = request({ host: '127.0.0.1', port, path }).end();
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  return [response.statusCode, await text(response)];
}

void tap.test('a failed partition shows in /healthz, the metrics and the status', async (t) => {
  const failed = async (path: string): Promise<Partition> => {
    const partition = await Partition.open(path);
    const status = partition.status.bind(partition);
    partition.status = () => ({ ...status(), failed: 'the disc is gone' });
    return partition;
  };
  const { daemon } = await serve(
    t,
    ['one'],
    () => ({ ...one(), metrics: { listen: '127.0.0.1:0' } }),
    failed,
  );
  const port = daemon.status().metrics?.port ?? 0;
  t.same(await http(port, '/healthz'), [503, `takes no more writes: ${PREFIX}one\n`]);
  t.match((await http(port, '/metrics'))[1], /^cldd_partition_failed\{.*\} 1$/m);
  t.match(renderStatus(daemon.status()), /FAILED +the disc is gone: takes no more writes/);
});

void tap.test('metrics that cannot be made are answered with an error, and the port goes on', async (t) => {
  const errors: string[] = [];
  const log = {
    debug: (): void => undefined,
    info: (): void => undefined,
    warn: (): void => undefined,
    error: (_: object, message: string): void => void errors.push(message),
  };
  const metrics = (): never => {
    throw new Error('planted');
  };
  const server = await MetricsServer.listen(
    { host: '127.0.0.1', port: 0 },
    { metrics, fault: () => undefined },
    log,
  );
  t.teardown(() => server.close());
  t.same(await http(server.address.port, '/metrics'), [500, 'failed; see the log\n']);
  t.same(errors, ['a request for metrics failed']);
  t.same(await http(server.address.port, '/healthz'), [200, 'ok\n']);
});

void tap.test('a daemon without a configuration file has nothing to reload', async (t) => {
  const { file, daemon: running, configure } = await serve(t, ['one', 'two'], one);
  await running.close();
  configure({ ...one(), targets: [target('two')] });
  const silent = {
    level: 'info' as const,
    debug: (): void => undefined,
    info: (): void => undefined,
    warn: (): void => undefined,
    error: (): void => undefined,
  };
  const daemon = await Daemon.start({ configuration: loadConfiguration(file), log: silent });
  t.teardown(() => daemon.close());
  await t.rejects(daemon.reload(), { code: 'NO_CONFIGURATION' });
  t.equal(daemon.status().configuration, null);
});

void tap.test('a close that fails says so, when everything else is closed', async (t) => {
  const broken = async (path: string): Promise<Partition> => {
    const partition = await Partition.open(path);
    const close = partition.close.bind(partition);
    let first = true;
    partition.close = async () => {
      await close();
      if (first) {
        first = false;
        throw new Error('planted');
      }
    };
    return partition;
  };
  const served = await serve({ teardown: () => undefined }, ['one'], one, broken);
  t.teardown(() => rmSync(served.folder, { recursive: true }));
  const [{ port }] = served.daemon.portals;
  await t.rejects(served.daemon.close(), /planted/);
  const socket = connect(port, '127.0.0.1');
  await t.rejects(once(socket, 'connect'), { code: 'ECONNREFUSED' });
});

void tap.test(
  'why a portal cannot be listened on is said in words, and other errors are left as they are',
  (t) => {
    const error = (code: string): Error => Object.assign(new Error(code), { code, portal: '127.0.0.1:1' });
    t.match(explainListenError(error('EACCES')), { code: 'PORTAL_UNUSABLE', message: /need privileges/ });
    t.match(explainListenError(error('EBADF')), {
      message: "portal 127.0.0.1:1 can't be listened on (EBADF)",
    });
    t.match(explainListenError(error('EADDRINUSE')), {
      code: 'PORTAL_IN_USE',
      message: /by another program/,
    });
    t.match(explainListenError(error('EADDRINUSE'), true), { message: /ListenStream/ });
    const other = new Error('another');
    t.equal(explainListenError(other), other);
    t.end();
  },
);

void tap.test('however many different messages there are, what is counted of them is bounded', (t) => {
  let told = 0;
  const count = (): void => {
    told++;
  };
  const log = limitRepeats({ debug: count, info: count, warn: count, error: count }, () => 0);
  for (let n = 0; n < 1000; n++) log.info({}, `message ${n}`);
  for (let n = 0; n < 30; n++) log.info({}, 'message 0');
  t.equal(told, 1019, 'twenty of one in all');
  log.info({}, 'one too many');
  log.info({}, 'message 0');
  t.equal(told, 1021, 'counted anew');
  t.end();
});

/** A server's descriptor, for a process that is to inherit it. */
const fdOf = (server: unknown): number => (server as { _handle: { fd: number } })._handle.fd;

void tap.test(
  'sockets of a service manager are served: a portal’s by its address, another not',
  async (t) => {
    const { file, daemon, configure } = await serve(t, ['one'], one);
    await daemon.close();
    const servers = [createServer(), createServer()];
    for (const server of servers) {
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
    }
    const [wanted, other] = servers.map((server) => (server.address() as AddressInfo).port);
    configure({ portals: [{ listen: `127.0.0.1:${wanted}`, portalGroupTag: 7 }], targets: [target('one')] });
    const child = spawn('sh', ['-c', 'LISTEN_PID=$$ LISTEN_FDS=2 exec "$0" serve "$1"', PROGRAM, file], {
      env,
      stdio: ['ignore', 'pipe', 'pipe', fdOf(servers[0]), fdOf(servers[1])],
    });
    t.teardown(() => child.kill('SIGKILL'));
    let [said, wrong] = ['', ''];
    child.stdout?.setEncoding('utf8').on('data', (chunk: string) => (said += chunk));
    child.stderr?.setEncoding('utf8').on('data', (chunk: string) => (wrong += chunk));
    while (!said.includes('cldd ready')) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      if (child.exitCode !== null) throw new Error(said + wrong);
    }
    for (const server of servers) server.close();
    t.match(said, new RegExp(`127\\.0\\.0\\.1:${wanted},7`));
    t.match(wrong, /no portal has the address of this inherited socket/);
    const socket = connect(wanted, '127.0.0.1');
    await once(socket, 'connect');
    socket.destroy();
    const refused = connect(other, '127.0.0.1');
    await t.rejects(once(refused, 'connect'), { code: 'ECONNREFUSED' });
    child.kill('SIGTERM');
    t.same(await once(child, 'close'), [0, null]);
  },
);
