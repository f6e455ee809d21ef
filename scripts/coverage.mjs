/**
 * `npm run coverage [-- WORD…]`: lines and branches of src that the tests run, in their own processes and in the
 * programs that they start. Takes longer than `npm test`. The exit code is 1 below the thresholds or if a test fails.
 * With words only the test files whose path contains one of them are run, without thresholds.
 *
 * Left out are modules of types only, which have no lines that could run, and tests that add nothing but time: a daemon
 * that is killed leaves no coverage, and the simulator's variants and the bench run lines that others run.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import { prepare, root } from './prepare.mjs';

const TESTS = [
  'test/',
  'conformance/rfc7143',
  'conformance/libiscsi',
  'conformance/qemu',
  ...['!bench/', '!soak/', '!kill/', '!cow/mutants'],
];
const LINES_MIN = '95';
const BRANCHES_MIN = '95';

const words = process.argv.slice(2);
prepare();
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
    ...typesOnly().flatMap((name) => ['--exclude', name]),
    ...thresholds,
    process.execPath,
    'scripts/test.mjs',
    ...(words.length === 0 ? TESTS : words),
  ],
  { cwd: root, stdio: 'inherit' },
);
process.exitCode = status ?? 1;
