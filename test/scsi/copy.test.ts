import t from 'tap';
import { BOTH, bench, cdb10 } from './support.js';
import type { Bench } from './support.js';
import type { Nexus } from '../../src/scsi/nexus.js';

/** Identification target descriptor (E4h) with the unit's NAA designator. */
async function targetDescriptor({ run }: Bench, nexus: Nexus, lun: number): Promise<Buffer> {
  const page = (await run(nexus, lun, [0x12, 1, 0x83, 1, 0, 0])).data;
  const descriptor = Buffer.alloc(32);
  descriptor[0] = 0xe4;
  descriptor[4] = 1;
  descriptor[5] = 3;
  descriptor[7] = 8;
  page.copy(descriptor, 8, 8, 16);
  descriptor.writeUIntBE(512, 29, 3);
  return descriptor;
}

function parameters(
  targets: Buffer[],
  segments: [from: number, to: number, fromLba: number, toLba: number, blocks: number][],
): Buffer {
  const header = Buffer.alloc(16);
  header[0] = 7;
  header.writeUInt16BE(targets.length * 32, 2);
  header.writeUInt32BE(segments.length * 28, 8);
  const list = segments.map(([from, to, fromLba, toLba, blocks]) => {
    const segment = Buffer.alloc(28);
    segment[0] = 0x02;
    segment.writeUInt16BE(24, 2);
    segment.writeUInt16BE(from, 4);
    segment.writeUInt16BE(to, 6);
    segment.writeUInt16BE(blocks, 10);
    segment.writeUInt32BE(fromLba, 16);
    segment.writeUInt32BE(toLba, 24);
    return segment;
  });
  return Buffer.concat([header, ...targets, ...list]);
}

const xcopy = (list: Buffer): number[] => [
  0x83,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  list.length >> 8,
  list.length & 255,
  0,
  0,
];

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

function ranges(list: [lba: number, blocks: number][]): Buffer {
  const data = Buffer.alloc(2 + list.length * 16);
  data.writeUInt16BE(list.length * 16, 0);
  list.forEach(([lba, blocks], index) => {
    data.writeUInt32BE(lba, 2 + index * 16 + 4);
    data.writeUInt32BE(blocks, 2 + index * 16 + 8);
  });
  return data;
}

const tokenCdb = (action: number, listId: number, bytes: number): Buffer => {
  const cdb = Buffer.alloc(16);
  cdb[0] = 0x83;
  cdb[1] = action;
  cdb.writeUInt32BE(listId, 6);
  cdb.writeUInt32BE(bytes, 10);
  return cdb;
};

/** POPULATE TOKEN and RECEIVE ROD TOKEN INFORMATION: the token. */
async function populate(
  { run }: Bench,
  nexus: Nexus,
  lun: number,
  list: [number, number][],
): Promise<Buffer> {
  const parameter = Buffer.concat([Buffer.alloc(14), ranges(list)]);
  parameter.writeUInt16BE(parameter.length - 2, 0);
  await run(nexus, lun, tokenCdb(0x10, 5, parameter.length), parameter);
  const { data } = await run(nexus, lun, [0x84, 7, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]);
  return data.subarray(38, 38 + 512);
}

function writing(token: Buffer, list: [number, number][], offset = 0): Buffer {
  const parameter = Buffer.concat([Buffer.alloc(16), token, Buffer.alloc(6), ranges(list)]);
  parameter.writeUInt32BE(offset, 12);
  return parameter;
}

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
