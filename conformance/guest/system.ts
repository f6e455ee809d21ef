/**
 * A small Debian on a disc, with systemd as process 1, udev, open-iscsi, and a Debian package of ours installed. It is made
 * of the packages that this host has, with all that they depend on, and boots behind the kernel and modules of the usual
 * guest. Nothing of the host's own configuration goes in.
 */
import fs from 'node:fs/promises';
import path from 'node:path';
import { findProgram } from '../support/paths.js';
import { succeed } from '../support/processes.js';
import { CpioArchive } from './cpio.js';
import { guestImage } from './image.js';
import { AGENT } from './recipe.js';

const PACKAGES = [
  ...['systemd', 'udev', 'open-iscsi', 'mount', 'util-linux', 'e2fsprogs', 'eject'],
  ...['coreutils', 'dash', 'bash', 'grep', 'sed', 'findutils', 'base-files', 'base-passwd', 'libc-bin'],
];
/** Only for maintainer scripts, which don't run. */
const UNNEEDED = new Set(['debconf', 'perl-base', 'dpkg', 'adduser', 'passwd', 'init-system-helpers']);
const DISC_BYTES = 1 << 30;

/** In the place of the usual process 1: goes on with systemd from the first disc. */
const INIT = `#!/bin/sh
export PATH=/sbin:/bin
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
echo 1 > /proc/sys/kernel/printk
while read -r module; do insmod /modules/$module.ko || echo "insmod $module failed"; done < /modules/boot
insmod /modules/virtio_blk.ko
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
until mount -t ext4 /dev/vda /mnt; do usleep 100000; done
for place in dev proc sys; do mount --move /$place /mnt/$place; done
exec switch_root /mnt /lib/systemd/systemd
`;

const FILES: Readonly<Record<string, string>> = {
  'etc/machine-id': '11111111111111111111111111111111\n',
  'etc/hostname': 'files\n',
  'etc/hosts': '127.0.0.1 localhost files\n',
  'etc/nsswitch.conf': 'passwd: files\ngroup: files\nshadow: files\nhosts: files\n',
  'etc/fstab': 'LABEL=backup /backup ext4 nofail 0 0\n',
  agent: AGENT,
  'etc/systemd/system/agent.service': `[Unit]
Description=What runs the commands of the tests
[Service]
ExecStart=/agent
`,
};
const LINKS: Readonly<Record<string, string>> = {
  'etc/systemd/system/default.target': '/lib/systemd/system/multi-user.target',
  'etc/systemd/system/multi-user.target.wants/agent.service': '../agent.service',
  // Nobody logs in at a terminal.
  'etc/systemd/system/serial-getty@ttyS0.service': '/dev/null',
  'etc/systemd/system/getty@tty1.service': '/dev/null',
  'usr/bin/usleep': 'busybox',
};

/** Makes the disc in `folder`, with the package at `deb` installed. */
export async function systemDisc(folder: string, deb: string): Promise<string> {
  const root = path.join(folder, 'root');
  // /bin and the like are links to folders below /usr, which have to be there before what goes through the links.
  const own = ['dev', 'proc', 'sys', 'run', 'tmp', 'mnt', 'root', 'backup', 'srv/files', 'var/tmp'];
  for (const name of [...own, 'usr/bin', 'usr/sbin', 'usr/lib', 'usr/lib64'])
    await fs.mkdir(path.join(root, name), { recursive: true });
  const list = path.join(folder, 'list');
  const owned = await succeed('dpkg', ['-L', ...(await withDependencies(PACKAGES))]);
  const wanted = owned
    .split('\n')
    .filter((name) => /^\/(?!\.$|usr\/share\/(doc|man|locale|info)\/)/.test(name));
  await fs.writeFile(list, `${[...new Set(wanted)].sort().join('\n')}\n`);
  const copy = `tar -C / -cf - --no-recursion --ignore-failed-read -T ${list} | tar -C ${root} -xf -`;
  await succeed('bash', ['-o', 'pipefail', '-c', copy], { timeoutMs: 240_000 });
  for (const [name, content] of Object.entries(FILES)) {
    await fs.mkdir(path.dirname(path.join(root, name)), { recursive: true });
    await fs.writeFile(path.join(root, name), content, { mode: name === 'agent' ? 0o755 : 0o644 });
  }
  for (const [name, target] of Object.entries(LINKS)) {
    await fs.mkdir(path.dirname(path.join(root, name)), { recursive: true });
    await fs.rm(path.join(root, name), { force: true });
    await fs.symlink(target, path.join(root, name));
  }
  for (const name of ['passwd', 'group'])
    await fs.copyFile(path.join(root, `usr/share/base-passwd/${name}.master`), path.join(root, 'etc', name));
  await addProgram(root, process.execPath, 'node');
  await addProgram(root, findProgram('busybox') ?? '', 'busybox');
  await succeed('ldconfig', ['-r', root]);
  await install(root, deb);
  const disc = path.join(folder, 'system');
  await fs.writeFile(disc, '');
  await fs.truncate(disc, DISC_BYTES);
  await succeed('mke2fs', ['-q', '-t', 'ext4', '-d', root, disc], { timeoutMs: 240_000 });
  await fs.rm(root, { recursive: true });
  return disc;
}

/** Boots what systemDisc made: the usual guest's, with another process 1. */
export async function systemInitramfs(folder: string): Promise<string> {
  const { initramfs } = await guestImage();
  const archive = new CpioArchive();
  archive.file('init', INIT, true);
  const made = path.join(folder, 'initramfs');
  await fs.writeFile(made, Buffer.concat([await fs.readFile(initramfs), archive.finish()]));
  return made;
}

/** As apt would, but with the maintainer scripts on this side. */
async function install(root: string, deb: string): Promise<void> {
  for (const name of ['updates', 'info'])
    await fs.mkdir(path.join(root, 'var/lib/dpkg', name), { recursive: true });
  for (const name of ['status', 'available']) await fs.writeFile(path.join(root, 'var/lib/dpkg', name), '');
  const force = ['--force-depends', '--force-script-chrootless', '--no-triggers'];
  await succeed('dpkg', [`--root=${root}`, ...force, '--install', deb], { timeoutMs: 240_000 });
}

async function addProgram(root: string, file: string, name: string): Promise<void> {
  await fs.copyFile(file, path.join(root, 'usr/bin', name));
  await fs.chmod(path.join(root, 'usr/bin', name), 0o755);
  // A static one has none.
  const libraries = await succeed('sh', ['-c', 'ldd "$1" || true', 'sh', file]);
  for (const [library] of libraries.matchAll(/\/\S+\.so\S*(?= \()/g)) {
    const to = path.join(root, library);
    await fs.mkdir(path.dirname(to), { recursive: true });
    await fs.copyFile(library, to);
  }
}

/** The packages and all that they depend on, as far as it is installed here. */
async function withDependencies(names: readonly string[]): Promise<string[]> {
  const listed = await succeed('dpkg-query', ['-W', '-f', '${Package}\t${Pre-Depends},${Depends}\n']);
  const needs = new Map<string, string>();
  for (const line of listed.split('\n')) {
    const [name = '', text = ''] = line.split('\t');
    needs.set(name, text);
  }
  const found = new Set<string>();
  const visit = (name: string): void => {
    if (found.has(name) || UNNEEDED.has(name)) return;
    found.add(name);
    for (const alternatives of (needs.get(name) ?? '').split(',')) {
      const any = alternatives.split('|').map((one) => one.replace(/[(:].*/, '').trim());
      const installed = any.find((one) => one !== '' && needs.has(one));
      if (installed !== undefined) visit(installed);
    }
  };
  for (const name of names) if (needs.has(name)) visit(name);
  return [...found];
}
