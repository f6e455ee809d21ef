/** The program in processes of its own, as its users run it: what it refuses, how it ends, and what it prints. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Ajv } from 'ajv';
import tap from 'tap';
import { needing } from '../../conformance/support/clients.js';
import { EXIT } from '../../conformance/support/cldd.js';
import { ROOT } from '../../conformance/support/paths.js';
import { run, Running, succeed } from '../../conformance/support/processes.js';

const PROGRAM = join(ROOT, 'bin/cldd');
const env = { ...process.env, CLDD_DIST: resolve(import.meta.dirname, '../..') };
const READY_TIMEOUT_MS = 60_000;
const folder = mkdtempSync(join(tmpdir(), 'cldd-cli-'));
tap.teardown(() => rmSync(folder, { recursive: true, force: true }));

let files = 0;
/** A path in the test's own folder that nothing uses yet. */
const fresh = (): string => join(folder, `file-${String(files++)}`);

const cldd = (...args: string[]) => run(PROGRAM, args, { env });

/** An empty file of 64 MiB, the size that the tests' partitions have. */
function blank(): string {
  const path = fresh();
  writeFileSync(path, '');
  truncateSync(path, 64 << 20);
  return path;
}

/** Serves a partition on a port of the system's choice, until the test ends. */
async function serve(t: Tap, partition: string): Promise<{ daemon: Running; socket: string; ready: string }> {
  const socket = `${fresh()}.sock`;
  const args = ['serve', '--partition', partition, '--portal', '127.0.0.1:0', '--socket', socket];
  const daemon = new Running(PROGRAM, args, { env });
  t.teardown(() => daemon.end());
  const [ready] = await daemon.waitFor(/^cldd ready: .*$/m, READY_TIMEOUT_MS);
  return { daemon, socket, ready };
}

async function partition(): Promise<string> {
  const path = fresh();
  await succeed(PROGRAM, ['init', path, '--size', '64M'], { env });
  return path;
}

type Tap = Pick<typeof tap, 'teardown'>;

/** One clear line, and no stack trace. */
function isOneLine(t: Pick<typeof tap, 'match'>, text: string, pattern: RegExp): void {
  t.match(text, /^cldd: [^\n]+\n$/, 'one line');
  t.match(text, pattern);
}

void tap.test(
  'init makes a file of the asked size a partition, and says how large the master is',
  async (t) => {
    const path = fresh();
    const made = await cldd('init', path, '--size', '1G', '--json');
    t.equal(made.code, EXIT.DONE);
    const { partitionBytes, masterBytes } = JSON.parse(made.stdout) as Record<string, number>;
    t.equal(partitionBytes, 1 << 30);
    t.equal(statSync(path).size, 1 << 30);
    t.ok(masterBytes >= 0.49 * (1 << 30), 'at least 49 % of it');
    t.match(
      (await cldd('init', fresh(), '--size', '8M')).stdout,
      /8 MiB, master of [\d.]+ MiB \(\d+ bytes\)/,
    );
  },
);

void tap.test('init refuses what it can not or should not do', async (t) => {
  const absent = await cldd('init', fresh());
  t.equal(absent.code, EXIT.USAGE);
  isOneLine(t, absent.stderr, /--size/);
  const small = await cldd('init', fresh(), '--size', '1M');
  t.equal(small.code, EXIT.FAILURE);
  isOneLine(t, small.stderr, /8 MiB|8388608/);
  const huge = fresh();
  const full = await cldd('init', huge, '--size', '4P');
  t.not(full.code, EXIT.DONE);
  isOneLine(t, full.stderr, /room|too large|limit/i);
  t.notOk(existsSync(huge), 'and leaves no file behind');
  const again = await partition();
  const refused = await cldd('init', again);
  t.equal(refused.code, EXIT.REFUSED);
  isOneLine(t, refused.stderr, /cldd partition.*--yes/);
  t.equal((await cldd('init', again, '--yes')).code, EXIT.DONE);
});

/** What programs leave on a disc, by the name that init gives it. */
const CONTENTS: Record<string, { needs: string[]; make: (path: string) => Promise<unknown> }> = {
  ext2: { needs: ['mke2fs'], make: (path) => succeed('mke2fs', ['-q', '-t', 'ext2', path]) },
  ext4: { needs: ['mke2fs'], make: (path) => succeed('mke2fs', ['-q', '-t', 'ext4', path]) },
  swap: { needs: ['mkswap'], make: (path) => succeed('mkswap', ['-q', path]) },
};

for (const [name, { needs, make }] of Object.entries(CONTENTS)) {
  void tap.test(`init refuses a file that holds ${name}, and names it`, needing(...needs), async (t) => {
    const path = blank();
    await make(path);
    const refused = await cldd('init', path);
    t.equal(refused.code, EXIT.REFUSED);
    isOneLine(t, refused.stderr, new RegExp(`holds .*${name}`));
    t.equal((await cldd('init', path, '--yes')).code, EXIT.DONE);
  });
}

/** Signatures by their formats' own descriptions, for what no program here makes. */
const SIGNATURES: Record<string, [position: number, bytes: string][]> = {
  LUKS: [[0, 'LUKS\xba\xbe\x00\x02']],
  LVM: [
    [512, 'LABELONE'],
    [536, 'LVM2 001'],
  ],
  md: [[4096, '\xfc\x4e\x2b\xa9\x01\x00\x00\x00']],
  'partition table': [
    [510, '\x55\xaa'],
    [446, '\x80\x00\x01\x00\x83\xfe\xff\xff\x00\x08\x00\x00\x00\x00\x01\x00'],
  ],
  xfs: [[0, 'XFSB\x00\x00\x10\x00']],
};

void tap.test(
  'init refuses a file that holds LUKS, LVM, md, a partition table or XFS, and names it',
  async (t) => {
    for (const [name, parts] of Object.entries(SIGNATURES)) {
      const path = blank();
      const bytes = Buffer.alloc(8192);
      for (const [position, text] of parts) bytes.write(text, position, 'latin1');
      writeFileSync(path, bytes, { flag: 'r+' });
      const refused = await cldd('init', path);
      t.equal(refused.code, EXIT.REFUSED, name);
      isOneLine(t, refused.stderr, new RegExp(name, 'i'));
    }
  },
);

void tap.test(
  'serve says that it is ready, answers on a socket of mode 0600, and ends cleanly',
  async (t) => {
    const path = await partition();
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      const { daemon, socket, ready } = await serve(t, path);
      t.match(ready, /iqn\.\S+ on 127\.0\.0\.1:\d+,1, open to everybody/);
      t.equal(statSync(socket).mode & 0o777, 0o600);
      const second = await cldd('serve', '--partition', path, '--portal', '127.0.0.1:0', '--socket', fresh());
      t.equal(second.code, EXIT.REFUSED, 'a second daemon is refused');
      isOneLine(t, second.stderr, /in use by process \d+/);
      t.same(await daemon.end(signal), { code: EXIT.DONE, signal: undefined }, signal);
      t.notOk(existsSync(socket), 'the socket is gone');
    }
  },
);

void tap.test('one Ctrl-C that arrives twice, as through npm, is one request to stop', async (t) => {
  const { daemon, socket } = await serve(t, await partition());
  process.kill(daemon.pid, 'SIGINT');
  process.kill(daemon.pid, 'SIGTERM');
  t.same(await daemon.end('SIGINT'), { code: EXIT.DONE, signal: undefined });
  t.notOk(existsSync(socket), 'the socket is gone');
});

void tap.test('serve that can not begin says why in one line', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((done) => server.once('listening', done));
  t.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;
  const path = await partition();
  const taken = await cldd(
    'serve',
    '--partition',
    path,
    '--portal',
    `127.0.0.1:${String(port)}`,
    '--socket',
    fresh(),
  );
  t.equal(taken.code, EXIT.FAILURE);
  isOneLine(t, taken.stderr, new RegExp(`127\\.0\\.0\\.1:${String(port)} is in use`));
  const plain = await cldd('serve', '--partition', blank(), '--portal', '127.0.0.1:0', '--socket', fresh());
  t.equal(plain.code, EXIT.FAILURE);
  isOneLine(t, plain.stderr, /not a cldd partition|cldd init/);
  const nowhere = await cldd(
    'serve',
    '--partition',
    path,
    '--portal',
    '127.0.0.1:0',
    '--socket',
    join(blank(), 'cldd.sock'),
  );
  t.equal(nowhere.code, EXIT.FAILURE, 'a control socket below a file');
  isOneLine(t, nowhere.stderr, /cldd\.sock/);
});

void tap.test('npm start: an unwritable folder and a full disc are one clear line each', async (t) => {
  const start = (args: string[]) =>
    run(process.execPath, [join(ROOT, 'scripts/start.mjs'), ...args], { env });
  const file = blank();
  const unwritable = await start(['--var', join(file, 'below'), '--port', '0']);
  t.equal(unwritable.code, EXIT.FAILURE);
  t.match(unwritable.stderr, /can't be written/);
  const roomy = join(fresh(), 'var');
  const full = await start(['--var', roomy, '--port', '0', '--size', '4P']);
  t.equal(full.code, EXIT.FAILURE);
  t.match(full.stderr, /room|too large|limit/i);
  if (process.getuid?.() === 0) return;
  const locked = fresh();
  mkdirSync(locked);
  chmodSync(locked, 0o500);
  t.equal((await start(['--var', locked, '--port', '0'])).code, EXIT.FAILURE);
});

const counters = (...names: string[]): object => ({
  type: 'object',
  required: names,
  properties: Object.fromEntries(names.map((name) => [name, { type: 'integer', minimum: 0 }])),
});

/** What scripts may rely on in `status --json`. */
const STATUS_TARGET = {
  type: 'object',
  required: ['name', 'partition', 'capacityBytes', 'slave', 'sessions', 'io'],
  properties: {
    name: { type: 'string' },
    partition: { type: 'string' },
    capacityBytes: { type: 'integer', minimum: 1 },
    slave: {
      type: 'object',
      required: ['enabled', 'generation', 'enabledAt', 'divergedBlocks', 'divergedBytes', 'heldBy'],
      properties: { enabled: { type: 'boolean' }, heldBy: { type: 'array' } },
    },
    sessions: {
      type: 'array',
      minItems: 1,
      items: { type: 'object', required: ['initiator', 'address', 'luns', 'since'] },
    },
    io: counters('readOps', 'readBytes', 'writeOps', 'writeBytes', 'flushes'),
  },
};

void tap.test(
  'status and slave enable or disable, with and without a target, as text and as JSON',
  async (t) => {
    const { socket, ready } = await serve(t, await partition());
    const [, target = '', portal = ''] = /: (\S+) on (\S+),1/.exec(ready) ?? [];
    const ask = (...args: string[]) => cldd(...args, '--socket', socket);
    t.match((await ask('status')).stdout, /slave +disabled/);

    const enabled = await ask('slave', 'enable', '--json');
    t.match(JSON.parse(enabled.stdout), { target, enabled: true, generation: 1 });
    const again = await ask('slave', 'enable', target);
    t.equal(again.code, EXIT.REFUSED);
    isOneLine(t, again.stderr, /enabled already/);
    t.equal((await ask('slave', 'disable', target)).code, EXIT.DONE);
    t.equal((await ask('slave', 'disable')).code, EXIT.REFUSED, 'nothing to disable');
    t.equal((await ask('slave', 'enable', 'iqn.2000-01.org.example:absent')).code, EXIT.FAILURE);

    await t.test('status --json has what scripts rely on', needing('iscsi-ls', 'qemu-io'), async (t) => {
      const writer = new Running('qemu-io', [
        '-f',
        'raw',
        '-c',
        'write -P 7 0 64k',
        '-c',
        'sleep 600000',
        `iscsi://${portal}/${target}/0`,
      ]);
      t.teardown(() => writer.end('SIGKILL'));
      const deadline = performance.now() + READY_TIMEOUT_MS;
      let first: { io: { writeBytes: number } };
      do {
        const { stdout } = await ask('status', '--json');
        [first] = (JSON.parse(stdout) as { targets: [{ io: { writeBytes: number } }] }).targets;
      } while (first.io.writeBytes < 65_536 && performance.now() < deadline);
      const validate = new Ajv().compile(STATUS_TARGET);
      t.ok(validate(first), JSON.stringify(validate.errors));
      t.ok(first.io.writeBytes >= 65_536);
    });
  },
);

void tap.test('a wrong command line is 2, a daemon out of reach is 4', async (t) => {
  for (const args of [
    ['frob'],
    ['slave', 'frob'],
    ['init'],
    ['status', '--frob'],
    ['init', fresh(), '--size', 'much'],
  ])
    t.equal((await cldd(...args)).code, EXIT.USAGE, args.join(' '));
  const away = await cldd('status', '--socket', fresh());
  t.equal(away.code, EXIT.NOT_REACHABLE);
  isOneLine(t, away.stderr, /cldd serve/);
  t.equal((await cldd('--version')).code, EXIT.DONE);
  t.equal((await cldd('--help')).code, EXIT.DONE);
});

void tap.test(
  'secret writes a random secret that only its owner can read, and never over another one',
  async (t) => {
    const seen = new Set<string>();
    for (const [bits, characters] of [
      ['128', 22],
      ['96', 16],
    ] as const) {
      const path = fresh();
      t.match((await cldd('secret', '--bits', bits, path, '--dry-run')).stdout, /would hold/);
      t.notOk(existsSync(path));
      const made = await cldd('secret', '--bits', bits, path, '--json');
      t.equal(made.code, EXIT.DONE);
      t.same(JSON.parse(made.stdout), { file: path, bits: Number(bits), characters });
      t.equal(statSync(path).mode & 0o777, 0o600);
      const secret = readFileSync(path, 'latin1');
      t.match(secret, new RegExp(`^[A-Za-z0-9+/]{${characters}}\n$`));
      t.notOk(`${made.stdout}${made.stderr}`.includes(secret.trim()), 'it is not shown');
      seen.add(secret.slice(0, 16));
      const again = await cldd('secret', path);
      t.equal(again.code, EXIT.REFUSED);
      isOneLine(t, again.stderr, /there already/);
      t.equal(readFileSync(path, 'latin1'), secret);
    }
    t.equal(seen.size, 2);
    const nowhere = await cldd('secret', join(fresh(), 'no', 'folder'));
    t.equal(nowhere.code, EXIT.FAILURE);
    isOneLine(t, nowhere.stderr, /ENOENT/);
  },
);

void tap.test('config check tells every mistake with its place', async (t) => {
  const path = `${fresh()}.yaml`;
  writeFileSync(path, 'portals:\n  - listen: 127.0.0.1:99999\ntargets:\n  - name: frob\n    colour: red\n');
  const checked = await cldd('config', 'check', path);
  t.not(checked.code, EXIT.DONE);
  const output = `${checked.stdout}${checked.stderr}`;
  for (const place of [/:2:\d+ .*portals.*listen/, /:4:\d+ .*name/, /:5:\d+ .*colour/])
    t.match(output, place);
  t.equal((await cldd('config', 'check', join(ROOT, 'config/cldd.minimal.yaml'))).code, EXIT.DONE);
});
