/** Which medium each initiator was told of, as it is kept over restarts. */
import t from 'tap';
import { MediumNotices, TOLD_MAX } from '../../src/scsi/medium-notices.js';
import { MemoryState } from './support.js';
import type { Warning } from './support.js';

const ENTRY_BYTES = 12;

function notices(state: MemoryState): { notices: MediumNotices; saves: number[]; warnings: Warning[] } {
  const saves: number[] = [];
  const save = state.save.bind(state);
  state.save = (key, value, done) => {
    saves.push(value?.length ?? -1);
    save(key, value, done);
  };
  const warnings: Warning[] = [];
  const sink = (fields: object, message: string): void => void warnings.push({ fields, message });
  const log = { debug: sink, info: sink, warn: sink, error: sink };
  return { notices: new MediumNotices(state, log), saves, warnings };
}

void t.test(
  'What was told is saved once, with an entry for each port, and read by the next start',
  async (t) => {
    const state = new MemoryState();
    const first = notices(state);
    first.notices.tell('a', 3, []);
    first.notices.tell('a', 3, []);
    first.notices.tell('b', 0xffff_fffe, []);
    t.same(first.saves, [ENTRY_BYTES, 2 * ENTRY_BYTES]);
    await new Promise(setImmediate);
    t.same(first.warnings, []);
    const next = notices(state);
    t.same(
      ['a', 'b', 'c'].map((port) => next.notices.lastTold(port)),
      [3, 0xffff_fffe, undefined],
    );
    next.notices.tell('a', 4, []);
    t.same(next.saves, [2 * ENTRY_BYTES], 'nothing is added by a restart');
    const full = notices(new MemoryState());
    for (let port = 0; port <= TOLD_MAX; port++) full.notices.tell(`port ${String(port)}`, 1, []);
    t.equal(full.saves.at(-1), TOLD_MAX * ENTRY_BYTES);
  },
);

void t.test('What cannot be saved is told to the operator', async (t) => {
  const state = new MemoryState();
  state.fails = true;
  const { notices: of, warnings } = notices(state);
  of.tell('a', 1, []);
  await new Promise(setImmediate);
  t.match(warnings, [{ fields: { err: Error }, message: /announced again/ }]);
  t.equal(of.lastTold('a'), 1);
});
