/** One disk by two portals: Linux's dm-multipath sees the same unit, and goes on when a port group goes away. */
import t from 'tap';
import { Cldd } from '../support/cldd.js';
import { needing } from '../support/clients.js';
import { Guest, HOST_ADDRESS } from './guest.js';

const NAME = 'iqn.2025-01.org.example:multipath';
/** Major and minor numbers of the master's paths, in the order of their ports. */
const PATHS = 'for d in /sys/class/scsi_disk/*:0/device/block/*; do cat $d/dev; done';

void t.test(
  'dm-multipath over two portals (SPC-6 §5.18)',
  needing('qemu-system-x86_64', 'busybox', 'iscsid', 'sg_inq', 'mke2fs', 'dmsetup', 'apt-get', 'xz'),
  async (t) => {
    const cldd = await Cldd.start({ advertiseHost: HOST_ADDRESS, sizeMiB: 128, portals: 2 });
    t.teardown(() => cldd.stop());
    const guest = await Guest.boot({ name: NAME, initiatorName: NAME });
    t.teardown(() => guest.stop());
    const run = async (script: string): Promise<string> => await guest.succeed(script);

    const found = await run(`iscsiadm -m discovery -t sendtargets -p ${HOST_ADDRESS}:${cldd.port}`);
    for (const [index, port] of cldd.ports.entries())
      t.match(found, `${HOST_ADDRESS}:${port},${index + 1} ${cldd.target}`, 'each portal is a group');
    await run('iscsiadm -m node --login');
    await guest.until(`[ $(${PATHS} | wc -l) = 2 ]`, 20_000);
    const disks = (await run('for d in /sys/class/scsi_disk/*:0/device/block/*; do basename $d; done'))
      .trim()
      .split('\n');

    const identities = await Promise.all(disks.map((disk) => run(`sg_vpd --page=di /dev/${disk}`)));
    const naa = identities.map((text) => /0x3[0-9a-f]{15}/.exec(text)?.[0]);
    t.equal(naa[0], naa[1], 'the same unit');
    const ports = identities.map((text) => /Relative target port: (0x\w+)/.exec(text)?.[1]);
    t.strictSame([...ports].sort(), ['0x1', '0x2'], 'by two ports');
    t.match(await run(`sg_rtpg --decode /dev/${disks[0]}`), /group id : 0x1 [^]*group id : 0x2 /);

    // A path is the disk's number and, for the selector, one repetition.
    await run(`
      while read -r module; do insmod /modules/$module.ko 2> /dev/null || true; done < /modules/all
      export DM_DISABLE_UDEV=1
      size=$(cat /sys/block/${disks[0]}/size)
      paths=$(${PATHS} | sed 's/$/ 1/')
      dmsetup create both --table "0 $size multipath 0 0 1 1 round-robin 0 2 1 $(echo $paths)"
      mkfs.ext4 -q /dev/mapper/both && mount -t ext4 /dev/mapper/both /mnt
      dd if=/dev/urandom of=/mnt/before bs=64k count=16 2> /dev/null
      sync`);
    t.match(await run('dmsetup status both'), / A 0 [^]* A 0 /, 'both paths are used');

    const first = disks[ports.indexOf('0x1')];
    const second = disks[ports.indexOf('0x2')];
    await run(`sg_stpg --tp=1 --state=u /dev/${second}`);
    // Whichever command comes first is told: this one, or a write of the file system.
    await guest.run(`sg_turs /dev/${first}`);
    t.match(await run('dmesg'), /Asymmetric access state changed/, 'the other path hears of it');
    t.match(await run(`sg_rtpg --decode /dev/${first}`), /unavailable/, 'and still answers that');
    await run(`
      dd if=/dev/urandom of=/mnt/during bs=64k count=16 2> /dev/null
      sync
      echo 3 > /proc/sys/vm/drop_caches
      (cd /mnt && sha256sum before during > sums)
      sync`);
    t.match(await run('dmsetup status both'), / F 1 /, 'one path has failed, nothing else');

    await run(`sg_stpg --tp=1 --state=0 /dev/${second}`);
    await run(`dmsetup message both 0 reinstate_path $(cat /sys/block/${first}/dev)`);
    await run(`sg_stpg --tp=2 --state=s /dev/${first}`);
    await guest.run(`sg_turs /dev/${second}`);
    await run(`
      echo 3 > /proc/sys/vm/drop_caches
      (cd /mnt && sha256sum -c sums)
      dd if=/dev/urandom of=/mnt/after bs=64k count=4 2> /dev/null
      umount /mnt
      dmsetup remove both
      e2fsck -fn /dev/${first}
      iscsiadm -m node --logout`);
  },
);
