/**
 * A partition is held by one process: by O_EXCL on a block device, a lock on a file, and one on the partition's uuid,
 * which a copy has as well. Locks of processes that are gone don't count, whoever left them.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, copyFileSync, cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs'; // prettier-ignore
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import t from 'tap';
import { takeUuidLock } from '../../src/cow/lock.js';
import { Partition, lockPath } from '../../src/cow/partition.js';

const UUID = 'c1dd0000-0000-0000-0000-00000000000a';
const SIZE = { sizeBytes: 16 << 20 };
const NOBODY = 65_534;
const isRoot = process.getuid?.() === 0;
const folder = mkdtempSync(join(tmpdir(), 'cldd-holding-'));
chmodSync(folder, 0o755);
t.teardown(() => rmSync(folder, { recursive: true, force: true }));

/** The compiled modules where every user may read them. */
const modules = join(folder, 'dist');
mkdirSync(modules);
cpSync(resolve(import.meta.dirname, '../../src'), join(modules, 'src'), { recursive: true });
writeFileSync(join(folder, 'package.json'), '{"type":"module"}');

interface Locker {
  /** What it printed: 'held', or the error's code and message. */
  readonly said: string;
  end: (signal: NodeJS.Signals) => Promise<void>;
}

/** A process of a user that takes the lock and keeps it until it is ended. */
const locker = (user: number, folders: readonly string[]): Promise<Locker> =>
  taker(user, `takeUuidLock(${JSON.stringify(UUID)}, 'the partition', ${JSON.stringify(folders)})`);

/** The same by the call, perhaps with another module loaded before. */
async function taker(user: number, call: string, ...flags: string[]): Promise<Locker> {
  const script = `
    import { takeLock, takeUuidLock } from ${JSON.stringify(join(modules, 'src/cow/lock.js'))};
    try {
      ${call};
      console.log('held');
      setInterval(() => undefined, 1000);
    } catch (error) {
      console.log(error.code + ': ' + error.message);
    }`;
  const env = { ...process.env };
  delete env['NODE_OPTIONS'];
  const child = spawn(
    'setpriv',
    ['--pdeathsig', 'KILL', '--reuid', String(user), '--regid', String(user), '--clear-groups', process.execPath, ...flags, '--input-type=module', '-e', script], // prettier-ignore
    { stdio: ['ignore', 'pipe', 'inherit'], cwd: folder, env },
  );
  const closed = once(child, 'close');
  const [said] = (await once(child.stdout, 'data')) as [Buffer];
  return {
    said: said.toString().trim(),
    end: async (signal) => {
      child.kill(signal);
      await closed;
    },
  };
}

void t.test('A file is held, and so is a copy of it, until it is closed', async (t) => {
  const [path, copy] = [join(folder, 'file'), join(folder, 'copy')];
  await Partition.init(path, SIZE);
  const partition = await Partition.open(path);
  copyFileSync(path, copy);
  for (const other of [path, copy])
    await t.rejects(Partition.open(other), { code: 'PARTITION_BUSY', message: /in use by process/ });
  for (const other of [path, copy])
    await t.rejects(Partition.init(other, { overwrite: true }), { code: 'PARTITION_BUSY' });
  await partition.close();
  const next = await Partition.open(copy);
  await t.rejects(Partition.open(path), { code: 'PARTITION_BUSY' });
  await next.close();
});

void t.test(
  'A device that shrank, or holds something else now, is refused, and nothing is written',
  async (t) => {
    const path = join(folder, 'shrunken');
    await Partition.init(path, SIZE);
    truncateSync(path, SIZE.sizeBytes - 65_536);
    await t.rejects(Partition.open(path), { code: 'DEVICE_SHRUNK', message: /size back/ });
    truncateSync(path, 0);
    truncateSync(path, SIZE.sizeBytes);
    await t.rejects(Partition.open(path), { code: 'NOT_CLDD' });
  },
);

void t.test(
  'A block device is opened with O_EXCL; a loop device of a copy is refused beside it',
  { skip: isRoot && loopWorks() ? false : 'needs root and loop devices' },
  async (t) => {
    const [path, copy] = [join(folder, 'under-loop'), join(folder, 'copy-under-loop')];
    await Partition.init(path, SIZE);
    copyFileSync(path, copy);
    const [device, other] = [attach(path), attach(copy)];
    t.teardown(() => [device, other].forEach((one) => spawnSync('losetup', ['-d', one])));
    const partition = await Partition.open(device);
    await t.rejects(Partition.open(device), {
      code: 'PARTITION_BUSY',
      message: /is in use: it is mounted, or another/,
    });
    await t.rejects(Partition.open(other), { code: 'PARTITION_BUSY', message: /copy of a partition/ });
    await t.rejects(Partition.init(device, { overwrite: true }), {
      code: 'PARTITION_BUSY',
      message: /is in use: it is mounted, or another/,
    });
    await partition.close();
    await (await Partition.open(other)).close();
    // Nor can everybody who may write to a device make files in /dev.
    const lock = lockPath(device);
    mkdirSync(lock);
    try {
      await Partition.init(device, { overwrite: true });
      await (await Partition.open(device)).close();
    } finally {
      rmSync(lock, { recursive: true });
    }
  },
);

void t.test('A lock in another folder counts, as does one of an older version', (t) => {
  const folders = [join(folder, 'run-lock'), join(folder, 'tmp')];
  const held = takeUuidLock(UUID, 'one', [folders[1]]);
  t.throws(() => takeUuidLock(UUID, 'two', folders), { code: 'PARTITION_BUSY' });
  t.same(readdirSync(folders[0]), [], 'what was taken before the look is given back');
  held.release();
  const mine = takeUuidLock(UUID, 'three', folders);
  t.same(readdirSync(folders[0]).length, 1);
  mine.release();
  writeFileSync(join(folders[1], UUID), `${process.pid} 0 another-boot old\n`);
  takeUuidLock(UUID, 'four', folders).release();
  t.throws(() => takeUuidLock(UUID, 'five', [join(folder, 'nowhere', 'locks')]), {
    code: 'PARTITION_NOT_PERMITTED',
  });
  t.end();
});

void t.test(
  'What a daemon of another user left when it was killed hinders nobody; while it lives, it does',
  { skip: isRoot ? false : 'needs root' },
  async (t) => {
    const folders = [join(folder, 'shared')];
    for (const [first, second] of [
      [0, NOBODY],
      [NOBODY, 0],
    ]) {
      const holder = await locker(first, folders);
      t.equal(holder.said, 'held');
      const refused = await locker(second, folders);
      t.match(refused.said, /^PARTITION_BUSY: the partition is in use by process/);
      await refused.end('SIGKILL');
      await holder.end('SIGKILL');
      const next = await locker(second, folders);
      t.equal(next.said, 'held', `user ${second} after user ${first}`);
      await next.end('SIGKILL');
      const again = await locker(first, folders);
      t.equal(again.said, 'held', 'and the first one again');
      await again.end('SIGKILL');
    }
  },
);

void t.test(
  'Where there are no links, as on FAT and exFAT, a lock is held by one all the same',
  { timeout: 120_000 },
  async (t) => {
    const place = join(folder, 'fat');
    mkdirSync(place);
    const path = join(place, 'lock');
    const double = resolve(import.meta.dirname, 'no-links.js');
    const call = `takeLock(${JSON.stringify(path)}, 'the place')`;
    const take = (): Promise<Locker> => taker(process.getuid?.() ?? 0, call, '--import', double);
    for (const round of [1, 2]) {
      const all = await Promise.all([1, 2, 3, 4].map(take));
      t.same(
        all.map(({ said }) => said.split(':')[0]).sort(),
        ['PARTITION_BUSY', 'PARTITION_BUSY', 'PARTITION_BUSY', 'held'],
        `round ${round}: what the one of before left when it was killed is no hindrance`,
      );
      for (const one of all) await one.end('SIGKILL');
    }
    writeFileSync(path, '');
    const next = await take();
    t.equal(next.said, 'held', 'after one that died between the making and the first byte');
    t.same(readdirSync(place), ['lock'], 'and nothing else is left there');
    await next.end('SIGKILL');
  },
);

void t.test(
  'A file in the place of a lock that is none is not waited for',
  { skip: isRoot ? false : 'needs root' },
  (t) => {
    const place = join(folder, 'planted');
    mkdirSync(place);
    spawnSync('mkfifo', [join(place, `${UUID}.${NOBODY}`)]);
    takeUuidLock(UUID, 'one', [place]).release();
    t.pass('a FIFO');
    t.end();
  },
);

function attach(path: string): string {
  const { stdout, stderr, status } = spawnSync('losetup', ['-f', '--show', path], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`losetup: ${stderr}`);
  return stdout.trim();
}

function loopWorks(): boolean {
  const path = join(folder, 'probe');
  writeFileSync(path, Buffer.alloc(1 << 20));
  const { stdout, status } = spawnSync('losetup', ['-f', '--show', path], { encoding: 'utf8' });
  if (status === 0) spawnSync('losetup', ['-d', stdout.trim()]);
  return status === 0;
}
