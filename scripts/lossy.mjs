/**
 * `npm run lossy`: the long form of commands over a network that damages one PDU in a hundred (conformance/lossy).
 *   npm run lossy -- [--commands N] [--level 1|2] [--seed N]     100,000 commands at each level, unless said otherwise
 * The exit code is 1 if a command failed or a block was not as it was last written.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { prepare, root } from './prepare.mjs';

const { values } = parseArgs({
  options: {
    commands: { type: 'string', default: '100000' },
    level: { type: 'string', default: '1,2' },
    seed: { type: 'string', default: '1' },
  },
});
if (
  !(Number(values.commands) > 0) ||
  !Number.isSafeInteger(Number(values.seed)) ||
  !['1', '2', '1,2'].includes(values.level)
) {
  process.stderr.write('lossy: --commands and --seed want numbers, --level 1 or 2\n');
  process.exit(2);
}
prepare();
const { status } = spawnSync(process.execPath, [join(root, 'dist/conformance/lossy/lossy.test.js')], {
  env: {
    ...process.env,
    LOSSY_COMMANDS: values.commands,
    LOSSY_LEVELS: values.level,
    LOSSY_SEED: values.seed,
    LOSSY_SESSIONS: '8',
  },
  stdio: 'inherit',
});
process.exitCode = status ?? 1;
