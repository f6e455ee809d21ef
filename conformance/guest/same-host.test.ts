/**
 * Initiator and target in one kernel with little memory: what the file system writes back needs memory in the daemon,
 * which has to come from somewhere. GUEST_LONG=1 runs it; a guest under emulation takes minutes for it.
 */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { needing } from '../support/clients.js';
import { ROOT } from '../support/paths.js';
import { succeed } from '../support/processes.js';
import { Guest } from './guest.js';

const NAME = 'iqn.2025-01.org.example:same-host';
const TARGET = 'iqn.2026-01.org.example:same';
const MEMORY_MIB = 384;
const PARTITION_MIB = 1280;
/** One file of them is what a page cache of this guest holds some hundredths of. */
const FILE_MIB = 8;
const FILES = Number(process.env['SAME_HOST_FILES'] ?? 64);
/**
 * The emulation is some hundred times slower than a host, and shares its machine with other tests: the kernel's limits
 * for a command (30 s) and a ping (5 s) are made longer by that much, and a command has to be done well before.
 */
const COMMAND_S = 900;
const LATENCY_MAX_S = 300;
const ROUND_MS = 3_600_000;
const LONG = process.env['GUEST_LONG'] === '1';

/** The program with its packages and Node itself, as a file system for the guest. */
async function programDisc(folder: string): Promise<string> {
  const app = join(folder, 'app');
  mkdirSync(join(app, 'lib'), { recursive: true });
  cpSync(process.execPath, join(app, 'node'));
  for (const library of (await succeed('ldd', [process.execPath])).match(/\/\S+\.so\S*(?= \()/g) ?? [])
    cpSync(library, join(app, 'lib', library.slice(library.lastIndexOf('/') + 1)), { dereference: true });
  const lock = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean }>;
  };
  const shipped = Object.keys(lock.packages).filter((path) => path !== '' && !lock.packages[path]?.dev);
  for (const path of ['bin', 'config', 'package.json', ...shipped])
    cpSync(join(ROOT, path), join(app, path), { recursive: true, dereference: true });
  cpSync(join(import.meta.dirname, '../../src'), join(app, 'dist/src'), { recursive: true });
  const disc = join(folder, 'app.ext2');
  await succeed('mke2fs', ['-q', '-t', 'ext2', '-d', app, disc, '256M']);
  return disc;
}

const CONFIGURATION = JSON.stringify({
  portals: [{ listen: '127.0.0.1:3260' }],
  controlSocket: '/run/cldd.sock',
  targets: [{ name: TARGET, partition: '/dev/vdb', access: [{ initiator: '*' }] }],
});

/**
 * Against docs/reliability.md, Initiator and target on one host: room for the packets of both ends, since the kernel drops those that it had to take from its
 * last reserve, and few dirty pages of the iSCSI disk, since those are what the daemon has to make room for.
 */
const TUNING = `
  echo 32768 > /proc/sys/vm/min_free_kbytes
  echo 10 > /sys/class/bdi/8:0/max_ratio`;

/** Where everybody waits, every some seconds, for the report of a failure. */
const SAMPLER = `
  (while [ ! -e /run/done ]; do
     echo "-- $(cut -d' ' -f1 /proc/uptime) $(grep -E 'MemFree|Dirty|Writeback:' /proc/meminfo | tr -s ' \\n' ' ')"
     grep -E 'TCPPFMemDrop|TCPTimeouts|PFMemallocDrop' /proc/net/netstat | cut -c1-20
     for task in /proc/$(pidof node)/task/*; do echo "$(cat $task/comm) $(cat $task/wchan)"; done | sort | uniq -c
     netstat -tn | grep 3260
     sleep 15
   done) > /run/samples 2>&1 &`;

/** Writes every file, and says what the worst of reads past the page cache took, in hundredths of a second. */
const round = (number: number): string => `
  rm -f /run/worst /run/done
  ${SAMPLER}
  (worst=0
   while [ ! -e /run/done ]; do
     from=$(cut -d' ' -f1 /proc/uptime | tr -d .)
     dd if=/dev/sda of=/dev/null bs=4k count=1 iflag=direct 2> /dev/null
     took=$(($(cut -d' ' -f1 /proc/uptime | tr -d .) - from))
     [ $took -le $worst ] || worst=$took
     usleep 200000
   done
   echo $worst > /run/worst) &
  n=0
  while [ $n -lt ${FILES} ]; do
    n=$((n+1))
    (echo round ${number} file $n; cat /run/random) > /mnt/$n
  done
  sync
  touch /run/done
  wait
  cat /run/worst`;

const verify = (number: number): string => `
  echo 3 > /proc/sys/vm/drop_caches
  n=0
  while [ $n -lt ${FILES} ]; do
    n=$((n+1))
    (echo round ${number} file $n; cat /run/random) | cmp - /mnt/$n
  done`;

t.setTimeout(4 * ROUND_MS);

void t.test(
  `a host of ${MEMORY_MIB} MiB writes ${2 * FILES * FILE_MIB} MiB to its own target: no deadlock, no OOM kill, bounded latency`,
  LONG
    ? needing('qemu-system-x86_64', 'busybox', 'iscsid', 'mke2fs', 'ldd', 'apt-get', 'xz')
    : { skip: 'npm run guests runs it (minutes)' },
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'cldd-same-host-'));
    t.teardown(() => rmSync(folder, { recursive: true, force: true }));
    const partition = join(folder, 'partition');
    writeFileSync(partition, '');
    truncateSync(partition, PARTITION_MIB << 20);
    const guest = await Guest.boot({
      name: NAME,
      initiatorName: NAME,
      memoryMiB: MEMORY_MIB,
      discs: [await programDisc(folder), partition],
    });
    t.teardown(() => guest.stop());
    const slowly = { timeoutMs: 300_000 };
    // As packaging/systemd does: the daemon is the last that the kernel kills.
    await guest.succeed(
      `
      while read -r module; do insmod /modules/$module.ko 2> /dev/null || true; done < /modules/all
      mkdir -p /app && mount -t ext2 -o ro /dev/vda /app
      cat > /run/cldd.yaml <<'END'
${CONFIGURATION}
END
      cat > /run/cldd <<'END'
#!/bin/sh
LD_LIBRARY_PATH=/app/lib exec /app/node /app/bin/cldd "$@"
END
      chmod +x /run/cldd
      /run/cldd init /dev/vdb
      (echo -900 > /proc/self/oom_score_adj; exec setsid /run/cldd serve /run/cldd.yaml > /run/cldd.log 2>&1) &
      dd if=/dev/urandom of=/run/random bs=1M count=${FILE_MIB} 2> /dev/null
    `,
      slowly,
    );
    await guest.until('grep -q "cldd ready" /run/cldd.log || ! cat /run/cldd.log', 300_000);
    await guest.succeed(
      `iscsiadm -m discovery -t sendtargets -p 127.0.0.1
      iscsiadm -m node -o update -n node.conn[0].timeo.noop_out_interval -v 0
      iscsiadm -m node --login`,
      slowly,
    );
    await guest.until('[ -e /dev/sda ]', 60_000);
    await guest.succeed(`echo ${COMMAND_S} > /sys/block/sda/device/timeout`);
    if (process.env['SAME_HOST_UNTUNED'] !== '1') await guest.succeed(TUNING);
    await guest.succeed('mkfs.ext4 -q /dev/sda && mount -t ext4 /dev/sda /mnt', slowly);
    t.comment((await guest.succeed('free -m; cat /proc/sys/vm/dirty_ratio')).trim());

    const write = async (number: number): Promise<number> => {
      const { code, stdout, stderr } = await guest.run(round(number), { timeoutMs: ROUND_MS });
      if (code !== 0 || stderr !== '')
        t.fail(
          `round ${number}: ${stderr}\n${(await guest.run('dmesg | grep -v converted | tail -60; free -m; tail -20 /run/cldd.log; tail -150 /run/samples')).stdout}`,
        );
      return Number(stdout);
    };
    const first = await write(1);
    await guest.succeed('/run/cldd slave enable --crash-consistent --socket /run/cldd.sock', slowly);
    const second = await write(2);
    t.comment(
      `a read of 4 KiB waited at most ${first / 100} s, with the slave enabled ${second / 100} s; ` +
        (await guest.succeed('grep -E "VmHWM|VmRSS" /proc/$(pidof node)/status')).replaceAll(/\s+/g, ' '),
    );
    t.ok(Math.max(first, second) < LATENCY_MAX_S * 100, 'no command waits until Linux gives it up');
    await guest.succeed(verify(2), { timeoutMs: ROUND_MS });
    t.notMatch(
      await guest.succeed('dmesg'),
      /Out of memory|oom-kill|blocked for more than|detected conn error|I\/O error|EXT4-fs error/,
    );
    await guest.succeed('umount /mnt && e2fsck -fn /dev/sda && iscsiadm -m node --logout', slowly);
    await guest.succeed('kill $(pidof node); while pidof node > /dev/null; do usleep 100000; done', slowly);
    t.match(await guest.succeed('/run/cldd check /dev/vdb', slowly), /./);
  },
);
