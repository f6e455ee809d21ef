/** Parameter lists with mistakes and media that fail: what is answered, and that nothing has happened. */
import t from 'tap';
import { MEDIUM } from '../../src/scsi/medium.js';
import type { MediumDone, MediumResult } from '../../src/scsi/medium.js';
import type { Nexus } from '../../src/scsi/nexus.js';
import { bench, cdb10, cdb16, fieldOf, MemoryMedium, MemoryState } from './support.js';
import type { Bench, Outcome } from './support.js';

const CONFLICT = 0x18;
const A = 'iqn.2024-01.org.example:a';
const B = 'iqn.2024-01.org.example:b';
const C = 'iqn.2024-01.org.example:c';
/** PERSISTENT RESERVE OUT service actions (SPC-6 §6.17.2). */
const [REGISTER, RESERVE, RELEASE, PREEMPT, MOVE] = [0, 1, 2, 4, 7];

/** Code, or the status of a command without sense data. */
const ended = ({ code, status }: Outcome): string | number => (code === '' ? status : code);

function keysOnly(key: number, actionKey: number): Buffer {
  const list = Buffer.alloc(24);
  list.writeBigUInt64BE(BigInt(key), 0);
  list.writeBigUInt64BE(BigInt(actionKey), 8);
  return list;
}

async function out(
  { run }: Bench,
  nexus: Nexus,
  [action, type, key, actionKey]: [action: number, type: number, key: number, actionKey: number],
): Promise<string | number> {
  return ended(await run(nexus, 0, [0x5f, action, type, 0, 0, 0, 0, 0, 24, 0], keysOnly(key, actionKey)));
}

/** REGISTER AND MOVE's list: 24 bytes and a TransportID (SPC-6 §6.17.4). */
function moving(
  key: number,
  actionKey: number,
  { port = 1, name = '', unreg = false, header = 0x45 },
): Buffer {
  const id = Buffer.alloc(4 + Math.ceil((name.length + 1) / 4) * 4);
  id[0] = header;
  id.writeUInt16BE(id.length - 4, 2);
  id.write(name, 4);
  const list = Buffer.concat([keysOnly(key, actionKey), id]);
  list[17] = unreg ? 0x02 : 0;
  list.writeUInt16BE(port, 18);
  list.writeUInt32BE(id.length, 20);
  return list;
}

void t.test('PERSISTENT RESERVE OUT refuses what it cannot carry out (SPC-6 §6.17)', async (t) => {
  const b = bench();
  const a = b.login(A);
  const scope = await b.run(a, 0, [0x5f, RESERVE, 0x11, 0, 0, 0, 0, 0, 24, 0], keysOnly(0, 0));
  t.same([scope.code, fieldOf(scope)], ['05/24/00', 2], 'another scope than the logical unit');
  const type = await b.run(a, 0, [0x5f, RESERVE, 0x02, 0, 0, 0, 0, 0, 24, 0], keysOnly(0, 0));
  t.same([type.code, fieldOf(type)], ['05/24/00', 2], 'a type that there is not');
  for (const bytes of [23, 25])
    t.equal(
      (await b.run(a, 0, [0x5f, REGISTER, 0, 0, 0, 0, 0, 0, bytes, 0], Buffer.alloc(bytes))).code,
      '05/1a/00',
    );
  t.equal(
    (await b.run(a, 0, [0x5f, REGISTER, 0, 0, 0, 0, 0, 0, 24, 0], Buffer.alloc(20))).code,
    '05/1a/00',
    'less than the CDB says',
  );
  t.equal(await out(b, a, [REGISTER, 0, 0, 1]), 0);
  t.equal(await out(b, a, [RESERVE, 1, 1, 0]), 0);
  t.equal(await out(b, a, [RESERVE, 1, 1, 0]), 0, 'what it has already');
  t.equal(await out(b, a, [RESERVE, 3, 1, 0]), CONFLICT, 'another type');
});

void t.test(
  'REGISTER AND MOVE wants a holder, a key, a port and another initiator (SPC-6 §5.14.8)',
  async (t) => {
    const b = bench();
    const a = b.login(A);
    b.login(B);
    await out(b, a, [REGISTER, 0, 0, 1]);
    const [portA, portB] = [`${A},i,0x00023d000001`, `${B},i,0x00023d000001`];
    const move = async (list: Buffer, nexus = a): Promise<[string | number, number | undefined]> => {
      const outcome = await b.run(nexus, 0, [0x5f, MOVE, 1, 0, 0, 0, 0, 0, list.length, 0], list);
      return [ended(outcome), fieldOf(outcome)];
    };
    t.same(await move(moving(1, 2, { name: portB })), [CONFLICT, undefined], 'it holds no reservation');
    await out(b, a, [RESERVE, 1, 1, 0]);
    t.same(await move(moving(1, 0, { name: portB })), ['05/26/00', 8], 'a key of 0');
    t.same(await move(moving(1, 2, { name: portB, port: 9 })), ['05/26/00', 18], 'no such target port');
    t.same(await move(moving(1, 2, { name: '' })), ['05/26/00', 24], 'no name');
    t.same(await move(moving(1, 2, { name: portB, header: 0x06 })), ['05/26/00', 24], 'an initiator of SAS');
    t.same(await move(moving(1, 2, { name: portA })), ['05/26/00', 24], 'to itself');
    t.same(await move(moving(1, 2, { name: portB })), [0, undefined]);
    const keys = (await b.run(a, 0, [0x5e, 0, 0, 0, 0, 0, 0, 1, 0, 0])).data;
    t.equal(keys.readUInt32BE(4), 16, 'without UNREG both are registered');
    t.equal(
      (await b.run(a, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).status,
      CONFLICT,
      'and the other holds it',
    );
    const other = b.login(B);
    t.same(
      await move(moving(2, 3, { name: portA }), other),
      [0, undefined],
      'back, to one that is registered',
    );
    t.equal((await b.run(a, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).status, 0);
    t.equal(await out(b, a, [RELEASE, 1, 3, 0]), 0, 'its key is the new one');
    t.equal(await out(b, a, [RESERVE, 7, 3, 0]), 0);
    t.same(
      await move(moving(3, 2, { name: portB })),
      [CONFLICT, undefined],
      'all registrants hold it: nothing to move',
    );
  },
);

void t.test(
  'Preempting a reservation of all registrants takes it from all of them (SPC-6 §5.14.11.4)',
  async (t) => {
    const b = bench();
    const [a, other, third] = [b.login(A), b.login(B), b.login(C)];
    await out(b, a, [REGISTER, 0, 0, 1]);
    await out(b, other, [REGISTER, 0, 0, 2]);
    await out(b, third, [REGISTER, 0, 0, 2]);
    await out(b, a, [RESERVE, 8, 1, 0]);
    t.equal(await out(b, a, [PREEMPT, 1, 1, 2]), 0, 'by key: the registrations go, the reservation stays');
    t.equal((await b.run(other, 0, [0, 0, 0, 0, 0, 0])).code, '06/2a/05');
    t.equal((await b.run(a, 0, [0x5e, 1, 0, 0, 0, 0, 0, 1, 0, 0])).data[21], 8);
    await out(b, other, [REGISTER, 0, 0, 2]);
    t.equal(await out(b, other, [PREEMPT, 5, 2, 0]), 0, 'key 0: all of it');
    t.equal((await b.run(a, 0, [0, 0, 0, 0, 0, 0])).code, '06/2a/05');
    const { data } = await b.run(other, 0, [0x5e, 1, 0, 0, 0, 0, 0, 1, 0, 0]);
    t.same([data[21], data.readUInt32BE(12)], [5, 2], 'its own, of the new type');
    await out(b, a, [REGISTER, 0, 0, 1]);
    t.equal((await b.run(third, 0, [0, 0, 0, 0, 0, 0])).code, '06/2a/05');
    await out(b, third, [REGISTER, 0, 0, 3]);
    t.equal(await out(b, a, [PREEMPT, 1, 1, 2]), 0, 'a registrants only reservation becomes another');
    t.equal((await b.run(third, 0, [0, 0, 0, 0, 0, 0])).code, '06/2a/04', 'who stays registered is told');
    t.equal(await out(b, a, [RELEASE, 1, 1, 0]), 0);
    t.equal((await b.run(third, 0, [0, 0, 0, 0, 0, 0])).code, '', 'nobody else lost anything by that');
  },
);

void t.test('A saved record of reservations that does not fit is refused as a whole, and said', (t) => {
  for (const record of [
    'null',
    '[]',
    '{"type":3,"registrations":[null]}',
    '{"type":3,"holder":0,"registrations":1}',
  ]) {
    const state = new MemoryState();
    state.records.set('scsi.reservations.master', Buffer.from(record));
    const b = bench({ state });
    t.equal(b.warnings.length, 1, record);
  }
  t.end();
});

void t.test('MODE SELECT takes a list as a whole or not at all (SPC-6 §6.11, SBC-5 §6.5.2)', async (t) => {
  const b = bench();
  const nexus = b.login();
  const caching = (await b.run(nexus, 0, [0x5a, 0x08, 0x08, 0, 0, 0, 0, 0, 64, 0])).data.subarray(8);
  const select = async (list: Buffer, long = true): Promise<[string, number | undefined]> => {
    const cdb = long ? [0x55, 0x10, 0, 0, 0, 0, 0, 0, list.length, 0] : [0x15, 0x10, 0, 0, list.length, 0];
    const outcome = await b.run(nexus, 0, cdb, list);
    return [outcome.code, fieldOf(outcome)];
  };
  const headed = (descriptor: Buffer, ...pages: Buffer[]): Buffer => {
    const header = Buffer.alloc(8);
    header[4] = descriptor.length === 16 ? 1 : 0;
    header.writeUInt16BE(descriptor.length, 6);
    return Buffer.concat([header, descriptor, ...pages]);
  };
  const blocks = b.master.capacityBytes / 512;
  const short = (count: number, length: number): Buffer => {
    const descriptor = Buffer.alloc(8);
    descriptor.writeUInt32BE(count, 0);
    descriptor.writeUInt32BE(length, 4);
    return descriptor;
  };
  const long = (count: bigint, length: number): Buffer => {
    const descriptor = Buffer.alloc(16);
    descriptor.writeBigUInt64BE(count, 0);
    descriptor.writeUInt32BE(length, 12);
    return descriptor;
  };
  const nothing = Buffer.alloc(0);
  for (const [what, descriptor] of [
    ['all blocks', short(blocks, 512)],
    ['0 for as they are', short(0, 0)],
    ['the highest number', short(0xffff_ffff, 512)],
    ['all blocks, in a long descriptor', long(BigInt(blocks), 512)],
    ['the highest number of 64 bits', long(0xffff_ffff_ffff_ffffn, 512)],
  ] as const)
    t.same(await select(headed(descriptor, caching)), ['', undefined], what);
  for (const [what, list, code, byte] of [
    ['fewer blocks', headed(short(blocks - 8, 512)), '05/26/00', 8],
    ['blocks of 4,096 bytes', headed(short(blocks, 4096)), '05/26/00', 8],
    ['more than there are, in a long descriptor', headed(long(0x1_0000_0000n, 512)), '05/26/00', 8],
    ['a descriptor of another length', headed(Buffer.alloc(12)), '05/26/00', 6],
    ['a descriptor that is not there', headed(short(blocks, 512)).subarray(0, 12), '05/1a/00', undefined],
    ['no header', Buffer.alloc(7), '05/1a/00', undefined],
    ['a page of one byte', headed(nothing, caching.subarray(0, 1)), '05/1a/00', undefined],
    ['a page cut off', headed(nothing, caching.subarray(0, 10)), '05/1a/00', undefined],
    ['a subpage cut off', headed(nothing, Buffer.from([0x4a, 0x01, 0])), '05/1a/00', undefined],
    [
      'a subpage with less than it says',
      headed(nothing, Buffer.from([0x4a, 0x01, 0, 28, 0])),
      '05/1a/00',
      undefined,
    ],
    ['a page that it has not', headed(nothing, Buffer.from([0x3e, 2, 0, 0])), '05/26/00', 8],
    ['a page of another length', headed(nothing, Buffer.from([0x08, 2, 0, 0])), '05/26/00', 9],
  ] as const)
    t.same(await select(list), [code, byte], what);
  t.same(await select(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0]), false), ['05/26/00', 3], 'MODE SELECT (6)');
  t.equal(
    (await b.run(nexus, 0, [0x55, 0x00, 0, 0, 0, 0, 0, 0, 8, 0], Buffer.alloc(8))).code,
    '05/24/00',
    'PF=0',
  );
  const off = Buffer.from(caching);
  off[2] &= ~0x04;
  b.master.fail = MEDIUM.FAILED;
  t.same(
    await select(headed(nothing, off)),
    ['04/3e/01', undefined],
    'the cache cannot be written as it is switched off',
  );
  b.master.fail = MEDIUM.OK;
  const changeable = (await b.run(nexus, 0, [0x5a, 0, 0x48, 0, 0, 0, 0, 0, 64, 0])).data.subarray(8, 16);
  t.ok(changeable.equals(Buffer.alloc(8)), 'nothing of the block descriptor is changeable');
});

void t.test(
  'A saved record of mode pages that is too short keeps the defaults of what is missing',
  async (t) => {
    const state = new MemoryState();
    state.records.set('scsi.mode.master', Buffer.from([0x01, 0x0a]));
    const b = bench({ state });
    const nexus = b.login();
    const fresh = bench();
    const pages = [0x5a, 0x08, 0x3f, 0, 0, 0, 0, 1, 0, 0];
    t.ok((await b.run(nexus, 0, pages)).data.equals((await fresh.run(fresh.login(), 0, pages)).data));
    t.match(b.warnings[0]?.message, /does not fit this version/);
  },
);

function unmapping(extents: [lba: number, blocks: number][]): Buffer {
  const list = Buffer.alloc(8 + extents.length * 16);
  list.writeUInt16BE(list.length - 2, 0);
  list.writeUInt16BE(list.length - 8, 2);
  extents.forEach(([lba, blocks], index) => {
    list.writeBigUInt64BE(BigInt(lba), 8 + index * 16);
    list.writeUInt32BE(blocks, 16 + index * 16);
  });
  return list;
}

void t.test('UNMAP is bounded, waits for its range, and tells when it failed (SBC-5 §5.36)', async (t) => {
  const b = bench({ master: new MemoryMedium(1024 ** 3, { sparse: true }) });
  const nexus = b.login();
  const unmap = (list: Buffer): [number[], Buffer] => [
    [0x42, 0, 0, 0, 0, 0, 0, list.length >>> 8, list.length & 255, 0],
    list,
  ];
  const many = await b.run(nexus, 0, ...unmap(unmapping(Array.from({ length: 257 }, (_, i) => [i * 8, 8]))));
  t.same([many.code, fieldOf(many)], ['05/26/00', 2], '257 descriptors');
  const large = await b.run(
    nexus,
    0,
    ...unmap(
      unmapping([
        [0, 1_048_576],
        [1_048_576, 1],
      ]),
    ),
  );
  t.same([large.code, fieldOf(large)], ['05/26/00', 32], 'more blocks than one command unmaps');
  t.equal(
    (
      await b.run(
        nexus,
        0,
        ...unmap(
          unmapping([
            [8, 0],
            [16, 8],
          ]),
        ),
      )
    ).status,
    0,
    'a range of no blocks is none',
  );
  t.equal((await b.run(nexus, 0, ...unmap(Buffer.alloc(4)))).code, '05/1a/00');
  b.master.mapped.add(8 * 512);
  b.master.held = true;
  const task = b.start(nexus, 0, ...unmap(unmapping([[8, 8]])));
  await new Promise((resolve) => setTimeout(resolve, 5));
  t.notOk(task.ended);
  b.master.release();
  t.equal((await task.whenEnded()).status, 0);
  t.notOk(b.master.mapped.has(8 * 512));
  b.master.fail = MEDIUM.FAILED;
  t.equal((await b.run(nexus, 0, ...unmap(unmapping([[8, 8]])))).code, '04/3e/01');
});

/** Fails what it is told to, each operation by itself. */
class Failing extends MemoryMedium {
  failsWrite = false;
  failsFlush = false;
  waits = false;

  override write(position: number, buffer: Buffer, offset: number, length: number): MediumResult {
    if (this.failsWrite) return MEDIUM.FAILED;
    return this.waits ? MEDIUM.PENDING : super.write(position, buffer, offset, length);
  }

  override flush(done: MediumDone): void {
    if (this.failsFlush) setImmediate(() => done(MEDIUM.FAILED));
    else super.flush(done);
  }
}

void t.test('Whatever step of a command fails, its end says so (SBC-5 §4.18)', async (t) => {
  const master = new Failing(1 << 20);
  const b = bench({ master });
  const nexus = b.login();
  const block = Buffer.alloc(512, 7);
  const pair = Buffer.concat([Buffer.alloc(512), block]);
  const compareAndWrite = cdb16(0x89, 8, 0);
  compareAndWrite[13] = 1;
  const run = async (cdb: number[] | Buffer, data?: Buffer): Promise<string> =>
    (await b.run(nexus, 0, cdb, data)).code;

  master.fail = MEDIUM.READ_ERROR;
  t.equal(await run(compareAndWrite, pair), '03/11/00', 'COMPARE AND WRITE reads first');
  t.equal(await run(cdb16(0x8b, 8, 1), block), '03/11/00', 'ORWRITE, too');
  t.equal(await run(cdb10(0x2f, 8, 1, 0x02), block), '03/11/00', 'VERIFY');
  master.fail = MEDIUM.OK;

  master.failsWrite = true;
  t.equal(await run(compareAndWrite, pair), '04/3e/01');
  t.equal(await run(cdb16(0x8b, 8, 1), block), '04/3e/01');
  t.equal(await run(cdb10(0x2e, 8, 1), block), '04/3e/01', 'WRITE AND VERIFY');
  t.equal(await run(cdb10(0x41, 8, 1), block), '04/3e/01', 'WRITE SAME');
  master.failsWrite = false;

  master.waits = true;
  t.equal(await run(compareAndWrite, pair), '04/44/00', 'a medium that breaks its word');
  t.match(b.warnings.at(-1)?.message, /refused a write that it had allowed/);
  t.match(b.warnings.at(-1)?.fields, { unit: 'master', position: 4096, bytes: 512 });
  t.equal(await run(cdb10(0x2e, 8, 1), block), '', 'WRITE AND VERIFY waits');
  t.equal(await run(cdb10(0x2e, 8, 1, 0x02), block), '', 'BYTCHK, too');
  t.equal(master.bytes[8 * 512], 7);
  master.fail = MEDIUM.FAILED;
  t.equal(await run(cdb10(0x2e, 8, 1), block), '04/3e/01', 'and tells when it failed later');
  t.equal(await run(cdb10(0x41, 8, 1), block), '04/3e/01', 'WRITE SAME, too');
  master.fail = MEDIUM.OK;
  master.waits = false;

  master.failsFlush = true;
  t.equal(await run(cdb10(0x28, 8, 1, 0x08)), '04/3e/01', 'READ with FUA');
  t.equal(await run(cdb10(0x2e, 8, 1), block), '04/3e/01', 'WRITE AND VERIFY');
  t.equal(await run(cdb10(0x35, 0, 0, 0x02)), '', 'SYNCHRONIZE CACHE with IMMED has ended by then');
  await new Promise(setImmediate);
  t.match(b.warnings.at(-1)?.message, /could not be written after SYNCHRONIZE CACHE/);
  master.failsFlush = false;

  t.equal(await run(cdb10(0x28, 8, 1, 0x08)), '', 'and all is well again');
});

void t.test('Commands over no blocks do nothing and are good (SBC-5 §5)', async (t) => {
  const b = bench();
  const nexus = b.login();
  for (const [name, cdb] of [
    ['COMPARE AND WRITE', cdb16(0x89, 8, 0)],
    ['ORWRITE', cdb16(0x8b, 8, 0)],
    ['WRITE ATOMIC', cdb16(0x9c, 8, 0)],
    ['WRITE AND VERIFY', cdb10(0x2e, 8, 0)],
    ['VERIFY', cdb10(0x2f, 8, 0, 0x02)],
    ['UNMAP', [0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0]],
    ['SET TARGET PORT GROUPS', [0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]],
  ] as const) {
    const { code, status } = await b.run(nexus, 0, Buffer.from(cdb), Buffer.alloc(0));
    t.same([code, status], ['', 0], name);
  }
  t.equal(b.master.mapped.size, 0);
});

void t.test(
  'VERIFY compares what has come, and wants a whole block to compare all with (SBC-5 §5.38)',
  async (t) => {
    const b = bench();
    const nexus = b.login();
    b.master.bytes.fill(9, 8 * 512, 16 * 512);
    const block = Buffer.alloc(512, 9);
    const verify = async (flags: number, blocks: number, data: Buffer): Promise<Outcome> =>
      await b.run(nexus, 0, cdb10(0x2f, 8, blocks, flags), data);
    t.equal((await verify(0x06, 8, block)).code, '', 'each block is that one');
    const worse = await verify(0x06, 16, block);
    t.same([worse.code, worse.sense?.readUInt32BE(3)], ['0e/1d/00', 8 * 512], 'the ninth is not');
    t.equal((await verify(0x06, 8, block.subarray(0, 511))).code, '05/0e/03', 'no whole block');
    t.equal((await verify(0x02, 8, block)).code, '', 'one block of eight has come');
    t.equal((await verify(0x02, 8, Buffer.alloc(100))).code, '', 'less than one');
    t.equal((await verify(0x04, 8, block)).code, '05/24/00', 'BYTCHK 10b');
  },
);
