import t from 'tap';
import { MEDIUM } from '../../src/scsi/medium.js';
import { BOTH, bench, cdb10, fieldOf, MemoryMedium } from './support.js';
import { parameters, populate, ranges, targetDescriptor, tokenCdb, writing, xcopy } from './copies.js';
import type { Nexus } from '../../src/scsi/nexus.js';

void t.test(
  'EXTENDED COPY restores blocks from the slave to the master; holes stay holes (SPC-4 §6.3)',
  async (t) => {
    const b = bench();
    const nexus = b.login();
    b.slave.bytes.fill(0x5a, 100 * 512, 700 * 512);
    for (let at = 96 * 512; at < 704 * 512; at += 4096) b.slave.mapped.add(at);
    b.master.bytes.fill(0xff);
    const targets = [await targetDescriptor(b, nexus, 1), await targetDescriptor(b, nexus, 0)];
    const list = parameters(targets, [[0, 1, 0, 0, 2048]]);
    t.equal((await b.run(nexus, 0, xcopy(list), list)).status, 0);
    t.ok(b.master.bytes.subarray(0, 2048 * 512).equals(b.slave.bytes.subarray(0, 2048 * 512)));
    t.notOk(b.master.mapped.has(0));
    t.ok(b.master.mapped.has(104 * 512));
    const { data } = await b.run(nexus, 0, [0x84, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    t.same(
      [data[4], data.readUInt16BE(5), data.readUInt32BE(8)],
      [1, 1, 1024],
      'completed, one segment, 1,024 KiB',
    );
    t.equal(
      (await b.run(nexus, 0, [0x84, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])).code,
      '05/24/00',
      'no such copy',
    );
  },
);

void t.test('EXTENDED COPY can do only what READ and WRITE by the same initiator could', async (t) => {
  const b = bench();
  const nexus = b.login();
  const master = await targetDescriptor(b, nexus, 0);
  const slave = await targetDescriptor(b, nexus, 1);
  const run = async (from: Nexus, list: Buffer): Promise<string> =>
    (await b.run(from, 0, xcopy(list), list)).code;
  t.equal(
    await run(nexus, parameters([master, slave], [[0, 1, 0, 0, 1]])),
    '07/27/00',
    'the slave is never written',
  );
  const onlyMaster = b.login('iqn.2024-01.org.example:other', { luns: [BOTH[0]] });
  t.equal(
    await run(onlyMaster, parameters([master, slave], [[1, 0, 0, 0, 1]])),
    '0a/08/04',
    'a LUN that it does not see',
  );
  t.equal(await run(nexus, parameters([master], [[0, 0, 0, 0x7fff_ffff, 1]])), '0a/0d/02');
  b.slave.present = false;
  t.equal(await run(nexus, parameters([master, slave], [[1, 0, 0, 0, 1]])), '0a/0d/02');
  t.equal(await run(nexus, parameters([master], [[0, 3, 0, 0, 1]])), '0a/08/04', 'no such descriptor');
  await b.run(onlyMaster, 0, [0x16, 0, 0, 0, 0, 0]);
  t.equal((await b.run(nexus, 0, xcopy(parameters([master], [])), parameters([master], []))).status, 0x18);
  await b.run(onlyMaster, 0, [0x17, 0, 0, 0, 0, 0]);
  const many = parameters(
    Array.from({ length: 17 }, () => master),
    [[0, 0, 0, 8, 1]],
  );
  t.equal(await run(nexus, many), '05/26/06');
  t.equal(await run(nexus, many.subarray(0, 100)), '05/1a/00');
});

void t.test(
  'EXTENDED COPY through the other unit finds no way past SANITIZE, nor past its failure',
  async (t) => {
    const b = bench();
    const nexus = b.login();
    const list = parameters([await targetDescriptor(b, nexus, 0)], [[0, 0, 0, 8, 1]]);
    const copy = async (): Promise<string> => (await b.run(nexus, 1, xcopy(list), list)).code;
    t.equal(await copy(), '');
    b.master.held = true;
    const erase = b.start(nexus, 0, [0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0]);
    t.equal(await copy(), '0a/0d/02', 'while it runs');
    b.master.fail = MEDIUM.FAILED;
    b.master.release();
    t.equal((await erase.whenEnded()).code, '03/31/03');
    b.master.fail = MEDIUM.OK;
    t.equal(await copy(), '0a/0d/02', 'after it failed');
  },
);

void t.test('A copy that is aborted stops, and writes that are held do not lose it', async (t) => {
  const b = bench();
  const nexus = b.login();
  const master = await targetDescriptor(b, nexus, 0);
  await b.run(nexus, 0, cdb10(0x2a, 0, 64), Buffer.alloc(64 * 512, 3));
  b.master.held = true;
  const list = parameters([master], [[0, 0, 0, 1024, 64]]);
  const task = b.start(nexus, 0, xcopy(list), list);
  await new Promise((resolve) => setTimeout(resolve, 5));
  t.notOk(task.ended);
  b.target.detach(nexus, 'killed');
  b.master.release();
  t.equal((await task.whenEnded()).ends, 1);
});

void t.test(
  'A token carries blocks from the slave to the master, over uneven ranges (SBC-5 §5.11, §5.58)',
  async (t) => {
    const b = bench();
    const nexus = b.login();
    for (let i = 0; i < 64; i++) b.slave.bytes.fill(i + 1, i * 512, (i + 1) * 512);
    for (let at = 0; at < 64 * 512; at += 4096) b.slave.mapped.add(at);
    const token = await populate(b, nexus, 1, [
      [0, 10],
      [20, 10],
    ]);
    const list = writing(
      token,
      [
        [100, 3],
        [200, 14],
      ],
      2,
    );
    t.equal((await b.run(nexus, 0, tokenCdb(0x11, 6, list.length), list)).status, 0);
    const block = (lba: number): number => b.master.bytes[lba * 512];
    t.same([100, 101, 102, 200, 204, 205, 213].map(block), [3, 4, 5, 6, 21 - 11, 21, 29]);
    const { data } = await b.run(nexus, 0, [0x84, 7, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]);
    t.same([data[4], data[5], data.readUInt32BE(20)], [0x11, 1, 17]);
    const zero = Buffer.alloc(512);
    zero.writeUInt32BE(0xffff_0001, 0);
    const zeroing = writing(zero, [[96, 16]]);
    t.equal((await b.run(nexus, 0, tokenCdb(0x11, 6, zeroing.length), zeroing)).status, 0);
    t.equal(block(100), 0, 'block device zero token');
  },
);

void t.test(
  'A token is of use only to who may read its blocks, unforged, and while its medium is in',
  async (t) => {
    const b = bench();
    const nexus = b.login();
    const token = await populate(b, nexus, 1, [[0, 8]]);
    const use = async (from: Nexus, which: Buffer): Promise<string> => {
      const list = writing(which, [[0, 8]]);
      return (await b.run(from, 0, tokenCdb(0x11, 6, list.length), list)).code;
    };
    t.equal(await use(nexus, token), '');
    t.equal(await use(b.login('iqn.2024-01.org.example:other', { luns: [BOTH[0]] }), token), '05/23/04');
    const forged = Buffer.from(token);
    forged[100] ^= 1;
    t.equal(await use(nexus, forged), '05/23/04');
    b.slave.generation++;
    t.equal(await use(nexus, token), '05/23/06', 'another medium');
    const overlapping = Buffer.concat([
      Buffer.alloc(14),
      ranges([
        [0, 8],
        [4, 8],
      ]),
    ]);
    t.equal((await b.run(nexus, 0, tokenCdb(0x10, 5, overlapping.length), overlapping)).code, '05/26/00');
  },
);

const UNREACHABLE = '0a/08/04';
const NOT_REACHABLE = '0a/0d/02';
const THIRD_PARTY_FAILURE = '0a/0d/01';

void t.test('EXTENDED COPY refuses a list with a mistake, and names its byte (SPC-4 §6.3)', async (t) => {
  const b = bench();
  const nexus = b.login();
  const master = await targetDescriptor(b, nexus, 0);
  const fine = parameters([master], [[0, 0, 0, 64, 8]]);
  const changed = (change: (list: Buffer) => void): Buffer => {
    const list = Buffer.from(fine);
    change(list);
    return list;
  };
  const segments = Array.from({ length: 17 }, (): [number, number, number, number, number] => [
    0, 0, 0, 64, 8,
  ]);
  const table: [what: string, list: Buffer, code: string, byte?: number][] = [
    ['shorter than its header', fine.subarray(0, 15), '05/1a/00'],
    ['descriptors that have not come', fine.subarray(0, 60), '05/1a/00'],
    ['17 segments', parameters([master], segments), '05/26/08'],
    [
      'more descriptors than the list may hold',
      parameters(Array(17).fill(master) as Buffer[], segments),
      '05/1a/00',
    ],
    ['inline data', changed((list) => list.writeUInt32BE(1, 12)), '05/26/00', 12],
    ['a list identifier though there is none', changed((list) => (list[1] = 0x18)), '05/26/00', 0],
    ['another kind of target descriptor', changed((list) => (list[16] = 0xe0)), '05/26/07', 16],
    ['blocks of 4,096 bytes', changed((list) => list.writeUIntBE(4096, 45, 3)), '05/26/00', 45],
    ['another kind of segment', changed((list) => (list[48] = 0x00)), '05/26/09', 48],
    ['a segment of another length', changed((list) => list.writeUInt16BE(20, 50)), '05/26/00', 50],
    ['a segment cut off', changed((list) => list.writeUInt32BE(20, 8)), '05/1a/00'],
    [
      'a target descriptor cut off',
      changed((list) => list.writeUInt16BE(40, 2)).fill(0xe4, 48, 49),
      '05/1a/00',
    ],
  ];
  for (const [what, list, code, byte] of table) {
    const outcome = await b.run(nexus, 0, xcopy(list), list);
    t.same([outcome.code, fieldOf(outcome)], [code, byte], what);
  }
  const short = await b.run(nexus, 0, xcopy(fine), fine.subarray(0, 10));
  t.equal(short.code, '05/1a/00', 'less Data-Out than the CDB says');
  t.equal(
    (await b.run(nexus, 0, xcopy(Buffer.alloc(0)), Buffer.alloc(0))).status,
    0,
    'no list: nothing to do',
  );
});

void t.test(
  'EXTENDED COPY finds a unit by each of its designators, and by nothing else (SPC-6 §7.7.6)',
  async (t) => {
    const b = bench();
    const nexus = b.login();
    const page = (await b.run(nexus, 0, [0x12, 1, 0x83, 2, 0, 0])).data;
    const descriptors: Buffer[] = [];
    for (let at = 4; at < page.length; at += 4 + page[at + 3])
      descriptors.push(page.subarray(at, at + 4 + page[at + 3]));
    const naming = (codeSet: number, type: number, designator: Buffer): Buffer => {
      const descriptor = Buffer.alloc(32);
      descriptor[0] = 0xe4;
      descriptor[4] = codeSet;
      descriptor[5] = type;
      descriptor[7] = designator.length;
      designator.copy(descriptor, 8);
      return descriptor;
    };
    const copy = async (descriptor: Buffer): Promise<string> => {
      const list = parameters([descriptor], [[0, 0, 0, 64, 8]]);
      return (await b.run(nexus, 0, xcopy(list), list)).code;
    };
    // The T10 designator is longer than the 20 bytes that there is room for: its beginning counts.
    const ofUnit = descriptors.filter(
      ({ 1: type }) => (type & 0x30) === 0 && [1, 3, 10].includes(type & 0x0f),
    );
    t.equal(ofUnit.length, 3, 'T10 vendor, NAA and UUID');
    for (const descriptor of ofUnit) {
      const type = descriptor[1] & 0x0f;
      const designator = descriptor.subarray(4, 24);
      t.equal(await copy(naming(descriptor[0], type, designator)), '', `type ${type}`);
      const other = Buffer.from(designator);
      other[other.length - 1] ^= 1;
      t.equal(await copy(naming(descriptor[0], type, other)), UNREACHABLE, `type ${type} of another unit`);
    }
    t.equal(await copy(naming(2, 1, Buffer.from('CLDD'))), UNREACHABLE, 'a part of a T10 designator');
    t.equal(await copy(naming(1, 2, Buffer.alloc(8))), UNREACHABLE, 'EUI-64, which it has none of');
    const none = await targetDescriptor(b, nexus, 0);
    none[1] = 0x20;
    t.equal(await copy(none), UNREACHABLE, 'NUL');
    const unsaid = await targetDescriptor(b, nexus, 0);
    unsaid.fill(0, 29, 32);
    t.equal(await copy(unsaid), '', 'a block length of 0 means the one that it has');
  },
);

void t.test('A copy ends as its reads and writes do, and its result says so (SPC-4 §6.20)', async (t) => {
  const b = bench();
  const nexus = b.login();
  const [master, slave] = [await targetDescriptor(b, nexus, 0), await targetDescriptor(b, nexus, 1)];
  for (let at = 0; at < 64 * 512; at += 4096) b.slave.mapped.add(at);
  const copy = async (segment: [number, number, number, number, number]): Promise<string> => {
    const list = parameters([master, slave], [segment]);
    return (await b.run(nexus, 0, xcopy(list), list)).code;
  };
  const result = async (): Promise<number> =>
    (await b.run(nexus, 0, [0x84, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])).data[4];
  t.equal(await copy([1, 0, 0x7fff_ffff, 0, 1]), NOT_REACHABLE, 'from behind the end');
  b.slave.fail = MEDIUM.READ_ERROR;
  t.equal(await copy([1, 0, 0, 0, 64]), THIRD_PARTY_FAILURE, 'a block that cannot be read');
  t.equal(await result(), 2, 'failed');
  b.slave.slow = true;
  t.equal(await copy([1, 0, 0, 0, 64]), THIRD_PARTY_FAILURE, 'nor later');
  b.slave.fail = MEDIUM.OK;
  t.equal(await copy([1, 0, 0, 0, 64]), '', 'slow, but well');
  t.equal(await result(), 1);
  b.master.fail = MEDIUM.FAILED;
  t.equal(await copy([1, 0, 0, 0, 64]), THIRD_PARTY_FAILURE, 'a block that cannot be written');
  t.equal(await copy([1, 0, 1024, 0, 64]), THIRD_PARTY_FAILURE, 'a hole that cannot be made');
  b.master.fail = MEDIUM.OK;
  const list = parameters([master, slave], [[1, 0, 0, 0, 64]]);
  b.master.held = true;
  const late = b.start(nexus, 0, xcopy(list), list);
  await new Promise(setImmediate);
  await new Promise(setImmediate);
  b.master.fail = MEDIUM.FAILED;
  await new Promise(setImmediate);
  b.master.release();
  t.equal((await late.whenEnded()).code, THIRD_PARTY_FAILURE, 'a write that fails late');
  b.master.fail = MEDIUM.OK;
  const other = b.login('iqn.2024-01.org.example:other');
  const register = Buffer.alloc(24);
  register[15] = 1;
  await b.run(other, 1, [0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0], register);
  register[7] = 1;
  t.equal((await b.run(other, 1, [0x5f, 1, 3, 0, 0, 0, 0, 0, 24, 0], register)).status, 0);
  t.equal(await copy([1, 0, 0, 0, 8]), NOT_REACHABLE, 'another has exclusive access to the source');
});

void t.test('Eight copies of a nexus may be under way, each under an identifier of its own', async (t) => {
  const b = bench();
  const nexus = b.login();
  const master = await targetDescriptor(b, nexus, 0);
  await b.run(nexus, 0, cdb10(0x2a, 0, 8), Buffer.alloc(8 * 512, 3));
  const list = (id: number): Buffer => {
    const made = parameters([master], [[0, 0, 0, 64, 8]]);
    made[0] = id;
    return made;
  };
  b.master.held = true;
  const tasks = Array.from({ length: 8 }, (_, id) => b.start(nexus, 0, xcopy(list(id)), list(id)));
  t.notOk(tasks.some((task) => task.ended));
  const twice = await b.run(nexus, 0, xcopy(list(3)), list(3));
  t.same([twice.code, fieldOf(twice)], ['05/26/00', 0], 'an identifier in use');
  const ninth = await b.run(nexus, 0, xcopy(list(9)), list(9));
  t.same([ninth.code, fieldOf(ninth)], ['05/26/00', 0]);
  const token = Buffer.concat([Buffer.alloc(14), ranges([[0, 8]])]);
  const populated = await b.run(nexus, 0, tokenCdb(0x10, 5, token.length), token);
  t.same([populated.code, fieldOf(populated)], ['05/24/00', 6], 'no room for the result of POPULATE TOKEN');
  const zero = Buffer.alloc(512);
  zero.writeUInt32BE(0xffff_0001, 0);
  const zeroing = writing(zero, [[96, 16]]);
  const written = await b.run(nexus, 0, tokenCdb(0x11, 6, zeroing.length), zeroing);
  t.same([written.code, fieldOf(written)], ['05/24/00', 6], 'nor of WRITE USING TOKEN');
  await new Promise((resolve) => setTimeout(resolve, 5));
  b.master.release();
  for (const task of tasks) t.equal((await task.whenEnded()).status, 0);
  const without = list(0);
  without[1] = 0x18;
  t.equal((await b.run(nexus, 0, xcopy(without), without)).status, 0, 'LIST ID USAGE 11b: no identifier');
});

void t.test(
  'POPULATE TOKEN and WRITE USING TOKEN refuse a list with a mistake, and name its byte',
  async (t) => {
    const b = bench({ master: new MemoryMedium(4 * 1024 ** 3, { sparse: true }) });
    const nexus = b.login();
    const populating = (
      list: [number, number][],
      change: (parameter: Buffer) => void = () => undefined,
    ): Buffer => {
      const parameter = Buffer.concat([Buffer.alloc(14), ranges(list)]);
      change(parameter);
      return parameter;
    };
    const blocks = b.master.capacityBytes / 512;
    const many = Array.from({ length: 65 }, (_, i): [number, number] => [i * 8, 8]);
    const table: [what: string, list: Buffer, code: string, byte?: number][] = [
      ['no ranges', populating([[0, 8]]).subarray(0, 15), '05/1a/00'],
      [
        'a timeout beyond the maximum',
        populating([[0, 8]], (list) => list.writeUInt32BE(601, 4)),
        '05/26/00',
        4,
      ],
      [
        'another type of ROD',
        populating([[0, 8]], (list) => list.writeUInt32BE(0x0080_0003, 8)).fill(2, 2, 3),
        '05/26/00',
        8,
      ],
      [
        'a length that is no multiple of ranges',
        populating([[0, 8]], (list) => list.writeUInt16BE(15, 14)),
        '05/26/00',
        14,
      ],
      ['no range', populating([]), '05/26/00', 14],
      [
        'more ranges than have come',
        populating([[0, 8]], (list) => list.writeUInt16BE(32, 14)),
        '05/26/00',
        14,
      ],
      ['65 ranges', populating(many), '05/26/08'],
      ['behind the end', populating([[blocks - 1, 2]]), '05/21/00'],
      ['more blocks than one token stands for', populating([[0, 4_194_305]]), '05/26/00', 24],
      [
        'its own type of ROD',
        populating([[0, 8]], (list) => list.writeUInt32BE(0x0001_0000, 8)).fill(2, 2, 3),
        '',
      ],
      [
        'any type of ROD, for ten minutes',
        populating([[0, 8]], (list) => list.writeUInt32BE(600, 4)).fill(2, 2, 3),
        '',
      ],
    ];
    for (const [what, list, code, byte] of table) {
      const outcome = await b.run(nexus, 0, tokenCdb(0x10, 5, list.length), list);
      t.same([outcome.code, fieldOf(outcome)], [code, byte], what);
    }
    const token = await populate(b, nexus, 0, [[0, 8]]);
    const use = async (list: Buffer): Promise<[string, number | undefined]> => {
      const outcome = await b.run(nexus, 0, tokenCdb(0x11, 6, list.length), list);
      return [outcome.code, fieldOf(outcome)];
    };
    t.same(await use(writing(token, [[8, 8]]).subarray(0, 535)), ['05/1a/00', undefined]);
    t.same(await use(writing(token, [[8, 8]], 8)), ['05/26/00', 8], 'an offset behind its blocks');
  },
);

void t.test('A token ends with its time, with DEL_TKN, and when 256 younger ones were made', async (t) => {
  const b = bench();
  const nexus = b.login();
  const use = async (token: Buffer, change: (list: Buffer) => void = () => undefined): Promise<string> => {
    const list = writing(token, [[64, 16]]);
    change(list);
    return (await b.run(nexus, 0, tokenCdb(0x11, 6, list.length), list)).code;
  };
  const short = await populate(b, nexus, 0, [[0, 8]]);
  t.equal(await use(short), '', 'more blocks than it stands for: those that there are');
  const { data } = await b.run(nexus, 0, [0x84, 7, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]);
  t.equal(data.readUInt32BE(20), 8);
  t.equal(await use(short, (list) => (list[2] = 0x02)), '', 'DEL_TKN');
  t.equal(await use(short), '05/23/04', 'and it is unknown');
  const first = await populate(b, nexus, 0, [[0, 8]]);
  const second = await populate(b, nexus, 0, [[0, 8]]);
  for (let i = 0; i < 255; i++) await populate(b, nexus, 0, [[0, 8]]);
  t.equal(await use(first), '05/23/04');
  t.equal(await use(second), '');
  const { now } = Date;
  t.teardown(() => (Date.now = now));
  Date.now = () => now() + 60_500;
  t.equal(await use(second), '05/23/07', 'after its 60 s');
  t.equal(await use(second), '05/23/04', 'and forgotten');
});

void t.test('A token that writes zeros counts only what was written', async (t) => {
  const b = bench();
  const nexus = b.login();
  const zero = Buffer.alloc(512);
  zero.writeUInt32BE(0xffff_0001, 0);
  const list = writing(zero, [[0, 8192]]);
  b.master.fail = MEDIUM.FAILED;
  t.equal((await b.run(nexus, 0, tokenCdb(0x11, 6, list.length), list)).code, THIRD_PARTY_FAILURE);
  const { data } = await b.run(nexus, 0, [0x84, 7, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]);
  t.same([data[5], data.readUInt32BE(20)], [2, 0], 'completed with errors, 0 blocks');
});
