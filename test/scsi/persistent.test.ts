/** Persistent reservations by the byte: what PERSISTENT RESERVE IN shows, whom OUT tells and whom it spares. */
import t from 'tap';
import { transportId } from '../../src/scsi/commands/transport-id.js';
import type { Nexus } from '../../src/scsi/nexus.js';
import { bench, cdb10, fieldOf, MemoryState } from './support.js';
import type { Bench } from './support.js';

const CONFLICT = 0x18;
const [A, B, C] = ['a', 'b', 'c'].map((name) => `iqn.2024-01.org.example:${name}`);
const PORT_B = `${B},i,0x00023d000001`;
const TUR = [0, 0, 0, 0, 0, 0];
const [REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, IGNORE, MOVE] = [
  0, 1, 2, 3, 4, 5, 6, 7,
];
const [APTPL, SPEC_I_PT] = [0x01, 0x08];
/** Scope and type of a CDB whose service action ignores them (SPC-6 §6.17.2). */
const NO_TYPE = 0x12;

type Out = [action: number, type: number, key: number, actionKey: number, flags?: number];

async function out(
  { run }: Bench,
  nexus: Nexus,
  [action, type, key, actionKey, flags = 0]: Out,
): Promise<string> {
  const list = Buffer.alloc(24);
  list.writeBigUInt64BE(BigInt(key), 0);
  list.writeBigUInt64BE(BigInt(actionKey), 8);
  list[20] = flags;
  const { code, status } = await run(nexus, 0, [0x5f, action, type, 0, 0, 0, 0, 0, 24, 0], list);
  return status === CONFLICT ? 'conflict' : code;
}

/** REGISTER AND MOVE to the port of B. */
async function move(
  { run }: Bench,
  nexus: Nexus,
  key: number,
  { port = 1, flags = 0 } = {},
): Promise<[string, unknown]> {
  const id = transportId(PORT_B);
  const list = Buffer.concat([Buffer.alloc(24), id]);
  list.writeBigUInt64BE(BigInt(key), 0);
  list.writeBigUInt64BE(2n, 8);
  list[17] = flags;
  list.writeUInt16BE(port, 18);
  list.writeUInt32BE(id.length, 20);
  const outcome = await run(nexus, 0, [0x5f, MOVE, NO_TYPE, 0, 0, 0, 0, 0, list.length, 0], list);
  return [outcome.status === CONFLICT ? 'conflict' : outcome.code, fieldOf(outcome)];
}

const show = async ({ run }: Bench, nexus: Nexus, action: number): Promise<string> =>
  (await run(nexus, 0, [0x5e, action, 0, 0, 0, 0, 0, 4, 0, 0])).data.toString('hex');

const [KEYS, RESERVATION, CAPABILITIES, STATUS] = [0, 1, 2, 3];

/** Type of the reservation, 0 if there is none. */
const held = async (b: Bench): Promise<number> =>
  parseInt((await show(b, b.login(`${C}9`), RESERVATION)).slice(42, 44) || '0', 16);

/** Everything that the nexus is told, in order. */
async function told({ run }: Bench, nexus: Nexus): Promise<string[]> {
  const codes: string[] = [];
  for (;;) {
    const { code } = await run(nexus, 0, TUR);
    if (code === '') return codes;
    codes.push(code);
  }
}

/** A, B and C, registered under 1, 2 and 3. */
async function registered(b: Bench): Promise<[Nexus, Nexus, Nexus]> {
  const nexuses = [A, B, C].map((name) => b.login(name)) as [Nexus, Nexus, Nexus];
  for (const [index, nexus] of nexuses.entries()) await out(b, nexus, [REGISTER, NO_TYPE, 0, index + 1]);
  return nexuses;
}

void t.test('PERSISTENT RESERVE IN shows keys, holder and ports field by field (SPC-6 §6.16)', async (t) => {
  const b = bench();
  const a = b.login(A);
  t.equal(await show(b, a, KEYS), '0000000000000000');
  t.equal(await show(b, a, RESERVATION), '0000000000000000');
  t.equal(await show(b, a, CAPABILITIES), '00081dc0ea010000');
  t.equal(await out(b, a, [REGISTER, 0, 0, 0x11]), '');
  const other = b.login(B, { tag: 2 });
  t.equal(await out(b, other, [REGISTER, 0, 0, 0x22, APTPL]), '');
  t.equal(await out(b, other, [RESERVE, 5, 0x22, 0]), '');
  t.equal(await show(b, a, KEYS), '00000002' + '00000010' + '0000000000000011' + '0000000000000022');
  t.equal(await show(b, a, RESERVATION), '00000002' + '00000010' + '0000000000000022' + '0000000000050000');
  t.equal(await show(b, a, CAPABILITIES), '00081dc1ea010000');
  const [portA, portB] = [`${A},i,0x00023d000001`, PORT_B].map((name) => transportId(name).toString('hex'));
  const bytes = portA.length / 2;
  const size = (count: number): string => count.toString(16).padStart(8, '0');
  t.equal(
    await show(b, a, STATUS),
    [
      '00000002',
      size(2 * (24 + bytes)),
      '0000000000000011',
      '00000000',
      '0000',
      '00000000',
      '0001',
      size(bytes),
    ].join('') +
      portA +
      ['0000000000000022', '00000000', '0105', '00000000', '0002', size(bytes)].join('') +
      portB,
  );
});

void t.test(
  'PRGENERATION counts what changes registrations, and begins at 0 with power on (SPC-6 §6.16.2)',
  async (t) => {
    const state = new MemoryState();
    const b = bench({ state });
    const [a, other] = [b.login(A), b.login(B)];
    const generation = async (action = KEYS, of = b, nexus = a): Promise<number> =>
      parseInt((await show(of, nexus, action)).slice(0, 8), 16);
    for (const [step, expected, nexus] of [
      [[REGISTER, 0, 0, 1, APTPL], 1, a],
      [[REGISTER, 0, 9, 1, APTPL], 1, a],
      [[IGNORE, 0, 9, 1, APTPL], 2, a],
      [[RESERVE, 1, 1, 0], 2, a],
      [[RELEASE, 1, 1, 0], 2, a],
      [[REGISTER, 0, 0, 2, APTPL], 3, other],
      [[PREEMPT, 1, 1, 2], 4, a],
      [[PREEMPT, 1, 1, 2], 4, a],
      [[REGISTER, 0, 0, 2, APTPL], 5, other],
      [[CLEAR, 0, 1, 0], 6, a],
      [[REGISTER, 0, 0, 1, APTPL], 7, a],
      [[RESERVE, 1, 1, 0], 7, a],
    ] as const) {
      await told(b, nexus);
      await out(b, nexus, [...step]);
      t.equal(await generation(), expected, step.join(' '));
    }
    t.same(await move(b, a, 1, { flags: APTPL }), ['', undefined]);
    for (const action of [KEYS, RESERVATION, STATUS]) t.equal(await generation(action), 8);
    const after = bench({ state });
    const again = after.login(A);
    t.equal(await generation(KEYS, after, again), 0, 'whatever APTPL says');
  },
);

void t.test('Who is not registered may do nothing but register (SPC-6 §5.14.6)', async (t) => {
  const b = bench();
  const [a] = await registered(b);
  const stranger = b.login(`${C}2`);
  await out(b, a, [RESERVE, 5, 1, 0]);
  for (const action of [RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT])
    for (const key of [0, 1]) t.equal(await out(b, stranger, [action, 5, key, 1]), 'conflict');
  t.same(await move(b, stranger, 0), ['conflict', undefined]);
  t.same(await move(b, stranger, 1), ['conflict', undefined]);
  t.equal(await held(b), 5);
});

void t.test(
  'REGISTER AND MOVE is for a nexus: the same port by another target port is one (SPC-6 §5.14.8)',
  async (t) => {
    const b = bench();
    const [, other] = await registered(b);
    await out(b, other, [RESERVE, 1, 2, 0]);
    t.same(await move(b, other, 2), ['05/26/00', 24], 'to itself');
    t.same(await move(b, other, 2, { port: 2 }), ['', undefined]);
    const far = b.login(B, { tag: 2 });
    t.equal((await b.run(far, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).status, 0);
    t.equal((await b.run(other, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).status, CONFLICT);
    t.equal((await show(b, far, KEYS)).length, 16 + 4 * 16, 'it is registered beside the other');
  },
);

void t.test(
  'With registrations RESERVE (6) is for the holder and for registrants only types (SPC-6 §5.14.3)',
  async (t) => {
    const b = bench();
    const [a, other] = await registered(b);
    const reserve = async (nexus: Nexus): Promise<number> =>
      (await b.run(nexus, 0, [0x16, 0, 0, 0, 0, 0])).status;
    t.equal(await reserve(a), CONFLICT, 'nothing is reserved');
    await out(b, a, [RESERVE, 1, 1, 0]);
    t.same([await reserve(a), await reserve(other)], [0, CONFLICT]);
  },
);

void t.test('A port that is not there is none, 0 no more than 9 (SPC-6 §5.14.8, §6.45)', async (t) => {
  const b = bench();
  const a = b.login(A);
  await out(b, a, [REGISTER, 0, 0, 1]);
  await out(b, a, [RESERVE, 1, 1, 0]);
  for (const port of [0, 3, 0xffff]) {
    t.same(await move(b, a, 1, { port }), ['05/26/00', 18]);
    const list = Buffer.from([0, 0, 0, 0, 2, 0, port >>> 8, port & 255]);
    const set = await b.run(a, 0, [0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], list);
    t.same([set.code, fieldOf(set)], ['05/26/00', 6]);
  }
});

void t.test('APTPL of the last REGISTER or MOVE counts (SPC-6 §5.14.5)', async (t) => {
  const state = new MemoryState();
  const b = bench({ state });
  const a = b.login(A);
  const kept = (): boolean => state.records.has('scsi.reservations.master');
  await out(b, a, [REGISTER, 0, 0, 1]);
  await out(b, a, [RESERVE, 1, 1, 0]);
  t.notOk(kept());
  t.same(await move(b, a, 1, { flags: APTPL }), ['', undefined]);
  t.ok(kept());
  const other = b.login(B);
  t.equal(await out(b, other, [RELEASE, 1, 2, 0]), '');
  t.ok(kept(), 'RELEASE says nothing of it');
  t.equal(await out(b, b.login(C), [REGISTER, 0, 0, 0]), '');
  t.ok(kept(), 'nor does who is not registered and asks for no key');
  t.equal(await show(b, a, KEYS), '00000002' + '00000010' + '0000000000000001' + '0000000000000002');
  t.equal(await out(b, a, [RESERVE, 1, 1, 0]), '');
  t.same(await move(b, a, 1, { port: 2 }), ['', undefined]);
  t.notOk(kept());
  t.equal(await out(b, a, [IGNORE, 0, 0, 1, APTPL]), '');
  t.ok(kept());
  t.equal(await out(b, a, [IGNORE, 0, 0, 1]), '');
  t.notOk(kept());
});

void t.test('A list is as long as its action asks, and 64 KiB at most (SPC-6 §6.17)', async (t) => {
  const b = bench();
  const a = b.login(A);
  const send = async (action: number, list: Buffer): Promise<[string, number | undefined]> => {
    const cdb = Buffer.from([0x5f, action, 0, 0, 0, 0, 0, 0, 0, 0]);
    cdb.writeUInt32BE(list.length, 5);
    const outcome = await b.run(a, 0, cdb, list);
    return [outcome.code, fieldOf(outcome)];
  };
  const keys = (bytes: number, flags = 0): Buffer => {
    const list = Buffer.alloc(bytes);
    list[15] = 1;
    list[20] = flags;
    return list;
  };
  t.same(await send(MOVE, keys(23)), ['05/1a/00', undefined]);
  t.same(await send(REGISTER, keys(28)), ['05/1a/00', undefined], 'TransportIDs without SPEC_I_PT');
  t.same(await send(REGISTER, keys(24, SPEC_I_PT)), ['05/26/00', 24], 'SPEC_I_PT without TransportIDs');
  t.same(await send(REGISTER, keys(65_536, SPEC_I_PT)), ['05/1a/00', undefined]);
  t.same(await send(REGISTER, keys(65_535, SPEC_I_PT)), ['05/26/00', 24], 'which holds none');
  t.same(await send(REGISTER, keys(24)), ['', undefined]);
});

void t.test(
  'Who registered is told of a RELEASE where he loses something by it (SPC-6 §5.14.11.2)',
  async (t) => {
    for (const [type, codes] of [
      [1, []],
      [3, []],
      [5, ['06/2a/04']],
      [6, ['06/2a/04']],
      [7, ['06/2a/04']],
      [8, ['06/2a/04']],
    ] as const) {
      const b = bench();
      const [a, other] = await registered(b);
      const stranger = b.login(`${C}2`);
      await out(b, a, [RESERVE, type, 1, 0]);
      t.equal(await out(b, a, [RELEASE, type, 1, 0]), '');
      t.same(await told(b, other), codes, `type ${type}`);
      t.same(await told(b, a), [], 'who released it knows');
      t.same(await told(b, stranger), [], 'who is not registered is not told');
      t.equal((await b.run(stranger, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).status, 0);
    }
  },
);

void t.test(
  'A holder that unregisters ends its reservation, the last one that of all (SPC-6 §5.14.11.3)',
  async (t) => {
    for (const [type, codes, left] of [
      [1, [], 0],
      [3, [], 0],
      [5, ['06/2a/04'], 0],
      [6, ['06/2a/04'], 0],
      [7, [], 7],
      [8, [], 8],
    ] as const) {
      const b = bench();
      const [a, other, third] = await registered(b);
      await out(b, a, [RESERVE, type, 1, 0]);
      t.equal(await out(b, other, [REGISTER, 0, 2, 0]), '');
      t.equal(await held(b), type, 'who left held nothing, or not alone');
      t.equal(await out(b, a, [REGISTER, 0, 1, 0]), '');
      t.equal(await held(b), left);
      t.same(await told(b, third), codes, `type ${type}`);
      t.same(await told(b, other), [], 'it is not registered any more');
      t.equal(await out(b, third, [REGISTER, 0, 3, 0]), '');
      t.equal(await held(b), 0);
      t.notOk(a.paths[0]?.special, 'nothing is to be looked at any more');
    }
  },
);

void t.test('CLEAR tells all that were registered but its own nexus (SPC-6 §5.14.11.6)', async (t) => {
  const b = bench();
  const [a, other, third] = await registered(b);
  const stranger = b.login(`${C}2`);
  await out(b, other, [RESERVE, 3, 2, 0]);
  t.equal(await out(b, a, [CLEAR, NO_TYPE, 1, 0]), '', 'of what another one holds');
  t.same([await told(b, other), await told(b, third)], [['06/2a/03'], ['06/2a/03']]);
  t.same([await told(b, a), await told(b, stranger)], [[], []]);
  t.same([await held(b), await show(b, a, KEYS)], [0, '0000000400000000']);
  t.equal((await b.run(stranger, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).status, 0);
});

void t.test(
  'PREEMPT of who holds nothing ends his registration, and no more (SPC-6 §5.14.11.5)',
  async (t) => {
    const b = bench();
    const [a, other, third] = await registered(b);
    t.equal(await out(b, a, [PREEMPT, 1, 1, 2]), '', 'without a reservation');
    t.equal(await held(b), 0);
    t.same([await told(b, other), await told(b, third), await told(b, a)], [['06/2a/05'], [], []]);
    t.equal((await show(b, a, KEYS)).slice(16), '00000000000000010000000000000003');
    await out(b, a, [RESERVE, 5, 1, 0]);
    await out(b, other, [REGISTER, 0, 0, 2]);
    t.equal(await out(b, other, [PREEMPT, 1, 2, 3]), '', 'beside one that stays');
    t.equal(await held(b), 5);
    t.same([await told(b, third), await told(b, a)], [['06/2a/05'], []]);
    t.equal(await out(b, other, [PREEMPT, 1, 2, 2]), '', 'its own');
    t.equal((await show(b, a, KEYS)).slice(16), '0000000000000001');
    t.same(await told(b, other), []);
  },
);

void t.test(
  'PREEMPT that takes a reservation over tells those who stay if its type is another (SPC-6 §5.14.11.4)',
  async (t) => {
    for (const [from, to, codes] of [
      [1, 3, []],
      [3, 5, []],
      [5, 5, []],
      [5, 1, ['06/2a/04']],
      [6, 5, ['06/2a/04']],
    ] as const) {
      const b = bench();
      const [a, other, third] = await registered(b);
      await out(b, a, [RESERVE, from, 1, 0]);
      t.equal(await out(b, other, [PREEMPT, to, 2, 1]), '');
      t.equal(
        await show(b, other, RESERVATION),
        `0000000400000010${'2'.padStart(16, '0')}00000000000${to}0000`,
      );
      t.same(await told(b, third), codes, `${from} becomes ${to}`);
      t.same(await told(b, other), []);
      t.same(await told(b, a), ['06/2a/05']);
      t.equal(await out(b, other, [PREEMPT, 3, 2, 2]), '', 'the holder his own');
      t.equal(await held(b), 3);
      t.equal((await show(b, a, KEYS)).slice(16), '00000000000000020000000000000003');
    }
  },
);

void t.test('Only PREEMPT AND ABORT ends tasks, of the preempted alone (SPC-6 §5.14.11.5)', async (t) => {
  const b = bench();
  const [a, other, third] = await registered(b);
  const elsewhere = b.login(B, { tag: 2 });
  b.master.held = true;
  const write = (nexus: Nexus): ReturnType<Bench['start']> =>
    b.start(nexus, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512));
  const tasks = [a, other, third, elsewhere].map(write);
  t.equal(await out(b, a, [PREEMPT, 1, 1, 2]), '');
  t.notOk(tasks.some(({ aborted }) => aborted));
  await told(b, other);
  await out(b, other, [IGNORE, 0, 0, 1]);
  t.equal(await out(b, a, [PREEMPT_AND_ABORT, 1, 1, 1]), '', 'the key that it has itself, too');
  t.same(
    tasks.map(({ aborted }) => aborted),
    [false, true, false, false],
  );
  await told(b, other);
  const again = write(other);
  await out(b, a, [REGISTER, 0, 0, 1]);
  await out(b, a, [RESERVE, 1, 1, 0]);
  t.equal(await out(b, a, [PREEMPT_AND_ABORT, 1, 1, 1]), '', 'itself alone');
  await out(b, other, [REGISTER, 0, 0, 3]);
  t.same(
    tasks.map(({ aborted }) => aborted),
    [false, true, false, false],
  );
  t.equal(await out(b, a, [PREEMPT_AND_ABORT, 1, 1, 3]), '', 'two of one key');
  t.same([tasks[0].aborted, again.aborted, tasks[2].aborted, tasks[3].aborted], [false, true, true, false]);
  b.master.release();
  for (const task of tasks) t.equal((await task.whenEnded()).ends, 1);
});

void t.test('RELEASE (6) frees the unit for all (SPC-2 §7.16)', async (t) => {
  const b = bench();
  const [a, other] = [b.login(A), b.login(B)];
  t.equal((await b.run(a, 0, [0x16, 0, 0, 0, 0, 0])).status, 0);
  t.equal((await b.run(a, 0, [0x17, 0, 0, 0, 0, 0])).status, 0);
  t.equal((await b.run(other, 0, TUR)).status, 0);
  t.notOk(other.paths[0]?.special, 'nothing is to be looked at any more');
});

void t.test(
  'Reservations that cannot be kept or read are told to the operator, and of which unit',
  async (t) => {
    const state = new MemoryState();
    const b = bench({ state });
    const a = b.login(A);
    await new Promise(setImmediate);
    state.fails = true;
    t.equal(await out(b, a, [REGISTER, 0, 0, 1]), '', 'nothing to keep');
    t.same(b.warnings, []);
    t.equal(await out(b, a, [REGISTER, 0, 1, 1, APTPL]), '04/44/00');
    t.match(b.warnings, [
      { message: 'persistent reservations could not be saved', fields: { err: Error, unit: 'master' } },
    ]);
    for (const [record, message, fields] of [
      ['{', /cannot be read: none are in force/, { err: Error, record: 'scsi.reservations.slave' }],
      ['[]', /make no sense: none are in force/, { record: 'scsi.reservations.slave' }],
    ] as const) {
      state.records.set('scsi.reservations.slave', Buffer.from(record));
      t.match(bench({ state }).warnings, [{ message, fields }]);
    }
  },
);

void t.test(
  'A restart keeps holder and type, and that all registrants hold it (SPC-6 §5.14.5)',
  async (t) => {
    for (const [type, key] of [
      [3, '2'],
      [8, '0'],
    ] as const) {
      const state = new MemoryState();
      const b = bench({ state });
      const [, other] = await registered(b);
      t.equal(await out(b, other, [REGISTER, 0, 2, 2, APTPL]), '');
      t.equal(await out(b, other, [RESERVE, type, 2, 0]), '');
      const after = bench({ state });
      t.equal(
        (await show(after, after.login(A), RESERVATION)).slice(16),
        `${key.padStart(16, '0')}00000000000${type}0000`,
      );
    }
  },
);

void t.test('A saved record is in force only if each of its fields fits', (t) => {
  const entry = { key: '0000000000000001', initiatorPort: `${A},i,0x00023d000001`, relativePort: 1 };
  const good = { registrations: [entry], holder: 0, type: 1 };
  const state = new MemoryState();
  const inForce = (record: object): number => {
    state.records.set('scsi.reservations.master', Buffer.from(JSON.stringify(record)));
    return bench({ state }).warnings.length === 0 ? 1 : 0;
  };
  for (const record of [
    good,
    { ...good, holder: -1, type: 8 },
    { ...good, holder: -1, type: 0 },
    { registrations: [], holder: -1, type: 0 },
  ])
    t.equal(inForce(record), 1, JSON.stringify(record));
  for (const record of [
    { ...good, holder: 1 },
    { ...good, holder: -1 },
    { ...good, holder: '0' },
    { ...good, type: 2 },
    { ...good, type: '1' },
    { ...good, registrations: { length: 1 } },
    { ...good, registrations: [entry, null] },
    { ...good, registrations: [entry, 1] },
    ...['key', 'initiatorPort', 'relativePort'].map((field) => ({
      ...good,
      registrations: [entry, { ...entry, [field]: null }],
    })),
    1,
  ])
    t.equal(inForce(record as object), 0, JSON.stringify(record));
  t.end();
});
