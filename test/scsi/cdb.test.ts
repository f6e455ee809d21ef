/** Commands that libiscsi's suite does not reach, or not with these fields, each byte of the CDB as the standards name it. */
import t from 'tap';
import { bench, cdb10, senseCode } from './support.js';
import type { Outcome } from './support.js';

/** A CDB of numbers and 16- and 32-bit fields, so that a test can name each field beside it. */
function cdb(...fields: (number | Buffer)[]): Buffer {
  return Buffer.concat(fields.map((field) => (typeof field === 'number' ? Buffer.from([field]) : field)));
}
const u16 = (value: number): Buffer => Buffer.from([value >>> 8, value & 255]);
const u32 = (value: number): Buffer => Buffer.concat([u16(value >>> 16), u16(value & 0xffff)]);
const u64 = (value: number): Buffer =>
  Buffer.concat([u32(Math.floor(value / 0x1_0000_0000)), u32(value >>> 0)]);
const CONTROL = 0;

/** Where a field pointer points: "CDB 4.1" or "list 8"; empty without one. */
function pointer({ sense }: Outcome): string {
  if (sense === undefined || (sense[15] & 0x80) === 0) return '';
  const bit = (sense[15] & 0x08) === 0 ? '' : `.${sense[15] & 7}`;
  return `${(sense[15] & 0x40) === 0 ? 'list' : 'CDB'} ${sense.readUInt16BE(16)}${bit}`;
}

void t.test('REQUEST SENSE gives either format, cut to the allocation length (SPC-6 §6.38)', async (t) => {
  const { login, run } = bench();
  const nexus = login(undefined, { fresh: true });
  const ask = (flags: number, allocation: number): Buffer =>
    cdb(0x03, flags /* DESC */, 0, 0, allocation, CONTROL);
  t.equal((await run(nexus, 0, ask(0, 0))).data.length, 0);
  const fixed = (await run(nexus, 1, ask(0, 18))).data;
  t.same([fixed.length, fixed[0], senseCode(fixed)], [18, 0x70, '06/29/00']);
  const descriptor = (await run(nexus, 0, ask(1, 252))).data;
  t.same([descriptor[0], senseCode(descriptor)], [0x72, '00/00/00'], 'asked for with no room: reported');
  t.equal((await run(nexus, 0, cdb(0x03, 0x02, 0, 0, 18, CONTROL))).code, '05/24/00');
});

void t.test('SEND DIAGNOSTIC tests itself, and has no other tests and no pages (SPC-6 §6.42)', async (t) => {
  const { login, run, master } = bench();
  const nexus = login();
  const diagnose = (flags: number, bytes = 0): Buffer =>
    cdb(0x1d, flags /* SELF-TEST CODE, PF, SELFTEST, DEVOFFL, UNITOFFL */, 0, u16(bytes), CONTROL);
  t.equal((await run(nexus, 0, diagnose(0x04))).status, 0, 'SELFTEST');
  t.equal(pointer(await run(nexus, 0, diagnose(0x20))), 'CDB 1', 'background short');
  t.equal(pointer(await run(nexus, 0, diagnose(0x10, 8))), 'CDB 3', 'a parameter list');
  const { READ_ERROR } = { READ_ERROR: 2 } as const;
  master.fail = READ_ERROR;
  t.equal((await run(nexus, 0, diagnose(0x04))).code, '04/3e/01', 'the first block cannot be read');
});

void t.test(
  'FORMAT UNIT and REASSIGN BLOCKS are no commands here, in both reports (SBC-5 §5.4)',
  async (t) => {
    const { login, run, master } = bench();
    const nexus = login();
    await run(nexus, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512, 7));
    for (const lun of [0, 1]) {
      const format = cdb(0x04, 0x10 /* FMTDATA */, 0, 0, 0, CONTROL);
      const refused = await run(nexus, lun, format, Buffer.alloc(4));
      t.same([refused.code, pointer(refused)], ['05/20/00', 'CDB 0']);
      t.equal((await run(nexus, lun, cdb(0x07, 0, 0, 0, 0, CONTROL), Buffer.alloc(4))).code, '05/20/00');
      for (const opcode of [0x04, 0x07]) {
        const report = cdb(0xa3, 0x0c, 0x01 /* one command */, opcode, u16(0), u32(64), 0, CONTROL);
        t.equal((await run(nexus, lun, report)).data[1] & 7, 1, 'SUPPORT: not supported');
      }
    }
    t.equal(master.bytes[0], 7, 'nothing was formatted');
  },
);

void t.test('REZERO UNIT and SEEK move nothing but look at the address (SBC)', async (t) => {
  const { login, run, master } = bench();
  const nexus = login();
  const end = master.capacityBytes / 512;
  t.equal((await run(nexus, 0, cdb(0x01, 0, 0, 0, 0, CONTROL))).status, 0);
  const seek6 = (lba: number): Buffer => cdb(0x0b, (lba >>> 16) & 0x1f, u16(lba & 0xffff), 0, CONTROL);
  const seek10 = (lba: number): Buffer => cdb(0x2b, 0, u32(lba), 0, 0, 0, CONTROL);
  for (const seek of [seek6, seek10]) {
    t.equal((await run(nexus, 0, seek(end - 1))).status, 0);
    t.equal((await run(nexus, 0, seek(end))).code, '05/21/00');
  }
});

void t.test('READ DEFECT DATA (10/12) gives empty lists in the format asked for (SBC-5 §5.22)', async (t) => {
  const { login, run } = bench();
  const nexus = login();
  const lists = 0x18 | 0x05; // REQ_PLIST, REQ_GLIST; DEFECT LIST FORMAT: physical sector
  const ten = (await run(nexus, 0, cdb(0x37, 0, lists, 0, 0, 0, 0, u16(255), CONTROL))).data;
  t.same([...ten], [0, lists, 0, 0], 'PLISTV, GLISTV, format; length 0');
  const twelve = (await run(nexus, 0, cdb(0xb7, lists, u32(0) /* index */, u32(255), 0, CONTROL))).data;
  t.same([...twelve], [0, lists, 0, 0, 0, 0, 0, 0]);
});

void t.test(
  'VERIFY (10/12/16): BYTCHK 0 reads, 1 compares all, 3 one block again and again (SBC-5 §5.38)',
  async (t) => {
    const { login, run, master } = bench();
    const nexus = login();
    master.bytes.fill(0x5a, 64 * 512, 80 * 512);
    const verify = {
      10: (flags: number, lba: number, blocks: number) => cdb(0x2f, flags, u32(lba), 0, u16(blocks), CONTROL),
      12: (flags: number, lba: number, blocks: number) => cdb(0xaf, flags, u32(lba), u32(blocks), 0, CONTROL),
      16: (flags: number, lba: number, blocks: number) => cdb(0x8f, flags, u64(lba), u32(blocks), 0, CONTROL),
    };
    for (const [length, make] of Object.entries(verify)) {
      const bytchk = (mode: number, lba: number, blocks: number, data?: Buffer): Promise<Outcome> =>
        run(nexus, 0, make(mode << 1, lba, blocks), data);
      t.equal((await bytchk(0, 64, 16)).status, 0, length);
      t.equal((await bytchk(1, 64, 16, Buffer.alloc(8192, 0x5a))).status, 0, length);
      t.equal((await bytchk(3, 64, 16, Buffer.alloc(512, 0x5a))).status, 0, length);
      const miss = await bytchk(3, 62, 4, Buffer.alloc(512));
      t.same([miss.code, miss.sense?.readUInt32BE(3)], ['0e/1d/00', 1024], `${length}: INFORMATION`);
      t.same(pointer(await bytchk(2, 64, 1, Buffer.alloc(512))), 'CDB 1.2', `${length}: reserved`);
      t.equal((await run(nexus, 0, make(0x20, 64, 1))).code, '05/24/00', `${length}: VRPROTECT`);
    }
  },
);

void t.test(
  'SYNCHRONIZE CACHE and PRE-FETCH: IMMED answers at once, ranges are looked at (SBC-5 §5.33, §5.12)',
  async (t) => {
    const { login, run, start, master } = bench();
    const nexus = login();
    const end = master.capacityBytes / 512;
    const sync = (flags: number, lba: number, blocks: number): Buffer =>
      cdb(0x91, flags /* SYNC_NV, IMMED */, u64(lba), u32(blocks), 0 /* group */, CONTROL);
    master.holdFlush = true;
    const waiting = start(nexus, 0, sync(0, 0, 0));
    t.equal(start(nexus, 0, sync(0x02, 0, 0)).outcome().status, 0, 'IMMED');
    t.notOk(waiting.ended);
    master.release();
    t.equal((await waiting.whenEnded()).status, 0);
    t.equal((await run(nexus, 0, sync(0, end, 1))).code, '05/21/00');
    t.equal((await run(nexus, 1, sync(0, 0, 0))).status, 0, 'the slave has nothing to write');
    const fetch = (opcode: number, flags: number, lba: number): Buffer =>
      opcode === 0x34
        ? cdb(opcode, flags, u32(lba), 0, u16(8), CONTROL)
        : cdb(opcode, flags, u64(lba), u32(8), 0, CONTROL);
    for (const opcode of [0x34, 0x90]) {
      t.equal((await run(nexus, 0, fetch(opcode, 0, 0))).status, 0);
      t.equal((await run(nexus, 0, fetch(opcode, 0x02, 0))).status, 0);
      t.equal((await run(nexus, 0, fetch(opcode, 0, end - 7))).code, '05/21/00');
    }
  },
);

void t.test(
  'START STOP UNIT: power conditions in name only, LOEJ on the slave only (SBC-5 §5.32)',
  async (t) => {
    const { login, run, master } = bench();
    const nexus = login();
    const startStop = (flags: number, immediate = 0, modifier = 0): Buffer =>
      cdb(0x1b, immediate, 0, modifier, flags /* POWER CONDITION, NO_FLUSH, LOEJ, START */, CONTROL);
    for (const condition of [0x10, 0x20, 0x30, 0x70, 0xa0, 0xb0])
      t.equal((await run(nexus, 0, startStop(condition))).status, 0, 'active, idle, standby, control');
    const before = master.flushes;
    t.equal((await run(nexus, 0, startStop(0x00))).status, 0);
    t.equal(master.flushes, before + 1, 'a stop writes the cache first');
    await run(nexus, 0, startStop(0x04));
    t.equal(master.flushes, before + 1, 'NO_FLUSH');
    t.equal((await run(nexus, 0, cdb10(0x28, 0, 1))).status, 0, 'nothing spins down');
    t.same(pointer(await run(nexus, 0, startStop(0x02))), 'CDB 4.1', 'the master cannot be ejected');
    t.equal((await run(nexus, 1, startStop(0x02, 1))).status, 0, 'IMMED waits for the answer all the same');
    t.equal((await run(nexus, 1, startStop(0x02))).status, 0, 'ejected already');
    t.equal((await run(nexus, 1, startStop(0x01))).status, 0, 'START without LOEJ loads nothing');
    t.equal((await run(nexus, 1, [0, 0, 0, 0, 0, 0])).code, '02/3a/00');
  },
);

void t.test(
  'SANITIZE: each field, IMMED, the progress, and what goes on meanwhile (SBC-5 §5.31)',
  async (t) => {
    const b = bench({ sanitizeBytesPerSecond: 8 * 1024 * 1024 });
    const nexus = b.login();
    const sanitize = (flags: number, bytes: number): Buffer =>
      cdb(0x48, flags /* IMMED, ZNR, AUSE, SERVICE ACTION */, u32(0), 0, u16(bytes), CONTROL);
    const list = (flags: number, pattern: Buffer, length = pattern.length): Buffer =>
      cdb(flags /* INVERT, TEST, OVERWRITE COUNT */, 0, u16(length), pattern);
    const overwrite = async (parameters: Buffer): Promise<Outcome> =>
      await b.run(nexus, 0, sanitize(0x81, parameters.length), parameters);
    t.equal(pointer(await overwrite(list(0, Buffer.alloc(4)))), 'list 0', 'OVERWRITE COUNT 0');
    t.equal(pointer(await overwrite(list(1, Buffer.alloc(4), 8))), 'list 2', 'INITIALIZATION PATTERN LENGTH');
    t.equal(pointer(await overwrite(Buffer.alloc(600))), 'CDB 7', 'PARAMETER LIST LENGTH');
    t.equal(
      pointer(await b.run(nexus, 0, sanitize(0x02, 4), Buffer.alloc(4))),
      'CDB 7',
      'BLOCK ERASE has none',
    );
    t.equal((await b.run(nexus, 0, sanitize(0x03, 0))).code, '05/24/00', 'CRYPTOGRAPHIC ERASE');
    t.equal((await b.run(nexus, 0, sanitize(0x1f, 0))).status, 0, 'EXIT FAILURE MODE, without a failure');

    t.equal((await overwrite(list(0x82, Buffer.from([0x0f])))).status, 0, 'IMMED; INVERT, two passes');
    const progress = async (): Promise<number> => {
      const { data } = await b.run(nexus, 0, cdb(0x03, 0, 0, 0, 252, CONTROL));
      return senseCode(data) === '02/04/1b' ? data.readUInt16BE(16) : Infinity;
    };
    const first = await progress();
    t.ok(first < 0x8000, 'less than half is done');
    let last = first;
    let seen = 0;
    while (last !== Infinity) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      const now = await progress();
      t.ok(now >= last, 'it never goes back');
      if (now !== Infinity) seen = now;
      last = now;
    }
    t.ok(seen > first, 'PROGRESS INDICATION went on');
    t.ok(
      b.master.bytes.equals(Buffer.alloc(b.master.capacityBytes, 0x0f)),
      'the last pass leaves the pattern',
    );
  },
);

void t.test(
  'MODE SELECT (10) and (6) check header, descriptor and page lengths (SPC-6 §6.11, §6.12)',
  async (t) => {
    const { login, run, master } = bench();
    const nexus = login();
    const select = async (list: Buffer, flags = 0x10 /* PF */): Promise<Outcome> =>
      await run(nexus, 0, cdb(0x55, flags /* PF, SP */, u32(0), 0, u16(list.length), CONTROL), list);
    const header = (long: number, descriptorBytes: number): Buffer =>
      cdb(u16(0), 0, 0, long, 0, u16(descriptorBytes));
    const caching = Buffer.from('0812000000000000000000000000000000000000', 'hex');
    t.equal((await select(Buffer.concat([header(0, 0), caching]))).status, 0);
    t.equal(
      (await run(nexus, 0, cdb(0x5a, 0x08, 0x08, 0, 0, 0, 0, u16(255), CONTROL))).data[10] & 4,
      0,
      'WCE=0',
    );
    const blocks = master.capacityBytes / 512;
    const long = Buffer.concat([header(1, 16), u64(blocks), u32(0), u32(512), caching]);
    t.equal((await select(long)).status, 0, 'LONGLBA, repeating what is');
    const other = Buffer.concat([header(1, 16), u64(blocks - 1), u32(0), u32(512)]);
    t.equal(pointer(await select(other)), 'list 8', 'another capacity');
    t.equal(pointer(await select(Buffer.concat([header(0, 12), Buffer.alloc(12)]))), 'list 6');
    t.equal(pointer(await select(Buffer.concat([header(0, 0), caching]), 0)), 'CDB 1.4', 'PF=0');
    t.equal((await select(header(0, 8))).code, '05/1a/00', 'descriptor cut off');
    t.equal((await select(Buffer.alloc(3))).code, '05/1a/00');
    t.equal((await select(Buffer.alloc(0))).status, 0, 'nothing is nothing');
  },
);

void t.test(
  'MODE SENSE: all four values of each page agree with what can be changed (SPC-6 §6.14)',
  async (t) => {
    const { login, run } = bench();
    const nexus = login();
    const pages = [
      [0x01, 0x00, 12],
      [0x02, 0x00, 16],
      [0x08, 0x00, 20],
      [0x0a, 0x00, 12],
      [0x0a, 0x01, 32],
      [0x1a, 0x00, 40],
      [0x1c, 0x00, 12],
    ];
    for (const [page, subpage, bytes] of pages) {
      const values: Buffer[] = [];
      for (const control of [0, 1, 2, 3]) {
        const sense = cdb(0x5a, 0x08 /* DBD */, (control << 6) | page, subpage, 0, 0, 0, u16(255), CONTROL);
        const { data } = await run(nexus, 0, sense);
        values.push(data.subarray(8));
        t.equal(data.length, 8 + bytes, `page ${page.toString(16)}: length`);
        t.equal(data[8] & 0x80, 0x80, 'PS: it can be saved');
      }
      const [current, changeable, standard, saved] = values;
      t.same([current, saved], [standard, standard], 'nothing was changed yet');
      const fixed = [0x08, 0x0a].includes(page) && subpage === 0;
      t.equal(
        changeable.subarray(subpage === 0 ? 2 : 4).some((byte) => byte !== 0),
        fixed,
        'changeable bits',
      );
    }
    t.equal((await run(nexus, 0, cdb(0x1a, 0, 0x05, 0, 255, CONTROL))).code, '05/24/00', 'no such page');
    t.equal(pointer(await run(nexus, 0, cdb(0x1a, 0, 0x0a, 5, 255, CONTROL))), 'CDB 3', 'no such subpage');
  },
);

void t.test('LOG SENSE and LOG SELECT refuse what they do not have (SPC-6 §6.7, §6.8)', async (t) => {
  const { login, run } = bench();
  const nexus = login();
  const sense = (page: number, subpage = 0, from = 0, flags = 0): Buffer =>
    cdb(0x4d, flags /* PPC, SP */, 0x40 | page /* PC, PAGE CODE */, subpage, 0, u16(from), u16(512), CONTROL);
  const lengths: [number, number][] = [
    [0x02, 24],
    [0x03, 24],
    [0x05, 24],
    [0x0c, 8],
    [0x0d, 12],
    [0x10, 400],
    [0x15, 16],
    [0x19, 92],
    [0x2f, 8],
    [0x39, 12],
  ];
  for (const [page, bytes] of lengths) {
    const { data } = await run(nexus, 0, sense(page));
    t.same([data[0], data.readUInt16BE(2)], [page, bytes], `page ${page.toString(16)}`);
  }
  t.same((await run(nexus, 0, sense(0, 0xff))).data[1], 0xff, 'pages and subpages');
  t.equal(pointer(await run(nexus, 0, sense(0x3e))), 'CDB 2');
  t.equal(pointer(await run(nexus, 0, sense(0x0d, 1))), 'CDB 3');
  t.equal(pointer(await run(nexus, 0, sense(0x0d, 0, 2))), 'CDB 5', 'PARAMETER POINTER behind the last');
  t.equal((await run(nexus, 0, sense(0x0d, 0, 0, 0x02))).code, '05/24/00', 'PPC');
  const select = cdb(0x4c, 0x01 /* PCR, SP */, 0x40, 0, 0, 0, 0, u16(4), CONTROL);
  t.equal((await run(nexus, 0, select, Buffer.alloc(4))).code, '05/24/00', 'a parameter list');
});

void t.test('NACA in any command is refused, since there is no ACA here (SAM-6 §5.2)', async (t) => {
  const { login, run } = bench();
  const nexus = login();
  const naca = 0x04;
  const refused = [
    cdb(0x00, 0, 0, 0, 0, naca),
    cdb(0x28, 0, u32(0), 0, u16(1), naca),
    cdb(0x88, 0, u64(0), u32(1), 0, naca),
    cdb(0xa0, 0, 0, 0, 0, 0, u32(16), 0, naca),
  ];
  for (const command of refused)
    t.equal(pointer(await run(nexus, 0, command)), `CDB ${String(command.length - 1)}`);
});
