/** A partition as the daemon and the commands have it: what they are told, and what is left behind of it. */
import { closeSync, copyFileSync, existsSync, mkdtempSync, openSync, readdirSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync, writeSync } from 'node:fs'; // prettier-ignore
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { Partition, lockPath } from '../../src/cow/partition.js';
import { RESULT } from '../../src/cow/results.js';
import { BLOCK_BYTES } from '../../src/cow/states.js';
import { FaultyFs } from './faulty-fs.js';

const MIB = 2 ** 20;
const folder = mkdtempSync(join(tmpdir(), 'cldd-partition-'));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;

/** A file with these bytes. */
function file(sizeBytes: number, bytes: readonly (readonly [at: number, bytes: Buffer])[] = []): string {
  const path = join(folder, `file-${files++}`);
  const image = Buffer.alloc(Math.max(0, ...bytes.map(([at, part]) => at + part.length)));
  for (const [at, part] of bytes) part.copy(image, at);
  writeFileSync(path, image);
  truncateSync(path, sizeBytes);
  return path;
}

async function made(sizeBytes = 32 * MIB): Promise<string> {
  const path = file(sizeBytes);
  await Partition.init(path);
  return path;
}

/** What this process holds of a partition: descriptors, and locks beside the file and by uuid. */
function held(path: string, uuid = ''): { descriptors: number; locks: number } {
  const locks = ['/run/lock/cldd', '/tmp/cldd-locks']
    .flatMap((place) => (existsSync(place) ? readdirSync(place) : []))
    .filter((name) => uuid !== '' && name.startsWith(uuid));
  return {
    descriptors: readdirSync('/proc/self/fd').length,
    locks: locks.length + (existsSync(lockPath(path)) ? 1 : 0),
  };
}

function write(partition: Partition, position: number, length = BLOCK_BYTES, value = 1): Promise<number> {
  const data = Buffer.alloc(length, value);
  return new Promise((resolve) => partition.master.writeAsync(position, data, 0, length, resolve));
}

void t.test('init tells what it made, and holds nothing afterwards', async (t) => {
  const path = file(32 * MIB);
  const before = held(path);
  const { uuid, partitionBytes, masterBytes } = await Partition.init(path);
  t.same(held(path, uuid), before);
  t.match(uuid, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  t.equal(partitionBytes, 32 * MIB);
  const partition = await Partition.open(path);
  t.equal(partition.path, path);
  t.equal(partition.uuid, uuid);
  t.equal(partition.serial, uuid.replaceAll('-', '').slice(0, 16));
  t.equal(partition.master.capacityBytes, masterBytes);
  t.same(held(path, uuid), { descriptors: before.descriptors + 2, locks: 2 });
  await partition.close();
  t.same(held(path, uuid), before);
  t.equal(await Partition.probe(path), 'cldd');
  t.same(held(path, uuid), before, 'nor does a probe');
});

void t.test('An init that is refused holds nothing, and only takes away what it made itself', async (t) => {
  const path = file(4 * MIB);
  const before = held(path);
  await t.rejects(Partition.init(path), { code: 'TOO_SMALL' });
  t.same(held(path), before);
  t.ok(existsSync(path), 'the file was there before');
  const thin = join(folder, 'thin');
  await t.rejects(Partition.init(thin, { sizeBytes: 2 ** 42 }), { code: 'NO_SPACE' });
  t.notOk(existsSync(thin));
  const { partitionBytes } = await Partition.init(thin, { sizeBytes: 2 ** 42, thin: true });
  t.equal(partitionBytes, 2 ** 42);
  t.equal(statSync(thin).size, 2 ** 42);
  t.equal(statSync(thin).mode & 0o777, 0o600);
});

void t.test('What is there is named as people call it, and how to erase it', async (t) => {
  const gpt = file(16 * MIB, [
    [510, Buffer.of(0x55, 0xaa)],
    [512, Buffer.from('EFI PART')],
  ]);
  for (const [path, name] of [
    [await made(), 'a cldd partition'],
    [gpt, 'a GPT partition table'],
    [file(16 * MIB, [[510, Buffer.of(0x55, 0xaa)]]), 'an MBR partition table'],
    [file(16 * MIB, [[0, Buffer.from('XFSB')]]), 'xfs'],
  ] as const) {
    const before = held(path);
    await t.rejects(Partition.init(path), {
      code: 'HOLDS_DATA',
      message: `${path} holds ${name}; nothing was changed; say --yes to erase it`,
    });
    await t.rejects(Partition.init(path, { overwrite: false }), { code: 'HOLDS_DATA' });
    t.same(held(path), before);
    await Partition.init(path, { overwrite: true });
    t.equal(await Partition.probe(path), 'cldd');
    t.same(held(path), before);
  }
});

void t.test('An open that is refused holds nothing', async (t) => {
  const nothing = file(16 * MIB);
  const before = held(nothing);
  await t.rejects(Partition.open(nothing), { code: 'NOT_CLDD' });
  t.same(held(nothing), before);
  const path = file(32 * MIB);
  const { uuid } = await Partition.init(path);
  // The superblock can be read, and what it names can't: the lock by uuid is taken by then.
  truncateSync(path, 16 * MIB);
  await t.rejects(Partition.open(path), { code: 'DEVICE_SHRUNK' });
  t.same(held(path, uuid), before);
});

void t.test('A copy beside its original is named, with the uuid that both have', async (t) => {
  const path = await made();
  const copy = join(folder, 'copy');
  copyFileSync(path, copy);
  const partition = await Partition.open(path);
  const message = new RegExp(`${copy} \\(partition ${partition.uuid}\\)`);
  await t.rejects(Partition.open(copy), { code: 'PARTITION_BUSY', message });
  t.notOk(existsSync(lockPath(copy)));
  await partition.close();
});

void t.test('init leaves a file alone that somebody holds, whatever it holds by now', async (t) => {
  const path = await made();
  const partition = await Partition.open(path);
  const fd = openSync(path, 'r+');
  writeSync(fd, Buffer.alloc(MIB));
  closeSync(fd);
  t.equal(await Partition.probe(path), undefined);
  await t.rejects(Partition.init(path), { code: 'PARTITION_BUSY', message: /in use by process/ });
  t.equal(await Partition.probe(path), undefined, 'nothing was made');
  await partition.close();
});

void t.test('What is neither a device nor a file is refused as that', async (t) => {
  const refused = { code: 'NOT_A_PARTITION', message: /\/dev\/null/ };
  await t.rejects(Partition.open('/dev/null'), refused);
  await t.rejects(Partition.init('/dev/null', { overwrite: true }), refused);
  t.ok(existsSync('/dev/null'));
});

void t.test('The lock of a file is hidden beside it, whatever link led there', (t) => {
  const path = file(MIB);
  const link = join(folder, 'link');
  symlinkSync(path, link);
  const expected = join(folder, `.${path.slice(folder.length + 1)}.lock`);
  t.equal(lockPath(path), expected);
  t.equal(lockPath(link), expected);
  t.end();
});

void t.test('The status tells the generation, when it began, and how much has changed since', async (t) => {
  const path = await made();
  const partition = await Partition.open(path);
  const { slave, ...others } = partition.status();
  t.strictSame(slave, {
    enabled: false,
    generation: 0,
    enabledAt: undefined,
    divergedBlocks: 0,
    divergedBytes: 0,
  });
  t.match(others, { path, uuid: partition.uuid, capacityBytes: partition.master.capacityBytes });
  t.ok(partition.master.capacityBytes > 15 * MIB);
  const began = Date.now();
  const answer = await partition.enableSlave();
  const at = Date.parse(answer.enabledAt ?? '');
  t.ok(at >= began && at <= Date.now());
  t.match(answer.enabledAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  t.equal(await write(partition, 0, 3 * BLOCK_BYTES), RESULT.OK);
  t.match(partition.status().slave, { divergedBlocks: 3, divergedBytes: 3 * BLOCK_BYTES });
  const { counters } = partition.status();
  const { dataWrites } = counters;
  await write(partition, 0);
  t.equal(counters.dataWrites, dataWrites, 'a status stays as it was when it was asked for');
  t.equal(partition.status().counters.dataWrites, dataWrites + 1);
  await partition.disableSlave();
  t.match(partition.status().slave, { enabled: false, generation: 1, enabledAt: answer.enabledAt });
  await partition.enableSlave();
  await write(partition, 0, BLOCK_BYTES, 9);
  await partition.rollback();
  const shown = Buffer.alloc(BLOCK_BYTES);
  t.equal(partition.master.read(0, shown, 0, shown.length), RESULT.OK);
  t.equal(shown[0], 1);
  t.match(partition.status().slave, { enabled: true, generation: 2, divergedBlocks: 0 });
  const ranges: unknown[] = [];
  for await (const range of partition.changes(1, { position: 0, end: MIB }).ranges) ranges.push(range);
  t.same(ranges, [{ position: 0, length: 65_536 }]);
  await partition.close();
});

void t.test('A grow tells before what it will do', async (t) => {
  const path = await made();
  const partition = await Partition.open(path);
  t.throws(() => partition.planGrow(), {
    code: 'NOT_GROWN',
    message:
      'the device has 33554432 bytes, the partition uses 33554432: enlarge the device by at least 4 MiB first',
  });
  truncateSync(path, 64 * MIB);
  const before = partition.master.capacityBytes;
  const plan = partition.planGrow();
  t.same(Object.keys(plan).sort(), ['addedBytes', 'capacityBytes']);
  t.ok(plan.addedBytes > 15 * MIB);
  t.equal(plan.capacityBytes, before + plan.addedBytes);
  t.equal(partition.master.capacityBytes, before, 'nothing was done');
  t.same(await partition.grow(), plan);
  t.equal(partition.master.capacityBytes, plan.capacityBytes);
  await partition.close();
});

void t.test('A mounted file system is named, with its place, and what to do', async (t) => {
  const partition = await Partition.open(await made());
  // Two VFAT partitions of an MBR that were not unmounted.
  const image = Buffer.alloc(9 * MIB);
  image.writeUInt16LE(0xaa55, 510);
  [1, 8].forEach((mib, entry) => {
    image[446 + 16 * entry + 4] = 0x0c;
    image.writeUInt32LE((mib * MIB) / 512, 446 + 16 * entry + 8);
    image.write('FAT32', mib * MIB + 82, 'latin1');
    image[mib * MIB + 65] = 1;
  });
  for (let at = 0; at < image.length; at += MIB)
    t.equal(
      await new Promise((resolve) => partition.master.writeAsync(at, image, at, MIB, resolve)),
      RESULT.OK,
    );
  const refused = {
    code: 'MASTER_MOUNTED',
    message:
      'the master holds a file system that is mounted or was not cleanly unmounted ' +
      '(vfat at byte 1048576, vfat at byte 8388608): ' +
      'unmount it on the file server and try again, or ask for a crash-consistent image',
  };
  await t.rejects(partition.enableSlave(), refused);
  await t.rejects(partition.enableSlave({ crashConsistent: false }), refused);
  t.match(partition.status().slave, { enabled: false, generation: 0 });
  t.match(await partition.enableSlave({ crashConsistent: true }), { enabled: true });
  await partition.close();
});

void t.test('Who listens is told once of a failure, and the status tells it from then on', async (t) => {
  const path = await made();
  const faulty = new FaultyFs(path);
  t.teardown(() => faulty.restore());
  const partition = await Partition.open(path);
  const told: Error[] = [];
  partition.onFailure((error) => told.push(error));
  t.equal(partition.status().failed, undefined);
  faulty.begin({ call: 'pwrite', at: 0, persistent: true, answer: 'EIO' });
  t.equal(await write(partition, 0), RESULT.FAILED);
  t.equal(await write(partition, 0), RESULT.FAILED);
  faulty.begin(undefined);
  t.match(told, [{ message: /EIO/ }]);
  t.equal(told.length, 1);
  t.match(partition.status().failed, /EIO/);
  await t.rejects(partition.grow(), { code: 'PARTITION_FAILED' });
  const before = held(path, partition.uuid);
  await partition.close();
  t.match(held(path, partition.uuid), { descriptors: before.descriptors - 2, locks: 0 });
});
