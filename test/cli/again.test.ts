/** Backups and restores that are run again when things are not what they were: another medium, another slave, a base that went. */
import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import tap from 'tap';
import { EXIT } from '../../conformance/support/cldd.js';
import { needing } from '../../conformance/support/clients.js';
import { Running, succeed } from '../../conformance/support/processes.js';
import { BACKUP_VERSION, FrameWriter } from '../../src/cli/backup/format.js';
import { Partition } from '../../src/cow/partition.js';
import { PROGRAM, Served, cldd, env, finishedIn, parse, scratch, until } from './support.js';

const folder = scratch('again');
const MIB = 1 << 20;
const CAPACITY_MIB = 72;

/** A full backup of an image whose every MiB holds its number and one more. */
function writeBackup(path: string): void {
  const writer = new FrameWriter();
  const header = {
    ...{ version: BACKUP_VERSION, id: 'a', kind: 'full', base: null, target: 'iqn.2026-01.org.example:x' },
    ...{ uuid: 'b', generation: 1, createdAt: '2026-01-01T00:00:00.000Z', capacityBytes: CAPACITY_MIB * MIB },
  };
  const fd = openSync(path, 'w');
  writeSync(fd, writer.frame('HEAD', 0, 0, Buffer.from(JSON.stringify(header))));
  for (let at = 0; at < CAPACITY_MIB; at++)
    writeSync(fd, writer.frame('DATA', at * MIB, MIB, Buffer.alloc(MIB, at + 1)));
  writeSync(fd, writer.done());
  closeSync(fd);
}

const isRestored = (image: Buffer): boolean =>
  image.length >= CAPACITY_MIB * MIB &&
  Array.from({ length: CAPACITY_MIB }, (_, at) => at).every((at) =>
    image.subarray(at * MIB, (at + 1) * MIB).equals(Buffer.alloc(MIB, at + 1)),
  );

/** Restores, and kills that after its first durable point. */
async function interrupt(args: string[], mark: () => string): Promise<void> {
  const running = new Running(PROGRAM, [...args, '--rate', '48M', '--yes'], { env });
  await until(
    'a durable point',
    () => existsSync(mark()) && /"frames":[1-9]/.test(readFileSync(mark(), 'utf8')),
  );
  await running.end('SIGKILL');
}

async function masterOf(path: string): Promise<Buffer> {
  const partition = await Partition.open(path);
  const bytes = Buffer.alloc(CAPACITY_MIB * MIB);
  for (let at = 0; at < bytes.length; at += MIB) partition.master.read(at, bytes, at, MIB);
  await partition.close();
  return bytes;
}

void tap.test(
  'a restore goes on only onto the medium where it was interrupted',
  { timeout: 400_000 },
  async (t) => {
    const backup = join(folder, 'full.cldd');
    writeBackup(backup);
    const image = join(folder, 'image');
    const onto = ['restore', backup, '--to', image];
    writeFileSync(image, Buffer.alloc(MIB, 0xee));
    await interrupt(onto, () => `${image}.restoring`);
    const half = readFileSync(image);
    t.match(half.toString('latin1', 0, 100), /^cldd: this restore is not finished, run it again\n/);
    t.ok(
      half.subarray(512, MIB).every((byte) => byte === 0),
      'what is half restored has no file system that somebody could mount',
    );
    t.equal(half[5 * MIB], 6, 'though the rest is there');

    rmSync(image);
    writeFileSync(image, '');
    truncateSync(image, CAPACITY_MIB * MIB);
    const mark = readFileSync(`${image}.restoring`);
    t.equal((await cldd(...onto)).code, EXIT.REFUSED, 'made anew, it is not overwritten without --yes');
    const anew = await cldd(...onto, '--yes', '--json');
    t.match(parse(anew.stdout), { resumed: false });
    t.ok(isRestored(readFileSync(image)));

    writeFileSync(image, half);
    writeFileSync(`${image}.restoring`, mark);
    const same = await cldd(...onto, '--json');
    t.equal(same.code, EXIT.DONE, same.stderr);
    t.match(parse(same.stdout), { resumed: true }, 'the same one is gone on with, and needs none');
    t.ok(isRestored(readFileSync(image)));

    const partition = join(folder, 'partition');
    const init = ['init', partition, '--size', '160M'];
    await succeed(PROGRAM, init, { env });
    const toPartition = ['restore', backup, '--to', partition];
    const names = (): string[] => readdirSync(folder).filter((name) => name.startsWith('.restoring-'));
    await interrupt(toPartition, () => join(folder, names()[0] ?? 'none'));
    const begun = await masterOf(partition);
    t.match(begun.toString('latin1', 0, 100), /^cldd: this restore is not finished/, 'what it would serve');
    await succeed(PROGRAM, ['init', partition, '--yes'], { env });
    t.equal((await cldd(...toPartition)).code, EXIT.REFUSED);
    const whole = await cldd(...toPartition, '--yes', '--json');
    t.equal(whole.code, EXIT.DONE, whole.stderr);
    t.match(parse(whole.stdout), { resumed: false, kind: 'partition' });
    t.ok(isRestored(await masterOf(partition)), 'all of it, from the beginning');
    t.same(names(), []);
  },
);

void tap.test('a backup that is run again', { ...needing('qemu-io'), timeout: 400_000 }, async (t) => {
  const served = await Served.start(t, folder);
  const { backups, ask, begin, disabled, write } = served;
  const part = (): string | undefined => readdirSync(backups).find((name) => name.endsWith('.partial'));
  const size = (): number => statSync(join(backups, part() ?? 'none'), { throwIfNoEntry: false })?.size ?? 0;
  const killed = async (...args: string[]): Promise<void> => {
    const copying = begin('backup', '--to', backups, '--rate', '1M', ...args);
    await until('the copy', () => size() > MIB);
    await copying.end('SIGKILL');
  };
  await write(5, '0', '6M');

  await t.test("leaves somebody else's slave alone, whatever it is told", async (t) => {
    await ask('slave', 'enable');
    await killed('--use-enabled');
    const again = await ask('backup', '--to', backups, '--use-enabled', '--json');
    t.equal(again.code, EXIT.DONE, again.stderr);
    t.match(parse(again.stdout), { resumed: true });
    t.notOk(await disabled());
    await ask('slave', 'disable');
  });

  await t.test('begins anew if what it builds on is gone or cut off meanwhile', async (t) => {
    for (const [what, spoil] of [
      ['gone', (path: string) => rmSync(path)],
      ['cut off', (path: string) => truncateSync(path, statSync(path).size - 1)],
    ] as const) {
      t.equal((await ask('backup', '--to', backups, '--json')).code, EXIT.DONE);
      const newest = finishedIn(backups).at(-1) ?? '';
      await write(6, '0', '6M');
      await killed('--incremental');
      for (const name of finishedIn(backups)) if (name !== newest) rmSync(join(backups, name));
      spoil(join(backups, newest));
      const again = await ask('backup', '--to', backups, '--incremental', '--json');
      t.equal(again.code, EXIT.WARNINGS, again.stderr);
      t.match(again.stderr, /the interrupted backup can't go on: /, what);
      t.match(parse(again.stdout), { resumed: false, kind: 'full' });
      t.ok(await disabled(), 'the slave was its own');
      const file = String(parse(again.stdout).file);
      t.equal((await cldd('verify', file)).code, EXIT.DONE);
    }
    await write(7, '0', '6M');
    rmSync(join(backups, finishedIn(backups)[0]));
    await killed('--incremental');
    const sound = await ask('backup', '--to', backups, '--incremental', '--json');
    t.match(parse(sound.stdout), { resumed: true, kind: 'incremental' });
    t.equal(sound.code, EXIT.DONE, 'and says nothing else if all is well');
  });
});
