import t from 'tap';
import { crc32c } from '../src/crc32c.js';

/** Bit by bit, straight from the definition. */
function reference(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
}

const whole = (bytes: Uint8Array): number => crc32c(bytes, 0, bytes.length);

void t.test('the examples of RFC 3720 B.4', (t) => {
  const ascending = Uint8Array.from({ length: 32 }, (_, index) => index);
  const read10 = Buffer.from(
    '01c000000000000000000000000000001400000000000400000000140000001828000000000000000200000000000000',
    'hex',
  );
  t.equal(whole(new Uint8Array(32)), 0x8a9136aa);
  t.equal(whole(new Uint8Array(32).fill(0xff)), 0x62a8ab43);
  t.equal(whole(ascending), 0x46dd794e);
  t.equal(whole(ascending.toReversed()), 0x113fdb5c);
  t.equal(whole(read10), 0xd9963a56);
  t.end();
});

void t.test('any offset, alignment, length and split give what the definition gives', (t) => {
  const memory = new ArrayBuffer(4096 + 3);
  const bytes = new Uint8Array(memory);
  for (let index = 0; index < bytes.length; index++) bytes[index] = (index * 167 + (index >> 8)) & 0xff;
  for (let base = 0; base < 5; base++) {
    const window = new Uint8Array(memory, base, 4000);
    for (const length of [0, 1, 15, 16, 31, 32, 33, 47, 48, 49, 63, 64, 257, 1000, 3990]) {
      for (let offset = 0; offset < 6; offset++) {
        const expected = reference(window.subarray(offset, offset + length));
        if (crc32c(window, offset, length) !== expected)
          t.fail(`base ${base} offset ${offset} length ${length}`);
        const half = length >> 1;
        const split = crc32c(window, offset + half, length - half, crc32c(window, offset, half));
        if (split !== expected) t.fail(`split: base ${base} offset ${offset} length ${length}`);
      }
    }
  }
  t.throws(() => crc32c(bytes, 4000, 200), RangeError);
  t.end();
});
