/**
 * What a guest is made of: Debian's own kernel, the modules and programs of an iSCSI host, and the script that is
 * process 1. A change here makes a new image, since the image's name is a hash of all this.
 */

/** Debian's meta package, which depends on the current kernel's package. */
export const KERNEL_META_PACKAGE = 'linux-image-amd64';

/** Loaded at boot in this order, each after what it depends on. */
export const BOOT_MODULES = [
  'virtio_pci',
  'virtio_net',
  'crc32c_generic',
  'sd_mod',
  'sg',
  'iscsi_tcp',
  'ext4',
];

/** In the image for tests that load them. */
export const EXTRA_MODULES = [
  'dm_multipath',
  'dm_round_robin',
  'dm_service_time',
  'scsi_dh_alua',
  'sch_netem',
  'virtio_blk',
  'sr_mod',
];

/** Programs of the host that go in with their libraries, beside busybox. */
export const PROGRAMS = [
  'iscsid',
  'iscsiadm',
  'mke2fs',
  'e2fsck',
  'dumpe2fs',
  'debugfs',
  'blkdiscard',
  'fstrim',
  'dmsetup',
  'tc',
];

/** Every program whose name begins so. */
export const PROGRAM_PREFIX = 'sg_';

/** Packages unpacked for programs that hosts seldom have; they need no library beyond the C library's. */
export const UNPACKED_PACKAGES = [{ package: 'eject', programs: ['eject'] }];

/** Gives way to the real programs above where both exist. */
export const BUSYBOX = 'busybox';

/** Process 1: brings up modules and network, then the agent. Few processes, since each costs time under emulation. */
export const INIT = `#!/bin/sh
export PATH=/sbin:/bin
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
mount -t tmpfs none /run
mkdir -p /run/lock/iscsi /dev/pts /mnt
echo 1 > /proc/sys/kernel/printk
while read -r module; do insmod /modules/$module.ko || echo "insmod $module failed"; done < /modules/boot
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
setsid /agent
poweroff -f
`;

/**
 * The agent: reads "ID SECONDS BASE64-SCRIPT" lines from the second serial port and answers each with
 * "ID CODE STDOUT-BYTES STDERR-BYTES" and the two outputs.
 */
export const AGENT = `#!/bin/sh
exec 0<>/dev/ttyS1 1>&0
stty raw -echo
echo ready
while read -r id seconds script; do
  echo "$script" | base64 -d > /run/script
  timeout -s KILL "$seconds" sh /run/script < /dev/null > /run/out 2> /run/err
  code=$?
  echo "$id $code $(stat -c %s /run/out) $(stat -c %s /run/err)"
  cat /run/out /run/err
done
`;

/** Debian's defaults of open-iscsi apply, save the ones here. */
export const ISCSID_CONF = `iscsid.startup = /sbin/iscsid
node.startup = manual
node.session.timeo.replacement_timeout = 120
node.conn[0].timeo.login_timeout = 15
node.conn[0].timeo.logout_timeout = 15
node.conn[0].timeo.noop_out_interval = 5
node.conn[0].timeo.noop_out_timeout = 5
node.session.scan = auto
`;
