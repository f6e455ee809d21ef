/** docs/recipes.md, command by command: tools of others on a slave that is read over iSCSI, while the master goes on. */
import { mkdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import tap from 'tap';
import { needing } from '../../conformance/support/clients.js';
import { EXIT } from '../../conformance/support/cldd.js';
import { ROOT } from '../../conformance/support/paths.js';
import { run, Running, succeed } from '../../conformance/support/processes.js';
import { Bacula } from './bacula.js';
import { Served, WAIT_MS, env, scratch } from './support.js';

tap.setTimeout(290_000);
const folder = scratch('recipes');
const [source, device, mounted, backup] = ['source', 'slave', 'mnt', 'backup'].map((name) =>
  join(folder, name),
);
const SIZE_MIB = 24;

/** The blocks of commands under a heading. */
function blocks(heading: string): string[] {
  const text = readFileSync(join(ROOT, 'docs/recipes.md'), 'utf8');
  const [, section = ''] = text.split(new RegExp(`^#+ ${heading}.*$`, 'm'));
  const [body] = section.split(/^## /m);
  return [...body.matchAll(/(?:^ {4}.*\n)+/gm)].map(([block]) => block.replace(/^ {4}/gm, ''));
}

/** Runs a block as it stands there, in places of the test. */
function recipe(block: string, fresh: string): Promise<string> {
  const script = block
    .replaceAll('/dev/sdY', device)
    .replaceAll('/dev/sdZ', join(fresh, 'disk'))
    .replaceAll('/mnt/slave', mounted)
    .replaceAll('/backup/', `${backup}/`)
    .replaceAll('/srv/new', fresh)
    .replaceAll('/etc/cldd/restic-password', join(folder, 'password'));
  if (/\/(dev\/sd|srv|etc)/.test(script)) throw new Error(`a place is not the test's own: ${script}`);
  return succeed('bash', ['-euo', 'pipefail', '-c', script], {
    env: { ...env, HOME: folder, BORG_BASE_DIR: folder, RESTIC_CACHE_DIR: join(folder, 'cache') },
    timeoutMs: 120_000,
  });
}

const asRoot = process.getuid?.() === 0 ? {} : { skip: 'only root may mount' };

void tap.test(
  'the recipes',
  { ...needing('qemu-storage-daemon', 'qemu-img', 'mke2fs', 'fusermount3', 'bash'), ...asRoot },
  async (t) => {
    for (const path of [join(source, 'deep/er'), mounted, backup]) mkdirSync(path, { recursive: true });
    writeFileSync(join(folder, 'password'), 'for-restic-only\n', { mode: 0o600 });
    for (const [name, bytes] of [
      ['small', 10],
      ['deep/er/large', 3_000_001],
      ['deep/empty', 0],
    ] as const)
      writeFileSync(join(source, name), Buffer.alloc(bytes, name));
    symlinkSync('deep/er', join(source, 'link'));
    const served = await Served.start(t, folder, '64M');
    const image = join(folder, 'made');
    await succeed('truncate', ['-s', `${SIZE_MIB}M`, image]);
    await succeed('mke2fs', ['-q', '-t', 'ext4', '-d', source, image]);
    await succeed('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', image, served.url]);
    t.equal((await served.ask('slave', 'enable')).code, EXIT.DONE);
    // Users go on: the whole master is other data now.
    await served.write(9, '0', `${SIZE_MIB}M`);

    // The disk that Linux would make of LUN 1: a file that qemu's initiator fills.
    writeFileSync(device, '');
    const [, portal = '', target = ''] = /^iscsi:\/\/([^/]+)\/([^/]+)\//.exec(served.url) ?? [];
    const initiator = new Running('qemu-storage-daemon', [
      ...[
        '--blockdev',
        `driver=iscsi,node-name=slave,transport=tcp,portal=${portal},target=${target},lun=1,read-only=on`,
      ],
      ...['--export', `type=fuse,id=disk,node-name=slave,mountpoint=${device},writable=off`],
    ]);
    t.teardown(() => initiator.end());
    const there = performance.now() + WAIT_MS;
    while ((await run('stat', ['-c', '%s', device])).stdout.trim() === '0') {
      if (performance.now() > there || !initiator.alive) throw new Error(`no disk: ${initiator.stderr}`);
      await new Promise((done) => setTimeout(done, 50));
    }
    const [, mount = '', unmount = ''] = blocks('Recipes');
    t.match([mount, unmount], [/^mount -o ro /, /^umount /]);
    await recipe(mount, folder);
    let isMounted = true;
    const leave = async (): Promise<void> => {
      if (isMounted) await recipe(unmount, folder);
      isMounted = false;
    };
    t.teardown(leave);

    /** Makes a folder for what comes back. */
    const fresh = (name: string): string => {
      const path = join(folder, `new-${name}`);
      mkdirSync(path);
      return path;
    };
    const same = async (t: Pick<typeof tap, 'equal'>, found: string): Promise<void> => {
      const done = await run('diff', ['-r', '--no-dereference', '--exclude=lost+found', source, found]);
      t.equal(done.code, 0, `${done.stdout}${done.stderr}`);
    };

    for (const [tool, within] of [
      ['tar', ''],
      ['restic', mounted],
      ['borg', mounted],
    ] as const)
      await t.test(tool, needing(tool), async (t) => {
        const [store = '', back = ''] = blocks(tool);
        const to = fresh(tool);
        await recipe(store, to);
        await recipe(back, to);
        await same(t, join(to, within));
      });

    await t.test('Bacula', needing('apt-get', 'dpkg'), async (t) => {
      const [resources = '', commands = ''] = blocks('Bacula');
      const to = fresh('bacula');
      const calls = join(folder, 'calls');
      for (const name of ['slave-mount', 'slave-unmount'])
        writeFileSync(join(folder, name), `#!/bin/sh\necho ${name} >> ${calls}\n`, { mode: 0o755 });
      const own = (text: string): string =>
        text.replaceAll('/mnt/slave', mounted).replaceAll('/srv/new', to).replaceAll('/etc/cldd', folder);
      const bacula = await Bacula.start(t, join(folder, 'bacula'), own(resources));
      const [backUp = '', restore = ''] = own(commands).trim().split('\n');
      t.match(await bacula.tell(backUp), /Backup OK/);
      t.equal(readFileSync(calls, 'utf8'), 'slave-mount\nslave-unmount\n');
      t.match(await bacula.tell(restore), /Restore OK/);
      await same(t, join(to, mounted));
    });

    await t.test('dd', async (t) => {
      const [store = ''] = blocks('dd');
      await recipe(store, folder);
      const whole = readFileSync(join(backup, 'files.img'));
      t.ok(whole.subarray(0, SIZE_MIB << 20).equals(readFileSync(image)));
    });

    await leave();
    await t.test('partclone', needing('partclone.extfs'), async (t) => {
      const [store = '', back = ''] = blocks('partclone');
      const to = fresh('partclone');
      // partclone writes to devices only.
      const file = join(to, 'file');
      writeFileSync(file, '');
      truncateSync(file, SIZE_MIB << 20);
      const loop = (await succeed('losetup', ['--find', '--show', file])).trim();
      t.teardown(() => succeed('losetup', ['--detach', loop]));
      symlinkSync(loop, join(to, 'disk'));
      await recipe(store, to);
      await recipe(back, to);
      const at = fresh('partclone-mounted');
      await succeed('mount', ['-o', 'ro', loop, at]);
      try {
        await same(t, at);
      } finally {
        await succeed('umount', [at]);
      }
    });
  },
);
