/** Target port groups: asymmetric access states, as they are reported, set, told and kept (SPC-6 §5.18). */
import t from 'tap';
import type { Nexus } from '../../src/scsi/nexus.js';
import { bench, cdb10, fieldOf, MemoryState } from './support.js';
import type { Bench, Outcome } from './support.js';

const [A, B] = ['a', 'b'].map((name) => `iqn.2024-01.org.example:${name}`);

const ready = async ({ run }: Bench, nexus: Nexus, lun = 0): Promise<string> =>
  (await run(nexus, lun, [0, 0, 0, 0, 0, 0])).code;

/** REPORT TARGET PORT GROUPS; `flags` with its service action. */
const report = async ({ run }: Bench, nexus: Nexus, flags = 0x0a, bytes = 255): Promise<string> =>
  (await run(nexus, 0, [0xa3, flags, 0, 0, 0, 0, 0, 0, 0, bytes, 0, 0])).data.toString('hex');

/** SET TARGET PORT GROUPS with that list. */
function set({ run }: Bench, nexus: Nexus, list: Buffer, bytes = list.length): Promise<Outcome> {
  const cdb = Buffer.from([0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  cdb.writeUInt32BE(bytes, 6);
  return run(nexus, 0, cdb, list);
}

/** States by group. */
const states = (...pairs: [state: number, group: number][]): Buffer =>
  Buffer.from([0, 0, 0, 0, ...pairs.flatMap(([state, group]) => [state, 0, group >>> 8, group & 255])]);

void t.test(
  'Asymmetric access: a port in standby refuses the medium, and states are reported (SPC-6 §5.18)',
  async (t) => {
    const b = bench();
    const a = b.login(A, { tag: 1 });
    const second = b.login(A, { tag: 2 });
    const set = Buffer.from([0, 0, 0, 0, 2, 0, 0, 2]);
    t.equal((await b.run(a, 0, [0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], set)).status, 0);
    t.equal(await ready(b, second, 0), '06/2a/06');
    t.equal((await b.run(second, 0, cdb10(0x28, 0, 1))).code, '02/04/0b');
    t.equal((await b.run(a, 0, cdb10(0x28, 0, 1))).status, 0);
    const { data } = await b.run(second, 0, [0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    t.same([data.readUInt32BE(0), data[4], data[16]], [24, 0, 2]);
    t.equal(
      (await b.run(a, 0, [0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], Buffer.from([0, 0, 0, 0, 0, 0, 0, 9])))
        .code,
      '05/26/00',
    );
  },
);

void t.test(
  'Access states are configured, and what an initiator sets outlives a restart until that changes (SPC-6 §6.45)',
  async (t) => {
    const state = new MemoryState();
    const states = async (b: Bench): Promise<number[]> => {
      const nexus = b.login(A);
      const { data } = await b.run(nexus, 0, [0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
      return [data[4], data[16]];
    };
    const portalGroupTags = [1, 2];
    const configured = { state, portalGroupTags, accessStates: new Map([[2, 'non-optimized' as const]]) };
    const first = bench(configured);
    t.same(await states(first), [0, 1]);
    const set = Buffer.from([0, 0, 0, 0, 3, 0, 0, 2]);
    const nexus = first.login(A);
    t.equal((await first.run(nexus, 0, [0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], set)).status, 0);
    t.same(await states(first), [0, 3]);
    t.same(await states(bench(configured)), [0, 3], 'after a restart');
    const other = { state, portalGroupTags, accessStates: new Map([[2, 'standby' as const]]) };
    t.same(await states(bench(other)), [0, 2], 'the operator has changed his mind');
    state.fails = true;
    t.equal((await first.run(nexus, 0, [0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], set)).status, 0);
    t.equal(first.warnings.length, 1, 'not kept, and said so');
  },
);

void t.test(
  'Access states that another one sets are told of the master, and said if they cannot be kept',
  async (t) => {
    const state = new MemoryState();
    const b = bench({ state });
    const [a, other] = [b.login(A), b.login(B)];
    const set = Buffer.from([0, 0, 0, 0, 1, 0, 0, 1, 2, 0, 0, 2]);
    const cdb = [0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, set.length, 0, 0];
    t.equal((await b.run(a, 0, cdb, set)).status, 0);
    t.same(b.warnings, []);
    t.same([await ready(b, a, 0), await ready(b, a, 1)], ['', ''], 'who set them knows');
    t.same(
      [await ready(b, other, 0), await ready(b, other, 1)],
      ['06/2a/06', ''],
      'a removable unit is spared',
    );
    const groups = (await b.run(a, 0, [0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])).data;
    t.equal(
      groups.toString('hex'),
      '00000018' + '010f000100010001' + '00000001' + '020f000200010001' + '00000002',
    );
    state.fails = true;
    t.equal((await b.run(a, 0, cdb, set)).status, 0);
    t.match(b.warnings, [{ message: /access states not kept: a restart/, fields: { err: Error } }]);
  },
);

void t.test(
  'REPORT TARGET PORT GROUPS in either format, cut to the allocation length (SPC-6 §6.36)',
  async (t) => {
    const b = bench();
    const a = b.login(A);
    const groups = '000f0001' + '00000001' + '00000001' + '000f0002' + '00000001' + '00000002';
    t.equal(await report(b, a), '00000018' + groups);
    t.equal(await report(b, a, 0x2a), '0000001c' + '10000000' + groups, 'extended header');
    t.equal(await report(b, a, 0x0a, 6), '00000018' + '000f');
  },
);

void t.test('SET TARGET PORT GROUPS takes a list as a whole or not at all (SPC-6 §6.45)', async (t) => {
  const state = new MemoryState();
  const b = bench({ state });
  const [a, other] = [b.login(A), b.login(B)];
  const before = await report(b, a);
  const refused = async (...of: [list: Buffer, bytes?: number]): Promise<unknown[]> => {
    const outcome = await set(b, a, ...of);
    return [outcome.code, fieldOf(outcome), outcome.ends];
  };
  t.same(await refused(states([1, 1], [4, 2])), ['05/26/00', 8, 1], 'a state that cannot be set');
  t.same(await refused(states([15, 1])), ['05/26/00', 4, 1]);
  t.same(await refused(states([1, 1], [1, 9])), ['05/26/00', 10, 1], 'a group that there is not');
  t.same(await refused(states([1, 1]), 12), ['05/1a/00', undefined, 1], 'less than announced');
  t.same(await refused(Buffer.concat([states([1, 1]), Buffer.alloc(2)])), ['05/1a/00', undefined, 1]);
  t.same(await refused(Buffer.concat([Buffer.alloc(4), Buffer.alloc(65_536, Buffer.from([1, 0, 0, 1]))])), ['05/1a/00', undefined, 1]); // prettier-ignore
  t.same(await refused(Buffer.alloc(0)), ['', undefined, 1], 'nothing is nothing');
  t.same(await refused(Buffer.alloc(4)), ['', undefined, 1]);
  t.equal(await report(b, a), before);
  t.equal(await ready(b, other), '', 'and nobody is told');
  t.notOk(state.records.has('scsi.access-states'));
  t.same(await refused(Buffer.concat([Buffer.alloc(4), Buffer.alloc(65_532, Buffer.from([1, 0, 0, 1]))])), ['', undefined, 1]); // prettier-ignore
});

void t.test('Each group keeps the state that was set for it, and no other one', async (t) => {
  const state = new MemoryState();
  const first = bench({ state });
  t.equal((await set(first, first.login(A), states([2, 2]))).status, 0);
  const second = bench({ state });
  const a = second.login(A);
  t.equal(
    await report(second, a),
    '00000018' + '000f0001' + '00000001' + '00000001' + '020f0002' + '00010001' + '00000002',
    'STATUS CODE: altered by SET TARGET PORT GROUPS, of the second alone',
  );
  t.equal((await set(second, a, states([1, 1]))).status, 0);
  const third = bench({ state });
  t.equal(
    await report(third, third.login(A)),
    '00000018' + '010f0001' + '00010001' + '00000001' + '020f0002' + '00010001' + '00000002',
  );
});
