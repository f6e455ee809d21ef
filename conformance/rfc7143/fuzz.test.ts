/** See fuzz.ts. FUZZ_PDUS and FUZZ_SEED choose a longer run or another stream. */
import { readFileSync } from 'node:fs';
import t from 'tap';
import { fuzz } from './fuzz.js';
import { read10, STATUS, write10 } from './scsi.js';
import { Session } from './session.js';
import { startTarget } from './target.js';

const pdus = Number(process.env['FUZZ_PDUS'] ?? 10_000);
const seed = Number(process.env['FUZZ_SEED'] ?? 1);
const GROWTH_KIB_MAX = 131_072;
/** Far behind everything that the fuzzer writes to. */
const QUIET_LBA = 100_000;

t.setTimeout(120_000 + pdus * 10);
const target = await startTarget();
t.teardown(() => target.stop());

function residentKib(): number {
  const status = readFileSync(`/proc/${target.pid}/status`, 'latin1');
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
    const warmKib = residentKib();
    const report = await fuzz(target, { seed: seed + 1, pdus });
    t.comment(`${report.pdus} PDUs on ${report.connections} connections, seed ${seed}`);
    const grownKib = residentKib() - warmKib;
    t.ok(grownKib < GROWTH_KIB_MAX, `the daemon grew by ${grownKib} KiB`);
    const after = await Session.login(target);
    const read = await after.execute({ cdb: read10(QUIET_LBA, 8), read: data.length });
    t.equal(read.status, STATUS.GOOD);
    t.ok(read.data.equals(data));
  },
);
