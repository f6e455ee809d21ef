/**
 * Linux's own initiator at its best settings: mutual CHAP by SHA-256, digests, several sessions, logins again and again,
 * and with GUEST_LONG=1 a storm of them, and two portals of which one is cut off in mid-write.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { PREFIX, serve } from '../../test/daemon/support.js';
import { needing } from '../support/clients.js';
import { freePort } from '../support/ports.js';
import { Guest, HOST_ADDRESS } from './guest.js';
import { Proxy } from './proxy.js';

const INITIATOR = 'iqn.2025-01.org.example:secure';
const TARGET = `${PREFIX}a`;
const LONG = process.env['GUEST_LONG'] === '1';
const LOGINS = LONG ? 40 : 3;
/** How long Linux waits for a path before it fails what is on it. */
const REPLACEMENT_SECONDS = 3;
/** Major and minor numbers of the master's paths. */
const PATHS = 'for d in /sys/class/scsi_disk/*:0/device/block/*; do cat $d/dev; done';
/** Written in the cut: long enough to be in the midst of it. */
const WRITTEN_MIB = 6;

const SECRETS = {
  scout: 'secret of scout 123',
  host: 'secret of the host 1',
  target: 'secret of the target',
};

/** Settings of a node or discovery record, as iscsiadm takes them. */
const settings = (command: string, values: Record<string, string | number>): string =>
  Object.entries(values)
    .map(([name, value]) => `${command} -o update -n '${name}' -v '${value}'`)
    .join('\n');

void t.test(
  'open-iscsi: mutual CHAP by SHA-256, digests, several sessions, and a path that is cut in mid-write',
  needing('qemu-system-x86_64', 'busybox', 'iscsid', 'dmsetup', 'apt-get', 'xz'),
  async (t) => {
    const cable = new Proxy();
    await cable.start();
    t.teardown(() => cable.cut());
    const ports = [await freePort(), await freePort()] as const;
    cable.to = ports[1];
    const user = (name: string): object => ({ name, secretFile: name });
    const configuration = (show: string[], more: object = {}): object => ({
      portals: [
        { listen: `127.0.0.1:${ports[0]}`, portalGroupTag: 1, advertise: `${HOST_ADDRESS}:${ports[0]}` },
        { listen: `127.0.0.1:${ports[1]}`, portalGroupTag: 2, advertise: `${HOST_ADDRESS}:${cable.port}` },
      ],
      discovery: { authentication: { users: [user('scout')] } },
      targets: [
        {
          name: TARGET,
          partition: 'a',
          access: [{ initiator: INITIATOR, user: 'host', show }],
          authentication: { users: [user('host')], mutual: user('target'), algorithms: ['SHA256'] },
          ...more,
        },
      ],
      shutdownGraceMs: 100,
    });
    const { daemon, configure } = await serve(t, ['a'], (folder) => {
      for (const [name, secret] of Object.entries(SECRETS))
        writeFileSync(join(folder, name), `${secret}\n`, { mode: 0o600 });
      return configuration(['master']);
    });
    const reload = async (next: object): Promise<void> => {
      configure(next);
      await daemon.reload();
    };
    const guest = await Guest.boot({ name: INITIATOR, initiatorName: INITIATOR });
    t.teardown(() => guest.stop());
    const run = async (script: string, options: { timeoutMs?: number } = {}): Promise<string> =>
      await guest.succeed(script, options);
    const portal = `${HOST_ADDRESS}:${ports[0]}`;
    const nodes = `iscsiadm -m node -T ${TARGET}`;

    await t.test('discovery and login by CHAP, each with secrets and algorithms of its own', async (t) => {
      const discovery = `iscsiadm -m discoverydb -t sendtargets -p ${portal}`;
      t.not((await guest.run(`iscsiadm -m discovery -t sendtargets -p ${portal}`)).code, 0, 'no CHAP');
      const found = await run(`
        ${discovery} -o new > /dev/null
        ${settings(discovery, {
          'discovery.sendtargets.auth.authmethod': 'CHAP',
          'discovery.sendtargets.auth.username': 'scout',
          'discovery.sendtargets.auth.password': SECRETS.scout,
        })}
        ${discovery} --discover`);
      t.same(
        found.trim().split('\n').sort(),
        [`${HOST_ADDRESS}:${cable.port},2 ${TARGET}`, `${portal},1 ${TARGET}`].sort(),
      );
      await run(
        settings(nodes, {
          'node.session.auth.authmethod': 'CHAP',
          'node.session.auth.chap_algs': 'SHA256',
          'node.session.auth.username': 'host',
          'node.session.auth.password': SECRETS.host,
          'node.session.auth.username_in': 'target',
          'node.session.auth.password_in': 'not what it is at all',
          'node.session.timeo.replacement_timeout': REPLACEMENT_SECONDS,
          'node.conn[0].iscsi.HeaderDigest': 'CRC32C',
          'node.conn[0].iscsi.DataDigest': 'CRC32C',
          'node.session.nr_sessions': 1,
        }),
      );
      t.not(
        (await guest.run(`${nodes} -p ${portal} --login`)).code,
        0,
        'a target with another secret is left',
      );
      t.same(daemon.sessions(), []);
      await run(`
        ${settings(nodes, { 'node.session.auth.password_in': SECRETS.target })}
        ${nodes} -p ${portal} --login`);
      t.match(daemon.sessions(), [
        { initiator: INITIATOR, user: 'host', headerDigest: true, dataDigest: true },
      ]);
    });

    await t.test('data go there and back under digests, of odd lengths too', async (t) => {
      const disk = (await guest.until('ls -d /sys/class/scsi_disk/*:0/device/block/*', 20_000))
        .trim()
        .split('/')
        .at(-1);
      const sums = await run(`
        dd if=/dev/urandom of=/tmp/data bs=4k count=512 2> /dev/null
        dd if=/tmp/data of=/dev/${disk} bs=64k oflag=direct 2> /dev/null
        sync; echo 3 > /proc/sys/vm/drop_caches
        sha256sum < /tmp/data
        dd if=/dev/${disk} bs=4k count=512 iflag=direct 2> /dev/null | sha256sum
        sg_inq --len=37 /dev/${disk} > /dev/null`);
      const [written, read] = sums.trim().split('\n');
      t.equal(read, written);
      t.equal(daemon.status().iscsi.dataDigestErrors + daemon.status().iscsi.headerDigestErrors, 0);
    });

    await t.test('a LUN that a reload shows is there at once, by an asynchronous event', async (t) => {
      await reload(configuration(['master', 'slave']));
      await guest.until('ls -d /sys/class/scsi_disk/*:1/device/block/*', 20_000);
      t.match(daemon.sessions(), [{ luns: [0, 1] }], 'in the same session');
      await run('for d in /sys/class/scsi_disk/*:1/device; do echo 1 > $d/delete; done');
      await reload(configuration(['master']));
    });

    await t.test('a redirection is followed to the other portal group', async (t) => {
      await run(`${nodes} -p ${portal} --logout`);
      const redirect = { to: `${HOST_ADDRESS}:${cable.port}`, portalGroupTag: 1 };
      await reload(configuration(['master'], { redirect }));
      await run(`${nodes} -p ${portal} --login`);
      t.match(daemon.sessions(), [{ initiator: INITIATOR, user: 'host', portal: `127.0.0.1:${ports[1]}` }]);
      await reload(configuration(['master']));
    });

    await t.test(`several sessions of one host, and ${LOGINS} rounds of logout and login`, async (t) => {
      await run(`
        ${nodes} -p ${portal} --logout
        ${settings(`${nodes} -p ${portal}`, { 'node.session.nr_sessions': 3 })}
        ${nodes} -p ${portal} --login`);
      t.equal(daemon.sessions().length, 3, 'three sessions, each with an ISID of its own');
      await run(
        `
        for n in $(seq ${LOGINS}); do ${nodes} -p ${portal} --logout; ${nodes} -p ${portal} --login; done > /dev/null
        ${nodes} -p ${portal} --logout > /dev/null
        ${settings(`${nodes} -p ${portal}`, { 'node.session.nr_sessions': 1 })}`,
        { timeoutMs: 300_000 },
      );
      t.same(daemon.sessions(), [], 'nothing is left behind');
      t.equal(daemon.status().iscsi.connections, 0);
    });

    const long = LONG ? {} : { skip: 'GUEST_LONG=1 runs it (a quarter of a minute)' };
    await t.test(
      'of two paths one is cut in mid-write: nothing is lost, and it comes back',
      long,
      async (t) => {
        await run(`${nodes} --login > /dev/null`);
        await guest.until(`[ $(${PATHS} | wc -l) = 2 ]`, 20_000);
        await run(`
        while read -r module; do insmod /modules/$module.ko 2> /dev/null || true; done < /modules/all
        export DM_DISABLE_UDEV=1
        set -- $(ls -d /sys/class/scsi_disk/*:0/device/block/*)
        dmsetup create both --table "0 $(cat $1/size) multipath 0 0 1 1 round-robin 0 2 1 $(echo $(${PATHS} | sed 's/$/ 1/'))"
        dd if=/dev/urandom of=/tmp/data bs=1M count=${WRITTEN_MIB} 2> /dev/null`);
        const crossing = cable.carries((WRITTEN_MIB << 20) / 6);
        const writing = guest.run(
          'dd if=/tmp/data of=/dev/mapper/both bs=16k oflag=direct conv=fsync && sync',
          {
            timeoutMs: 120_000,
          },
        );
        await crossing;
        cable.cut();
        t.match(await writing, { code: 0 }, 'the write goes on by the other path');
        t.match(await run('dmsetup status both'), / F 1 [^]* A 0 | A 0 [^]* F 1 /, 'one path has failed');
        const sums = await run(`
        echo 3 > /proc/sys/vm/drop_caches
        sha256sum < /tmp/data
        dd if=/dev/mapper/both bs=64k count=${WRITTEN_MIB * 16} iflag=direct 2> /dev/null | sha256sum`);
        const [written, read] = sums.trim().split('\n');
        t.equal(read, written);

        await cable.start();
        await guest.until(
          `[ $(grep -l LOGGED_IN /sys/class/iscsi_session/session*/state | wc -l) = 2 ]`,
          60_000,
        );
        await run(`
        for path in $(${PATHS}); do dmsetup message both 0 reinstate_path $path; done
        dd if=/tmp/data of=/dev/mapper/both bs=64k count=16 oflag=direct 2> /dev/null`);
        t.match(await run('dmsetup status both'), / A 0 [^]* A 0 /, 'both carry again');
        await run(`dmsetup remove both; ${nodes} --logout > /dev/null`);
        t.same(daemon.sessions(), []);
      },
    );
  },
);
