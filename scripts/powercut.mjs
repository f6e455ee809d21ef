/**
 * `npm run powercut`: the long form of the power-cut simulation (test/cow/powercut.ts).
 *   npm run powercut -- [--cuts N] [--seed N] [--jobs N]     1,000,000 cuts from seed 1 on, unless said otherwise
 * `--jobs`: so many threads share the seeds, one for each core unless said otherwise; a seed shows the same in any of them.
 * A violation is printed with the seed that shows it again, and makes the exit code 1.
 */
import { availableParallelism } from 'node:os';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { Worker, isMainThread, parentPort } from 'node:worker_threads';
import { prepare } from './prepare.mjs';

const CUTS_PER_SEED = 300;
const REPORT_MS = 10_000;

if (isMainThread) await lead();
else work();

/** Hands out the seeds and adds up what comes back. */
async function lead() {
  const { values } = parseArgs({
    options: {
      cuts: { type: 'string', default: '1000000' },
      seed: { type: 'string', default: '1' },
      jobs: { type: 'string', default: String(availableParallelism()) },
    },
  });
  const [wanted, first, jobs] = [Number(values.cuts), Number(values.seed), Number(values.jobs)];
  if (!(wanted > 0) || !Number.isSafeInteger(first) || !Number.isSafeInteger(jobs) || jobs < 1) {
    process.stderr.write('powercut: --cuts, --seed and --jobs want numbers\n');
    process.exit(2);
  }
  await prepare();
  const began = Date.now();
  let [cuts, violations, seed, done] = [0, 0, first, 0];
  let reportAt = began + REPORT_MS;
  const run = (worker) =>
    new Promise((resolve, reject) => {
      const next = () => {
        if (cuts < wanted) worker.postMessage(seed++);
        else void worker.terminate().then(resolve);
      };
      worker.on('error', reject);
      worker.on('message', (report) => {
        done++;
        cuts += report.cuts;
        violations += report.violations.length;
        for (const violation of report.violations) process.stdout.write(`VIOLATION ${violation}\n`);
        if (Date.now() >= reportAt) {
          process.stdout.write(`${cuts} of ${wanted} cuts, ${done} seeds, ${violations} violations\n`);
          reportAt = Date.now() + REPORT_MS;
        }
        next();
      });
      next();
    });
  await Promise.all(Array.from({ length: jobs }, () => run(new Worker(new URL(import.meta.url)))));
  const seconds = Math.round((Date.now() - began) / 1000);
  process.stdout.write(
    `seeds ${first} to ${seed - 1}: ${cuts} cuts, ${violations} violations, ${seconds} s\n`,
  );
  process.exitCode = violations === 0 ? 0 : 1;
}

/** Every third seed turns more than it writes, every fifth has commits of several journal blocks. */
function work() {
  const loaded = import('../dist/test/cow/powercut.js');
  parentPort.on('message', async (seed) => {
    const { simulate } = await loaded;
    const transitions = seed % 3 === 0 ? 60 : 0;
    parentPort.postMessage(await simulate({ seed, cuts: CUTS_PER_SEED, transitions, wide: seed % 5 === 0 }));
  });
}
