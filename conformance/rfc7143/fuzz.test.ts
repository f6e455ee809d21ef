/** See fuzz.ts. FUZZ_PDUS and FUZZ_SEED choose a longer run or another stream. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { fuzz } from './fuzz.js';
import { fuzzLogins } from './fuzz-login.js';
import { HEAP_REPORT, heldKib } from './heap.js';
import { chapLogin } from './chap.js';
import { read10, STATUS, write10 } from './scsi.js';
import { Session } from './session.js';
import { startTarget, type Target } from './target.js';

const pdus = Number(process.env['FUZZ_PDUS'] ?? 10_000);
const seed = Number(process.env['FUZZ_SEED'] ?? 1);
const GROWTH_KIB_MAX = 131_072;
/** However many strangers come: the addresses of 4,096 of them (failed-logins.ts), and code that runs for the first time. */
const HELD_KIB_MAX = 2048;
/** Far behind everything that the fuzzer writes to. */
const QUIET_LBA = 100_000;

t.setTimeout(120_000 + pdus * 10);
const target = await startTarget();
t.teardown(() => target.stop());

function residentKib({ pid }: Target): number {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1]);
}

void t.test(
  `${pdus} damaged PDUs (seed ${seed}): no crash, no hang, no growth, data as it was`,
  async (t) => {
    const before = await Session.login(target);
    const data = Buffer.alloc(8 * before.blockBytes, 0x5a);
    t.equal((await before.execute({ cdb: write10(QUIET_LBA, 8), write: data })).status, STATUS.GOOD);
    await before.logout(0);
    // What a first part makes the target hold (buffers, compiled code) is not growth.
    await fuzz(target, { seed, pdus: Math.min(pdus, 4000) });
    const warmKib = residentKib(target);
    const report = await fuzz(target, { seed: seed + 1, pdus });
    t.comment(`${report.pdus} PDUs on ${report.connections} connections, seed ${seed}`);
    const grownKib = residentKib(target) - warmKib;
    t.ok(grownKib < GROWTH_KIB_MAX, `the daemon grew by ${grownKib} KiB`);
    const after = await Session.login(target);
    const read = await after.execute({ cdb: read10(QUIET_LBA, 8), read: data.length });
    t.equal(read.status, STATUS.GOOD);
    t.ok(read.data.equals(data));
  },
);

/** More than it takes by far. */
const UNTIL_FOUND = 5000;
const USER = { name: 'user', secret: 'a-secret-of-enough-bytes' };
/** One in ten of the PDUs: each is answered before the next one goes. */
const logins = Math.ceil(pdus / 10);
const WARM_UP = 300;

const chap = { ...USER, mutualName: 'target', mutualSecret: 'another-secret-bytes' };

void t.test('the fuzzer of logins finds the way around CHAP that was mended once (CHAP-23)', async (t) => {
  const open = await startTarget({ chap, planted: join(import.meta.dirname, 'planted-login.js') });
  t.teardown(() => open.stop());
  await t.rejects(fuzzLogins(open, { seed, pdus: UNTIL_FOUND }), /a stranger is let in/);
});

void t.test(
  `${logins} login requests of strangers (seed ${seed}): nobody is let in, the target serves on, and holds no more than before`,
  async (t) => {
    const locked = await startTarget({ chap, planted: HEAP_REPORT });
    t.teardown(() => locked.stop());
    await fuzzLogins(locked, { seed, pdus: WARM_UP });
    const warmKib = await heldKib(locked);
    const report = await fuzzLogins(locked, { seed: seed + 1, pdus: logins });
    t.comment(`${report.pdus} login requests on ${report.connections} connections, seed ${seed}`);
    const grownKib = (await heldKib(locked)) - warmKib;
    t.comment(`the daemon holds ${grownKib} KiB more, after a collection`);
    t.ok(grownKib < HELD_KIB_MAX);
    const session = await chapLogin(locked, USER);
    t.same(await session.fence(), [], 'who knows the secret gets in');
    session.connection.destroy();
  },
);
