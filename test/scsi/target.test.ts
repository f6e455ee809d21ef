/** What the daemon tells a target and asks of it, and what becomes of tasks and names when nexuses come and go. */
import t from 'tap';
import type { Nexus } from '../../src/scsi/nexus.js';
import { BOTH, bench, cdb10, cdb16 } from './support.js';
import type { Bench } from './support.js';

const CONFLICT = 0x18;
const [A, B] = ['a', 'b'].map((name) => `iqn.2024-01.org.example:${name}`);
const TUR = [0, 0, 0, 0, 0, 0];
const RESERVE_6 = [0x16, 0, 0, 0, 0, 0];
const PREVENT = [0x1e, 0, 0, 0, 1, 0];

const ready = async ({ run }: Bench, nexus: Nexus, lun = 0): Promise<string> =>
  (await run(nexus, lun, TUR)).code;

void t.test(
  'A master is in use by who read or changed it within half a minute, or has tasks there',
  async (t) => {
    const b = bench();
    const users = (): string[] => b.target.masterInUse().map(({ initiator }) => initiator);
    const now = Date.now;
    let ms = now();
    Date.now = () => ms;
    t.teardown(() => (Date.now = now));
    const [a, other] = [b.login(A), b.login(B)];
    const compare = cdb16(0x89, 0, 0);
    compare[13] = 1;
    for (const [cdb, data] of [
      [cdb10(0x28, 0, 8), undefined],
      [cdb10(0x2a, 0, 8), Buffer.alloc(4096)],
      [compare, Buffer.alloc(1024)],
      [cdb10(0x41, 0, 8), Buffer.alloc(512)],
    ] as const) {
      t.same(users(), []);
      t.equal((await b.run(a, 0, cdb, data)).status, 0);
      await b.run(other, 0, TUR);
      await b.run(other, 1, cdb10(0x28, 0, 8));
      ms += 29_999;
      t.same(b.target.masterInUse(), [{ initiator: A, address: '192.0.2.1' }]);
      ms += 1;
    }
    b.master.held = true;
    const task = b.start(other, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512));
    ms += 40_000;
    t.same(users(), [B], 'its write is not done yet');
    b.master.release();
    await task.whenEnded();
    t.same(users(), []);
  },
);

void t.test('Who may not write is no user of the master by trying', async (t) => {
  const b = bench();
  const a = b.login(A, { luns: [{ lun: 0, unit: 'master', readOnly: true }] });
  t.equal((await b.run(a, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).code, '07/27/00');
  t.same(b.target.masterInUse(), []);
});

void t.test('The queue depth counts tasks under way and those that wait, by unit', async (t) => {
  const b = bench();
  const a = b.login(A);
  const depths = (): number[] => {
    const { master, slave } = b.target.performance();
    return [master.queueDepth, slave.queueDepth];
  };
  b.master.held = true;
  const write = (attribute: number): ReturnType<Bench['start']> =>
    b.start(a, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512), (task) => (task.attribute = attribute));
  const tasks = [1, 2, 1].map(write);
  t.same(depths(), [3, 0]);
  b.master.release();
  for (const task of tasks) await task.whenEnded();
  t.same(depths(), [0, 0]);
  b.slave.slow = true;
  const read = b.start(a, 1, cdb10(0x28, 0, 1));
  t.same(depths(), [0, 1]);
  await read.whenEnded();
  t.same(depths(), [0, 0], 'a read by way of the thread pool has ended');
  const census = b.start(a, 0, [0x4d, 0, 0x4c, 0, 0, 0, 0, 1, 0, 0]);
  t.same(depths(), [1, 0]);
  await census.whenEnded();
  t.same(depths(), [0, 0], 'so has one that answers later');
});

void t.test(
  'Commands that take longer than the operator allows are told, on both units; else none',
  async (t) => {
    const b = bench();
    const a = b.login(A);
    const take = async (lun: number): Promise<unknown[]> => {
      b.warnings.length = 0;
      const task = b.start(a, lun, cdb10(0x28, 8, 1), undefined, (given) => {
        given.arrivedMs = performance.now() - 50;
      });
      await task.whenEnded();
      return b.warnings.map(({ message, fields }) => [message, (fields as { unit: string }).unit]);
    };
    for (const lun of [0, 1]) t.same(await take(lun), []);
    b.target.slowMs = 50;
    t.same(await take(0), [['slow I/O', 'master']]);
    t.same(await take(1), [['slow I/O', 'slave']]);
    b.target.slowMs = 60_000;
    t.same(await take(0), []);
  },
);

void t.test('The counters of the two units are two', async (t) => {
  const b = bench();
  const a = b.login(A);
  await b.run(a, 0, cdb10(0x28, 0, 1));
  await b.run(a, 1, cdb10(0x28, 0, 2));
  const { master, slave } = b.target.statistics();
  t.same([master.readOps, master.readBytes, slave.readOps, slave.readBytes], [1, 512, 1, 1024]);
});

void t.test('An empty slave has no other capacity, and hears of none', async (t) => {
  const b = bench();
  const a = b.login(A);
  b.slave.present = false;
  b.target.mediumRemoved();
  b.target.capacityChanged();
  t.equal(await ready(b, a, 1), '02/3a/00');
  t.equal(await ready(b, a, 0), '06/2a/09');
});

void t.test('A medium that is gone before it was told of is not told of', async (t) => {
  const b = bench();
  const a = b.login(A);
  b.slave.generation++;
  b.target.mediumLoaded();
  b.slave.present = false;
  b.target.mediumRemoved();
  t.equal(await ready(b, a, 1), '02/3a/00');
  t.notOk(a.paths[1]?.special, 'nothing is to be looked at any more');
});

void t.test('The transport says which LUN lost commands; no LUN, no word (RFC 7143 §11.14.5)', async (t) => {
  const b = bench();
  const a = b.login(A);
  b.target.commandsCleared(a, 9 << 16, 0);
  t.same([await ready(b, a, 0), await ready(b, a, 1)], ['', '']);
  b.target.commandsCleared(a, 1 << 16, 0);
  t.same([await ready(b, a, 0), await ready(b, a, 1)], ['', '06/47/7f']);
});

void t.test('A nexus that ends twice ends once: what came in between stays', async (t) => {
  const b = bench();
  const a = b.login(A);
  await b.run(a, 1, PREVENT);
  b.target.detach(a, 'connection-lost');
  b.login(A);
  b.target.detach(a, 'logout');
  t.equal(b.target.slaveHolders().length, 1);
});

void t.test(
  'What a nexus had with a unit ends with it: tasks, reservation, and its place among the paths',
  async (t) => {
    const b = bench();
    const [a, other] = [b.login(A), b.login(B)];
    b.master.held = true;
    const tasks = [a, other].map((nexus) => b.start(nexus, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512)));
    t.equal((await b.run(a, 0, RESERVE_6)).status, 0);
    t.equal((await b.run(other, 1, RESERVE_6)).status, 0);
    t.equal((await b.run(other, 0, TUR)).status, CONFLICT);
    b.target.detach(a, 'connection-lost');
    t.equal((await b.run(other, 0, TUR)).status, 0);
    t.notOk(other.paths[0]?.special, 'nothing is to be looked at any more');
    t.equal(other.paths[0]?.unit.paths.size, 1);
    t.same(a.paths, [undefined, undefined]);
    t.same(
      tasks.map(({ aborted }) => aborted),
      [true, false],
    );
    b.master.release();
    for (const task of tasks) t.equal((await task.whenEnded()).ends, 1);
    t.equal((await b.run(b.login(A), 1, TUR)).status, CONFLICT, "another's reservation stays");
  },
);

void t.test(
  'Access that changes takes away what is no more allowed, and leaves the rest (SAM-6 §5.11)',
  async (t) => {
    const b = bench();
    const a = b.login(A);
    await b.run(a, 1, PREVENT);
    b.master.held = true;
    const task = b.start(a, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512));
    b.target.changeAccess(a, [...BOTH, { lun: 2, unit: 'master', readOnly: false }]);
    t.notOk(task.aborted, 'LUN 0 is as it was');
    t.equal(b.target.slaveHolders().length, 1);
    t.same([await ready(b, a, 0), await ready(b, a, 1), await ready(b, a, 2)], Array(3).fill('06/3f/0e'));
    b.target.changeAccess(a, [{ lun: 0, unit: 'master', readOnly: true }, BOTH[1]]);
    t.ok(task.aborted, 'it may not write there any more');
    t.equal(b.target.slaveHolders().length, 1, 'the slave is as it was');
    b.master.release();
    await task.whenEnded();
    t.same(await Promise.all([0, 1, 2].map((lun) => ready(b, a, lun))), ['06/3f/0e', '06/3f/0e', '05/25/00']);
    b.target.changeAccess(a, [{ lun: 0, unit: 'slave', readOnly: false }, { lun: 1, unit: 'slave', readOnly: false }]); // prettier-ignore
    t.equal((await b.run(a, 0, [0x12, 0, 0, 0, 96, 0])).data[1], 0x80, 'RMB: LUN 0 is the slave now');
    t.equal(b.target.slaveHolders().length, 1);
    b.target.changeAccess(a, [BOTH[0]]);
    t.same(b.target.slaveHolders(), [], 'who does not see the slave holds nothing there');
  },
);

/** A target whose slave is out and is being loaded by A; `loaded` tells that it is in. */
function loading() {
  const pending: (() => void)[] = [];
  const b = bench({
    control: { load: (_nexus, done) => void pending.push(done), eject: (_nexus, done) => done() },
  });
  const [a, other] = [b.login(A), b.login(B)];
  b.slave.present = false;
  b.target.mediumRemoved();
  const load = b.start(a, 1, [0x1b, 0, 0, 0, 3, 0]);
  const loaded = async (): Promise<void> => {
    b.slave.present = true;
    b.slave.generation++;
    b.target.mediumLoaded();
    for (const done of pending) done();
    await load.whenEnded();
  };
  return { ...b, b, a, other, loaded };
}

void t.test(
  'A nexus that is loading the slave and goes is not the one that the next load spares',
  async (t) => {
    const { b, a, loaded } = loading();
    b.target.changeAccess(a, [BOTH[0]]);
    b.target.changeAccess(a, BOTH);
    await loaded();
    const heard = [await ready(b, a, 1), await ready(b, a, 1)];
    t.ok(heard.includes('06/28/00'), 'its command was lost, so it does not know');
  },
);

void t.test('Who is loading the slave is spared, whoever else goes meanwhile', async (t) => {
  const { b, a, other, loaded } = loading();
  b.target.detach(other, 'logout');
  await loaded();
  t.equal(await ready(b, a, 1), '');
});

void t.test('Of the nexuses that have ended the last 256 hear so when they are back', async (t) => {
  const b = bench();
  const name = (n: number): string => `${A}${n}`;
  for (let n = 0; n < 256; n++) b.target.detach(b.login(name(n)), 'logout');
  t.equal(await ready(b, b.login(name(0), { fresh: true })), '06/29/07');
  b.target.detach(b.login(name(256)), 'logout');
  t.equal(await ready(b, b.login(name(0), { fresh: true })), '06/29/00', 'one too many');
  t.equal(await ready(b, b.login(name(1), { fresh: true })), '06/29/07');
});

void t.test('A nexus whose LUNs do not begin at 0 ends as any other', (t) => {
  const b = bench();
  const a = b.login(A, { luns: [{ lun: 5, unit: 'slave', readOnly: true }] });
  const unit = a.paths[5]?.unit;
  t.equal(unit?.paths.size, 1);
  b.target.detach(a, 'logout');
  t.equal(unit?.paths.size, 0);
  t.end();
});

void t.test("What is heard of the master, or of no medium, is not heard of the slave's", async (t) => {
  const b = bench();
  const a = b.login(A, { fresh: true });
  t.equal(await ready(b, a, 0), '06/29/00');
  b.target.detach(a, 'connection-lost');
  const again = b.login(A, { fresh: true });
  b.slave.present = false;
  b.target.mediumRemoved();
  t.equal(await ready(b, again, 1), '06/29/00', 'nothing is in');
  b.target.detach(again, 'connection-lost');
  b.slave.present = true;
  b.target.mediumLoaded();
  t.equal(await ready(b, b.login(A, { fresh: true }), 1), '06/29/00', 'it has never seen one');
});

void t.test('Who was away knows of a new medium if it was told of that, not of something else', async (t) => {
  const b = bench();
  const a = b.login(A);
  b.target.capacityChanged();
  b.slave.generation++;
  b.target.mediumLoaded();
  t.equal(await ready(b, a, 1), '06/2a/09');
  b.target.detach(a, 'connection-lost');
  const again = b.login(A, { fresh: true });
  t.equal(await ready(b, again, 1), '06/28/00');
  b.target.detach(again, 'connection-lost');
  t.equal(await ready(b, b.login(A, { fresh: true }), 1), '');
});
