/**
 * `npm run mutants -- FILE… [--tests WORD]… [--jobs N]`: mutation testing of sources in src/scsi and src/cow by Stryker.
 *   npm run mutants -- src/scsi/sense.ts
 * Each mutant (a condition turned, a constant changed, a call left out) has to make a test fail; those that survive are
 * listed, and docs/mutants.md says of each why that is right, or it wants a test. The tests are those of the same layer,
 * or with --tests those whose path contains one of the words. Slow: minutes for a small file.
 *
 * Stryker is no devDependency: npx fetches it at this exact version, since its packages are as many as all others here.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { prepare, root } from './prepare.mjs';

/** The last that runs on Node 20. */
const VERSION = '9.6.1';
/** Too slow to be run for every mutant; they run the engine as a whole, as the others do. */
const SLOW = /(?:powercut|mutants|scale|model|damage|quiet|hostile-journal|fuzz)\.test/;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    tests: { type: 'string', multiple: true, default: [''] },
    jobs: { type: 'string', default: '1' },
  },
});
const layer = /^src\/(scsi|cow)\//.exec(positionals[0] ?? '')?.[1];
if (layer === undefined || !positionals.every((file) => existsSync(join(root, file)))) {
  process.stderr.write('mutants: name files in src/scsi or src/cow, as src/scsi/sense.ts\n');
  process.exit(2);
}
prepare();

const tests = readdirSync(join(root, 'test', layer))
  .filter((name) => name.endsWith('.test.ts') && !SLOW.test(name))
  .map((name) => `dist/test/${layer}/${name.replace(/\.ts$/, '.js')}`)
  .filter((file) => values.tests.some((word) => file.includes(word)));

const folder = join(root, '.cache/mutants');
mkdirSync(folder, { recursive: true });
const configuration = join(folder, 'stryker.json');
writeFileSync(
  configuration,
  JSON.stringify({
    mutate: positionals,
    testRunner: 'tap',
    tap: { testFiles: tests, nodeArgs: ['--enable-source-maps'], forceBail: true },
    buildCommand: 'tsc -p tsconfig.json',
    coverageAnalysis: 'perTest',
    concurrency: Number(values.jobs),
    // A machine that is shared is slow now and then: a mutant that loops is ended, a slow test is not.
    timeoutMS: 45_000,
    timeoutFactor: 4,
    reporters: ['clear-text', 'json'],
    clearTextReporter: { allowColor: false, logTests: false, reportTests: false },
    jsonReporter: { fileName: join(folder, 'report.json') },
    tempDirName: '.cache/mutants/sandbox',
    ignorePatterns: ['.cache', 'dist', 'var', 'coverage', 'bench/results*'],
    allowConsoleColors: false,
    disableTypeChecks: true,
    // It has nothing to rewrite there, and would need a TypeScript of its own for that.
    tsconfigFile: 'none',
  }),
);
const packages = ['core', 'tap-runner'].flatMap((name) => [
  '--package',
  `@stryker-mutator/${name}@${VERSION}`,
]);
const { status } = spawnSync('npx', ['--yes', ...packages, 'stryker', 'run', configuration], {
  cwd: root,
  stdio: 'inherit',
  env: { ...process.env, TAP_TIMEOUT: '240', npm_config_ignore_scripts: 'true' },
});
process.exitCode = status ?? 1;
