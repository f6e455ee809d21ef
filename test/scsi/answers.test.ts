/** What small commands answer, byte by byte: lists of commands, LUNs and defects, sense data, and refusals with their place. */
import t from 'tap';
import { MEDIUM } from '../../src/scsi/medium.js';
import type { Nexus } from '../../src/scsi/nexus.js';
import { COMMANDS } from './commands.js';
import { BOTH, bench, cdb10, cdb16, fieldOf, senseCode } from './support.js';
import type { Bench, TestTask } from './support.js';

const A = 'iqn.2024-01.org.example:a';
const TUR = [0, 0, 0, 0, 0, 0];

/** REPORT SUPPORTED OPERATION CODES. */
function supported({ run }: Bench, nexus: Nexus, options: number, opcode = 0, action = 0, bytes = 0xffff) {
  return run(nexus, 0, [0xa3, 0x0c, options, opcode, action >>> 8, action & 255, 0, 0, bytes >>> 8, bytes & 255, 0, 0]); // prettier-ignore
}

void t.test(
  'REPORT SUPPORTED OPERATION CODES lists each command with its fields (SPC-6 §6.33.2)',
  async (t) => {
    const b = bench();
    const nexus = b.login(A);
    // Initiators with room for 16 bytes stumble over a longer CDB.
    const listed = COMMANDS.filter(({ usageData }) => usageData.length <= 16);
    const descriptor = (command: (typeof COMMANDS)[number], flags: number): Buffer => {
      const bytes = Buffer.alloc(8);
      bytes[0] = command.opcode;
      bytes.writeUInt16BE(command.serviceAction ?? 0, 2);
      // CTDP, SERVACTV.
      bytes[5] = flags | (command.serviceAction === undefined ? 0 : 1);
      bytes.writeUInt16BE(command.usageData.length, 6);
      return bytes;
    };
    const plain = (await supported(b, nexus, 0)).data;
    t.equal(plain.toString('hex', 4), Buffer.concat(listed.map((one) => descriptor(one, 0))).toString('hex'));
    const timed = (await supported(b, nexus, 0x80)).data;
    const timeouts = (seconds: number): Buffer => {
      const bytes = Buffer.alloc(12);
      bytes[1] = 0x0a;
      bytes.writeUInt32BE(seconds, 8);
      return bytes;
    };
    t.equal(
      timed.toString('hex', 4),
      Buffer.concat(
        listed.flatMap((one) => [descriptor(one, 2), timeouts(one.timeoutSeconds ?? 30)]),
      ).toString('hex'),
    );
    t.equal((await supported(b, nexus, 0, 0, 0, 10)).data.length, 10, 'cut to the allocation length');
  },
);

void t.test('REPORT SUPPORTED OPERATION CODES of one command, by each option (SPC-6 §6.33.3)', async (t) => {
  const b = bench();
  const nexus = b.login(A);
  const ask = async (...of: [options: number, opcode: number, action?: number]): Promise<string | number> => {
    const outcome = await supported(b, nexus, ...of);
    return outcome.code === ''
      ? outcome.data.toString('hex')
      : `${outcome.code} ${String(fieldOf(outcome))}.${String((outcome.sense?.[15] ?? 0) & 0x0f)}`;
  };
  const tur = '00030006' + '000000000000';
  const keys = '0003000a' + '5e010000000000ffff00';
  const none = '00010000';
  t.equal(await ask(1, 0x00), tur);
  t.equal(await ask(0x81, 0x00), '00830006' + '000000000000' + '000a0000' + '00000000' + '0000001e');
  t.equal(await ask(3, 0x00), tur);
  t.equal(await ask(2, 0x5e, 1), keys);
  t.equal(await ask(3, 0x5e, 1), keys);
  t.equal(
    await ask(0x82, 0x48, 1),
    '0083000a' + '48a10000000000ffff00' + '000a0000' + '00000000' + '00001c20',
  );
  for (const [options, opcode, action] of [
    [1, 0xc7, 0],
    [2, 0xc7, 0],
    [2, 0x5e, 9],
    [3, 0x5e, 9],
    [3, 0x00, 1],
    [3, 0x5e, 0x101],
  ] as const)
    t.equal(await ask(options, opcode, action), none, `${options} ${opcode} ${action}`);
  t.equal(await ask(1, 0x5e), '05/24/00 2.10', 'it has service actions: bit 2 of byte 2');
  t.equal(await ask(2, 0x28), '05/24/00 2.10', 'it has none');
  t.equal(await ask(4, 0x28), '05/24/00 2.10', 'reserved');
});

void t.test(
  'REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS is cut to the allocation length (SPC-6 §6.35)',
  async (t) => {
    const b = bench();
    const nexus = b.login(A);
    const ask = async (flags: number, bytes: number): Promise<string> =>
      (await b.run(nexus, 0, [0xa3, 0x0d, flags, 0, 0, 0, 0, 0, 0, bytes, 0, 0])).data.toString('hex');
    t.equal(await ask(0, 4), 'dc070000');
    t.equal(await ask(0, 2), 'dc07');
    t.equal(await ask(0x80, 255), 'dc07000c' + '00'.repeat(12));
  },
);

void t.test('REPORT LUNS sorts what the nexus sees, by what is selected (SPC-6 §6.34)', async (t) => {
  const b = bench();
  const nexus = b.login(A, { luns: [{ ...BOTH[1], lun: 200 }, BOTH[0], { ...BOTH[1], lun: 30 }] });
  const ask = async (select: number, bytes = 255): Promise<string> => {
    const outcome = await b.run(nexus, 0, [0xa0, 0, select, 0, 0, 0, 0, 0, 0, bytes, 0, 0]);
    return outcome.code === '' ? outcome.data.toString('hex') : `${outcome.code} ${String(fieldOf(outcome))}`;
  };
  const lun = (number: number): string => '00' + number.toString(16).padStart(2, '0') + '000000000000';
  const all = '00000018' + '00000000' + lun(0) + lun(30) + lun(200);
  t.equal(await ask(0x00), all);
  t.equal(await ask(0x02), all);
  t.equal(await ask(0x00, 16), all.slice(0, 32));
  for (const select of [0x01, 0x10, 0x11, 0x12])
    t.equal(await ask(select), '0000000000000000', 'well known or administrative');
  for (const select of [0x03, 0x0f, 0x13, 0xff]) t.equal(await ask(select), '05/24/00 2');
  t.equal(await ask(0x00, 15), '05/24/00 6');
  t.equal(await ask(0x03, 15), '05/24/00 2');
});

void t.test(
  'REPORT LUNS answers the attention that the list has changed, on every LUN, unless it fails',
  async (t) => {
    const b = bench();
    const nexus = b.login(A);
    const luns = (select: number): number[] => [0xa0, 0, select, 0, 0, 0, 0, 0, 0, 255, 0, 0];
    b.target.changeAccess(nexus, BOTH);
    t.equal((await b.run(nexus, 0, luns(0x03))).code, '05/24/00');
    t.equal((await b.run(nexus, 1, TUR)).code, '06/3f/0e');
    t.equal((await b.run(nexus, 1, luns(0x00))).code, '');
    t.equal((await b.run(nexus, 0, TUR)).code, '');
  },
);

void t.test(
  'REQUEST SENSE without anything to tell says so, in the format asked for (SPC-6 §6.38)',
  async (t) => {
    const b = bench();
    const nexus = b.login(A);
    const ask = async (desc: number, bytes = 252): Promise<string> =>
      (await b.run(nexus, 0, [3, desc, 0, 0, bytes, 0])).data.toString('hex');
    t.equal(await ask(0), '70000000' + '0000000a' + '00'.repeat(10));
    t.equal(await ask(1), '7200000000000000');
    t.equal(await ask(0, 8), '700000000000000a');
    b.target.capacityChanged();
    t.equal(senseCode(Buffer.from(await ask(1), 'hex')), '06/2a/09');
    t.equal((await b.run(nexus, 0, TUR)).code, '', 'it is reported');
  },
);

void t.test(
  'SEND DIAGNOSTIC says which field it has no test for, and tests what is there (SPC-6 §6.42)',
  async (t) => {
    const b = bench();
    const nexus = b.login(A);
    const ask = async (
      lun: number,
      ...[flags, high, low]: number[]
    ): Promise<[string, number | undefined]> => {
      const outcome = await b.run(nexus, lun, [0x1d, flags, 0, high, low, 0]);
      return [outcome.code, fieldOf(outcome)];
    };
    for (const code of [0x20, 0x40, 0x80]) t.same(await ask(0, code | 0x04, 0, 0), ['05/24/00', 1]);
    t.same(await ask(0, 0x10, 0, 1), ['05/24/00', 3]);
    t.same(await ask(0, 0x10, 1, 0), ['05/24/00', 3]);
    t.same(await ask(0, 0x1f, 0, 0), ['', undefined]);
    b.slave.fail = MEDIUM.READ_ERROR;
    t.same(await ask(1, 0x04, 0, 0), ['04/3e/01', undefined]);
    b.slave.present = false;
    t.same(await ask(1, 0x04, 0, 0), ['', undefined], 'there is nothing to read');
    const reads: number[][] = [];
    const read = b.master.read.bind(b.master);
    b.master.read = (...args) => {
      reads.push([args[0], args[2], args[3]]);
      return read(...args);
    };
    t.same(await ask(0, 0x04, 0, 0), ['', undefined]);
    t.same(reads, [[0, 0, 512]], 'the first block');
  },
);

void t.test('READ DEFECT DATA is cut to the allocation length (SBC-5 §5.22, §5.23)', async (t) => {
  const b = bench();
  const nexus = b.login(A);
  t.equal((await b.run(nexus, 0, [0x37, 0, 0x1f, 0, 0, 0, 0, 0, 2, 0])).data.toString('hex'), '001f');
  t.equal((await b.run(nexus, 0, [0x37, 0, 0, 0, 0, 0, 0, 1, 0, 0])).data.toString('hex'), '00000000');
  t.equal((await b.run(nexus, 0, [0xb7, 0x1f, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0])).data.toString('hex'), '001f00');
});

void t.test('SEEK looks at its address where its CDB has it, and needs a medium (SBC)', async (t) => {
  const b = bench();
  const nexus = b.login(A);
  const outcome = await b.run(nexus, 0, cdb10(0x2b, b.master.capacityBytes / 512, 0));
  t.same(
    [outcome.code, outcome.ends, outcome.sense?.readUInt32BE(3)],
    ['05/21/00', 1, b.master.capacityBytes / 512],
  );
  b.slave.present = false;
  for (const cdb of [[0x01, 0, 0, 0, 0, 0], [0x0b, 0, 0, 0, 0, 0], cdb10(0x2b, 0, 0)]) t.equal((await b.run(nexus, 1, cdb)).code, '02/3a/00'); // prettier-ignore
});

void t.test('WRITE ATOMIC names what is not aligned, counts, and takes 128 KiB (SBC-5 §5.48)', async (t) => {
  const b = bench();
  const nexus = b.login(A);
  const statistics = nexus.paths[0]?.unit.statistics;
  const write = async (lba: number, blocks: number, bytes = blocks * 512): Promise<unknown[]> => {
    const cdb = cdb16(0x9c, lba, 0);
    cdb.writeUInt16BE(blocks, 12);
    const outcome = await b.run(nexus, 0, cdb, Buffer.alloc(bytes, 7));
    return [outcome.code, fieldOf(outcome), outcome.ends];
  };
  t.same(await write(4, 8), ['05/24/00', 2, 1]);
  t.same(await write(8, 12), ['05/24/00', 12, 1]);
  t.same(await write(8, 0), ['', undefined, 1]);
  t.same(await write(8, 264), ['05/24/00', 12, 1], 'longer than may be');
  t.same(await write(8, 8, 2048), ['05/0e/03', undefined, 1], 'less data than blocks');
  t.same([statistics?.writeOps, statistics?.writeBytes], [0, 0]);
  t.notOk(b.master.bytes.includes(7));
  t.same(await write(8, 8), ['', undefined, 1]);
  t.same([statistics?.writeOps, statistics?.writeBytes], [1, 4096]);
  t.equal(b.master.flushes, 0, 'one physical block is written as it is');
  t.same(await write(256, 256), ['', undefined, 1]);
  t.same([statistics?.writeOps, statistics?.writeBytes], [2, 4096 + 131_072]);
  t.same([b.master.bytes.indexOf(7), b.master.bytes.lastIndexOf(7)], [8 * 512, 512 * 512 - 1]);
  b.master.fail = MEDIUM.FAILED;
  t.same(await write(8, 16), ['04/3e/01', undefined, 1]);
});

void t.test(
  'A stop of the unit writes its cache, with IMMED behind its status, and on a failure is told (SBC-5 §5.32)',
  async (t) => {
    const b = bench();
    const nexus = b.login(A);
    const stop = (lun: number, flags: number, immediate: number): TestTask =>
      b.start(nexus, lun, [0x1b, immediate, 0, 0, flags, 0]);
    b.master.holdFlush = true;
    for (const flags of [0x04, 0x01, 0x05]) t.equal(stop(0, flags, 0).outcome().status, 0, 'NO_FLUSH, START');
    t.equal(stop(1, 0, 0).outcome().status, 0, 'the slave has nothing to write');
    t.same([b.master.flushes, b.slave.flushes], [0, 0]);
    t.equal(stop(0, 0, 1).outcome().status, 0, 'IMMED');
    t.equal(b.master.flushes, 1);
    const waiting = stop(0, 0, 0);
    t.notOk(waiting.ended);
    b.master.release();
    t.equal((await waiting.whenEnded()).status, 0);
    t.same(b.warnings, []);
    b.master.fail = MEDIUM.FAILED;
    t.equal((await stop(0, 0, 0).whenEnded()).code, '04/3e/01');
    b.warnings.length = 0;
    for (const [cdb, name] of [
      [[0x1b, 1, 0, 0, 0, 0], 'START STOP UNIT'],
      [cdb10(0x35, 0, 0, 0x02), 'SYNCHRONIZE CACHE'],
    ] as const) {
      t.equal((await b.run(nexus, 0, cdb)).status, 0);
      await new Promise(setImmediate);
      const message = `cache could not be written after ${name} with IMMED`;
      t.match(b.warnings.splice(0), [{ message, fields: { unit: 'master' } }]);
    }
  },
);

void t.test(
  'START STOP UNIT that changes nothing asks nobody, and one that is refused says so to both (SBC-5 §5.32)',
  async (t) => {
    const asked: string[] = [];
    const b = bench({
      control: {
        load: (nexus, done) => {
          asked.push(`load by ${nexus.initiatorName}`);
          done({ code: 'failed', message: 'no room' });
        },
        eject: (nexus, done) => {
          asked.push(`eject by ${nexus.initiatorName}`);
          done({ code: 'in-use', message: 'held' });
        },
      },
    });
    const nexus = b.login(A);
    const [EJECT, LOAD] = [0x02, 0x03];
    const ask = async (lun: number, flags: number): Promise<[string, number | undefined]> => {
      const outcome = await b.run(nexus, lun, [0x1b, 0, 0, 0, flags, 0]);
      return [outcome.code, fieldOf(outcome)];
    };
    t.same(await ask(1, LOAD), ['', undefined], 'it is in');
    t.same(await ask(1, 0x10 | EJECT), ['', undefined], 'with a power condition LOEJ is ignored');
    t.same(await ask(0, EJECT), ['05/24/00', 4]);
    t.same(await ask(0, LOAD), ['05/24/00', 4]);
    t.same(asked, []);
    t.same(await ask(1, EJECT), ['05/53/02', undefined]);
    b.slave.present = false;
    t.same(await ask(1, EJECT), ['', undefined], 'it is out');
    t.same(await ask(1, LOAD), ['05/53/00', undefined]);
    t.same(asked, [`eject by ${A}`, `load by ${A}`]);
    const from = { initiator: A, address: '192.0.2.1' };
    t.match(b.warnings, [
      { message: 'START STOP UNIT refused: held', fields: { code: 'in-use', ...from } },
      { message: 'START STOP UNIT refused: no room', fields: { code: 'failed', ...from } },
    ]);
    b.slave.present = true;
    b.slave.generation++;
    b.target.mediumLoaded();
    t.equal((await b.run(nexus, 1, TUR)).code, '06/28/00', 'who was refused is told of the next medium');
  },
);

void t.test(
  'A load goes on though another initiator is refused something meanwhile: its sender need not be told',
  async (t) => {
    let loaded: (() => void) | undefined;
    const b = bench({
      control: {
        load: (_nexus, done) => {
          loaded = done;
        },
        eject: (_nexus, done) => done({ code: 'not-allowed', message: 'no' }),
      },
    });
    const [nexus, other] = [b.login(A), b.login(`${A}2`)];
    b.slave.present = false;
    const load = b.start(nexus, 1, [0x1b, 0, 0, 0, 0x03, 0]);
    b.slave.present = true;
    b.slave.generation++;
    t.equal((await b.run(other, 1, [0x1b, 0, 0, 0, 0x02, 0])).code, '05/53/00');
    b.target.mediumLoaded();
    loaded?.();
    t.equal((await load.whenEnded()).status, 0);
    t.equal((await b.run(nexus, 1, TUR)).code, '');
    t.equal((await b.run(other, 1, TUR)).code, '06/28/00');
  },
);
