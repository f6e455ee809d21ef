/** A lock in all that a file system and other processes may answer meanwhile, within this process. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs, {
  existsSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createHash, randomUUID } from 'node:crypto';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import t from 'tap';
import { LOCK_FOLDERS, takeLock, takeUuidLock } from '../../src/cow/lock.js';
import { during, failure } from './fs-doubles.js';

const UUID = 'c1dd0000-0000-0000-0000-00000000000b';
const BUSY = { code: 'PARTITION_BUSY' };
const BOOT = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
const folder = mkdtempSync(join(tmpdir(), 'cldd-lock-'));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
let places = 0;

/** A folder of its own, and a path in it for a lock. */
function place(): { folder: string; path: string } {
  const own = join(folder, `place-${places++}`);
  fs.mkdirSync(own);
  return { folder: own, path: join(own, 'lock') };
}

/** Opening certain paths fails. */
function unopenable(isMeant: (path: string) => boolean, code: string): Partial<typeof fs> {
  const { openSync } = fs;
  return {
    openSync: (path, flags, mode) => {
      if (isMeant(String(path))) throw failure(code);
      return openSync(path, flags, mode);
    },
  };
}

/** What is opened from a certain path can't be read. */
function unreadable(path: string, code: string): Partial<typeof fs> {
  const { openSync, readSync } = fs;
  let its: number | undefined;
  return {
    openSync: (file, flags, mode) => {
      const fd = openSync(file, flags, mode);
      its = file === path ? fd : undefined;
      return fd;
    },
    readSync: ((...given: Parameters<typeof readSync>) => {
      if (given[0] === its) throw failure(code);
      return readSync(...given);
    }) as typeof readSync,
  };
}

/** Linking and changing modes fails, as on FAT. */
const refused = (code: string) => (): never => {
  throw failure(code);
};
const NO_LINKS: Partial<typeof fs> = { linkSync: refused('EPERM'), chmodSync: refused('EPERM') };

/** What a process that is gone left in its lock. */
const gone = (tag = 'x'): string => `${spawnSync('true').pid} 1 ${BOOT} ${tag}\n`;

/** What a process that lives has in its lock: by its id and the moment it started. */
function livingHolder(pid = process.pid): string {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return `${pid} ${fields[19]} ${BOOT} another-instance\n`;
}

/** The lock whose holder alone may replace that of another one. */
const rightAfter = (path: string, holder: string): string =>
  `${path}.after-${createHash('sha256').update(holder).digest('hex').slice(0, 16)}`;

void t.test('A lock is held by one, until it is given back, and nothing else is left there', (t) => {
  for (const doubles of [{}, NO_LINKS]) {
    const { folder, path } = place();
    during(doubles, () => {
      const lock = takeLock(path, 'the place');
      t.throws(() => takeLock(path, 'the place'), {
        ...BUSY,
        message: new RegExp(`process ${process.pid};`),
      });
      t.same(readdirSync(folder), ['lock']);
      lock.release();
      t.same(readdirSync(folder), []);
      const next = takeLock(path, 'the place');
      rmSync(path);
      writeFileSync(path, 'of somebody else');
      next.release();
      t.ok(existsSync(path), 'what is not ours stays');
    });
  }
  t.end();
});

void t.test(
  'The lock of a process that is gone is replaced: killed, of another boot, or a zombie',
  async (t) => {
    const parent = spawn('sh', ['-c', 'sleep 0.5 & echo $!; exec sleep 60'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [said] = (await once(parent.stdout, 'data')) as [Buffer];
    const zombie = Number(said);
    const stat = (): string[] => readFileSync(`/proc/${zombie}/stat`, 'utf8').split(') ')[1].split(' ');
    while (stat()[0] !== 'Z') await new Promise((resolve) => setTimeout(resolve, 5));
    for (const [what, holder] of [
      ['killed', gone()],
      ['another boot', `${process.pid} 1 another-boot x\n`],
      ['an id that is used again', `${process.pid} 1 ${BOOT} x\n`],
      ['a zombie', `${zombie} ${stat()[19]} ${BOOT} x\n`],
      ['nonsense', 'nonsense'],
    ]) {
      const { folder, path } = place();
      writeFileSync(path, holder);
      const lock = takeLock(path, 'the place');
      t.same(readdirSync(folder), ['lock'], what);
      t.throws(() => takeLock(path, 'the place'), BUSY);
      lock.release();
    }
    const ended = once(parent, 'close');
    parent.kill();
    await ended;
  },
);

void t.test(
  'Somebody who died while he replaced a dead one is replaced himself, but not without end',
  (t) => {
    for (const deaths of [4, 5]) {
      const { folder, path } = place();
      let name = path;
      for (let death = 0; death < deaths; death++) {
        const holder = gone(String(death));
        writeFileSync(name, holder);
        name = rightAfter(name, holder);
      }
      if (deaths === 5) t.throws(() => takeLock(path, 'the place'), BUSY);
      else {
        takeLock(path, 'the place').release();
        t.same(readdirSync(folder), []);
      }
    }
    t.end();
  },
);

void t.test('Who comes to replace a dead one after another did finds that one, and lets it be', (t) => {
  const { folder, path } = place();
  writeFileSync(path, gone());
  const living = livingHolder();
  const { linkSync } = fs;
  const doubles: Partial<typeof fs> = {
    linkSync: (from, to) => {
      linkSync(from, to);
      // He has the right now; the one before him has used it.
      if (basename(String(to)).startsWith('lock.after-')) writeFileSync(path, living);
    },
  };
  during(doubles, () => t.throws(() => takeLock(path, 'the place'), BUSY));
  t.equal(readFileSync(path, 'utf8'), living);
  t.same(readdirSync(folder), ['lock']);
  t.end();
});

void t.test('A lock that is given back between two looks is taken', (t) => {
  const { path } = place();
  const { linkSync } = fs;
  let tries = 0;
  const doubles: Partial<typeof fs> = {
    linkSync: (from, to) => {
      if (tries++ === 0) throw failure('EEXIST');
      linkSync(from, to);
    },
  };
  during(doubles, () => takeLock(path, 'the place').release());
  t.equal(tries, 2);
  t.end();
});

void t.test(
  'Without links: one that is being made is waited for, and one that came to nothing is not',
  (t) => {
    const { path } = place();
    const text = livingHolder();
    writeFileSync(path, '');
    const { readSync } = fs;
    let looks = 0;
    const filling = ((...given: Parameters<typeof readSync>) => {
      const count = readSync(...given);
      if (count === 0 && ++looks === 3) writeFileSync(path, text);
      return count;
    }) as typeof readSync;
    const now = performance.now.bind(performance);
    t.teardown(() => (performance.now = now));
    // In a process that has lived for a while.
    performance.now = () => now() + 60_000;
    during({ ...NO_LINKS, readSync: filling }, () => t.throws(() => takeLock(path, 'the place'), BUSY));
    t.equal(looks, 3);
    writeFileSync(path, '');
    performance.now = () => now() + 3000 * ++looks;
    during(NO_LINKS, () => takeLock(path, 'the place').release());
    performance.now = now;
    // Made, and before its first byte another one took it for dead.
    const { writeFileSync: write } = fs;
    let stolen = false;
    const doubles: Partial<typeof fs> = {
      ...NO_LINKS,
      writeFileSync: (file, data, options) => {
        write(file, file === path && !stolen ? text : data, options);
        stolen ||= file === path;
      },
    };
    during(doubles, () => t.throws(() => takeLock(path, 'the place'), BUSY));
    t.ok(stolen);
    t.end();
  },
);

void t.test('What the system refuses is told, and leaves no lock', (t) => {
  const { chmodSync, unlinkSync, writeFileSync: write } = fs;
  const { folder, path } = place();
  const cases: readonly (readonly [what: string, doubles: Partial<typeof fs>, code: string])[] = [
    ['link', { linkSync: refused('EIO') }, 'EIO'],
    ['link in a file system that is read-only', { linkSync: refused('EROFS') }, 'PARTITION_NOT_PERMITTED'],
    ['chmod', { chmodSync: refused('EIO') }, 'EIO'],
    ['a look at the holder', { linkSync: refused('EEXIST'), ...unopenable((p) => p === path, 'EIO') }, 'EIO'],
    [
      'making it where there are no links',
      {
        ...NO_LINKS,
        writeFileSync: (file, data, options) => {
          if (file === path) throw failure('ENOSPC');
          write(file, data, options);
        },
      },
      'ENOSPC',
    ],
  ];
  for (const [what, doubles, code] of cases) {
    during(doubles, () => t.throws(() => takeLock(path, 'the place'), { code }, what));
    t.same(readdirSync(folder), [], what);
  }
  writeFileSync(path, gone());
  during(unreadable(path, 'EIO'), () => t.throws(() => takeLock(path, 'the place'), { code: 'EIO' }));
  t.same(readdirSync(folder), ['lock'], 'nor takes one away');
  const stuck: Partial<typeof fs> = {
    unlinkSync: (file) => {
      if (String(file).includes('.after-')) throw failure('EIO');
      unlinkSync(file);
    },
  };
  during(stuck, () => t.throws(() => takeLock(path, 'the place'), { code: 'EIO' }, 'taking away the right'));
  t.equal(fs.chmodSync, chmodSync);
  t.end();
});

void t.test('A link in the place of a lock is not followed', (t) => {
  const { folder, path } = place();
  symlinkSync(join(folder, 'elsewhere'), path);
  t.throws(() => takeLock(path, 'the place'), { code: 'PARTITION_NOT_PERMITTED', message: /ELOOP/ });
  t.same(readdirSync(folder), ['lock']);
  t.end();
});

void t.test('A process that ends while it is looked at is gone', (t) => {
  const { path } = place();
  writeFileSync(path, livingHolder(1));
  t.throws(() => takeLock(path, 'the place'), { ...BUSY, message: /process 1;/ });
  during(unreadable('/proc/1/stat', 'ESRCH'), () => takeLock(path, 'the place').release());
  t.end();
});

void t.test('Who hides behind hidepid is taken for alive', (t) => {
  const { path } = place();
  writeFileSync(path, `1 1 ${BOOT} hidden\n`);
  const hiding = unopenable((file) => file === '/proc/1/stat', 'ENOENT');
  const kill = process.kill.bind(process);
  t.teardown(() => (process.kill = kill));
  process.kill = refused('EPERM');
  during(hiding, () => t.throws(() => takeLock(path, 'the place'), { ...BUSY, message: /process 1;/ }));
  process.kill = refused('ESRCH');
  during(hiding, () => takeLock(path, 'the place').release());
  process.kill = kill;
  t.end();
});

void t.test('Without /proc no lock is taken, since nobody could tell later that its holder lives', (t) => {
  const { folder, path } = place();
  during(
    unopenable((file) => file.startsWith('/proc/'), 'ENOENT'),
    () =>
      t.throws(() => takeLock(path, 'the place'), { code: 'PARTITION_NOT_PERMITTED', message: /mount it/ }),
  );
  t.same(readdirSync(folder), []);
  // A sandbox may have it without this file.
  during(
    unopenable((file) => file.endsWith('boot_id'), 'ENOENT'),
    () => {
      const lock = takeLock(path, 'the place');
      t.throws(() => takeLock(path, 'the place'), BUSY, 'without the id of the boot it holds all the same');
      lock.release();
    },
  );
  t.end();
});

void t.test('A folder that can not be looked into does not count as one without locks', (t) => {
  const [first, second] = [place(), place()];
  const { readdirSync: list } = fs;
  const doubles = {
    readdirSync: (path: string) => {
      if (path === second.folder) throw failure('EACCES');
      return list(path);
    },
  } as unknown as Partial<typeof fs>;
  during(doubles, () =>
    t.throws(() => takeUuidLock(UUID, 'the partition', [first.folder, second.folder]), {
      code: 'PARTITION_NOT_PERMITTED',
      message: /EACCES/,
    }),
  );
  t.same(readdirSync(first.folder), [], 'what was taken is given back');
  t.end();
});

void t.test(
  'A folder for locks is made for all users, whatever the umask; one of others is used as it is',
  (t) => {
    const { folder: parent } = place();
    const own = `${UUID}.${String(process.getuid?.())}`;
    const locks = join(parent, 'locks');
    const before = process.umask(0o077);
    t.teardown(() => process.umask(before));
    const lock = takeUuidLock(UUID, 'the partition', [locks]);
    t.equal(fs.statSync(locks).mode & 0o7777, 0o1777);
    t.same(readdirSync(locks), [own]);
    t.equal(fs.statSync(join(locks, own)).mode & 0o777, 0o644, 'others have to see who holds it');
    lock.release();
    const { chmodSync, statSync } = fs;
    const foreign = {
      statSync: (path: string) => Object.assign(statSync(path), { uid: 4711, mode: 0o40777 }),
      chmodSync: (path: string, mode: number) => {
        if (path === locks) throw failure('EPERM');
        chmodSync(path, mode);
      },
    } as unknown as Partial<typeof fs>;
    during(foreign, () => takeUuidLock(UUID, 'the partition', [locks]).release());
    const nowhere = [join(parent, 'no/where'), join(parent, 'no/place')];
    t.throws(() => takeUuidLock(UUID, 'the partition', nowhere), {
      code: 'PARTITION_NOT_PERMITTED',
      message: `none of the folders for locks (${nowhere.join(', ')}) can be written to: make one, with mode 1777`,
    });
    t.end();
  },
);

void t.test('A lock of another user or folder counts, by its whole name', (t) => {
  const [first, second] = [place().folder, place().folder];
  const own = `${UUID}.${String(process.getuid?.())}`;
  const take = (): void => takeUuidLock(UUID, 'it', [first, second]).release();
  for (const [where, name] of [
    [first, `${UUID}.4711`],
    [first, UUID],
    [second, own],
    [second, `${UUID}.4711`],
  ]) {
    writeFileSync(join(where, name), livingHolder());
    t.throws(take, BUSY, name);
    rmSync(join(where, name));
  }
  for (const name of [`x${UUID}`, `${UUID}.4711.x`, `${UUID}.`, `${UUID}.x`])
    writeFileSync(join(second, name), livingHolder());
  t.doesNotThrow(take);
  const given = { readdirSync: () => [`${UUID}.4711`] } as unknown as Partial<typeof fs>;
  t.doesNotThrow(() => during(given, take), 'one that is given back while it is looked for');
  t.end();
});

void t.test('A process of another user that has the id of a dead holder does not hold its lock', (t) => {
  const { path } = place();
  writeFileSync(path, `1 1 ${BOOT} dead\n`);
  const kill = process.kill.bind(process);
  t.teardown(() => (process.kill = kill));
  process.kill = refused('EPERM');
  takeLock(path, 'the place').release();
  t.end();
});

void t.test('Who may not write there is told what to do, and what came to nothing is taken away', (t) => {
  const { folder, path } = place();
  for (const code of ['EACCES', 'EPERM', 'EROFS'])
    during({ writeFileSync: refused(code) }, () =>
      t.throws(() => takeLock(path, 'the place'), {
        code: 'PARTITION_NOT_PERMITTED',
        message:
          `the lock ${path} of the place can't be taken (${code}): this user may not write there, or a process of ` +
          'another user left it; see that nobody uses the partition, then remove it',
        cause: { code },
      }),
    );
  writeFileSync(path, gone());
  during({ renameSync: refused('EIO') }, () => t.throws(() => takeLock(path, 'the place'), { code: 'EIO' }));
  t.same(readdirSync(folder), ['lock']);
  t.end();
});

void t.test('Locks of partitions are where other versions look for them', (t) => {
  t.strictSame(LOCK_FOLDERS, ['/run/lock/cldd', '/tmp/cldd-locks']);
  const uuid = randomUUID();
  const lock = takeUuidLock(uuid, 'the partition');
  t.ok(LOCK_FOLDERS.some((one) => existsSync(join(one, `${uuid}.${process.getuid?.() ?? ''}`))));
  lock.release();
  t.end();
});

void t.test('A folder for locks that is not there holds none', (t) => {
  const { folder: own } = place();
  const lock = takeUuidLock(UUID, 'the partition', [own, join(own, 'missing')]);
  t.same(readdirSync(own), [`${UUID}.${process.getuid?.() ?? ''}`]);
  lock.release();
  t.end();
});
