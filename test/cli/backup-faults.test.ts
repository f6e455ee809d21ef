/** What goes wrong around `cldd backup`: readers, guards and daemons that die, chains that lost a link. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import tap from 'tap';
import { EXIT } from '../../conformance/support/cldd.js';
import { needing } from '../../conformance/support/clients.js';
import { ROOT } from '../../conformance/support/paths.js';
import { run, Running, succeed } from '../../conformance/support/processes.js';

const PROGRAM = join(ROOT, 'bin/cldd');
const env = { ...process.env, CLDD_DIST: resolve(import.meta.dirname, '../..') };
const folder = mkdtempSync(join(tmpdir(), 'cldd-faults-'));
tap.teardown(() => rmSync(folder, { recursive: true, force: true }));
const [partition, backups, socket] = [join(folder, 'p'), join(folder, 'backups'), join(folder, 's')];
const WAIT_MS = 60_000;

const ask = (...args: string[]) => run(PROGRAM, [...args, '--socket', socket], { env, timeoutMs: 120_000 });
const cldd = (...args: string[]) => run(PROGRAM, args, { env });
const nightly = ['backup', '--to', backups, '--incremental'];
const numbered = (generation: number): string => {
  const name = readdirSync(backups).find((file) => file.endsWith(`-g00000${generation}.cldd`)) ?? '';
  return join(backups, name);
};

async function until(what: string, look: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + WAIT_MS;
  while (!(await look())) {
    if (performance.now() > deadline) throw new Error(`not in time: ${what}`);
    await sleep(50);
  }
}

void tap.test('the faults around a backup', needing('qemu-io'), async (t) => {
  mkdirSync(backups);
  await succeed(PROGRAM, ['init', partition, '--size', '32M'], { env });
  const serve = async (): Promise<[Running, string]> => {
    const args = ['serve', '--partition', partition, '--portal', '127.0.0.1:0', '--socket', socket];
    const daemon = new Running(PROGRAM, args, { env });
    t.teardown(() => daemon.end());
    const [, target = '', portal = ''] = await daemon.waitFor(/^cldd ready: (\S+) on (\S+),1/m, WAIT_MS);
    return [daemon, `iscsi://${portal}/${target}/0`];
  };
  const [daemon, url] = await serve();
  await succeed('qemu-io', ['-f', 'raw', '-c', 'write -P 5 0 6M', url]);
  const disabled = async (): Promise<boolean> => /slave +disabled/.test((await ask('status')).stdout);

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
      const killed = new Running(PROGRAM, ['backup', '--to', '-', '--rate', '1M', '--socket', socket], {
        env,
      });
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
    const copying = new Running(PROGRAM, ['backup', '--to', to, '--rate', '2M', '--socket', socket], { env });
    await until(
      'the copy',
      () => (statSync(`${to}.partial`, { throwIfNoEntry: false })?.size ?? 0) > 1 << 20,
    );
    await daemon.end('SIGKILL');
    await serve();
    t.equal((await copying.ended).code, EXIT.DONE, copying.stderr);
    t.equal((await cldd('verify', to)).code, EXIT.DONE);
    t.ok(await disabled());
  });
});
