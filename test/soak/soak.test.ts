/** See soak.ts. SOAK_MS and SOAK_SEED choose a longer run or another one. */
import t from 'tap';
import { Soak } from './soak.js';

const ms = Number(process.env['SOAK_MS'] ?? 60_000);
const seed = Number(process.env['SOAK_SEED'] ?? 1);
/** A planted fault shows in some seconds. */
const FAULT_MS = 60_000;
const GROWTH_KIB_MAX = 131_072;
/** Sockets, pipes, children and timers of this process itself; requests in between come and go. */
const handles = (): string[] => process.getActiveResourcesInfo().filter((one) => /Wrap$|^Timeout$/.test(one));
const handlesAtFirst = handles();
const CLOSED_TRIES = 600;
const CLOSED_MS = 100;

t.setTimeout(240_000 + ms * 3);
void t.test(`a soak of ${ms / 1000} s (seed ${seed}): nothing lost, nothing left behind`, async (t) => {
  const soak = new Soak(seed);
  t.teardown(() => soak.stop());
  const report = await soak.run(ms);
  t.comment(JSON.stringify(report.counts));
  t.same(report.violations.slice(0, 10), [], 'every block read was one that it may be');
  t.ok(report.counts.writes > 0 && report.counts.reads > 0 && report.counts.flushes > 0);
  t.equal(report.connectionsLeft, 0, 'no connection is left');
  t.ok(report.after.descriptors <= report.before.descriptors, 'nor a file descriptor');
  t.ok(report.after.timers <= report.before.timers, 'nor a timer');
  const grownKib = report.after.residentKib - report.before.residentKib;
  t.ok(grownKib < GROWTH_KIB_MAX, `the daemon grew by ${grownKib} KiB`);
  t.equal(report.exitCode, 0, 'SIGTERM ends it cleanly');
  t.equal(report.checkCode, 0, '`cldd check` finds nothing');
});

for (const fault of ['skip-sync', 'lost-write', 'newer-slave'])
  void t.test(`a daemon with a planted fault (${fault}) does not pass`, async (t) => {
    const soak = new Soak(seed, fault);
    t.teardown(() => soak.stop());
    const noticed = await soak.notices(FAULT_MS);
    t.comment(noticed);
    t.ok(noticed, 'the soak notices');
  });

void t.test('nothing that a soak opened keeps its own process running', async (t) => {
  let left = handles();
  for (let n = 0; n < CLOSED_TRIES && left.length > handlesAtFirst.length; n++) {
    await new Promise((resolve) => setTimeout(resolve, CLOSED_MS));
    left = handles();
  }
  t.ok(left.length <= handlesAtFirst.length, `${left.join(', ')} after ${handlesAtFirst.join(', ')}`);
});
