/** The daemon under a service manager: sockets that listen already, messages of its state, the units, another user. */
import {
  chmodSync,
  chownSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import tap from 'tap';
import { needing } from '../../conformance/support/clients.js';
import { ROOT } from '../../conformance/support/paths.js';
import { freePort } from '../../conformance/support/ports.js';
import { run, Running, succeed } from '../../conformance/support/processes.js';
import { Partition } from '../../src/cow/partition.js';
import { explainListenError } from '../../src/daemon/listen-error.js';
import { inheritedFds } from '../../src/daemon/service-manager.js';

const PROGRAM = join(ROOT, 'bin/cldd');
const env = { ...process.env, CLDD_DIST: resolve(import.meta.dirname, '../..') };
const UNITS = join(ROOT, 'packaging/systemd');
const WAIT_MS = 60_000;
const folder = mkdtempSync(join(tmpdir(), 'cldd-service-'));
tap.setTimeout(240_000);
tap.teardown(() => rmSync(folder, { recursive: true, force: true }));
const partition = join(folder, 'partition');
await Partition.init(partition, { sizeBytes: 32 << 20 });

/** A service manager's socket: prints each message, and closes what comes with it, as sd_notify_barrier(3) awaits. */
const MANAGER = `
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print('bound', flush=True)
while True:
    data, fds, flags, address = socket.recv_fds(s, 4096, 8)
    for fd in fds: os.close(fd)
    print(data.decode(), flush=True)
`;

void tap.test('sockets are for the process that LISTEN_PID names, once', (t) => {
  const given = (): NodeJS.ProcessEnv => ({ LISTEN_PID: '7', LISTEN_FDS: '2', LISTEN_FDNAMES: 'a:b' });
  const environment = given();
  t.same(inheritedFds(environment, 7), [3, 4]);
  t.same(environment, {}, 'its children get none');
  t.same(inheritedFds(given(), 8), []);
  t.same(inheritedFds({ LISTEN_FDS: '2' }, 8), []);
  t.same(inheritedFds({ ...given(), LISTEN_FDS: '-1' }, 7), []);
  t.end();
});

void tap.test('a socket of systemd that is at no portal explains why the portal is in use', (t) => {
  const error = Object.assign(new Error('bind'), { code: 'EADDRINUSE', portal: '0.0.0.0:3260' });
  t.match(explainListenError(error), { code: 'PORTAL_IN_USE', message: /another program/ });
  t.match(explainListenError(error, true), { message: /ListenStream= of cldd\.socket/ });
  t.end();
});

void tap.test(
  'an initiator that comes to a socket of systemd is served by the daemon that this starts',
  needing('systemd-socket-activate', 'iscsi-ls'),
  async (t) => {
    const port = await freePort();
    const serve = ['serve', '--partition', partition, '--socket', join(folder, 'a.sock')];
    const portal = `127.0.0.1:${port}`;
    const activate = ['-l', portal, '-E', 'CLDD_DIST', PROGRAM, ...serve, '--portal', portal];
    const daemon = new Running('systemd-socket-activate', activate, { env });
    await daemon.waitFor(/Listening on/, WAIT_MS);
    const listed = await run('iscsi-ls', [`iscsi://127.0.0.1:${port}`], { timeoutMs: WAIT_MS });
    t.match(listed.stdout, /Target:iqn\./, 'the first connection, which began before the daemon did');
    t.match(daemon.stdout, `on 127.0.0.1:${port},1`);
    t.same(await daemon.end('SIGTERM', WAIT_MS), { code: 0, signal: undefined });
  },
);

void tap.test(
  'it says when it is ready, that it is alive while its event loop turns, and when it stops',
  needing('systemd-notify', 'python3'),
  async (t) => {
    const NOTIFY_SOCKET = join(folder, 'notify');
    const manager = new Running('python3', ['-c', MANAGER, NOTIFY_SOCKET]);
    t.teardown(() => manager.end('SIGKILL'));
    await manager.waitFor(/bound/, WAIT_MS);
    const args = ['serve', '--partition', partition, '--portal', '127.0.0.1:0'];
    const daemon = new Running(PROGRAM, [...args, '--socket', join(folder, 'b.sock')], {
      env: { ...env, NOTIFY_SOCKET, WATCHDOG_USEC: '3000000' },
    });
    t.teardown(() => daemon.end('SIGKILL'));
    await manager.waitFor(/READY=1/, WAIT_MS);
    t.match(daemon.stdout, /^cldd ready/, 'READY comes when the portals listen');
    await manager.waitFor(/STATUS=serves iqn\./, WAIT_MS);
    const feeds = (): number => manager.stdout.split('WATCHDOG=1').length - 1;
    await manager.waitUntil(() => (feeds() >= 2 ? true : undefined), 'two feeds', WAIT_MS);
    // A process that is stopped is one whose event loop doesn't turn.
    process.kill(daemon.pid, 'SIGSTOP');
    const settled = (): Promise<void> => new Promise((done) => setTimeout(done, 3000));
    await settled();
    const before = feeds();
    await settled();
    t.equal(feeds(), before, 'no feed while the loop hangs');
    process.kill(daemon.pid, 'SIGCONT');
    await manager.waitUntil(() => (feeds() > before ? true : undefined), 'another feed', WAIT_MS);
    t.same(await daemon.end('SIGTERM', WAIT_MS), { code: 0, signal: undefined });
    t.match(manager.stdout, /STOPPING=1/);
  },
);

void tap.test('the units are sound and hardened', needing('systemd-analyze'), async (t) => {
  const scratch = join(folder, 'units');
  mkdirSync(scratch);
  const names = [
    'cldd.service',
    'cldd.socket',
    'cldd-backup.service',
    'cldd-backup.timer',
    'cldd-thaw.service',
  ];
  for (const name of names) {
    // The program and the manual are not installed here.
    const text = readFileSync(join(UNITS, name), 'utf8');
    writeFileSync(
      join(scratch, name),
      text.replaceAll('/usr/bin/cldd', '/bin/true').replace(/^Documentation=man:.*\n/m, ''),
    );
  }
  t.notMatch(
    readFileSync(join(UNITS, 'cldd-backup.service'), 'utf8'),
    /^(Requires|Requisite|BindsTo|PartOf)=/m,
    'a restart of the daemon ends no backup',
  );
  const files = names.map((name) => join(scratch, name));
  const flusher = '/usr/lib/cldd/io-flusher';
  const oneHost = readFileSync(join(UNITS, '../one-host/one-host.conf'), 'utf8');
  t.match(
    oneHost,
    `\nExecStart=${flusher} ${readFileSync(join(UNITS, names[0] ?? ''), 'utf8').match(/^ExecStart=(.*)$/m)?.[1]}\n`,
    'the same command',
  );
  mkdirSync(join(scratch, 'one-host/cldd.service.d'), { recursive: true });
  cpSync(join(scratch, 'cldd.service'), join(scratch, 'one-host/cldd.service'));
  writeFileSync(
    join(scratch, 'one-host/cldd.service.d/one-host.conf'),
    oneHost.replace(flusher, '/bin/true').replace('/usr/bin/cldd', '/bin/true'),
  );
  for (const units of [files, [join(scratch, 'one-host/cldd.service')]]) {
    const verified = await run('systemd-analyze', ['verify', '--man=no', ...units]);
    t.equal(verified.code, 0, verified.stderr);
    t.notMatch(verified.stderr, new RegExp(scratch), 'no complaint about a line of them');
    const rated = await run('systemd-analyze', ['security', '--offline=true', '--threshold=25', units[0]]);
    t.equal(rated.code, 0, `exposure of at most 2.5: ${rated.stdout.slice(-200)}`);
  }
});

void tap.test(
  'io-flusher runs its program with its arguments as they are, without capabilities to inherit, and says what it could not do',
  needing('perl'),
  async (t) => {
    const flusher = join(UNITS, '../one-host/io-flusher');
    const words = ['a b', '', '$HOME', '-x'];
    const show = 'process.stdout.write(JSON.stringify([process.pid, process.argv.slice(1)]))';
    const child = new Running(flusher, [process.execPath, '-e', show, '--', ...words], {
      env: { ...process.env, NODE_OPTIONS: '' },
    });
    t.same(await child.ended, { code: 0, signal: undefined });
    t.same(JSON.parse(child.stdout), [child.pid, words], 'the same process');
    t.match(child.stderr, /^(io-flusher: PR_SET_IO_FLUSHER: [^\n]+; runs \S+ as it is\n)?$/);
    const caps = await run(flusher, ['grep', 'CapAmb', '/proc/self/status']);
    t.match(caps.stdout, /^CapAmb:\s+0+\n$/);
    const absent = await run(flusher, [join(folder, 'absent')]);
    t.equal(absent.code, 2, 'ENOENT');
    t.match(absent.stderr, /absent: No such file or directory\n$/);
    t.match(await run(flusher, []), { code: 255, stderr: /^usage: / });
  },
);

const asRoot = process.getuid?.() === 0 ? {} : { skip: 'only root may become another user' };

void tap.test('it runs without privileges, with the group of the partition only', asRoot, async (t) => {
  const USER = 54_321;
  const GROUP = 54_322;
  const own = join(folder, 'own');
  const shared = join(folder, 'shared');
  chmodSync(folder, 0o755);
  mkdirSync(own);
  chownSync(own, USER, USER);
  mkdirSync(shared);
  chownSync(shared, 0, GROUP);
  chmodSync(shared, 0o770);
  const path = join(shared, 'partition');
  await Partition.init(path, { sizeBytes: 32 << 20 });
  const socket = join(own, 'sock');
  const as = (groups: string[]): string[] => [
    ...['--reuid', String(USER), '--regid', String(USER), ...groups, '--no-new-privs'],
    ...['--bounding-set', '-all', '--inh-caps', '-all', '--'],
    // The test runner and its coverage have each Node note its end in folders of theirs, where a stranger may not write.
    ...['env', '-u', 'NODE_OPTIONS', '-u', 'NODE_V8_COVERAGE'],
    ...[
      process.execPath,
      PROGRAM,
      'serve',
      '--partition',
      path,
      '--portal',
      '127.0.0.1:0',
      '--socket',
      socket,
    ],
  ];
  chownSync(path, 0, GROUP);
  chmodSync(path, 0o660);
  const stranger = await run('setpriv', as(['--clear-groups']), { env, timeoutMs: WAIT_MS });
  t.equal(stranger.code, 1);
  t.match(stranger.stderr, /^cldd: [^\n]*(EACCES|permission)[^\n]*\n$/i, 'one clear line');
  const daemon = new Running('setpriv', as(['--groups', String(GROUP)]), { env });
  t.teardown(() => daemon.end('SIGKILL'));
  await daemon.waitFor(/^cldd ready/m, WAIT_MS);
  const status = readFileSync(`/proc/${daemon.pid}/status`, 'utf8');
  t.match(status, new RegExp(`^Uid:\\s+${USER}\\s+${USER}`, 'm'));
  t.match(status, /^CapEff:\s+0+$/m);
  await succeed(PROGRAM, ['slave', 'enable', '--socket', socket], { env });
  t.same(await daemon.end('SIGTERM', WAIT_MS), { code: 0, signal: undefined });
});
