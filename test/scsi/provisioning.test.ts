import assert from 'node:assert/strict';
import t from 'tap';
import type { ChangeMap } from '../../src/scsi/medium.js';
import type { Nexus } from '../../src/scsi/nexus.js';
import { bench, cdb10, cdb16, fieldOf, MemoryMedium } from './support.js';
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
    const deallocated = [
      [0, 8, 1],
      [16, end - 16, 1],
    ];
    for (const type of [1, 3]) t.same((await ofType(type)).runs, deallocated, 'deallocated');
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
    let looks = 0;
    const provisioning = both.master.provisioning.bind(both.master);
    both.master.provisioning = (...args) => {
      looks++;
      return provisioning(...args);
    };
    const answers = await Promise.all([percent(both), percent(both), percent(both)]);
    t.same(answers, [100, 100, 100]);
    await new Promise(setImmediate);
    t.equal(looks, 1, 'one count for all who wait');
  },
);

void t.test('GET LBA STATUS names the field that is wrong, and the block that is not there', async (t) => {
  const b = bench();
  const nexus = b.login();
  const status16 = cdb16(0x9e, 0, 64, 0x12);
  status16[14] = 5;
  for (const [cdb, byte] of [
    [status16, 14],
    [lbaStatus32({ reportType: 5 }), 10],
    [lbaStatus32({ element: 1 }), 24],
  ] as const) {
    const outcome = await b.run(nexus, 0, cdb);
    t.same([outcome.code, fieldOf(outcome), outcome.ends], ['05/24/00', byte, 1]);
  }
  const end = b.master.capacityBytes / 512;
  t.equal((await b.run(nexus, 0, lbaStatus32({ lba: end }))).sense?.readUInt32BE(3), end);
  t.same((await ask(b, nexus, 0, lbaStatus32({ lba: end - 1 }))).runs, [[end - 1, 1, 1]], 'the last one');
  const changes = changeMap([], 5);
  const other = bench({ changes });
  const behind = await other.run(other.login(), 0, lbaStatus32({ element: 1, lba: end }));
  t.same([behind.code, behind.ends], ['05/21/00', 1]);
  await new Promise(setImmediate);
  t.same(other.warnings, []);
  const allocated = await b.run(nexus, 0, lbaStatus32({ allocation: 20 }));
  t.same([allocated.data.length, allocated.data.readUInt32BE(0)], [20, 20], 'cut, and its true length told');
});

void t.test(
  'GET LBA STATUS: a list has 4,096 runs at most, and a run 2^32-1 blocks (SBC-5 §5.5)',
  async (t) => {
    const striped = new MemoryMedium(1 << 30, { sparse: true });
    let looks = 0;
    striped.provisioning = (position) => {
      looks++;
      return { mapped: (position / 4096) % 2 === 1, lengthBytes: 4096 };
    };
    const b = bench({ master: striped });
    const nexus = b.login();
    const many = await ask(b, nexus, 0, lbaStatus32({ allocation: 1 << 20 }));
    t.same([many.condition, many.runs.length], [1, 4096]);
    t.same([many.runs[0], many.runs[1], many.runs[4095]], [[0, 8, 1], [8, 8, 0], [32_760, 8, 0]]); // prettier-ignore
    looks = 0;
    const fitting = await ask(b, nexus, 0, lbaStatus32({ allocation: 8 + 16 * 5 + 15 }));
    t.same([fitting.condition, fitting.runs.length], [1, 5]);
    t.equal(looks, 6, 'no further than there is room');
    const exact = await ask(b, nexus, 0, lbaStatus32({ allocation: 8 + 16 * 5, scan: 40 }));
    t.same([exact.condition, exact.runs.length], [2, 5], 'all that was asked for has room');

    const large = new MemoryMedium(2 ** 42, { sparse: true });
    large.provisioning = (_position, maxBytes) => ({ mapped: false, lengthBytes: maxBytes });
    const c = bench({ master: large });
    const status = await ask(c, c.login(), 0, lbaStatus32());
    const steps = Math.floor((2 ** 32 - 1) / 262_144) * 262_144;
    t.same(status.runs, [
      [0, steps, 1],
      [steps, steps, 1],
      [2 * steps, 2 ** 33 - 2 * steps, 1],
    ]);
    t.equal(status.condition, 3);
  },
);

void t.test(
  'A list that takes long lets others in between, and is answered after 2 s as it is',
  async (t) => {
    const slow = new MemoryMedium(1 << 30, { sparse: true });
    const now = performance.now.bind(performance);
    t.teardown(() => (performance.now = now));
    let passedMs = 0;
    performance.now = () => now() + passedMs;
    let asked = 0;
    slow.provisioning = (position) => {
      asked++;
      passedMs += 100;
      return { mapped: (position / 4096) % 2 === 1, lengthBytes: 4096 };
    };
    const b = bench({ master: slow });
    const nexus = b.login();
    const task = b.start(nexus, 0, lbaStatus32());
    await new Promise(setImmediate);
    t.ok(asked <= 2, 'each look takes longer than a turn may');
    const { condition, runs } = decode((await task.whenEnded()).data);
    t.equal(condition, 1, 'to be continued');
    t.ok(runs.length >= 19 && runs.length <= 22, `${runs.length} runs of 100 ms`);
    passedMs = 0;
    slow.provisioning = (_position, maxBytes) => {
      passedMs += 1000;
      return { mapped: true, lengthBytes: maxBytes };
    };
    t.equal(
      (await ask(b, nexus, 0, lbaStatus32({ reportType: 4 }))).condition,
      3,
      'nothing to tell: it goes on',
    );
  },
);

void t.test(
  'A list is about one medium: one that is gone or another one ends it, of the slave only',
  async (t) => {
    for (const lun of [0, 1])
      for (const change of ['ejected', 'exchanged']) {
        const b = bench();
        const medium = lun === 0 ? b.master : b.slave;
        const task = b.start(b.login(), lun, lbaStatus32());
        if (change === 'exchanged') medium.generation++;
        else medium.present = false;
        t.equal((await task.whenEnded()).code, lun === 0 ? '' : '02/3a/00', `LUN ${lun} ${change}`);
      }
  },
);

void t.test('Changes are asked for in windows of 256 GiB, and only as far as they are wanted', async (t) => {
  const master = new MemoryMedium(2 ** 39 + 2 ** 20, { sparse: true });
  const WINDOW = 2 ** 38;
  const asked: number[][] = [];
  let ranges: { position: number; length: number }[] = [];
  const changes: ChangeMap = {
    changedRanges(since, position, end) {
      asked.push([since, position, end]);
      const within = ranges.filter(
        (range) => range.position < end && range.position + range.length > position,
      );
      return (async function* () {
        await Promise.resolve();
        yield* within;
      })();
    },
  };
  const b = bench({ master, changes });
  const nexus = b.login();
  const list = async (options: Parameters<typeof lbaStatus32>[0]): Promise<Status> => {
    asked.length = 0;
    return await ask(b, nexus, 0, lbaStatus32({ element: 4, ...options }));
  };
  // Over the border of two windows.
  ranges = [{ position: WINDOW - 65_536, length: 131_072 }];
  t.same(await list({}), { condition: 3, restricted: true, runs: [[WINDOW / 512 - 128, 256, 1]] });
  t.same(asked, [
    [4, 0, 0],
    [4, 0, WINDOW],
    [4, WINDOW, 2 * WINDOW],
    [4, 2 * WINDOW, 2 * WINDOW + 2 ** 20],
  ]);
  t.same(await list({ lba: WINDOW / 512 + 8, scan: 200 }), {
    condition: 2,
    restricted: true,
    runs: [[WINDOW / 512 + 8, 120, 1]],
  });
  t.same(asked[1], [4, WINDOW + 4096, WINDOW + 4096 + 102_400]);
  ranges.push({ position: WINDOW + 1_048_576, length: 65_536 });
  t.same(await list({ allocation: 24 }), {
    condition: 1,
    restricted: true,
    runs: [[WINDOW / 512 - 128, 256, 1]],
  });
  t.equal(asked.length, 3, 'no window more than there is room for');
  ranges = [];
  await list({ scan: WINDOW / 512 });
  t.equal(asked.length, 2, 'nor one behind the end');
  const late = b.start(nexus, 0, lbaStatus32({ element: 4 }));
  b.target.detach(nexus, 'connection-lost');
  asked.length = 0;
  await late.whenEnded();
  t.same(asked, [], 'nor one that nobody waits for');
});

void t.test('A generation that is forgotten while its changes are listed fails the command', async (t) => {
  let asked = 0;
  const changes: ChangeMap = {
    changedRanges: () => (asked++ === 0 ? (async function* () {})() : undefined),
  };
  const b = bench({ changes });
  t.equal((await b.run(b.login(), 0, lbaStatus32({ element: 3 }))).code, '03/11/00');
  t.match(b.warnings, [
    {
      fields: { err: { message: /generation 3 was forgotten/ }, unit: 'master', since: 3 },
      message: /cannot be listed/,
    },
  ]);
});

void t.test('An aborted list asks for nothing more', async (t) => {
  const slow = new MemoryMedium(1 << 30, { sparse: true });
  let asked = 0;
  slow.provisioning = (position) => {
    asked++;
    const until = performance.now() + 3;
    while (performance.now() < until);
    return { mapped: (position / 4096) % 2 === 1, lengthBytes: 4096 };
  };
  const b = bench({ master: slow });
  const nexus = b.login();
  const task = b.start(nexus, 0, lbaStatus32());
  await new Promise(setImmediate);
  b.target.detach(nexus, 'connection-lost');
  t.ok((await task.whenEnded()).aborted);
  const then = asked;
  for (let n = 0; n < 5; n++) await new Promise(setImmediate);
  t.ok(asked <= then, 'looks no further');
});

void t.test('Log page 0Ch rounds up what is used, and takes a census anew for another medium', async (t) => {
  const percent = async (b: Bench, nexus: Nexus, lun = 0): Promise<number> =>
    (await b.run(nexus, lun, [0x4d, 0, 0x4c, 0, 0, 0, 0, 0, 255, 0])).data.readUInt16BE(8);
  const b = bench();
  const nexus = b.login();
  b.master.mapped.add(0);
  t.equal(await percent(b, nexus), 99, '4 KiB of 8 MiB are not nothing');
  for (let at = 0; at < b.master.capacityBytes; at += 4096) b.master.mapped.add(at);
  t.equal(await percent(b, nexus), 99, 'the census of a moment ago');
  t.equal(await percent(b, nexus, 1), 100);
  for (let at = 0; at < b.slave.capacityBytes; at += 4096) b.slave.mapped.add(at);
  b.slave.generation++;
  t.equal(await percent(b, nexus, 1), 0, 'another medium');
  const now = performance.now.bind(performance);
  t.teardown(() => (performance.now = now));
  performance.now = () => now() + 10_001;
  t.equal(await percent(b, nexus), 0, 'ten seconds later');
});

void t.test(
  'A census of a large medium looks at pieces spread over it, in turns, and anew if it is exchanged',
  async (t) => {
    const large = new MemoryMedium(2 ** 40 + 2 ** 25 + 4096, { sparse: true });
    large.writeProtected = true;
    const seen: [position: number, bytes: number][] = [];
    const mapped = (position: number): boolean => position >= 2 ** 39;
    large.provisioning = (position, maxBytes) => {
      seen.push([position, maxBytes]);
      return { mapped: mapped(position), lengthBytes: Math.min(maxBytes, 2 ** 24) };
    };
    const b = bench({ slave: large });
    const nexus = b.login();
    const ask = (): Promise<Buffer> =>
      b.run(nexus, 1, [0x4d, 0, 0x4c, 0, 0, 0, 0, 0, 255, 0]).then(({ data }) => data.subarray(8, 10));
    t.equal((await ask()).readUInt16BE(0), 50);
    const PIECE = 2 ** 25;
    const starts = seen.filter(([position]) => position % PIECE === 0).map(([position]) => position / PIECE);
    t.equal(starts.length, 1024);
    t.same([starts[0], starts[1], starts[1023]], [0, 32, Math.floor((1023 * 32_770) / 1024)]);
    t.same(seen.slice(0, 2), [[0, PIECE], [2 ** 24, 2 ** 24]]); // prettier-ignore

    const small = new MemoryMedium(2 ** 26 + 4096, { sparse: true });
    small.provisioning = (position, maxBytes) => {
      seen.push([position, maxBytes]);
      return { mapped: position >= 2 ** 26, lengthBytes: maxBytes };
    };
    seen.length = 0;
    const c = bench({ master: small });
    const { data } = await c.run(c.login(), 0, [0x4d, 0, 0x4c, 0, 0, 0, 0, 0, 255, 0]);
    t.equal(data.readUInt16BE(8), 99);
    t.same(seen, [[0, PIECE], [PIECE, PIECE], [2 * PIECE, 4096]], 'all of it, to the last bytes'); // prettier-ignore

    for (const change of ['exchanged', 'ejected']) {
      const m = new MemoryMedium(2 ** 30, { sparse: true });
      m.writeProtected = true;
      m.provisioning = (_position, maxBytes) => {
        const until = performance.now() + 1;
        while (performance.now() < until);
        return { mapped: true, lengthBytes: maxBytes };
      };
      const d = bench({ slave: m });
      const task = d.start(d.login(), 1, [0x4d, 0, 0x4c, 0, 0, 0, 0, 0, 255, 0]);
      for (let n = 0; n < 3; n++) await new Promise(setImmediate);
      t.notOk(task.ended, 'one turn does not look at all of it');
      if (change === 'exchanged') m.generation++;
      else m.present = false;
      t.equal((await task.whenEnded()).data.readUInt16BE(8), 100, `${change}: of that nothing is known`);
    }
  },
);
