/**
 * See kill.ts. `npm run killtest` takes 50 kills; KILLS, KILL_SEED and KILL_LOSSY choose others. With KILL_LOSSY the disc
 * loses half of what was not synced with each kill, as a power cut does (soak/disc.ts).
 */
import t from 'tap';
import { needing } from '../../conformance/support/clients.js';
import { KillTest } from './kill.js';

const kills = Number(process.env['KILLS'] ?? 3);
const seed = Number(process.env['KILL_SEED'] ?? 1);
const lossy = process.env['KILL_LOSSY'] === '1';
const FAULT_KILLS_MAX = 12;

t.setTimeout((kills + FAULT_KILLS_MAX) * 60_000);

void t.test(
  `${kills} times SIGKILL under load (seed ${seed}): what was flushed and the slave are there`,
  needing('qemu-io', 'setpriv'),
  async (t) => {
    const test = new KillTest(seed, { disc: lossy ? 'lossy' : 'real' });
    t.teardown(() => test.stop());
    const { counts, violations, exitCode, checkCode } = await test.run(kills, (line) => t.comment(line));
    t.comment(JSON.stringify(counts));
    t.same(violations.slice(0, 10), [], 'every block is one that it may be');
    t.equal(counts['kills'], kills);
    t.ok(counts.writes > 0 && counts.flushes > 0 && (counts['qemuWrites'] ?? 0) > 0);
    t.equal(exitCode, 0, 'SIGTERM ends it cleanly');
    t.equal(checkCode, 0, '`cldd check` finds nothing');
  },
);

void t.test(
  'A daemon that loses a write in two hundred does not pass',
  needing('qemu-io', 'setpriv'),
  async (t) => {
    const test = new KillTest(seed, { disc: 'lossy', fault: 'lost-write' });
    t.teardown(() => test.stop());
    let noticed: string | undefined;
    try {
      const { violations } = await test.run(FAULT_KILLS_MAX, (line) => t.comment(line));
      noticed = violations[0];
    } catch (error) {
      // A metadata write that was lost may show at the open.
      if (!(error instanceof Error)) throw error;
      noticed = /(in both (copies|twins)|newer than|damaged)/i.exec(error.message)?.[0];
      if (noticed === undefined) throw error;
    }
    t.comment(noticed);
    t.ok(noticed, 'it is noticed');
  },
);
