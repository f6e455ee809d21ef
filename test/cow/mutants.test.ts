/**
 * Every ordering rule of the engine, broken on purpose: the power-cut simulator has to notice. What it notices without
 * a rule is the reason why the rule is there.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ROOT } from '../../conformance/support/paths.js';
import {
  cutInBothTwins,
  marksInOneTwin,
  recordOfOlderEpoch,
  superblockInOneCopy,
  syncFailedOnce,
  writtenDuringCheckpoint,
} from './orders.js';
import type { Scenario } from './orders.js';
import { simulate } from './powercut.js';
import { ALL_STEPS } from '../../src/cow/steps.js';
import type { Step } from '../../src/cow/steps.js';

const CUTS_PER_SEED = 300;
const SEEDS_MAX = 24;

/** Rules, each with what breaks without it, and which workload it takes to see it, if not any. */
const RULES: readonly [step: Step, without: RegExp, workload?: 'wide' | 'unmaps'][] = [
  ['open: ignore a batch that is not whole', /journal block/, 'wide'],
  ['open: skip records of an older epoch than their page', /shows|counts/],
  ['open: normalise a page before a record of a later epoch', /./],
  ['open: count active extents as changed', /is not reported/],
  ['open: mark unclean before the first write', /./],
  ['commit: capture before the data sync', /shows/],
  ['commit: sync data', /shows/],
  ['commit: write journal', /shows/],
  ['commit: sync journal', /shows/],
  ['checkpoint: only committed flips', /./],
  ['checkpoint: write first twin', /unreadable in both twins|shows/],
  ['checkpoint: sync first twin', /unreadable in both twins|shows/],
  ['checkpoint: write second twin', /unreadable in both twins|shows/],
  ['checkpoint: sync second twin', /unreadable in both twins|shows/],
  ['checkpoint: bitmap after pages', /./],
  ['checkpoint: write bitmap', /./],
  ['checkpoint: move tail after pages', /./],
  ['transition: hold writes', /shows/],
  ['transition: flush', /shows/],
  ['transition: write superblock', /./],
  ['transition: sync first copies', /superblock/],
  ['transition: new epoch', /./],
  ['rollback: drop', /shows/],
  ['write: leave the base alone', /slave|shows/],
  ['write: mark the unit changed', /is not reported/],
  ['unmap: mark the unit changed', /is not reported/, 'unmaps'],
  ['activity: list extents before writing in place', /is not reported/],
  ['activity: sync the list', /is not reported/],
  ['activity: unmaps too', /is not reported/, 'unmaps'],
  ['activity: a new generation begins empty', /is not reported/],
];

for (const [broken, without, workload] of RULES) {
  void t.test(`The simulator notices that '${broken}' is left out`, async (t) => {
    for (let seed = 1; seed <= SEEDS_MAX; seed++) {
      const { violations } = await simulate({
        seed,
        cuts: CUTS_PER_SEED,
        transitions: seed % 2 === 0 ? 60 : 0,
        wide: workload === 'wide',
        unmaps: workload === 'unmaps',
        steps: (step) => step !== broken,
      });
      if (violations.length === 0) continue;
      t.match(violations.join('\n'), without);
      return;
    }
    t.fail(`nothing was noticed in ${SEEDS_MAX} seeds`);
  });
}

/** Rules for what random workloads seldom meet, each with a history of its own. */
const DIRECT: readonly [step: Step, without: RegExp, scenario: Scenario][] = [
  ['open: make superblock copies equal', /newer than every superblock copy/, superblockInOneCopy],
  ['checkpoint: not over the only whole twin', /unreadable in both twins/, cutInBothTwins],
  ['open: rewrite every page that a record touched', /shows 1, not 2/, recordOfOlderEpoch],
  ['open: rewrite every page that the list names', /is not reported/, marksInOneTwin],
  ['activity: keep until the page is durable', /is not reported/, writtenDuringCheckpoint],
  ['fail-stop', /said to be flushed/, syncFailedOnce],
];
/** These have their scenario in journal.test.ts. */
const ELSEWHERE = ['open: number on behind a torn batch'];

for (const [broken, without, scenario] of DIRECT) {
  void t.test(`A history of its own shows what '${broken}' is for`, async (t) => {
    t.equal(await scenario(ALL_STEPS), undefined);
    t.match(await scenario((step) => step !== broken), without);
  });
}

void t.test('Every step that the engine knows has a test that fails without it', (t) => {
  const source = readFileSync(join(ROOT, 'src/cow/steps.ts'), 'utf8');
  const steps = [...source.matchAll(/^ {2}\| '([^']+)'/gm)].map(([, step]) => step);
  const shown = [...RULES.map(([step]) => step), ...DIRECT.map(([step]) => step), ...ELSEWHERE];
  t.ok(shown.length > 30);
  t.same([...steps].sort(), [...shown].sort());
  t.end();
});
