/** A LUN without logical unit: INQUIRY, REQUEST SENSE and REPORT LUNS, and nothing else (SAM-6 §5.11, SPC-6 §6.6.1). */
import t from 'tap';
import { BOTH, bench } from './support.js';
import type { Bench, Outcome } from './support.js';

const hex = ({ code, data, ends, status }: Outcome): string =>
  code === '' ? `${String(ends)} ${String(status)} ${data.toString('hex')}` : `${String(ends)} ${code}`;

function served(): { b: Bench; ask: (lun: number, ...cdb: number[]) => Promise<string> } {
  const b = bench();
  const nexus = b.login(undefined, { luns: [{ ...BOTH[1], lun: 1 }] });
  return { b, ask: async (lun, ...cdb) => hex(await b.run(nexus, lun, cdb)) };
}

void t.test('INQUIRY says that nothing is there, and has the list of VPD pages alone', async (t) => {
  const { ask } = served();
  const standard = '7f0006125b000002' + Buffer.from('CLDD    CLDD            0001').toString('hex');
  const versions = '00a0' + '0960' + '0460' + '04c0' + '05c0' + '0600';
  t.equal(
    await ask(7, 0x12, 0, 0, 1, 0, 0),
    `1 0 ${standard}${'00'.repeat(22)}${versions}${'00'.repeat(26)}`,
  );
  t.equal(await ask(7, 0x12, 0, 0, 0, 3, 0), '1 0 7f0006');
  t.equal(await ask(7, 0x12, 0, 0, 0, 0, 0), '1 0 ', 'no allocation length');
  t.equal(await ask(7, 0x12, 1, 0, 1, 0, 0), '1 0 7f00000100');
  const { b } = served();
  const task = b.start(b.login(), 7, [0x12, 0, 0, 0, 0, 0]);
  t.same([task.ends, task.dataIn], [1, []], 'no Data-In at all');
  t.equal(
    (await b.run(b.login(), 7, [0x28])).sense?.toString('hex'),
    '70000500' + '0000000a' + '00000000' + '250000000000',
  );
  t.equal(await ask(7, 0x12, 1, 0, 0, 4, 0), '1 0 7f000001');
  t.equal(await ask(7, 0x12, 1, 0x83, 1, 0, 0), '1 05/24/00');
  t.equal(await ask(7, 0x12, 0, 0x83, 1, 0, 0), '1 05/24/00', 'a page without EVPD');
});

void t.test('REQUEST SENSE tells LOGICAL UNIT NOT SUPPORTED as data, in the format asked for', async (t) => {
  const { ask } = served();
  t.equal(await ask(7, 3, 0, 0, 0, 252, 0), '1 0 70000500' + '0000000a' + '00000000' + '2500' + '00000000');
  t.equal(await ask(7, 3, 1, 0, 0, 252, 0), '1 0 7205250000000000');
  t.equal(await ask(7, 3, 0, 0, 0, 3, 0), '1 0 700005');
});

void t.test('REPORT LUNS works on LUN 0 though nothing is there, every other command nowhere', async (t) => {
  const { ask } = served();
  const luns = (bytes: number, select = 0): number[] => [0xa0, 0, select, 0, 0, 0, 0, 0, 0, bytes, 0, 0];
  t.equal(await ask(0, ...luns(255)), '1 0 00000008' + '00000000' + '0001000000000000');
  t.equal(await ask(0, ...luns(16)), '1 0 00000008' + '00000000' + '0001000000000000');
  t.equal(await ask(0, ...luns(15)), '1 05/24/00');
  t.equal(await ask(0, ...luns(255, 3)), '1 05/24/00');
  t.equal(await ask(7, ...luns(255)), '1 05/25/00');
  for (const lun of [0, 7]) {
    t.equal(await ask(lun, 0, 0, 0, 0, 0, 0), '1 05/25/00', 'TEST UNIT READY');
    t.equal(await ask(lun, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), '1 05/25/00', 'READ (10)');
  }
});
