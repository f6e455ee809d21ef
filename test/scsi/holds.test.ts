/** Who keeps the slave's medium in (SBC-5 §5.15), over lost connections and restarts. */
import t from 'tap';
import { ABSENCE_MS, HOLDS_MAX } from '../../src/scsi/holds.js';
import { BOTH, bench, MemoryMedium, MemoryState } from './support.js';
import type { Bench } from './support.js';

const A = 'iqn.2024-01.org.example:a';
const B = 'iqn.2024-01.org.example:b';
const TUR = [0, 0, 0, 0, 0, 0];
const [PREVENT, ALLOW, EJECT] = [
  [0x1e, 0, 0, 0, 1, 0],
  [0x1e, 0, 0, 0, 0, 0],
  [0x1b, 0, 0, 0, 2, 0],
];

const holders = ({ target }: Bench): string[] => target.slaveHolders().map(({ initiator }) => initiator);

void t.test(
  'Who holds the slave is known over a lost connection and a restart, until the port allows, logs out or stays away',
  async (t) => {
    const state = new MemoryState();
    const slave = new MemoryMedium(1 << 20);
    const holder = [{ initiator: A, address: '192.0.2.1' }];
    const first = bench({ state, slave });
    const mounted = first.login(A);
    await first.run(mounted, 0, PREVENT);
    t.same(first.target.slaveHolders(), [], 'the master is a fixed disk');
    await first.run(mounted, 1, PREVENT);
    first.target.detach(mounted, 'connection-lost');
    t.same(first.target.slaveHolders(), holder, 'a broken cable does not end it');
    t.equal((await first.run(first.login(B), 1, EJECT)).code, '05/53/02', 'nobody else ejects');
    const restarted = bench({ state, slave });
    t.same(restarted.target.slaveHolders(), holder, 'nor does a restart');
    await restarted.run(restarted.login(A), 1, ALLOW);
    t.same(restarted.target.slaveHolders(), []);
    t.same(bench({ state, slave }).target.slaveHolders(), [], 'that is remembered, too');

    const again = restarted.login(A);
    await restarted.run(again, 1, PREVENT);
    restarted.target.detach(again, 'killed');
    const now = Date.now;
    t.teardown(() => (Date.now = now));
    Date.now = () => now() + ABSENCE_MS;
    t.same(restarted.target.slaveHolders(), [], 'it stayed away');
    Date.now = now;
    slave.generation++;
    t.same(bench({ state, slave }).target.slaveHolders(), [], 'another medium is in');
    state.records.set('scsi.holds', Buffer.from('{'));
    const damaged = bench({ state, slave });
    t.same(damaged.target.slaveHolders(), [], 'a damaged record is no reason not to serve');
    t.match(damaged.warnings, [{ message: /who holds the slave is unreadable/, fields: { err: Error } }]);
  },
);

void t.test(
  'An initiator that lost its nexus and is back by another one may eject what it held itself (SBC-5 §5.15)',
  async (t) => {
    const b = bench();
    const first = b.login(A);
    await b.run(first, 1, PREVENT);
    const again = b.target.attach({
      initiatorName: A,
      initiatorPort: `${A},i,0x00023d000002`,
      portalGroupTag: 1,
      luns: BOTH,
      address: '192.0.2.1',
    });
    t.equal((await b.run(again, 1, TUR)).code, '06/29/00');
    t.equal((await b.run(again, 1, EJECT)).code, '05/53/02', 'not while both nexuses are there');
    b.target.detach(first, 'connection-lost');
    t.equal((await b.run(b.login(B), 1, EJECT)).code, '05/53/02', 'not somebody else');
    t.equal((await b.run(again, 1, EJECT)).status, 0);
  },
);

void t.test('Holds are bounded: who is away is forgotten first', async (t) => {
  const b = bench();
  await b.run(b.login(A), 1, PREVENT);
  const away = b.login(B);
  await b.run(away, 1, PREVENT);
  b.target.detach(away, 'connection-lost');
  for (let i = 2; i <= HOLDS_MAX; i++) await b.run(b.login(`${A}${String(i)}`), 1, PREVENT);
  t.equal(holders(b).length, HOLDS_MAX);
  t.equal(holders(b)[0], A);
  t.notOk(holders(b).includes(B));
});

void t.test(
  'Each nexus holds for itself, once: another one allows nothing for it (SBC-5 §5.15)',
  async (t) => {
    const b = bench();
    const [a, other] = [b.login(A), b.login(B)];
    for (const nexus of [a, other, a]) await b.run(nexus, 1, PREVENT);
    t.same(holders(b), [A, B]);
    await b.run(other, 1, ALLOW);
    t.same(holders(b), [A]);
    t.equal((await b.run(other, 1, EJECT)).code, '05/53/02');
  },
);

void t.test('Who is back holds on for as long as it stays', async (t) => {
  const b = bench();
  const mounted = b.login(A);
  await b.run(mounted, 1, PREVENT);
  b.target.detach(mounted, 'connection-lost');
  b.login(A);
  const now = Date.now;
  t.teardown(() => (Date.now = now));
  Date.now = () => now() + ABSENCE_MS;
  t.same(holders(b), [A]);
});

void t.test('Nobody holds a medium that is not in', async (t) => {
  const [state, slave] = [new MemoryState(), new MemoryMedium(1 << 20)];
  const b = bench({ state, slave });
  await b.run(b.login(A), 1, PREVENT);
  slave.present = false;
  t.same(holders(bench({ state, slave })), []);
});

void t.test(
  'Who holds the slave is written when that changes only, and a record of nobody is none',
  async (t) => {
    const state = new MemoryState();
    const b = bench({ state });
    const save = state.save.bind(state);
    let saves = 0;
    state.save = (key, value, done) => {
      if (key === 'scsi.holds') saves++;
      save(key, value, done);
    };
    const a = b.login(A);
    await b.run(a, 1, ALLOW);
    await b.run(a, 1, EJECT);
    await b.run(a, 1, [0x1b, 0, 0, 0, 3, 0]);
    b.target.clearPrevents();
    t.equal(saves, 0, 'nobody held it, before and after');
    await b.run(a, 1, PREVENT);
    t.same([saves, state.records.has('scsi.holds')], [1, true], 'where earlier versions look for it, too');
    await b.run(a, 1, ALLOW);
    t.same([saves, state.records.has('scsi.holds')], [2, false]);
    await new Promise(setImmediate);
    t.same(b.warnings, []);
  },
);

void t.test('Who holds the slave and cannot be remembered is said', async (t) => {
  const b = bench();
  const a = b.login(A);
  b.state.fails = true;
  t.equal((await b.run(a, 1, PREVENT)).status, 0);
  await new Promise(setImmediate);
  t.match(b.warnings.at(-1), { message: /not remembered who holds the slave/, fields: { err: Error } });
});
