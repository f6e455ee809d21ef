/**
 * `npm run soak`: the long form of the soak (test/soak/soak.ts).
 *   npm run soak -- [--minutes N] [--seed N]     30 minutes from seed 1, unless said otherwise
 * The exit code is 1 if data were lost or changed, or memory or file descriptors were left behind.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { prepare, root } from './prepare.mjs';

const { values } = parseArgs({
  options: { minutes: { type: 'string', default: '30' }, seed: { type: 'string', default: '1' } },
});
const minutes = Number(values.minutes);
if (!(minutes > 0) || !Number.isSafeInteger(Number(values.seed))) {
  process.stderr.write('soak: --minutes and --seed want numbers\n');
  process.exit(2);
}
await prepare();
const { status } = spawnSync(process.execPath, [join(root, 'dist/test/soak/soak.test.js')], {
  env: {
    ...process.env,
    SOAK_MS: String(minutes * 60_000),
    SOAK_SEED: values.seed,
    TAP_TIMEOUT: String(240 + minutes * 180),
  },
  stdio: 'inherit',
});
process.exitCode = status ?? 1;
