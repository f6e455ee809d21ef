/** MODE SENSE and MODE SELECT: what is found, what is told to whom, and what is kept (SPC-6 §6.11 to §6.14). */
import t from 'tap';
import { MEDIUM } from '../../src/scsi/medium.js';
import type { Nexus } from '../../src/scsi/nexus.js';
import { bench, BOTH, cdb10, fieldOf, MemoryMedium, MemoryState } from './support.js';
import type { Bench, Outcome } from './support.js';

const TUR = [0, 0, 0, 0, 0, 0];
const [CACHING, CONTROL] = ['0812' + '00'.repeat(18), '0a0a' + '02100000' + '0000ffff0000'];
const D_SENSE = CONTROL.replace('0210', '0610');
const SWP = CONTROL.replace('021000', '021008');
/** SAVE PAGES. */
const SP = 0x01;

const sense10 = (page: number, subpage = 0, control = 0): number[] =>
  [0x5a, 0x08, (control << 6) | page, subpage, 0, 0, 0, 4, 0, 0]; // prettier-ignore

/** MODE SELECT (6) without a block descriptor. */
async function select({ run }: Bench, nexus: Nexus, pages: string, flags = 0, lun = 0): Promise<Outcome> {
  const list = Buffer.from('00000000' + pages, 'hex');
  return await run(nexus, lun, [0x15, 0x10 | flags, 0, 0, list.length, 0], list);
}

/** Records of mode pages. */
const saved = ({ records }: MemoryState): string[] =>
  [...records.keys()].filter((key) => key.startsWith('scsi.mode'));

void t.test('MODE SENSE finds a page, its subpages, or all of them (SPC-6 §6.14.1)', async (t) => {
  const b = bench();
  const nexus = b.login();
  const found = async (page: number, subpage: number): Promise<unknown> => {
    const outcome = await b.run(nexus, 0, sense10(page, subpage));
    if (outcome.code !== '') return [outcome.code, fieldOf(outcome)];
    const names: string[] = [];
    const { data } = outcome;
    for (let at = 8; at < data.length;) {
      const isSubpage = (data[at] & 0x40) !== 0;
      names.push(`${(data[at] & 0x3f).toString(16)}/${String(isSubpage ? data[at + 1] : 0)}`);
      at += isSubpage ? 4 + data.readUInt16BE(at + 2) : 2 + data[at + 1];
    }
    return names;
  };
  t.same(await found(0x0a, 0), ['a/0']);
  t.same(await found(0x0a, 1), ['a/1']);
  t.same(await found(0x0a, 0xff), ['a/0', 'a/1']);
  t.same(await found(0x08, 0xff), ['8/0']);
  const plain = ['1/0', '2/0', '8/0', 'a/0', '1a/0', '1c/0'];
  t.same(await found(0x3f, 0), plain);
  t.same(await found(0x3f, 0xff), [...plain.slice(0, 4), 'a/1', ...plain.slice(4)]);
  t.same(await found(0x0a, 2), ['05/24/00', 3], 'a subpage that there is not');
  t.same(await found(0x08, 1), ['05/24/00', 3]);
  t.same(await found(0x04, 0), ['05/24/00', 2], 'a page that there is not');
  const { data } = await b.run(nexus, 0, [0x5a, 0x08, 0x3f, 0xff, 0, 0, 0, 0, 20, 0]);
  t.same([data.length, data.readUInt16BE(0)], [20, 150], 'cut, and its true length told');
  t.equal((await b.run(nexus, 0, [0x1a, 0x08, 0x3f, 0xff, 9, 0])).data.length, 9);
});

void t.test(
  'The block descriptor: none without a medium, FFFFFFFFh where it has no room (SBC-5 §6.5.2)',
  async (t) => {
    const b = bench({ master: new MemoryMedium(2 ** 42, { sparse: true }) });
    const nexus = b.login();
    const pages = async (lun: number, cdb: number[]): Promise<string> =>
      (await b.run(nexus, lun, cdb)).data.toString('hex');
    t.match(await pages(0, [0x1a, 0, 0x08, 0, 255, 0]), /^1f001008ffffffff00000200/);
    t.match(
      await pages(0, [0x5a, 0x10, 0x08, 0, 0, 0, 0, 0, 255, 0]),
      /^002a001001000010000000020000000000000000000002008812/,
    );
    b.slave.present = false;
    t.match(await pages(1, [0x1a, 0, 0x08, 0, 255, 0]), /^170090008812/);
    t.match(
      await pages(1, [0x5a, 0x10, 0x08, 0, 0, 0, 0, 0, 255, 0]),
      /^001a0090000000008812/,
      'LONGLBA of none is 0',
    );
    const reader = b.login('iqn.2024-01.org.example:reader', { luns: [{ ...BOTH[0], readOnly: true }] });
    t.equal((await b.run(reader, 0, [0x1a, 0, 0x08, 0, 255, 0])).data[2], 0x90, 'WP of who may only read');
  },
);

void t.test('MODE SELECT without a list does nothing, without PF it is refused (SPC-6 §6.11)', async (t) => {
  const b = bench();
  const nexus = b.login();
  for (const [cdb, place] of [
    [
      [0x15, 0, 0, 0, 4, 0],
      [1, 0x08 | 4],
    ],
    [
      [0x55, 0, 0, 0, 0, 0, 0, 0, 8, 0],
      [1, 0x08 | 4],
    ],
  ] as const) {
    const outcome = await b.run(nexus, 0, cdb, Buffer.alloc(8));
    t.same([outcome.code, fieldOf(outcome), (outcome.sense?.[15] ?? 0) & 0x0f], ['05/24/00', ...place]);
  }
  for (const cdb of [
    [0x15, 0x10, 0, 0, 0, 0],
    [0x55, 0x10, 0, 0, 0, 0, 0, 0, 0, 0],
  ])
    t.equal((await b.run(nexus, 0, cdb, Buffer.alloc(0))).status, 0);
  const announced = b.start(nexus, 0, [0x15, 0x10, 0, 0, 16, 0], Buffer.alloc(0));
  t.equal((await announced.whenEnded()).code, '05/1a/00', 'a list that does not come');
});

void t.test('A list is taken as a whole, and may have no page at all', async (t) => {
  const b = bench();
  const nexus = b.login();
  t.equal((await select(b, nexus, '')).code, '');
  const list = Buffer.from('00000000' + D_SENSE, 'hex');
  const pieces = b.start(nexus, 0, [0x15, 0x10, 0, 0, list.length, 0], list, (task) => (task.chunkBytes = 4));
  t.equal((await pieces.whenEnded()).code, '', 'though the transport could bring it in pieces');
  t.equal((await b.run(nexus, 0, cdb10(0x28, 0x7fff_ffff, 1))).sense?.[0], 0x72);
});

void t.test('The bit that may not be changed is named by its byte in the list (SPC-6 §6.11)', async (t) => {
  const b = bench();
  const nexus = b.login();
  const fault = async (pages: string): Promise<unknown> => {
    const outcome = await select(b, nexus, pages);
    return [outcome.code, fieldOf(outcome)];
  };
  t.same(await fault(CACHING.replace('081200', '081210')), ['05/26/00', 4 + 2]);
  t.same(await fault(D_SENSE + CONTROL.slice(0, -2) + '01'), ['05/26/00', 4 + 12 + 11], 'in the second page');
  t.same(await fault('4a01001c' + '01' + '00'.repeat(27)), ['05/26/00', 4 + 4], 'in a subpage');
  t.same(await fault('4a01001c' + '00'.repeat(27) + '01'), ['05/26/00', 4 + 31]);
  t.same(await fault('0a00'), ['05/26/00', 5], 'a header alone');
  t.same(await fault('4a02001c' + '00'.repeat(28)), ['05/26/00', 4], 'a subpage that there is not');
  t.same(await fault('4a01001b' + '00'.repeat(27)), ['05/26/00', 5], 'of another length');
  t.equal((await b.run(nexus, 0, cdb10(0x28, 0x7fff_ffff, 1))).sense?.[0], 0xf0, 'nothing of it took effect');
  t.same(await fault('8a0a' + D_SENSE.slice(4)), ['', undefined], 'PS, as MODE SENSE has given it');
  t.equal((await b.run(nexus, 0, sense10(0x0a))).data.toString('hex', 8), '8a0a' + D_SENSE.slice(4));
});

void t.test('Others are told of changes, and of nothing else (SPC-6 §6.11)', async (t) => {
  const b = bench();
  const [a, other] = [b.login(), b.login('iqn.2024-01.org.example:other')];
  const told = async (nexus: Nexus): Promise<string> => (await b.run(nexus, 0, TUR)).code;
  t.equal((await select(b, a, CONTROL)).code, '');
  t.equal(await told(other), '', 'the same values');
  t.equal((await select(b, a, CONTROL + D_SENSE.replace('0a0a', '8a0a') + CONTROL)).code, '');
  t.same([await told(a), await told(other)], ['', '06/2a/01']);
  t.equal((await select(b, a, SWP)).code, '');
  t.equal(await told(other), '06/2a/01');
  t.equal((await b.run(a, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).code, '07/27/02', 'SWP from now on');
  t.equal((await select(b, a, D_SENSE)).code, '');
  t.equal((await b.run(a, 0, cdb10(0x2a, 0, 1), Buffer.alloc(512))).code, '');
  t.equal(
    (await b.run(a, 1, cdb10(0x28, 0x7fff_ffff, 1))).sense?.[0],
    0xf0,
    'the slave has pages of its own',
  );
});

void t.test(
  'SP keeps the pages of the list for the next start, of each unit by itself (SPC-6 §6.11)',
  async (t) => {
    const state = new MemoryState();
    const b = bench({ state });
    const nexus = b.login();
    t.equal((await select(b, nexus, CACHING)).code, '');
    t.equal((await select(b, nexus, D_SENSE, SP)).code, '');
    t.equal((await select(b, nexus, CONTROL)).code, '');
    t.same(saved(state), ['scsi.mode.master']);
    const values = (await b.run(nexus, 0, sense10(0x3f, 0xff, 3))).data.toString('hex');
    t.match(values, `8a0a${D_SENSE.slice(4)}`, 'PAGE CONTROL: saved');
    t.match(values, '881204', 'the other page is not saved');
    const defaults = (await b.run(nexus, 0, sense10(0x3f, 0xff, 2))).data.toString('hex');
    t.match(defaults, '881204');
    t.equal((await select(b, nexus, D_SENSE)).code, '');
    t.equal((await b.run(nexus, 0, sense10(0x3f, 0xff, 2))).data.toString('hex'), defaults, 'default values');
    t.equal((await select(b, nexus, CONTROL)).code, '');
    const after = bench({ state });
    const again = after.login();
    t.same(after.warnings, []);
    t.equal((await after.run(again, 0, sense10(0x3f, 0xff))).data.toString('hex'), values);
    t.equal((await after.run(again, 0, cdb10(0x28, 0x7fff_ffff, 1))).sense?.[0], 0x72);
    t.equal((await after.run(again, 1, cdb10(0x28, 0x7fff_ffff, 1))).sense?.[0], 0xf0);

    state.fails = true;
    t.equal((await select(after, again, CONTROL, SP)).code, '04/44/00');
    t.match(after.warnings, [
      { fields: { err: Error, unit: 'master' }, message: 'mode pages could not be saved' },
    ]);
  },
);

void t.test('A saved page that is no longer possible is told, and the others are taken', async (t) => {
  const state = new MemoryState();
  const b = bench({ state });
  t.equal((await select(b, b.login(), D_SENSE, SP)).code, '');
  const record = state.records.get('scsi.mode.master') ?? Buffer.alloc(0);
  record[2] ^= 0x10;
  const after = bench({ state });
  t.match(after.warnings, [{ fields: { record: 'scsi.mode.master', page: 1 }, message: /default used/ }]);
  t.equal(after.warnings.length, 1);
  const nexus = after.login();
  t.match((await after.run(nexus, 0, sense10(0x01))).data.toString('hex'), '810ac000');
  t.equal((await after.run(nexus, 0, cdb10(0x28, 0x7fff_ffff, 1))).sense?.[0], 0x72);
});

void t.test(
  'A write cache that is switched off is written before that is GOOD, the slave has none',
  async (t) => {
    const b = bench();
    const nexus = b.login();
    b.master.holdFlush = true;
    const list = Buffer.from('00000000' + CACHING, 'hex');
    const off = b.start(nexus, 0, [0x15, 0x11, 0, 0, list.length, 0], list);
    t.notOk(off.ended);
    t.same(saved(b.state), [], 'nor is it saved before');
    b.master.release();
    t.equal((await off.whenEnded()).status, 0);
    t.equal(b.master.flushes, 1);
    t.equal(b.target.performance().master.queueDepth, 0);
    t.equal((await select(b, nexus, CACHING)).code, '');
    t.equal(b.master.flushes, 1, 'it was off already');
    t.equal((await select(b, nexus, CACHING, 0, 1)).code, '');
    t.equal(b.slave.flushes, 0);
    const on = CACHING.replace('081200', '081204');
    t.equal((await select(b, nexus, on)).code, '');
    b.master.fail = MEDIUM.FAILED;
    t.equal((await select(b, nexus, D_SENSE)).code, '', 'another page has nothing to do with it');
    t.equal(b.master.flushes, 1);
  },
);
