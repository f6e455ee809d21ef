/** SYNCHRONIZE CACHE and PRE-FETCH (SBC-5 §5.12, §5.13, §5.33, §5.34). */
import t from 'tap';
import { MEDIUM } from '../../src/scsi/medium.js';
import { bench, cdb10, cdb16 } from './support.js';
import { told, watch } from './watch.js';

const [SYNCHRONIZE_10, SYNCHRONIZE_16, PREFETCH_10, PREFETCH_16] = [0x35, 0x91, 0x34, 0x90];
const IMMED = 0x02;

void t.test('SYNCHRONIZE CACHE of blocks that there are not is refused, and flushes nothing', async (t) => {
  const b = bench();
  const nexus = b.login();
  const end = b.master.capacityBytes / 512;
  for (const cdb of [cdb10(SYNCHRONIZE_10, end - 1, 2), cdb16(SYNCHRONIZE_16, end + 1, 0)]) {
    const { code, ends } = await b.run(nexus, 0, cdb);
    t.same([code, ends], ['05/21/00', 1]);
  }
  t.equal(b.master.flushes, 0);
});

void t.test('SYNCHRONIZE CACHE flushes the master and counts it; of the slave nothing waits', async (t) => {
  const b = bench();
  const nexus = b.login();
  t.equal((await b.run(nexus, 0, cdb16(SYNCHRONIZE_16, 0, 0))).status, 0);
  t.equal((await b.run(nexus, 0, cdb10(SYNCHRONIZE_10, 0, 0, IMMED))).status, 0);
  const slave = await b.run(nexus, 1, cdb10(SYNCHRONIZE_10, 0, 0));
  t.same([slave.status, slave.ends], [0, 1]);
  await new Promise(setImmediate);
  t.same([b.master.flushes, b.slave.flushes], [2, 0]);
  const { master, slave: ofSlave } = b.target.statistics();
  t.same([master.flushes, ofSlave.flushes], [2, 0]);
  t.same(b.warnings, [], 'nothing to tell');
});

void t.test('SYNCHRONIZE CACHE with IMMED that fails later is told to the operator', async (t) => {
  const b = bench();
  const nexus = b.login();
  b.master.fail = MEDIUM.FAILED;
  t.equal((await b.run(nexus, 0, cdb10(SYNCHRONIZE_10, 0, 0, IMMED))).status, 0);
  await new Promise(setImmediate);
  t.match(b.warnings, [{ fields: { unit: 'master' }, message: /could not be written/ }]);
});

void t.test('PRE-FETCH reads what it names, 1 MiB at most (SBC-5 §5.12)', async (t) => {
  const b = bench();
  const nexus = b.login();
  const end = b.master.capacityBytes / 512;
  const seen = watch(b.master);
  const reads = async (cdb: number[] | Buffer): Promise<unknown[]> => {
    seen.length = 0;
    const { code, status, ends } = await b.run(nexus, 0, cdb);
    t.equal(ends, 1);
    return code === '' ? [status, ...told(seen)] : [code];
  };
  const most = [0, 512, 1024, 1536];
  t.same(await reads(cdb10(PREFETCH_10, 100, 8)), [0, 'read 100+8']);
  t.same(await reads(cdb16(PREFETCH_16, 0, 4096)), [0, ...most.map((lba) => `read ${String(lba)}+512`)]);
  t.same(await reads(cdb10(PREFETCH_10, end - 9, 0)), [0, `read ${String(end - 9)}+9`], '0: to the end');
  t.same(await reads(cdb10(PREFETCH_10, 0, 0)), [0, ...most.map((lba) => `read ${String(lba)}+512`)]);
  t.same(await reads(cdb10(PREFETCH_10, end, 0)), [0], 'nothing is there');
  t.same(await reads(cdb10(PREFETCH_10, 100, 8, IMMED)), [0], 'nobody would wait for it');
  t.same(await reads(cdb10(PREFETCH_10, end - 1, 2)), ['05/21/00']);
  b.master.fail = MEDIUM.READ_ERROR;
  t.same(await reads(cdb10(PREFETCH_10, 100, 8)), ['03/11/00'], 'a block that cannot be read');
});
