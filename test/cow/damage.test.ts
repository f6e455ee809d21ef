/** One damaged byte of metadata, wherever it is, costs nothing: it is found, repaired, and no data are wrong meanwhile. */
import t from 'tap';
import { FORMAT_VERSION } from '../../src/cow/format.js';
import { Engine } from '../../src/cow/engine.js';
import { bytesOf, judgeFlip, judgeUndamaged, judgeUnreadable, misreading, placesOf } from './damage.js';
import { live, loadGolden } from './golden/golden.js';
import { Chance, WornStore } from './stores.js';

const SECTOR_BYTES = 512;
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

void t.test(
  'Any one sector of metadata may be unreadable: the other copy serves, and is the source of a repair',
  async (t) => {
    const golden = loadGolden(FORMAT_VERSION);
    const wrong: string[] = [];
    let tried = 0;
    for (const { name, copy, position, lengthBytes } of placesOf(golden.store)) {
      for (let at = position; at < position + lengthBytes; at += SECTOR_BYTES, tried++) {
        const problem = await judgeUnreadable(golden, at);
        if (problem !== undefined) wrong.push(`${name} ${copy}, byte ${at - position}: ${problem}`);
      }
    }
    t.same(wrong.slice(0, 10), []);
    t.ok(tried > 100, `${tried} sectors`);
  },
);

void t.test(
  'What can be read from no copy is not guessed: the open is refused, and writes nothing',
  async (t) => {
    const golden = loadGolden(FORMAT_VERSION);
    const places = placesOf(golden.store);
    for (const kind of ['superblock', 'activity', 'state', 'journal', 'bitmap', 'page']) {
      const disc = new WornStore(golden.store.sizeBytes, golden.store);
      for (const { name, position, lengthBytes } of places)
        if (name.split(' ', 1)[0] === kind) disc.spoil(position, lengthBytes);
      await t.rejects(Engine.open(disc), { message: /EIO|can't be read/ }, kind);
      t.notOk(disc.events.some((event) => event.kind === 'write'));
    }
  },
);

void t.test('Any one byte of metadata may be wrong', async (t) => {
  const golden = loadGolden(FORMAT_VERSION);
  t.equal(await judgeUndamaged(golden), undefined);
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
