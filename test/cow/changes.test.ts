/** The change map: what it lists, unit by unit, against plain sets of units. */
import t from 'tap';
import { listChanges } from '../../src/cow/changes.js';
import type { ChangedRange, ChangesWindow } from '../../src/cow/changes.js';
import { Engine } from '../../src/cow/engine.js';
import { PAGE_UNITS, UNIT_BYTES } from '../../src/cow/format.js';
import { growEngine } from '../../src/cow/grow.js';
import { MasterMedium } from '../../src/cow/mediums.js';
import { BLOCK_BYTES } from '../../src/cow/states.js';
import type { MemoryStore } from './stores.js';
import { blankStore, Chance } from './stores.js';

const MIB = 2 ** 20;

async function opened(sizeBytes: number): Promise<{ engine: Engine; store: MemoryStore }> {
  const store = await blankStore(sizeBytes);
  return { engine: await Engine.open(store), store };
}

async function listed(engine: Engine, since: number, window?: ChangesWindow): Promise<ChangedRange[]> {
  const ranges: ChangedRange[] = [];
  for await (const range of listChanges(engine, since, window).ranges) ranges.push(range);
  return ranges;
}

function writeUnit(engine: Engine, unit: number): void {
  new MasterMedium(engine).write(unit * UNIT_BYTES, Buffer.alloc(BLOCK_BYTES, 1), 0, BLOCK_BYTES);
}

/** The units as ranges, neighbours joined; the last unit ends with the master. */
function joined(units: readonly number[], end: number): ChangedRange[] {
  const ranges: { position: number; length: number }[] = [];
  for (const unit of [...units].sort((a, b) => a - b)) {
    const last = ranges.at(-1);
    const position = unit * UNIT_BYTES;
    const length = Math.min(UNIT_BYTES, end - position);
    if (last?.position !== undefined && last.position + last.length === position) last.length += length;
    else ranges.push({ position, length });
  }
  return ranges;
}

void t.test(
  'All units that changed since a generation are listed, in any window, and no others',
  async (t) => {
    const { engine } = await opened(160 * MIB);
    const { capacityBytes } = engine.core;
    const units = Math.ceil(capacityBytes / UNIT_BYTES);
    const older = [3, PAGE_UNITS + 7];
    await engine.enable();
    for (const unit of older) writeUnit(engine, unit);
    await engine.disable();
    await engine.enable();
    const newer = [0, 1, 5, PAGE_UNITS - 1, PAGE_UNITS, PAGE_UNITS + 1, 2 * PAGE_UNITS - 1, units - 1];
    for (const unit of newer) writeUnit(engine, unit);
    t.same(await listed(engine, 2), joined(newer, capacityBytes));
    t.same(await listed(engine, 1), joined([...older, ...newer], capacityBytes));
    const chance = new Chance(1);
    const borders = [0, 1, 2, 5, 6, PAGE_UNITS - 1, PAGE_UNITS, PAGE_UNITS + 2, units - 1].map(
      (u) => u * UNIT_BYTES,
    );
    borders.push(capacityBytes, ...Array.from({ length: 6 }, () => chance.below(capacityBytes)));
    for (const position of borders)
      for (const end of borders) {
        const within = newer.filter((unit) => unit * UNIT_BYTES < end && (unit + 1) * UNIT_BYTES > position);
        const expected = position < end ? joined(within, capacityBytes) : [];
        const found = await listed(engine, 2, { position, end });
        if (JSON.stringify(found) !== JSON.stringify(expected))
          t.same(found, expected, `${position} to ${end}`);
      }
    t.throws(() => listChanges(engine, 3), {
      code: 'NO_SUCH_GENERATION',
      message: 'generation 3 does not exist: the last one is 2',
    });
    await engine.close();
  },
);

void t.test('A segment that came later is new as a whole, for generations before it only', async (t) => {
  const { engine, store } = await opened(72 * MIB);
  const before = engine.core.capacityBytes;
  await engine.enable();
  await engine.disable();
  store.sizeBytes += 80 * MIB;
  await growEngine(engine);
  // And one behind it, so that no unit of its last page is taken for one of the next segment.
  store.sizeBytes += 24 * MIB;
  await growEngine(engine);
  const { capacityBytes, segments } = engine.core;
  const [, added] = segments;
  t.equal(segments.length, 3);
  await engine.enable();
  t.equal(added.masterOffset, before);
  t.equal(added.generation, 1);
  t.ok(added.pages > 1, 'of more than one page');
  t.same(await listed(engine, 1), [{ position: before, length: capacityBytes - before }]);
  t.same(await listed(engine, 2), []);
  const position = before + 2 * PAGE_UNITS * UNIT_BYTES - UNIT_BYTES / 2;
  const window = { position: position - 32 * MIB, end: position - 32 * MIB + 1 };
  t.same(await listed(engine, 1, window), [
    { position: before + PAGE_UNITS * UNIT_BYTES - UNIT_BYTES, length: UNIT_BYTES },
  ]);
  await engine.close();
});

void t.test('Nothing to compare with, or marks that a crash made coarser, are told', async (t) => {
  const { engine } = await opened(32 * MIB);
  for (let generation = 1; generation <= 3; generation++) {
    await engine.enable();
    await engine.disable();
  }
  engine.core.superblock.approximateGeneration = 2;
  for (const [since, full, approximate] of [
    [undefined, true, false],
    [0, true, false],
    [1, false, true],
    [2, false, true],
    [3, false, false],
  ] as const)
    t.match(listChanges(engine, since), { since, full, approximate, granularityBytes: UNIT_BYTES });
  await engine.close();
});
