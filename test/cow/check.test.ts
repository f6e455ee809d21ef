/** Damage of more than one place, and what check says and does about it: docs/check.md. */
import t from 'tap';
import { checkStore } from '../../src/cow/check.js';
import { FORMAT_VERSION } from '../../src/cow/format.js';
import { misreading, over, placesOf } from './damage.js';
import { loadGolden } from './golden/golden.js';
import type { MemoryStore } from './stores.js';

const golden = loadGolden(FORMAT_VERSION);
const places = placesOf(golden.store);

/** The image with some copies of a structure overwritten. */
function without(kind: string, copies: readonly number[]): MemoryStore {
  const store = over(golden.store);
  const hit = places.filter(({ name, copy }) => name.split(' ', 1)[0] === kind && copies.includes(copy));
  for (const { position, lengthBytes } of hit) store.apply(position, Buffer.alloc(lengthBytes, 0xdb));
  return store;
}

const REPAIRABLE: readonly [string, readonly number[]][] = [
  ['superblock', [0]],
  ['superblock', [0, 1]],
  ['superblock', [1, 2, 3]],
  ['activity', [0]],
  ['activity', [3]],
  ['state', [0]],
  ['state', [1]],
  ['journal', [0]],
  ['journal', [1]],
  ['bitmap', [0]],
  ['bitmap', [1]],
  ['page', [0]],
  ['page', [1]],
];

for (const [kind, copies] of REPAIRABLE) {
  void t.test(`${kind}: copies ${copies.join(', ')} are written again from a whole one`, async (t) => {
    const store = without(kind, copies);
    const before = await checkStore(store);
    t.equal(before.verdict, 'repairable');
    t.ok(
      before.findings.some(
        ({ structure, severity }) => structure.includes(kind) && severity === 'repairable',
      ),
    );
    t.equal(await misreading(store, golden.expected), undefined, 'an open is right before the repair');
    t.equal((await checkStore(store, { repair: true })).verdict, 'repaired');
    t.equal((await checkStore(store)).verdict, 'clean');
    t.equal(await misreading(store, golden.expected), undefined, 'and after it');
  });
}

for (const [kind, copies] of [
  ['superblock', [0, 1, 2, 3]],
  ['state', [0, 1]],
  ['bitmap', [0, 1]],
  ['page', [0, 1]],
] as const) {
  void t.test(`${kind}: without a whole copy it is beyond repair, and nothing is written`, async (t) => {
    const store = without(kind, copies);
    if (kind === 'superblock') {
      await t.rejects(checkStore(store), { code: 'NOT_CLDD' });
      return;
    }
    const { verdict } = await checkStore(store, { repair: true });
    t.equal(verdict, 'damaged');
    const shown = await misreading(store, golden.expected).catch((error: unknown) => String(error));
    t.match(shown, /DAMAGED|damaged|unreadable|ended with/);
  });
}

void t.test('A state area without a whole copy can be emptied: the data are whole', async (t) => {
  const store = without('state', [0, 1]);
  t.equal((await checkStore(store, { repair: true, emptyState: true })).verdict, 'repaired');
  t.equal(await misreading(store, { ...golden.expected, state: {} }), undefined);
});

void t.test('A device that shrank is told, and left alone', async (t) => {
  const store = over(golden.store);
  store.sizeBytes -= 65_536;
  const { verdict, findings } = await checkStore(store, { repair: true });
  t.equal(verdict, 'damaged');
  t.match(findings[0]?.problem, /the device has/);
});
