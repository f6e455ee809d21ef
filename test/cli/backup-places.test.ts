/** Places of backups that are not what they should be: no disc, a full one, FAT, odd names, two runs, a clock set back. */
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import tap from 'tap';
import { EXIT } from '../../conformance/support/cldd.js';
import { needing } from '../../conformance/support/clients.js';
import { Running, run, succeed } from '../../conformance/support/processes.js';
import { PROGRAM, Served, cldd, env, finishedIn, parse, scratch, until } from './support.js';

tap.setTimeout(400_000);
const folder = scratch('places');
const root = process.getuid?.() === 0 ? {} : { skip: 'only root may mount a small file system' };
/** How often a hook that appends lines has run. */
/** Bytes of the copy that is being made in a folder. Before its first, there is nothing to go on with. */
const copiedIn = (place: string): number =>
  readdirSync(place)
    .filter((name) => name.endsWith('.partial'))
    .reduce((sum, name) => sum + statSync(join(place, name)).size, 0);

const times = (path: string): number => (existsSync(path) ? readFileSync(path).length / 2 : 0);

void tap.test('the places of backups', needing('qemu-io'), async (t) => {
  const served = await Served.start(t, folder);
  const { socket, ask, begin, disabled } = served;
  await served.write(5, '0', '6M');
  const generation = async (): Promise<number> => {
    const { targets } = parse((await ask('status', '--json')).stdout) as {
      targets: { slave: { generation: number } }[];
    };
    return targets[0].slave.generation;
  };

  await t.test('a backup disc that is not mounted', root, async (t) => {
    const disc = join(folder, 'disc');
    mkdirSync(disc);
    const attach = (): Promise<string> => succeed('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'none', disc]);
    const onDisc = ['backup', '--to', disc, '--incremental', '--post', 'true'];
    await attach();
    t.equal((await ask(...onDisc, '--create')).code, EXIT.WARNINGS);
    t.equal((await ask(...onDisc)).code, EXIT.DONE);
    await succeed('umount', [disc]);
    for (const more of [[], ['--thaw-only']]) {
      const refused = await ask(...onDisc, ...more);
      t.equal(refused.code, EXIT.REFUSED, refused.stdout);
      t.match(refused.stderr, /is the backup disc mounted\?/);
    }
    t.same(readdirSync(disc), [], 'nothing fills the disc below');
    for (const command of [['verify'], ['prune', '--keep', '1']])
      t.match((await cldd(...command, disc)).stderr, /there is no backup in [^\n]* mounted\?/);
  });

  await t.test('a backup disc with FAT or exFAT, which know no links and no modes', async (t) => {
    const to = join(folder, 'fat');
    const double = new URL('../cow/no-links.js', import.meta.url).href;
    const options = `${process.env['NODE_OPTIONS'] ?? ''} --import=${double}`;
    const onFat = ['backup', '--to', to, '--incremental', '--post', 'true', '--socket', socket];
    const asThere = (...args: string[]): ReturnType<typeof cldd> =>
      run(PROGRAM, args, { env: { ...env, NODE_OPTIONS: options }, timeoutMs: 120_000 });
    t.equal((await asThere(...onFat, '--create')).code, EXIT.WARNINGS);
    const killed = new Running(PROGRAM, [...onFat, '--rate', '32K', '--full-every', '1'], {
      env: { ...env, NODE_OPTIONS: options },
    });
    await until('a copy that can go on', () => copiedIn(to) > 0);
    const second = await asThere(...onFat);
    t.equal(second.code, EXIT.REFUSED, 'two at once');
    t.match(second.stderr, /is in use by process/);
    await killed.end('SIGKILL');
    const again = await asThere(...onFat, '--json');
    t.equal(again.code, EXIT.DONE, again.stderr);
    t.match(parse(again.stdout), { resumed: true });
    t.equal((await asThere('verify', to)).code, EXIT.DONE);
    t.equal((await asThere('restore', to, '--to', join(to, 'image'))).code, EXIT.DONE);
    t.same(
      readdirSync(to).filter((name) => /lock|frozen|enabling|partial|restoring/.test(name)),
      [],
    );
  });

  await t.test(
    'a disc that is full at any step: what was frozen is thawed, and there is a way on',
    root,
    async (t) => {
      const small = join(folder, 'small');
      mkdirSync(small);
      const to = join(small, 'backup.cldd');
      const [frozen, thawed] = [join(folder, 'sweep-frozen'), join(folder, 'sweep-thawed')];
      const nightly = ['backup', '--to', to, '--pre', `echo x >> ${frozen}`, '--post', `echo x >> ${thawed}`];
      let failures = 0;
      // Each file that is made takes an inode: lock, lock of the guard, marks, the backup itself.
      for (let inodes = 2; inodes <= 8; inodes++) {
        await succeed('mount', ['-t', 'tmpfs', '-o', `size=64m,nr_inodes=${inodes}`, 'none', small]);
        try {
          const done = await ask(...nightly);
          t.equal(times(thawed), times(frozen), `${inodes}: ${done.stderr}`);
          if (done.code === EXIT.DONE) continue;
          failures++;
          t.match(done.stderr, /^cldd: .*(disc is full|make room)/m);
          await succeed('mount', ['-o', 'remount,nr_inodes=0', small]);
          const again = await ask(...nightly);
          t.ok([EXIT.DONE, EXIT.WARNINGS].includes(again.code as 0 | 5), again.stderr);
          t.equal(times(thawed), times(frozen));
          t.same(readdirSync(small), ['backup.cldd'], 'and nothing else is left there');
        } finally {
          await succeed('umount', [small]);
        }
        t.ok(await disabled());
      }
      t.ok(failures >= 3, `${failures} steps found no room`);
    },
  );

  await t.test('two at once', async (t) => {
    const [one, two] = [join(folder, 'one'), join(folder, 'two')];
    // Slow enough for any machine; it is not waited for.
    const first = begin('backup', '--to', one, '--rate', '32K');
    await until(
      'a copy that can go on',
      () => existsSync(`${one}.partial`) && statSync(`${one}.partial`).size > 0,
    );
    const hook = join(folder, 'hook');
    const same = await ask('backup', '--to', one, '--pre', `echo x >> ${hook}`);
    t.equal(same.code, EXIT.REFUSED, same.stderr);
    t.match(same.stderr, /is in use by process \d+/);
    const other = await ask('backup', '--to', two, '--pre', `echo x >> ${hook}`);
    t.equal(other.code, EXIT.REFUSED, other.stderr);
    t.match(other.stderr, /not for an interrupted backup in/);
    t.equal(times(hook), 0, 'nothing was frozen for them');
    t.ok(first.alive, 'nor did they disturb it');
    await first.end('SIGKILL');
    t.match(parse((await ask('backup', '--to', one, '--json')).stdout), { resumed: true });
    t.equal((await cldd('verify', one)).code, EXIT.DONE);
    t.ok(await disabled());
  });

  await t.test('a clock that was set back makes no slave ours that is not', async (t) => {
    const to = join(folder, 'clock');
    await ask('slave', 'enable');
    writeFileSync(`${to}.enabling`, `${await generation()} ${Date.now() + 3_600_000}\n`);
    const refused = await ask('backup', '--to', to);
    t.equal(refused.code, EXIT.REFUSED, refused.stderr);
    t.match(refused.stderr, /disable it first/);
    t.notOk(await disabled());
    await ask('slave', 'disable');
    t.equal((await ask('backup', '--to', to)).code, EXIT.DONE);
  });

  await t.test('names with spaces and ends of lines', async (t) => {
    const odd = join(folder, "two words\nand a 'line' $HOME");
    const thawed = join(folder, 'odd-thawed');
    const nightly = ['backup', '--to', odd, '--post', `echo x >> ${thawed}`];
    const made = await ask(...nightly, '--create');
    t.equal(made.code, EXIT.DONE, made.stderr);
    t.match(made.stdout, /^[^\n]+two words\\x0aand a 'line' \$HOME[^\n]+\n$/, 'one line');
    const killed = begin(...nightly, '--rate', '32K');
    await until('a copy that can go on', () => copiedIn(odd) > 0);
    await killed.end('SIGKILL');
    t.match(parse((await ask(...nightly, '--json')).stdout), { resumed: true });
    t.equal((await ask(...nightly, '--incremental')).code, EXIT.DONE);
    t.equal(times(thawed), 3);
    const verified = await cldd('verify', odd);
    t.same([verified.code, verified.stdout.trim().split('\n').length], [EXIT.DONE, 4]);
    const image = join(folder, 'new\nimage');
    const restored = await cldd('restore', odd, '--to', image);
    t.same([restored.code, restored.stdout.trim().split('\n').length], [EXIT.DONE, 1], restored.stderr);
    t.equal(readFileSync(image)[1 << 20], 5);
    const pruned = await cldd('prune', odd, '--keep', '1', '--yes');
    t.same([pruned.code, pruned.stdout.trim().split('\n').length], [EXIT.DONE, 2]);
    t.equal(finishedIn(odd).length, 2);
    const gone = await cldd('verify', join(odd, 'gone\naway'));
    t.match(gone.stderr, /^cldd: [^\n]+gone\\x0aaway does not exist\n$/);
  });
});
