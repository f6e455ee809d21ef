/** The pages that describe a unit, byte by byte, in the order of their fields: VPD, log and mode pages (SPC-6 §7, SBC-5 §6). */
import t from 'tap';
import { identify } from '../../src/scsi/identity.js';
import { bench } from './support.js';

const zeros = (bytes: number): string => '00'.repeat(bytes);
const TARGET = 'iqn.2024-01.org.example:disk';

/** A SCSI name string: NUL-terminated, padded to a multiple of four. */
function name(text: string, bytes: number): string {
  return Buffer.concat([Buffer.from(text), Buffer.alloc(bytes)]).toString('hex', 0, bytes);
}
const ascii = (text: string): string => Buffer.from(text).toString('hex');

/** What a unit answers to each of the CDBs, in hexadecimal. */
async function answers(lun: number, cdbs: readonly number[][]): Promise<string[]> {
  const b = bench();
  const nexus = b.login();
  const all: string[] = [];
  for (const cdb of cdbs) all.push((await b.run(nexus, lun, cdb)).data.toString('hex'));
  return all;
}

const inquiry = (page?: number): number[] => [0x12, page === undefined ? 0 : 1, page ?? 0, 4, 0, 0];
const logSense = (page: number, subpage = 0): number[] => [0x4d, 0, 0x40 | page, subpage, 0, 0, 0, 4, 0, 0];

void t.test('Standard INQUIRY data (SPC-6 §6.6.2)', async (t) => {
  // VERSION, HISUP and format, ADDITIONAL LENGTH, TPGS and 3PC, MULTIP, CMDQUE.
  const capabilities = '06125b381002' + ascii('CLDD    ');
  // SAM-5, iSCSI, SPC-4, SBC-3, SPC-5, SBC-4.
  const rest = ascii('0001') + zeros(22) + '00a0' + '0960' + '0460' + '04c0' + '05c0' + '0600' + zeros(26);
  t.same(await answers(0, [inquiry()]), ['0000' + capabilities + ascii('CLDD master     ') + rest]);
  t.same(await answers(1, [inquiry()]), ['0080' + capabilities + ascii('CLDD slave      ') + rest]);
});

void t.test(
  'VPD 83h: the designators of the unit, of its port and of the target (SPC-6 §7.7.6)',
  async (t) => {
    const [page, serial] = await answers(0, [inquiry(0x83), inquiry(0x80)]);
    // Derived from the UUID of the partition: what hosts know the disk by must never change.
    const naa = '3cd9977d885a5e12';
    const uuid = '20d85526568f82898cb37d3d405454d1';
    t.equal(serial, '00800020' + ascii(uuid));
    t.equal(
      page,
      '008300ca' +
        ('01030008' + naa) +
        ('02010028' + ascii('CLDD    ' + uuid)) +
        ('010a0012' + '1000' + uuid) +
        ('03080018' + name('naa.3CD9977D885A5E12', 24)) +
        ('51940004' + '00000001') +
        ('51950004' + '00000001') +
        ('53980028' + name(`${TARGET},t,0x0001`, 40)) +
        ('53a80020' + name(TARGET, 32)),
    );
  },
);

void t.test('The identity is that of the UUID and the side, however the UUID is written', (t) => {
  const uuid = '4f9a2c1e-0000-4000-8000-000000000001';
  const [master, slave] = (['master', 'slave'] as const).map((kind) => identify(TARGET, uuid, kind));
  t.same(identify(TARGET, uuid.toUpperCase(), 'master'), master);
  t.equal(slave.naa.toString('hex'), '3d3fb7ff6ae03858');
  t.equal(slave.uuid.toString('hex'), 'a7e4640e0fd3834ca09f1a15937ffacf');
  for (const { naa, uuid: own, serial } of [master, slave]) {
    t.equal(naa[0] >>> 4, 3, 'locally assigned (SPC-6 §7.7.6.6.4)');
    t.same([own[6] >>> 4, own[8] >>> 6], [8, 2], 'version 8, variant 10b (RFC 9562)');
    t.equal(serial, own.toString('hex'));
  }
  t.end();
});

void t.test('The other VPD pages (SPC-6 §7.7, SBC-5 §6.6)', async (t) => {
  const port = (id: string): string =>
    '0000' + id + zeros(6) + '002c' + '53980028' + name(`${TARGET},t,0x${id}`, 40);
  const pages: [code: number, body: string][] = [
    [0x00, '00' + '80' + '83' + '85' + '86' + '87' + '88' + '8f' + 'b0' + 'b1' + 'b2' + 'b7'],
    [0x85, ''],
    // UASK_SUP, HEADSUP, ORDSUP, SIMPSUP; V_SUP; LUICLR; MAXIMUM SUPPORTED SENSE DATA LENGTH.
    [0x86, '00' + '27' + '01' + '01' + zeros(5) + '1c' + zeros(50)],
    [0x87, '3fff0000'],
    [0x88, port('0001') + port('0002')],
    [
      0x8f,
      // Block device ROD token limits: ranges, longest and usual timeout, largest and best transfer.
      '00000020' +
        zeros(6) +
        '0040' +
        '00000258' +
        '0000003c' +
        '0000000000400000' +
        '0000000000400000' +
        // Supported commands.
        ('0001000c' + '0a' + '8303001011' + '8403000307' + '00') +
        // Parameter data: target and segment descriptors, their bytes, no inline data.
        ('0004001c' + zeros(4) + '0010' + '0010' + '000003c0' + zeros(16)) +
        // Supported descriptors.
        ('00080004' + '02' + '02e4' + '00'),
    ],
    [
      0xb0,
      // WSNZ; COMPARE AND WRITE; granularity, MAXIMUM and OPTIMAL TRANSFER LENGTH; PRE-FETCH.
      '01' +
        'ff' +
        '0008' +
        '00004000' +
        '00000800' +
        '00000000' +
        // UNMAP: blocks, descriptors, granularity, UGAVALID and alignment; WRITE SAME.
        ('00100000' + '00000100' + '00000008' + '80000000' + '000000000000ffff') +
        // WRITE ATOMIC: length, alignment, granularity, without and with boundary.
        ('00000100' + '00000008' + '00000008' + zeros(8)),
    ],
    // Non-rotating; WABEREQ 01b; FUAB.
    [0xb1, '0001' + '00' + '40' + '02' + zeros(55)],
    // LBPU, LBPWS, LBPWS10, LBPRZ 001b; thin.
    [0xb2, '00' + 'e4' + '02' + '00'],
    [0xb7, zeros(60)],
  ];
  const given = await answers(
    0,
    pages.map(([code]) => inquiry(code)),
  );
  const length = (body: string): string => (body.length / 2).toString(16).padStart(4, '0');
  for (const [index, [code, body]] of pages.entries())
    t.equal(given[index], '00' + code.toString(16).padStart(2, '0') + length(body) + body);
});

void t.test('Log pages of a unit that nothing has happened to (SPC-6 §7.3, SBC-5 §6.4)', async (t) => {
  const counters = '00050008' + zeros(8) + '00060008' + zeros(8);
  const selfTest = (number: number): string =>
    '00' + number.toString(16).padStart(2, '0') + '0310' + zeros(16);
  const pages: [cdb: number[], header: string, parameters: string][] = [
    [logSense(0x00), '0000', '00' + '02' + '03' + '05' + '0c' + '0d' + '10' + '15' + '19' + '2f' + '39'],
    [
      logSense(0x00, 0xff),
      '40ff',
      '0000' +
        '00ff' +
        '0200' +
        '0300' +
        '0500' +
        '0c00' +
        '0d00' +
        '1000' +
        '1500' +
        '1900' +
        '2f00' +
        '3900',
    ],
    [logSense(0x02), '0200', counters],
    [logSense(0x03), '0300', counters],
    [logSense(0x05), '0500', counters],
    [logSense(0x0c), '0c00', '00030304' + '00640000'],
    // No sensor, no reference.
    [logSense(0x0d), '0d00', '00000302' + '00ff' + '00010302' + '00ff'],
    [logSense(0x10), '1000', Array.from({ length: 20 }, (_, index) => selfTest(index + 1)).join('')],
    // General access, idle time, and the time interval: 1 × 10^-6 s.
    [
      logSense(0x19),
      '1900',
      '00010340' + zeros(64) + '00020308' + zeros(8) + '00030308' + '0000000600000001',
    ],
    // Nothing predicted; no temperature.
    [logSense(0x2f), '2f00', '00000304' + '0000ff00'],
    [logSense(0x39), '3900', '00000308' + '0000000000000001'],
  ];
  const given = await answers(
    0,
    pages.map(([cdb]) => cdb),
  );
  for (const [index, [, header, parameters]] of pages.entries())
    t.equal(given[index], header + (parameters.length / 2).toString(16).padStart(4, '0') + parameters);
});

void t.test('Mode pages: current, changeable, default and saved (SPC-6 §7.5, SBC-5 §6.5)', async (t) => {
  const modeSense10 = (control: number): number[] => [0x5a, 0, (control << 6) | 0x3f, 0xff, 0, 0, 0, 4, 0, 0];
  const values = (caching: string, control: string, rest: (given: string) => string): string =>
    '810a' +
    rest('c000') +
    zeros(8) +
    ('820e' + zeros(14)) +
    ('8812' + caching + zeros(17)) +
    ('8a0a' + control) +
    ('ca01001c' + zeros(28)) +
    ('9a26' + zeros(38)) +
    ('9c0a' + zeros(10));
  const given = (text: string): string => text;
  const none = (text: string): string => zeros(text.length / 2);
  // WCE; GLTSD, QUEUE ALGORITHM MODIFIER 1h, BUSY TIMEOUT PERIOD without limit.
  const pages = values('04', '02100000' + '0000' + 'ffff' + '0000', given);
  // WCE; D_SENSE and SWP.
  const changeable = values('04', '04000800' + '0000' + '0000' + '0000', none);
  // MODE DATA LENGTH, medium type, WP and DPOFUA, LONGLBA, block descriptor: 16,384 blocks of 512 bytes.
  const master = '009e' + '00' + '10' + '0000' + '0008' + '00004000' + '00000200';
  const slave = '009e' + '00' + '90' + '0000' + '0008' + '00004000' + '00000200';
  t.same(await answers(0, [0, 1, 2, 3].map(modeSense10)), [
    master + pages,
    '009e' + '00' + '10' + '0000' + '0008' + zeros(8) + changeable,
    master + pages,
    master + pages,
  ]);
  t.same(await answers(1, [modeSense10(0)]), [slave + pages]);
  const [short, long, without] = await answers(0, [
    [0x1a, 0, 0x08, 0, 255, 0],
    [0x5a, 0x10, 0x08, 0, 0, 0, 0, 4, 0, 0],
    [0x5a, 0x18, 0x08, 0, 0, 0, 0, 4, 0, 0],
  ]);
  const caching = '881204' + zeros(17);
  t.equal(short, '1f' + '00' + '10' + '08' + '00004000' + '00000200' + caching, 'MODE SENSE (6)');
  t.equal(
    long,
    '002a' + '00' + '10' + '0100' + '0010' + '0000000000004000' + zeros(4) + '00000200' + caching,
    'LLBAA: a long block descriptor',
  );
  t.equal(without, '001a' + '00' + '10' + '0000' + '0000' + caching, 'DBD');
});

void t.test('What EXTENDED COPY takes: RECEIVE COPY OPERATING PARAMETERS (SPC-4 §6.21)', async (t) => {
  t.same(await answers(0, [[0x84, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]]), [
    // AVAILABLE DATA, SNLID.
    '0000002a' +
      '01000000' +
      // Descriptors: of targets, of segments, bytes of both, bytes of a segment; no inline, held or stream data.
      ('0010' + '0010' + '000003c0' + '01fffe00' + zeros(12) + zeros(2)) +
      // Copies at once in all and for a nexus, granularity of 2^9 bytes; the descriptor types.
      ('0008' + '08' + '09' + zeros(5) + '02' + '02e4'),
  ]);
});
