/**
 * Initiator and target in one kernel with little memory: what the file system writes back needs memory in the daemon,
 * which has to come from somewhere. GUEST_LONG=1 runs it; a guest under emulation takes minutes for it.
 */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { needing } from '../support/clients.js';
import { findProgram, ROOT } from '../support/paths.js';
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
 * The emulation is many times slower than a host, and shares its machine with other tests: the kernel's limits for a
 * command (30 s) and a ping (5 s) are longer here, and a command has to be done well before.
 */
const COMMAND_S = 300;
const PING_S = 60;
const LATENCY_MAX_S = 60;
const ROUND_MS = 3_600_000;
const LONG = process.env['GUEST_LONG'] === '1';

/** Without what docs/initiators.md says of one host, to see what comes of it. */
const PLAIN = process.env['SAME_HOST_PLAIN'] === '1';
/** PF_MEMALLOC_NOIO of the kernel's sched.h, in /proc/PID/stat: PR_SET_IO_FLUSHER sets it. */
const IO_FLUSHER_FLAG = 0x80000;

/** The program with its packages, Node itself, and what the unit starts it by, as a file system for the guest. */
async function programDisc(folder: string): Promise<string> {
  const app = join(folder, 'app');
  mkdirSync(join(app, 'lib'), { recursive: true });
  const [perl, setpriv] = [findProgram('perl') ?? '', findProgram('setpriv') ?? ''];
  cpSync(process.execPath, join(app, 'node'));
  cpSync(perl, join(app, 'perl'));
  cpSync(setpriv, join(app, 'setpriv'));
  for (const library of (await succeed('ldd', [process.execPath, perl, setpriv])).match(
    /\/\S+\.so\S*(?= \()/g,
  ) ?? [])
    cpSync(library, join(app, 'lib', library.slice(library.lastIndexOf('/') + 1)), { dereference: true });
  const modules = ['Config', 'constant', 'strict', 'warnings'].flatMap((name) => ['-M' + name]);
  const loaded = await succeed(perl, [...modules, '-e', 'print map { "$_ $INC{$_}\\n" } keys %INC']);
  for (const line of loaded.trim().split('\n')) {
    const [name = '', file = ''] = line.split(' ');
    cpSync(file, join(app, 'lib/perl', name), { recursive: true });
  }
  cpSync(join(ROOT, 'packaging/one-host/io-flusher'), join(app, 'io-flusher'));
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
  controlSocket: '/run/cldd.d/sock',
  targets: [{ name: TARGET, partition: '/dev/vdb', access: [{ initiator: '*' }] }],
});

/** As packaging/one-host lets systemd start it: not root, with one capability, which the daemon itself has no more. */
const FLUSHER = [
  '/app/setpriv --reuid 900 --regid 900 --clear-groups --no-new-privs --bounding-set=-all,+sys_resource',
  '--inh-caps=-all,+sys_resource --ambient-caps=-all,+sys_resource --',
  'env PERL5LIB=/app/lib/perl /app/perl /app/io-flusher',
].join(' ');

/** Packets taken from the last reserve of memory, which are for those who write back, and dropped by all others. */
const PACKETS_DROPPED = `awk '/^TcpExt:/ { if (!n) n = split($0, name); else
  for (i in name) if (name[i] == "PFMemallocDrop") print name[i], $i }' /proc/net/netstat`;

/** Where everybody waits, every some seconds, for the report of a failure. */
const SAMPLER = `
  (while [ ! -e /run/done ]; do
     echo "-- $(cut -d' ' -f1 /proc/uptime) $(grep -E 'MemFree|Dirty|Writeback:' /proc/meminfo | tr -s ' \\n' ' ')"
     ${PACKETS_DROPPED}
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
    ? needing('qemu-system-x86_64', 'busybox', 'iscsid', 'mke2fs', 'ldd', 'apt-get', 'xz', 'perl', 'setpriv')
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
      mkdir -p /run/cldd.d /tmp
      chmod 1777 /run/lock /tmp
      chown 900:900 /run/cldd.d /dev/vdb
      /run/cldd init /dev/vdb
      # The daemon is the last that the kernel kills, as packaging/systemd has it.
      (echo -900 > /proc/self/oom_score_adj
       LD_LIBRARY_PATH=/app/lib exec setsid ${PLAIN ? '' : FLUSHER} /run/cldd serve /run/cldd.yaml > /run/cldd.log 2>&1) &
      dd if=/dev/urandom of=/run/random bs=1M count=${FILE_MIB} 2> /dev/null
    `,
      slowly,
    );
    await guest.until('grep -q "cldd ready" /run/cldd.log || ! cat /run/cldd.log', 300_000);
    await guest.succeed(
      `iscsiadm -m discovery -t sendtargets -p 127.0.0.1
      iscsiadm -m node -o update -n node.conn[0].timeo.noop_out_timeout -v ${PING_S}
      iscsiadm -m node --login`,
      slowly,
    );
    await guest.until('[ -e /dev/sda ]', 60_000);
    await guest.succeed(`echo ${COMMAND_S} > /sys/block/sda/device/timeout`);
    const daemon = await guest.succeed(
      `cut -d' ' -f9 /proc/$(pidof node)/stat; grep -E 'CapEff|Uid' /proc/$(pidof node)/status`,
    );
    if (!PLAIN) {
      t.ok(Number.parseInt(daemon) & IO_FLUSHER_FLAG, 'the kernel knows that the daemon makes pages clean');
      t.match(daemon, /Uid:\s+900\s+900[^]*CapEff:\s+0+\n/, 'and it has no privileges');
    }
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
    await guest.succeed('/run/cldd slave enable --crash-consistent --socket /run/cldd.d/sock', slowly);
    const second = await write(2);
    t.comment(
      `a read of 4 KiB waited at most ${first / 100} s, with the slave enabled ${second / 100} s; ` +
        (
          await guest.succeed(`grep -E "VmHWM|VmRSS" /proc/$(pidof node)/status; ${PACKETS_DROPPED}`)
        ).replaceAll(/\s+/g, ' '),
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
