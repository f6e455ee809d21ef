/**
 * `npm run fuzz`: the long forms of the fuzzers.
 *   npm run fuzz -- [--what WHAT] [--count N] [--seed N]
 * WHAT is one of the table below, pdus unless said otherwise; `--pdus N` is `--what pdus --count N`. The same seed makes
 * the same inputs. The exit code is 1 if one of them did what it should not.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { prepare, root } from './prepare.mjs';

const inputs = (what) => ({
  test: 'test/fuzz/fuzz.test.js',
  count: 200_000,
  env: 'FUZZ_INPUTS',
  more: { FUZZ_WHAT: what },
});

/** The test that has the fuzzer, how many inputs its long form has, and the variable that says so. */
const FUZZERS = {
  pdus: { test: 'conformance/rfc7143/fuzz.test.js', count: 1_000_000, env: 'FUZZ_PDUS' },
  cdbs: { test: 'test/scsi/fuzz.test.js', count: 500_000, env: 'FUZZ_COMMANDS' },
  partition: { test: 'test/security/partition.test.js', count: 5000, env: 'FUZZ_LIES' },
  text: inputs('text'),
  config: inputs('config'),
  control: inputs('control'),
  backup: inputs('backup'),
};

const { values } = parseArgs({
  options: {
    what: { type: 'string', default: 'pdus' },
    count: { type: 'string' },
    pdus: { type: 'string' },
    seed: { type: 'string', default: '1' },
  },
});
const fuzzer = Object.hasOwn(FUZZERS, values.what) ? FUZZERS[values.what] : undefined;
const count = values.count ?? values.pdus ?? fuzzer?.count;
if (fuzzer === undefined || !(Number(count) > 0) || !Number.isSafeInteger(Number(values.seed))) {
  process.stderr.write(
    `fuzz: --what is one of ${Object.keys(FUZZERS).join(', ')}; --count and --seed want numbers\n`,
  );
  process.exit(2);
}
prepare();
const { status } = spawnSync(process.execPath, ['--enable-source-maps', join(root, 'dist', fuzzer.test)], {
  env: {
    ...process.env,
    ...fuzzer.more,
    [fuzzer.env]: String(count),
    FUZZ_SEED: values.seed,
    TAP_TIMEOUT: '36000',
  },
  stdio: 'inherit',
});
process.exitCode = status ?? 1;
