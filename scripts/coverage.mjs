/**
 * `npm run coverage [-- WORD…]`: lines and branches of src that the tests run, in their own processes and in the
 * programs that they start. Takes longer than `npm test`. The exit code is 1 below the thresholds or if a test fails.
 * With words only the test files whose path contains one of them are run, without thresholds.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import process from 'node:process';
import { prepare, root } from './prepare.mjs';

const LINES_MIN = '95';
const BRANCHES_MIN = '95';

const words = process.argv.slice(2);
prepare();
const thresholds =
  words.length === 0 ? ['--check-coverage', '--lines', LINES_MIN, '--branches', BRANCHES_MIN] : [];
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
    ...thresholds,
    process.execPath,
    'scripts/test.mjs',
    ...(words.length === 0 ? ['test/', 'conformance/rfc7143'] : words),
  ],
  { cwd: root, stdio: 'inherit' },
);
process.exitCode = status ?? 1;
