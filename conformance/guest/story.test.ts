/**
 * The main job, end to end, with two real Linux hosts: a file server that owns the master and a backup server that
 * reads the slave while users go on working.
 */
import t from 'tap';
import { Cldd, EXIT } from '../support/cldd.js';
import { needing } from '../support/clients.js';
import { Guest, HOST_ADDRESS } from './guest.js';
import { Initiator } from './initiator.js';

const FILE_SERVER = 'iqn.2025-01.org.example:file-server';
const BACKUP_SERVER = 'iqn.2025-01.org.example:backup-server';

/** Names and checksums of everything below /mnt, sorted. */
const CHECKSUMS = '(cd /mnt && find . -type f | sort | xargs sha256sum)';

/** How long Linux may take to notice a dead connection, wait, and log in again. */
const RECOVERY_TIMEOUT_MS = 60_000;

void t.test(
  'a file server works on, a backup server reads the frozen slave',
  needing('qemu-system-x86_64', 'busybox', 'iscsid', 'sg_inq', 'mke2fs', 'apt-get', 'xz'),
  async (t) => {
    const [cldd, fileServer, backupServer] = await start(t);
    const files = new Initiator(fileServer, cldd);
    const backup = new Initiator(backupServer, cldd);

    await t.test('both discover the target and log in', async (t) => {
      for (const host of [files, backup]) {
        t.match(
          await host.discover(),
          `${HOST_ADDRESS}:${cldd.port},1 ${cldd.target}`,
          'SendTargets advertises it',
        );
        await host.login();
      }
      const { sessions } = await cldd.status();
      t.strictSame(sessions.map(({ initiator }) => initiator).sort(), [BACKUP_SERVER, FILE_SERVER]);
    });
    const master = await files.disk(0);
    const slave = await backup.disk(1);

    let old = '';
    await t.test('the master takes a file system; a mounted one is not frozen', async (t) => {
      await fileServer.succeed(`mkfs.ext2 -q ${master} && mount -t ext2 ${master} /mnt`);
      await fileServer.succeed(`
        mkdir /mnt/reports
        for n in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=/mnt/reports/$n bs=64k count=$n 2> /dev/null; done
        echo 'the first edition' > /mnt/edition`);
      old = await fileServer.succeed(`${CHECKSUMS}; sync`);
      t.match(await cldd.expect(EXIT.REFUSED, 'slave', 'enable'), /mounted/i, 'refused, with the reason');
      t.equal((await cldd.status()).slave.enabled, false);
    });

    await t.test('unmounted, it is frozen; users change and delete files', async (t) => {
      await fileServer.succeed('umount /mnt');
      await cldd.expect(EXIT.DONE, 'slave', 'enable');
      await fileServer.succeed(`
        mount -t ext2 ${master} /mnt
        echo 'the second edition' > /mnt/edition
        rm /mnt/reports/3
        dd if=/dev/urandom of=/mnt/reports/5 bs=64k count=5 2> /dev/null
        dd if=/dev/urandom of=/mnt/reports/9 bs=64k count=16 2> /dev/null
        sync`);
      t.ok((await cldd.status()).slave.divergedBlocks > 0, 'status counts what diverged');
    });

    await t.test('the backup server finds exactly the old files, and cannot write', async (t) => {
      t.match(await backupServer.succeed(`e2fsck -fn ${slave}`), /Pass 5/, 'the file system is clean');
      // Linux asks whether a removable disk is write-protected when it is opened, as e2fsck just did.
      const flags = `cat /sys/block/${name(slave)}/removable /sys/block/${name(slave)}/ro`;
      t.strictSame((await backupServer.succeed(flags)).trim().split('\n'), ['1', '1']);
      await backupServer.succeed(`mount -t ext2 -o ro ${slave} /mnt`);
      t.equal(await backupServer.succeed(CHECKSUMS), old);
      t.not((await backupServer.run('touch /mnt/x')).code, 0, 'no file can be made');
      t.not(
        (await backupServer.run('mount -o remount,rw /mnt && touch /mnt/x')).code,
        0,
        'remounting does not help',
      );
      t.not(
        (await backupServer.run(`dd if=/dev/zero of=${slave} bs=4k count=1 conv=fsync`)).code,
        0,
        'nor does the raw disk',
      );
      t.not(
        (await backupServer.run(`sg_write_same --lba=0 --num=8 --in=/dev/zero --xferlen=512 ${slave}`)).code,
        0,
      );
    });

    await t.test('disabling is refused while the slave is mounted, and names who holds it', async (t) => {
      t.match(await cldd.expect(EXIT.REFUSED, 'slave', 'disable'), BACKUP_SERVER);
      t.match(JSON.stringify((await cldd.status()).slave.heldBy), BACKUP_SERVER, 'status names it, too');
      t.equal(await backupServer.succeed(CHECKSUMS), old, 'and nothing happened to it');
    });

    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      await t.test(`both mounted hosts survive a restart of the daemon by ${signal}`, async (t) => {
        const marker = `written before ${signal}`;
        await fileServer.succeed(`echo '${marker}' > /mnt/${signal} && sync`);
        await cldd.end(signal);
        // Both have work under way while nobody answers.
        const writing = fileServer.run(
          `dd if=/dev/urandom of=/mnt/during-${signal} bs=64k count=16 conv=fsync 2> /dev/null && sha256sum /mnt/during-${signal}`,
          { timeoutMs: RECOVERY_TIMEOUT_MS },
        );
        const reading = backupServer.run(`echo 3 > /proc/sys/vm/drop_caches; ${CHECKSUMS}`, {
          timeoutMs: RECOVERY_TIMEOUT_MS,
        });
        await cldd.serve();
        const [written, read] = await Promise.all([writing, reading]);
        t.match(written, { code: 0, stderr: '' }, 'the file server goes on');
        t.strictSame(
          read,
          { code: 0, stdout: old, stderr: '' },
          'the backup server goes on, with the same files',
        );
        t.equal(
          await fileServer.succeed(`echo 3 > /proc/sys/vm/drop_caches; sha256sum /mnt/during-${signal}`),
          written.stdout,
        );
        t.equal((await fileServer.succeed(`cat /mnt/${signal}`)).trim(), marker);
        t.match(
          await cldd.expect(EXIT.REFUSED, 'slave', 'disable'),
          BACKUP_SERVER,
          'who holds the slave is still known',
        );
      });
    }

    await t.test('the next backup shows the new content, without a rescan', async (t) => {
      await backupServer.succeed('umount /mnt');
      await cldd.expect(EXIT.DONE, 'slave', 'disable');
      t.not(
        (await backupServer.run(`dd if=${slave} of=/dev/null bs=4k count=1 iflag=direct`)).code,
        0,
        'no medium',
      );
      const fresh = await fileServer.succeed(`${CHECKSUMS}; umount /mnt`);
      await cldd.expect(EXIT.DONE, 'slave', 'enable');
      await fileServer.succeed(`mount -t ext2 ${master} /mnt && rm -r /mnt/reports && sync`);
      await backupServer.succeed(`e2fsck -fn ${slave} && mount -t ext2 -o ro ${slave} /mnt`);
      const seen = await backupServer.succeed(CHECKSUMS);
      t.equal(seen, fresh);
      t.not(seen, old);
      t.equal((await backupServer.succeed('cat /mnt/edition')).trim(), 'the second edition');
    });

    await t.test('the backup host itself ends the backup: eject', async (t) => {
      await backupServer.succeed(`umount /mnt && eject -s ${slave}`);
      t.equal((await cldd.status()).slave.enabled, false);
    });

    await t.test('both log out', async (t) => {
      await fileServer.succeed('umount /mnt');
      for (const host of [files, backup]) await host.logout();
      t.strictSame((await cldd.status()).sessions, []);
    });
  },
);

/** Everything that runs, ended again when the test ends, however it ends. */
async function start(t: Tap): Promise<[Cldd, Guest, Guest]> {
  const cldd = await Cldd.start({ advertiseHost: HOST_ADDRESS, sizeMiB: 128 });
  t.teardown(() => cldd.stop());
  const guests = await Promise.all(
    [FILE_SERVER, BACKUP_SERVER].map(async (initiatorName) => {
      const guest = await Guest.boot({ name: initiatorName, initiatorName });
      t.teardown(() => guest.stop());
      return guest;
    }),
  );
  return [cldd, guests[0], guests[1]];
}

type Tap = Pick<typeof t, 'teardown'>;

/** sda of /dev/sda. */
function name(device: string): string {
  return device.slice('/dev/'.length);
}
