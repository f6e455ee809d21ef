/**
 * The short form of the power-cut simulation; `npm run powercut` is the long one.
 *
 * The real engine runs over a store that records its writes and syncs. At many points of that record the power is cut:
 * of the writes since the last sync none, all, some, some in another order or torn at 512 bytes survive, or leave a
 * damaged sector of metadata. The engine then opens what is left, is cut again during that recovery, and must show all
 * that was flushed, a slave without a changed bit, no block that is neither old nor new, and every change in its map.
 */
import process from 'node:process';
import t from 'tap';
import { simulate } from './powercut.js';

/** The part of the seeds to run: mutation testing, which runs this once for each mutant, takes a few. */
const PART = Number(process.env.CLDD_TEST_PART ?? 1);
const CUTS_PER_SEED = 300;

/** Seeds, and what they are to weigh: with transitions, nearly half of the operations enable, disable or roll back. */
const RUNS = [
  {
    title: 'writes, unmaps and flushes, with a transition now and then',
    first: 1,
    seeds: 20,
    transitions: 0,
    wide: false,
  },
  {
    title: 'many enables, disables and rollbacks',
    first: 1001,
    seeds: 15,
    transitions: 60,
    wide: false,
  },
  {
    title: 'commits of several journal blocks',
    first: 2001,
    seeds: 4,
    transitions: 20,
    wide: true,
  },
] as const;

for (const { title, first, seeds: allSeeds, transitions, wide } of RUNS) {
  void t.test(`No power cut hurts: ${title}`, async (t) => {
    const seeds = Math.ceil(allSeeds * PART);
    let cuts = 0;
    const violations: string[] = [];
    for (let seed = first; seed < first + seeds; seed++) {
      const report = await simulate({ seed, cuts: CUTS_PER_SEED, transitions, wide });
      cuts += report.cuts;
      violations.push(...report.violations);
    }
    t.same(violations, []);
    t.ok(cuts >= seeds * CUTS_PER_SEED * 0.8, `${cuts} cuts were made`);
  });
}
