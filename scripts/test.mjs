// `npm test`: installs and builds what is missing, then runs every check that the project has.
//
//   npm test                 everything
//   npm test -- FILE…        only test files whose path contains one of these words, and none that begins with '!',
//                            without lint and format: `npm test -- cow '!mutants'`
//   npm run stories          the test files that take too long for each run of everything (LONG)
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { prepare, root } from './prepare.mjs';
import { clientsRequired, ensurePackages } from './debian.mjs';

/** What takes minutes and real programs. */
const LONG = [
  'cli/again',
  'cli/backup-places',
  'cli/commands',
  'cli/docker',
  'cli/install',
  'cli/recipes',
  'cli/recovery',
];

/** What takes longest begins first, so that nothing is left to run alone at the end; about in the order of seconds. */
const SLOWEST = [
  'libiscsi/libiscsi',
  'bench/bench',
  'soak/soak',
  'qemu/qemu',
  'cli/backup-faults',
  'cli/backup.',
  'cli/program',
  'cli/interrupted',
  'cow/powercut',
  'cow/mutants',
];

/** Most files wait for a disc, a clock or a program of theirs now and then. */
const JOBS = availableParallelism() + 1;

const given = process.argv.slice(2);
const words = given[0] === '--long' ? LONG : given;
const unwanted = words.filter((word) => word.startsWith('!')).map((word) => word.slice(1));
const wanted = words.filter((word) => !word.startsWith('!'));

function run(name, command, args) {
  process.stdout.write(`\n== ${name}\n`);
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: environment() });
  if (error) throw error;
  return status ?? 1;
}

function environment() {
  return { ...process.env, PATH: `${root}/node_modules/.bin:${process.env.PATH}`, UV_THREADPOOL_SIZE: '16' };
}

/** Tests by their outcome, read from the TAP of each file: the subtests one level below it. */
function count(tap) {
  const counts = { passed: 0, failed: 0, skipped: 0, skips: [] };
  for (const line of readFileSync(tap, 'utf8').split('\n')) {
    const match = /^(?: {4})?(not ok|ok) \d+ - (.*)$/.exec(line);
    if (match === null) continue;
    const isFile = !line.startsWith(' ');
    // A file that failed by itself (a crash, a time-out) counts too; one that passed is only the sum of its tests.
    if (isFile && match[1] === 'ok' && !/# SKIP/i.test(match[2])) continue;
    if (/# SKIP/i.test(match[2])) {
      counts.skipped++;
      counts.skips.push(match[2]);
    } else if (match[1] === 'ok') counts.passed++;
    else counts.failed++;
  }
  return counts;
}

await prepare();
const missing = ensurePackages();
if (missing.length > 0 && clientsRequired()) {
  process.stderr.write('In CI every client has to be there.\n');
  process.exit(1);
}

let failed = 0;
if (words.length === 0) {
  failed += run('lint', 'eslint', ['--max-warnings=0', '.']) === 0 ? 0 : 1;
  failed += run('format', 'prettier', ['--log-level=warn', '--check', '.']) === 0 ? 0 : 1;
}

/** Compiled tests, named by their sources, so that what an older build left behind is not run. */
function testFiles() {
  return ['test', 'conformance']
    .flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true }).map((name) => join(folder, name)),
    )
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => join('dist', name.replace(/\.ts$/, '.js')))
    .filter((file) => wanted.length === 0 || wanted.some((word) => file.includes(word)))
    .filter((file) => !unwanted.some((word) => file.includes(word)))
    .filter((file) => words.length > 0 || !LONG.some((word) => file.includes(word)))
    .sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
}

function rank(file) {
  const at = SLOWEST.findIndex((word) => file.includes(word));
  return at < 0 ? SLOWEST.length : at;
}

const files = testFiles();
if (files.length === 0) {
  process.stderr.write('no test file matches\n');
  process.exit(2);
}
mkdirSync(`${root}/.cache`, { recursive: true });
const tap = `${root}/.cache/test.tap`;
const reporter = process.stdout.isTTY ? [] : ['--reporter=terse'];
const status = run('tests', 'tap', [...reporter, `--jobs=${JOBS}`, `--output-file=${tap}`, ...files]);
const counts = count(tap);
if (status !== 0 && counts.failed === 0) failed++;
failed += counts.failed;

if (words.length === 0) process.stdout.write(`Left to npm run stories: ${LONG.join(', ')}\n`);
for (const skip of counts.skips) process.stdout.write(`SKIPPED ${skip}\n`);
process.stdout.write(`\n${counts.passed} passed, ${failed} failed, ${counts.skipped} skipped\n`);
process.exit(failed === 0 ? 0 : 1);
