/** EXTENDED COPY at the bounds of its list and of the units, and what stops it on its way (SPC-4 §6.3, §6.19 to §6.22). */
import t from 'tap';
import { MEDIUM } from '../../src/scsi/medium.js';
import type { MediumResult } from '../../src/scsi/medium.js';
import { TASK_MANAGEMENT } from '../../src/scsi/port.js';
import type { Nexus } from '../../src/scsi/nexus.js';
import { parameters, targetDescriptor, xcopy } from './copies.js';
import { bench, fieldOf, MemoryMedium } from './support.js';
import type { Bench, Outcome, TestTask } from './support.js';
import { told, watch } from './watch.js';

const NOT_REACHABLE = '0a/0d/02';
const THIRD_PARTY_FAILURE = '0a/0d/01';
const UNREACHABLE = '0a/08/04';

type Mediums = Pick<Bench, 'master' | 'slave'>;
type Segments = Parameters<typeof parameters>[1];

/** A target whose slave is full, and EXTENDED COPY with targets 0 (the master) and 1 (the slave). */
async function served(master = new MemoryMedium(8 * 1024 * 1024)) {
  const b = bench({ master });
  const nexus = b.login();
  for (let lba = 0; lba < b.slave.capacityBytes / 512; lba++)
    b.slave.bytes.fill(1 + (lba % 251), lba * 512, (lba + 1) * 512);
  for (let at = 0; at < b.slave.capacityBytes; at += 4096) b.slave.mapped.add(at);
  const targets = [await targetDescriptor(b, nexus, 0), await targetDescriptor(b, nexus, 1)];
  const startList = (list: Buffer, lun = 0): TestTask => b.start(nexus, lun, xcopy(list), list);
  const start = (segments: Segments, lun = 0, id = 7): TestTask => {
    const list = parameters(targets, segments);
    list[0] = id;
    return startList(list, lun);
  };
  return {
    ...b,
    nexus,
    targets,
    start,
    startList,
    startCommand: (cdb: number[]): TestTask => b.start(nexus, 0, cdb),
    run: b.run,
    copy: async (segments: Segments) => await start(segments).whenEnded(),
  };
}

/** Never takes a write at once, only in its turn. */
class Busy extends MemoryMedium {
  override write(): MediumResult {
    return MEDIUM.PENDING;
  }
}

/** RECEIVE COPY STATUS, or its sense. */
async function status({ run }: Pick<Bench, 'run'>, nexus: Nexus, id = 7, bytes = 255): Promise<string> {
  const outcome = await run(nexus, 0, [0x84, 0, id, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, bytes, 0, 0]);
  return outcome.code === '' ? outcome.data.toString('hex') : `${outcome.code} ${String(fieldOf(outcome))}`;
}

async function turns(count: number): Promise<void> {
  for (let n = 0; n < count; n++) await new Promise(setImmediate);
}

void t.test('A list may be as long as its limits say, and no longer', async (t) => {
  const b = await served();
  const [master] = b.targets;
  const send = async (list: Buffer): Promise<string> => (await b.run(b.nexus, 0, xcopy(list), list)).code;
  const full = parameters(
    Array.from({ length: 16 }, () => master),
    Array.from({ length: 16 }, (_, n): Segments[number] => [n, 15 - n, 0, 64, 8]),
  );
  t.equal(await send(full), '', '16 targets and 16 segments');
  t.equal(await send(Buffer.concat([full], 16 + 4 * 960)), '');
  t.equal(await send(Buffer.concat([full], 16 + 4 * 960 + 1)), '05/1a/00');
  t.equal(await send(Buffer.alloc(16)), '', 'no descriptors');
  t.equal(await send(Buffer.alloc(15)), '05/1a/00');
  const cut = Buffer.concat([
    parameters([master], []),
    Buffer.alloc(8),
    parameters([], [[0, 0, 0, 64, 8]]).subarray(16),
  ]);
  cut[48] = 0xe4;
  cut.writeUInt16BE(40, 2);
  cut.writeUInt32BE(28, 8);
  t.equal(await send(cut), '05/1a/00', 'a target descriptor of 8 bytes');
  t.equal(await send(parameters([], [[0, 0, 0, 64, 8]])), UNREACHABLE, 'a segment of no targets');
  t.equal(await send(parameters([master], [[0, 1, 0, 64, 8]])), UNREACHABLE);
  t.equal(await send(parameters([master], [[1, 0, 0, 64, 8]])), UNREACHABLE);
});

void t.test('A copy may reach to the last block of either unit, not behind it', async (t) => {
  const b = await served(new MemoryMedium(4 * 1024 * 1024));
  const [ofMaster, ofSlave] = [8192, 16_384];
  t.equal((await b.copy([[1, 0, ofSlave - 9, ofMaster - 9, 9]])).code, '');
  t.ok(b.master.bytes.subarray(-9 * 512).equals(b.slave.bytes.subarray(-9 * 512)));
  t.equal((await b.copy([[1, 0, ofSlave - 8, 0, 9]])).code, NOT_REACHABLE);
  t.equal((await b.copy([[1, 0, 0, ofMaster - 8, 9]])).code, NOT_REACHABLE);
  const far = parameters(b.targets, [[1, 0, 0, 0, 8]]);
  for (const at of [16 + 64 + 12, 16 + 64 + 20]) {
    const list = Buffer.from(far);
    list.writeUInt32BE(1, at);
    t.equal((await b.run(b.nexus, 0, xcopy(list), list)).code, NOT_REACHABLE, 'LBA 2^32');
  }
  t.equal((await b.copy([[1, 0, 0, 0, 0]])).code, '', 'a segment of no blocks');
});

void t.test(
  'Several segments are copied one after the other, also from a slow device (SPC-4 §6.20)',
  async (t) => {
    for (const slow of [false, true]) {
      const b = await served();
      b.slave.slow = slow;
      const seen = watch(b.slave);
      const written = watch(b.master);
      t.equal((await b.copy([[1, 0, 8, 4000, 1100], [1, 0, 3000, 13, 7]])).code, ''); // prettier-ignore
      t.ok(
        b.master.bytes.subarray(4000 * 512, 5100 * 512).equals(b.slave.bytes.subarray(8 * 512, 1108 * 512)),
      );
      t.ok(
        b.master.bytes.subarray(13 * 512, 20 * 512).equals(b.slave.bytes.subarray(3000 * 512, 3007 * 512)),
      );
      const by = slow ? 'readAsync' : 'read';
      t.same(
        told(seen).filter((access) => access.startsWith(`${by} `)),
        [`${by} 8+512`, `${by} 520+512`, `${by} 1032+76`, `${by} 3000+7`],
      );
      t.equal(told(seen).length, slow ? 8 : 4, 'the memory medium reads later by reading');
      t.same(told(written), ['write 4000+512', 'write 4512+512', 'write 5024+76', 'write 13+7']);
      t.equal(await status(b, b.nexus), '00000008' + '01' + '0002' + '01' + '00000229', '553 KiB');
      t.equal(await status(b, b.nexus, 7, 5), '0000000801');
      t.equal(await status(b, b.nexus, 8), '05/24/00 2');
    }
  },
);

void t.test('A copy under way says so, and a held write goes on in its turn', async (t) => {
  const b = await served();
  b.master.held = true;
  const task = b.start([[1, 0, 8, 64, 600]]);
  await turns(3);
  t.notOk(task.ended);
  t.equal(await status(b, b.nexus), '00000008' + '00' + '0000' + '01' + '00000000');
  b.master.release();
  t.equal((await task.whenEnded()).code, '');
  t.ok(b.master.bytes.subarray(64 * 512, 664 * 512).equals(b.slave.bytes.subarray(8 * 512, 608 * 512)));
});

void t.test('A copy onto a medium that is always busy waits its turn for each piece', async (t) => {
  const b = await served(new Busy(8 * 1024 * 1024));
  t.equal((await b.copy([[1, 0, 8, 64, 1100]])).code, '');
  t.ok(b.master.bytes.subarray(64 * 512, 1164 * 512).equals(b.slave.bytes.subarray(8 * 512, 1108 * 512)));
});

void t.test('A run of no blocks, which tells nothing, is read', async (t) => {
  const b = await served();
  b.slave.provisioning = () => ({ mapped: false, lengthBytes: 0 });
  t.equal((await b.copy([[1, 0, 8, 64, 8]])).code, '');
  t.ok(b.master.bytes.subarray(64 * 512, 72 * 512).equals(b.slave.bytes.subarray(8 * 512, 16 * 512)));
});

void t.test('A unit that is being sanitized is no destination, whatever the source', async (t) => {
  const b = await served();
  b.master.held = true;
  const erase = b.startCommand([0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0]);
  t.equal((await b.start([[1, 0, 8, 64, 8]], 1).whenEnded()).code, NOT_REACHABLE);
  b.master.release();
  t.equal((await erase.whenEnded()).code, '');
});

void t.test('LIST ID USAGE 11b leaves no result behind, the others do (SPC-4 §6.3.2)', async (t) => {
  const b = await served();
  for (const [usage, kept] of [
    [0, true],
    [2, true],
    [3, false],
  ] as const) {
    const list = parameters(b.targets, [[1, 0, 0, 0, 8]]);
    list[0] = usage === 3 ? 0 : 40 + usage;
    list[1] = usage << 3;
    t.equal((await b.run(b.nexus, 0, xcopy(list), list)).code, '');
    t.equal((await status(b, b.nexus, list[0])).startsWith('00000008'), kept);
  }
  const unnamed = parameters(b.targets, [[1, 0, 0, 0, 8]]);
  unnamed[0] = 0;
  b.master.held = true;
  const zeroth = b.start([[1, 0, 0, 0, 8]], 0, 0);
  unnamed[1] = 0x18;
  const beside = b.startList(unnamed);
  t.notOk(beside.ended, 'beside one under way whose identifier is 0');
  b.master.release();
  t.same([(await zeroth.whenEnded()).code, (await beside.whenEnded()).code], ['', '']);
});

void t.test(
  'A designator is that of a unit, whatever is reserved beside its type (SPC-6 §7.7.6.1)',
  async (t) => {
    const b = await served();
    const named = async (change: (descriptor: Buffer) => void): Promise<string> => {
      const descriptor = Buffer.from(b.targets[0]);
      change(descriptor);
      const list = parameters([descriptor], [[0, 0, 0, 64, 8]]);
      return (await b.run(b.nexus, 0, xcopy(list), list)).code;
    };
    t.equal(await named((descriptor) => (descriptor[5] |= 0xc0)), '');
    t.equal(await named((descriptor) => (descriptor[5] |= 0x10)), UNREACHABLE, 'of a port');
    t.equal(await named((descriptor) => (descriptor[7] = 7)), UNREACHABLE, 'a part of it');
    t.equal(await named((descriptor) => (descriptor[7] = 9)), UNREACHABLE, 'more than it');
    t.equal(await named((descriptor) => descriptor.fill(0, 8, 28).fill(0, 7, 8)), UNREACHABLE, 'none');
    const page = (await b.run(b.nexus, 0, [0x12, 1, 0x83, 1, 0, 0])).data;
    const t10 = (type: number) => (descriptor: Buffer) => {
      descriptor.set([2, type, 0, 20], 4);
      page.copy(descriptor, 8, 20, 40);
    };
    t.equal(await named(t10(1)), '', 'T10 vendor identification');
    t.equal(await named(t10(2)), UNREACHABLE, 'the same as another type');
  },
);

void t.test('What changes under a copy stops it, if it matters (SPC-4 §6.3)', async (t) => {
  for (const [change, code, act] of [
    ['SWP', THIRD_PARTY_FAILURE, undefined],
    ['another medium', THIRD_PARTY_FAILURE, ({ slave }: Mediums) => slave.generation++],
    ["the master's generation", '', ({ master }: Mediums) => master.generation++],
  ] as const) {
    const b = await served();
    const task = b.start([[1, 0, 0, 0, 8192]]);
    while (b.master.bytes[0] === 0) await turns(1);
    const list = Buffer.from('00000000' + '0a0a' + '02100800' + '0000ffff0000', 'hex');
    if (act === undefined) await b.run(b.nexus, 0, [0x15, 0x10, 0, 0, list.length, 0], list);
    else act(b);
    t.equal((await task.whenEnded()).code, code, change);
    t.equal(b.master.bytes[8191 * 512] !== 0, code === '', change);
    t.match(await status(b, b.nexus), code === '' ? /^0000000801/ : /^0000000802/);
  }
});

void t.test('An aborted copy writes nothing more, and its result is that it failed', async (t) => {
  const b = await served();
  const task = b.start([[1, 0, 0, 0, 8192]]);
  while (b.master.bytes[0] === 0) await turns(1);
  const request = { nexus: b.nexus, lunHigh: 0, lunLow: 0, task: undefined };
  await new Promise<void>((resolve) => {
    b.target.manage({ ...request, function: TASK_MANAGEMENT.ABORT_TASK_SET }, () => resolve());
  });
  t.ok((await task.whenEnded()).aborted);
  const written = b.master.bytes.lastIndexOf(1);
  await turns(20);
  t.equal(b.master.bytes.lastIndexOf(1), written);
  t.match(await status(b, b.nexus), /^0000000802/);
});

void t.test('A copy needs the right to read its source and to write its destination', async (t) => {
  const b = await served();
  const other = b.login('iqn.2024-01.org.example:other');
  const reserve = async (lun: number, type: number, action: number): Promise<void> => {
    const list = Buffer.alloc(24);
    list[7] = 1;
    t.equal((await b.run(other, lun, [0x5f, action, type, 0, 0, 0, 0, 0, 24, 0], list)).status, 0);
  };
  const register = Buffer.alloc(24);
  register[15] = 1;
  for (const lun of [0, 1]) await b.run(other, lun, [0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0], register);
  // By way of the slave, whose own reservation does not matter to EXTENDED COPY there.
  const copy = async (lun: number): Promise<Outcome> => await b.start([[1, 0, 0, 0, 8]], lun).whenEnded();
  const WRITE_EXCLUSIVE = 1;
  await reserve(1, WRITE_EXCLUSIVE, 1);
  t.equal((await copy(0)).code, '', 'the source may be read');
  await reserve(1, WRITE_EXCLUSIVE, 2);
  await reserve(0, WRITE_EXCLUSIVE, 1);
  t.equal((await copy(1)).code, NOT_REACHABLE, 'the destination may not be written');
  await reserve(0, WRITE_EXCLUSIVE, 2);
  t.equal((await copy(1)).code, '');
});

void t.test('Holes are made as far as they go, and a result makes room for the next', async (t) => {
  const b = await served();
  b.master.bytes.fill(0xff);
  for (let at = 0; at < b.master.capacityBytes; at += 4096) b.master.mapped.add(at);
  for (let at = 64 * 512; at < 128 * 512; at += 4096) b.slave.mapped.delete(at);
  b.slave.bytes.fill(0, 64 * 512, 128 * 512);
  const seen: number[][] = [];
  const unmap = b.master.unmap.bind(b.master);
  b.master.unmap = (position, length) => {
    seen.push([position / 512, length / 512]);
    return unmap(position, length);
  };
  t.equal((await b.copy([[1, 0, 64, 1000, 40]])).code, '');
  t.same(seen, [[1000, 40]], 'no further than the segment');
  t.equal((await b.copy([[1, 0, 100, 2000, 100]])).code, '');
  t.same(seen[1], [2000, 28]);
  t.ok(b.master.bytes.subarray(2000 * 512, 2100 * 512).equals(b.slave.bytes.subarray(100 * 512, 200 * 512)));
  t.equal(await status(b, b.nexus), '00000008' + '01' + '0001' + '01' + '00000032');
  for (let at = 640 * 512; at < 704 * 512; at += 4096) b.slave.mapped.delete(at);
  t.equal((await b.copy([[1, 0, 128, 1000, 520]])).code, '');
  t.same(seen.at(-1), [1512, 8], 'nor behind what was read');
  b.master.fail = MEDIUM.FAILED;
  t.equal((await b.copy([[1, 0, 100, 2000, 8], [1, 0, 0, 0, 8]])).code, THIRD_PARTY_FAILURE); // prettier-ignore
  t.equal(await status(b, b.nexus), '00000008' + '02' + '0000' + '01' + '00000000');
});
