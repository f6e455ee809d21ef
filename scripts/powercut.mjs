/**
 * `npm run powercut`: the long form of the power-cut simulation (test/cow/powercut.ts).
 *   npm run powercut -- [--cuts N] [--seed N]     1,000,000 cuts from seed 1 on, unless said otherwise
 * A violation is printed with the seed that shows it again, and makes the exit code 1.
 */
import process from 'node:process';
import { parseArgs } from 'node:util';
import { prepare } from './prepare.mjs';

const CUTS_PER_SEED = 300;
const REPORT_MS = 10_000;

const { values } = parseArgs({
  options: { cuts: { type: 'string', default: '1000000' }, seed: { type: 'string', default: '1' } },
});
const [wanted, first] = [Number(values.cuts), Number(values.seed)];
if (!(wanted > 0) || !Number.isSafeInteger(first)) {
  process.stderr.write('powercut: --cuts and --seed want numbers\n');
  process.exit(2);
}
await prepare();
const { simulate } = await import('../dist/test/cow/powercut.js');

let cuts = 0;
let violations = 0;
let seed = first;
let reportAt = Date.now() + REPORT_MS;
while (cuts < wanted) {
  // Every third seed turns more than it writes, every fifth has commits of several journal blocks.
  const transitions = seed % 3 === 0 ? 60 : 0;
  const report = await simulate({ seed, cuts: CUTS_PER_SEED, transitions, wide: seed % 5 === 0 });
  cuts += report.cuts;
  violations += report.violations.length;
  for (const violation of report.violations) process.stdout.write(`VIOLATION ${violation}\n`);
  seed++;
  if (Date.now() < reportAt && cuts < wanted) continue;
  process.stdout.write(`${cuts} of ${wanted} cuts, ${seed - first} seeds, ${violations} violations\n`);
  reportAt = Date.now() + REPORT_MS;
}
process.stdout.write(`seeds ${first} to ${seed - 1}: ${cuts} cuts, ${violations} violations\n`);
process.exitCode = violations === 0 ? 0 : 1;
