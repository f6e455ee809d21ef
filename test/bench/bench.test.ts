/** The bench works: every target starts, keeps what is written to it, and stands in the table. Never how fast it is. */
import { resolve } from 'node:path';
import tap from 'tap';
import { median, ratio } from '../../bench/report.js';
import type { Measured } from '../../bench/load.js';
import { needing } from '../../conformance/support/clients.js';
import { ROOT } from '../../conformance/support/paths.js';
import { run } from '../../conformance/support/processes.js';

const PROGRAM = resolve(import.meta.dirname, '../../bench/run.js');

void tap.test(
  'the short form compares cldd with tgtd and istgt, having read back every byte',
  needing('gcc', 'tgtd', 'istgt'),
  async (t) => {
    const args = [PROGRAM, '--short', '--rows', 'read-32,fua-1,digests-write'];
    const done = await run(process.execPath, args, { timeoutMs: 240_000 });
    t.equal(done.code, 0, done.stderr);
    t.match(done.stdout, /^\| workload \| slave disabled \| slave enabled \| tgtd tuned \| istgt \|$/m);
    for (const title of ['random read, depth 32', 'with FUA, depth 1', 'header and data digests']) {
      const ratios = new RegExp(`^\\| \\d+ KiB .*${title} (\\| \\d+\\.\\d+ \\([^|]+){4}\\|$`, 'm');
      t.match(done.stdout, ratios, title);
    }
  },
);

void tap.test('--before compares with another build, and with nobody else', needing('gcc'), async (t) => {
  const args = [PROGRAM, '--short', '--rows', 'read-1,write-1', '--before', ROOT];
  const done = await run(process.execPath, args, { timeoutMs: 240_000 });
  t.equal(done.code, 0, done.stderr);
  t.match(done.stdout, /^\| workload \| cldd \| before \|$/m);
  for (const title of ['random read, depth 1', 'random write, depth 1'])
    t.match(done.stdout, new RegExp(`^\\| 4 KiB ${title} \\| \\d+\\.\\d+ \\([^|]+\\|$`, 'm'), title);
});

void tap.test('the short form of --scaling has a line for every size', needing('gcc'), async (t) => {
  const done = await run(process.execPath, [PROGRAM, '--short', '--scaling'], { timeoutMs: 240_000 });
  t.equal(done.code, 0, done.stderr);
  for (const title of ['1', '10', '1 GiB', '64 GiB', '0 %', '50 %', '100 %'])
    t.match(done.stdout, new RegExp(`^\\| ${title} (\\| [\\d.,]+ )+\\|$`, 'm'), title);
});

void tap.test('the short form of --behaviour tells all of it', needing('gcc'), async (t) => {
  const done = await run(process.execPath, [PROGRAM, '--short', '--behaviour'], { timeoutMs: 240_000 });
  t.equal(done.code, 0, done.stderr);
  for (const title of ['not read', 'read', 'write', '256 KiB sequential write, depth 32'])
    t.match(done.stdout, new RegExp(`^\\| ${title} (\\| [\\d.,]+ )+\\|$`, 'm'), title);
  t.match(done.stdout, /takes \d+\.\d % of a processor without a session, and \d+\.\d % with one/);
});

void tap.test('a ratio is the median of what each round gave', async (t) => {
  t.equal(median([3, 1, 2]), 2);
  t.equal(median([4, 1, 2, 3]), 2.5);
  const rates = (...all: number[]): Measured[] => all.map((opsPerSecond) => ({ opsPerSecond }) as Measured);
  const row = { cldd: rates(30, 10, 40), tgtd: rates(10, 10, 10) };
  t.same(ratio(row, 'cldd'), { median: 3, low: 1, high: 4 });
  t.equal(ratio(row, 'istgt'), undefined, 'a target that did not take part has none');
  await Promise.resolve();
});
