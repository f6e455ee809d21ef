/** Sense data byte by byte, in both formats (SPC-6 §4.4). Mutation testing showed that nothing looked at them. */
import t from 'tap';
import { SENSE_BYTES_MAX, senseData, type SenseDetail } from '../../src/scsi/sense.js';

/** ILLEGAL REQUEST, INVALID FIELD IN CDB. */
const CODE = 0x05_24_00;
const BIG = 2 ** 32;

const hex = (descriptor: boolean, detail?: SenseDetail): string =>
  senseData(CODE, descriptor, detail).toString('hex');

void t.test('fixed format: 18 bytes; VALID only for information that fits 32 bits (SPC-6 §4.4.3)', (t) => {
  t.equal(hex(false), '700005000000000a00000000240000000000');
  t.equal(hex(false, { information: 0 }), 'f00005000000000a00000000240000000000');
  t.equal(hex(false, { information: 0xffff_ffff }), 'f00005ffffffff0a00000000240000000000');
  t.equal(hex(false, { information: BIG }), '700005000000000a00000000240000000000');
  t.equal(hex(false, { field: { byte: 2, inCdb: true } }), '700005000000000a00000000240000c00002');
  t.equal(hex(false, { field: { byte: 258, bit: 5, inCdb: false } }), '700005000000000a000000002400008d0102');
  t.equal(hex(false, { progress: 0x1234 }), '700005000000000a00000000240000801234');
  t.end();
});

void t.test('descriptor format: only the descriptors that there is something for (SPC-6 §4.4.2)', (t) => {
  const information = '000a800000000001' + '00000000';
  t.equal(hex(true), '7205240000000000');
  t.equal(hex(true, { information: BIG }), `720524000000000c000a80000000000100000000`);
  t.equal(hex(true, { field: { byte: 2, inCdb: true } }), '72052400000000080206' + '0000c0000200');
  t.equal(hex(true, { progress: 0x1234 }), '72052400000000080206' + '000080123400');
  const all = senseData(CODE, true, { information: BIG, field: { byte: 2, bit: 0, inCdb: true } });
  t.equal(all.toString('hex'), `7205240000000014${information}02060000c8000200`);
  t.equal(all.length, SENSE_BYTES_MAX, 'no sense data is longer');
  t.end();
});
