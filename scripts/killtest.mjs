/**
 * `npm run killtest`: the long form of test/kill: SIGKILL for the daemon under load.
 *   npm run killtest -- [--kills N] [--seed N] [--lossy]     50 kills from seed 1, unless said otherwise
 * `--lossy`: each kill also loses half of what was not synced, as a power cut does. The exit code is 1 if something that
 * was flushed is not there, or the slave changed.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { prepare, root } from './prepare.mjs';

const { values } = parseArgs({
  options: {
    kills: { type: 'string', default: '50' },
    seed: { type: 'string', default: '1' },
    lossy: { type: 'boolean', default: false },
  },
});
const kills = Number(values.kills);
if (!Number.isSafeInteger(kills) || kills < 1 || !Number.isSafeInteger(Number(values.seed))) {
  process.stderr.write('killtest: --kills and --seed want numbers\n');
  process.exit(2);
}
await prepare();
const { status } = spawnSync(process.execPath, [join(root, 'dist/test/kill/kill.test.js')], {
  env: {
    ...process.env,
    KILLS: String(kills),
    KILL_SEED: values.seed,
    KILL_LOSSY: values.lossy ? '1' : '',
    TAP_TIMEOUT: String(60 * (kills + 12)),
  },
  stdio: 'inherit',
});
process.exitCode = status ?? 1;
