/** `cldd backup`, `verify`, `restore` and `prune` as a nightly job and a disaster use them. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import tap from 'tap';
import { needing } from '../../conformance/support/clients.js';
import { EXIT } from '../../conformance/support/cldd.js';
import { succeed } from '../../conformance/support/processes.js';
import { gather, openBackup, verifyBackup } from '../../src/cli/backup/backup-file.js';
import { PROGRAM, Served, cldd, env, finishedIn, parse, scratch, until } from './support.js';

const folder = scratch('backup');
const needs = needing('qemu-io', 'qemu-img');
let served = 0;
const serve = (t: Pick<typeof tap, 'teardown'>): Promise<Served> =>
  Served.start(t, join(folder, String(served++)));

void tap.test('a chain of incremental backups restores each generation, byte by byte', needs, async (t) => {
  const { backups, ask, write, image, partition } = await serve(t);
  await write(7, '0', '3M');
  const nightly = ['backup', '--to', backups, '--incremental', '--json'];
  const first = await ask(...nightly, '--compress');
  t.equal(first.code, EXIT.WARNINGS, 'nothing to build on: full, and it says so');
  t.match(parse(first.stdout), { kind: 'full', generation: 1, dataBytes: 3 << 20 });
  const images = [await image()];
  for (const [generation, position] of [
    [2, '1M'],
    [3, '10M'],
  ] as const) {
    await write(generation, position, '64k');
    const { code, stdout } = await ask(...nightly);
    t.equal(code, EXIT.DONE);
    t.match(parse(stdout), { kind: 'incremental', generation, dataBytes: 65_536 });
    images.push(await image());
  }
  t.match((await ask('status')).stdout, /slave +disabled/);
  t.equal((await cldd('verify', backups)).code, EXIT.DONE);
  for (const [index, expected] of images.entries()) {
    const to = join(folder, `restored-${String(index)}`);
    const done = await cldd('restore', backups, '--to', to, '--generation', String(index + 1));
    t.equal(done.code, EXIT.DONE, done.stderr);
    t.ok(readFileSync(to).equals(expected), `generation ${String(index + 1)}`);
  }
  const served = await cldd('restore', backups, '--to', partition, '--yes');
  t.equal(served.code, EXIT.REFUSED, 'not onto a partition that is served');

  const other = join(folder, 'other');
  await succeed(PROGRAM, ['init', other, '--size', '32M'], { env });
  t.equal((await cldd('restore', backups, '--to', other)).code, EXIT.REFUSED, 'nor over one without --yes');
  t.equal((await cldd('restore', backups, '--to', other, '--yes')).code, EXIT.DONE);

  rmSync(join(backups, finishedIn(backups)[1]));
  const broken = await cldd('verify', backups);
  t.equal(broken.code, EXIT.FAILURE, 'a chain with a gap');
  t.match(broken.stderr, /^cldd: [^\n]*generation 2, which is not among[^\n]*\n$/);
});

void tap.test('a backup that was killed goes on, and the slave stayed the same', needs, async (t) => {
  const { backups, ask, begin, write, image } = await serve(t);
  await write(5, '0', '6M');
  const expected = await image();
  const thawed = join(backups, 'thawed');
  const killed = begin('backup', '--to', backups, '--rate', '1M', '--post', `touch ${thawed}`);
  const part = (): string | undefined => readdirSync(backups).find((name) => name.endsWith('.partial'));
  const size = (): number => statSync(join(backups, part() ?? 'absent')).size;
  await until('the copy', () => part() !== undefined && size() > 1 << 20);
  await killed.end('SIGKILL');
  t.ok(existsSync(thawed), 'thawed before the copy began');
  await write(6, '1M', '2M');
  const again = await ask('backup', '--to', backups, '--json');
  t.equal(again.code, EXIT.DONE, again.stderr);
  t.match(parse(again.stdout), { resumed: true, generation: 1 });
  const to = join(folder, 'resumed');
  t.equal((await cldd('restore', backups, '--to', to)).code, EXIT.DONE);
  t.ok(readFileSync(to).equals(expected), 'the image as it was at the enable');
  t.match((await ask('status')).stdout, /slave +disabled/);
});

void tap.test(
  'the post hook runs though the pre hook hangs, fails, or the command is killed',
  needs,
  async (t) => {
    const { backups, ask, begin, write } = await serve(t);
    const thawed = join(backups, 'thawed');
    const hooks = (pre: string) => ['--pre', pre, '--post', `echo x >> ${thawed}`, '--freeze-limit', '2'];
    const times = (): number => (existsSync(thawed) ? readFileSync(thawed).length / 2 : 0);
    const hung = await ask('backup', '--to', backups, ...hooks('sleep 600'));
    t.equal(hung.code, EXIT.FAILURE);
    t.match(hung.stderr, /pre hook took more than 2 s/);
    t.equal(times(), 1, 'after a hook that hangs');
    t.equal((await ask('backup', '--to', backups, ...hooks('exit 9'))).code, EXIT.FAILURE);
    t.equal(times(), 2, 'after one that fails');
    const killed = begin('backup', '--to', backups, ...hooks('echo frozen >&2; sleep 600'));
    await killed.waitFor(/frozen/, 60_000);
    await killed.end('SIGKILL');
    await until('the thaw', () => times() >= 3);
    t.equal(times(), 3, 'after a kill');
    t.match((await ask('status')).stdout, /slave +disabled/);
    t.notOk(
      readdirSync(backups).some((name) => name.endsWith('.partial')),
      'nothing that could pass for a backup under way',
    );
    await write(1, '0', '64k');
    await ask('slave', 'enable');
    const foreign = await ask('backup', '--to', backups);
    t.equal(foreign.code, EXIT.REFUSED, "somebody else's slave");
    t.match(foreign.stderr, /--use-enabled/);
    t.equal((await ask('backup', '--to', backups, '--use-enabled')).code, EXIT.DONE);
    t.match((await ask('status')).stdout, /slave +enabled/, 'which stays');
  },
);

void tap.test('a backup with any byte changed or cut off is refused', needs, async (t) => {
  const { backups, ask, write } = await serve(t);
  await write(3, '0', '8k');
  t.equal((await ask('backup', '--to', backups, '--compress')).code, EXIT.DONE);
  const [{ path }] = gather([backups], []);
  const sound = readFileSync(path);
  t.ok(verifyBackup(openBackup(path)).dataBytes > 0);
  const spoilt = join(folder, 'spoilt.cldd');
  const refused = (bytes: Buffer): boolean => {
    writeFileSync(spoilt, bytes);
    try {
      verifyBackup(openBackup(spoilt));
      return false;
    } catch (error) {
      return (error as { code?: string }).code === 'BACKUP_DAMAGED';
    }
  };
  const missed: number[] = [];
  for (let at = 0; at < sound.length; at += 3) {
    const bytes = Buffer.from(sound);
    bytes[at] ^= 1 << (at % 8);
    if (!refused(bytes)) missed.push(at);
    if (at % 30 === 0 && !refused(sound.subarray(0, at))) missed.push(-at);
  }
  t.same(missed, []);
});

void tap.test('a backup goes into no folder but one that --create made one of backups', needs, async (t) => {
  const { backups, ask, disabled } = await serve(t);
  const made = join(backups, 'of', 'files');
  const nightly = ['backup', '--to', made, '--incremental'];
  // As below the mount point of a disc that is not there.
  for (const more of [[], ['--dry-run'], ['--thaw-only', '--post', 'true']]) {
    const refused = await ask(...nightly, ...more);
    t.equal(refused.code, EXIT.REFUSED, more.join(' '));
    t.match(
      refused.stderr,
      /^cldd: [^\n]+ does not exist: is the backup disc mounted\?[^\n]*--create[^\n]*\n$/,
    );
  }
  t.notOk(existsSync(made));
  mkdirSync(made, { recursive: true });
  t.match((await ask(...nightly)).stderr, /is no folder of backups [^\n]* is the backup disc mounted\?/);
  const dry = await ask(...nightly, '--create', '--dry-run');
  t.equal(dry.code, EXIT.WARNINGS, 'it would be full');
  t.same(readdirSync(made), [], 'nothing was written there');
  t.match((await ask('status')).stdout, /generation 0/, 'nor was the slave ever enabled');

  t.equal((await ask(...nightly, '--create')).code, EXIT.WARNINGS);
  t.match(finishedIn(made), [/-g000001\.cldd$/]);
  t.equal((await ask(...nightly)).code, EXIT.DONE, 'from now on without it');
  const twice = await ask(...nightly, '--create');
  t.equal(twice.code, EXIT.REFUSED, 'nor with it, as in a timer');
  t.match(twice.stderr, /a folder of backups already: leave --create away/);
  const fresh = join(backups, 'fresh');
  t.equal((await ask('backup', '--to', fresh, '--create')).code, EXIT.DONE, 'the disc may have none yet');
  t.equal(statSync(fresh).mode & 0o777, 0o700, 'for its owner only');

  const nowhere = await ask('backup', '--to', join(backups, 'absent', 'file'));
  t.equal(nowhere.code, EXIT.REFUSED);
  t.match(nowhere.stderr, /there is no folder for [^\n]*mounted\?/);
  const file = join(backups, 'file');
  t.equal((await ask('backup', '--to', file)).code, EXIT.DONE, 'a file, if that is asked for');
  for (const [flag, stay] of [
    ['--incremental', 'it stays a file'],
    ['--create', 'also then'],
  ] as const) {
    const refused = await ask('backup', '--to', file, flag);
    t.equal(refused.code, EXIT.REFUSED, stay);
    t.match(refused.stderr, /^cldd: [^\n]+ is a file, and --\w+ needs a folder[^\n]*\n$/);
  }
  t.ok(await disabled());
});

void tap.test('prune keeps the newest full backups with what builds on them', needs, async (t) => {
  const { backups, ask } = await serve(t);
  await ask('backup', '--to', backups);
  await ask('backup', '--to', backups, '--incremental');
  await ask('backup', '--to', backups);
  await ask('backup', '--to', backups, '--incremental');
  const copy = join(folder, 'copy');
  cpSync(backups, copy, { recursive: true });
  t.match(parse((await cldd('prune', copy, '--keep', '1', '--dry-run', '--json')).stdout), { kept: 2 });
  t.equal(finishedIn(copy).length, 4);
  const unsure = await cldd('prune', copy, '--keep', '1');
  t.equal(unsure.code, EXIT.REFUSED);
  t.match(unsure.stderr, /^cldd: 2 of 4 backups would be removed; nothing was[^\n]*--yes\n$/);
  t.equal(finishedIn(copy).length, 4);
  t.equal((await cldd('prune', copy, '--keep', '1', '--yes')).code, EXIT.DONE);
  t.match(
    finishedIn(copy).map((name) => name.slice(8)),
    ['-g000003.cldd', '-g000004.cldd'],
  );
  t.equal((await cldd('verify', copy)).code, EXIT.DONE);
  t.equal((await cldd('prune', copy, '--keep', '1')).code, EXIT.DONE, 'nothing to remove needs no --yes');
  t.equal((await cldd('prune', copy, '--keep', '0')).code, EXIT.USAGE);
});

void tap.test(
  'metrics are Prometheus text: every sample has its HELP and TYPE, and counts',
  needs,
  async (t) => {
    const { ask, write } = await serve(t);
    await write(1, '0', '64k');
    await ask('slave', 'enable');
    const { code, stdout } = await ask('metrics');
    t.equal(code, EXIT.DONE);
    const typed = new Set(
      [...stdout.matchAll(/^# TYPE (\S+) (?:gauge|counter|histogram)$/gm)].map(([, name]) => name),
    );
    const samples = stdout.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    for (const line of samples) {
      const [, name] =
        /^([a-z_]+)(?:\{[a-z]+="[^"]*"(?:,[a-z]+="[^"]*")*\})? \d+(?:\.\d+)?(?:e[+-]\d+)?$/.exec(line) ?? [];
      t.ok(typed.has(name) || typed.has(name?.replace(/_(bucket|sum|count)$/, '')), line);
    }
    t.match(stdout, /^cldd_slave_enabled\{target="[^"]+"\} 1$/m);
    t.match(stdout, /^cldd_write_bytes_total\{target="[^"]+",unit="master"\} 65536$/m);
  },
);
