/** What a device or file may be before it is a partition: what init, open and probe say of it. */
import fs, {
  existsSync,
  linkSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { checkPartition } from '../../src/cow/check-partition.js';
import { takeLock } from '../../src/cow/lock.js';
import { Partition, lockPath } from '../../src/cow/partition.js';
import { RESULT } from '../../src/cow/results.js';
import { failure, replaced } from './fs-doubles.js';

const MIB = 2 ** 20;
const folder = mkdtempSync(join(tmpdir(), 'cldd-devices-'));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;

/** A file with these bytes at these places. */
function holding(bytes: readonly (readonly [at: number, text: string])[], sizeBytes = MIB): string {
  const path = join(folder, `file-${files++}`);
  writeFileSync(path, '');
  truncateSync(path, sizeBytes);
  const fd = fs.openSync(path, 'r+');
  for (const [at, text] of bytes) fs.writeSync(fd, Buffer.from(text, 'latin1'), 0, text.length, at);
  fs.closeSync(fd);
  return path;
}

const EXT = [1080, '\x53\xef'] as const;

void t.test('What a device holds is told by its own mark', async (t) => {
  const sectors = MIB / 512;
  for (const [name, bytes] of [
    ['cldd', [[0, 'CLDDPART']]],
    ['cldd', [[64 * 1024, 'CLDDPART']]],
    ['cldd', [[128 * 1024, 'CLDDPART']]],
    ['cldd', [[192 * 1024, 'CLDDPART']]],
    ['luks', [[0, 'LUKS\xba\xbe']]],
    ['xfs', [[0, 'XFSB']]],
    ['btrfs', [[0x10040, '_BHRfS_M']]],
    [
      'gpt',
      [
        [510, '\x55\xaa'],
        [512, 'EFI PART'],
      ],
    ],
    [
      'gpt',
      [
        [510, '\x55\xaa'],
        [4096, 'EFI PART'],
      ],
    ],
    ['lvm', [[0, 'LABELONE']]],
    ['lvm', [[512, 'LABELONE']]],
    ['lvm', [[1024, 'LABELONE']]],
    ['lvm', [[1536, 'LABELONE']]],
    ['md', [[0, '\xfc\x4e\x2b\xa9']]],
    ['md', [[4096, '\xfc\x4e\x2b\xa9']]],
    ['swap', [[4086, 'SWAPSPACE2']]],
    ['swap', [[65_526, 'SWAPSPACE2']]],
    ['bcache', [[4120, '\xc6\x85\x73\xf6\x4e\x1a\x45\xca']]],
    ['f2fs', [[1024, '\x10\x20\xf5\xf2']]],
    ['jfs', [[32_768, 'JFS1']]],
    ['reiserfs', [[65_588, 'ReIsErFs']]],
    ['reiserfs', [[65_588, 'ReIsEr2Fs']]],
    ['iso9660', [[32_769, 'CD001']]],
    ['squashfs', [[0, 'hsqs']]],
    ['qcow2', [[0, 'QFI\xfb']]],
    ['vmdk', [[0, 'KDMV']]],
    ['ntfs', [[3, 'NTFS    ']]],
    ['exfat', [[3, 'EXFAT   ']]],
    ['vfat', [[54, 'FAT12   ']]],
    ['vfat', [[54, 'FAT16   ']]],
    ['vfat', [[82, 'FAT32   ']]],
    ['ext2', [EXT]],
    ['ext2', [EXT, [1024 + 92, '\xfb'], [1024 + 96, '\x3f\x01']]],
    ['ext3', [EXT, [1024 + 92, '\x04']]],
    ['ext4', [EXT, [1024 + 92, '\x04'], [1024 + 96, '\x40']]],
    ['ext4', [EXT, [1024 + 96, '\x80']]],
    ['ext4', [EXT, [1024 + 96, '\x00\x02']]],
    ['md', [[(sectors - (sectors % 128) - 128) * 512, '\xfc\x4e\x2b\xa9']]],
    ['md', [[Math.floor((sectors - 16) / 8) * 8 * 512, '\xfc\x4e\x2b\xa9']]],
    ['mbr', [[510, '\x55\xaa']]],
    [undefined, []],
  ] as const)
    t.equal(await Partition.probe(holding(bytes)), name, `${name}`);
  // Sizes that are no multiple of 64 KiB, and the first of which it is not among what was read anyway.
  for (const [at, sizeBytes] of [
    [MIB - 65_536, MIB + 5 * 512],
    [262_144, 327_680],
    [MIB - 8192, MIB + 512],
  ])
    t.equal(
      await Partition.probe(holding([[at, '\xfc\x4e\x2b\xa9']], sizeBytes)),
      'md',
      `${at} of ${sizeBytes}`,
    );
  t.equal(await Partition.probe(holding([[0, 'XFSB']], 65_536)), 'xfs', 'a small file');
  t.equal(await Partition.probe(holding([], 32_768)), undefined, 'a small file that holds nothing');
  t.equal(await Partition.probe(join(folder, 'nothing')), undefined);
  await t.rejects(Partition.probe(folder), { code: 'NOT_A_PARTITION' });
});

void t.test('init refuses what it should, and leaves it as it was', async (t) => {
  const ext = holding([EXT], 16 * MIB);
  const before = readFileSync(ext);
  await t.rejects(Partition.init(ext), { code: 'HOLDS_DATA', message: /holds ext2; nothing was changed/ });
  t.ok(readFileSync(ext).equals(before));
  await t.rejects(Partition.init(holding([[510, '\x55\xaa']], 16 * MIB)), {
    message: /an MBR partition table/,
  });
  const path = join(folder, 'new');
  await t.rejects(Partition.init(path), { code: 'SIZE_NEEDED' });
  await t.rejects(Partition.init(path, { sizeBytes: 4 * MIB }), { code: 'TOO_SMALL' });
  t.notOk(existsSync(path), 'what was made for it is gone again');
  await t.rejects(Partition.init(path, { sizeBytes: 2 ** 43 }), { code: 'NO_SPACE', message: /say --thin/ });
  t.notOk(existsSync(path));
  await t.rejects(Partition.init(join(folder, 'no/folder'), { sizeBytes: 16 * MIB }), {
    code: 'NO_SUCH_PARTITION',
  });
  await t.rejects(Partition.init(holding([], 16 * MIB), { sizeBytes: 8 * MIB }), { code: 'SIZE_MISMATCH' });
  await t.rejects(Partition.open(join(folder, 'nothing')), { code: 'NO_SUCH_PARTITION' });
  await t.rejects(Partition.open(folder), { code: 'PARTITION_UNUSABLE' }, 'a folder');
  await t.rejects(Partition.open('/dev/null'), { code: 'NOT_A_PARTITION' });
});

void t.test(
  'init erases on demand, a partition of our own too, and lets a file grow to its size',
  async (t) => {
    const path = holding([EXT], 16 * MIB);
    const { uuid, partitionBytes } = await Partition.init(path, { overwrite: true, sizeBytes: 24 * MIB });
    t.equal(partitionBytes, 24 * MIB);
    t.equal(statSync(path).size, 24 * MIB);
    const again = await Partition.init(path, { overwrite: true });
    t.not(again.uuid, uuid);
    const damaged = holding([[0, 'CLDDPART']], 16 * MIB);
    await Partition.init(damaged, { overwrite: true, sizeBytes: 16 * MIB });
    const partition = await Partition.open(damaged);
    await partition.close();
  },
);

/** Only this path can't be opened, with this error. */
function unopenable(path: string, code: string): () => void {
  const { openSync } = fs;
  return replaced({
    openSync: (asked, flags, mode) => {
      if (asked === path) throw failure(code);
      return openSync(asked, flags, mode);
    },
  });
}

void t.test('An error of the system is told in words, with what to do', async (t) => {
  const path = holding([], 16 * MIB);
  for (const [code, expected, message] of [
    ['EACCES', 'PARTITION_NOT_PERMITTED', /check its owner and mode/],
    ['EPERM', 'PARTITION_NOT_PERMITTED', /EPERM/],
    ['EROFS', 'PARTITION_NOT_PERMITTED', /EROFS/],
    ['EBUSY', 'PARTITION_BUSY', /release it first/],
    ['ENXIO', 'PARTITION_UNUSABLE', /ENXIO: injected/],
  ] as const) {
    const restore = unopenable(path, code);
    await t.rejects(Partition.open(path), { code: expected, message }, code).finally(restore);
  }
  const fresh = join(folder, 'not-made');
  const restore = unopenable(fresh, 'EROFS');
  await t
    .rejects(Partition.init(fresh, { sizeBytes: 16 * MIB }), { code: 'PARTITION_NOT_PERMITTED' })
    .finally(restore);
});

void t.test('A file that can not have its size is not left behind', async (t) => {
  const path = join(folder, 'too-large');
  const restore = replaced({
    ftruncateSync: () => {
      throw failure('EFBIG');
    },
  });
  await t
    .rejects(Partition.init(path, { sizeBytes: 16 * MIB }), { code: 'PARTITION_UNUSABLE', message: /EFBIG/ })
    .finally(restore);
  t.notOk(existsSync(path));
});

void t.test('A path that means another file from one moment to the next is refused', async (t) => {
  const path = holding([], 16 * MIB);
  await Partition.init(path);
  const { openSync } = fs;
  const other = holding([], 16 * MIB);
  const descriptors = (): string[] => readdirSync('/proc/self/fd');
  const before = descriptors();
  let opens = 0;
  const restore = replaced({
    openSync: (asked, flags, mode) => {
      if (asked === path && ++opens === 2) renameSync(other, path);
      return openSync(asked, flags, mode);
    },
  });
  await t
    .rejects(Partition.open(path), { code: 'PARTITION_BUSY', message: /replaced while it was opened/ })
    .finally(restore);
  t.same(descriptors(), before, 'nothing stays open');
});

void t.test('An error of the close is told, and the partition is let go all the same', async (t) => {
  const path = holding([], 16 * MIB);
  await Partition.init(path);
  const partition = await Partition.open(path);
  const { close } = fs;
  const restore = replaced({
    close: ((fd: number, done: (error: Error | null) => void) =>
      close(fd, () => done(failure('EIO')))) as typeof close,
  });
  await t.rejects(partition.close(), { code: 'EIO' }).finally(restore);
  await (await Partition.open(path)).close();
});

void t.test('A partition tells its state, and refuses what it can not do now', async (t) => {
  const path = holding([], 32 * MIB);
  await Partition.init(path);
  const partition = await Partition.open(path);
  t.match(partition.status(), {
    path,
    failed: undefined,
    slave: { enabled: false, enabledAt: undefined, generation: 0 },
  });
  t.match(partition.serial, /^[0-9a-f]{16}$/);
  for (const refused of [partition.disableSlave(), partition.rollback()])
    await t.rejects(refused, { code: 'NOT_ENABLED' });
  const { master, slave } = partition;
  t.same(master.provisioning(master.capacityBytes, MIB), { mapped: false, lengthBytes: 0 }, 'behind the end');
  t.equal(slave.read(0, Buffer.alloc(512), 0, 512), RESULT.ABSENT);
  t.equal(await new Promise((done) => slave.readAsync(0, Buffer.alloc(512), 0, 512, done)), RESULT.ABSENT);
  t.equal(await new Promise((done) => slave.flush(done)), RESULT.ABSENT);
  t.match(await partition.enableSlave(), { enabled: true, generation: 1, divergedBlocks: 0 });
  await t.rejects(partition.enableSlave(), { code: 'ALREADY_ENABLED' });
  t.equal(await new Promise((done) => slave.flush(done)), RESULT.OK);
  t.equal(await new Promise((done) => slave.readAsync(0, Buffer.alloc(0), 0, 0, done)), RESULT.OK);
  t.equal(
    await new Promise((done) => slave.writeAsync(0, Buffer.alloc(512), 0, 512, done)),
    RESULT.WRITE_PROTECTED,
  );
  t.same(
    [slave.write(), slave.unmap(), slave.prepareWrite()],
    [RESULT.WRITE_PROTECTED, RESULT.WRITE_PROTECTED, RESULT.WRITE_PROTECTED],
  );
  t.equal(slave.generation, 1);
  await partition.disableSlave();
  // An ext4 that says that it is mounted.
  const head = Buffer.alloc(4096);
  head.writeUInt16LE(0xef53, 1080);
  head.writeUInt32LE(4, 1024 + 92);
  head.writeUInt32LE(0x44, 1024 + 96);
  t.equal(await new Promise((done) => master.writeAsync(0, head, 0, head.length, done)), RESULT.OK);
  await t.rejects(partition.enableSlave(), { code: 'MASTER_MOUNTED', message: /ext4 at byte 0/ });
  t.match(await partition.enableSlave({ crashConsistent: true }), { enabled: true });
  t.same(partition.changes(2).full, false);
  truncateSync(path, 64 * MIB);
  t.ok((await partition.grow()).addedBytes > 0);
  await partition.close();
  t.match(partition.status().failed, /closed/);
  await t.rejects(partition.rollback(), {
    code: 'PARTITION_FAILED',
    message:
      'the partition failed (the partition is closed) and takes no more writes; check the device, then restart the daemon',
    cause: { message: 'the partition is closed' },
  });
});

void t.test('A check of what is no partition says so, and holds nothing afterwards', async (t) => {
  const path = holding([], 16 * MIB);
  await t.rejects(checkPartition(path), { code: 'NOT_CLDD' });
  await t.rejects(checkPartition(join(folder, 'nothing')), { code: 'NO_SUCH_PARTITION' });
  await Partition.init(path);
  t.match(await checkPartition(path, { repair: true }), { verdict: 'clean', shared: undefined });
  t.strictSame((await checkPartition(path)).notChecked, [], 'who holds it alone can look at all of it');
});

void t.test('What somebody holds, by its path or as the same partition, is checked beside him', async (t) => {
  const path = holding([], 32 * MIB);
  await Partition.init(path);
  const link = join(folder, 'a-second-name');
  linkSync(path, link);
  const lock = takeLock(lockPath(path), path);
  t.match((await checkPartition(path)).shared, `${path} is in use by process`, 'an init, say');
  t.equal((await checkPartition(link)).shared, undefined);
  lock.release();
  const partition = await Partition.open(path);
  for (const one of [path, link]) {
    const beside = await checkPartition(one);
    t.match(beside, { verdict: 'clean', notChecked: [/./, /./, /./] });
    t.match(beside.shared, new RegExp(`^${one}.* is in use by process`));
    await t.rejects(checkPartition(one, { repair: true }), { code: 'PARTITION_BUSY' });
  }
  t.match((await checkPartition(link)).shared, /a-second-name \(partition [0-9a-f-]{36}\) is in use/);
  await partition.close();
  t.equal((await checkPartition(link)).shared, undefined);
});

void t.test('Who may only read a partition has it checked all the same, but not repaired', async (t) => {
  const path = holding([], 32 * MIB);
  await Partition.init(path);
  const { openSync } = fs;
  t.teardown(
    replaced({
      openSync: (file, flags, mode) => {
        if (file === path && Number(flags) & fs.constants.O_RDWR) throw failure('EACCES');
        return openSync(file, flags, mode);
      },
    }),
  );
  t.match(await checkPartition(path), {
    verdict: 'clean',
    shared: /may not be opened for writing/,
    notChecked: [/./, /./, /./],
  });
  await t.rejects(checkPartition(path, { repair: true }), { code: 'PARTITION_NOT_PERMITTED' });
});

void t.test('A block device is checked under the claim of O_EXCL, without a lock beside it', async (t) => {
  const path = holding([], 32 * MIB);
  await Partition.init(path);
  const flags: number[] = [];
  let locks = 0;
  const { openSync, fstatSync, readFileSync: readFile } = fs;
  t.teardown(
    replaced({
      openSync: (file, how, mode) => {
        if (file === path) flags.push(Number(how));
        if (String(file).startsWith(lockPath(path))) locks++;
        return openSync(file, how, mode);
      },
      fstatSync: ((fd: number) => {
        const stat = fstatSync(fd);
        return Object.assign(stat, { isFile: () => false, isBlockDevice: () => true });
      }) as typeof fs.fstatSync,
      readFileSync: ((file: string, how: 'utf8') =>
        file.startsWith('/sys/dev/block/')
          ? String((32 * MIB) / 512)
          : readFile(file, how)) as typeof fs.readFileSync,
    }),
  );
  t.match(await checkPartition(path), { verdict: 'clean', shared: undefined });
  t.ok(flags.includes(fs.constants.O_RDWR | fs.constants.O_EXCL));
  t.equal(locks, 0);
});
