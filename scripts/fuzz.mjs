/**
 * `npm run fuzz`: the long form of the fuzzer of PDU streams (conformance/rfc7143/fuzz.ts).
 *   npm run fuzz -- [--pdus N] [--seed N]     1,000,000 PDUs from seed 1, unless said otherwise
 * The same seed makes the same stream. The exit code is 1 if the target crashed, hung, grew, or changed its data.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { prepare, root } from './prepare.mjs';

const { values } = parseArgs({
  options: { pdus: { type: 'string', default: '1000000' }, seed: { type: 'string', default: '1' } },
});
if (!(Number(values.pdus) > 0) || !Number.isSafeInteger(Number(values.seed))) {
  process.stderr.write('fuzz: --pdus and --seed want numbers\n');
  process.exit(2);
}
prepare();
const { status } = spawnSync(process.execPath, [join(root, 'dist/conformance/rfc7143/fuzz.test.js')], {
  env: { ...process.env, FUZZ_PDUS: values.pdus, FUZZ_SEED: values.seed },
  stdio: 'inherit',
});
process.exitCode = status ?? 1;
