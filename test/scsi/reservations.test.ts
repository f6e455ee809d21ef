import t from 'tap';
import type { Nexus } from '../../src/scsi/nexus.js';
import { COMMANDS } from './commands.js';
import { bench, cdb10, MemoryState } from './support.js';
import type { Bench } from './support.js';

const CONFLICT = 0x18;
const KEY_A = '00000000000000aa';
const KEY_B = '00000000000000bb';
const KEY_C = '00000000000000cc';
const NONE = '0000000000000000';
const A = 'iqn.2024-01.org.example:a';
const B = 'iqn.2024-01.org.example:b';
const C = 'iqn.2024-01.org.example:c';

/** PERSISTENT RESERVE OUT with the 24-byte parameter list. */
async function out(
  { run }: Bench,
  nexus: Nexus,
  action: number,
  { key = NONE, actionKey = NONE, type = 0, flags = 0, lun = 0 } = {},
): Promise<string | number> {
  const list = Buffer.alloc(24);
  list.write(key, 0, 'hex');
  list.write(actionKey, 8, 'hex');
  list[20] = flags;
  const { status, code } = await run(nexus, lun, [0x5f, action, type, 0, 0, 0, 0, 0, 24, 0], list);
  return code === '' ? status : code;
}

async function keys({ run }: Bench, nexus: Nexus): Promise<string[]> {
  const { data } = await run(nexus, 0, [0x5e, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
  return Array.from({ length: data.readUInt32BE(4) / 8 }, (_, i) =>
    data.toString('hex', 8 + i * 8, 16 + i * 8),
  );
}

const REGISTER = 0;
const RESERVE = 1;
const RELEASE = 2;
const CLEAR = 3;
const PREEMPT = 4;
const PREEMPT_AND_ABORT = 5;

void t.test('Registration: keys, wrong keys, changing and leaving (SPC-6 §5.14.7)', async (t) => {
  const b = bench();
  const a = b.login(A);
  const other = b.login(B);
  t.equal(
    await out(b, a, REGISTER, { key: KEY_A, actionKey: KEY_A }),
    CONFLICT,
    'not registered: the key must be zero',
  );
  t.equal(await out(b, a, REGISTER, { actionKey: KEY_A }), 0);
  t.equal(await out(b, other, 6, { key: KEY_C, actionKey: KEY_B }), 0, 'REGISTER AND IGNORE');
  t.same(await keys(b, a), [KEY_A, KEY_B]);
  t.equal(await out(b, a, REGISTER, { key: KEY_B, actionKey: KEY_C }), CONFLICT);
  t.equal(await out(b, a, REGISTER, { key: KEY_A, actionKey: KEY_C }), 0);
  t.same(await keys(b, a), [KEY_C, KEY_B]);
  t.equal(await out(b, a, REGISTER, { key: KEY_C }), 0);
  t.same(await keys(b, a), [KEY_B]);
  t.equal(await out(b, a, 0x08), '05/24/00', 'no such service action');
});

void t.test('What each type lets others do (SPC-6 §5.14.1, SBC-5 §4.17)', async (t) => {
  const read = cdb10(0x28, 0, 1);
  const write = cdb10(0x2a, 0, 1);
  // type, read by a registrant, write by a registrant, read by anybody, write by anybody
  const table: [number, number, number, number, number][] = [
    [1, 0, CONFLICT, 0, CONFLICT],
    [3, CONFLICT, CONFLICT, CONFLICT, CONFLICT],
    [5, 0, 0, 0, CONFLICT],
    [6, 0, 0, CONFLICT, CONFLICT],
    [7, 0, 0, 0, CONFLICT],
    [8, 0, 0, CONFLICT, CONFLICT],
  ];
  for (const [type, ...expected] of table) {
    const b = bench();
    const holder = b.login(A);
    const registrant = b.login(B);
    const anybody = b.login(C);
    await out(b, holder, REGISTER, { actionKey: KEY_A });
    await out(b, registrant, REGISTER, { actionKey: KEY_B });
    t.equal(await out(b, holder, RESERVE, { key: KEY_A, type }), 0);
    const got = [
      (await b.run(registrant, 0, read)).status,
      (await b.run(registrant, 0, write, Buffer.alloc(512))).status,
      (await b.run(anybody, 0, read)).status,
      (await b.run(anybody, 0, write, Buffer.alloc(512))).status,
    ];
    t.same(got, expected, `type ${String(type)}`);
    t.equal((await b.run(holder, 0, write, Buffer.alloc(512))).status, 0);
    t.equal((await b.run(anybody, 0, [0x12, 0, 0, 0, 96, 0])).status, 0, 'INQUIRY');
    t.equal((await b.run(anybody, 1, read)).status, 0, "the slave's reservations are its own");
    const { data } = await b.run(anybody, 0, [0x5e, 1, 0, 0, 0, 0, 0, 1, 0, 0]);
    t.equal(data[21], type);
    t.equal(data.toString('hex', 8, 16), type >= 7 ? NONE : KEY_A);
  }
});

void t.test('Release, clear and leaving tell those who should know (SPC-6 §5.14.11)', async (t) => {
  const b = bench();
  const a = b.login(A);
  const other = b.login(B);
  const ready = async (nexus: Nexus): Promise<string> => (await b.run(nexus, 0, [0, 0, 0, 0, 0, 0])).code;
  await out(b, a, REGISTER, { actionKey: KEY_A });
  await out(b, other, REGISTER, { actionKey: KEY_B });
  await out(b, a, RESERVE, { key: KEY_A, type: 5 });
  t.equal(await out(b, other, RELEASE, { key: KEY_B, type: 5 }), 0, 'of somebody else: nothing happens');
  t.equal(await out(b, a, RELEASE, { key: KEY_A, type: 1 }), '05/26/04');
  t.equal(await out(b, a, RELEASE, { key: KEY_A, type: 5 }), 0);
  t.equal(await ready(other), '06/2a/04');
  t.equal(await ready(a), '');
  await out(b, a, RESERVE, { key: KEY_A, type: 5 });
  t.equal(await out(b, a, REGISTER, { key: KEY_A }), 0, 'the holder leaves');
  t.equal(await ready(other), '06/2a/04');
  await out(b, a, REGISTER, { actionKey: KEY_A });
  t.equal(await out(b, a, CLEAR, { key: KEY_A }), 0);
  t.equal(await ready(other), '06/2a/03');
  t.same(await keys(b, a), []);
});

void t.test(
  'Preempting takes the reservation over, and its abort ends the tasks of the preempted (SPC-6 §5.14.11.4)',
  async (t) => {
    const b = bench();
    const a = b.login(A);
    const other = b.login(B);
    await out(b, a, REGISTER, { actionKey: KEY_A });
    await out(b, other, REGISTER, { actionKey: KEY_B });
    await out(b, a, RESERVE, { key: KEY_A, type: 3 });
    t.equal(
      await out(b, other, PREEMPT, { key: KEY_B, actionKey: KEY_C, type: 3 }),
      CONFLICT,
      'nobody has that key',
    );
    t.equal(await out(b, other, PREEMPT, { key: KEY_B, actionKey: NONE, type: 3 }), '05/26/00');
    b.master.held = true;
    const stuck = b.start(a, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512));
    t.equal(await out(b, other, PREEMPT_AND_ABORT, { key: KEY_B, actionKey: KEY_A, type: 3 }), 0);
    t.ok(stuck.aborted);
    b.master.release();
    t.equal((await stuck.whenEnded()).ends, 1);
    t.equal((await b.run(a, 0, cdb10(0x28, 0, 1))).code, '06/2a/05');
    t.equal((await b.run(a, 0, cdb10(0x28, 0, 1))).status, CONFLICT);
    t.same(await keys(b, a), [KEY_B]);
  },
);

void t.test(
  'REGISTER AND MOVE hands the reservation to an initiator port by name (SPC-6 §5.14.8)',
  async (t) => {
    const b = bench();
    const a = b.login(A);
    const other = b.login(B);
    await out(b, a, REGISTER, { actionKey: KEY_A });
    await out(b, a, RESERVE, { key: KEY_A, type: 1 });
    const name = Buffer.from(`${B},i,0x00023d000001\0`.padEnd(52, '\0'));
    const list = Buffer.alloc(24 + 4 + name.length);
    list.write(KEY_A, 0, 'hex');
    list.write(KEY_B, 8, 'hex');
    list[17] = 0x02;
    list.writeUInt16BE(1, 18);
    list.writeUInt32BE(4 + name.length, 20);
    list[24] = 0x45;
    list.writeUInt16BE(name.length, 26);
    name.copy(list, 28);
    t.equal((await b.run(a, 0, [0x5f, 7, 1, 0, 0, 0, 0, 0, list.length, 0], list)).status, 0);
    t.same(await keys(b, a), [KEY_B], 'UNREG');
    t.equal((await b.run(other, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).status, 0);
    t.equal((await b.run(a, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).status, CONFLICT);
    const { data } = await b.run(a, 0, [0x5e, 3, 0, 0, 0, 0, 0, 2, 0, 0]);
    t.equal(data[8 + 12], 1, 'READ FULL STATUS: holder');
    t.match(data.toString('latin1', 8 + 28), new RegExp(`^${B}`));
    list[24] = 0x05;
    t.equal(
      (await b.run(other, 0, [0x5f, 7, 1, 0, 0, 0, 0, 0, list.length, 0], list)).status,
      CONFLICT,
      'wrong key',
    );
  },
);

void t.test(
  'APTPL keeps reservations over a restart, in a durable record; without it they go (SPC-6 §5.14.5)',
  async (t) => {
    const state = new MemoryState();
    const before = bench({ state });
    const a = before.login(A);
    t.equal(await out(before, a, REGISTER, { actionKey: KEY_A, flags: 0x01 }), 0);
    t.equal(await out(before, a, RESERVE, { key: KEY_A, type: 3 }), 0);
    const after = bench({ state });
    const other = after.login(B);
    t.equal((await after.run(other, 0, cdb10(0x28, 0, 1))).status, CONFLICT);
    t.equal((await after.run(after.login(A), 0, cdb10(0x28, 0, 1))).status, 0);
    state.fails = true;
    t.equal(
      await out(after, other, REGISTER, { actionKey: KEY_B, flags: 0x01 }),
      '04/44/00',
      'not durable: not GOOD',
    );
    state.fails = false;
    t.equal(await out(after, other, REGISTER, { key: KEY_B, actionKey: KEY_C }), 0, 'APTPL=0');
    const gone = bench({ state });
    t.same(await keys(gone, gone.login(B)), []);
    state.records.set('scsi.reservations.master', Buffer.from('{"type":3'));
    t.equal(bench({ state }).warnings.length, 1, 'a damaged record is reported');
  },
);

void t.test('ALL_TG_PT registers for every port, and a table of registrations is bounded', async (t) => {
  const b = bench();
  const a = b.login(A);
  await out(b, a, REGISTER, { actionKey: KEY_A, flags: 0x04 });
  t.same(await keys(b, a), [KEY_A, KEY_A]);
  const second = b.login(A, { tag: 2 });
  t.equal(await out(b, second, RESERVE, { key: KEY_A, type: 1 }), 0);
  let last: string | number = 0;
  for (let i = 0; i < 70; i++)
    last = await out(b, b.login(`${C}${String(i)}`), REGISTER, { actionKey: KEY_C });
  t.equal(last, '05/55/04');
});

void t.test(
  'RESERVE (6) keeps others out until RELEASE, the end of the nexus, or a reset (SPC-2 §5.5)',
  async (t) => {
    const b = bench();
    const a = b.login(A);
    const other = b.login(B);
    const reserve = [0x16, 0, 0, 0, 0, 0];
    const release = [0x17, 0, 0, 0, 0, 0];
    const status = async (nexus: Nexus, cdb: number[]): Promise<number> =>
      (await b.run(nexus, 0, cdb)).status;
    t.equal(await status(a, reserve), 0);
    t.equal(await status(a, reserve), 0);
    t.equal(await status(other, reserve), CONFLICT);
    t.equal(await status(other, [0, 0, 0, 0, 0, 0]), CONFLICT);
    t.equal(await status(other, cdb10(0x25, 0, 0)), 0, 'READ CAPACITY');
    t.equal(await status(other, release), 0);
    t.equal(await status(other, reserve), CONFLICT, 'it was not his to release');
    b.target.detach(a, 'connection-lost');
    t.equal(await status(other, reserve), 0);
    t.equal(await status(other, release), 0);
    const again = b.login(A);
    await out(b, again, REGISTER, { actionKey: KEY_A });
    t.equal(await status(other, reserve), CONFLICT, 'CRH: with registrations only registrants');
    await out(b, again, RESERVE, { key: KEY_A, type: 5 });
    t.equal(await status(again, reserve), 0, 'CRH: and it changes nothing');
  },
);

void t.test(
  'Reservations let anybody start the unit and allow removal, but not stop, load or prevent (SBC-5 §4.17, SPC-2 §5.5.1)',
  async (t) => {
    for (const reserve of ['persistent', 'SCSI-2'] as const) {
      const b = bench();
      const a = b.login(A);
      const other = b.login(B);
      if (reserve === 'SCSI-2') await b.run(a, 1, [0x16, 0, 0, 0, 0, 0]);
      else {
        await out(b, a, REGISTER, { actionKey: KEY_A, lun: 1 });
        await out(b, a, RESERVE, { key: KEY_A, type: 1, lun: 1 });
      }
      const status = async (cdb: number[]): Promise<number> => (await b.run(other, 1, cdb)).status;
      t.equal(await status([0x1b, 0, 0, 0, 1, 0]), 0, 'START');
      t.equal(await status([0x1e, 0, 0, 0, 0, 0]), 0, 'allow');
      for (const refused of [
        [0x1b, 0, 0, 0, 0, 0],
        [0x1b, 0, 0, 0, 2, 0],
        [0x1b, 0, 0, 0, 3, 0],
        [0x1b, 0, 0, 0, 0x11, 0],
        [0x1e, 0, 0, 0, 1, 0],
      ])
        t.equal(await status(refused), CONFLICT, `${reserve}: ${refused.join(' ')}`);
      t.same(b.target.slaveHolders(), []);
      t.equal((await b.run(a, 1, [0x1e, 0, 0, 0, 1, 0])).status, 0, 'who reserved it may');
    }
  },
);

/**
 * What another initiator may send, as the tables of SPC-4 §5.12.1 and SBC-3 §4.17 have it, written down here again:
 * whatever the reservation (`always`), under write exclusive types only (`read`), or never.
 */
const TABLE: Readonly<Record<'always' | 'read' | 'never', RegExp>> = {
  always:
    /^(INQUIRY|LOG SENSE|REPORT |REQUEST SENSE|TEST UNIT READY|READ CAPACITY|PERSISTENT RESERVE IN|RECEIVE ROD)/,
  read: /^(READ \(|READ DEFECT|VERIFY|PRE-FETCH|GET LBA STATUS|MODE SENSE|POPULATE TOKEN|SEEK|REZERO)/,
  never:
    /^(WRITE|UNMAP|ORWRITE|COMPARE AND WRITE|SANITIZE|SYNCHRONIZE|EXTENDED COPY|RECEIVE COPY|LOG SELECT|MODE SELECT|SEND DIAGNOSTIC|SET TARGET)/,
};
/** With rules of their own, tested above. */
const SEPARATE = /^(PERSISTENT RESERVE OUT|RESERVE \(6\)|RELEASE \(6\)|START STOP UNIT|PREVENT ALLOW)/;
/** SPC-2 §5.5.1: allowed in spite of another's RESERVE (6). */
const IN_SPITE_OF_RESERVE = /^(INQUIRY|LOG SENSE|REPORT LUNS|REQUEST SENSE|READ CAPACITY)/;

void t.test(
  "Every command is let through or kept out as the standards' tables of reservations say",
  async (t) => {
    const cdbOf = ({ usageData, serviceAction }: (typeof COMMANDS)[number]): Buffer => {
      const cdb = Buffer.alloc(32);
      cdb[0] = usageData[0];
      if (cdb[0] === 0x7f) usageData.copy(cdb, 7, 7, 10);
      else if (serviceAction !== undefined) cdb[1] = serviceAction;
      return cdb;
    };
    for (const [type, isWriteExclusive] of [
      [1, true],
      [3, false],
      [5, true],
      [6, false],
      [7, true],
      [8, false],
    ] as const) {
      const b = bench();
      const holder = b.login(A);
      const other = b.login(B);
      await out(b, holder, REGISTER, { actionKey: KEY_A });
      await out(b, holder, RESERVE, { key: KEY_A, type });
      for (const command of COMMANDS) {
        if (SEPARATE.test(command.name)) continue;
        const [row] = Object.entries(TABLE).filter(([, names]) => names.test(command.name));
        t.ok(row, `${command.name} is in the table`);
        const allowed = row[0] === 'always' || (row[0] === 'read' && isWriteExclusive);
        const { status } = await b.run(other, 0, cdbOf(command));
        if ((status === CONFLICT) === allowed) t.fail(`${command.name} under type ${String(type)}`);
      }
    }
    const b = bench();
    await b.run(b.login(A), 0, [0x16, 0, 0, 0, 0, 0]);
    const other = b.login(B);
    for (const command of COMMANDS) {
      if (/^(RELEASE|START|PREVENT)/.test(command.name)) continue;
      const { status } = await b.run(other, 0, cdbOf(command));
      if ((status === CONFLICT) === IN_SPITE_OF_RESERVE.test(command.name))
        t.fail(`${command.name}: RESERVE (6)`);
    }
  },
);

void t.test('SPEC_I_PT registers other initiator ports, all or none (SPC-6 §5.14.7.3)', async (t) => {
  const b = bench();
  const a = b.login(A);
  const transportId = (port: string, header = 0x45): Buffer => {
    const id = Buffer.alloc(4 + Math.ceil((port.length + 1) / 4) * 4);
    id[0] = header;
    id.writeUInt16BE(id.length - 4, 2);
    id.write(port, 4);
    return id;
  };
  const register = async (
    ids: Buffer,
    { action = REGISTER, listBytes = ids.length, key = NONE, actionKey = KEY_A } = {},
  ): Promise<string | number> => {
    const list = Buffer.alloc(28);
    list.write(key, 0, 'hex');
    list.write(actionKey, 8, 'hex');
    list[20] = 0x08;
    list.writeUInt32BE(listBytes, 24);
    const data = Buffer.concat([list, ids]);
    const cdb = [0x5f, action, 0, 0, 0, 0, 0, data.length >>> 8, data.length & 255, 0];
    const { status, code } = await b.run(a, 0, cdb, data);
    return code === '' ? status : code;
  };
  const [portB, portC] = [B, C].map((name) => transportId(`${name},i,0x00023d000001`));
  t.equal(await register(Buffer.concat([portB, portC]), { listBytes: 5 }), '05/26/00', 'a cut TransportID');
  t.equal(await register(Buffer.concat([portB, transportId(C, 0x06)])), '05/26/00', 'SAS in an iSCSI target');
  t.equal(await register(transportId(B)), '05/26/00', 'a port format without ISID');
  t.equal(await register(portB, { action: 6 }), '05/26/00', 'not with REGISTER AND IGNORE EXISTING KEY');
  t.same(await keys(b, a), [], 'nothing was registered');
  t.equal(await register(Buffer.concat([portB, portC])), 0);
  t.same(await keys(b, a), [KEY_A, KEY_A, KEY_A], 'itself and both');
  t.equal(await register(portB, { key: KEY_A, actionKey: KEY_B }), '05/26/00', 'not when registered already');
  t.equal(await out(b, b.login(B), RESERVE, { key: KEY_A, type: 5 }), 0, 'registered without having asked');
  const { data } = await b.run(a, 0, [0x5e, 3, 0, 0, 0, 0, 0, 4, 0, 0]);
  t.ok(data.includes(Buffer.from(`${C},i,0x00023d000001`)), 'READ FULL STATUS names them');
  const many = bench();
  const first = many.login(A);
  const ids = Buffer.concat(
    Array.from({ length: 64 }, (_, i) => transportId(`${B}${String(i)},i,0x00023d000001`)),
  );
  const list = Buffer.alloc(28);
  list.write(KEY_A, 8, 'hex');
  list[20] = 0x08;
  list.writeUInt32BE(ids.length, 24);
  const bytes = list.length + ids.length;
  const cdb = [0x5f, REGISTER, 0, 0, 0, 0, 0, bytes >>> 8, bytes & 255, 0];
  t.equal(
    (await many.run(first, 0, cdb, Buffer.concat([list, ids]))).code,
    '05/55/04',
    'more than there is room for',
  );
  t.same(await keys(many, first), [], 'none of them');
});
