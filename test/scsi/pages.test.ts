import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { COMMANDS, SET } from './commands.js';
import { opcodePage } from '../../src/scsi/opcode-page.js';
import { bench, cdb10, fieldOf, MemoryState } from './support.js';

function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder);
  return folder;
}

const inquiry = (page: number, allocation = 1024): number[] => [
  0x12,
  1,
  page,
  allocation >> 8,
  allocation & 255,
  0,
];

/** Designators of page 83h as "association/type" → value. */
function designators(page: Buffer): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  for (let at = 4; at < page.length; at += 4 + page[at + 3]) {
    found.set(
      `${(page[at + 1] >> 4) & 3}/${page[at + 1] & 15}`,
      page.subarray(at + 4, at + 4 + page[at + 3]),
    );
  }
  return found;
}

void t.test('docs/scsi.md is what the opcode table says (UPDATE_DOCS=1 writes it)', (t) => {
  const file = join(packageRoot(), 'docs', 'scsi.md');
  if (process.env['UPDATE_DOCS'] === '1') writeFileSync(file, opcodePage());
  t.equal(readFileSync(file, 'utf8'), opcodePage());
  t.end();
});

void t.test('Every command is found by its own usage data and refuses each bit outside it', async (t) => {
  const b = bench();
  const nexus = b.login();
  for (const command of COMMANDS) {
    t.equal(SET.find(command.usageData), command, command.name);
    for (let byte = 1; byte < command.usageData.length; byte++) {
      for (let bit = 0; bit < 8; bit++) {
        if (((command.usageData[byte] >> bit) & 1) !== 0) continue;
        const inAction = command.opcode === 0x7f ? byte === 8 || byte === 9 : byte === 1 && bit < 5;
        if (command.serviceAction !== undefined && inAction) continue;
        const cdb = Buffer.alloc(32);
        cdb[0] = command.opcode;
        if (command.opcode === 0x7f) command.usageData.copy(cdb, 7, 7, 10);
        else if (command.serviceAction !== undefined) cdb[1] = command.serviceAction;
        cdb[byte] |= 1 << bit;
        const { code, sense } = await b.run(nexus, 0, cdb);
        if (code !== '05/24/00' || sense?.readUInt16BE(16) !== byte || (sense[15] & 0xc0) !== 0xc0) {
          t.fail(`${command.name}: byte ${String(byte)} bit ${String(bit)}: ${code}`);
        }
      }
    }
  }
});

void t.test(
  'A CDB of variable length has the length of its command, and comes whole (SPC-6 §4.2.3)',
  async (t) => {
    const b = bench();
    const nexus = b.login();
    const cdb = Buffer.alloc(36);
    cdb.set([0x7f, 0, 0, 0, 0, 0, 0, 0x18, 0, 0x12]);
    cdb[31] = 64;
    const ask = async (additional: number, bytes: number): Promise<unknown[]> => {
      cdb[7] = additional;
      const outcome = await b.run(nexus, 0, cdb.subarray(0, bytes));
      return [outcome.code, fieldOf(outcome)];
    };
    t.same(await ask(0x18, 32), ['', undefined]);
    t.same(await ask(0x18, 28), ['05/24/00', 7], 'four bytes are missing');
    for (const fewer of [0x14, 0x10, 0x08]) t.same(await ask(fewer, 32), ['05/24/00', 7], 'it says fewer');
    t.same(await ask(0x1c, 36), ['05/24/00', 7], 'it says more');
  },
);

void t.test('REPORT SUPPORTED OPERATION CODES tells the table, with timeouts (SPC-6 §6.33)', async (t) => {
  const b = bench();
  const nexus = b.login();
  const ask = (options: number, opcode = 0, action = 0): number[] => [
    0xa3,
    0x0c,
    options,
    opcode,
    0,
    action,
    0,
    0,
    0xff,
    0xff,
    0,
    0,
  ];
  const { data } = await b.run(nexus, 0, ask(0));
  const listed = COMMANDS.filter((command) => command.listed !== false);
  t.equal(data.readUInt32BE(0), listed.length * 8);
  t.equal((await b.run(nexus, 0, ask(0x80))).data.readUInt32BE(0), listed.length * 20);
  const read = await b.run(nexus, 0, ask(1, 0x28));
  t.equal(read.data.toString('hex'), '0003000a281affffffff3fffff00');
  t.equal((await b.run(nexus, 0, ask(1, 0xa3))).code, '05/24/00', 'has service actions');
  t.equal((await b.run(nexus, 0, ask(2, 0x28))).code, '05/24/00', 'has none');
  t.equal((await b.run(nexus, 0, ask(2, 0xc7))).data[1], 1, 'not supported');
  t.equal((await b.run(nexus, 0, ask(3, 0x7f, 0x12))).data[1], 3);
  t.equal((await b.run(nexus, 0, ask(3, 0xc7))).data[1], 1, 'not supported');
  t.equal((await b.run(nexus, 0, [0xc7])).code, '05/20/00');
});

void t.test('RSOC: reserved reporting options are refused, not masked to others', async (t) => {
  const b = bench();
  const nexus = b.login();
  // Every opcode, so that a table behind the mask would be run over.
  for (let options = 4; options <= 0x7f; options++)
    for (const opcode of [0x00, 0x28, 0x7f, 0xa3, 0xff]) {
      const cdb = [0xa3, 0x0c, options, opcode, 0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0];
      const { code } = await b.run(nexus, 0, cdb);
      if (code !== '05/24/00') t.fail(`options ${options}, opcode ${opcode}: ${code}`);
    }
  t.pass('all are refused');
});

void t.test(
  'REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS names each function by its bit (SPC-6 §6.35)',
  async (t) => {
    const b = bench();
    const nexus = b.login();
    const short = (await b.run(nexus, 0, [0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0])).data;
    // ATS, ATSS, CTSS, LURS, QTS; not CACAS, nor the obsolete TRS and WAKES. QAES, QTSS, ITNRS.
    t.same([...short], [0b1101_1100, 0b0000_0111, 0, 0]);
    const extended = (await b.run(nexus, 0, [0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 0, 255, 0, 0])).data;
    t.same([extended.length, extended[0], extended[3]], [16, short[0], 12], 'REPD');
  },
);

void t.test(
  'Identity: stable over restarts, equal on all ports, distinct for the two units (SPC-6 §7.7.6)',
  async (t) => {
    const b = bench();
    const page = async (from: typeof b, tag: number, lun: number): Promise<Map<string, Buffer>> =>
      designators(
        (await from.run(from.login('iqn.2024-01.org.example:x', { tag }), lun, inquiry(0x83))).data,
      );
    const master = await page(b, 1, 0);
    const other = await page(b, 2, 0);
    const slave = await page(b, 1, 1);
    const restarted = await page(bench(), 1, 0);
    for (const id of ['0/3', '0/1', '0/10', '0/8']) {
      t.same(master.get(id), other.get(id));
      t.same(master.get(id), restarted.get(id));
      t.notSame(master.get(id), slave.get(id));
    }
    t.equal((master.get('0/3')?.[0] ?? 0) >> 4, 3, 'NAA locally assigned');
    t.match(master.get('1/8')?.toString(), /^iqn\.2024-01\.org\.example:disk,t,0x0001\0/);
    t.match(other.get('1/8')?.toString(), /,t,0x0002\0/);
    t.notSame(master.get('1/4'), other.get('1/4'), 'relative target port');
    const serial = (await b.run(b.login(), 0, inquiry(0x80))).data;
    t.equal(serial.length, 4 + 32);
  },
);

void t.test(
  'INQUIRY pages: all that are listed answer, lengths are true, short allocations truncate (SPC-6 §4.2.5.6)',
  async (t) => {
    const b = bench();
    const nexus = b.login();
    const list = await b.run(nexus, 0, inquiry(0));
    for (const code of list.data.subarray(4)) {
      const { data } = await b.run(nexus, 0, inquiry(code));
      t.equal(data[1], code);
      t.equal(data.readUInt16BE(2), data.length - 4);
      for (const allocation of [0, 1, 5, 17]) {
        const short = await b.run(nexus, 0, inquiry(code, allocation));
        t.ok(short.data.equals(data.subarray(0, allocation)));
      }
    }
    t.equal((await b.run(nexus, 0, inquiry(0xb9))).code, '05/24/00');
    t.equal((await b.run(nexus, 0, [0x12, 0, 1, 0, 96, 0])).code, '05/24/00', 'page code without EVPD');
    const standard = [0, 1].map(async (lun) => (await b.run(nexus, lun, [0x12, 0, 0, 0, 96, 0])).data[1]);
    t.same(await Promise.all(standard), [0, 0x80], 'only the slave is removable');
    const limits = (await b.run(nexus, 0, inquiry(0xb0))).data;
    t.equal(limits.readUInt16BE(6), 8, 'OPTIMAL TRANSFER LENGTH GRANULARITY: 4 KiB');
    t.equal(limits.readUInt32BE(28), 8, 'OPTIMAL UNMAP GRANULARITY: 4 KiB');
    const capacity = await b.run(nexus, 0, [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]);
    t.equal(capacity.data.readUInt32BE(4), b.master.capacityBytes / 512 - 1);
    t.equal(capacity.data[13], 3);
    t.equal(capacity.data[14], 0xc0);
  },
);

void t.test(
  'MODE SENSE shows and MODE SELECT changes: others are told, SP keeps it, a reset undoes the rest (SPC-6 §6.11)',
  async (t) => {
    const state = new MemoryState();
    const b = bench({ state });
    const a = b.login();
    const other = b.login('iqn.2024-01.org.example:other');
    const sense = async (page: number, control = 0, subpage = 0): Promise<Buffer> =>
      (await b.run(a, 0, [0x1a, 0x08, (control << 6) | page, subpage, 255, 0])).data;
    const select = async (page: string, save = 0): Promise<string> => {
      const list = Buffer.from(`00000000${page.replaceAll(' ', '')}`, 'hex');
      return (await b.run(a, 0, [0x15, 0x10 | save, 0, 0, list.length, 0], list)).code;
    };
    t.equal((await sense(0x08))[4 + 2], 0x04, 'WCE');
    t.equal((await sense(0x0a, 1))[4 + 2], 0x04, 'changeable: D_SENSE');
    t.equal((await sense(0x3f, 0, 0xff)).length - 1, (await sense(0x3f, 0, 0xff))[0]);
    t.equal(await select('0a0a 0614000000 00ffff0000'), '05/26/00', 'TMF_ONLY is not changeable');
    t.equal(await select('0a0a 0210000000'), '05/1a/00', 'cut short');
    t.equal(await select('3f00'), '05/26/00');
    t.equal(await select('0a0a 0610000000 00ffff0000', 1), '');
    const { sense: descriptor } = await b.run(a, 0, cdb10(0x28, 0x7fff_ffff, 1));
    t.equal(descriptor?.[0], 0x72);
    t.equal((await b.run(other, 0, [0, 0, 0, 0, 0, 0])).code, '06/2a/01');
    t.equal(await select('0a0a 0610000800 00ffff0000'.replace('0610000800', '0610080000')), '', 'SWP');
    t.equal((await b.run(a, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).code, '07/27/02');
    t.equal((await b.run(a, 0, cdb10(0x28, 0, 1))).status, 0);
    const restarted = bench({ state });
    const after = restarted.login();
    t.equal(
      (await restarted.run(after, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).status,
      0,
      'SWP was not saved',
    );
    t.equal((await restarted.run(after, 0, cdb10(0x28, 0x7fff_ffff, 1))).sense?.[0], 0x72, 'D_SENSE was');
    state.fails = true;
    t.equal(await select('0a0a 0210000000 00ffff0000', 1), '04/44/00', 'not durable: not GOOD');
    const long = await b.run(a, 0, [0x5a, 0x10, 0x3f, 0, 0, 0, 0, 4, 0, 0]);
    t.equal(long.data.readUInt16BE(0), long.data.length - 2);
    t.equal(long.data.readUInt16BE(6), 16, 'long LBA block descriptor');
  },
);

void t.test(
  'LOG SENSE counts what was done, and LOG SELECT clears only what it shows (SPC-6 §6.7, §6.8)',
  async (t) => {
    const b = bench();
    const nexus = b.login();
    const sense = async (page: number, pointer = 0): Promise<Buffer> =>
      (await b.run(nexus, 0, [0x4d, 0, 0x40 | page, 0, 0, 0, pointer, 2, 0, 0])).data;
    await b.run(nexus, 0, cdb10(0x2a, 0, 4), Buffer.alloc(2048));
    await b.run(nexus, 0, cdb10(0x28, 0, 3));
    const statistics = await sense(0x19);
    t.equal(statistics.readUInt32BE(8 + 4), 1, 'read commands');
    t.equal(statistics.readUInt32BE(8 + 16 + 4), 4, 'blocks received');
    t.equal(statistics.readUInt32BE(8 + 24 + 4), 3, 'blocks transmitted');
    b.master.slow = true;
    await b.run(nexus, 0, cdb10(0x28, 0, 3));
    const timed = await sense(0x19);
    const readMicroseconds = Number(timed.readBigUInt64BE(8 + 32));
    t.ok(readMicroseconds > 0 && readMicroseconds < 60e6, 'READ COMMAND PROCESSING INTERVALS');
    t.ok(Number(timed.readBigUInt64BE(8 + 40)) < 60e6, 'WRITE COMMAND PROCESSING INTERVALS');
    t.equal(timed.toString('hex', timed.length - 8), '0000000600000001', 'of 1 × 10^-6 s');
    for (const page of (await sense(0)).subarray(4)) t.equal((await sense(page))[0] & 0x3f, page);
    t.equal((await sense(0x02, 6)).readUInt16BE(4), 6, 'PARAMETER POINTER');
    await b.run(nexus, 0, [0x4c, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
    t.equal((await sense(0x19)).readUInt32BE(8 + 4), 0);
    t.equal((await sense(0x19)).readBigUInt64BE(8 + 32), 0n);
    t.equal(b.target.statistics().master.readOps, 2, "the operator's counters go on");
  },
);
