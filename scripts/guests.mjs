/**
 * `npm run guests [-- WORD…]`: the long form of the tests with Linux guests (conformance/guest): initiator and target on
 * one small host, bad networks, paths cut in mid-write, storms of logins. Takes up to an hour under emulation.
 * With words, only the test files whose path contains one of them: `npm run guests -- same-host`.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import process from 'node:process';
import { root } from './prepare.mjs';

const words = process.argv.slice(2);
const { status } = spawnSync(
  process.execPath,
  [join(root, 'scripts/test.mjs'), ...(words.length === 0 ? ['conformance/guest'] : words)],
  { cwd: root, stdio: 'inherit', env: { ...process.env, GUEST_LONG: '1', TAP_TIMEOUT: '7200' } },
);
process.exitCode = status ?? 1;
