/**
 * Linux's initiator on a bad network: packets lost, late, out of order, twice and damaged (sch_netem in the guest's own
 * kernel), damage that TCP's checksum does not see (a proxy), and one of two paths cut under a mounted ext4.
 * GUEST_LONG=1 runs it; it takes minutes.
 */
import t from 'tap';
import { BadNetwork } from '../../test/soak/proxy.js';
import { Cldd } from '../support/cldd.js';
import { needing } from '../support/clients.js';
import { randomFrom } from '../rfc7143/fuzz.js';
import { Guest, HOST_ADDRESS } from './guest.js';
import { Proxy } from './proxy.js';

const NAME = 'iqn.2025-01.org.example:network';
const LONG = process.env['GUEST_LONG'] === '1';
const WRITTEN_MIB = 6;
const SLOWLY = { timeoutMs: 600_000 };
const CORRUPT_PERMILLE = 10;
/** Damage by the proxy is drawn by lot; the data cross until it has come. */
const ROUNDS_MAX = 20;
/** How long Linux waits for a path before it fails what is on it. */
const REPLACEMENT_SECONDS = 3;
const PATHS = 'for d in /sys/class/scsi_disk/*:0/device/block/*; do cat $d/dev; done';
const needs = LONG
  ? needing('qemu-system-x86_64', 'busybox', 'iscsid', 'dmsetup', 'tc', 'apt-get', 'xz')
  : { skip: 'npm run guests runs it (minutes)' };

const FAULTS = [
  ['3 % of packets are lost', 'loss 3%'],
  ['packets are 20 ms late, and out of order', 'delay 20ms 15ms reorder 30% 50%'],
  ['1 % of packets are damaged and 1 % come twice', 'corrupt 1% duplicate 1%'],
  ['all of it at once', 'loss 1% delay 10ms 8ms reorder 20% corrupt 1% duplicate 1%'],
] as const;

/** Data as they went out and as they come back, past the page cache. */
const ROUND_TRIP = `
  dd if=/tmp/data of=/dev/sda bs=64k oflag=direct conv=fsync 2> /dev/null
  sha256sum < /tmp/data
  dd if=/dev/sda bs=64k count=${WRITTEN_MIB * 16} iflag=direct 2> /dev/null | sha256sum`;

t.setTimeout(3_600_000);

void t.test(`a bad network changes nothing, with digests on`, needs, async (t) => {
  const cldd = await Cldd.start({ advertiseHost: HOST_ADDRESS, sizeMiB: 64 });
  t.teardown(() => cldd.stop());
  const network = new BadNetwork(cldd.port, randomFrom(1));
  const port = await network.start();
  t.teardown(() => network.close());
  const guest = await Guest.boot({ name: NAME, initiatorName: NAME });
  t.teardown(() => guest.stop());
  const node = `iscsiadm -m node -T ${cldd.target} -p ${HOST_ADDRESS}:${port}`;
  await guest.succeed(
    `
    while read -r module; do insmod /modules/$module.ko 2> /dev/null || true; done < /modules/all
    ${node} -o new > /dev/null
    for digest in HeaderDigest DataDigest; do
      ${node} -o update -n node.conn[0].iscsi.$digest -v CRC32C
    done
    ${node} --login > /dev/null`,
    SLOWLY,
  );
  await guest.until('[ -e /dev/sda ]', 60_000);
  const crossing = async (): Promise<void> => {
    const sums = await guest.succeed(
      `dd if=/dev/urandom of=/tmp/data bs=1M count=${WRITTEN_MIB} 2> /dev/null\n${ROUND_TRIP}`,
      SLOWLY,
    );
    const [written, read] = sums.trim().split('\n');
    t.equal(read, written, 'the data are right');
  };
  // Busybox has a tc of its own, which its shell prefers, and which knows no netem.
  for (const [what, fault] of FAULTS) {
    await guest.succeed(
      `/bin/tc qdisc del dev eth0 root 2> /dev/null || true\n/bin/tc qdisc add dev eth0 root netem ${fault}`,
    );
    await crossing();
    const dropped = await guest.succeed('/bin/tc -s qdisc show dev eth0');
    t.match(dropped, /qdisc netem/, what);
    t.comment(`${what}: ${dropped.replaceAll(/\s+/g, ' ')}`);
  }
  await guest.succeed('/bin/tc qdisc del dev eth0 root');
  network.corruptPermille = CORRUPT_PERMILLE;
  for (let n = 0; n < ROUNDS_MAX && network.corrupted < 3; n++) await crossing();
  network.heal();
  t.ok(network.corrupted > 0, `${network.corrupted} bits were turned behind TCP's back`);
  await crossing();
  t.match(await guest.succeed('dmesg'), /detected conn error/, 'the initiator noticed, and came back');
  t.notMatch(await guest.succeed('dmesg'), /I\/O error/);
  await guest.succeed(`${node} --logout`, SLOWLY);
});

void t.test('of two paths one is cut under a mounted ext4 in mid-write, and comes back', needs, async (t) => {
  const cldd = await Cldd.start({ advertiseHost: HOST_ADDRESS, sizeMiB: 128, portals: 2 });
  t.teardown(() => cldd.stop());
  const cables = [new Proxy(), new Proxy()] as const;
  for (const [index, cable] of cables.entries()) {
    cable.to = cldd.ports[index] ?? 0;
    await cable.start();
    t.teardown(() => cable.cut());
  }
  const guest = await Guest.boot({ name: NAME, initiatorName: NAME });
  t.teardown(() => guest.stop());
  const node = `iscsiadm -m node -T ${cldd.target}`;
  await guest.succeed(
    `
    while read -r module; do insmod /modules/$module.ko 2> /dev/null || true; done < /modules/all
    ${cables.map((cable) => `${node} -p ${HOST_ADDRESS}:${cable.port} -o new > /dev/null`).join('\n')}
    ${node} -o update -n node.session.timeo.replacement_timeout -v ${REPLACEMENT_SECONDS}
    ${node} --login > /dev/null`,
    SLOWLY,
  );
  await guest.until(`[ $(${PATHS} | wc -l) = 2 ]`, 60_000);
  await guest.succeed(
    `
    export DM_DISABLE_UDEV=1
    set -- $(ls -d /sys/class/scsi_disk/*:0/device/block/*)
    dmsetup create both --table "0 $(cat $1/size) multipath 1 queue_if_no_path 0 1 1 round-robin 0 2 1 $(echo $(${PATHS} | sed 's/$/ 1/'))"
    mkfs.ext4 -q /dev/mapper/both && mount -t ext4 /dev/mapper/both /mnt
    dd if=/dev/urandom of=/tmp/data bs=1M count=${WRITTEN_MIB} 2> /dev/null`,
    SLOWLY,
  );
  for (const [index, cable] of cables.entries()) {
    const crossing = cable.carries((WRITTEN_MIB << 20) / 8);
    const writing = guest.run(
      `for n in 1 2 3; do dd if=/tmp/data of=/mnt/${index}-$n bs=64k conv=fsync || exit 1; done; sync`,
      SLOWLY,
    );
    await crossing;
    cable.cut();
    t.match(await writing, { code: 0 }, `path ${index} is cut, and the write goes on by the other`);
    t.match(await guest.succeed('dmsetup status both'), / F 1 /, 'the path has failed');
    await cable.start();
    await guest.until(
      `[ $(grep -l LOGGED_IN /sys/class/iscsi_session/session*/state | wc -l) = 2 ]`,
      120_000,
    );
    // What multipathd does when its checker finds the path again.
    await guest.succeed(
      `for path in $(${PATHS}); do dmsetup message both 0 reinstate_path $path; done`,
      SLOWLY,
    );
  }
  await guest.succeed(
    `
    echo 3 > /proc/sys/vm/drop_caches
    for file in /mnt/*-*; do cmp /tmp/data $file; done
    umount /mnt && e2fsck -fn /dev/mapper/both && dmsetup remove both && ${node} --logout > /dev/null`,
    SLOWLY,
  );
  t.notMatch(
    await guest.succeed('dmesg'),
    /EXT4-fs error|I\/O error on dev dm-|I\/O error, dev dm-|Aborting journal/,
    'the file system never sees an error',
  );
});
