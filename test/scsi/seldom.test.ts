/** What happens seldom: tables that are full, media that fail or change in the midst, and what is asked by few. */
import t from 'tap';
import type { MediumDone, MediumResult } from '../../src/scsi/medium.js';
import { MEDIUM } from '../../src/scsi/medium.js';
import type { Nexus } from '../../src/scsi/nexus.js';
import { TASK_MANAGEMENT, TASK_MANAGEMENT_RESPONSE } from '../../src/scsi/port.js';
import { parseTransportIds, transportId } from '../../src/scsi/commands/transport-id.js';
import { BOTH, bench, cdb10, cdb16, fieldOf, MemoryMedium, MemoryState } from './support.js';
import type { Bench, Outcome } from './support.js';

const A = 'iqn.2024-01.org.example:a';
const B = 'iqn.2024-01.org.example:b';
const CONFLICT = 0x18;
const TUR = [0, 0, 0, 0, 0, 0];
/** FORMER_MAX of src/scsi/target.ts. */
const FORMER = 256;

const turns = async (count: number): Promise<void> => {
  for (let n = 0; n < count; n++) await new Promise(setImmediate);
};

function manage(
  { target }: Bench,
  nexus: Nexus,
  code: number,
): Promise<{ response: number; additional: number }> {
  return new Promise((resolve) => {
    target.manage({ nexus, function: code, lunHigh: 0, lunLow: 0, task: undefined }, (response, additional) =>
      resolve({ response, additional }),
    );
  });
}

/** PERSISTENT RESERVE OUT with its 24 byte list; `flags` is its byte 20. */
async function reserveOut(
  { run }: Bench,
  nexus: Nexus,
  [action, type, key, actionKey]: [action: number, type: number, key: number, actionKey: number],
  flags = 0,
): Promise<string | number> {
  const list = Buffer.alloc(24);
  list.writeBigUInt64BE(BigInt(key), 0);
  list.writeBigUInt64BE(BigInt(actionKey), 8);
  list[20] = flags;
  const { code, status } = await run(nexus, 0, [0x5f, action, type, 0, 0, 0, 0, 0, 24, 0], list);
  return code === '' ? status : code;
}
const [REGISTER, RESERVE] = [0, 1];
const [APTPL, ALL_TG_PT] = [0x01, 0x04];

void t.test('The nexuses that were lost are remembered up to a bound, the latest ones', async (t) => {
  const b = bench();
  const first = b.login(A);
  b.target.detach(first, 'connection-lost');
  for (let n = 0; n < FORMER; n++) b.target.detach(b.login(`${B}${n}`), 'connection-lost');
  t.equal(
    (await b.run(b.login(A, { fresh: true }), 0, TUR)).code,
    '06/29/00',
    'forgotten: it hears power on, which says everything',
  );
  t.equal((await b.run(b.login(`${B}${FORMER - 1}`, { fresh: true }), 0, TUR)).code, '06/29/07');
});

void t.test(
  'QUERY ASYNCHRONOUS EVENT tells the first unit attention, and if more follow (SAM-6 §7.9)',
  async (t) => {
    const b = bench();
    const a = b.login(A);
    const query = (): Promise<{ response: number; additional: number }> =>
      manage(b, a, TASK_MANAGEMENT.QUERY_ASYNCHRONOUS_EVENT);
    const { FUNCTION_COMPLETE, FUNCTION_SUCCEEDED } = TASK_MANAGEMENT_RESPONSE;
    t.same(await query(), { response: FUNCTION_COMPLETE, additional: 0 });
    b.target.capacityChanged();
    t.same(
      await query(),
      { response: FUNCTION_SUCCEEDED, additional: 0x16_2a09 },
      'CAPACITY DATA HAS CHANGED',
    );
    b.target.masterChanged();
    t.equal((await query()).additional & 0xf0_0000, 0x20_0000, 'UADE: more than one');
  },
);

void t.test(
  'I_T NEXUS RESET ends what the nexus held; one without LUNs is at once done (SAM-6 §6.3.5)',
  async (t) => {
    const b = bench();
    const [a, other] = [b.login(A), b.login(B)];
    const RESERVE_6 = [0x16, 0, 0, 0, 0, 0];
    t.equal((await b.run(a, 0, RESERVE_6)).status, 0);
    t.equal((await b.run(other, 0, RESERVE_6)).status, CONFLICT);
    const complete = { response: TASK_MANAGEMENT_RESPONSE.FUNCTION_COMPLETE, additional: 0 };
    t.same(await manage(b, a, TASK_MANAGEMENT.I_T_NEXUS_RESET), complete);
    t.equal((await b.run(other, 0, RESERVE_6)).status, 0);
    t.equal((await b.run(a, 0, TUR)).code, '06/29/07');
    const blind = b.login('iqn.2024-01.org.example:blind', { luns: [] });
    t.same(await manage(b, blind, TASK_MANAGEMENT.I_T_NEXUS_RESET), complete);
  },
);

void t.test('A LUN field in an addressing method that there is not names nothing (SAM-6 §4.7)', async (t) => {
  const b = bench();
  const a = b.login(A);
  const at = async (lunHigh: number, lunLow = 0, nexus = a, cdb = TUR): Promise<string> => {
    const task = b.start(nexus, 0, cdb, undefined, (given) => {
      given.lunHigh = lunHigh;
      given.lunLow = lunLow;
    });
    return (await task.whenEnded()).code;
  };
  t.equal(await at(0x4001_0000), '', 'flat space: LUN 1');
  for (const lunHigh of [0x8000_0000, 0xc000_0000 | 0, 0x0100_0000]) t.equal(await at(lunHigh), '05/25/00');
  t.equal(await at(0x0000_0001), '05/25/00', 'a second level');
  t.equal(await at(0, 1), '05/25/00', 'a fourth');
  t.equal(await at(1, 1), '05/25/00');
  const blind = b.login(B, { luns: [] });
  const REPORT_LUNS = [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0];
  t.equal(await at(0x4000_0000, 0, blind, REPORT_LUNS), '', 'LUN 0 in flat space');
  t.equal(await at(0, 1, blind, REPORT_LUNS), '05/25/00');
  const luns = await b.run(blind, 0, [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 15, 0, 0]);
  t.equal(luns.code, '05/24/00', 'REPORT LUNS without a LUN 0: no room for its header (SPC-6 §6.34)');
  t.equal((await b.run(blind, 0, [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0])).data.length, 8);
});

void t.test(
  'A port that is unavailable refuses the medium, and takes MODE SENSE (SPC-6 §5.18.2.5)',
  async (t) => {
    const b = bench({ accessStates: new Map([[1, 'unavailable' as const]]) });
    const a = b.login(A);
    t.equal((await b.run(a, 0, cdb10(0x28, 0, 1))).code, '02/04/0c');
    t.equal((await b.run(a, 0, [0x1a, 0, 0x3f, 0, 255, 0])).status, 0);
  },
);

void t.test(
  'The reservations of two ports of one initiator are two; a registrant may RESERVE (6) (SPC-6 §5.14.3)',
  async (t) => {
    const b = bench();
    const [one, two, other] = [b.login(A), b.login(A, { tag: 2 }), b.login(B)];
    t.equal(await reserveOut(b, one, [REGISTER, 0, 0, 1]), 0);
    t.equal(await reserveOut(b, two, [REGISTER, 0, 0, 2], ALL_TG_PT), 0, 'the first is registered already');
    const keys = (await b.run(one, 0, [0x5e, 0, 0, 0, 0, 0, 0, 1, 0, 0])).data;
    t.same([keys.readUInt32BE(4), keys.readUInt32BE(12), keys.readUInt32BE(20)], [16, 1, 2]);
    t.equal(await reserveOut(b, one, [RESERVE, 6, 1, 0]), 0, 'exclusive access, registrants only');
    const [RESERVE_6, RELEASE_6] = [0x16, 0x17].map((opcode) => [opcode, 0, 0, 0, 0, 0]);
    for (const cdb of [RESERVE_6, RELEASE_6]) {
      t.equal((await b.run(one, 0, cdb)).status, 0, 'the holder');
      t.equal((await b.run(two, 0, cdb)).status, 0, 'a registrant');
      t.equal((await b.run(other, 0, cdb)).status, CONFLICT, 'a stranger');
    }
  },
);

void t.test(
  'A registration without a reservation outlives a restart, and REPORT CAPABILITIES tells of it',
  async (t) => {
    const state = new MemoryState();
    const before = bench({ state });
    const a = before.login(A);
    const capabilities = async (b: Bench, nexus: Nexus): Promise<number> =>
      (await b.run(nexus, 0, [0x5e, 2, 0, 0, 0, 0, 0, 1, 0, 0])).data[3] & 0x01;
    t.equal(await capabilities(before, a), 0);
    t.equal(await reserveOut(before, a, [REGISTER, 0, 0, 7], APTPL), 0);
    t.equal(await capabilities(before, a), 1, 'PTPL_A');
    const after = bench({ state });
    const again = after.login(A);
    t.equal(await capabilities(after, again), 1);
    t.equal(
      (await after.run(again, 0, [0x5e, 1, 0, 0, 0, 0, 0, 1, 0, 0])).data.readUInt32BE(4),
      0,
      'none holds it',
    );
    t.equal(await reserveOut(after, again, [RESERVE, 1, 7, 0]), 0, 'its key is known');

    const [[key, record]] = [...state.records].filter(([name]) => name.includes('reserv'));
    const saved = JSON.parse(record.toString()) as { registrations: unknown[] };
    saved.registrations.push(null);
    state.records.set(key, Buffer.from(JSON.stringify(saved)));
    const damaged = bench({ state });
    t.equal(await capabilities(damaged, damaged.login(A)), 0);
    t.match(damaged.warnings[0]?.message, /make no sense/);
  },
);

void t.test('REGISTER AND MOVE into a full table moves nothing (SPC-6 §5.14.8)', async (t) => {
  const b = bench();
  const a = b.login(A);
  t.equal(await reserveOut(b, a, [REGISTER, 0, 0, 1]), 0);
  t.equal(await reserveOut(b, a, [RESERVE, 1, 1, 0]), 0);
  for (let n = 1; n < 64; n++) t.equal(await reserveOut(b, b.login(`${B}${n}`), [REGISTER, 0, 0, 9]), 0);
  const id = transportId('iqn.2024-01.org.example:new,i,0x00023d000001');
  const list = Buffer.concat([Buffer.alloc(24), id]);
  list.writeBigUInt64BE(1n, 0);
  list.writeBigUInt64BE(2n, 8);
  list.writeUInt16BE(1, 18);
  list.writeUInt32BE(id.length, 20);
  t.equal((await b.run(a, 0, [0x5f, 7, 1, 0, 0, 0, 0, 0, list.length, 0], list)).code, '05/55/04');
  t.equal(
    (await b.run(a, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).status,
    0,
    'it holds the reservation still',
  );
});

void t.test('TransportIDs: by device or by port; a damaged list is none (SPC-6 §7.6.4.6)', (t) => {
  const names = [A, `${A},i,0x00023d000001`];
  const list = Buffer.concat(names.map(transportId));
  t.same(
    names.map((name) => transportId(name)[0]),
    [0x05, 0x45],
  );
  t.same(parseTransportIds(list, list.length), names);
  t.equal(parseTransportIds(list, list.length + 1), undefined, 'longer than what has come');
  t.equal(parseTransportIds(list, 0), undefined, 'empty');
  t.equal(parseTransportIds(list, transportId(A).length + 3), undefined, 'ends in a header');
  t.equal(parseTransportIds(list, list.length - 4), undefined, 'ends in a name');
  t.equal(parseTransportIds(list.subarray(0, -8), list.length), undefined, 'of which a part has come');
  t.equal(parseTransportIds(Buffer.concat([Buffer.from([0x05, 0, 0, 20]), Buffer.alloc(20)]), 24), undefined);
  const long = (bytes: number): Buffer =>
    Buffer.concat([Buffer.from([0x05, 0, bytes >>> 8, bytes & 255]), Buffer.alloc(bytes, 'a')]);
  t.same(parseTransportIds(long(300), 304), ['a'.repeat(300)]);
  t.equal(parseTransportIds(long(304), 308), undefined, 'longer than any name');
  const full = Buffer.concat([Buffer.from([0x05, 0, 0, 20]), Buffer.from('iqn.2024-01.org.exam')]);
  t.same(parseTransportIds(full, 24), ['iqn.2024-01.org.exam'], 'a name without room for its zero byte');
  t.end();
});

void t.test('A length that is too long is named where its CDB has it (SBC-5 §5)', async (t) => {
  const b = bench({ master: new MemoryMedium(1 << 30, { sparse: true }) });
  const a = b.login(A);
  const twelve = Buffer.alloc(12);
  twelve[0] = 0xa8;
  twelve.writeUInt32BE(16_385, 6);
  for (const [cdb, at] of [
    [cdb10(0x28, 0, 16_385), 7],
    [twelve, 6],
    [cdb16(0x88, 0, 16_385), 10],
  ] as const) {
    const outcome = await b.run(a, 0, Buffer.from(cdb));
    t.same([outcome.code, fieldOf(outcome), outcome.ends], ['05/24/00', at, 1]);
  }
  t.equal((await b.run(a, 0, cdb16(0x88, 0, 16_384), undefined, 512)).status, 0, 'as long as may be');
});

void t.test('A range beyond the end is told by its first block, once (SBC-5 §4.18.1)', async (t) => {
  const b = bench();
  const a = b.login(A);
  const end = b.master.capacityBytes / 512;
  const { code, sense, ends, data } = await b.run(a, 0, cdb10(0x28, end - 1, 2));
  t.same([code, sense?.[0], sense?.readUInt32BE(3), ends, data.length], ['05/21/00', 0xf0, end - 1, 1, 0]);
  const six = await b.run(a, 0, [0x08, 0, 0, 0, 0, 0]);
  t.equal(six.data.length, 256 * 512, 'READ (6) of no blocks is of 256');
});

void t.test('A piece that fails ends the command once, and nothing is written behind it', async (t) => {
  const b = bench();
  const a = b.login(A);
  b.master.fail = MEDIUM.READ_ERROR;
  const read = await b.run(a, 0, cdb10(0x28, 0, 8));
  t.same([read.code, read.ends, read.data.length], ['03/11/00', 1, 0]);

  b.master.fail = MEDIUM.FAILED;
  const task = b.start(a, 0, cdb10(0x2a, 0, 16), Buffer.alloc(8192, 1), (given) => {
    given.chunkBytes = 4096;
    given.withheld = true;
  });
  const { master } = b;
  const write = master.write.bind(master);
  let writes = 0;
  master.write = (...args) => {
    const result = write(...args);
    if (++writes === 1) master.fail = MEDIUM.OK;
    return result;
  };
  task.deliver();
  const outcome = await task.whenEnded();
  t.same([outcome.code, outcome.ends, writes], ['04/3e/01', 1, 1]);
  t.notOk(master.bytes.includes(1));
});

void t.test('A parameter list that comes shorter than it was announced is not carried out', async (t) => {
  const b = bench();
  const a = b.login(A);
  const cdb = cdb16(0x8b, 8, 1);
  const task = b.start(a, 0, cdb, Buffer.alloc(100, 0xff), (given) => (given.expectedDataOut = 512));
  t.equal((await task.whenEnded()).code, '05/0e/03');
  t.notOk(b.master.bytes.includes(0xff));
});

void t.test('COMPARE AND WRITE with FUA is durable before GOOD (SBC-5 §5.3)', async (t) => {
  const b = bench();
  const a = b.login(A);
  const write = async (flags: number): Promise<void> => {
    const cdb = cdb16(0x89, 8, 0, flags);
    cdb[13] = 1;
    const pair = Buffer.concat([b.master.bytes.subarray(8 * 512, 9 * 512), Buffer.alloc(512, 3)]);
    t.equal((await b.run(a, 0, cdb, pair)).status, 0);
  };
  await write(0);
  t.equal(b.master.flushes, 0);
  await write(0x08);
  t.equal(b.master.flushes, 1);
});

void t.test(
  'COMPARE AND WRITE tells where it differs, and counts what it has written (SBC-5 §5.3)',
  async (t) => {
    const b = bench();
    const a = b.login(A);
    const statistics = a.paths[0]?.unit.statistics;
    const counted = (): unknown[] => [statistics?.writeOps, statistics?.writeBytes, statistics?.flushes];
    const compare = (blocks: number, list: Buffer, flags = 0): Promise<Outcome> => {
      const cdb = cdb16(0x89, 8, 0, flags);
      cdb[13] = blocks;
      return b.run(a, 0, cdb, list);
    };
    const wrong = Buffer.alloc(2048);
    wrong[700] = 1;
    const { code, sense } = await compare(2, wrong);
    t.same([code, sense?.[0], sense?.readUInt32BE(3)], ['0e/1d/00', 0xf0, 700]);
    t.equal((await compare(0, Buffer.alloc(0))).status, 0);
    t.equal((await b.run(a, 0, cdb16(0x8b, 8, 0), Buffer.alloc(0))).status, 0, 'ORWRITE');
    t.same(counted(), [0, 0, 0], 'nothing was written');
    t.equal((await compare(2, Buffer.alloc(2048), 0x08)).status, 0);
    t.same(counted(), [1, 1024, 1]);
  },
);

void t.test('A held range that fails while a command waits for it ends the command', async (t) => {
  const b = bench();
  const a = b.login(A);
  const cdb = cdb16(0x89, 8, 0);
  cdb[13] = 1;
  const pair = Buffer.concat([Buffer.alloc(512), Buffer.alloc(512, 3)]);
  b.master.held = true;
  const waiting = b.start(a, 0, cdb, pair);
  await turns(2);
  t.notOk(waiting.ended);
  b.master.fail = MEDIUM.FAILED;
  b.master.release();
  t.equal((await waiting.whenEnded()).code, '04/3e/01');
  t.equal((await b.run(a, 0, cdb, pair)).code, '04/3e/01', 'and the next one does not begin');
});

/** Holds an unmap back once, and then answers `next` when it is asked about the range. */
class HoldsUnmap extends MemoryMedium {
  next: MediumResult = MEDIUM.OK;
  private first = true;

  override unmap(position: number, length: number): MediumResult {
    if (!this.first) return super.unmap(position, length);
    this.first = false;
    return MEDIUM.PENDING;
  }

  override prepareWrite(position: number, length: number, done: MediumDone): MediumResult {
    return this.first ? super.prepareWrite(position, length, done) : this.next;
  }
}

void t.test(
  'A hole that has to wait is made when the range is free at once, or the failure is told',
  async (t) => {
    for (const [next, code] of [
      [MEDIUM.OK, ''],
      [MEDIUM.FAILED, '04/3e/01'],
    ] as const) {
      const master = new HoldsUnmap(1 << 20);
      master.next = next;
      master.mapped.add(0);
      const b = bench({ master });
      t.equal((await b.run(b.login(A), 0, cdb10(0x41, 0, 8, 0x08), Buffer.alloc(512))).code, code);
      t.equal(master.mapped.has(0), code !== '');
    }
  },
);

/** UNMAP with its parameter list; `dataBytes` is BLOCK DESCRIPTOR DATA LENGTH. */
function unmapping(
  extents: [lba: number, blocks: number][],
  dataBytes = extents.length * 16,
): [number[], Buffer] {
  const list = Buffer.alloc(8 + extents.length * 16);
  list.writeUInt16BE(dataBytes, 2);
  extents.forEach(([lba, blocks], index) => {
    list.writeBigUInt64BE(BigInt(lba), 8 + index * 16);
    list.writeUInt32BE(blocks, 16 + index * 16);
  });
  return [[0x42, 0, 0, 0, 0, 0, 0, list.length >>> 8, list.length & 255, 0], list];
}

void t.test(
  'UNMAP carries out the descriptors that its list says and has, each once (SBC-5 §5.36)',
  async (t) => {
    const b = bench({ master: new MemoryMedium(1 << 30, { sparse: true }) });
    const a = b.login(A);
    const { master } = b;
    const end = master.capacityBytes / 512;
    const unmapped: [number, number][] = [];
    const unmap = master.unmap.bind(master);
    master.unmap = (position, length) => {
      unmapped.push([position / 512, length / 512]);
      return unmap(position, length);
    };
    const run = async (...[cdb, list]: [number[], Buffer]): Promise<unknown> => {
      unmapped.length = 0;
      const { code, status } = await b.run(a, 0, cdb, list);
      return code === '' && status === 0 ? [...unmapped] : code;
    };
    t.same(await run(...unmapping([])), [], 'none');
    t.same(await run(...unmapping([[end - 8, 8]])), [[end - 8, 8]], 'the last blocks');
    t.same(await run(...unmapping([[8, 0], [16, 8]])), [[16, 8]], 'nothing of no blocks'); // prettier-ignore
    t.same(await run(...unmapping([[8, 8], [16, 8]], 16)), [[8, 8]], 'as many as its length says'); // prettier-ignore
    const [cdb, list] = unmapping([[8, 8], [16, 8]]); // prettier-ignore
    cdb[8] = 36;
    t.same(await run(cdb, list.subarray(0, 36)), [[8, 8]], 'the second one is cut off');
    const many = Array.from({ length: 256 }, (_, n): [number, number] => [n * 8, 8]);
    t.same(await run(...unmapping(many)), many, 'as many as may be');
    t.equal(master.flushes, 0, 'not made durable unasked');
    const beyond = await b.run(a, 0, ...unmapping([[end - 1, 2]]));
    t.same([beyond.code, beyond.sense?.[0], beyond.sense?.readUInt32BE(3)], ['05/21/00', 0xf0, end - 1]);
  },
);

void t.test('An UNMAP that has to wait stops between its steps when it is aborted', async (t) => {
  const b = bench({ master: new MemoryMedium(1 << 30, { sparse: true }) });
  const a = b.login(A);
  const { master } = b;
  const unmap = master.unmap.bind(master);
  let steps = 0;
  master.unmap = (position, length) => (steps++ === 0 ? MEDIUM.PENDING : unmap(position, length));
  const task = b.start(a, 0, ...unmapping([[0, 1_048_576]]));
  while (steps < 3) await turns(1);
  b.target.detach(a, 'connection-lost');
  t.ok((await task.whenEnded()).aborted);
  await turns(20);
  t.ok(steps < 16, `${steps} steps of 16`);
});

void t.test(
  'WRITE SAME writes zeros unless UNMAP is set, with or without a block of data (SBC-5 §5.56)',
  async (t) => {
    const b = bench();
    const a = b.login(A);
    const { master } = b;
    const statistics = a.paths[0]?.unit.statistics;
    const [NDOB, UNMAP, NOTHING] = [0x01, 0x08, Buffer.alloc(0)];
    const after = async (cdb: number[] | Buffer, data: Buffer): Promise<unknown> => {
      master.bytes.fill(7, 0, 8192);
      master.mapped.add(0).add(4096);
      const before = [statistics?.writeOps ?? 0, statistics?.writeBytes ?? 0];
      const { code, status } = await b.run(a, 0, cdb, data);
      if (code !== '' || status !== 0) return code;
      const counted = [(statistics?.writeOps ?? 0) - before[0], (statistics?.writeBytes ?? 0) - before[1]];
      return [master.bytes[0], master.mapped.has(0), master.bytes[4096], counted];
    };
    const zeros = [0, true, 7, [1, 4096]];
    const hole = [0, false, 7, [1, 0]];
    t.same(await after(cdb10(0x41, 0, 8), Buffer.alloc(512)), zeros, '(10)');
    t.same(await after(cdb16(0x93, 0, 8), Buffer.alloc(512)), zeros, '(16)');
    t.same(await after(cdb16(0x93, 0, 8), Buffer.alloc(512, 3)), [3, true, 7, [1, 4096]], 'a pattern');
    t.same(await after(cdb16(0x93, 0, 8, NDOB), NOTHING), zeros, 'NDOB');
    t.same(await after(cdb16(0x93, 0, 8, UNMAP), Buffer.alloc(512)), hole, 'UNMAP');
    t.same(await after(cdb16(0x93, 0, 8, UNMAP | NDOB), NOTHING), hole, 'UNMAP and NDOB');
    t.same(await after(cdb10(0x41, 0, 8, UNMAP), NOTHING), hole, 'UNMAP without data, as some send it');
    t.equal(await after(cdb10(0x41, 0, 8), NOTHING), '05/0e/03', 'no data at all');
    t.equal(await after(cdb10(0x41, 0, 8, NDOB), NOTHING), '05/24/00', 'which (10) does not have');
    t.equal(master.flushes, 0, 'a write cache is there');

    const list = Buffer.from('00000000' + '0812' + '00'.repeat(18), 'hex');
    t.equal((await b.run(a, 0, [0x15, 0x10, 0, 0, list.length, 0], list)).status, 0, 'WCE=0');
    const { flushes } = master;
    t.same(await after(cdb10(0x41, 0, 8), Buffer.alloc(512)), zeros);
    t.equal(master.flushes, flushes + 1, 'durable without one');

    const behind = bench({ writeSameToEnd: true });
    const nexus = behind.login(A);
    const none = cdb10(0x41, behind.master.capacityBytes / 512, 0);
    t.equal((await behind.run(nexus, 0, none, Buffer.alloc(512))).status, 0);
    t.equal(nexus.paths[0]?.unit.statistics.writeOps, 0, 'nothing behind the last block');
  },
);

void t.test('A WRITE SAME that fails or is aborted in its midst stops there (SBC-5 §5.55)', async (t) => {
  const b = bench();
  const a = b.login(A);
  const { master } = b;
  const write = master.write.bind(master);
  let steps = 0;
  master.write = (...args) => (++steps === 3 ? MEDIUM.FAILED : write(...args));
  const { code, sense } = await b.run(a, 0, cdb10(0x41, 100, 4096), Buffer.alloc(512, 1));
  t.same(
    [code, sense?.[0], sense?.readUInt32BE(3)],
    ['04/3e/01', 0xf0, 100 + 2 * 512],
    'the first block not written',
  );
  steps = 3;
  const task = b.start(a, 0, cdb10(0x41, 0, 16_384), Buffer.alloc(512, 2));
  while (steps < 6) await turns(1);
  b.target.detach(a, 'connection-lost');
  t.ok((await task.whenEnded()).aborted);
  await turns(20);
  t.ok(steps < 30, `${steps - 3} steps of 32`);
});

const atomic = cdb16(0x9c, 16, 0);
atomic.writeUInt16BE(16, 12);
const ATOMIC_RECORD = 'scsi.atomic';

void t.test(
  'WRITE ATOMIC: what fails half-way is told, and done by the next start (SBC-5 §5.48)',
  async (t) => {
    const b = bench();
    const a = b.login(A);
    // The cache can still be written: of that alone nothing is whole.
    const flush = b.master.flush.bind(b.master);
    b.master.flush = (done) => setImmediate(() => done(MEDIUM.OK));
    b.master.fail = MEDIUM.FAILED;
    t.equal((await b.run(a, 0, atomic, Buffer.alloc(8192, 1))).code, '04/3e/01');
    t.ok(b.state.records.has(ATOMIC_RECORD), 'a part may be there');

    const next = bench({ master: b.master, state: b.state });
    await turns(4);
    t.same(
      next.warnings.map(({ message }) => message),
      ['an atomic write was interrupted and is done again', 'the atomic write could not be done again'],
      'a medium that fails still',
    );
    t.match(next.warnings[0].fields, { position: 8192, bytes: 8192 });
    t.match(next.warnings[1].fields, { position: 8192, result: MEDIUM.FAILED });
    t.ok(b.state.records.has(ATOMIC_RECORD));
    b.master.flush = flush;

    b.master.fail = MEDIUM.OK;
    const last = bench({ master: b.master, state: b.state });
    while (b.state.records.has(ATOMIC_RECORD)) await turns(1);
    t.ok(b.master.bytes.subarray(8192, 16_384).equals(Buffer.alloc(8192, 1)));
    await turns(2);
    t.equal((await last.run(last.login(A), 0, TUR)).code, '');
    t.equal(last.warnings.length, 1, 'no more than that it was done again');

    b.state.records.set(ATOMIC_RECORD, Buffer.alloc(8));
    const none = bench({ master: b.master, state: b.state });
    t.equal((await none.run(none.login(A), 0, TUR)).code, '', 'a record without data is none');
    t.equal(none.warnings.length, 0);
    none.state.fails = true;
    t.equal((await none.run(none.login(A), 0, atomic, Buffer.alloc(8192, 1))).code, '04/3e/01');
    t.match(none.warnings[0], {
      message: 'an atomic write could not be recorded: not begun',
      fields: { err: Error, position: 8192 },
    });
  },
);

void t.test('WRITE ATOMIC is not good while it is not durable, or would be done again', async (t) => {
  const b = bench();
  const a = b.login(A);
  b.master.flush = (done) => setImmediate(() => done(MEDIUM.FAILED));
  t.equal((await b.run(a, 0, atomic, Buffer.alloc(8192, 1))).code, '04/3e/01');
  const other = bench();
  const nexus = other.login(A);
  const flush = other.master.flush.bind(other.master);
  other.master.flush = (done) => {
    other.state.fails = true;
    flush(done);
  };
  t.equal((await other.run(nexus, 0, atomic, Buffer.alloc(8192, 1))).code, '04/3e/01');
  t.match(other.warnings[0]?.message, /a restart would do it again/);
  t.match(other.warnings[0]?.fields, { err: Error });
});

void t.test(
  'An eject or load that the daemon refuses is refused with its reason (SBC-5 §5.32)',
  async (t) => {
    let code = 'in-use';
    const refuse = (_: Nexus, done: (why?: { code: string; message: string }) => void): void =>
      done({ code, message: 'no' });
    const b = bench({ control: { load: refuse, eject: refuse } as never });
    const a = b.login(A);
    const eject = async (): Promise<string> => (await b.run(a, 1, [0x1b, 0, 0, 0, 0x02, 0])).code;
    t.equal(await eject(), '05/53/02', 'MEDIUM REMOVAL PREVENTED');
    code = 'not-allowed';
    t.equal(await eject(), '05/53/00');
  },
);

/** Takes its time to say what is mapped. */
class SlowMap extends MemoryMedium {
  asked = 0;

  override provisioning(position: number, maxBytes: number): { mapped: boolean; lengthBytes: number } {
    this.asked++;
    for (const began = performance.now(); performance.now() - began < 5;) continue;
    return super.provisioning(position, maxBytes);
  }
}

void t.test(
  'The census of a medium goes over many turns, and is not of one that went meanwhile (SBC-5 §6.4.5)',
  async (t) => {
    const slave = new SlowMap(1 << 20);
    for (let at = 0; at < 1 << 20; at += 8192) slave.mapped.add(at);
    const b = bench({ slave });
    const a = b.login(A);
    const PROVISIONING = [0x4d, 0, 0x4c, 0, 0, 0, 0, 1, 0, 0];
    const task = b.start(a, 1, PROVISIONING);
    await turns(3);
    t.notOk(task.ended);
    t.ok(slave.asked > 1);
    slave.present = false;
    const { asked } = slave;
    const outcome = await task.whenEnded();
    t.ok(slave.asked <= asked + 1, 'it has stopped');
    t.ok(outcome.status === 0 || outcome.code === '02/3a/00', 'answered all the same');
  },
);

void t.test('Changes since a generation that is forgotten meanwhile are not told as none', async (t) => {
  let asked = 0;
  const b = bench({
    changes: {
      changedRanges: (): AsyncIterable<{ position: number; length: number }> | undefined =>
        ++asked > 1 ? undefined : (async function* () {})(),
    },
  });
  const cdb = Buffer.alloc(32);
  cdb[0] = 0x7f;
  cdb[7] = 0x18;
  cdb.writeUInt16BE(0x0012, 8);
  cdb.writeUInt32BE(1, 24);
  cdb.writeUInt32BE(4096, 28);
  t.equal((await b.run(b.login(A), 0, cdb)).code, '03/11/00');
  t.match(b.warnings[0]?.message, /changed blocks cannot be listed/);
  asked = -1;
  cdb.writeBigUInt64BE(BigInt(b.master.capacityBytes / 512), 12);
  t.equal((await b.run(b.login(B), 0, cdb)).code, '05/21/00', 'from behind the end');
});

void t.test('BLOCK ERASE that a restart interrupts is done all the same (SBC-5 §5.31)', async (t) => {
  const state = new MemoryState();
  const master = new MemoryMedium(1 << 20);
  const before = bench({ state, master });
  master.held = true;
  const erase = before.start(before.login(A), 0, [0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0]);
  await turns(3);
  t.notOk(erase.ended);
  t.ok(state.records.has('scsi.sanitize.master'));
  const written = new MemoryMedium(1 << 20);
  written.bytes.fill(7);
  const after = bench({ state, master: written });
  const nexus = after.login(A);
  while (state.records.has('scsi.sanitize.master')) await turns(1);
  await turns(2);
  t.equal((await after.run(nexus, 0, TUR)).code, '');
  t.notOk(written.bytes.includes(7));
});

/** Naming the two units by their NAA designators; one segment. */
async function copyList(b: Bench, nexus: Nexus, listId: number, blocks: number): Promise<Buffer> {
  const targets = await Promise.all(
    [1, 0].map(async (unit) => {
      const { lun } = nexus.luns.find((access) => access.unit === (unit === 1 ? 'slave' : 'master')) ?? {
        lun: 0,
      };
      const page = (await b.run(nexus, lun, [0x12, 1, 0x83, 1, 0, 0])).data;
      const descriptor = Buffer.alloc(32);
      descriptor.set([0xe4, 0, 0, 0, 1, 3, 0, 8]);
      page.copy(descriptor, 8, 8, 16);
      descriptor.writeUIntBE(512, 29, 3);
      return descriptor;
    }),
  );
  const header = Buffer.alloc(16);
  header[0] = listId;
  header.writeUInt16BE(64, 2);
  header.writeUInt32BE(28, 8);
  const segment = Buffer.alloc(28);
  segment.set([2, 0, 0, 24, 0, 0, 0, 1]);
  segment.writeUInt16BE(blocks, 10);
  return Buffer.concat([header, ...targets, segment]);
}

const xcopy = (list: Buffer): number[] => [0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, list.length, 0, 0];

void t.test(
  'EXTENDED COPY through LUNs with gaps; a ninth result pushes the oldest out (SPC-4 §6.20)',
  async (t) => {
    const b = bench();
    const nexus = b.login(A, {
      luns: [
        { ...BOTH[0], lun: 3 },
        { ...BOTH[1], lun: 9 },
      ],
    });
    for (let id = 1; id <= 9; id++) {
      const list = await copyList(b, nexus, id, 8);
      t.equal((await b.run(nexus, 3, xcopy(list), list)).code, '');
    }
    const result = async (id: number): Promise<string> =>
      (await b.run(nexus, 3, [0x84, 0, id, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])).code;
    t.same([await result(1), await result(2), await result(9)], ['05/24/00', '', '']);

    const ragged = await copyList(b, nexus, 1, 8);
    ragged.writeUInt16BE(63, 2);
    t.equal((await b.run(nexus, 3, xcopy(ragged), ragged)).code, '05/1a/00', 'a descriptor that ends early');
  },
);

void t.test(
  'A copy from a slave that is ejected meanwhile makes no holes of what it cannot see',
  async (t) => {
    const b = bench();
    const nexus = b.login(A);
    b.slave.bytes.fill(0x5a);
    for (let at = 0; at < 512 * 512; at += 4096) b.slave.mapped.add(at);
    b.master.bytes.fill(0xff);
    for (let at = 0; at < b.master.capacityBytes; at += 4096) b.master.mapped.add(at);
    const list = await copyList(b, nexus, 7, 4096);
    const task = b.start(nexus, 0, xcopy(list), list);
    while (b.master.bytes[0] === 0xff) await turns(1);
    b.slave.present = false;
    t.equal((await task.whenEnded()).code, '0a/0d/01');
    t.equal(b.master.bytes[4095 * 512], 0xff);
  },
);
