/** VERIFY and WRITE AND VERIFY: every step, what it finds, and what is counted (SBC-5 §5.38, §5.49). */
import t from 'tap';
import { MEDIUM } from '../../src/scsi/medium.js';
import { bench, cdb10, cdb16, fieldOf, MemoryMedium } from './support.js';
import type { Bench, Outcome } from './support.js';
import { told, watch } from './watch.js';

const [VERIFY_10, VERIFY_16, WRITE_AND_VERIFY] = [0x2f, 0x8f, 0x2e];
/** BYTCHK: all of the Data-Out, or one block again and again. */
const [ALL, ONE_BLOCK] = [0x02, 0x06];
const MISCOMPARE = '0e/1d/00';

/** A unit whose blocks from 2,000 on all differ. */
function filled(): Bench & { content: Buffer; master: MemoryMedium } {
  const b = bench();
  const content = Buffer.from(
    Uint32Array.from({ length: 1500 * 128 }, (_, index) => index * 2_654_435_761).buffer,
  );
  content.copy(b.master.bytes, 2000 * 512);
  return { ...b, content };
}

const found = ({ code, sense }: Outcome): unknown[] => [code, sense?.readUInt32BE(3)];

void t.test('VERIFY reads in steps of 256 KiB, through the thread pool if the device is slow', async (t) => {
  const b = filled();
  const nexus = b.login();
  const seen = watch(b.master);
  for (const operation of ['read', 'readAsync']) {
    b.master.slow = operation === 'readAsync';
    seen.length = 0;
    t.equal((await b.run(nexus, 0, cdb10(VERIFY_10, 2000, 1500, ALL), b.content)).code, '');
    const steps = ['2000+512', '2512+512', '3024+476'];
    t.same(
      told(seen).filter((access) => access.startsWith(`${operation} `)),
      steps.map((step) => `${operation} ${step}`),
    );
  }
  b.master.slow = false;
  seen.length = 0;
  t.equal((await b.run(nexus, 0, cdb10(VERIFY_10, 2000, 1500))).code, '', 'BYTCHK 00b');
  t.equal(seen.length, 3, 'reads all of it, too');
});

void t.test(
  'A miscompare is told by the offset of its first byte, in whichever step (SBC-5 §5.38)',
  async (t) => {
    const b = filled();
    const nexus = b.login();
    for (const at of [0, 1, 262_143, 262_144, 700_000, 1500 * 512 - 1]) {
      const wrong = Buffer.from(b.content);
      wrong[at] ^= 1;
      t.same(found(await b.run(nexus, 0, cdb10(VERIFY_10, 2000, 1500, ALL), wrong)), [MISCOMPARE, at]);
    }
    b.master.bytes.fill(9, 8 * 512, 1208 * 512);
    b.master.bytes[1100 * 512 + 5] ^= 1;
    const block = Buffer.alloc(512, 9);
    t.same(
      found(await b.run(nexus, 0, cdb10(VERIFY_10, 8, 1200, ONE_BLOCK), block)),
      [MISCOMPARE, 1092 * 512 + 5],
      'one block again and again',
    );
    t.equal((await b.run(nexus, 0, cdb10(VERIFY_10, 8, 1000, ONE_BLOCK), block)).code, '');
  },
);

void t.test('A block that cannot be read is told by the step that it is in', async (t) => {
  const b = bench();
  const nexus = b.login();
  const read = b.master.read.bind(b.master);
  b.master.read = (position, ...rest) =>
    position >= 600 * 512 ? MEDIUM.READ_ERROR : read(position, ...rest);
  t.same(found(await b.run(nexus, 0, cdb10(VERIFY_10, 100, 1000))), ['03/11/00', 612]);
  t.same(found(await b.run(nexus, 0, cdb10(VERIFY_10, 1000, 1))), ['03/11/00', 1000]);
});

void t.test(
  'Only a VERIFY that takes as much data is bound by the transfer length (SBC-5 §6.6.4)',
  async (t) => {
    const b = bench({ master: new MemoryMedium(16 * 1024 * 1024) });
    const nexus = b.login();
    const all = await b.run(nexus, 0, cdb16(VERIFY_16, 0, 16_385, ALL), Buffer.alloc(16_385 * 512));
    t.same([all.code, fieldOf(all)], ['05/24/00', 10]);
    t.equal((await b.run(nexus, 0, cdb16(VERIFY_16, 0, 16_384, ALL), Buffer.alloc(16_384 * 512))).code, '');
    t.equal((await b.run(nexus, 0, cdb16(VERIFY_16, 0, 16_385))).code, '');
    t.equal((await b.run(nexus, 0, cdb16(VERIFY_16, 0, 16_385, ONE_BLOCK), Buffer.alloc(512))).code, '');
  },
);

void t.test('VERIFY of no blocks is good without data, and what is verified is counted', async (t) => {
  const b = bench();
  const nexus = b.login();
  const seen = watch(b.master);
  for (const flags of [0, ALL, ONE_BLOCK])
    t.equal((await b.run(nexus, 0, cdb10(VERIFY_10, 8, 0, flags), Buffer.alloc(0))).code, '');
  t.same(seen, []);
  await b.run(nexus, 0, cdb10(VERIFY_10, 8, 3));
  const { verifyOps, verifyBytes } = b.target.statistics().master;
  t.same([verifyOps, verifyBytes], [4, 3 * 512]);
  const page = (await b.run(nexus, 0, [0x4d, 0, 0x45, 0, 0, 0, 0, 0, 255, 0])).data;
  t.same([page.readUInt16BE(4), page.readBigUInt64BE(8)], [0x0005, 1536n], 'total bytes processed');
});

void t.test('WRITE AND VERIFY compares what the medium holds, as BYTCHK says (SBC-5 §5.49)', async (t) => {
  const b = bench();
  const nexus = b.login();
  const data = Buffer.alloc(1024, 7);
  const run = (flags: number): Promise<Outcome> =>
    b.run(nexus, 0, cdb10(WRITE_AND_VERIFY, 16, 2, flags), data);
  const flush = b.master.flush.bind(b.master);
  b.master.flush = (done) => {
    b.master.bytes[17 * 512 + 3] ^= 1;
    flush(done);
  };
  t.same(found(await run(ALL)), [MISCOMPARE, 515], 'a device that keeps something else');
  t.equal((await run(0)).code, '', 'BYTCHK 00b: it can be read, no more');
  b.master.fail = MEDIUM.READ_ERROR;
  t.same(found(await run(0)), ['03/11/00', 16], 'it cannot even be read');
  const { writeOps, writeBytes, flushes } = b.target.statistics().master;
  t.same([writeOps, writeBytes, flushes], [3, 3072, 3]);
});

void t.test('WRITE AND VERIFY writes the whole blocks that come, and nothing if none does', async (t) => {
  const b = bench();
  const nexus = b.login();
  const seen = watch(b.master);
  const short = await b.run(nexus, 0, cdb10(WRITE_AND_VERIFY, 16, 2, ALL), Buffer.alloc(700, 7));
  t.same([short.code, told(seen)], ['', ['write 16+1', 'read 16+1']]);
  const { flushes } = b.master;
  for (const data of [Buffer.alloc(0), Buffer.alloc(100)]) {
    const none = await b.run(nexus, 0, cdb10(WRITE_AND_VERIFY, 16, data.length === 0 ? 0 : 1), data);
    t.same([none.code, none.ends, seen.length, b.master.flushes], ['', 1, 2, flushes]);
  }
});

void t.test(
  'WRITE AND VERIFY that has to wait is flushed and compared all the same, or tells why not',
  async (t) => {
    const b = bench();
    const nexus = b.login();
    const seen = watch(b.master);
    const data = Buffer.alloc(1024, 7);
    const start = (): Promise<Outcome> => b.start(nexus, 0, cdb10(WRITE_AND_VERIFY, 16, 2), data).whenEnded();
    b.master.held = true;
    const good = start();
    b.master.release();
    t.equal((await good).code, '');
    t.same([told(seen), b.master.flushes], [['write 16+2', 'writeAsync 16+2', 'read 16+2'], 1]);
    b.master.held = true;
    const bad = start();
    b.master.fail = MEDIUM.FAILED;
    b.master.release();
    t.same(found(await bad), ['04/3e/01', 16]);
    t.equal(b.master.flushes, 1, 'nothing to make durable');
  },
);
