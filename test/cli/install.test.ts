/** The Debian package and the npm package, installed into folders of their own, and the program run from there. */
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import tap from 'tap';
import { needing } from '../../conformance/support/clients.js';
import { EXIT } from '../../conformance/support/cldd.js';
import { ROOT } from '../../conformance/support/paths.js';
import { run, Running, succeed } from '../../conformance/support/processes.js';
import { packageVersion } from '../../src/package-root.js';
import { WAIT_MS, scratch } from './support.js';

tap.setTimeout(290_000);
const folder = scratch('install');
const version = packageVersion();
const asRoot = process.getuid?.() === 0 ? {} : { skip: 'dpkg installs as root only' };
/** What is installed runs by itself, without this checkout's build. */
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => name !== 'CLDD_DIST'));

/** The program from where it was installed: a partition made, served, asked, ended. */
async function works(t: Tap, program: string): Promise<void> {
  t.equal((await succeed(program, ['--version'], { env })).trim(), version);
  const place = join(folder, `works-${readdirSync(folder).length}`);
  mkdirSync(place);
  const [partition, socket] = [join(place, 'p'), join(place, 's')];
  await succeed(program, ['init', partition, '--size', '32M'], { env });
  const serve = ['serve', '--partition', partition, '--portal', '127.0.0.1:0', '--socket', socket];
  const daemon = new Running(program, serve, { env });
  t.teardown(() => daemon.end());
  await daemon.waitFor(/^cldd ready/m, WAIT_MS);
  t.match(await succeed(program, ['status', '--socket', socket], { env }), /slave +disabled/);
  t.same(await daemon.end(), { code: EXIT.DONE, signal: undefined });
}
type Tap = Pick<typeof tap, 'equal' | 'match' | 'same' | 'teardown'>;

void tap.test(
  'the Debian package puts everything in its place, and is gone when it is removed',
  { ...needing('dpkg-deb', 'dpkg', 'man', 'systemd-sysusers'), ...asRoot },
  async (t) => {
    // The test's own build is the one that goes in.
    const built = await succeed(process.execPath, ['scripts/deb.mjs', folder], {
      cwd: ROOT,
      env: { ...env, CLDD_PREPARED: '1' },
      timeoutMs: 240_000,
    });
    const deb = built.trim();
    t.match(await succeed('dpkg-deb', ['--info', deb]), /Depends: nodejs \(>= 20\.9\)/);
    const root = join(folder, 'root');
    for (const path of ['var/lib/dpkg/updates', 'var/lib/dpkg/info', 'etc', 'tmp'])
      mkdirSync(join(root, path), { recursive: true });
    for (const path of ['status', 'available']) writeFileSync(join(root, 'var/lib/dpkg', path), '');
    const dpkg = (...args: string[]): Promise<string> =>
      succeed('dpkg', [
        `--root=${root}`,
        '--force-depends',
        '--force-script-chrootless',
        '--no-triggers',
        ...args,
      ]);
    await dpkg('--install', deb);
    const text = (path: string): string => readFileSync(join(root, path), 'utf8');
    t.match(text('etc/passwd'), /^cldd:/m, 'the user of the service');
    t.ok(existsSync(join(root, 'etc/cldd')), 'the folder of the configuration');
    for (const unit of [
      'cldd.service',
      'cldd-backup.service',
      'cldd-backup.timer',
      'cldd-thaw.service',
      'cldd.socket',
    ]) {
      const lines = text(`usr/lib/systemd/system/${unit}`).matchAll(/^Exec\w+=(\S+)/gm);
      for (const [, program] of lines) t.ok(existsSync(join(root, program)), `${unit}: ${program}`);
    }
    t.match(text('usr/share/doc/cldd/examples/one-host.conf'), '\nExecStart=/usr/lib/cldd/io-flusher ');
    t.equal(
      statSync(join(root, 'usr/lib/cldd/io-flusher')).mode & 0o777,
      0o755,
      'for a host that uses its own target',
    );
    for (const path of [
      'usr/lib/udev/rules.d/70-cldd.rules',
      'usr/share/bash-completion/completions/cldd',
      'usr/share/zsh/vendor-completions/_cldd',
      'usr/share/fish/vendor_completions.d/cldd.fish',
      'usr/share/doc/cldd/copyright',
      'usr/share/doc/cldd/docs/recovery.md',
    ])
      t.ok(text(path).length > 50, path);
    const manual = await succeed('man', ['-M', join(root, 'usr/share/man'), '8', 'cldd'], {
      env: { ...env, MANPAGER: 'cat', MANROFFOPT: '-c' },
    });
    t.match(manual, /cldd restore/);
    await works(t, join(root, 'usr/bin/cldd'));
    const left = await succeed('find', [root, '-perm', '/022', '-type', 'f', '-path', '*cldd*']);
    t.equal(left, '', 'nobody but root may write what it runs');
    await dpkg('--remove', 'cldd');
    t.notOk(existsSync(join(root, 'usr/lib/cldd')));
    t.notOk(existsSync(join(root, 'usr/bin/cldd')));
    t.ok(existsSync(join(root, 'etc/cldd')), 'the configuration stays');
  },
);

void tap.test(
  'npm install -g of the packed tarball brings the program and its manual',
  needing('npm', 'man'),
  async (t) => {
    await succeed(process.execPath, ['dist/packaging/manual/main.js'], { cwd: ROOT, env });
    const packed = await succeed(
      'npm',
      ['pack', '--ignore-scripts', '--json', '--pack-destination', folder],
      {
        cwd: ROOT,
        env,
      },
    );
    const [{ filename, files }] = JSON.parse(packed) as [{ filename: string; files: { path: string }[] }];
    const names = files.map(({ path }) => path);
    t.ok(names.includes('packaging/systemd/cldd.service'));
    t.notOk(
      names.some((name) => /^(src|test|conformance|node_modules|dist\/test)\//.test(name)),
      'nothing of ours only',
    );
    const prefix = join(folder, 'prefix');
    await succeed(
      'npm',
      [
        'install',
        '--global',
        '--prefix',
        prefix,
        '--prefer-offline',
        '--no-audit',
        '--no-fund',
        join(folder, filename),
      ],
      { env, timeoutMs: 240_000 },
    );
    const pages = join(prefix, 'share/man');
    for (const [section, page] of [
      ['8', 'cldd'],
      ['5', 'cldd.yaml'],
      ['5', 'cldd-format'],
    ] as const) {
      const found = await run('man', ['-M', pages, '-w', section, page]);
      t.equal(found.code, 0, `${page}(${section})`);
    }
    await works(t, join(prefix, 'bin/cldd'));
  },
);
