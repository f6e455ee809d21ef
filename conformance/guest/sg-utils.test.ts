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
    const cldd = await Cldd.start({ advertiseHost: HOST_ADDRESS, sizeMiB: 128, reportChanges: true });
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
    /** The node that write-protected disks can be opened by, too. */
    const node = async (disk: string): Promise<string> =>
      `/dev/${(await sg(`ls /sys/block/${disk.slice(5)}/device/scsi_generic`)).trim()}`;

    await t.test('sg_inq and sg_vpd decode every page that is listed', async (t) => {
      const inquiry = await sg(`sg_inq ${master}`);
      t.match(inquiry, /CLDD/);
      t.match(inquiry, /PQual=0 +PDT=0 +RMB=0/);
      t.match(await sg(`sg_inq ${slave}`), /RMB=1/);
      const listed = await sg(`sg_vpd ${master}`);
      t.match(listed, /Device identification/);
      const expected: [string, RegExp[]][] = [
        ['sn', [/Unit serial number: [0-9a-f]{32}\n/]],
        [
          'di',
          [
            /NAA, +code set: Binary\n +0x3[0-9a-f]{15}\n/,
            /vendor id: CLDD/,
            /Relative target port: 0x1\n/,
            /Target port group: 0x1\n/,
            new RegExp(`${cldd.target},t,0x0001\n`),
            new RegExp(`Target device[^]*${cldd.target}\n`),
          ],
        ],
        ['ei', [/UASK_SUP=1/, /HEADSUP=1 ORDSUP=1 SIMPSUP=1/, /V_SUP=1/, /sense data length=28/]],
        ['mpp', [/MLUS=0, +Policy: shared/]],
        ['sp', [/Relative port=1\n/, new RegExp(`${cldd.target},t,0x0001`)]],
        ['tpc', [/Extended copy\(LID1\)/, /Populate token/, /Write using token/, /block -> block/]],
        [
          'bl',
          [
            /WSNZ\): 1/,
            /Maximum compare and write length: 255 blocks/,
            /Optimal transfer length granularity: 8 blocks/,
            /Maximum unmap LBA count: 1048576/,
            /Optimal unmap granularity: 8 blocks/,
            /Maximum write same length: 0xffff blocks/,
            /Maximum atomic transfer length: 256 blocks/,
            /Atomic transfer length granularity: 8/,
          ],
        ],
        ['ble', [/Stream control not supported/]],
        ['bdc', [/Non-rotating/, /WABEREQ=1/, /FUAB=1/]],
        ['lbpv', [/\(LBPU\): 1/, /\(LBPWS10\): 1/, /\(LBPRZ\): 1/, /Provisioning type: 2 \(thin/]],
      ];
      for (const [page, patterns] of expected) {
        const text = await sg(`sg_vpd --page=${page} ${master}`);
        for (const pattern of patterns) t.match(text, pattern, page);
      }
    });

    await t.test('sg_opcodes, sg_modes, sg_logs and sg_luns', async (t) => {
      const opcodes = await sg(`sg_opcodes ${master}`);
      for (const name of ['Read(16)', 'Write(16)', 'Unmap', 'Compare and write', 'Write same(16)'])
        t.ok(opcodes.includes(name), name);
      const functions = (await sg(`sg_opcodes --tmf ${master}`)).match(/^ {4}\w.*$/gm) ?? [];
      t.strictSame(
        functions.map((line) => line.trim().toLowerCase()),
        [
          'abort task',
          'abort task set',
          'clear task set',
          'logical unit reset',
          'query task',
          'query asynchronous event',
          'query task set',
          'i_t nexus reset',
        ],
      );
      const modes = await sg(`sg_modes -aa ${master}`);
      for (const name of [
        'Read-Write error recovery',
        'Disconnect-Reconnect',
        'Caching',
        'Control',
        'Control extension',
        'Power condition',
        'Informational exceptions control',
      ])
        t.match(modes, new RegExp(`^>> ${name}, page_control: current`, 'mi'), name);
      t.match(await sg(`sg_logs --list ${master}`), /0x15/);
      const written = async (): Promise<number> => {
        const text = await sg(`sg_logs --page=0x19 ${master}`);
        return Number(/logical blocks received = (\d+)/.exec(text)?.[1]);
      };
      const before = await written();
      await sg(`dd if=/dev/zero of=${master} bs=64k count=1 oflag=direct 2> /dev/null`);
      t.equal((await written()) - before, 128, '64 KiB have come in');
      const pages: [string, RegExp][] = [
        ['0x2', /Total bytes processed = [1-9]\d*\n +Total uncorrected errors = 0/],
        ['0x3', /Total bytes processed = [1-9]\d*\n +Total uncorrected errors = 0/],
        ['0xc', /Available provisioning resource percentage: 99 ?%/],
        ['0xd', /Current temperature = <not available>/],
        ['0x10', /Self-test results/i],
        ['0x15', /Accumulated power on minutes: \d/],
        ['0x2f', /IE asc = 0x0, ascq = 0x0/],
      ];
      for (const [page, pattern] of pages)
        t.match(await sg(`sg_logs --page=${page} ${master}`), pattern, page);
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
      await sg(`sg_xcopy if=${await node(slave)} of=${await node(master)} count=512 bs=512`);
      t.equal(await sg(`dd if=${master} bs=64k count=4 iflag=direct 2> /dev/null | sha256sum`), before);
      await cldd.expect(0, 'slave', 'disable');
    });

    await t.test('sg_get_lba_status tells what has changed since an earlier slave', async (t) => {
      await sg(`dd if=/dev/urandom of=${master} bs=64k seek=520 count=1 oflag=direct 2> /dev/null`);
      await cldd.enableSlave();
      await guest.until(`sg_turs ${slave}`, 10_000);
      const since = (await cldd.status()).slave.generation;
      const text = await sg(`sg_logs --page=0x39 --hex ${slave}`);
      t.match(text, new RegExp(`${since.toString(16).padStart(2, '0')} *\\n`), 'the generation that is in');
      await cldd.expect(0, 'slave', 'disable');
      await sg(`
        dd if=/dev/urandom of=${master} bs=64k seek=512 count=1 oflag=direct 2> /dev/null
        sg_unmap --lba=66560 --num=128 --force ${master}`);
      await cldd.enableSlave();
      await guest.until(`sg_turs ${slave}`, 10_000);
      const ask = 'sg_get_lba_status --32 --readonly --brief --maxlen=65544';
      t.equal(
        (await sg(`${ask} --element-id=${since} ${slave}`)).trim().replaceAll(/ +/g, ' '),
        'Completion condition=3\nRTP=1\n0x0000000000010000 0x80 0 0\n0x0000000000010400 0x80 1 0',
        '64 KiB of data, and a hole',
      );
      t.equal((await guest.run(`${ask} --element-id=${since + 9} ${slave}`)).code, 5, 'ILLEGAL REQUEST');
      await cldd.expect(0, 'slave', 'disable');
    });

    await t.test(
      'reservations and mode pages that are to be kept survive a crash of the daemon',
      async (t) => {
        await sg(`
        sg_persist --out --register --param-aptpl --param-sark=0x5a5a ${master}
        sg_persist --out --reserve --param-rk=0x5a5a --prout-type=1 ${master}
        sg_persist --out --register --param-sark=0x1111 ${await node(slave)}
        sg_wr_mode --page=0x8 --save --contents=8,12,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0 ${master}`);
        await cldd.end('SIGKILL');
        await cldd.serve();
        t.match(await guest.until(`sg_persist --in --read-keys ${master}`, 60_000), /0x5a5a/);
        t.match(await sg(`sg_persist --in --read-reservation ${master}`), /Write Exclusive/);
        t.match(
          await guest.until(`sg_persist --in --read-keys ${await node(slave)}`, 60_000),
          /NO registered/i,
          'registered without APTPL',
        );
        const wce = async (control: number): Promise<string> =>
          (await sg(`sg_modes --page=0x8 --control=${control} --hex ${master}`)).replaceAll(/\s+/g, ' ');
        t.match(await wce(0), / 88 12 00 /, 'current: WCE=0');
        t.match(await wce(2), / 88 12 04 /, 'default: WCE=1');
        await sg(`
        sg_persist --out --clear --param-rk=0x5a5a ${master}
        sg_wr_mode --page=0x8 --save --contents=8,12,4,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0 ${master}`);
      },
    );

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
