import t from 'tap';
import { MEDIUM } from '../../src/scsi/medium.js';
import { bench, cdb10, cdb16, MemoryMedium, MemoryState } from './support.js';

const pattern = (bytes: number, seed: number): Buffer =>
  Buffer.from(Array.from({ length: bytes }, (_, i) => (i * 7 + seed) & 255));

void t.test(
  'READ and WRITE move the blocks of every CDB length, also in odd pieces (SBC-5 §5.16 to §5.19, §5.43 to §5.46)',
  async (t) => {
    const { login, run, start, master } = bench();
    const nexus = login();
    const writes: [number[] | Buffer, number, number][] = [
      [[0x0a, 0, 0, 8, 2, 0], 8, 2],
      [cdb10(0x2a, 100, 4), 100, 4],
      [[0xaa, 0, 0, 0, 1, 0, 0, 0, 0, 3, 0, 0], 256, 3],
      [cdb16(0x8a, 1000, 300), 1000, 300],
    ];
    for (const [cdb, lba, blocks] of writes) {
      const data = pattern(blocks * 512, lba);
      t.equal((await run(nexus, 0, cdb, data)).status, 0);
      t.ok(master.bytes.subarray(lba * 512, (lba + blocks) * 512).equals(data));
      const reading = Buffer.from(cdb);
      reading[0] = cdb[0] - 2;
      t.ok((await run(nexus, 0, reading)).data.equals(data));
      const odd = start(nexus, 0, reading, undefined, (task) => (task.chunkBytes = 1000));
      t.ok((await odd.whenEnded()).data.equals(data), 'pieces of 1,000 bytes');
    }
  },
);

void t.test('READ from a slow medium goes through the thread pool and gives the same bytes', async (t) => {
  const { login, run, start, master } = bench();
  const nexus = login();
  pattern(64 * 512, 3).copy(master.bytes, 0);
  master.slow = true;
  t.ok((await run(nexus, 0, cdb10(0x28, 0, 64))).data.equals(master.bytes.subarray(0, 64 * 512)));
  const odd = start(nexus, 0, cdb10(0x28, 0, 64), undefined, (task) => (task.chunkBytes = 700));
  t.ok((await odd.whenEnded()).data.equals(master.bytes.subarray(0, 64 * 512)), 'pieces of 700 bytes');
  master.fail = MEDIUM.READ_ERROR;
  t.equal((await run(nexus, 0, cdb10(0x28, 5, 2))).code, '03/11/00');
});

void t.test(
  'A range beyond the end is refused, a transfer of nothing at the end is not (SBC-5 §4.5)',
  async (t) => {
    const { login, run, master } = bench();
    const nexus = login();
    const end = master.capacityBytes / 512;
    t.equal((await run(nexus, 0, cdb10(0x28, end, 0))).status, 0);
    t.equal((await run(nexus, 0, cdb10(0x28, end, 1))).code, '05/21/00');
    t.equal((await run(nexus, 0, cdb10(0x28, end + 1, 0))).code, '05/21/00');
    t.equal((await run(nexus, 0, cdb16(0x88, Number.MAX_SAFE_INTEGER, 1))).code, '05/21/00');
    const far = cdb16(0x88, 0, 1);
    far.fill(0xff, 2, 10);
    t.equal((await run(nexus, 0, far)).code, '05/21/00', 'LBA 2^64-1');
    t.equal((await run(nexus, 0, cdb16(0x88, 0, 16_385))).code, '05/21/00');
  },
);

void t.test('A WRITE that announces less data than its CDB writes whole blocks of it only', async (t) => {
  const { login, start, master } = bench();
  const nexus = login();
  master.bytes.fill(0x11);
  const task = start(
    nexus,
    0,
    cdb10(0x2a, 0, 4),
    Buffer.alloc(2048, 0x22),
    (task) => (task.expectedDataOut = 700),
  );
  t.equal((await task.whenEnded()).status, 0);
  t.ok(master.bytes.subarray(0, 512).equals(Buffer.alloc(512, 0x22)));
  t.equal(master.bytes[512], 0x11);
});

void t.test(
  'A WRITE that the medium holds back ends when it is written, and its data is kept meanwhile',
  async (t) => {
    const { login, start, master } = bench();
    const nexus = login();
    master.held = true;
    const data = pattern(16 * 512, 9);
    const task = start(nexus, 0, cdb10(0x2a, 4, 16), data, (task) => (task.chunkBytes = 2048));
    t.equal(task.ended, false);
    master.release();
    t.equal((await task.whenEnded()).status, 0);
    t.equal(task.ends, 1);
    t.ok(master.bytes.subarray(4 * 512, 20 * 512).equals(data));
  },
);

void t.test(
  'FUA, a write cache switched off, and SYNCHRONIZE CACHE flush before GOOD (SBC-5 §4.15)',
  async (t) => {
    const { login, run, start, master } = bench();
    const nexus = login();
    await run(nexus, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512));
    t.equal(master.flushes, 0);
    master.holdFlush = true;
    const fua = start(nexus, 0, cdb10(0x2a, 0, 1, 0x08), Buffer.alloc(512));
    t.equal(fua.ended, false, 'waits for the flush');
    master.release();
    t.equal((await fua.whenEnded()).status, 0);
    t.equal((await run(nexus, 0, cdb10(0x35, 0, 0))).status, 0);
    t.equal(master.flushes, 2);
    // MODE SELECT (6): caching page with WCE=0.
    const list = Buffer.from(
      '00000000 0812 00000000 00000000 00000000 00000000 0000'.replaceAll(' ', ''),
      'hex',
    );
    t.equal((await run(nexus, 0, [0x15, 0x10, 0, 0, list.length, 0], list)).status, 0);
    const before = master.flushes;
    await run(nexus, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512));
    t.equal(master.flushes, before + 1, 'WCE=0: every write');
    master.fail = MEDIUM.FAILED;
    t.equal((await run(nexus, 0, cdb10(0x35, 0, 0))).code, '04/3e/01', 'a flush that failed is never GOOD');
  },
);

void t.test(
  'COMPARE AND WRITE writes only what it expected, and is atomic while writes are held (SBC-5 §5.3)',
  async (t) => {
    const { login, run, start, master } = bench();
    const nexus = login();
    const cdb = cdb16(0x89, 3, 0);
    cdb[13] = 1;
    const both = Buffer.concat([Buffer.alloc(512), Buffer.alloc(512, 0x55)]);
    t.equal((await run(nexus, 0, cdb, both)).status, 0);
    t.equal(master.bytes[3 * 512], 0x55);
    const miss = await run(nexus, 0, cdb, both);
    t.equal(miss.code, '0e/1d/00');
    t.equal(miss.sense?.readUInt32BE(3), 0, 'INFORMATION: offset of the first difference');
    t.equal((await run(nexus, 0, cdb, both.subarray(0, 512))).code, '05/24/00', 'half the data');
    master.held = true;
    const waiting = start(nexus, 0, cdb, Buffer.concat([Buffer.alloc(512, 0x55), Buffer.alloc(512, 0x66)]));
    t.equal(waiting.ended, false);
    master.bytes.fill(0x77, 3 * 512, 4 * 512);
    master.release();
    t.equal((await waiting.whenEnded()).code, '0e/1d/00', 'compares at the moment of the write');
  },
);

void t.test('ORWRITE and WRITE ATOMIC (SBC-5 §5.14, §5.48)', async (t) => {
  const { login, run, master } = bench();
  const nexus = login();
  master.bytes.fill(0x0f, 0, 1024);
  t.equal((await run(nexus, 0, cdb16(0x8b, 0, 2), Buffer.alloc(1024, 0xa0))).status, 0);
  t.ok(master.bytes.subarray(0, 1024).equals(Buffer.alloc(1024, 0xaf)));
  const atomic = (lba: number, blocks: number): Buffer => {
    const cdb = cdb16(0x9c, lba, 0);
    cdb.writeUInt16BE(blocks, 12);
    return cdb;
  };
  t.equal((await run(nexus, 0, atomic(8, 8), Buffer.alloc(4096, 1))).status, 0);
  t.equal(master.bytes[8 * 512], 1);
  t.equal((await run(nexus, 0, atomic(8, 264), Buffer.alloc(264 * 512, 1))).code, '05/24/00', 'too long');
  t.equal((await run(nexus, 0, atomic(4, 8), Buffer.alloc(4096))).code, '05/24/00', 'alignment');
  t.equal((await run(nexus, 0, atomic(8, 4), Buffer.alloc(2048))).code, '05/24/00', 'granularity');
});

void t.test(
  'WRITE ATOMIC of several blocks: a restart completes what a power cut interrupted (SBC-5 §5.48)',
  async (t) => {
    const { login, run, start, master, state } = bench();
    const nexus = login();
    const cdb = cdb16(0x9c, 16, 0);
    cdb.writeUInt16BE(16, 12);
    t.equal((await run(nexus, 0, cdb, Buffer.alloc(8192, 1))).status, 0);
    t.ok(master.bytes.subarray(8192, 16_384).equals(Buffer.alloc(8192, 1)));
    t.notOk(state.records.has('scsi.atomic'), 'nothing that a restart would do over what is written later');

    master.held = true;
    const cut = start(nexus, 0, cdb, Buffer.alloc(8192, 2));
    const second = start(nexus, 0, cdb, Buffer.alloc(8192, 3));
    await new Promise(setImmediate);
    await new Promise(setImmediate);
    t.notOk(cut.ended || second.ended);
    const left = new MemoryState();
    for (const [key, value] of state.records) left.records.set(key, Buffer.from(value));
    const torn = new MemoryMedium(master.capacityBytes);
    torn.bytes.fill(2, 8192, 12_288);
    torn.held = true;
    const after = bench({ master: torn, state: left });
    const again = after.login();
    t.equal((await after.run(again, 0, [0, 0, 0, 0, 0, 0])).code, '02/04/01', 'not before it is whole');
    torn.held = false;
    torn.release();
    await new Promise(setImmediate);
    while (left.records.has('scsi.atomic')) await new Promise(setImmediate);
    await new Promise(setImmediate);
    t.equal((await after.run(again, 0, [0, 0, 0, 0, 0, 0])).status, 0);
    t.ok(torn.bytes.subarray(8192, 16_384).equals(Buffer.alloc(8192, 2)));

    master.held = false;
    master.release();
    t.equal((await cut.whenEnded()).status, 0);
    t.equal((await second.whenEnded()).status, 0);
    t.equal(master.bytes[8192], 3, 'one after the other');
    state.fails = true;
    t.equal((await run(nexus, 0, cdb, Buffer.alloc(8192, 4))).code, '04/3e/01', 'not begun unrecorded');
    t.equal(master.bytes[8192], 3);
  },
);

void t.test('WRITE SAME fills, unmaps zeros, and insists on one block of data (SBC-5 §5.55)', async (t) => {
  const { login, run, master } = bench();
  const nexus = login();
  t.equal((await run(nexus, 0, cdb10(0x41, 8, 1000), Buffer.alloc(512, 0x3c))).status, 0);
  t.ok(master.bytes.subarray(8 * 512, 1008 * 512).equals(Buffer.alloc(1000 * 512, 0x3c)));
  t.equal(master.bytes[1008 * 512], 0);
  t.equal((await run(nexus, 0, cdb10(0x41, 8, 16, 0x08), Buffer.alloc(512))).status, 0);
  t.notOk(master.mapped.has(4096), 'a hole');
  t.equal((await run(nexus, 0, cdb10(0x41, 8, 16, 0x08), Buffer.alloc(512, 1))).status, 0);
  t.equal(master.bytes[8 * 512], 1, 'data that unmapped blocks would not read as is written');
  t.equal((await run(nexus, 0, cdb16(0x93, 8, 16, 0x09), Buffer.alloc(0))).status, 0, 'NDOB');
  t.equal(master.bytes[8 * 512], 0);
  t.equal((await run(nexus, 0, cdb10(0x41, 0, 1), Buffer.alloc(1024))).code, '05/0e/03');
  t.equal((await run(nexus, 0, cdb10(0x41, 0, 8, 0x10), Buffer.alloc(512))).code, '05/24/00', 'ANCHOR');
});

void t.test(
  'WRITE SAME of zero blocks goes to the end of the medium where that is allowed (SBC-5 §5.55)',
  async (t) => {
    const careful = bench();
    const cautious = careful.login();
    const limits = async ({ run }: typeof careful, nexus: typeof cautious): Promise<Buffer> =>
      (await run(nexus, 0, [0x12, 1, 0xb0, 0, 64, 0])).data;
    t.equal((await limits(careful, cautious))[4] & 1, 1, 'WSNZ');
    const refused = await careful.run(cautious, 0, cdb10(0x41, 8, 0), Buffer.alloc(512));
    t.same([refused.code, refused.sense?.readUInt16BE(16)], ['05/24/00', 7]);

    const b = bench({ writeSameToEnd: true, master: new MemoryMedium(64 * 1024 * 1024) });
    const { run, master } = b;
    const nexus = b.login();
    const end = master.capacityBytes / 512;
    const page = await limits(b, nexus);
    t.equal(page[4] & 1, 0, 'WSNZ');
    t.equal((await run(nexus, 0, cdb10(0x41, end - 24, 0), Buffer.alloc(512, 0x3c))).status, 0);
    t.ok(master.bytes.subarray(-24 * 512).equals(Buffer.alloc(24 * 512, 0x3c)));
    t.equal(master.bytes[(end - 25) * 512], 0);
    t.equal((await run(nexus, 0, cdb16(0x93, end - 16, 0, 0x09), Buffer.alloc(0))).status, 0, 'UNMAP, NDOB');
    t.notOk(master.mapped.has((end - 16) * 512));
    t.equal(
      (await run(nexus, 0, cdb10(0x41, end, 0), Buffer.alloc(512))).status,
      0,
      'nothing behind the last',
    );
    t.equal((await run(nexus, 0, cdb10(0x41, end + 1, 0), Buffer.alloc(512))).code, '05/21/00');
    const limit = page.readUInt32BE(40);
    const tooMuch = await run(nexus, 0, cdb16(0x93, end - limit - 1, 0, 0x08), Buffer.alloc(512));
    t.same([tooMuch.code, tooMuch.sense?.readUInt16BE(16)], ['05/24/00', 10], 'MAXIMUM WRITE SAME LENGTH');
    t.equal((await run(nexus, 0, cdb16(0x93, end - limit, 0, 0x08), Buffer.alloc(512))).status, 0);
  },
);

void t.test(
  'UNMAP makes holes, GET LBA STATUS shows them, and a bad descriptor changes nothing (SBC-5 §5.36, §5.5)',
  async (t) => {
    const { login, run, master } = bench();
    const nexus = login();
    await run(nexus, 0, cdb10(0x2a, 0, 64), Buffer.alloc(64 * 512, 9));
    const list = Buffer.alloc(8 + 32);
    list.writeUInt16BE(38, 0);
    list.writeUInt16BE(32, 2);
    list.writeUInt32BE(8, 8 + 4);
    list.writeUInt32BE(8, 8 + 8);
    list.writeUInt32BE(master.capacityBytes / 512, 24 + 4);
    list.writeUInt32BE(1, 24 + 8);
    const cdb = [0x42, 0, 0, 0, 0, 0, 0, 0, list.length, 0];
    t.equal((await run(nexus, 0, cdb, list)).code, '05/21/00');
    t.equal(master.bytes[4096], 9);
    list.writeUInt32BE(32, 24 + 4);
    t.equal((await run(nexus, 0, cdb, list)).status, 0);
    t.equal(master.bytes[4096], 0);
    t.equal(master.bytes[32 * 512], 0);
    t.equal(master.bytes[33 * 512], 9);
    const status = cdb16(0x9e, 0, 8 + 16 * 4, 0x12);
    const { data } = await run(nexus, 0, status);
    const extents = [0, 1, 2].map((i) => [
      data.readUInt32BE(8 + i * 16 + 4),
      data.readUInt32BE(8 + i * 16 + 8),
      data[8 + i * 16 + 12],
    ]);
    t.same(extents, [
      [0, 8, 0],
      [8, 8, 1],
      [16, 48, 0],
    ]);
  },
);

void t.test('VERIFY and WRITE AND VERIFY compare as BYTCHK says (SBC-5 §5.38, §5.49)', async (t) => {
  const { login, run, master } = bench();
  const nexus = login();
  const data = pattern(8 * 512, 1);
  t.equal((await run(nexus, 0, cdb10(0x2e, 16, 8, 0x02), data)).status, 0);
  t.ok(master.bytes.subarray(16 * 512, 24 * 512).equals(data));
  t.equal(master.flushes, 1, 'verified from the medium');
  t.equal((await run(nexus, 0, cdb10(0x2f, 16, 8))).status, 0);
  t.equal((await run(nexus, 0, cdb10(0x2f, 16, 8, 0x02), data)).status, 0);
  data[700] ^= 1;
  const miss = await run(nexus, 0, cdb10(0x2f, 16, 8, 0x02), data);
  t.equal(miss.code, '0e/1d/00');
  t.equal(miss.sense?.readUInt32BE(3), 700);
  t.equal(
    (await run(nexus, 0, cdb10(0x2f, 1000, 64, 0x06), Buffer.alloc(512))).status,
    0,
    'one block again and again',
  );
  t.equal((await run(nexus, 0, cdb10(0x2f, 15, 2, 0x06), Buffer.alloc(512))).code, '0e/1d/00');
  t.equal((await run(nexus, 0, cdb10(0x2f, 0, 1, 0x04), Buffer.alloc(512))).code, '05/24/00', 'BYTCHK 10b');
});

void t.test(
  'SANITIZE runs in the background, refuses medium commands meanwhile and shows progress (SBC-5 §4.11)',
  async (t) => {
    const { login, run, start, master } = bench();
    const nexus = login();
    const list = Buffer.concat([Buffer.from([1, 0, 2, 0]), Buffer.alloc(512, 0xaa)]);
    const task = start(nexus, 0, [0x48, 0x01, 0, 0, 0, 0, 0, list.length >> 8, list.length & 255, 0], list);
    t.equal((await run(nexus, 0, [0, 0, 0, 0, 0, 0])).code, '02/04/1b');
    t.equal((await run(nexus, 0, cdb10(0x28, 0, 1))).code, '02/04/1b');
    t.equal((await run(nexus, 0, [0x12, 0, 0, 0, 96, 0])).status, 0);
    t.equal((await task.whenEnded()).status, 0);
    t.ok(master.bytes.equals(Buffer.alloc(master.capacityBytes, 0xaa)));
    t.equal((await run(nexus, 0, [0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0])).status, 0);
    t.equal(master.mapped.size, 0);
    t.equal((await run(nexus, 0, [0x48, 0x01, 0, 0, 0, 0, 0, 0, 4, 0], list)).code, '05/24/00');
    t.equal(
      (await run(nexus, 1, [0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0])).code,
      '07/27/00',
      'never on the slave',
    );
  },
);
