/**
 * `npm run damage`: the long form of test/cow/damage.test.ts: every byte of the metadata of a small partition is changed
 * in turn, checked, opened, repaired, and opened again.
 *   npm run damage -- [--every N] [--seed N]     every byte, unless said otherwise
 * What is not found, not repaired or read wrongly is printed, and makes the exit code 1.
 */
import process from 'node:process';
import { parseArgs } from 'node:util';
import { prepare } from './prepare.mjs';

const REPORT_MS = 10_000;

const { values } = parseArgs({
  options: { every: { type: 'string', default: '1' }, seed: { type: 'string', default: '1' } },
});
const [every, seed] = [Number(values.every), Number(values.seed)];
if (!Number.isSafeInteger(every) || every < 1 || !Number.isSafeInteger(seed)) {
  process.stderr.write('damage: --every and --seed want numbers\n');
  process.exit(2);
}
await prepare();
const { bytesOf, judgeFlip, judgeUndamaged, placesOf } = await import('../dist/test/cow/damage.js');
const { loadGolden } = await import('../dist/test/cow/golden/golden.js');
const { Chance } = await import('../dist/test/cow/stores.js');
const { FORMAT_VERSION } = await import('../dist/src/cow/format.js');

const golden = loadGolden(FORMAT_VERSION);
const wrong = await judgeUndamaged(golden);
if (wrong !== undefined) throw new Error(`the undamaged image: ${wrong}`);
const began = Date.now();
const all = [...bytesOf(placesOf(golden.store), 'all')];
const chance = new Chance(seed);
let [done, bad, reportAt] = [0, 0, Date.now() + REPORT_MS];
for (let index = seed % every; index < all.length; index += every) {
  const { place, position } = all[index];
  const mask = 1 + chance.below(255);
  const problem = await judgeFlip(golden, position, mask);
  done++;
  if (problem !== undefined) {
    bad++;
    process.stdout.write(
      `WRONG ${place.name} ${place.copy}, byte ${position - place.position} ^ ${mask}: ${problem}\n`,
    );
  }
  if (Date.now() < reportAt) continue;
  process.stdout.write(`${done} of ${Math.ceil(all.length / every)} bytes, ${bad} wrong\n`);
  reportAt = Date.now() + REPORT_MS;
}
process.stdout.write(
  `${done} of ${all.length} bytes of metadata changed, seed ${seed}, in ${Math.round((Date.now() - began) / 1000)} s: ${bad} wrong\n`,
);
process.exitCode = bad === 0 ? 0 : 1;
