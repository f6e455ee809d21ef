/**
 * The nightly backup as an operator has it: the timer's command, whose hooks unmount and mount on the file server, three
 * generations while users go on, a disaster, and a restore that a real Linux host finds to be what was there each night.
 */
import fs from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { createFolder } from '../../src/cli/backup/folder.js';
import { Cldd, EXIT } from '../support/cldd.js';
import { needing } from '../support/clients.js';
import { ROOT } from '../support/paths.js';
import { freePort } from '../support/ports.js';
import { type Finished, run, Running } from '../support/processes.js';
import { Guest, HOST_ADDRESS } from './guest.js';
import { Initiator } from './initiator.js';

const PROGRAM = path.join(ROOT, 'bin/cldd');
const env = { ...process.env, CLDD_DIST: path.resolve(import.meta.dirname, '../..') };
const LONG = process.env['GUEST_LONG'] === '1';
const COMMAND_TIMEOUT_MS = 240_000;
/** Bytes a second, which make a copy last while users go on. */
const RATE = '512K';

/** Everything below a folder: kind, mode, owner, time and size of each file, and what is in it. */
const tree = (folder: string): string =>
  `(cd ${folder} && find . ! -path ./lost+found | sort | xargs stat -c '%F %a %u:%g %Y %s %N' && find . -type f | sort | xargs sha256sum)`;
const TREE = tree('/mnt');

void t.test(
  'three nights, a disaster, and a restore to a new partition',
  LONG
    ? {
        ...needing('qemu-system-x86_64', 'busybox', 'iscsid', 'sg_inq', 'mke2fs', 'apt-get', 'xz'),
        timeout: 900_000,
      }
    : { skip: 'npm run guests runs it (minutes)' },
  async (t) => {
    const cldd = await Cldd.start({ advertiseHost: HOST_ADDRESS, sizeMiB: 160 });
    t.teardown(() => cldd.stop());
    const guest = await Guest.boot({ name: 'files', initiatorName: 'iqn.2025-01.org.example:files' });
    t.teardown(() => guest.stop());
    const files = new Initiator(guest, cldd);
    await files.discover();
    await files.login();
    const master = await files.disk(0);
    const backups = path.join(cldd.folder, 'backups');
    // As `cldd backup --create` makes it, once.
    createFolder(backups);
    const hooks = await hooksOn(guest, cldd.folder, master);
    t.teardown(() => hooks.close());
    const nightly = await timersCommand(
      cldd.socket,
      `--to ${backups} --incremental --compress --pre ${hooks.unmount} --post ${hooks.mount}`,
    );
    const trees: string[] = [];
    /** What users do while the copy runs; it must not be in this night's backup. */
    const users = [
      `echo 'the second edition' > /mnt/edition; rm /mnt/reports/3; ln -s ../edition /mnt/reports/link
       dd if=/dev/urandom of=/mnt/reports/5 bs=64k count=24 2> /dev/null; mkdir -p /mnt/new/deep; sync`,
      `mv /mnt/reports /mnt/archive; chmod 600 /mnt/edition; chown 7:8 /mnt/archive/1
       dd if=/dev/urandom of=/mnt/new/deep/file bs=64k count=40 2> /dev/null; sync`,
      `rm -r /mnt/archive /mnt/new; echo 'after the last backup' > /mnt/edition; sync`,
    ];

    await t.test('the file server makes a file system and fills it', async () => {
      await guest.succeed(`
        mkfs.ext4 -q ${master} && mount -t ext4 ${master} /mnt
        mkdir /mnt/reports
        for n in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=/mnt/reports/$n bs=64k count=$((n*3)) 2> /dev/null; done
        ln /mnt/reports/1 /mnt/twin; echo 'the first edition' > /mnt/edition; sync`);
    });

    for (const [index, change] of users.entries()) {
      const generation = index + 1;
      await t.test(`night ${generation}: the timer's command, while users go on`, async (t) => {
        trees.push(await guest.succeed(TREE));
        const mounted = hooks.mounted();
        // The first copy reads enough to last by itself.
        const line = generation === 1 ? `${nightly} --rate 4M` : `${nightly} --rate ${RATE}`;
        const running = new Running('/bin/sh', ['-c', line], { env });
        await Promise.race([mounted, running.ended]);
        const changed = guest.succeed(change);
        // The second night it is killed, as by a power cut, and the same command is given again.
        if (generation === 2) {
          while (!(await copying(backups)) && running.alive) await sleep(20);
          await running.end('SIGKILL');
          t.match((await cldd.status()).slave, { enabled: true, generation }, 'killed in the copy');
        }
        await changed;
        const done = generation === 2 ? await shell(nightly) : await finished(running);
        t.equal(done.code, generation === 1 ? EXIT.WARNINGS : EXIT.DONE, `${done.stdout}${done.stderr}`);
        const kind = generation === 1 ? 'full' : 'incremental';
        t.match(done.stdout, new RegExp(`${kind} backup of generation ${generation}\\b.*proved`));
        if (generation === 2) t.match(done.stdout, /resumed/, 'it goes on with the same image');
        t.equal((await cldd.status()).slave.enabled, false);
        t.equal((await guest.succeed('mount | grep -c " /mnt "')).trim(), '1', 'the file system is mounted');
        t.not(await guest.succeed(TREE), trees[index], 'users did go on');
      });
    }

    await t.test('the backups of nights two and three hold little more than what changed', async (t) => {
      const sizes = await Promise.all(
        (await fs.readdir(backups))
          .filter((name) => name.endsWith('.cldd'))
          .sort()
          .map(async (name) => (await fs.stat(path.join(backups, name))).size),
      );
      t.equal(sizes.length, 3);
      t.ok(sizes[0] > 6 << 20, 'the files of the first night do not compress');
      t.ok(sizes[1] < sizes[0] / 2 && sizes[2] < sizes[0] / 2, sizes.join(' '));
    });

    await t.test('the disc dies, with the file system mounted', async () => {
      await cldd.end('SIGKILL');
      await fs.rm(cldd.partition);
    });

    const restored: { name: string; partition: string }[] = [];
    await t.test('each night is restored to a new partition, one of them killed and run again', async (t) => {
      t.equal((await command('verify', backups)).code, EXIT.DONE);
      for (const generation of [1, 2, 3]) {
        const partition = path.join(cldd.folder, `new-${generation}`);
        t.equal((await command('init', partition, '--size', '160M')).code, EXIT.DONE);
        const args = ['restore', backups, '--to', partition, '--generation', String(generation), '--yes'];
        if (generation === 3) {
          const killed = new Running(PROGRAM, [...args, '--rate', '2M'], { env });
          const begun = async (): Promise<boolean> =>
            (await fs.readdir(backups)).some((name) => name.startsWith('.restoring-'));
          while (!(await begun()) && killed.alive) await sleep(20);
          t.ok(killed.alive, 'it is under way');
          await killed.end('SIGKILL');
        }
        const done = await command(...args);
        t.equal(done.code, EXIT.DONE, done.stderr);
        restored.push({ name: `iqn.2026-01.org.example:night-${generation}`, partition });
      }
    });

    await t.test('Linux finds each clean and each file as it was that night', async (t) => {
      const port = await freePort();
      const configuration = path.join(cldd.folder, 'new.yaml');
      const targets = restored.map((target) => ({ ...target, access: [{ initiator: '*' }] }));
      const portals = [{ listen: `127.0.0.1:${port}`, advertise: `${HOST_ADDRESS}:${port}` }];
      const controlSocket = path.join(cldd.folder, 'new.sock');
      await fs.writeFile(configuration, JSON.stringify({ portals, targets, controlSocket }));
      const daemon = new Running(PROGRAM, ['serve', configuration], { env });
      t.teardown(() => daemon.end());
      await daemon.waitFor(/^cldd ready/m, 60_000);
      for (const [index, { name }] of restored.entries()) {
        const host = new Initiator(guest, { target: name, port });
        if (index === 0) await host.discover();
        await host.login();
        const disk = await host.disk(0);
        t.match(await guest.succeed(`e2fsck -fn ${disk}`), /Pass 5/, 'e2fsck has no complaint');
        t.equal(
          await guest.succeed(
            `mkdir -p /run/new; mount -t ext4 -o ro ${disk} /run/new; ${tree('/run/new')}; umount /run/new`,
          ),
          trees[index],
          `night ${index + 1}`,
        );
        await host.logout();
      }
    });
  },
);

/**
 * The command of the nightly unit, as systemd makes it of ExecStart= and the environment file: words are split at
 * spaces. Only the places of the program and its socket are ours.
 */
async function timersCommand(socket: string, args: string): Promise<string> {
  const unit = await fs.readFile(path.join(ROOT, 'packaging/systemd/cldd-backup.service'), 'utf8');
  const [, command = ''] = /^ExecStart=(.+)$/m.exec(unit) ?? [];
  const changed = command
    .replace('/usr/bin/cldd ', `${PROGRAM} `)
    .replace('/run/cldd/cldd.sock', socket)
    .replace('$CLDD_BACKUP_ARGS', args);
  if (changed.split(' ').length < 12 || changed.includes('$')) throw new Error(`not understood: ${command}`);
  return `exec ${changed}`;
}

interface Hooks {
  unmount: string;
  mount: string;
  /** Resolves when the file system has been mounted the next time. */
  mounted: () => Promise<void>;
  close: () => void;
}

/** Scripts for --pre and --post that reach the guest by its agent, as ssh would reach a file server. */
async function hooksOn(guest: Guest, folder: string, disk: string): Promise<Hooks> {
  const place = path.join(folder, 'hooks.sock');
  let waiting: (() => void)[] = [];
  const server = net.createServer((socket) => {
    socket.on('error', () => undefined);
    socket.once('data', (asked) => {
      const script = asked.toString() === 'mount' ? `mount -t ext4 ${disk} /mnt` : 'umount /mnt';
      void guest.run(script).then(({ code }) => {
        socket.end(String(code));
        if (asked.toString() !== 'mount' || code !== 0) return;
        for (const done of waiting) done();
        waiting = [];
      });
    });
  });
  await new Promise<void>((resolve) => server.listen(place, resolve));
  const client = `const s = require('node:net').connect(${JSON.stringify(place)}); s.write(process.argv[2]); s.on('data', (c) => process.exit(Number(c)))`;
  await fs.writeFile(path.join(folder, 'hook.cjs'), client);
  const made = async (what: string): Promise<string> => {
    const file = path.join(folder, what);
    const script = `#!/bin/sh\nexec '${process.execPath}' '${path.join(folder, 'hook.cjs')}' ${what}\n`;
    await fs.writeFile(file, script, { mode: 0o755 });
    return file;
  };
  return {
    unmount: await made('unmount'),
    mount: await made('mount'),
    mounted: () => new Promise<void>((resolve) => waiting.push(resolve)),
    close: () => server.close(),
  };
}

/** Whether a copy has written more than its header. */
async function copying(backups: string): Promise<boolean> {
  const name = (await fs.readdir(backups)).find((one) => one.endsWith('.partial'));
  return name !== undefined && (await fs.stat(path.join(backups, name))).size > 64 << 10;
}

const shell = (line: string): Promise<Finished> =>
  run('/bin/sh', ['-c', line], { env, timeoutMs: COMMAND_TIMEOUT_MS });
const command = (...args: string[]): Promise<Finished> =>
  run(PROGRAM, args, { env, timeoutMs: COMMAND_TIMEOUT_MS });

async function finished(running: Running): Promise<Omit<Finished, 'timedOut'>> {
  const ended = await running.ended;
  return { ...ended, stdout: running.stdout, stderr: running.stderr };
}
