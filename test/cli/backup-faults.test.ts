/** What goes wrong around `cldd backup`: readers, guards and daemons that die, chains that lost a link. */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import tap from 'tap';
import { EXIT } from '../../conformance/support/cldd.js';
import { needing } from '../../conformance/support/clients.js';
import { run, succeed } from '../../conformance/support/processes.js';
import { FrameWriter } from '../../src/cli/backup/format.js';
import { createFolder } from '../../src/cli/backup/folder.js';
import { frozenMark } from '../../src/cli/backup/thaw.js';
import { PROGRAM, Served, cldd, env, parse, scratch, until } from './support.js';

const folder = scratch('faults');

void tap.test('the faults around a backup', needing('qemu-io'), async (t) => {
  const served = await Served.start(t, folder);
  const { backups, socket, ask, begin, disabled } = served;
  const nightly = ['backup', '--to', backups, '--incremental'];
  const numbered = (generation: number): string => {
    const name = readdirSync(backups).find((file) => file.endsWith(`-g00000${generation}.cldd`)) ?? '';
    return join(backups, name);
  };
  await served.write(5, '0', '6M');

  await t.test('a reader of stdout that goes away fails the backup, and the slave goes', async (t) => {
    const line = `set -o pipefail; ${PROGRAM} backup --to - --socket ${socket} | head -c 10 > /dev/null`;
    const done = await run('bash', ['-c', line], { env });
    t.equal(done.code, EXIT.FAILURE);
    t.match(done.stderr, /stdout takes no more/);
    t.ok(await disabled());
  });

  await t.test(
    'killed, a backup to stdout leaves no slave behind, with which nobody could go on',
    async (t) => {
      const killed = begin('backup', '--to', '-', '--rate', '64K');
      await until('the copy', () => killed.stdout.includes('DATA'));
      t.notOk(await disabled());
      await killed.end('SIGKILL');
      await until('the disable', disabled);
    },
  );

  await t.test('the post hook runs though its guard is killed', async (t) => {
    const [thawed, pid] = [join(folder, 'thawed'), join(folder, 'pid')];
    const done = await ask(
      'backup',
      '--to',
      join(folder, 'f'),
      '--pre',
      `echo $PPID > ${pid}; kill -9 $PPID`,
      '--post',
      `touch ${thawed}`,
    );
    t.equal(done.code, EXIT.FAILURE);
    t.match(done.stderr, /guard of the hooks was ended by SIGKILL/);
    t.ok(existsSync(thawed));
    t.ok(await disabled());
  });

  await t.test('without a whole chain to build on, a backup is full and says why', async (t) => {
    t.equal((await ask(...nightly)).code, EXIT.WARNINGS);
    const first = Number(/g(\d+)\.cldd/.exec(readdirSync(backups).join())?.[1]);
    t.equal((await ask(...nightly)).code, EXIT.DONE);
    truncateSync(numbered(first), statSync(numbered(first)).size - 1);
    const cut = await ask(...nightly);
    t.equal(cut.code, EXIT.WARNINGS);
    t.match(cut.stderr, /is cut off, so this one is full/);
    t.equal((await ask(...nightly)).code, EXIT.DONE);
    rmSync(numbered(first + 2));
    const missing = await ask(...nightly);
    t.equal(missing.code, EXIT.WARNINGS);
    t.match(missing.stderr, /not among the files given, so this one is full/);
    rmSync(numbered(first));
    rmSync(numbered(first + 1));
    rmSync(numbered(first + 3));
    const every = await ask(...nightly, '--full-every', '1', '--json');
    t.equal(every.code, EXIT.DONE);
    t.match(JSON.parse(every.stdout), { kind: 'full' });
  });

  await t.test('no restore onto a backup that it reads', async (t) => {
    const [own] = readdirSync(backups).filter((name) => name.endsWith('.cldd'));
    const before = readFileSync(join(backups, own));
    t.equal((await cldd('restore', backups, '--to', join(backups, own), '--yes')).code, EXIT.REFUSED);
    t.ok(readFileSync(join(backups, own)).equals(before));
  });

  await t.test('a copy waits for a daemon that was killed and is started again', async (t) => {
    const to = join(folder, 'patient');
    const copying = begin('backup', '--to', to, '--rate', '2M');
    await until(
      'the copy',
      () => (statSync(`${to}.partial`, { throwIfNoEntry: false })?.size ?? 0) > 1 << 20,
    );
    await served.daemon.end('SIGKILL');
    await served.serve();
    t.equal((await copying.ended).code, EXIT.DONE, copying.stderr);
    t.equal((await cldd('verify', to)).code, EXIT.DONE);
    t.ok(await disabled());
  });

  await t.test('killed after the enable, before the thaw is done: the next run begins anew', async (t) => {
    const [to, calls, go] = [join(folder, 'anew'), join(folder, 'calls'), join(folder, 'go')];
    const post = `echo x >> ${calls}; while [ ! -e ${go} ]; do sleep 0.1; done`;
    const args = ['backup', '--to', to, '--post', post];
    const killed = begin(...args);
    await until('the thaw', () => existsSync(calls));
    // Its output stays open as long as its guard lives, so nobody waits for that.
    process.kill(killed.pid, 'SIGKILL');
    t.notOk(await disabled(), 'the slave is enabled already');
    t.ok(existsSync(`${to}.enabling`), 'a mark says for whom');
    const next = ask(...args, '--json');
    writeFileSync(go, '');
    const again = await next;
    t.equal(again.code, EXIT.DONE, again.stderr);
    t.match(parse(again.stdout), { resumed: false });
    t.equal(
      readFileSync(calls, 'utf8').length / 2,
      2,
      'the guard of the first, which was waited for, and its own',
    );
    t.ok(await disabled());
    t.notOk(existsSync(`${to}.enabling`));
    t.same(marksOf(folder), [], 'nothing is left to thaw');
  });

  await t.test(
    'killed with its guard, it leaves a mark by which --thaw-only or the next run thaws',
    async (t) => {
      const [to, pid, thawed] = [join(folder, 'both'), join(folder, 'guard'), join(folder, 'both-thawed')];
      const post = ['--to', to, '--post', `echo x >> ${thawed}`];
      const times = (): number => (existsSync(thawed) ? readFileSync(thawed).length / 2 : 0);
      const killBoth = async (): Promise<void> => {
        rmSync(pid, { force: true });
        const frozen = `kill -STOP ${served.daemon.pid}; echo $PPID > ${pid}.new; mv ${pid}.new ${pid}`;
        const command = begin('backup', ...post, '--pre', frozen);
        await until('the freeze', () => existsSync(pid));
        // Stopped, it can't see its guard die.
        process.kill(command.pid, 'SIGSTOP');
        process.kill(Number(readFileSync(pid, 'utf8')), 'SIGKILL');
        await command.end('SIGKILL');
        process.kill(served.daemon.pid, 'SIGCONT');
      };
      await killBoth();
      t.equal(times(), 0, 'nobody thawed');
      const only = await cldd('backup', ...post, '--thaw-only', '--json');
      t.same([only.code, parse(only.stdout), times()], [EXIT.DONE, { thawed: true }, 1]);
      const idle = await cldd('backup', ...post, '--thaw-only');
      t.same([idle.code, idle.stdout, times()], [EXIT.DONE, 'nothing is left to thaw\n', 1]);
      await killBoth();
      const another = ['backup', '--to', to, '--post', `echo y >> ${thawed}`, '--thaw-only'];
      const stranger = another.toSpliced(1, 0, 'iqn.2026-01.org.example:other');
      t.equal((await cldd(...stranger)).stdout, 'nothing is left to thaw\n', 'of another target');
      const changed = await cldd(...another);
      t.equal(changed.code, EXIT.WARNINGS, 'the hook was changed meanwhile');
      t.match(changed.stderr, /post hook was another one, and the present one has run/);
      t.equal(times(), 2);
      await killBoth();
      const none = await cldd('backup', '--to', to, '--thaw-only');
      t.equal(none.code, EXIT.FAILURE, 'or taken away');
      t.match(none.stderr, /killed before it thawed, and there is no --post now/);
      const next = await ask('backup', ...post);
      t.equal(next.code, EXIT.WARNINGS, next.stderr);
      t.equal(times(), 4, 'the one that was left, and its own');
      t.ok(await disabled());
      t.same(marksOf(folder), []);
    },
  );

  await t.test('a dry run of --thaw-only thaws nothing, and leaves the mark', async (t) => {
    const [to, thawed] = [join(folder, 'dry'), join(folder, 'dry-thawed')];
    const post = `touch ${thawed}`;
    const mark = frozenMark({ to }, false) ?? '';
    writeFileSync(mark, '');
    const args = ['backup', '--to', to, '--post', post, '--thaw-only'];
    const dry = await cldd(...args, '--dry-run');
    t.same([dry.code, dry.stdout], [EXIT.DONE, 'the post hook would run\n']);
    t.same([existsSync(thawed), existsSync(mark)], [false, true]);
    t.equal((await cldd(...args)).code, EXIT.DONE);
    t.same([existsSync(thawed), existsSync(mark)], [true, false]);
  });

  await t.test('a post hook that fails is told of at once, and tried again before the copy', async (t) => {
    const [to, tried] = [join(folder, 'tried'), join(folder, 'tries')];
    const post = `echo x >> ${tried}; [ $(wc -l < ${tried}) -gt 1 ]`;
    const done = await ask(
      'backup',
      '--to',
      to,
      '--post',
      post,
      '--final',
      'sleep 3',
      '--freeze-limit',
      '20',
    );
    t.equal(done.code, EXIT.WARNINGS, done.stderr);
    t.match(done.stderr, /^cldd: the post hook ended with 1: [^\n]+; trying it again\n/);
    t.match(done.stderr, /tried again, it ended well/);
    t.equal(readFileSync(tried, 'utf8').length / 2, 2);
    t.same(marksOf(folder), []);
  });

  await t.test('an image thawed too early is no backup, also if the thaw failed', async (t) => {
    const to = join(folder, 'early');
    const slow = `kill -STOP ${served.daemon.pid}; (sleep 4; kill -CONT ${served.daemon.pid}) > /dev/null 2>&1 &`;
    const early = await ask('backup', '--to', to, '--pre', slow, '--post', 'exit 3', '--freeze-limit', '2');
    t.equal(early.code, EXIT.FAILURE, early.stdout);
    t.match(early.stderr, /had to run before the slave was enabled, and failed/);
    t.notOk(existsSync(to));
    t.ok(await disabled());
    for (const name of marksOf(folder)) rmSync(join(folder, name));
  });

  await t.test('a backup is not written to a terminal', needing('script'), async (t) => {
    const line = `${PROGRAM} backup --to - --socket ${socket}`;
    const shown = await run('script', ['-qec', line, '/dev/null'], { env });
    t.equal(shown.code, EXIT.USAGE);
    t.match(shown.stdout, /would spoil this terminal/);
  });

  await t.test('prune counts no full backup that is cut off', async (t) => {
    const place = join(folder, 'pruned');
    mkdirSync(place);
    for (const [generation, cut] of [
      [1, 0],
      [2, 0],
      [3, 1],
    ]) {
      const header = {
        ...{
          version: 1,
          id: `a${generation}`,
          kind: 'full',
          base: null,
          target: 'iqn.2026-01.org.example:x',
        },
        ...{ uuid: 'a', generation, createdAt: '2026-01-01T00:00:00.000Z', capacityBytes: 4096 },
      };
      const writer = new FrameWriter();
      const head = writer.frame('HEAD', 0, 0, Buffer.from(JSON.stringify(header)));
      const bytes = Buffer.concat([head, writer.frame('ZERO', 0, 4096), writer.done()]);
      writeFileSync(join(place, `g${generation}.cldd`), bytes.subarray(0, bytes.length - cut));
    }
    const pruned = await cldd('prune', place, '--keep', '1', '--yes');
    t.equal(pruned.code, EXIT.WARNINGS, pruned.stderr);
    t.match(pruned.stderr, /g3\.cldd is cut off and was not counted/);
    t.same(readdirSync(place).sort(), ['g2.cldd', 'g3.cldd']);
  });

  await t.test('symbolic links in the place of the unfinished files lead nowhere', async (t) => {
    const [to, victim] = [join(folder, 'linked'), join(folder, 'victim')];
    writeFileSync(victim, 'precious');
    for (const name of [`${to}.partial`, `${to}.enabling`]) symlinkSync(victim, name);
    t.equal((await ask('backup', '--to', to)).code, EXIT.DONE);
    t.equal(readFileSync(victim, 'utf8'), 'precious');
    t.ok(lstatSync(to).isFile());
    const image = join(folder, 'linked-image');
    symlinkSync(victim, `${image}.restoring.new`);
    t.equal((await cldd('restore', to, '--to', image)).code, EXIT.DONE);
    t.equal(readFileSync(victim, 'utf8'), 'precious');
  });

  await t.test(
    'what is no regular file, or would speak to the terminal, is refused in plain words',
    async (t) => {
      const hostile = join(folder, 'hostile');
      createFolder(hostile);
      await succeed('mkfifo', [join(hostile, 'pipe.cldd')]);
      const fifo = await cldd('verify', hostile);
      t.equal(fifo.code, EXIT.FAILURE);
      t.match(fifo.stderr, /^cldd: \S+pipe\.cldd is no sound backup: it is not a regular file\n$/);
      const full = await ask('backup', '--to', hostile, '--incremental', '--dry-run');
      t.match(full.stderr, /not a regular file/, 'a backup to that folder is not held up either');
      rmSync(join(hostile, 'pipe.cldd'));
      const header = {
        ...{ version: 1, id: 'a', kind: 'full', base: null, target: 'iqn.2026-01.org.example:x', uuid: 'a' },
        ...{ generation: 1, createdAt: '2026-01-01T00:00:00.000Z', capacityBytes: 4096 },
      };
      const evil = '\u001b]0;owned\u0007\u009b31m';
      const long = { target: 'x'.repeat(300), createdAt: '2'.repeat(100), id: 'a'.repeat(100) };
      for (const [name, spoilt] of [
        ...['target', 'createdAt', 'id', 'uuid', 'enabledAt'].map((key) => [key, { [key]: evil }] as const),
        ...Object.entries(long).map(([key, value]) => [`long ${key}`, { [key]: value }] as const),
      ]) {
        const writer = new FrameWriter();
        const head = writer.frame('HEAD', 0, 0, Buffer.from(JSON.stringify({ ...header, ...spoilt })));
        const path = join(hostile, 'evil.cldd');
        writeFileSync(path, Buffer.concat([head, writer.frame('ZERO', 0, 4096), writer.done()]));
        const done = await cldd('verify', path);
        t.equal(done.code, EXIT.FAILURE, name);
        t.notMatch(done.stdout + done.stderr, CONTROL, name);
      }
      rmSync(join(hostile, 'evil.cldd'));
      const path = join(hostile, `name${evil}.cldd`);
      writeFileSync(path, 'no backup');
      const named = await cldd('verify', hostile);
      t.equal(named.code, EXIT.FAILURE);
      t.notMatch(named.stderr, CONTROL, 'nor do names of files');
      t.match(named.stderr, '\\x1b]0;owned');
    },
  );

  const root = process.getuid?.() === 0 ? {} : { skip: 'only root may mount a small file system' };
  await t.test('a full disc at the destination of a backup or a restore, then room', root, async (t) => {
    const small = join(folder, 'small');
    mkdirSync(small);
    await succeed('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'none', small]);
    t.teardown(() => succeed('umount', [small]));
    const to = join(small, 'backup.cldd');
    const full = await ask('backup', '--to', to);
    t.equal(full.code, EXIT.FAILURE);
    t.match(full.stderr, /^cldd: [^\n]*the disc is full; the slave stays enabled[^\n]*\n$/);
    t.notOk(await disabled());
    await succeed('mount', ['-o', 'remount,size=64m', small]);
    const again = await ask('backup', '--to', to, '--json');
    t.equal(again.code, EXIT.DONE, again.stderr);
    t.match(parse(again.stdout), { resumed: true });
    t.ok(await disabled());
    await succeed('mount', ['-o', `remount,size=${statSync(to).size + (2 << 20)}`, small]);
    const image = join(small, 'image');
    const short = await cldd('restore', to, '--to', image);
    t.equal(short.code, EXIT.FAILURE);
    t.match(
      short.stderr,
      /^cldd: the disc is full at [^\n]*: make room, and run the same command again[^\n]*\n$/,
    );
    await succeed('mount', ['-o', 'remount,size=64m', small]);
    t.equal((await cldd('restore', to, '--to', image)).code, EXIT.DONE, 'it goes on without --yes');
    t.ok(
      readFileSync(image)
        .subarray(0, 6 << 20)
        .every((byte) => byte === 5),
      'all of it is there',
    );
  });
});

/** Control characters, save the end of a line. */
const CONTROL = /(?!\n)\p{Cc}/u;

const marksOf = (place: string): string[] => readdirSync(place).filter((name) => /\.frozen-/.test(name));
