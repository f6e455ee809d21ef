/** One damaged byte of metadata, wherever it is, costs nothing: it is found, repaired, and no data are wrong meanwhile. */
import t from 'tap';
import { FORMAT_VERSION } from '../../src/cow/format.js';
import { bytesOf, judgeFlip, misreading, placesOf } from './damage.js';
import { live, loadGolden } from './golden/golden.js';
import { Chance } from './stores.js';

const CHOSEN = 60;
/** `npm run damage` takes every byte. */
const SEED = 1;

void t.test('The golden image of every format opens, with the bytes that master and slave had', async (t) => {
  for (let format = 2; format <= FORMAT_VERSION; format++) {
    const { store, expected } = loadGolden(format);
    t.equal(await misreading(store, expected), undefined, `format ${format}`);
  }
});

void t.test('A newly made one is as good as the golden one', async (t) => {
  const { store, expected } = await live();
  t.equal(await misreading(store, expected), undefined);
  t.strictSame(expected, loadGolden(FORMAT_VERSION).expected);
});

void t.test('Any one byte of metadata may be wrong', async (t) => {
  const golden = loadGolden(FORMAT_VERSION);
  const places = placesOf(golden.store);
  for (const name of ['superblock', 'activity', 'state', 'bitmap', 'page'])
    t.ok(
      places.some((place) => place.name === name),
      `there is a ${name}`,
    );
  t.ok(
    places.some(({ name }) => name.startsWith('journal')),
    'there is a journal to replay',
  );
  const chance = new Chance(SEED);
  const all = [...bytesOf(places, 'all')];
  const chosen = Array.from({ length: CHOSEN }, () => all[chance.below(all.length)]);
  const wrong: string[] = [];
  for (const { place, position } of [...bytesOf(places, 'header'), ...chosen]) {
    const mask = 1 + chance.below(255);
    const problem = await judgeFlip(golden, position, mask);
    if (problem !== undefined)
      wrong.push(`${place.name} ${place.copy}, byte ${position - place.position} ^ ${mask}: ${problem}`);
  }
  t.strictSame(wrong.slice(0, 10), [], `seed ${SEED}`);
});
