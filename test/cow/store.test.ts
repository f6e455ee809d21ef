/** How the file or device is opened and made, and what is said when that fails. */
import fs, { constants, mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { FileStore, createFile, readCopies, resizeFile } from '../../src/cow/store.js';
import { during, failure, replaced } from './fs-doubles.js';

const MIB = 2 ** 20;
const folder = mkdtempSync(join(tmpdir(), 'cldd-store-'));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
const path = join(folder, 'file');
writeFileSync(path, '');
truncateSync(path, MIB);

const descriptors = (): string[] => readdirSync('/proc/self/fd');

void t.test(
  'Who only reads opens it once, for reading; who writes has a second one with O_DSYNC',
  async (t) => {
    const { openSync } = fs;
    const opened = async (mode: 'read' | 'write'): Promise<unknown[]> => {
      const flags: unknown[] = [];
      const watched: Partial<typeof fs> = {
        openSync: (file, flag, ...more) => {
          flags.push(flag);
          return openSync(file, flag, ...more);
        },
      };
      await during(watched, () => FileStore.open(path, mode)).close();
      return flags;
    };
    t.same(await opened('read'), [constants.O_RDONLY]);
    t.same(await opened('write'), [constants.O_RDWR, constants.O_RDWR | constants.O_DSYNC]);
  },
);

void t.test('Another file, device or file system behind the path at the second open is refused', (t) => {
  const { fstatSync } = fs;
  const before = descriptors();
  for (const what of ['dev', 'ino', 'rdev'] as const) {
    let looks = 0;
    const doubles = {
      fstatSync: (fd: number) => {
        const stat = fstatSync(fd);
        if (++looks === 3) stat[what]++;
        return stat;
      },
    } as Partial<typeof fs>;
    t.throws(() => during(doubles, () => FileStore.open(path, 'write')), { code: 'PARTITION_BUSY' }, what);
  }
  t.same(descriptors(), before, 'nothing stays open');
  t.end();
});

void t.test('What the system says is told with what to do, and kept as the cause', (t) => {
  for (const [code, told, message] of [
    ['ENOENT', 'NO_SUCH_PARTITION', 'does not exist: check the path'],
    ['EACCES', 'PARTITION_NOT_PERMITTED', "may not be opened for writing (EACCES): check its owner and mode, or run as root"], // prettier-ignore
    ['EBUSY', 'PARTITION_BUSY', 'is in use: it is mounted, or another program (perhaps another cldd) holds it; release it first'], // prettier-ignore
    ['ENXIO', 'PARTITION_UNUSABLE', "can't be opened: ENXIO: injected"],
  ] as const) {
    const doubles: Partial<typeof fs> = {
      openSync: () => {
        throw failure(code);
      },
    };
    const expected = { code: told, message: `${path} ${message}`, cause: { code } };
    t.throws(() => during(doubles, () => FileStore.open(path, 'write')), expected);
  }
  const noPartition = { message: '/dev/null is neither a block device nor a regular file' };
  t.throws(() => FileStore.open('/dev/null', 'read'), noPartition);
  t.end();
});

void t.test('A file is made only with a size, and is open nowhere afterwards', (t) => {
  const fresh = join(folder, 'fresh');
  t.throws(() => createFile(fresh, undefined), {
    code: 'SIZE_NEEDED',
    message: `${fresh} does not exist: give a size to create it as a file`,
  });
  const before = descriptors();
  t.equal(createFile(fresh, MIB), true);
  t.equal(fs.statSync(fresh).size, MIB);
  t.equal(fs.statSync(fresh).mode & 0o777, 0o600, 'for its owner only');
  t.equal(createFile(fresh, 2 * MIB), false, 'what is there stays');
  t.equal(fs.statSync(fresh).size, MIB);
  t.same(descriptors(), before);
  t.end();
});

void t.test('A file may grow to a size, a device can only have it', async (t) => {
  const store = FileStore.open(path, 'write');
  resizeFile(store, path, 2 * MIB);
  t.equal(store.sizeBytes, 2 * MIB);
  const mismatch = (sizeBytes: number): { code: string; message: string } => ({
    code: 'SIZE_MISMATCH',
    message: `${path} has ${2 * MIB} bytes, not ${sizeBytes}: leave the size out to use it as it is`,
  });
  t.throws(() => resizeFile(store, path, MIB), mismatch(MIB));
  Object.defineProperty(store, 'isBlockDevice', { value: true });
  t.doesNotThrow(() => resizeFile(store, path, 2 * MIB));
  t.throws(() => resizeFile(store, path, 3 * MIB), mismatch(3 * MIB));
  t.equal(store.sizeBytes, 2 * MIB);
  await store.close();
});

void t.test(
  'A block device is held alone by who writes, and has the size that the kernel says',
  async (t) => {
    const { fstatSync, openSync, readFileSync } = fs;
    for (const mode of ['read', 'write'] as const) {
      const flags: unknown[] = [];
      const asked: unknown[] = [];
      const before = descriptors();
      const doubles = {
        fstatSync: (fd: number) => {
          const stat = fstatSync(fd);
          // Minor 300 of major 259.
          const rdev = (1 << 20) | (259 << 8) | 44;
          return Object.assign(stat, { rdev, isFile: () => false, isBlockDevice: () => true });
        },
        openSync: (file: string, flag: number) => {
          flags.push(flag);
          return openSync(file, flag);
        },
        readFileSync: (file: string, encoding: 'utf8') => {
          if (!file.startsWith('/sys/')) return readFileSync(file, encoding);
          asked.push(file);
          return '2048\n';
        },
      } as unknown as Partial<typeof fs>;
      const store = during(doubles, () => FileStore.open(path, mode));
      t.equal(store.isBlockDevice, true);
      t.equal(store.sizeBytes, MIB);
      t.same(asked, ['/sys/dev/block/259:300/size']);
      t.same(
        flags,
        mode === 'read'
          ? [constants.O_RDONLY]
          : [constants.O_RDWR, constants.O_RDWR | constants.O_EXCL, constants.O_RDWR | constants.O_DSYNC],
      );
      await store.close();
      t.same(descriptors(), before, 'nothing stays open');
    }
  },
);

void t.test('Of several copies those that can be read count; if none can, the first error is told', (t) => {
  const fails = (what: string) => (): never => {
    throw new Error(what);
  };
  t.same(readCopies([() => 1, fails('one')]), [1, undefined]);
  t.same(readCopies([fails('one'), () => undefined]), [undefined, undefined]);
  t.throws(() => readCopies([fails('one'), fails('two')]), { message: 'one' });
  t.end();
});

void t.test('A transfer that did less than it was asked to goes on where it ended', async (t) => {
  const { readSync, writeSync, read, write } = fs;
  const real = { readSync, writeSync, read, write };
  const store = FileStore.open(path, 'write');
  const most = 100;
  const data = Buffer.from(Array.from({ length: 350 }, (_, index) => index % 251));
  const place = 5000;
  type Answer = (error: Error | null, count?: number) => void;
  /** Each call transfers up to `most` bytes, until `calls` have been made; then it says `last`. */
  const limited = (calls: number, last: Error | 0): Partial<typeof fs> => {
    let made = 0;
    const atOnce =
      (call: typeof fs.readSync) =>
      (fd: number, bytes: Buffer, offset: number, length: number, position: number): number => {
        if (made++ < calls) return call(fd, bytes, offset, Math.min(length, most), position);
        if (last === 0) return 0;
        throw last;
      };
    const later =
      (call: typeof fs.readSync) =>
      (fd: number, bytes: Buffer, offset: number, length: number, position: number, done: Answer): void => {
        if (made++ < calls) {
          const count = call(fd, bytes, offset, Math.min(length, most), position);
          setImmediate(done, null, count);
        } else if (last === 0) setImmediate(done, null, 0);
        else setImmediate(done, last);
      };
    const writes = real.writeSync as typeof fs.readSync;
    const doubles = {
      readSync: atOnce(real.readSync),
      writeSync: atOnce(writes),
      read: later(real.readSync),
      write: later(writes),
    };
    return doubles as unknown as Partial<typeof fs>;
  };
  const shown = Buffer.alloc(400);
  const waited = (start: (done: (error: Error | null) => void) => void): Promise<void> =>
    new Promise((resolve, reject) => start((error) => (error === null ? resolve() : reject(error))));
  const ways: Record<string, () => Promise<void> | undefined> = {
    readSync: () => {
      store.readSync(shown, 20, data.length, place);
      return undefined;
    },
    read: () => waited((done) => store.read(shown, 20, data.length, place, done)),
    writeSync: () => {
      store.writeSync(shown, 20, data.length, place);
      return undefined;
    },
    writeDurablyAtOnce: () => {
      store.writeDurablyAtOnce(data, place);
      return undefined;
    },
    writeDurably: () => waited((done) => store.writeDurably(data, place, done)),
  };
  const run = async (way: string, calls: number, last: Error | 0): Promise<void> => {
    const restore = replaced(limited(calls, last));
    try {
      await ways[way]();
    } finally {
      restore();
    }
  };
  for (const way of Object.keys(ways)) {
    const reads = way.startsWith('read');
    fs.writeFileSync(path, Buffer.alloc(MIB, 9));
    if (reads) {
      const fd = fs.openSync(path, 'r+');
      fs.writeSync(fd, data, 0, data.length, place);
      fs.closeSync(fd);
    }
    shown.fill(9);
    if (!reads) data.copy(shown, 20);
    await run(way, 4, 0);
    const found = reads ? shown : fs.readFileSync(path).subarray(place - 20, place + data.length + 30);
    t.ok(found.equals(Buffer.concat([Buffer.alloc(20, 9), data, Buffer.alloc(30, 9)])), way);
    const message = reads
      ? `the device ends at ${place + most}, inside a read`
      : `the device takes nothing more at ${place + most}`;
    await t.rejects(run(way, 1, 0), { message }, way);
    await t.rejects(run(way, 1, new Error('EIO')), { message: 'EIO' }, way);
  }
  let syncs = 0;
  const counted = {
    fdatasyncSync: () => {
      syncs++;
    },
  };
  during(counted, () => {
    store.syncAtOnce();
  });
  t.equal(syncs, 1);
  await store.close();
});
