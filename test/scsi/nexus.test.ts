import t from 'tap';
import { MEDIUM } from '../../src/scsi/medium.js';
import type { Nexus } from '../../src/scsi/nexus.js';
import { TASK_MANAGEMENT, TASK_MANAGEMENT_RESPONSE } from '../../src/scsi/port.js';
import { TASK_ATTRIBUTE } from '../../src/scsi/task.js';
import type { Task } from '../../src/scsi/task.js';
import { BOTH, bench, cdb10, cdb16, MemoryMedium, MemoryState, senseCode } from './support.js';
import type { Bench } from './support.js';

const TUR = [0, 0, 0, 0, 0, 0];
const A = 'iqn.2024-01.org.example:a';
const B = 'iqn.2024-01.org.example:b';

const ready = async ({ run }: Bench, nexus: Nexus, lun: number): Promise<string> =>
  (await run(nexus, lun, TUR)).code;

function manage(
  { target }: Bench,
  nexus: Nexus,
  code: number,
  lun = 0,
  task?: Task,
): Promise<{ response: number; additional: number }> {
  return new Promise((resolve) => {
    target.manage({ nexus, function: code, lunHigh: lun << 16, lunLow: 0, task }, (response, additional) =>
      resolve({ response, additional }),
    );
  });
}

void t.test(
  'A new nexus hears one thing of each unit: power on, or of the master that the nexus was lost (SAM-6 §5.14)',
  async (t) => {
    const b = bench();
    const a = b.login(A, { fresh: true });
    t.equal(await ready(b, a, 0), '06/29/00');
    t.equal(await ready(b, a, 0), '', 'reported once');
    t.equal(await ready(b, a, 1), '06/29/00');
    t.equal(await ready(b, a, 1), '', 'that says everything: no medium change behind it');
    b.target.detach(a, 'connection-lost');
    const again = b.login(A, { fresh: true });
    t.equal(await ready(b, again, 0), '06/29/07');
    t.equal(await ready(b, again, 1), '', 'told of this medium already');
  },
);

void t.test(
  'INQUIRY and REPORT LUNS leave a unit attention pending; REQUEST SENSE reports it (SPC-6 §6.6, §6.34, §6.38)',
  async (t) => {
    const b = bench();
    const a = b.login(A, { fresh: true });
    t.equal((await b.run(a, 0, [0x12, 0, 0, 0, 96, 0])).status, 0);
    t.equal((await b.run(a, 0, [0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])).status, 0);
    t.equal(senseCode((await b.run(a, 0, [3, 0, 0, 0, 252, 0])).data), '06/29/00');
    t.equal((await b.run(a, 0, [3, 1, 0, 0, 252, 0])).data[0], 0x72, 'DESC: descriptor format');
    t.equal(await ready(b, a, 0), '');
  },
);

void t.test(
  'A transport that asks hears of unit attentions as they come, with the sense data that the next command gets',
  async (t) => {
    const b = bench();
    const heard: [number, string][] = [];
    const nexus = b.target.attach({
      initiatorName: A,
      initiatorPort: `${A},i,0x00023d000001`,
      portalGroupTag: 1,
      luns: BOTH,
      address: '192.0.2.1',
      onAttention: (lun, sense) => heard.push([lun, senseCode(sense)]),
    });
    t.same(heard, [], 'what a new nexus finds pending is no event');
    for (const lun of [0, 1]) await ready(b, nexus, lun);
    b.slave.generation++;
    b.target.mediumLoaded();
    b.target.mediumLoaded();
    b.target.capacityChanged();
    t.same(heard, [
      [1, '06/28/00'],
      [0, '06/2a/09'],
      [1, '06/2a/09'],
    ]);
    t.equal(await ready(b, nexus, 1), '06/28/00', 'it is still pending');
    t.equal(await ready(b, nexus, 1), '06/2a/09');
    b.target.detach(nexus, 'logout');
    b.target.capacityChanged();
    t.equal(heard.length, 3, 'nobody is told any more');
  },
);

void t.test(
  'Who knows of the medium is kept over a restart; a port that was away hears of a new one',
  async (t) => {
    const state = new MemoryState();
    const slave = new MemoryMedium(1 << 20);
    const first = bench({ state, slave });
    const mounted = first.login(A, { fresh: true });
    t.equal(await ready(first, mounted, 1), '06/29/00');
    const restarted = bench({ state, slave });
    t.equal(await ready(restarted, restarted.login(A, { fresh: true }), 1), '', 'a mounted slave goes on');
    t.equal(await ready(restarted, restarted.login(B, { fresh: true }), 1), '06/29/00', 'a port never seen');
    slave.generation++;
    const later = bench({ state, slave });
    t.equal(await ready(later, later.login(B, { fresh: true }), 1), '06/28/00', 'enabled while it was away');
    slave.generation++;
    const latest = bench({ state, slave });
    t.equal(
      await ready(latest, latest.login(A, { fresh: true }), 1),
      '06/28/00',
      'twice, and others heard of one',
    );
    slave.present = false;
    const empty = bench({ state, slave });
    t.equal(
      await ready(empty, empty.login(B, { fresh: true }), 1),
      '02/3a/00',
      'no medium: nothing to announce',
    );
  },
);

void t.test('The list of told ports is bounded, and ports that are logged in stay on it', async (t) => {
  const state = new MemoryState();
  const slave = new MemoryMedium(1 << 20);
  const b = bench({ state, slave });
  b.login(A);
  await ready(b, b.login(A, { fresh: true }), 1);
  for (let i = 0; i < 100; i++) {
    const passing = b.login(`${B}${String(i)}`, { fresh: true });
    await ready(b, passing, 1);
    b.target.detach(passing, 'logout');
  }
  t.equal(state.records.get('scsi.told')?.length, 64 * 12);
  const restarted = bench({ state, slave });
  t.equal(await ready(restarted, restarted.login(A, { fresh: true }), 1), '');
});

void t.test(
  'Enable, disable, rollback and grow are told as a medium that comes, goes, changes or grows',
  async (t) => {
    const b = bench();
    const a = b.login(A);
    const other = b.login(B);
    b.slave.present = false;
    b.target.mediumRemoved();
    t.equal(await ready(b, a, 1), '02/3a/00', 'no unit attention on disable');
    t.equal(
      (await b.run(a, 1, cdb10(0x2a, 0, 1), Buffer.alloc(512))).code,
      '02/3a/00',
      'before write protection',
    );
    b.slave.present = true;
    b.slave.generation++;
    b.target.mediumLoaded();
    t.equal(await ready(b, a, 1), '06/28/00');
    t.equal(await ready(b, other, 1), '06/28/00');
    t.equal((await b.run(a, 1, cdb10(0x2a, 0, 1), Buffer.alloc(512))).code, '07/27/00');
    b.target.masterChanged();
    t.equal(await ready(b, a, 0), '06/28/00');
    b.target.capacityChanged();
    t.equal(await ready(b, a, 0), '06/2a/09');
    t.equal(await ready(b, a, 1), '06/2a/09');
  },
);

void t.test(
  'START STOP UNIT asks the daemon, and PREVENT holds the medium in per nexus (SBC-5 §5.15, §5.32)',
  async (t) => {
    const b = bench();
    const a = b.login(A);
    const other = b.login(B);
    const eject = [0x1b, 0, 0, 0, 2, 0];
    const load = [0x1b, 0, 0, 0, 3, 0];
    const prevent = [0x1e, 0, 0, 0, 1, 0];
    await b.run(other, 1, prevent);
    t.same(b.target.slaveHolders(), [{ initiator: B, address: '192.0.2.1' }]);
    t.equal((await b.run(a, 1, eject)).code, '05/53/02');
    b.target.clearPrevents();
    t.equal((await b.run(a, 1, eject)).status, 0);
    t.equal(await ready(b, a, 1), '02/3a/00');
    t.equal((await b.run(a, 1, load)).status, 0);
    t.equal(await ready(b, a, 1), '', 'who loaded it need not be told');
    t.equal(await ready(b, other, 1), '06/28/00');
    await b.run(other, 1, prevent);
    b.target.detach(other, 'logout');
    t.same(b.target.slaveHolders(), [], 'prevention ends with the logout');
    t.equal((await b.run(a, 0, eject)).code, '05/24/00', 'the master is fixed');
    const refusing = bench({
      control: {
        load: (_nexus, done) => done({ code: 'not-allowed', message: 'no' }),
        eject: (_nexus, done) => setImmediate(() => done({ code: 'not-allowed', message: 'no' })),
      },
    });
    t.equal((await refusing.run(refusing.login(A), 1, eject)).code, '05/53/00');
    t.equal(refusing.warnings.length, 1);
  },
);

void t.test(
  'A LUN without unit answers as SPC-6 §6.6.1 and §6.34 ask, and access can change (SAM-6 §5.11)',
  async (t) => {
    const b = bench();
    const a = b.login(A, { luns: [{ lun: 5, unit: 'slave', readOnly: true }] });
    const inquiry = await b.run(a, 0, [0x12, 0, 0, 0, 36, 0]);
    t.equal(inquiry.data[0], 0x7f);
    t.equal(inquiry.data.length, 36);
    t.equal((await b.run(a, 0, TUR)).code, '05/25/00');
    t.equal((await b.run(a, 7, [0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])).code, '05/25/00');
    const luns = await b.run(a, 0, [0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    t.same([luns.data.readUInt32BE(0), luns.data[9]], [8, 5], 'REPORT LUNS works on LUN 0');
    t.equal((await b.run(a, 5, TUR)).status, 0);
    b.target.changeAccess(a, BOTH);
    t.equal(await ready(b, a, 0), '06/3f/0e');
    t.equal((await b.run(a, 5, TUR)).code, '05/25/00');
    await b.run(a, 0, [0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    t.equal(await ready(b, a, 1), '', 'answered by REPORT LUNS');
    b.target.changeAccess(a, [{ lun: 0, unit: 'master', readOnly: true }]);
    await ready(b, a, 0);
    t.equal(
      (await b.run(a, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).code,
      '07/27/00',
      'read-only for this nexus',
    );
    t.equal((await b.run(a, 0, [0x1a, 0, 0x3f, 0, 255, 0])).data[2] & 0x80, 0x80, 'WP');
  },
);

void t.test(
  'ORDERED tasks wait for older ones and hold back younger ones; HEAD OF QUEUE passes (SAM-6 §8)',
  async (t) => {
    const b = bench();
    const a = b.login(A);
    const ended: string[] = [];
    const write = (name: string, attribute: number): ReturnType<Bench['start']> => {
      const task = b.start(
        a,
        0,
        cdb10(0x2a, 0, 1),
        Buffer.alloc(512, name.charCodeAt(0)),
        (task) => (task.attribute = attribute),
      );
      void task.whenEnded().then(() => ended.push(name));
      return task;
    };
    b.master.held = true;
    write('simple', TASK_ATTRIBUTE.SIMPLE);
    b.master.held = false;
    const ordered = write('ordered', TASK_ATTRIBUTE.ORDERED);
    const younger = write('younger', TASK_ATTRIBUTE.SIMPLE);
    t.notOk(ordered.ended);
    t.notOk(younger.ended);
    const head = write('head', TASK_ATTRIBUTE.HEAD_OF_QUEUE);
    t.ok(head.ended);
    b.master.release();
    await younger.whenEnded();
    await new Promise(setImmediate);
    t.same(ended, ['head', 'simple', 'ordered', 'younger']);
    t.equal(b.master.bytes[0], 'y'.charCodeAt(0));
    const refused = b.start(a, 0, TUR, undefined, (task) => (task.attribute = TASK_ATTRIBUTE.ACA));
    t.equal(refused.outcome().code, '05/49/00');
  },
);

void t.test(
  'Task management aborts, queries and resets, and waits for what is under way (SAM-6 §7)',
  async (t) => {
    const { FUNCTION_COMPLETE, FUNCTION_SUCCEEDED, TASK_DOES_NOT_EXIST, LUN_DOES_NOT_EXIST } =
      TASK_MANAGEMENT_RESPONSE;
    const b = bench();
    const a = b.login(A);
    const other = b.login(B);
    b.master.held = true;
    const writing = b.start(a, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512));
    const waiting = b.start(a, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512), (task) => (task.withheld = true));
    t.equal((await manage(b, a, TASK_MANAGEMENT.QUERY_TASK, 0, writing)).response, FUNCTION_SUCCEEDED);
    t.equal((await manage(b, a, TASK_MANAGEMENT.QUERY_TASK_SET)).response, FUNCTION_SUCCEEDED);
    t.equal((await manage(b, a, TASK_MANAGEMENT.ABORT_TASK, 0, waiting)).response, FUNCTION_COMPLETE);
    t.ok(waiting.aborted && waiting.ended, 'waited only for data: over at once');
    t.equal((await manage(b, a, TASK_MANAGEMENT.ABORT_TASK, 0, waiting)).response, TASK_DOES_NOT_EXIST);
    t.equal((await manage(b, a, TASK_MANAGEMENT.ABORT_TASK, 9)).response, LUN_DOES_NOT_EXIST);
    let answered = false;
    const reset = manage(b, other, TASK_MANAGEMENT.LOGICAL_UNIT_RESET).then((answer) => {
      answered = true;
      return answer;
    });
    await new Promise(setImmediate);
    t.notOk(answered, 'a write is still on its way to the medium');
    b.master.release();
    t.equal((await reset).response, FUNCTION_COMPLETE);
    t.equal(writing.ends, 1);
    t.equal((await manage(b, a, TASK_MANAGEMENT.QUERY_ASYNCHRONOUS_EVENT)).additional, 0x16_2903);
    t.equal(await ready(b, a, 0), '06/29/03');
    t.equal(await ready(b, other, 0), '06/29/03');
    t.equal((await manage(b, a, TASK_MANAGEMENT.QUERY_TASK_SET)).response, FUNCTION_COMPLETE);
    t.equal((await manage(b, a, TASK_MANAGEMENT.TARGET_WARM_RESET)).response, FUNCTION_COMPLETE);
    t.equal(await ready(b, a, 1), '06/29/03');
    t.equal(await ready(b, other, 1), '', "on the slave a stranger's reset is no news (removable media)");
    t.equal((await manage(b, a, TASK_MANAGEMENT.I_T_NEXUS_RESET)).response, FUNCTION_COMPLETE);
    t.equal((await manage(b, a, TASK_MANAGEMENT.CLEAR_ACA)).response, FUNCTION_COMPLETE);
  },
);

void t.test(
  'ABORT TASK SET ends the tasks of one nexus, CLEAR TASK SET those of all and tells the others (SAM-6 §7.3, §7.5)',
  async (t) => {
    const { FUNCTION_COMPLETE, REASSIGNMENT_NOT_SUPPORTED, NOT_SUPPORTED } = TASK_MANAGEMENT_RESPONSE;
    const b = bench();
    const [a, other, idle] = [A, B, `${B}2`].map((name) => b.login(name));
    b.master.held = true;
    const write = (nexus: Nexus): ReturnType<Bench['start']> =>
      b.start(nexus, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512));
    const [own, others] = [write(a), write(other)];
    const aborted = manage(b, a, TASK_MANAGEMENT.ABORT_TASK_SET);
    t.same([own.aborted, others.aborted], [true, false]);
    const cleared = manage(b, a, TASK_MANAGEMENT.CLEAR_TASK_SET);
    t.ok(others.aborted);
    b.master.release();
    t.equal((await aborted).response, FUNCTION_COMPLETE);
    t.equal((await cleared).response, FUNCTION_COMPLETE);
    t.same([own.ends, others.ends], [1, 1]);
    t.equal(await ready(b, a, 0), '', 'who asked knows');
    t.equal(await ready(b, other, 0), '06/2f/00', 'COMMANDS CLEARED BY ANOTHER INITIATOR');
    t.equal(await ready(b, idle, 0), '', 'it lost none');

    b.master.held = true;
    const [lost, kept] = [write(a), write(other)];
    const reset = manage(b, a, TASK_MANAGEMENT.I_T_NEXUS_RESET);
    t.same([lost.aborted, kept.aborted], [true, false]);
    b.master.release();
    t.equal((await reset).response, FUNCTION_COMPLETE);
    t.equal((await kept.whenEnded()).status, 0);
    t.equal(await ready(b, a, 0), '06/29/07', 'I_T NEXUS LOSS');
    t.equal(await ready(b, other, 0), '');
    t.equal((await manage(b, a, TASK_MANAGEMENT.TARGET_COLD_RESET)).response, FUNCTION_COMPLETE);
    t.equal(await ready(b, idle, 0), '06/29/03');
    t.equal((await manage(b, a, TASK_MANAGEMENT.TASK_REASSIGN)).response, REASSIGNMENT_NOT_SUPPORTED);
    t.equal((await manage(b, a, 99)).response, NOT_SUPPORTED);
  },
);

void t.test(
  'Unit attentions are reported once each, resets before the others in their order (SAM-6 §5.14.2)',
  async (t) => {
    const b = bench();
    const a = b.login(A);
    const other = b.login(B);
    b.target.capacityChanged();
    await ready(b, other, 0);
    const list = Buffer.from('00000000' + '0a0a0610000000' + '00ffff0000', 'hex');
    t.equal((await b.run(other, 0, [0x15, 0x10, 0, 0, list.length, 0], list)).status, 0, 'D_SENSE');
    b.target.masterChanged();
    b.target.capacityChanged();
    await manage(b, other, TASK_MANAGEMENT.LOGICAL_UNIT_RESET);
    const heard: string[] = [];
    for (let code = await ready(b, a, 0); code !== ''; code = await ready(b, a, 0)) heard.push(code);
    t.same(heard, ['06/29/03', '06/2a/09', '06/2a/01', '06/28/00']);
    const { sense } = await b.run(a, 0, cdb10(0x28, 0x7fff_ffff, 1));
    t.equal((sense?.[0] ?? 0) & 0x7f, 0x70, 'the reset has undone D_SENSE');
  },
);

void t.test('A command that is valid passes the table and no other check', async (t) => {
  const b = bench();
  const a = b.login(A);
  const path = a.paths[0];
  if (path === undefined) throw new Error('LUN 0 is not there');
  const { unit } = path;
  t.notOk(path.special, 'nothing is due');
  const due = (): never => {
    throw new Error('a check that is not due');
  };
  unit.reservations.conflicts = due;
  unit.tasks.admit = due;
  unit.services.ports.byRelativeId = due;
  path.takeAttention = due;
  for (const [cdb, data] of [
    [cdb10(0x28, 0, 8), undefined],
    [cdb10(0x2a, 0, 8), Buffer.alloc(4096)],
    [cdb16(0x88, 0, 8), undefined],
    [cdb16(0x8a, 0, 8), Buffer.alloc(4096)],
  ] as const) {
    for (const attribute of [TASK_ATTRIBUTE.UNTAGGED, TASK_ATTRIBUTE.SIMPLE]) {
      const task = b.start(a, 0, cdb, data, (given) => (given.attribute = attribute));
      t.equal((await task.whenEnded()).status, 0);
    }
  }
  const looked = unit.services.commands.find(Buffer.from(cdb10(0x28, 0, 8)))?.refused.length ?? 0;
  t.equal(looked / 2, 3, 'READ (10): three bytes have bits that must be zero');
});

void t.test('A nexus that ends takes its tasks with it, each ended exactly once', async (t) => {
  const b = bench();
  const a = b.login(A);
  b.master.held = true;
  const tasks = Array.from({ length: 5 }, (_, i) => b.start(a, 0, cdb10(0x2a, i, 1), Buffer.alloc(512)));
  const flush = b.start(a, 0, cdb10(0x35, 0, 0));
  b.target.detach(a, 'connection-lost');
  b.master.release();
  for (const task of [...tasks, flush]) t.equal((await task.whenEnded()).ends, 1);
  t.ok(tasks.every((task) => task.aborted));
  b.target.detach(a, 'killed');
  b.master.fail = MEDIUM.FAILED;
  const next = b.login(A);
  t.equal((await b.run(next, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).code, '04/3e/01');
  t.equal((await b.run(next, 0, cdb10(0x28, 0, 1))).status, 0, 'reads go on');
});
