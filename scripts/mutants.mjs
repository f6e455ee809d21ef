/**
 * `npm run mutants -- FILE… [--tests WORD]… [--jobs N]`: mutation testing of sources in src/scsi and src/cow by Stryker.
 *   npm run mutants -- src/scsi/sense.ts
 * Each mutant (a condition turned, a constant changed, a call left out) has to make a test fail; those that survive are
 * listed, and docs/mutants.md says of each why that is right, or it wants a test. The tests are those of the same layer,
 * or with --tests those whose name contains one of the words. Slow: minutes for a small file.
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
/** Makes one file of each test. */
const ESBUILD = '0.25.9';
/** Too slow to be run for every mutant, unless --tests names one in full; they run the engine as a whole, as others do. */
const SLOW = new Set(['mutants', 'system-calls', 'check-online', 'holding', 'activity', 'fuzz']);

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

/** Which of the words a name contains: tests run in the order of the words, those that notice most should come first. */
const wordOf = (name) => values.tests.findIndex((word) => name.includes(word));
const tests = readdirSync(join(root, 'test', layer))
  .filter((name) => name.endsWith('.test.ts'))
  .map((name) => name.slice(0, -'.test.ts'.length))
  .filter((name) => wordOf(name) >= 0 && (!SLOW.has(name) || values.tests.includes(name)))
  .sort((one, other) => wordOf(one) - wordOf(other))
  .map((name) => `dist/test/${layer}/${name}.test`);

const folder = join(root, '.cache/mutants');
mkdirSync(folder, { recursive: true });
const configuration = join(folder, 'stryker.json');
writeFileSync(
  configuration,
  JSON.stringify({
    mutate: positionals,
    testRunner: 'tap',
    tap: { testFiles: tests.map((test) => `${test}.cjs`), nodeArgs: [], forceBail: true },
    buildCommand: `node scripts/mutants-bundle.mjs ${tests.map((test) => `${test}.js`).join(' ')}`,
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
const packages = [
  `@stryker-mutator/core@${VERSION}`,
  `@stryker-mutator/tap-runner@${VERSION}`,
  `esbuild@${ESBUILD}`,
].flatMap((name) => ['--package', name]);
const { status } = spawnSync('npx', ['--yes', ...packages, 'stryker', 'run', configuration], {
  cwd: root,
  stdio: 'inherit',
  env: { ...process.env, TAP_TIMEOUT: '240', CLDD_TEST_PART: '0.05', npm_config_ignore_scripts: 'true' },
});
process.exitCode = status ?? 1;
