import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { FORMAT_VERSION } from '../../src/cow/format.js';
import { Engine } from '../../src/cow/engine.js';
import { over, placesOf } from '../cow/damage.js';
import { loadGolden } from '../cow/golden/golden.js';
import { Chance } from '../cow/stores.js';
import { packageRoot } from '../package-root.js';
import { invent, judge, withLie, type Lie } from './hostile-partition.js';

t.setTimeout(600_000 + Number(process.env['FUZZ_LIES'] ?? 0) * 2000);
const { store } = loadGolden(FORMAT_VERSION);
const places = placesOf(store);

/** FUZZ_LIES and FUZZ_SEED make it longer: `npm run fuzz -- --what partition`. */
const LIES = Number(process.env['FUZZ_LIES'] ?? 60);
const SEED = Number(process.env['FUZZ_SEED'] ?? 1);

/** Each of these once ended in an error of our own. */
const PAST = JSON.parse(
  readFileSync(join(packageRoot(), 'test/fuzz/corpus/partition/lies.json'), 'utf8'),
) as readonly Lie[];

/** Numbers that can't be true together, by their place in the superblock (docs/format.md). */
const NONSENSE: readonly (readonly [what: string, at: number, bytes: string])[] = [
  ['sequence beyond 2^53', 32, 'ffffffffffffffff'],
  ['journal without blocks', 44, '00000000'],
  ['journal of 2^32 - 1 blocks', 44, 'ffffffff'],
  ['device without end', 48, 'ffffffffffffffff'],
  ['activity log over the superblocks', 56, '0000000000000000'],
  ['activity slots without bytes', 64, '00000000'],
  ['activity slots of 4 GiB', 64, '00f0ffff'],
  ['no segment', 68, '00000000'],
  ['2^32 - 1 segments', 68, 'ffffffff'],
  ['state area over the superblocks', 72, '0000000000000000'],
  ['journal over the state area', 80, '0000040000000000'],
  ['LSN beyond 2^53', 88, 'ffffffffffffffff'],
  ['tail after the end', 96, 'ffffffffffff0000'],
  ['generation of 2^32 - 1', 104, 'ffffffff'],
  ['approximate generation to come', 108, 'ffffff7f'],
  ['enabled at no time', 112, 'ffffffffffff1f00'],
  ['made at no time', 120, 'ffffffffffff1f00'],
  ['history that begins after now', 132, 'ffffffff'],
  ['more blocks differ than there are', 136, 'ffffffff00000000'],
  ['segment at 0', 192, '0000000000000000'],
  ['segment of 2^53 bytes', 200, 'ffffffffffff1f00'],
  ['segment without blocks', 208, '0000000000000000'],
  ['segment of 2^40 blocks', 208, '0000000000010000'],
  ['segment of a generation to come', 216, 'ffffff7f'],
];

void t.test(
  'a partition whose superblocks are nonsense under a right checksum is refused as damaged',
  async (t) => {
    for (const [what, at, bytes] of NONSENSE)
      await t.rejects(
        Engine.open(over(withLie(store, places, { kind: 'superblock', at, bytes }))),
        { code: 'DAMAGED' },
        what,
      );
  },
);

void t.test('what hostile partitions did once, they do no more', async (t) => {
  for (const lie of PAST) t.equal(await judge(withLie(store, places, lie)), undefined, JSON.stringify(lie));
});

void t.test(
  'a partition made to do harm, with right checksums, is refused or served, and checked',
  async (t) => {
    const chance = new Chance(SEED);
    for (let n = 0; n < LIES; n++) {
      const lie = invent(places, chance);
      const wrong = await judge(withLie(store, places, lie));
      if (wrong !== undefined) t.fail(`seed ${SEED}: ${JSON.stringify(lie)}: ${wrong}`);
    }
    t.pass(`${LIES} of them`);
  },
);
