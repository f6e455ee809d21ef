/**
 * `npm run deb [-- FOLDER]`: builds the Debian package into dist/ or another folder, and prints its path. Needs dpkg-deb.
 * What is in it comes from this checkout and its installed packages; nothing is downloaded.
 */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import process from 'node:process';
import { gzipSync } from 'node:zlib';
import { prepare, root } from './prepare.mjs';

const PROGRAM = '/usr/lib/cldd';
const DOC = '/usr/share/doc/cldd';

/** Runs a program of ours or dpkg's; its output. */
function run(program, args, env = {}) {
  const { status, stdout, error } = spawnSync(program, args, {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 2],
    env: { ...process.env, ...env },
  });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${status}`);
  return stdout;
}

/** Packages that the program needs as it runs, by their folders. */
function production() {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  return Object.entries(packages)
    .filter(([path, { dev, devOptional, optional }]) => path !== '' && !dev && !devOptional && !optional)
    .map(([path]) => path);
}

/** What only the compiler reads does not go in. */
const isNeeded = (path) => !/\.(d\.[cm]?ts|map|tsbuildinfo)$/.test(path);

function stage(to) {
  const put = (from, place) => {
    mkdirSync(dirname(to + place), { recursive: true });
    cpSync(join(root, from), to + place, { recursive: true, filter: isNeeded });
  };
  const write = (place, content) => {
    mkdirSync(dirname(to + place), { recursive: true });
    writeFileSync(to + place, content);
  };
  for (const path of ['bin', 'dist/src', 'package.json', 'config', ...production()])
    put(path, `${PROGRAM}/${path}`);
  mkdirSync(`${to}/usr/bin`, { recursive: true });
  symlinkSync('../lib/cldd/bin/cldd', `${to}/usr/bin/cldd`);
  for (const unit of readdirSync(join(root, 'packaging/systemd')))
    put(`packaging/systemd/${unit}`, `/usr/lib/systemd/system/${unit}`);
  put('packaging/one-host/io-flusher', `${PROGRAM}/io-flusher`);
  put('packaging/sysusers/cldd.conf', '/usr/lib/sysusers.d/cldd.conf');
  put('packaging/tmpfiles/cldd.conf', '/usr/lib/tmpfiles.d/cldd.conf');
  put('packaging/udev/70-cldd.rules', '/usr/lib/udev/rules.d/70-cldd.rules');
  put('LICENSE', `${DOC}/copyright`);
  for (const path of ['README.md', 'docs']) put(path, `${DOC}/${path}`);
  for (const path of [
    'config/cldd.example.yaml',
    'config/cldd.minimal.yaml',
    'packaging/monitoring',
    'packaging/one-host/one-host.conf',
  ])
    put(path, `${DOC}/examples/${path.split('/').at(-1)}`);
  write(`${DOC}/changelog.gz`, gzipSync(readFileSync(join(root, 'CHANGELOG.md')), { level: 9 }));

  const manual = mkdtempSync(join(tmpdir(), 'cldd-man-'));
  run(process.execPath, ['dist/packaging/manual/main.js', manual]);
  for (const page of readdirSync(manual))
    write(
      `/usr/share/man/man${page.split('.').at(-1)}/${page}.gz`,
      gzipSync(readFileSync(join(manual, page)), { level: 9 }),
    );
  rmSync(manual, { recursive: true });
  const completion = (shell) => run(process.execPath, ['bin/cldd', 'completion', shell]);
  write('/usr/share/bash-completion/completions/cldd', completion('bash'));
  write('/usr/share/zsh/vendor-completions/_cldd', completion('zsh'));
  write('/usr/share/fish/vendor_completions.d/cldd.fish', completion('fish'));
}

function control(to) {
  const { version, description } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const { DEBFULLNAME = 'cldd', DEBEMAIL = 'root@localhost' } = process.env;
  const [kib] = run('du', ['-sk', '--apparent-size', to]).split('\t');
  const fields = {
    Package: 'cldd',
    Version: version,
    Architecture: 'all',
    Maintainer: `${DEBFULLNAME} <${DEBEMAIL}>`,
    'Installed-Size': kib,
    Depends: 'nodejs (>= 20.9)',
    Recommends: 'systemd',
    Suggests: 'open-iscsi',
    Section: 'admin',
    Priority: 'optional',
    Description: `${description}\n The first LUN, the master, is for reading and writing. The second, the slave, shows the\n master as it was when it was enabled: a consistent backup while people work.`,
  };
  mkdirSync(join(to, 'DEBIAN'));
  const text = Object.entries(fields).map(([name, value]) => `${name}: ${value}\n`);
  writeFileSync(join(to, 'DEBIAN/control'), text.join(''));
  for (const script of ['postinst', 'prerm', 'postrm']) {
    cpSync(join(root, 'packaging/debian', script), join(to, 'DEBIAN', script));
    chmodSync(join(to, 'DEBIAN', script), 0o755);
  }
  return `cldd_${version}_all.deb`;
}

/** Files of the checkout may have any mode; in the package all may be read, and what can be run stays so. */
function modes(folder) {
  chmodSync(folder, 0o755);
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) modes(path);
    else if (entry.isFile())
      chmodSync(
        path,
        /\/(usr\/lib\/cldd\/(bin\/cldd|io-flusher)|DEBIAN\/(post|pre)\w+)$/.test(path) ? 0o755 : 0o644,
      );
  }
}

// A test has prepared everything itself.
if (process.env.CLDD_PREPARED === undefined) prepare();
const folder = resolve(process.argv[2] ?? join(root, 'dist'));
mkdirSync(folder, { recursive: true });
const work = mkdtempSync(join(tmpdir(), 'cldd-deb-'));
try {
  stage(work);
  modes(work);
  const file = join(folder, control(work));
  modes(join(work, 'DEBIAN'));
  run('dpkg-deb', ['--root-owner-group', '-Zxz', '--build', work, file]);
  process.stdout.write(`${file}\n`);
} finally {
  rmSync(work, { recursive: true, force: true });
}
