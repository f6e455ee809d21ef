/**
 * What Windows and ESXi ask a new disk, as far as it is publicly described. Neither host was at hand, so these are no
 * recordings: the commands are those that the descriptions name, in the order that they give where they give one, and
 * each is checked for what such a host needs of the answer to keep the disk or the feature.
 *
 * Windows, by the sources of its class and disk drivers (Windows Driver Samples, classpnp and disk): the start of a disk
 * reads the list of VPD pages, provisioning (B2h, READ CAPACITY (16), B0h), the limits of token copies (8Fh), and on a
 * thin disk the Control page, of which it wants QERR=0; then failure prediction (1Ch), the write cache (08h), and whether
 * the disk is writable. Cluster arbitration by persistent reservations is as Microsoft documents it for failover clusters.
 *
 * ESXi, by VMware's articles 1010244 (what a rescan sends, and that 5h/24h and 5h/20h are expected answers) and 1021976
 * (hardware acceleration: 89h, 93h, 83h, 42h), and by logs in the issues of other targets: a scan reads VPD 86h
 * (spdk/spdk#405), health checks send 85h, 4Dh and MODE SENSE of page 1Ch.
 */
import t from 'tap';
import { bench, cdb10, cdb16 } from './support.js';
import type { Outcome } from './support.js';

interface Step {
  name: string;
  cdb: number[] | Buffer;
  dataOut?: Buffer;
  /** Sense triple; GOOD if left out. */
  code?: string;
  check?: (data: Buffer) => boolean;
}

const inquiry = (page: number | undefined, bytes: number): number[] =>
  page === undefined ? [0x12, 0, 0, 0, bytes, 0] : [0x12, 1, page, bytes >>> 8, bytes & 255, 0];
const modeSense6 = (page: number, bytes: number): number[] => [0x1a, 0, page, 0, bytes, 0];
const readCapacity16 = cdb16(0x9e, 0, 32, 0x10);
const isPage =
  (page: number) =>
  (data: Buffer): boolean =>
    data[1] === page && data.length === 4 + data.readUInt16BE(2);

/** UNMAP of 8 blocks. */
const unmapOneBlock = Buffer.alloc(24);
unmapOneBlock.writeUInt16BE(22, 0);
unmapOneBlock.writeUInt16BE(16, 2);
unmapOneBlock.writeUInt32BE(64, 12);
unmapOneBlock.writeUInt32BE(8, 16);

const WINDOWS: Step[] = [
  {
    name: 'REPORT LUNS',
    cdb: [0xa0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0],
    check: (data) => data.readUInt32BE(0) === 16,
  },
  {
    name: 'INQUIRY of 36 bytes',
    cdb: inquiry(undefined, 36),
    check: (data) => data.length === 36 && data[4] >= 31,
  },
  { name: 'the list of VPD pages', cdb: inquiry(0x00, 255), check: isPage(0x00) },
  { name: 'the serial number', cdb: inquiry(0x80, 255), check: isPage(0x80) },
  { name: 'the identification, for MPIO', cdb: inquiry(0x83, 255), check: isPage(0x83) },
  { name: 'the unit attention of a new nexus', cdb: [0, 0, 0, 0, 0, 0], code: '06/29/00' },
  { name: 'TEST UNIT READY', cdb: [0, 0, 0, 0, 0, 0] },
  {
    name: 'READ CAPACITY (10)',
    cdb: [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    check: (data) => data.readUInt32BE(4) === 512,
  },
  { name: 'READ CAPACITY (16)', cdb: readCapacity16, check: (data) => data[13] === 3 && data[14] === 0xc0 },
  {
    name: 'all mode pages, for write protection',
    cdb: modeSense6(0x3f, 192),
    check: (data) => data[0] === data.length - 1,
  },
  { name: 'caching', cdb: modeSense6(0x08, 192), check: (data) => (data[4 + data[3]] & 0x3f) === 0x08 },
  {
    name: 'informational exceptions',
    cdb: modeSense6(0x1c, 192),
    check: (data) => (data[4 + data[3]] & 0x3f) === 0x1c,
  },
  { name: 'block limits', cdb: inquiry(0xb0, 64), check: isPage(0xb0) },
  { name: 'seek penalty', cdb: inquiry(0xb1, 64), check: (data) => data.readUInt16BE(4) === 1 },
  { name: 'provisioning', cdb: inquiry(0xb2, 8), check: (data) => (data[5] & 0x84) === 0x84 },
  { name: 'offloaded copies', cdb: inquiry(0x8f, 4096), check: isPage(0x8f) },
  {
    name: 'QERR, which has to be 0 on a thin disk',
    cdb: modeSense6(0x0a, 192),
    check: (data) => (data[4 + data[3]] & 0x3f) === 0x0a && (data[4 + data[3] + 3] & 0x06) === 0,
  },
  {
    name: 'provisioning resources',
    cdb: [0x4d, 0, 0x4c, 0, 0, 0, 0, 0, 255, 0],
    check: (data) => data[0] === 0x0c,
  },
  { name: 'port groups', cdb: [0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 255, 0, 0, 0], check: (data) => data[4] === 0 },
  {
    name: 'keys, for a cluster',
    cdb: [0x5e, 0, 0, 0, 0, 0, 0, 0, 255, 0],
    check: (data) => data.readUInt32BE(4) === 0,
  },
  { name: 'an ATA command', cdb: cdb16(0x85, 0, 0), code: '05/20/00' },
  { name: 'the partition table', cdb: cdb10(0x28, 0, 1), check: (data) => data.length === 512 },
  { name: 'freed blocks', cdb: [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], dataOut: unmapOneBlock },
  { name: 'a write through', cdb: cdb10(0x2a, 0, 1, 0x08), dataOut: Buffer.alloc(512) },
  { name: 'the cache, at shutdown', cdb: cdb10(0x35, 0, 0) },
];

/** COMPARE AND WRITE of one block, which ESXi locks its file systems with. */
const atomicTestAndSet = Buffer.concat([cdb16(0x89, 8, 0).subarray(0, 13), Buffer.from([1, 0, 0])]);

const ESXI: Step[] = [
  { name: 'REPORT LUNS', cdb: [0xa0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0] },
  {
    name: 'INQUIRY',
    cdb: inquiry(undefined, 36),
    check: (data) => (data[5] & 0x30) !== 0 && (data[5] & 0x08) !== 0,
  },
  { name: 'the list of VPD pages', cdb: inquiry(0x00, 254), check: isPage(0x00) },
  {
    name: 'the identification, which names the device',
    cdb: inquiry(0x83, 254),
    check: (data) => data[5] === 3,
  },
  { name: 'the serial number', cdb: inquiry(0x80, 254), check: isPage(0x80) },
  { name: 'the extended INQUIRY data', cdb: inquiry(0x86, 254), check: isPage(0x86) },
  { name: 'the unit attention of a new nexus', cdb: [0, 0, 0, 0, 0, 0], code: '06/29/00' },
  { name: 'TEST UNIT READY', cdb: [0, 0, 0, 0, 0, 0] },
  { name: 'READ CAPACITY (10)', cdb: [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0] },
  { name: 'READ CAPACITY (16)', cdb: readCapacity16, check: (data) => data.length === 32 },
  { name: 'caching', cdb: [0x1a, 8, 8, 0, 255, 0], check: (data) => data[3] === 0 && data[4] === 0x88 },
  { name: 'port groups', cdb: [0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0] },
  { name: 'a page of ATA devices that is not there', cdb: inquiry(0x89, 254), code: '05/24/00' },
  { name: 'a vendor page that is not there', cdb: inquiry(0xc0, 254), code: '05/24/00' },
  { name: 'an ATA command', cdb: cdb16(0x85, 0, 0), code: '05/20/00' },
  { name: 'health', cdb: modeSense6(0x1c, 255), check: (data) => (data[4 + data[3]] & 0x3f) === 0x1c },
  { name: 'health', cdb: [0x4d, 0, 0x40 | 0x2f, 0, 0, 0, 0, 2, 0, 0], check: (data) => data[0] === 0x2f },
  {
    name: 'block limits',
    cdb: inquiry(0xb0, 254),
    check: (data) => data[5] >= 1 && data.readUInt32BE(20) > 0,
  },
  { name: 'provisioning', cdb: inquiry(0xb2, 254), check: (data) => (data[6] & 7) === 2 },
  { name: 'copy limits', cdb: cdb16(0x84, 0, 255, 3), check: (data) => data.length > 40 },
  { name: 'RESERVE (6)', cdb: [0x16, 0, 0, 0, 0, 0] },
  { name: 'RELEASE (6)', cdb: [0x17, 0, 0, 0, 0, 0] },
  { name: 'a lock that is free', cdb: atomicTestAndSet, dataOut: Buffer.alloc(1024) },
  { name: 'a lock that is taken', cdb: atomicTestAndSet, dataOut: Buffer.alloc(1024, 1), code: '0e/1d/00' },
  { name: 'zeroed blocks', cdb: cdb16(0x93, 64, 2048), dataOut: Buffer.alloc(512) },
  { name: 'freed blocks', cdb: [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], dataOut: unmapOneBlock },
];

for (const [host, steps] of Object.entries({ Windows: WINDOWS, ESXi: ESXI })) {
  void t.test(`${host} finds on the master what it probes for`, async (t) => {
    const { login, run } = bench();
    const nexus = login(undefined, { fresh: true });
    for (const { name, cdb, dataOut, code = '', check } of steps) {
      const outcome: Outcome = await run(nexus, 0, cdb, dataOut);
      t.equal(outcome.code, code, name);
      t.equal(outcome.status, code === '' ? 0 : 2, name);
      if (check !== undefined) t.ok(check(outcome.data), name);
    }
  });
}

/** PERSISTENT RESERVE OUT with keys of one byte. */
const reserveOut = (
  action: number,
  key: number,
  actionKey = 0,
  type = 0,
): { cdb: number[]; list: Buffer } => {
  const list = Buffer.alloc(24);
  list[7] = key;
  list[15] = actionKey;
  return { cdb: [0x5f, action, type, 0, 0, 0, 0, 0, 24, 0], list };
};

void t.test('A Windows failover cluster arbitrates for a disk by persistent reservations', async (t) => {
  const b = bench();
  const [owner, challenger] = ['a', 'b'].map((name) => b.login(`iqn.1991-05.com.microsoft:node-${name}`));
  const writeExclusiveRegistrantsOnly = 5;
  const conflict = 0x18;
  const send = async (from: typeof owner, { cdb, list }: ReturnType<typeof reserveOut>): Promise<number> =>
    (await b.run(from, 0, cdb, list)).status;
  const keys = async (): Promise<number> =>
    (await b.run(challenger, 0, [0x5e, 0, 0, 0, 0, 0, 0, 1, 0, 0])).data.readUInt32BE(4) / 8;
  t.equal(await send(owner, reserveOut(6, 0, 1)), 0, 'REGISTER AND IGNORE EXISTING KEY');
  t.equal(await send(owner, reserveOut(1, 1, 0, writeExclusiveRegistrantsOnly)), 0, 'RESERVE');
  t.equal(await send(challenger, reserveOut(6, 0, 2)), 0, 'the other node registers');
  t.equal(await send(challenger, reserveOut(1, 2, 0, writeExclusiveRegistrantsOnly)), conflict);
  const held = (await b.run(challenger, 0, [0x5e, 1, 0, 0, 0, 0, 0, 1, 0, 0])).data;
  t.same([held[15], held[21]], [1, writeExclusiveRegistrantsOnly], 'READ RESERVATION: the key of the owner');
  t.equal(await keys(), 2, 'the owner defends itself: its key is still there');
  t.equal(
    await send(challenger, reserveOut(4, 2, 1, writeExclusiveRegistrantsOnly)),
    0,
    'PREEMPT of a dead one',
  );
  t.equal(await keys(), 1);
  t.equal((await b.run(owner, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).code, '06/2a/05', 'it learns so');
  t.equal((await b.run(owner, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).status, conflict);
  t.equal((await b.run(challenger, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).status, 0);
  t.equal(await send(challenger, reserveOut(3, 2)), 0, 'CLEAR ends it');
  t.equal(await keys(), 0);
});

void t.test('Windows polls the slave as a removable disk, without a medium and with one', async (t) => {
  const { login, run, slave, target } = bench();
  const nexus = login();
  const ask = async (cdb: number[] | Buffer): Promise<string> => (await run(nexus, 1, cdb)).code;
  slave.present = false;
  target.mediumRemoved();
  t.equal((await run(nexus, 1, inquiry(undefined, 36))).data[1], 0x80, 'RMB');
  for (const cdb of [
    [0, 0, 0, 0, 0, 0],
    [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    readCapacity16,
    cdb10(0x28, 0, 1),
  ])
    t.equal(await ask(cdb), '02/3a/00');
  t.equal(await ask(modeSense6(0x3f, 192)), '', 'mode pages need no medium');
  slave.present = true;
  slave.generation++;
  target.mediumLoaded();
  t.equal(await ask([0, 0, 0, 0, 0, 0]), '06/28/00', 'the medium has come');
  t.equal(await ask([0, 0, 0, 0, 0, 0]), '');
  t.equal(await ask([0x1e, 0, 0, 0, 1, 0]), '', 'PREVENT while a volume is mounted');
  t.equal((await run(nexus, 1, modeSense6(0x3f, 192))).data[2] & 0x80, 0x80, 'write-protected');
  t.equal(await ask([0x1e, 0, 0, 0, 0, 0]), '');
});
