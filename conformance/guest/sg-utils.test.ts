/** What Linux's own SCSI tools see of the target, and that discarded blocks reach the engine. */
import t from 'tap';
import { Cldd } from '../support/cldd.js';
import { needing } from '../support/clients.js';
import { Guest, HOST_ADDRESS } from './guest.js';
import { Initiator } from './initiator.js';

const NAME = 'iqn.2025-01.org.example:sg-utils';

void t.test(
  'sg3-utils, blkdiscard and fstrim against the target',
  needing('qemu-system-x86_64', 'busybox', 'iscsid', 'sg_inq', 'mke2fs', 'apt-get', 'xz'),
  async (t) => {
    const cldd = await Cldd.start({ advertiseHost: HOST_ADDRESS, sizeMiB: 128 });
    t.teardown(() => cldd.stop());
    const guest = await Guest.boot({ name: NAME, initiatorName: NAME });
    t.teardown(() => guest.stop());
    const initiator = new Initiator(guest, cldd);
    await initiator.discover();
    await initiator.login();
    const master = await initiator.disk(0);
    const slave = await initiator.disk(1);
    const { capacityBytes } = await cldd.status();
    const sg = async (command: string): Promise<string> => await guest.succeed(command);

    await t.test('sg_inq and sg_vpd decode every page that is listed', async (t) => {
      const inquiry = await sg(`sg_inq ${master}`);
      t.match(inquiry, /CLDD/);
      t.match(inquiry, /PQual=0 +PDT=0 +RMB=0/);
      t.match(await sg(`sg_inq ${slave}`), /RMB=1/);
      const listed = await sg(`sg_vpd ${master}`);
      t.match(listed, /Device identification/);
      for (const page of ['di', 'ei', 'mpp', 'sp', 'tpc', 'bl', 'bdc', 'lbpv', 'sn']) {
        t.notMatch(await sg(`sg_vpd --page=${page} ${master}`), /malformed|unknown|bad/i, page);
      }
      const limits = await sg(`sg_vpd --page=bl ${master}`);
      t.match(limits, /Optimal unmap granularity: 8 blocks/);
      t.match(limits, /Maximum atomic transfer length: 256 blocks/);
      t.match(await sg(`sg_vpd --page=lbpv ${master}`), /Provisioning type: 2 \(thin/i);
    });

    await t.test('sg_opcodes, sg_modes, sg_logs and sg_luns', async (t) => {
      const opcodes = await sg(`sg_opcodes ${master}`);
      for (const name of ['Read(16)', 'Write(16)', 'Unmap', 'Compare and write', 'Write same(16)'])
        t.ok(opcodes.includes(name), name);
      t.match(await sg(`sg_opcodes --tmf ${master}`), /Abort task/i);
      t.match(await sg(`sg_modes -a ${master}`), /Caching/);
      t.match(await sg(`sg_logs --list ${master}`), /0x15/);
      for (const page of ['0x2', '0x3', '0xc', '0xd', '0x10', '0x15', '0x19', '0x2f'])
        t.notMatch(await sg(`sg_logs --page=${page} ${master}`), /malformed|unable|bad/i, page);
      t.match(await sg(`sg_luns ${master}`), /Lun list length = 16/);
    });

    await t.test('sg_persist reserves, shows and releases', async (t) => {
      await sg(`sg_persist --out --register --param-sark=0xabc ${master}`);
      t.match(await sg(`sg_persist --in --read-keys ${master}`), /0xabc/);
      await sg(`sg_persist --out --reserve --param-rk=0xabc --prout-type=5 ${master}`);
      t.match(await sg(`sg_persist --in --read-reservation ${master}`), /Write Exclusive, registrants only/i);
      t.match(await sg(`sg_persist --in --read-full-status ${master}`), new RegExp(NAME));
      t.match(
        await sg(`sg_persist --in --report-capabilities ${master}`),
        /Persist Through Power Loss Capable ?\(PTPL_C\): 1/,
      );
      await sg(`sg_persist --out --clear --param-rk=0xabc ${master}`);
      t.match(await sg(`sg_persist --in --read-keys ${master}`), /NO registered|no registered/i);
    });

    await t.test('sg_rtpg shows the port group and sg_stpg changes it', async (t) => {
      t.match(await sg(`sg_rtpg --decode ${master}`), /active\/optimized/);
      await sg(`sg_stpg --active ${master}`);
      t.match(await sg(`sg_rtpg --decode ${master}`), /active\/non optimized/);
      await sg(`sg_stpg --optimized ${master}`);
    });

    await t.test('sg_unmap, sg_get_lba_status and sg_write_same', async (t) => {
      await sg(`dd if=/dev/urandom of=${master} bs=64k count=1 2> /dev/null; sync`);
      const status = async (lba: number): Promise<string> =>
        await sg(`sg_get_lba_status --brief --lba=${lba} ${master}`);
      t.match(await status(0), /^0x0+ +0x80 +0/m, 'mapped');
      await sg(`sg_unmap --lba=16 --num=32 --force ${master}`);
      t.match(await status(16), /^0x0+10 +0x20 +1/m, 'unmapped: a hole of 32 blocks');
      await sg(`sg_write_same --16 --unmap --lba=64 --num=8 ${master}`);
      t.match(await status(64), /^0x0+40 +0x8 +1/m);
      t.match(await sg(`sg_readcap --long ${master}`), /lbpme=1, lbprz=1/);
    });

    await t.test('sg_xcopy restores blocks from the slave without carrying them', async (t) => {
      await sg(`dd if=/dev/urandom of=${master} bs=64k count=4 2> /dev/null; sync`);
      const before = await sg(`dd if=${master} bs=64k count=4 iflag=direct 2> /dev/null | sha256sum`);
      await cldd.enableSlave();
      await sg(`dd if=/dev/zero of=${master} bs=64k count=4 oflag=direct 2> /dev/null`);
      await guest.until(`sg_turs ${slave}`, 10_000);
      const node = async (disk: string): Promise<string> =>
        `/dev/${(await sg(`ls /sys/block/${disk.slice(5)}/device/scsi_generic`)).trim()}`;
      await sg(`sg_xcopy if=${await node(slave)} of=${await node(master)} count=512 bs=512`);
      t.equal(await sg(`dd if=${master} bs=64k count=4 iflag=direct 2> /dev/null | sha256sum`), before);
      await cldd.expect(0, 'slave', 'disable');
    });

    await t.test('blkdiscard and fstrim on ext4 reach the engine', async (t) => {
      const holes = async (): Promise<number> => {
        const text = await sg(`sg_get_lba_status --brief --maxlen=65536 --lba=0 ${master}`);
        const unmapped = [...text.matchAll(/^0x[0-9a-f]+ +0x([0-9a-f]+) +1/gm)];
        return unmapped.reduce((sum, [, blocks]) => sum + Number.parseInt(blocks, 16) * 512, 0);
      };
      await sg(`blkdiscard ${master}`);
      t.equal(await holes(), capacityBytes, 'nothing is kept any more');
      await sg(`
        mkfs.ext4 -q -E nodiscard ${master} && mount -t ext4 ${master} /mnt
        dd if=/dev/urandom of=/mnt/big bs=1M count=16 2> /dev/null
        sync`);
      const full = await holes();
      await sg('rm /mnt/big; sync; fstrim /mnt; umount /mnt');
      const trimmed = await holes();
      t.ok(trimmed - full >= 15 * 1024 * 1024, `${full} bytes of holes before fstrim, ${trimmed} after`);
      t.match(await sg(`e2fsck -fn ${master}`), /Pass 5/);
    });

    await initiator.logout();
  },
);
