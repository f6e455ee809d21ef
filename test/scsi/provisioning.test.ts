import assert from 'node:assert/strict';
import t from 'tap';
import type { ChangeMap } from '../../src/scsi/medium.js';
import type { Nexus } from '../../src/scsi/nexus.js';
import { bench, cdb10, cdb16, MemoryMedium } from './support.js';
import type { Bench } from './support.js';

interface Status {
  condition: number;
  restricted: boolean;
  /** LBA, blocks, PROVISIONING STATUS. */
  runs: [number, number, number][];
}

function decode(data: Buffer): Status {
  assert.equal(data.readUInt32BE(0), data.length - 4, 'PARAMETER DATA LENGTH');
  const runs: Status['runs'] = [];
  for (let at = 8; at < data.length; at += 16)
    runs.push([Number(data.readBigUInt64BE(at)), data.readUInt32BE(at + 8), data[at + 12] & 0x0f]);
  return { condition: data[7] >>> 1, restricted: (data[7] & 1) !== 0, runs };
}

/** GET LBA STATUS (32): a variable length CDB, service action 0012h. */
function lbaStatus32({ lba = 0, scan = 0, element = 0, allocation = 65_536, reportType = 0 } = {}): Buffer {
  const cdb = Buffer.alloc(32);
  cdb[0] = 0x7f;
  cdb[7] = 0x18; // ADDITIONAL CDB LENGTH
  cdb.writeUInt16BE(0x0012, 8); // SERVICE ACTION
  cdb[10] = reportType;
  cdb.writeBigUInt64BE(BigInt(lba), 12); // STARTING LOGICAL BLOCK ADDRESS
  cdb.writeUInt32BE(scan, 20); // SCAN LENGTH
  cdb.writeUInt32BE(element, 24); // ELEMENT IDENTIFIER
  cdb.writeUInt32BE(allocation, 28); // ALLOCATION LENGTH
  return cdb;
}

const ask = async ({ run }: Bench, nexus: Nexus, lun: number, cdb: Buffer): Promise<Status> =>
  decode((await run(nexus, lun, cdb)).data);

void t.test(
  'GET LBA STATUS (32) is bounded by SCAN LENGTH and the allocation length (SBC-5 §5.6)',
  async (t) => {
    const b = bench();
    const nexus = b.login();
    await b.run(nexus, 0, cdb10(0x2a, 8, 8), Buffer.alloc(4096, 1));
    const end = b.master.capacityBytes / 512;
    const all = await ask(b, nexus, 0, lbaStatus32());
    t.same(all, {
      condition: 3,
      restricted: false,
      runs: [
        [0, 8, 1],
        [8, 8, 0],
        [16, end - 16, 1],
      ],
    });
    t.same((await ask(b, nexus, 0, lbaStatus32({ lba: 4, scan: 8 }))).runs, [
      [4, 4, 1],
      [8, 4, 0],
    ]);
    t.equal((await ask(b, nexus, 0, lbaStatus32({ scan: 8 }))).condition, 2, 'SCAN LENGTH reached');
    t.equal((await ask(b, nexus, 0, lbaStatus32({ allocation: 24 }))).condition, 1, 'no room for more');
    t.equal((await b.run(nexus, 0, lbaStatus32({ lba: end }))).code, '05/21/00');
    const ofType = async (reportType: number): Promise<Status> =>
      await ask(b, nexus, 0, lbaStatus32({ reportType }));
    t.same(await ofType(2), { condition: 3, restricted: true, runs: [[8, 8, 0]] }, 'REPORT TYPE: mapped');
    t.same((await ofType(3)).runs.length, 2, 'deallocated');
    t.same((await ofType(4)).runs, [], 'anchored');
    const mapped = cdb16(0x9e, 0, 64, 0x12);
    mapped[14] = 2;
    t.same((await ask(b, nexus, 0, mapped)).runs, [[8, 8, 0]], 'GET LBA STATUS (16), too');
    t.equal((await b.run(nexus, 0, lbaStatus32({ reportType: 5 }))).code, '05/24/00');
    const short = await b.run(nexus, 0, lbaStatus32().subarray(0, 16));
    t.equal(short.code, '05/24/00', 'a CDB that is cut short');
  },
);

/** What was changed in which generation: 64 KiB units, as the engine keeps them. */
function changeMap(marks: readonly [position: number, generation: number][], last: number): ChangeMap {
  return {
    changedRanges(since, position, end) {
      if (since > last) return undefined;
      const within = marks.filter(([at, mark]) => mark >= since && at < end && at + 65_536 > position);
      return (async function* () {
        await Promise.resolve();
        for (const [at] of within) yield { position: at, length: 65_536 };
      })();
    },
  };
}

void t.test(
  'A generation as ELEMENT IDENTIFIER asks for the blocks changed since, with their true provisioning',
  async (t) => {
    const slave = new MemoryMedium(1 << 20);
    slave.mapped.add(65_536);
    slave.mapped.add(196_608);
    const changes = changeMap(
      [
        [65_536, 3],
        [131_072, 4],
        [196_608, 2],
      ],
      5,
    );
    const b = bench({ slave, changes });
    const nexus = b.login();
    t.same(await ask(b, nexus, 1, lbaStatus32({ element: 3 })), {
      condition: 3,
      restricted: true,
      runs: [
        [128, 8, 0],
        [136, 248, 1],
      ],
    });
    t.same((await ask(b, nexus, 1, lbaStatus32({ element: 5 }))).runs, [], 'nothing since');
    t.same(
      (await ask(b, nexus, 1, lbaStatus32({ element: 3, lba: 140, scan: 100 }))).runs,
      [[140, 100, 1]],
      'only what was asked for, though the map is coarser',
    );
    const first = await ask(b, nexus, 1, lbaStatus32({ element: 2, allocation: 24 }));
    t.same([first.condition, first.runs], [1, [[128, 8, 0]]]);
    t.same(
      (await ask(b, nexus, 1, lbaStatus32({ element: 2, lba: 136, allocation: 24 }))).runs,
      [[136, 248, 1]],
      'to be continued from where it ended',
    );
    t.equal(
      (await ask(b, nexus, 1, cdb16(0x9e, 0, 8192, 0x12))).runs[0][0],
      0,
      'the plain form is about all',
    );
    const future = await b.run(nexus, 1, lbaStatus32({ element: 6 }));
    t.same([future.code, future.sense?.readUInt16BE(16)], ['05/24/00', 24], 'a generation to come');
    const { data } = await b.run(nexus, 1, [0x4d, 0, 0x40 | 0x39, 0, 0, 0, 0, 0, 255, 0]);
    t.equal(data.readBigUInt64BE(8), 1n, 'log page 39h: the generation that is in');
    slave.present = false;
    t.equal((await b.run(nexus, 1, lbaStatus32({ element: 3 }))).code, '02/3a/00');
    const without = bench();
    t.equal(
      (await without.run(without.login(), 1, lbaStatus32({ element: 1 }))).code,
      '05/24/00',
      'not allowed',
    );
  },
);

void t.test('An answer about changes is not given for another medium, nor if the map fails', async (t) => {
  const slave = new MemoryMedium(1 << 20);
  const b = bench({
    slave,
    changes: {
      changedRanges: (_since, position) =>
        (async function* () {
          await Promise.resolve();
          if (slave.generation === 7) throw new Error('map page 3 is damaged');
          slave.generation++;
          yield { position, length: 4096 };
        })(),
    },
  });
  const nexus = b.login();
  t.equal((await b.run(nexus, 1, lbaStatus32({ element: 1 }))).code, '02/3a/00', 'exchanged meanwhile');
  slave.generation = 7;
  t.equal((await b.run(nexus, 1, lbaStatus32({ element: 1 }))).code, '03/11/00');
  t.match(b.warnings[0]?.message, 'changed blocks cannot be listed', 'the operator hears of it');
});

void t.test(
  'A map that cannot be read makes no hole: the blocks count as mapped, and nothing throws',
  async (t) => {
    const b = bench();
    b.master.provisioning = (): never => {
      throw new Error('map page 0 is damaged');
    };
    const nexus = b.login();
    const { runs } = await ask(b, nexus, 0, lbaStatus32());
    t.same(runs, [[0, b.master.capacityBytes / 512, 0]]);
    t.match(b.warnings, [
      { fields: { err: Error, unit: 'master', position: 0 }, message: 'what is mapped here cannot be told' },
    ]);
  },
);

void t.test(
  'Log page 0Ch tells how much of the unit is left to provision, as it is (SBC-5 §6.4.5)',
  { timeout: 60_000 },
  async (t) => {
    const percent = async (b: Bench, lun = 0): Promise<number> => {
      const { data } = await b.run(b.login(), lun, [0x4d, 0, 0x4c, 0, 0, 0, 0, 0, 255, 0]);
      t.equal(data.readUInt16BE(4), 0x0003, 'AVAILABLE PROVISIONING RESOURCE PERCENTAGE');
      return data.readUInt16BE(8);
    };
    const b = bench();
    t.equal(await percent(b), 100);
    t.equal(await percent(b), 100, 'nobody waits for a second count');
    const half = bench();
    for (let at = 0; at < half.master.capacityBytes / 2; at += 4096) half.master.mapped.add(at);
    t.equal(await percent(half), 50);
    t.equal(await percent(half, 1), 100, 'the slave has its own');
    half.slave.present = false;
    t.equal(await percent(half, 1), 100, 'no medium');
    const large = new MemoryMedium(2 ** 46, { sparse: true });
    let asked = 0;
    large.provisioning = (position, maxBytes) => {
      asked++;
      return { mapped: position < 2 ** 44, lengthBytes: maxBytes };
    };
    t.equal(await percent(bench({ master: large })), 75, '64 TiB, of which the first quarter is used');
    t.ok(asked <= 1024, 'a sample');
    const both = bench();
    const answers = await Promise.all([percent(both), percent(both), percent(both)]);
    t.same(answers, [100, 100, 100], 'one count for all who wait');
  },
);
