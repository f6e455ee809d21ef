/** Fields of CDBs and parameter lists: big-endian, unsigned, and nothing beside them (SPC-6 §4.3). */
import t from 'tap';
import { getU16, getU24, getU32, getU64, putAscii, putU16, putU32, putU64 } from '../../src/scsi/bytes.js';

const BYTES = Buffer.from('ff80123456789abcdef0ff', 'hex');

void t.test('a field is read from its place', (t) => {
  t.equal(getU16(BYTES, 1), 0x8012);
  t.equal(getU24(BYTES, 1), 0x80_1234);
  t.equal(getU32(BYTES, 1), 0x8012_3456);
  t.equal(getU64(Buffer.from('000fedcba9876543', 'hex'), 0), 0x000f_edcb_a987_6543);
  t.equal(getU64(BYTES, 1), Number(0x8012_3456_789a_bcden), 'a multiple of 2,048, that far up');
  t.end();
});

void t.test('a field is written into its place', (t) => {
  const written = (bytes: number, put: (buffer: Buffer) => void): string => {
    const buffer = Buffer.alloc(bytes + 2, 0xee);
    put(buffer);
    return buffer.toString('hex');
  };
  t.equal(
    written(2, (buffer) => putU16(buffer, 1, 0x8012)),
    'ee8012ee',
  );
  t.equal(
    written(4, (buffer) => putU32(buffer, 1, 0x8012_3456)),
    'ee80123456ee',
  );
  t.equal(
    written(8, (buffer) => putU64(buffer, 1, 0x001f_ffff_8000_0001)),
    'ee001fffff80000001ee',
  );
  t.equal(
    written(6, (buffer) => putAscii(buffer, 1, 6, 'CLDD')),
    'ee434c44442020ee',
    'padded with spaces',
  );
  t.equal(
    written(3, (buffer) => putAscii(buffer, 1, 3, 'CLDD')),
    'ee434c44ee',
    'cut',
  );
  t.end();
});
