/**
 * The Debian package under a systemd that is process 1, in a guest of its own: the service and its user, udev's rights and
 * names, the nightly backup and a backup disc that is not there, restarts, the watchdog, a crash of the host between
 * freeze and thaw, and socket activation.
 */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { needing } from '../support/clients.js';
import { ROOT } from '../support/paths.js';
import { succeed } from '../support/processes.js';
import { Guest } from './guest.js';
import { systemDisc, systemInitramfs } from './system.js';

const LONG = process.env['GUEST_LONG'] === '1';
const needs = ['qemu-system-x86_64', 'busybox', 'iscsid', 'mke2fs', 'sfdisk', 'dpkg-deb', 'apt-get', 'xz'];
const asRoot = process.getuid?.() === 0;
const TARGET = 'iqn.2026-01.org.example:files';
const PARTITION = '/dev/disk/by-partlabel/cldd-files';
const MIB = 1 << 20;
const WAIT_MS = 480_000;

const CONFIGURATION = {
  portals: [{ listen: '0.0.0.0:3260' }],
  targets: [{ name: TARGET, partition: PARTITION, access: [{ initiator: '*' }] }],
};
const ISCSI = `iscsiadm -m node -T ${TARGET} -p 127.0.0.1:3260`;

/** The hooks of the nights, and those of the night in which the host crashes. */
const SCRIPTS = {
  freeze: 'umount /srv/files',
  thaw: `mountpoint -q /srv/files || mount /dev/disk/by-path/ip-127.0.0.1:3260-iscsi-${TARGET}-lun-0 /srv/files`,
  'freeze-long': 'touch /root/frozen; sync; sleep 6000',
  note: 'echo thawed >> /root/thawed; sync',
} as const;
/** Emulation is slow: the limit of a night is no matter here. */
const hooks = (freeze: keyof typeof SCRIPTS, thaw: keyof typeof SCRIPTS): string =>
  `--pre /etc/cldd/${freeze} --post /etc/cldd/${thaw} --freeze-limit 6000`;
const NIGHTLY = '--to /backup/files --incremental --compress';

function options(): { skip: string | false; timeout?: number } {
  if (!LONG) return { skip: 'npm run guests runs it (minutes)' };
  if (!asRoot) return { skip: 'only root may make the discs of a Debian' };
  return { ...needing(...needs), timeout: 3_600_000 };
}

void t.test('the Debian package under systemd', options(), async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'cldd-systemd-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const deb = await succeed(process.execPath, ['scripts/deb.mjs', folder], {
    cwd: ROOT,
    env: { ...process.env, CLDD_PREPARED: '1' },
    timeoutMs: 240_000,
  });
  const [disc, initramfs] = [await systemDisc(folder, deb.trim()), await systemInitramfs(folder)];
  const [partitioned, backups] = [join(folder, 'partitioned'), join(folder, 'backups')];
  for (const file of [partitioned, backups]) {
    writeFileSync(file, '');
    truncateSync(file, 96 * MIB);
  }
  await succeed('sh', ['-c', `printf 'label: gpt\\nname=cldd-files\\n' | sfdisk --quiet ${partitioned}`]);
  await succeed('mke2fs', ['-q', '-t', 'ext4', '-L', 'backup', backups]);
  const boot = (): Promise<Guest> =>
    Guest.boot({
      name: 'systemd',
      initiatorName: 'iqn.2026-01.org.example:host',
      memoryMiB: 768,
      discs: [disc, partitioned, backups],
      initramfs,
    });
  let guest = await boot();
  t.teardown(() => guest.stop());
  const show = async (unit: string, property: string): Promise<string> =>
    (await guest.succeed(`systemctl show ${unit} -p ${property} --value`)).trim();
  /** What the journal says goes into the message of a failure. */
  const at = async (script: string): Promise<string> => {
    const done = await guest.run(`set -e\n${script}`, { timeoutMs: WAIT_MS });
    if (done.code === 0) return done.stdout;
    const journal = await guest.run('journalctl -b --no-pager -n 60');
    throw new Error(`${done.code} from ${script}\n${done.stdout}${done.stderr}\n${journal.stdout}`);
  };
  const until = (script: string): Promise<string> => guest.until(script, WAIT_MS);

  await t.test('the service starts as its user, without privileges, when its portals listen', async (t) => {
    t.equal((await at('cat /proc/1/comm')).trim(), 'systemd');
    t.equal((await until(`stat -Lc '%G %a' ${PARTITION}`)).trim(), 'cldd 660', 'the rule of udev');
    const scripts = Object.entries(SCRIPTS).map(
      ([name, text]) =>
        `printf '%s\\n' '#!/bin/sh' '${text}' > /etc/cldd/${name}; chmod 755 /etc/cldd/${name}`,
    );
    await at(`cldd init ${PARTITION}
      echo '${JSON.stringify(CONFIGURATION)}' > /etc/cldd/cldd.yaml
      ${scripts.join('\n')}
      systemctl enable --now cldd`);
    t.equal(await show('cldd', 'ActiveState'), 'active');
    t.match(await show('cldd', 'StatusText'), `serves ${TARGET}`, 'as it told the service manager');
    const status = await at(`cat /proc/$(systemctl show cldd -p MainPID --value)/status`);
    t.match(status, /^CapEff:\s+0+$/m);
    t.match(status, /^NoNewPrivs:\s+1$/m);
    t.match(status, /^Seccomp:\s+2$/m);
    t.equal((await at('stat -c %U /proc/$(systemctl show cldd -p MainPID --value)')).trim(), 'cldd');
    t.match(await at('cldd status'), /slave +disabled/, 'root finds its socket');
  });

  const names = async (): Promise<string> =>
    await at(
      `udevadm settle; cd /dev/disk; for l in by-id/* by-path/*; do echo "$l $(readlink -f $l)"; done | grep ' /dev/sd' | sort`,
    );
  await t.test('udev gives the discs names that stay', async (t) => {
    await at(`iscsiadm -m discovery -t sendtargets -p 127.0.0.1:3260; ${ISCSI} --login`);
    await until('[ -b /dev/sda ] && [ -b /dev/sdb ]');
    const first = await names();
    t.comment(first);
    t.match(first, /^by-id\/scsi-33[0-9a-f]{15} \/dev\/sda$/m, 'of the NAA designator, by scsi_id');
    t.match(first, /^by-id\/scsi-33[0-9a-f]{15} \/dev\/sdb$/m, 'the slave too, which has no medium');
    t.match(first, /^by-id\/wwn-0x3[0-9a-f]{15} \/dev\/sda$/m);
    for (const [lun, name] of ['sda', 'sdb'].entries())
      t.match(first, `by-path/ip-127.0.0.1:3260-iscsi-${TARGET}-lun-${lun} /dev/${name}\n`);
    await at(`${ISCSI} --logout; systemctl restart cldd; ${ISCSI} --login`);
    await until('[ -b /dev/sda ] && [ -b /dev/sdb ]');
    t.equal(await names(), first);
  });

  await t.test('the nightly backup, and its timer', async (t) => {
    await at(`mkfs.ext4 -q $(ls /dev/disk/by-path/*-lun-0); /etc/cldd/thaw; echo one > /srv/files/edition; sync
      cldd backup --to /backup/files --create ${hooks('freeze', 'thaw')}
      echo 'CLDD_BACKUP_ARGS=${NIGHTLY} ${hooks('freeze', 'thaw')}' > /etc/cldd/backup.env
      echo two > /srv/files/edition; sync
      systemctl start cldd-backup`);
    t.equal(await show('cldd-backup', 'Result'), 'success');
    t.match(await at('cldd verify /backup/files'), /incremental/);
    t.match(await at('cat /srv/files/edition'), 'two', 'it is mounted');
    await at('systemctl enable --now cldd-backup.timer; systemctl enable cldd-thaw');
    t.match(await at('systemctl list-timers --no-pager'), /02:\d\d:\d\d.* cldd-backup\.timer/);
  });

  await t.test('a night without its disc fails, and fills no other', async (t) => {
    await at('umount /backup');
    t.not((await guest.run('systemctl start cldd-backup', { timeoutMs: WAIT_MS })).code, 0);
    t.same(
      [await show('cldd-backup', 'Result'), await show('cldd-backup', 'ExecMainStatus')],
      ['exit-code', '3'],
    );
    t.equal(await at('ls -A /backup'), '');
    t.match(await at('journalctl -u cldd-backup --no-pager'), /is the backup disc mounted\?/);
    t.match(await at('cat /srv/files/edition'), 'two', 'nothing was frozen');
    await at('mount /backup');
  });

  await t.test('killed or hanging, the daemon is restarted, and users go on', async (t) => {
    const restarts = async (): Promise<number> => Number(await show('cldd', 'NRestarts'));
    await at('cldd slave enable --crash-consistent; systemctl kill -s KILL cldd');
    await until('[ $(systemctl show cldd -p NRestarts --value) -ge 1 ] && systemctl is-active cldd');
    t.match(await at('cldd status'), /slave +enabled/, 'the slave is what it was');
    await at('echo three > /srv/files/edition; sync');
    // udev looks into a new medium, too, and holds it as long as that takes.
    await until('cldd slave disable');
    await at(`mkdir -p /etc/systemd/system/cldd.service.d
      printf '[Service]\\nWatchdogSec=20\\n' > /etc/systemd/system/cldd.service.d/watchdog.conf
      systemctl daemon-reload; systemctl restart cldd
      kill -STOP $(systemctl show cldd -p MainPID --value)`);
    await until('[ $(systemctl show cldd -p NRestarts --value) -ge 1 ] && systemctl is-active cldd');
    t.match(await at('journalctl -u cldd --no-pager'), /[Ww]atchdog/);
    t.ok((await restarts()) >= 1);
    await at('rm -r /etc/systemd/system/cldd.service.d; systemctl daemon-reload; systemctl restart cldd');
    await at('echo four > /srv/files/edition; sync');
  });

  await t.test('reload takes over another configuration, and says no to a wrong one', async (t) => {
    await at(
      `echo '${JSON.stringify({ ...CONFIGURATION, logLevel: 'debug' })}' > /etc/cldd/cldd.yaml; systemctl reload cldd`,
    );
    t.equal((await at('cldd log-level')).trim(), 'debug');
    await at('cp /etc/cldd/cldd.yaml /root; echo frob > /etc/cldd/cldd.yaml');
    t.not((await guest.run('systemctl reload cldd', { timeoutMs: WAIT_MS })).code, 0);
    t.equal(await show('cldd', 'ActiveState'), 'active');
    await at('cp /root/cldd.yaml /etc/cldd/cldd.yaml');
  });

  await t.test('the host crashes between freeze and thaw: the next boot thaws', async (t) => {
    for (const unit of ['cldd-backup', 'cldd-thaw'])
      await at(`mkdir -p /etc/systemd/system/${unit}.service.d
        printf '[Unit]\\nRequiresMountsFor=/backup\\n' > /etc/systemd/system/${unit}.service.d/disc.conf`);
    await at(`echo 'CLDD_BACKUP_ARGS=${NIGHTLY} ${hooks('freeze-long', 'note')}' > /etc/cldd/backup.env
      umount /srv/files; systemctl daemon-reload; sync; systemctl start --no-block cldd-backup`);
    await until('[ -e /root/frozen ]');
    t.notOk((await guest.run('[ -e /root/thawed ]')).code === 0);
    await guest.stop();
    guest = await boot();
    t.equal((await until('cat /root/thawed')).trim(), 'thawed');
    await until('systemctl is-active cldd');
    t.equal(await show('cldd-thaw', 'Result'), 'success');
    t.equal(await at('ls -A /backup/files | grep frozen || true'), '');
  });

  await t.test('with cldd.socket the first initiator starts it, and it stops in order', async (t) => {
    await at('systemctl stop cldd');
    t.same([await show('cldd', 'Result'), await show('cldd', 'ExecMainStatus')], ['success', '0']);
    await at('systemctl start cldd.socket');
    t.equal(await show('cldd', 'ActiveState'), 'inactive');
    t.match(await at('iscsiadm -m discovery -t sendtargets -p 127.0.0.1:3260'), TARGET);
    t.equal(await show('cldd', 'ActiveState'), 'active');
  });
});
