/** Log pages: which there are, where a list begins and ends, and what each counter counts (SPC-6 §6.7, §6.8, §7.3). */
import t from 'tap';
import { MEDIUM } from '../../src/scsi/medium.js';
import type { Nexus } from '../../src/scsi/nexus.js';
import { bench, cdb10, fieldOf } from './support.js';
import type { Bench, Outcome } from './support.js';

const [WRITE_ERRORS, READ_ERRORS, VERIFY_ERRORS, STATISTICS] = [0x02, 0x03, 0x05, 0x19];

async function sense(
  { run }: Bench,
  nexus: Nexus,
  page: number,
  { subpage = 0, pointer = 0, bytes = 4096 } = {},
): Promise<Outcome> {
  const cdb = [0x4d, 0, 0x40 | page, subpage, 0, pointer >>> 8, pointer & 255, bytes >>> 8, bytes & 255, 0];
  return await run(nexus, 0, cdb);
}

/** Codes of the parameters of a page. */
function codes(page: Buffer): number[] {
  const found: number[] = [];
  for (let at = 4; at < page.length; at += 4 + page[at + 3]) found.push(page.readUInt16BE(at));
  return found;
}

void t.test('LOG SENSE of a page or subpage that there is not names the field (SPC-6 §6.8)', async (t) => {
  const b = bench();
  const nexus = b.login();
  for (const [page, subpage, byte] of [
    [0x01, 0, 2],
    [0x01, 1, 2],
    [0x0c, 1, 3],
    [0x00, 1, 3],
  ]) {
    const outcome = await sense(b, nexus, page, { subpage });
    t.same([outcome.code, fieldOf(outcome)], ['05/24/00', byte], `${page}/${subpage}`);
  }
});

void t.test('Only page 0Ch waits for what it tells', (t) => {
  const b = bench();
  const nexus = b.login();
  const ended = (page: number): boolean =>
    b.start(nexus, 0, [0x4d, 0, 0x40 | page, 0, 0, 0, 0, 1, 0, 0]).ended;
  t.same([0x00, WRITE_ERRORS, STATISTICS, 0x39, 0x0c].map(ended), [true, true, true, true, false]);
  t.end();
});

void t.test('PARAMETER POINTER is where a list begins, if anything is there (SPC-6 §6.8)', async (t) => {
  const b = bench();
  const nexus = b.login();
  const from = async (page: number, pointer: number): Promise<unknown> => {
    const outcome = await sense(b, nexus, page, { pointer });
    t.equal(outcome.ends, 1);
    if (outcome.code !== '') return [outcome.code, fieldOf(outcome)];
    t.equal(outcome.data.readUInt16BE(2), outcome.data.length - 4);
    return codes(outcome.data);
  };
  t.same(await from(0x10, 18), [18, 19, 20]);
  t.same(await from(0x10, 21), ['05/24/00', 5]);
  t.same(await from(WRITE_ERRORS, 1), [5, 6], 'between two: the next one');
  t.same(await from(WRITE_ERRORS, 6), [6]);
  t.same(await from(WRITE_ERRORS, 0x0105), ['05/24/00', 5]);
  t.same(await from(0x0c, 4), ['05/24/00', 5], 'of a page that takes a while, too');
  t.equal(
    (await sense(b, nexus, 0x00, { pointer: 0xffff })).data.length,
    15,
    'the list of pages has no parameters',
  );
  t.equal((await sense(b, nexus, 0x10, { bytes: 300 })).data.length, 300);
});

void t.test(
  'Each counter counts its own, and LOG SELECT clears them if PCR says so (SPC-6 §6.7)',
  async (t) => {
    const b = bench();
    const nexus = b.login();
    const counted = async (page: number): Promise<number[]> => {
      const { data } = await sense(b, nexus, page);
      return [Number(data.readBigUInt64BE(8)), Number(data.readBigUInt64BE(20))];
    };
    const all = async (): Promise<number[][]> =>
      await Promise.all([WRITE_ERRORS, READ_ERRORS, VERIFY_ERRORS].map(counted));
    await b.run(nexus, 0, cdb10(0x2a, 0, 4), Buffer.alloc(2048));
    await b.run(nexus, 0, cdb10(0x28, 0, 3));
    await b.run(nexus, 0, cdb10(0x2f, 0, 2));
    b.master.fail = MEDIUM.FAILED;
    for (let n = 0; n < 2; n++) await b.run(nexus, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512));
    b.master.fail = MEDIUM.READ_ERROR;
    for (let n = 0; n < 3; n++) await b.run(nexus, 0, cdb10(0x28, 0, 1));
    b.master.fail = MEDIUM.OK;
    const before = [
      [2048 + 2 * 512, 2],
      [1536 + 3 * 512, 3],
      [1024, 0],
    ];
    t.same(await all(), before);
    const statistics = async (): Promise<number[]> => {
      const { data } = await sense(b, nexus, STATISTICS);
      return [0, 1, 2, 3].map((index) => Number(data.readBigUInt64BE(8 + index * 8)));
    };
    t.same(await statistics(), [4, 3, 6, 6], 'commands, and blocks received and transmitted');
    const select = (flags: number): Promise<Outcome> =>
      b.run(nexus, 0, [0x4c, flags, 0, 0, 0, 0, 0, 0, 0, 0]);
    t.equal((await select(0)).status, 0);
    t.same(await all(), before, 'nothing was to be cleared');
    t.equal((await select(2)).status, 0);
    t.same(await all(), Array(3).fill([0, 0]));
    t.same(await statistics(), [0, 0, 0, 0]);
  },
);

void t.test(
  'Processing intervals are microseconds from arrival to answer, of reads and of writes',
  async (t) => {
    const b = bench();
    const nexus = b.login();
    const now = performance.now.bind(performance);
    t.teardown(() => (performance.now = now));
    performance.now = () => 7_230_000;
    const after = async (cdb: number[], data: Buffer | undefined, tookMs: number): Promise<void> => {
      const task = b.start(nexus, 0, cdb, data, (given) => (given.arrivedMs = 7_230_000 - tookMs));
      t.equal((await task.whenEnded()).status, 0);
    };
    const intervals = async (): Promise<number[]> => {
      const { data } = await sense(b, nexus, STATISTICS);
      return [32, 40].map((at) => Number(data.readBigUInt64BE(8 + at)));
    };
    await after(cdb10(0x28, 0, 1), undefined, 250);
    await after(cdb10(0x2a, 0, 1), Buffer.alloc(512), 1500);
    t.same(await intervals(), [250_000, 1_500_000]);
    await b.run(nexus, 0, [0x4c, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
    t.same(await intervals(), [0, 0]);
    await after(cdb10(0x28, 0, 1), undefined, 0.5);
    t.same(await intervals(), [500, 0]);
    const scan = (await sense(b, nexus, 0x15)).data;
    t.equal(scan.readUInt32BE(8), 120, 'page 15h: minutes that the target is up (SBC-5 §6.4.2)');
  },
);
