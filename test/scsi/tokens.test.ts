/** Offloaded copies byte by byte and at their bounds: tokens, ranges, and what they say in the end (SBC-5 §5.11, §5.58). */
import t from 'tap';
import { MEDIUM } from '../../src/scsi/medium.js';
import type { Nexus } from '../../src/scsi/nexus.js';
import { populate, ranges, tokenCdb, writing } from './copies.js';
import { BOTH, bench, cdb10, fieldOf, MemoryMedium } from './support.js';
import type { Bench, Outcome, TestTask } from './support.js';

const [POPULATE, WRITE] = [0x10, 0x11];
const THIRD_PARTY_FAILURE = '0a/0d/01';
const LIST_ID = 6;

type Extents = [lba: number, blocks: number][];

/** RECEIVE ROD TOKEN INFORMATION. */
const information = ({ run }: Bench, nexus: Nexus, listId = LIST_ID, bytes = 1024): Promise<Outcome> =>
  run(nexus, 0, [0x84, 7, 0, 0, 0, listId, 0, 0, 0, 0, 0, 0, bytes >> 8, bytes & 255, 0, 0]);

function start(b: Bench, nexus: Nexus, token: Buffer, list: Extents, offset = 0): TestTask {
  const parameter = writing(token, list, offset);
  return b.start(nexus, 0, tokenCdb(WRITE, LIST_ID, parameter.length), parameter);
}

const write = (...args: Parameters<typeof start>): Promise<Outcome> => start(...args).whenEnded();

/** A list for POPULATE TOKEN. */
function populating(list: Extents, timeoutSeconds = 0, type?: number): Buffer {
  const parameter = Buffer.concat([Buffer.alloc(14), ranges(list)]);
  parameter.writeUInt32BE(timeoutSeconds, 4);
  if (type !== undefined) {
    parameter[2] = 0x02;
    parameter.writeUInt32BE(type, 8);
  }
  return parameter;
}

const ask = (b: Bench, nexus: Nexus, lun: number, list: Buffer): Promise<Outcome> =>
  b.run(nexus, lun, tokenCdb(POPULATE, LIST_ID, list.length), list);

function zeroToken(): Buffer {
  const token = Buffer.alloc(512);
  token.writeUInt32BE(0xffff_0001, 0);
  return token;
}

/** As many turns of the event loop. */
async function turns(count: number): Promise<void> {
  for (let n = 0; n < count; n++) await new Promise(setImmediate);
}

void t.test('A token names its type, its unit and its bytes, and nothing else (SPC-6 §5.17.6)', async (t) => {
  const b = bench();
  const nexus = b.login();
  for (const [lun, type] of [
    [0, '00010000'],
    [1, '00800003'],
  ] as const) {
    const naa = (await b.run(nexus, lun, [0x12, 1, 0x83, 0, 16, 0])).data.toString('hex', 8, 16);
    const token = await populate(b, nexus, lun, [[0, 3], [8, 4]]); // prettier-ignore
    t.equal(
      token.toString('hex', 0, 96),
      `${type}000001f8` +
        '00'.repeat(8) +
        'e4000000' +
        '01030008' +
        naa +
        '00'.repeat(24) +
        '0000000000000e00' +
        '00'.repeat(32),
    );
    t.notOk(token.subarray(96, 128).equals(Buffer.alloc(32)), '32 random bytes');
    t.ok(token.subarray(128).equals(Buffer.alloc(384)));
  }
});

void t.test('RECEIVE ROD TOKEN INFORMATION: how the last of an identifier went (SPC-6 §6.26)', async (t) => {
  const b = bench();
  const nexus = b.login();
  for (let at = 0; at < 64 * 512; at += 4096) b.master.mapped.add(at);
  const answer = (action: string, status: string, blocks: number, segments: number, more = 0): string =>
    [
      (0x20 + more).toString(16).padStart(8, '0') + action + status + '00'.repeat(9) + 'f1',
      blocks.toString(16).padStart(16, '0') + segments.toString(16).padStart(4, '0') + '00'.repeat(6),
    ].join('');
  const hex = async (): Promise<string> => (await information(b, nexus)).data.toString('hex');
  const none = await information(b, nexus);
  t.same([none.code, fieldOf(none)], ['05/24/00', 2], 'no such list');
  t.equal((await ask(b, nexus, 0, populating([[0, 3], [8, 4]]))).code, ''); // prettier-ignore
  const made = (await information(b, nexus)).data;
  const token = made.subarray(38);
  t.equal(made.toString('hex', 0, 38), answer('10', '01', 7, 2, 514) + '00000202' + '0000');
  t.equal(token.length, 512);
  t.equal((await information(b, nexus, LIST_ID, 100)).data.length, 100);
  t.equal((await write(b, nexus, token, [[100, 5]])).code, '');
  t.equal(await hex(), answer('11', '01', 5, 2) + '00000000');
  t.equal((await write(b, nexus, token, [[100, 8]])).code, '');
  t.equal(await hex(), answer('11', '03', 7, 2) + '00000000', 'with partial ROD token usage');
  t.equal((await write(b, nexus, token, [[100, 4]], 3)).code, '');
  t.equal(await hex(), answer('11', '01', 4, 1) + '00000000', 'the first range is passed over');
  b.master.held = true;
  const task = start(b, nexus, token, [[100, 8]]);
  await turns(2);
  t.equal(await hex(), answer('11', '11', 0, 0) + '00000000', 'in progress in the foreground');
  b.master.fail = MEDIUM.FAILED;
  b.master.release();
  t.equal((await task.whenEnded()).code, THIRD_PARTY_FAILURE);
  t.match(await hex(), new RegExp(`^${answer('11', '02', 0, 1)}`));
  const copies = (await b.run(nexus, 0, [0x84, 0, LIST_ID, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])).code;
  t.equal(copies, '05/24/00', 'an identifier of its own beside those of EXTENDED COPY');
});

void t.test(
  'Ranges may fill the unit and the token to the last block, in any order (SBC-5 §5.11.3)',
  async (t) => {
    const b = bench({ master: new MemoryMedium(4 * 1024 ** 3, { sparse: true }) });
    const nexus = b.login();
    const end = b.master.capacityBytes / 512;
    const outcome = async (list: Extents): Promise<unknown[]> => {
      const { code, sense } = await ask(b, nexus, 0, populating(list));
      if (code === '05/26/00') return [code, sense?.readUInt16BE(16)];
      return code === '' ? [] : [code, sense?.readUInt32BE(3)];
    };
    t.same(await outcome([[end - 8, 8]]), []);
    t.same(await outcome([[end - 7, 8]]), ['05/21/00', end - 7]);
    t.same(await outcome([[8, 8], [0, 8], [16, 8]]), []); // prettier-ignore
    t.same(await outcome([[8, 8], [0, 9]]), ['05/26/00', 32]); // prettier-ignore
    t.same(await outcome([[8, 8], [15, 8]]), ['05/26/00', 32]); // prettier-ignore
    t.same(await outcome([[0, 4_194_304]]), []);
    t.same(await outcome([[0, 4_194_300], [4_194_304, 5]]), ['05/26/00', 40]); // prettier-ignore
    t.same(await outcome(Array.from({ length: 64 }, (_, n): [number, number] => [n * 8, 8])), []);
    const far = populating([[0, 8]]);
    far.writeUInt32BE(1, 16);
    t.equal((await ask(b, nexus, 0, far)).code, '05/21/00', 'LBA 2^32');
    const odd = populating([[0, 8], [8, 8]]); // prettier-ignore
    odd.writeUInt16BE(24, 14);
    t.equal((await ask(b, nexus, 0, odd)).code, '05/26/00', 'a range and a half');
    const cut = populating([[0, 8]]);
    t.equal(
      (await b.run(nexus, 0, tokenCdb(POPULATE, 5, 31), cut)).code,
      '05/26/00',
      'of which a byte is missing',
    );
  },
);

void t.test(
  'Each list identifier has its own result, and none of them is one of EXTENDED COPY',
  async (t) => {
    const b = bench();
    const nexus = b.login();
    const list = (blocks: number): Buffer => populating([[0, blocks]]);
    for (const [id, blocks] of [
      [1, 3],
      [0xff, 5],
      [0xffff_ffff, 7],
    ] as const)
      t.equal((await b.run(nexus, 0, tokenCdb(POPULATE, id, 32), list(blocks))).code, '');
    const blocksOf = async (id: number): Promise<number> =>
      (await information(b, nexus, id)).data.readUInt32BE(20);
    t.same([await blocksOf(1), await blocksOf(0xff)], [3, 5]);
    for (const id of [1, 0xff]) {
      const status = await b.run(nexus, 0, [0x84, 0, id, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
      t.equal(status.code, '05/24/00');
    }
  },
);

void t.test('A type of ROD is asked for by RTV: any, or what the unit has (SPC-6 §5.17.6.2)', async (t) => {
  const b = bench();
  const nexus = b.login();
  const [ANY, UPON_REFERENCE, PERSISTENT] = [0, 0x0001_0000, 0x0080_0003];
  const asked = async (lun: number, type: number): Promise<string> =>
    (await ask(b, nexus, lun, populating([[0, 8]], 0, type))).code;
  t.same(await Promise.all([ANY, UPON_REFERENCE, PERSISTENT].map((type) => asked(0, type))), [
    '',
    '',
    '05/26/00',
  ]);
  t.same(await Promise.all([ANY, UPON_REFERENCE, PERSISTENT].map((type) => asked(1, type))), [
    '',
    '05/26/00',
    '',
  ]);
  const unasked = populating([[0, 8]], 0, PERSISTENT);
  unasked[2] = 0;
  t.equal((await ask(b, nexus, 0, unasked)).code, '', 'without RTV the field means nothing');
});

void t.test('A token lives for its time after each use, and no longer than its medium', async (t) => {
  const b = bench();
  const nexus = b.login();
  const { now } = Date;
  t.teardown(() => (Date.now = now));
  let atMs = now();
  Date.now = () => atMs;
  const made = async (lun: number, seconds: number): Promise<Buffer> => {
    t.equal((await ask(b, nexus, lun, populating([[0, 8]], seconds))).code, '');
    return (await information(b, nexus)).data.subarray(38);
  };
  const use = async (token: Buffer): Promise<string> => (await write(b, nexus, token, [[64, 8]])).code;
  const short = await made(0, 5);
  for (let n = 0; n < 3; n++) {
    atMs += 5000;
    t.equal(await use(short), '');
  }
  atMs += 5001;
  t.equal(await use(short), '05/23/07', 'TOKEN EXPIRED');
  const usual = await made(0, 0);
  atMs += 60_000;
  t.equal(await use(usual), '', '60 s if it does not say');
  const ofMaster = await made(0, 600);
  b.master.generation++;
  t.equal(await use(ofMaster), '', "the master's generation counts enables");
  const ofSlave = await made(1, 600);
  b.slave.present = false;
  t.equal(await use(ofSlave), '05/23/06', 'TOKEN REVOKED');
  b.slave.present = true;
  t.equal(await use(ofSlave), '05/23/04', 'for good');
});

void t.test(
  'WRITE USING TOKEN wants its whole header, and an offset within the token (SBC-5 §5.58)',
  async (t) => {
    const b = bench();
    const nexus = b.login();
    for (let lba = 0; lba < 8; lba++) b.master.bytes.fill(lba + 1, lba * 512, (lba + 1) * 512);
    b.master.mapped.add(0);
    const token = await populate(b, nexus, 0, [[0, 8]]);
    t.equal((await write(b, nexus, token, [[64, 8]], 7)).code, '');
    t.same([64, 65].map((lba) => b.master.bytes[lba * 512]), [8, 0], 'the last block of it'); // prettier-ignore
    const far = writing(token, [[64, 8]]);
    far.writeUInt32BE(1, 8);
    const beyond = await b.run(nexus, 0, tokenCdb(WRITE, LIST_ID, far.length), far);
    t.same([beyond.code, fieldOf(beyond)], ['05/26/00', 8], 'an offset of 2^32');
    const list = writing(token, []);
    const none = await b.run(nexus, 0, tokenCdb(WRITE, LIST_ID, list.length), list);
    t.same([none.code, fieldOf(none)], ['05/26/00', 534], 'without a range');
    const long = writing(token, [[64, 8]]);
    t.equal(
      (await b.run(nexus, 0, tokenCdb(WRITE, LIST_ID, 535), long)).code,
      '05/1a/00',
      'as much as the CDB says',
    );
    const sparse = b.login('iqn.2024-01.org.example:sparse', { luns: [{ ...BOTH[0], lun: 3 }] });
    const bySparse = await b.run(sparse, 3, tokenCdb(WRITE, LIST_ID, long.length), long);
    t.equal(bySparse.code, '', 'whose LUNs have gaps');
    const two = await write(b, nexus, zeroToken(), [[0, 8], [4, 8]]); // prettier-ignore
    t.same([two.code, fieldOf(two)], ['05/26/00', 552], 'ranges that overlap');
    t.equal((await write(b, nexus, zeroToken(), [[0, 8]], 1000)).code, '', 'zeros have no end');
    t.equal(b.master.bytes[0], 0);
    t.equal((await information(b, nexus)).data[5], 1);
  },
);

void t.test('A token is of no use to whom a reservation keeps from its blocks', async (t) => {
  const b = bench();
  const [nexus, other] = [b.login(), b.login('iqn.2024-01.org.example:other')];
  const token = await populate(b, nexus, 1, [[0, 8]]);
  const reserve = [0x16, 0, 0, 0, 0, 0];
  t.equal((await b.run(other, 1, reserve)).status, 0);
  t.equal((await write(b, nexus, token, [[64, 8]])).code, '05/23/04');
  t.equal((await b.run(other, 1, [0x17, 0, 0, 0, 0, 0])).status, 0);
  t.equal((await write(b, nexus, token, [[64, 8]])).code, '');
});

void t.test(
  'WRITE USING TOKEN stops where it is aborted, write-protected, or loses its medium',
  async (t) => {
    for (const change of ['aborted', 'protected', 'exchanged', 'master counted'] as const) {
      const b = bench();
      const nexus = b.login();
      b.slave.bytes.fill(7);
      for (let at = 0; at < b.slave.capacityBytes; at += 4096) b.slave.mapped.add(at);
      const token = await populate(b, nexus, 1, [[0, 8192]]);
      const task = start(b, nexus, token, [[0, 4096], [8192, 4096]]); // prettier-ignore
      while (b.master.bytes[0] === 0) await turns(1);
      if (change === 'aborted') b.target.detach(nexus, 'killed');
      else if (change === 'exchanged') b.slave.generation++;
      else if (change === 'master counted') b.master.generation++;
      else {
        const list = Buffer.from('00000000' + '0a0a' + '02100800' + '0000ffff0000', 'hex');
        t.equal((await b.run(nexus, 0, [0x15, 0x10, 0, 0, list.length, 0], list)).status, 0, 'SWP');
      }
      const { code, aborted } = await task.whenEnded();
      if (change === 'aborted') t.ok(aborted);
      else t.equal(code, change === 'master counted' ? '' : THIRD_PARTY_FAILURE, change);
      await turns(40);
      t.equal(b.master.bytes[(8192 + 4095) * 512], change === 'master counted' ? 7 : 0, change);
      if (change === 'exchanged') {
        const { data } = await information(b, nexus);
        t.ok(data[5] === 2 && data.readUInt32BE(20) < 4096, 'and says how far it came');
      }
    }
  },
);

void t.test('Zeros by token are holes, and stop where they are aborted', async (t) => {
  const b = bench({ master: new MemoryMedium(1 << 30, { sparse: true }) });
  const nexus = b.login();
  const unmapped: number[][] = [];
  const unmap = b.master.unmap.bind(b.master);
  b.master.unmap = (position, length) => {
    unmapped.push([position / 512, length / 512]);
    return unmap(position, length);
  };
  t.equal((await write(b, nexus, zeroToken(), [[8, 8], [100, 16]])).code, ''); // prettier-ignore
  t.same(unmapped, [[8, 8], [100, 16]]); // prettier-ignore
  const { data } = await information(b, nexus);
  t.same([data[5], data.readUInt32BE(20), data.readUInt16BE(24)], [1, 24, 2]);
  unmapped.length = 0;
  const task = start(b, nexus, zeroToken(), [[0, 1 << 20], [1 << 20, 1 << 20]]); // prettier-ignore
  while (unmapped.length < 2) await turns(1);
  b.target.detach(nexus, 'killed');
  t.ok((await task.whenEnded()).aborted);
  await turns(20);
  t.ok(unmapped.length < 16, `${unmapped.length} steps of 32`);
});

void t.test('A read of blocks that were copied by token finds them all, over every border', async (t) => {
  const b = bench();
  const nexus = b.login();
  for (let lba = 0; lba < 2000; lba++) b.slave.bytes.fill(1 + (lba % 251), lba * 512, (lba + 1) * 512);
  for (let at = 0; at < 2000 * 512; at += 4096) b.slave.mapped.add(at);
  const from: Extents = [[1000, 600], [0, 7], [64, 1], [100, 800]]; // prettier-ignore
  const to: Extents = [[5, 3], [4000, 1300], [16, 80]]; // prettier-ignore
  const token = await populate(b, nexus, 1, from);
  t.equal((await write(b, nexus, token, to, 25)).code, '');
  const blocks = from.flatMap(([lba, count]) => Array.from({ length: count }, (_, n) => lba + n)).slice(25);
  let next = 0;
  for (const [lba, count] of to) {
    const { data } = await b.run(nexus, 0, cdb10(0x28, lba, count));
    for (let n = 0; n < count; n++)
      if (data[n * 512] !== 1 + (blocks[next++] % 251)) t.fail(`block ${lba + n} is another`);
  }
  const { data } = await information(b, nexus);
  t.same([data[5], data.readUInt32BE(20)], [1, 1383]);
});
