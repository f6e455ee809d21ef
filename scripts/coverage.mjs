/**
 * `npm run coverage [-- WORD…]`: lines and branches of src that the tests run, in their own processes and in the
 * programs that they start. Takes longer than `npm test`. The exit code is 1 below the thresholds, if a branch of the
 * storage engine is run by no test, or if a test fails. With words only the test files whose path contains one of them are
 * run, without thresholds.
 *
 * Left out are modules of types only, which have no lines that could run, and tests that add nothing but time: a daemon
 * that is killed leaves no coverage, and the bench runs lines that others run.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import process from 'node:process';
import { prepare, root } from './prepare.mjs';

const TESTS = [
  'test/',
  'conformance/rfc7143',
  'conformance/libiscsi',
  'conformance/qemu',
  ...['!bench/', '!soak/', '!kill/'],
];
const LINES_MIN = '95';
const BRANCHES_MIN = '95';
/** Of what lies here, all branches. */
const WHOLE = 'src/cow/';

const words = process.argv.slice(2);
await prepare();
const thresholds =
  words.length === 0 ? ['--check-coverage', '--lines', LINES_MIN, '--branches', BRANCHES_MIN] : [];

/** Sources that the compiler makes nothing of. */
function typesOnly() {
  return readdirSync(join(root, 'src'), { recursive: true })
    .filter((name) => name.endsWith('.ts'))
    .filter((name) => {
      const made = readFileSync(join(root, 'dist/src', name.replace(/\.ts$/, '.js')), 'utf8');
      return /^(?:\/\*[^]*?\*\/|\/\/.*|\s)*export \{\};\s*(?:\/\/.*\s*)?$/.test(made);
    })
    .map((name) => join('src', name));
}

/** Where a branch of WHOLE is that nothing ran. */
function missed() {
  const coverage = JSON.parse(readFileSync(join(root, 'coverage/coverage-final.json'), 'utf8'));
  return Object.entries(coverage).flatMap(([path, { b, branchMap }]) => {
    const name = relative(root, path);
    if (!name.startsWith(WHOLE)) return [];
    const lines = readFileSync(path, 'utf8').split('\n');
    return Object.entries(b).flatMap(([id, counts]) =>
      counts.flatMap((count, index) => {
        const { start, end } = branchMap[id].locations[index];
        const line = lines[start.line - 1];
        // V8 counts what lies between a catch that always throws and its `finally`: nothing.
        const isNothing =
          start.line === end.line && line.slice(start.column, end.column).trim() === 'finally {';
        return count > 0 || isNothing ? [] : [`${name}:${start.line}: ${line.trim()}`];
      }),
    );
  });
}

const { status } = spawnSync(
  process.execPath,
  [
    join(root, 'node_modules/c8/bin/c8.js'),
    '--all',
    '--src',
    'src',
    '--include',
    'src/**',
    '--exclude-after-remap',
    '--reporter',
    'text',
    '--reporter',
    'json-summary',
    '--reporter',
    'json',
    ...typesOnly().flatMap((name) => ['--exclude', name]),
    ...thresholds,
    process.execPath,
    'scripts/test.mjs',
    ...(words.length === 0 ? TESTS : words),
  ],
  { cwd: root, stdio: 'inherit' },
);
process.exitCode = status ?? 1;

if (words.length === 0) {
  const branches = missed();
  for (const branch of branches) process.stderr.write(`no test runs ${branch}\n`);
  if (branches.length > 0) process.exitCode = 1;
}
