/** The promise of the slave and of flushed data, shown by qemu's and libiscsi's initiators where no kernel is needed. */
import path from 'node:path';
import t from 'tap';
import { Cldd, EXIT } from '../support/cldd.js';
import { needing } from '../support/clients.js';
import { succeed } from '../support/processes.js';
import { apply, explain, randomImage, randomWrites } from './model.js';
import { readUnit, Writer, writeUnit } from './qemu.js';

const SEEDS = [1, 2, 3];
const QEMU = needing('qemu-img', 'qemu-io');

void t.test('the model finds how many writes an image shows, and refuses any other image', (t) => {
  const base = randomImage(7, 1024 * 1024);
  const writes = randomWrites(7, base.length, 40);
  const count = writes.findIndex(({ kind, length }, index) => index > 10 && kind === 'data' && length > 512);
  const image = apply(base, writes.slice(0, count));
  t.equal(explain(image, base, writes), count);
  t.equal(explain(base, base, writes), 0);
  const { pattern, position } = writes[count];
  const half = Buffer.from(image).fill(pattern, position, position + 512);
  t.equal(explain(half, base, writes), undefined, 'half a write is no write');
  t.equal(explain(half, base, writes, { torn: true }), count);
  half[half.length - 1] ^= 1;
  t.equal(explain(half, base, writes, { torn: true }), undefined, 'one wrong bit is seen');
  t.end();
});

void t.test('under random writes the whole slave stays the master of the moment', QEMU, async (t) => {
  const cldd = await Cldd.start({ sizeMiB: 64 });
  t.teardown(() => cldd.stop());
  const { capacityBytes } = await cldd.status();
  const scratch = path.join(cldd.folder, 'scratch');
  for (const seed of SEEDS) {
    await t.test(`seed ${seed}: enabled at rest`, async (t) => {
      const atEnable = randomImage(seed, capacityBytes);
      await writeUnit(cldd.url('master'), atEnable, scratch);
      await cldd.enableSlave();
      const writes = randomWrites(seed, capacityBytes, 600);
      const writer = new Writer(cldd.url('master'), writes, { flush: false });
      t.teardown(() => writer.kill());
      await writer.reach(1);
      do {
        t.ok(atEnable.equals(await readUnit(cldd.url('slave'), scratch)), 'the slave while writes go on');
      } while (writer.alive);
      await writer.finish();
      t.ok(atEnable.equals(await readUnit(cldd.url('slave'), scratch)), 'the slave after all writes');
      const master = await readUnit(cldd.url('master'), scratch);
      t.ok(apply(atEnable, writes).equals(master), 'the master holds every write');
      await cldd.expect(EXIT.DONE, 'slave', 'disable');
      t.ok(master.equals(await readUnit(cldd.url('master'), scratch)), 'disabling leaves the master alone');
    });

    await t.test(`seed ${seed}: enabled in the middle of writes`, async (t) => {
      const base = await readUnit(cldd.url('master'), scratch);
      const writes = randomWrites(seed + 1000, capacityBytes, 1500);
      const writer = new Writer(cldd.url('master'), writes, { flush: false });
      t.teardown(() => writer.kill());
      await writer.reach(50);
      const before = writer.acknowledged;
      await cldd.enableSlave();
      const slave = await readUnit(cldd.url('slave'), scratch);
      await writer.finish();
      // One write may be under way: as after a power failure, some of its sectors are there and others not.
      const count = explain(slave, base, writes, { torn: true }) ?? -1;
      t.ok(
        count >= before,
        `the slave is the master after ${count} writes, ${before} of them acknowledged before`,
      );
      t.ok(slave.equals(await readUnit(cldd.url('slave'), scratch)), 'and it stays so');
      t.ok(
        apply(base, writes).equals(await readUnit(cldd.url('master'), scratch)),
        'the master holds every write',
      );
      await cldd.expect(EXIT.DONE, 'slave', 'disable');
    });
  }
});

void t.test(
  'SIGKILL loses nothing that was flushed, with the slave enabled and disabled',
  QEMU,
  async (t) => {
    const cldd = await Cldd.start({ sizeMiB: 64 });
    t.teardown(() => cldd.stop());
    const { capacityBytes } = await cldd.status();
    const scratch = path.join(cldd.folder, 'scratch');
    let master = randomImage(0, capacityBytes);
    await writeUnit(cldd.url('master'), master, scratch);
    for (const seed of SEEDS) {
      const enabled = seed % 2 === 1;
      if (enabled) await cldd.enableSlave();
      const base = master;
      const writes = randomWrites(seed + 2000, capacityBytes, 1000);
      const writer = new Writer(cldd.url('master'), writes, { flush: true });
      t.teardown(() => writer.kill());
      await writer.reach(20 * seed);
      await cldd.end('SIGKILL');
      await writer.kill();
      // The last write acknowledged may have been cut off before its flush.
      const flushed = writer.acknowledged - 1;
      await cldd.serve();
      master = await readUnit(cldd.url('master'), scratch);
      const count = explain(master, base, writes, { torn: true }) ?? -1;
      t.ok(count >= flushed, `seed ${seed}: ${count} writes are there, ${flushed} were flushed`);
      t.equal((await cldd.status()).slave.enabled, enabled, 'the slave is as it was');
      if (enabled) {
        t.ok(base.equals(await readUnit(cldd.url('slave'), scratch)), 'and holds what it held');
        await cldd.expect(EXIT.DONE, 'slave', 'disable');
      }
    }
  },
);

void t.test(
  'libiscsi sees a fixed master and a removable slave',
  needing('iscsi-ls', 'iscsi-inq'),
  async (t) => {
    const cldd = await Cldd.start({ sizeMiB: 64 });
    t.teardown(() => cldd.stop());
    const { capacityBytes } = await cldd.status();
    t.equal(
      (await succeed('iscsi-readcapacity16', ['-s', cldd.url('master')])).trim(),
      String(capacityBytes),
    );
    t.match(await succeed('iscsi-inq', [cldd.url('master')]), /DIRECT_ACCESS\s+Removable:0/);
    t.match(
      await succeed('iscsi-inq', [cldd.url('slave')]),
      /DIRECT_ACCESS\s+Removable:1/,
      'also without a medium',
    );
    await cldd.enableSlave();
    t.equal((await succeed('iscsi-readcapacity16', ['-s', cldd.url('slave')])).trim(), String(capacityBytes));
    const listed = await succeed('iscsi-ls', ['--show-luns', `iscsi://127.0.0.1:${cldd.port}`]);
    t.match(listed, `Target:${cldd.target} Portal:127.0.0.1:${cldd.port},1`);
    t.match(listed, /Lun:0 +Type:DIRECT_ACCESS[^]*Lun:1 +Type:DIRECT_ACCESS/);
    for (const unit of ['master', 'slave'] as const) {
      const done = await succeed('iscsi-perf', ['-t', '1', '-m', '8', '-b', '8', '-r', cldd.url(unit)]);
      t.match(done, /iops average [1-9]/, `iscsi-perf reads the ${unit}`);
    }
  },
);
