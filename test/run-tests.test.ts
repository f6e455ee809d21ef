/** The runner of all tests (scripts/run-tests.mjs): nothing that goes wrong in a test file may pass. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import tap from 'tap';
import { run } from '../conformance/support/processes.js';
import { packageRoot } from './package-root.js';

const RUNNER = join(packageRoot(), 'scripts/run-tests.mjs');
const folder = mkdtempSync(join(tmpdir(), 'cldd-runner-'));
tap.teardown(() => rmSync(folder, { recursive: true, force: true }));

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
  skips: string[];
}

/** What the runner counts and prints for files with these texts, and the TAP that it leaves. */
async function runTexts(...texts: string[]): Promise<{ counts: Counts; said: string; tap: string }> {
  const files = texts.map((text, index) => {
    const file = join(folder, `${index}.mjs`);
    writeFileSync(file, text);
    return file;
  });
  const left = join(folder, 'left.tap');
  const line = `import { runFiles } from ${JSON.stringify(RUNNER)};
    const counts = await runFiles(${JSON.stringify(files)}, { jobs: 2, tap: ${JSON.stringify(left)} });
    process.stderr.write(JSON.stringify(counts));`;
  const env = { ...process.env, TAP_TIMEOUT: '600' };
  const { stdout, stderr } = await run(process.execPath, ['--input-type=module', '-e', line], { env });
  return { counts: JSON.parse(stderr) as Counts, said: stdout, tap: readFileSync(left, 'utf8') };
}

const tapFile = (body: string): string =>
  `import tap from ${JSON.stringify(import.meta.resolve('tap'))};\n${body}`;

void tap.test('tests of the first level are counted, with what is skipped', async (t) => {
  const { counts, said, tap } = await runTexts(
    tapFile(`tap.test('one', async (t) => { t.pass('a'); t.pass('b'); });
      tap.test('two', { skip: 'no such client' }, async (t) => t.pass());`),
    tapFile(`tap.plan(0, 'nothing of it here');`),
  );
  t.match(counts, { passed: 1, failed: 0, skipped: 2 });
  t.match(counts.skips.join(), /two # SKIP no such client/);
  t.match(counts.skips.join(), /1\.mjs # SKIP nothing of it here/i);
  t.match(said, /^ok +\d+\.\d s {2}\S+0\.mjs$/m);
  t.match(tap, /^# Subtest: \S+0\.mjs\n[^]*^ {4}ok 1 - one/m);
});

void tap.test('a failed assertion is shown, and its test counts as failed', async (t) => {
  const { counts, said } = await runTexts(
    tapFile(`tap.test('outer', (t) => t.test('inner', async (t) => { t.pass('fine'); t.equal(6 * 7, 43, 'sum'); }));
      tap.test('other', async (t) => t.pass('fine'));`),
  );
  t.match(counts, { passed: 1, failed: 1 });
  t.match(said, /^NOT OK +\d+\.\d s {2}\S+0\.mjs$/m);
  t.match(said, /not ok 2 - sum\n +---[^]+\+42\n[^]+\.\.\.\n/);
  t.notMatch(said, /ok \d+ - fine/);
});

void tap.test('a file that does not get through fails, also if all that it printed is well', async (t) => {
  const passed = "console.log('TAP version 14'); console.log('ok 1 - first');";
  for (const [text, why] of [
    [`${passed} console.log('1..2');`, /planned 2 tests and ran 1/],
    [`${passed} process.exit(0);`, /printed no plan/],
    [`${passed} console.log('1..1'); process.exit(3);`, /ended with exit code 3/],
    [`${passed} process.kill(process.pid, 'SIGKILL');`, /ended with SIGKILL/],
    [`${passed} console.log('1..1'); throw new Error('on the way');`, / {4}! Error: on the way/],
    ['syntax error', /SyntaxError/],
  ] as const) {
    const { counts, said } = await runTexts(text);
    t.equal(counts.failed, 1, text);
    t.match(said, why, text);
  }
});

void tap.test('a file that hangs is ended when its time is up', async (t) => {
  const { counts, said } = await runTexts(
    tapFile(`tap.setTimeout(500);
      tap.test('hangs', () => new Promise(() => setInterval(() => {}, 1000)));`),
  );
  t.match(counts, { failed: 1 });
  t.match(said, /not ok \d+ - timeout![^]*not ok \d+ - hangs/);
});
