/** Command lines that make no sense, answers that are seldom given, and backups that are wrong in ways that checksums don't show. */
import { closeSync, mkdirSync, openSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import tap from 'tap';
import { needing } from '../../conformance/support/clients.js';
import { EXIT } from '../../conformance/support/cldd.js';
import { run } from '../../conformance/support/processes.js';
import { chainOf, openBackup, verifyBackup } from '../../src/cli/backup/backup-file.js';
import type { BackupFile } from '../../src/cli/backup/backup-file.js';
import { BACKUP_VERSION, FrameWriter } from '../../src/cli/backup/format.js';
import { Progress, progressStyle } from '../../src/cli/backup/progress.js';
import { duration } from '../../src/cli/output.js';
import { Partition } from '../../src/cow/partition.js';
import { PROGRAM, Served, cldd, env, parse, scratch, until } from './support.js';

tap.setTimeout(240_000);
const folder = scratch('seldom');
let places = 0;
const fresh = (): string => join(folder, `place-${places++}`);

void tap.test(
  'command lines that make no sense are refused with the reason, before anything is done',
  async (t) => {
    for (const [args, why] of [
      [['serve'], /name a configuration file, or a partition/],
      [['serve', 'x.yaml', '--partition', 'p'], /don't go together with a configuration file/],
      [['serve', '--partition', 'p', '--portal', 'no:where'], /--portal no:where is not HOST:PORT/],
      [['status', '--watch', '--quiet'], /--watch shows something/],
      [['status', '--watch', '0'], /seconds from 0.1 to 86400/],
      [['session', 'kill', 'x'], /a whole number is needed/],
      [['check', 'p', '--empty-state'], /--empty-state needs --repair/],
      [['backup', '--to', '-', '--incremental'], /--incremental needs a folder/],
      [['backup', '--to', '-', '--create'], /--create makes a folder of backups/],
      [['prune', folder, '--keep', '0'], /--keep 0 would remove every backup/],
    ] as const) {
      const { code, stderr } = await cldd(...args);
      t.equal(code, EXIT.USAGE, args.join(' '));
      t.match(stderr, why);
    }
  },
);

void tap.test('the daemon is looked for where the configuration or the environment says', async (t) => {
  const file = fresh();
  writeFileSync(
    file,
    JSON.stringify({
      controlSocket: '/nowhere/of-the-file',
      portals: [{ listen: '127.0.0.1:0' }],
      targets: [{ name: 'iqn.2026-01.com.example:a', partition: '/p' }],
    }),
  );
  const configured = await cldd('status', '--config', file);
  t.equal(configured.code, EXIT.NOT_REACHABLE);
  t.match(configured.stderr, '/nowhere/of-the-file');
  const plain: NodeJS.ProcessEnv = { ...env, XDG_RUNTIME_DIR: folder };
  Reflect.deleteProperty(plain, 'CLDD_SOCKET');
  const looked = await run(PROGRAM, ['status', '--watch'], { env: plain });
  t.equal(looked.code, EXIT.NOT_REACHABLE, 'also for the live view, before it has begun');
  t.match(looked.stderr, /no cldd daemon answers on \/\S+/);
  const named = await run(PROGRAM, ['status'], {
    env: { ...plain, CLDD_SOCKET: '/nowhere/of-the-environment' },
  });
  t.match(named.stderr, '/nowhere/of-the-environment');
});

void tap.test('config check --json lists the mistakes for programs', async (t) => {
  const file = fresh();
  writeFileSync(file, 'targets: []\n');
  const { code, stdout } = await cldd('config', 'check', file, '--json');
  t.equal(code, EXIT.FAILURE);
  t.match(parse(stdout), { file, valid: false, mistakes: [{ line: 1 }] });
});

void tap.test('init --dry-run says what is there and what would become of it', async (t) => {
  const absent = fresh();
  t.match((await cldd('init', absent, '--size', '64M', '--dry-run')).stdout, /would be made/);
  writeFileSync(absent, '');
  truncateSync(absent, 64 << 20);
  t.match((await cldd('init', absent, '--dry-run')).stdout, /holds nothing known; would become a partition/);
  await Partition.init(absent, {});
  t.match(
    (await cldd('init', absent, '--dry-run')).stdout,
    /holds cldd, which would be refused without --yes/,
  );
  t.match((await cldd('init', absent, '--dry-run', '--yes')).stdout, /holds cldd, which would be erased/);
  const secret = fresh();
  t.match((await cldd('secret', secret)).stdout, /a secret of \d+ characters; name it as secretFile/);
});

void tap.test('what a full disc or a wall takes of the output is told, not thrown', (t) => {
  const full = spawnSync('sh', ['-c', `"${PROGRAM}" --help > /dev/full`], { env, encoding: 'utf8' });
  t.equal(full.status, EXIT.FAILURE);
  t.match(full.stderr, /^cldd: [^\n]*(?:ENOSPC|the disc is full)[^\n]*\n$/);
  const closed = spawnSync('sh', ['-c', `"${PROGRAM}" --help | true`], { env, encoding: 'utf8' });
  t.equal(closed.stderr, '');
  t.end();
});

void tap.test('answers of a daemon in words', needing('qemu-io'), async (t) => {
  const served = await Served.start(t, folder);
  const target = (parse((await served.ask('status', '--json')).stdout) as { targets: [{ name: string }] })
    .targets[0].name;
  const said = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await served.ask(...args);
    t.equal(code, EXIT.DONE, `${args.join(' ')}: ${stderr}`);
    return stdout + stderr;
  };
  t.equal(await said('sessions'), 'no sessions\n');
  t.equal(await said('sessions', target), 'no sessions\n');
  t.match(await said('status', target), target);
  t.equal(await said('log-level'), 'info\n');
  t.equal(await said('log-level', 'debug', '--dry-run'), 'info, would be debug\n');
  t.equal(await said('log-level', 'info', '--dry-run'), 'info\n', 'nothing would change');
  await served.write(1, '0', '1M');
  await said('slave', 'enable', '--crash-consistent');
  t.match(await said('targets'), /enabled/);
  await served.write(2, '0', '1M');
  t.match(
    await said('rollback', '--dry-run', '--force'),
    /would become the slave of generation 1 again; 1 MiB.* of changes would be lost; logged in: nobody/,
  );
  t.equal(
    await said('rollback', target, '--yes', '--force'),
    `${target}: the master is the slave of generation 1 again\n`,
  );
  await said('slave', 'disable');
  truncateSync(served.partition, 64 << 20);
  t.match(await said('grow', target), /the master has [\d.]+ MiB now, [\d.]+ MiB more/);

  await said('slave', 'enable', '--crash-consistent');
  await served.write(3, '2M', '64k');
  const watching = served.begin('status', '--watch', '0.1');
  await watching.waitFor(/partition {2}/, 60_000);
  await served.daemon.end('SIGKILL');
  await until('that it is away', () => /no cldd daemon answers/.test(watching.stderr));
  t.equal((await watching.end('SIGINT')).code, EXIT.DONE);

  // Before anybody recovers it.
  const dumped = (await cldd('dump', served.partition)).stdout;
  t.match(dumped, /^superblock at 0: version \d+$/m);
  t.match(dumped, /^ {2}\d+: \d+ blocks, \d+ records, epoch \d+, generation \d+$/m, 'the journal');
  t.match(dumped, /^activity log, slot \d: list \d+, \d+ entries$/m);
  const page = (await cldd('dump', served.partition, '--page', '0')).stdout;
  t.match(page, /^twin \d at \d+: /m);
  t.match(parse((await cldd('dump', served.partition, '--page', '0', '--json')).stdout), [
    { twin: 0 },
    { twin: 1 },
  ]);
  const beyond = await cldd('dump', served.partition, '--page', '100000');
  t.equal(beyond.code, EXIT.FAILURE);
  t.match(beyond.stderr, /has no map page 100000/);

  await served.serve();
  const since = await served.ask('changes', '--since', '2', target);
  t.match(since.stdout, /^\d+ \d+$/m);
  await served.daemon.end('SIGTERM');
  const fd = openSync(served.partition, 'r+');
  writeSync(fd, Buffer.alloc(1 << 20, 0xa5), 0, 1 << 20, 0);
  closeSync(fd);
  t.match((await cldd('dump', served.partition)).stdout, /superblock at 0: (?!version)/, 'whatever is wrong');
});

void tap.test('a time span is told in its two largest units', (t) => {
  for (const [ms, words] of [
    [999, '0 s'],
    [59_000, '59 s'],
    [60_000, '1 min'],
    [61_000, '1 min 1 s'],
    [3_600_000 + 59_000, '1 h'],
    [2 * 86_400_000 + 3 * 3_600_000 + 1, '2 d 3 h'],
  ] as const)
    t.equal(duration(ms), words);
  t.end();
});

void tap.test('progress of nothing, and without a rate, is told all the same', (t) => {
  const write = process.stderr.write.bind(process.stderr);
  const lines: string[] = [];
  process.stderr.write = (text: string | Uint8Array) => lines.push(String(text)) > 0;
  try {
    const begun = new Progress('copying', 100, 'json');
    begun.skip(40);
    begun.end();
    new Progress('nothing', 0, 'json').end();
  } finally {
    process.stderr.write = write;
  }
  t.match(JSON.parse(lines[0]), {
    progress: { doneBytes: 40, totalBytes: 100, bytesPerSecond: 0, leftSeconds: null },
  });
  t.match(JSON.parse(lines[1]), { progress: { doneBytes: 0, totalBytes: 0, leftSeconds: null } });
  t.same([progressStyle({ quiet: true, json: true }), progressStyle({})], ['none', 'auto']);
  t.end();
});

interface Head {
  id?: string;
  uuid?: string;
  generation?: number;
  capacityBytes?: number;
  base?: { id: string; generation: number } | null;
}

const CAPACITY = 4096;

function headFrame(writer: FrameWriter, head: Head): Buffer {
  const { id = 'a', uuid = 'ee', generation = 1, capacityBytes = CAPACITY, base = null } = head;
  const header = {
    ...{ version: BACKUP_VERSION, id, target: 'iqn.2026-01.org.example:x', uuid },
    ...{ kind: base === null ? 'full' : 'incremental', generation, capacityBytes, base },
    createdAt: '2026-01-01T00:00:00.000Z',
  };
  return writer.frame('HEAD', 0, 0, Buffer.from(JSON.stringify(header)));
}

/** A backup of these frames, with right checksums. */
function write(path: string, frames: (writer: FrameWriter) => Buffer[], head: Head = {}): string {
  const writer = new FrameWriter();
  writeFileSync(path, Buffer.concat([headFrame(writer, head), ...frames(writer)]));
  return path;
}

const whole = (writer: FrameWriter): Buffer[] => [writer.frame('ZERO', 0, CAPACITY), writer.done()];

void tap.test('a backup with right checksums that makes no sense is not sound', (t) => {
  const faultOf = (frames: (writer: FrameWriter) => Buffer[]): unknown => {
    const file = openBackup(write(fresh(), frames));
    try {
      return verifyBackup(file);
    } catch (error) {
      return (error as Error).message.replace(/^.* is no sound backup: /, '');
    }
  };
  t.same(faultOf(whole), { dataBytes: 0 });
  for (const [frames, why] of [
    [(w) => [w.frame('ZERO', 0, CAPACITY)], 'its end is missing'],
    [(w) => [w.frame('ZERO', 0, 512), w.done()], 'it covers 512 bytes of 4096'],
    [(w) => [headFrame(w, {}), ...whole(w)], 'it has two headers'],
    [(w) => [...whole(w), w.frame('ZERO', 0, 512)], 'something follows its end'],
    [
      (w) => [w.frame('ZERO', 512, 512), w.frame('ZERO', 0, 512), w.done()],
      'an extent is out of place at byte 0',
    ],
    [(w) => [w.frame('ZERO', 0, 100), w.done()], 'an extent at byte 0 is not of whole sectors'],
    [(w) => [w.frame('DATA', 0, 512, Buffer.alloc(100)), w.done()], 'an extent has 100 bytes, not 512'],
    [(w) => [w.frame('GZIP', 0, 512, Buffer.alloc(100)), w.done()], "an extent can't be unpacked"],
  ] as [(writer: FrameWriter) => Buffer[], string][])
    t.equal(faultOf(frames), why);
  const path = write(fresh(), whole);
  const file = openBackup(path);
  write(path, whole, { id: 'b' });
  t.throws(() => verifyBackup(file), { message: /it was replaced meanwhile/ });
  t.end();
});

void tap.test('a chain is of one partition, of one size, and goes back in time', (t) => {
  const file = (head: Head): BackupFile => openBackup(write(fresh(), whole, head));
  const base = { id: 'f1', generation: 1 };
  const full = file({ id: 'f1' });
  const next = file({ id: 'a2', generation: 2, base });
  t.same(chainOf(next, [next, full]), [full, next]);
  for (const other of [
    { id: 'f1', generation: 7 },
    { id: 'f1', uuid: 'ff' },
    { id: 'f1', capacityBytes: 8192 },
  ])
    t.throws(() => chainOf(next, [next, file(other)]), { code: 'CHAIN_BROKEN', message: /can't build on/ });
  const younger = file({ id: 'a3', generation: 1, base });
  t.throws(() => chainOf(younger, [full]), { code: 'CHAIN_BROKEN', message: /can't build on/ });
  const itself = file({ id: '5e', generation: 3, base: { id: '5e', generation: 3 } });
  t.throws(() => chainOf(itself, [itself]), { code: 'CHAIN_BROKEN', message: /not among the files/ });
  t.end();
});

void tap.test('restore and prune say what is not there, or is of several partitions', async (t) => {
  const place = fresh();
  mkdirSync(place);
  const to = fresh();
  for (const command of [
    ['restore', place, '--to', to],
    ['prune', place, '--keep', '1'],
    ['verify', place],
  ]) {
    const { code, stderr } = await cldd(...command);
    t.equal(code, EXIT.FAILURE, command.join(' '));
    t.match(stderr, /there is no backup in \S+: is the backup disc mounted\?/);
  }
  write(join(place, 'one.cldd'), whole);
  const absent = await cldd('restore', place, '--to', to, '--generation', '9');
  t.match(absent.stderr, /there is no backup of generation 9 among them/);
  write(join(place, 'two.cldd'), whole, { id: 'b', uuid: 'ff' });
  const mixed = await cldd('restore', place, '--to', to);
  t.equal(mixed.code, EXIT.USAGE);
  t.match(mixed.stderr, /these are backups of several partitions/);
});

void tap.test('prune keeps what builds on a full backup that is cut off, and says so', async (t) => {
  const place = fresh();
  mkdirSync(place);
  const full = join(place, 'full.cldd');
  write(full, whole);
  write(join(place, 'next.cldd'), (w) => [w.frame('ZERO', 0, 512), w.done()], {
    id: 'b',
    generation: 2,
    base: { id: 'a', generation: 1 },
  });
  truncateSync(full, 300);
  const { code, stdout, stderr } = await cldd('prune', place, '--keep', '1', '--yes');
  t.equal(code, EXIT.WARNINGS, stderr);
  t.match(stdout, /2 backups stay/);
  t.match(stderr, /full\.cldd is cut off and was not counted/);
});
