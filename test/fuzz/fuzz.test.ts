/**
 * Fuzzers of text keys, configuration, control requests and backup streams, and all that they once found
 * (corpus/WHAT/, as the input was). `npm run fuzz -- --what …` runs one for long: FUZZ_WHAT, FUZZ_INPUTS, FUZZ_SEED.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Chance } from '../cow/stores.js';
import { packageRoot } from '../package-root.js';
import { mutate } from './mutate.js';
import { TARGETS } from './targets.js';

const INPUTS = Number(process.env['FUZZ_INPUTS'] ?? 400);
const SEED = Number(process.env['FUZZ_SEED'] ?? 1);
const only = process.env['FUZZ_WHAT'];
const FINDS_MAX = 5;

t.setTimeout(240_000 + INPUTS * 50);

for (const [what, make] of Object.entries(TARGETS)) {
  if (only !== undefined && only !== what) continue;
  void t.test(`${what}: sound inputs, and what did harm once, do none`, (t) => {
    const target = make();
    t.teardown(() => target.end?.());
    for (const seed of target.seeds) t.equal(target.judge(seed), undefined);
    const corpus = join(packageRoot(), 'test/fuzz/corpus', what);
    // Nothing was found yet in what has no folder.
    for (const name of existsSync(corpus) ? readdirSync(corpus) : [])
      t.equal(target.judge(readFileSync(join(corpus, name))), undefined, name);
    t.end();
  });

  void t.test(`${what}: ${INPUTS} inputs of seed ${SEED} are taken or refused, never more`, async (t) => {
    const target = make();
    t.teardown(() => target.end?.());
    const chance = new Chance(SEED);
    let found = 0;
    for (let n = 0; n < INPUTS && found < FINDS_MAX; n++) {
      const input = mutate(target, chance);
      const wrong = target.judge(input);
      if (wrong !== undefined) {
        found++;
        t.fail(`input ${n} of seed ${SEED}: ${wrong}\nbase64: ${input.toString('base64')}`);
      }
      if (n % 1000 === 999) await new Promise(setImmediate);
    }
    t.equal(found, 0);
  });
}
