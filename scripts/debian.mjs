/**
 * Debian's programs that the tests use as real clients. Where this may be done (root, apt-get) they are installed;
 * elsewhere the missing ones are named, loudly. In CI a client that is missing is a failure: see clientsRequired.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

/** What the bench compiles its load with, and whom it compares with. */
export const BENCH_PROGRAMS = [
  { program: 'gcc', package: 'gcc' },
  { file: '/usr/include/stdlib.h', package: 'libc6-dev' },
  { file: '/usr/include/iscsi/iscsi.h', package: 'libiscsi-dev' },
  { program: 'tgtd', package: 'tgt' },
  { program: 'istgt', package: 'istgt' },
];

/** Every program that conformance/ runs, and the package that brings it. */
export const TEST_PROGRAMS = [
  { program: 'iscsi-test-cu', package: 'libiscsi-bin' },
  { program: 'qemu-img', package: 'qemu-utils' },
  { program: 'qemu-system-x86_64', package: 'qemu-system-x86' },
  { program: 'busybox', package: 'busybox-static' },
  { program: 'iscsid', package: 'open-iscsi' },
  { program: 'mke2fs', package: 'e2fsprogs' },
  { program: 'debugfs', package: 'e2fsprogs' },
  { program: 'mkfs.xfs', package: 'xfsprogs' },
  { program: 'sg_inq', package: 'sg3-utils' },
  { program: 'dmsetup', package: 'dmsetup' },
  { program: 'tc', package: 'iproute2' },
  { program: 'xz', package: 'xz-utils' },
  { program: 'ldd', package: 'libc-bin' },
  { program: 'setpriv', package: 'util-linux' },
  { program: 'systemd-notify', package: 'systemd' },
  { program: 'python3', package: 'python3-minimal' },
  { program: 'man', package: 'man-db' },
  { program: 'groff', package: 'groff' },
  { program: 'dpkg-deb', package: 'dpkg' },
  { program: 'script', package: 'bsdutils' },
  { program: 'zsh', package: 'zsh' },
  { program: 'restic', package: 'restic' },
  { program: 'borg', package: 'borgbackup' },
  { program: 'partclone.extfs', package: 'partclone' },
  { program: 'fusermount3', package: 'fuse3' },
  { program: 'fish', package: 'fish' },
  { program: 'sfdisk', package: 'fdisk' },
  { file: '/usr/lib/x86_64-linux-gnu/qemu/block-iscsi.so', package: 'qemu-block-extra' },
  ...BENCH_PROGRAMS,
];

/** In CI every client has to be there. */
export function clientsRequired() {
  return process.env.CI !== undefined && process.env.CI !== '' && process.env.CI !== 'false';
}

/**
 * Makes sure that the programs are there: installs the packages of missing ones if this process is root and apt-get
 * exists. Answers what is missing in the end, after saying so on standard error.
 * @param {{ program?: string, file?: string, package: string }[]} wanted
 * @returns {{ program?: string, file?: string, package: string }[]}
 */
export function ensurePackages(wanted = TEST_PROGRAMS) {
  let missing = wanted.filter((entry) => !present(entry));
  if (missing.length > 0 && process.getuid?.() === 0 && findProgram('apt-get') !== undefined) {
    install([...new Set(missing.map((entry) => entry.package))]);
    missing = missing.filter((entry) => !present(entry));
  }
  if (missing.length > 0) {
    const packages = [...new Set(missing.map((entry) => entry.package))].join(' ');
    const names = missing.map((entry) => entry.program ?? entry.file).join(', ');
    const effect = clientsRequired()
      ? 'the tests that use them will fail'
      : 'the tests that use them are SKIPPED';
    process.stderr.write(`Missing: ${names}; ${effect}. As root: apt-get install ${packages}\n`);
  }
  return missing;
}

function install(packages) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  process.stderr.write(`Installing Debian packages for the tests: ${packages.join(' ')}\n`);
  for (const args of [
    ['update', '-q'],
    ['install', '-q', '-y', '--no-install-recommends', ...packages],
  ]) {
    // apt-get's chatter goes to standard error, so that standard output stays the tests' own.
    const done = spawnSync('apt-get', args, { env, stdio: ['ignore', 2, 2], timeout: 600_000 });
    if (done.status !== 0) process.stderr.write(`apt-get ${args[0]} failed\n`);
  }
}

function present(entry) {
  return entry.file === undefined ? findProgram(entry.program) !== undefined : fs.existsSync(entry.file);
}

function findProgram(name) {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin', '/usr/bin', '/bin'];
  return folders.map((folder) => path.join(folder, name)).find((file) => fs.existsSync(file));
}

if (process.argv[1] === import.meta.filename) {
  const missing = ensurePackages();
  process.exitCode = missing.length > 0 && clientsRequired() ? 1 : 0;
}
