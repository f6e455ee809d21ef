/** `cldd backup` and `cldd restore` killed at any point and run again; and how they show where they are. */
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import tap from 'tap';
import { needing } from '../../conformance/support/clients.js';
import { EXIT } from '../../conformance/support/cldd.js';
import { run, Running, succeed } from '../../conformance/support/processes.js';
import { PROGRAM, Served, cldd, env, scratch } from './support.js';

const folder = scratch('interrupted');
const needs = needing('qemu-io', 'qemu-img', 'script');
const DATA_MIB = 96;

/** Runs a command and kills it once `due` says so, or lets it end. True if it was killed. */
async function killWhen(args: string[], due: () => boolean): Promise<boolean> {
  const running = new Running(PROGRAM, args, { env });
  let ended = false;
  const end = running.ended.then(() => (ended = true));
  while (!due() && !ended) await Promise.race([sleep(5), end]);
  const killed = !ended;
  await running.end('SIGKILL');
  return killed;
}

const after = (ms: number): (() => boolean) => {
  const began = performance.now();
  return () => performance.now() - began >= ms;
};

const sizeOf = (path: string): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0;

void tap.test(
  'killed at any point and run again, they come to the same end',
  { ...needs, timeout: 240_000 },
  async (t) => {
    const served = await Served.start(t, folder, '320M');
    const { backups, socket, write } = served;
    await write(7, '1M', `${DATA_MIB}M`);
    const expected = await served.image();

    const backup = ['backup', '--to', backups, '--socket', socket];
    const partial = (): number =>
      sizeOf(join(backups, readdirSync(backups).find((name) => name.endsWith('.partial')) ?? 'none'));
    // Before the daemon is asked, around the enable, and within the copy.
    const kills = [
      after(150),
      after(350),
      () => partial() > 0,
      () => partial() > 5 << 20,
      () => partial() > 40 << 20,
    ];
    let killed = 0;
    for (const due of kills) if (await killWhen([...backup, '--rate', '64M'], due)) killed++;
    t.ok(killed >= 3, `${killed} backups were killed`);
    await write(9, '1M', '1M');
    const done = await cldd(...backup, '--json');
    t.equal(done.code, EXIT.DONE, done.stderr);
    t.match(JSON.parse(done.stdout), { resumed: true });
    t.ok(await served.disabled());
    t.equal((await cldd('verify', backups)).code, EXIT.DONE);

    const to = join(folder, 'restored');
    const restore = ['restore', backups, '--to', to];
    const mark = `${to}.restoring`;
    const early = [after(200), () => existsSync(mark)];
    for (const due of early) await killWhen([...restore, '--rate', '64M', '--yes'], due);
    const marked = (): boolean =>
      existsSync(mark) && readFileSync(mark, 'utf8').match(/"frames":[1-9]/) !== null;
    t.ok(
      await killWhen([...restore, '--rate', '80M', '--yes'], marked),
      'killed after its first durable point',
    );
    const resumed = await cldd(...restore, '--json');
    t.equal(resumed.code, EXIT.DONE, 'it needs no --yes to go on');
    t.match(JSON.parse(resumed.stdout), { resumed: true });
    t.notOk(existsSync(mark), 'nothing is left behind');
    t.ok(readFileSync(to).equals(expected), 'the image as it was when the slave was enabled');
    t.equal((await cldd(...restore)).code, EXIT.REFUSED, 'what is finished is not gone on with');

    // Onto a partition, whose mark is in the folder of the backup.
    const other = join(folder, 'other');
    await succeed(PROGRAM, ['init', other, '--size', '320M'], { env });
    const onto = ['restore', backups, '--to', other, '--yes'];
    const markOf = (): string | undefined =>
      readdirSync(backups).find((name) => name.startsWith('.restoring-'));
    const begun = (): boolean => {
      const name = markOf();
      return name !== undefined && /"frames":[1-9]/.test(readFileSync(join(backups, name), 'utf8'));
    };
    t.ok(await killWhen([...onto, '--rate', '80M'], begun));
    const again = await cldd(...onto, '--json');
    t.equal(again.code, EXIT.DONE, again.stderr);
    t.match(JSON.parse(again.stdout), { resumed: true, kind: 'partition' });
    t.equal(markOf(), undefined);
    await served.daemon.end();
    await served.serve(other);
    t.ok((await served.image()).equals(expected), 'the master of another partition');

    const shown = await run(
      'script',
      ['-qec', `${PROGRAM} restore ${backups} --to ${to} --yes`, '/dev/null'],
      { env },
    );
    t.match(
      shown.stdout,
      /\r\S[^\r\n]*restoring to [^\r\n]* \[#*-*\] \d+ % of |\rrestoring to [^\r\n]* \[#*-*\] \d+ % of /,
      'a bar on a terminal',
    );
    const piped = await cldd(...restore, '--yes', '--json');
    t.match(JSON.parse(piped.stderr.trim().split('\n').at(-1) ?? ''), { progress: { what: /restoring/ } });
    t.equal((await cldd(...restore, '--yes', '--quiet')).stderr, '');
  },
);
