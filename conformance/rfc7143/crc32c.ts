/** CRC32C as RFC 7143 §13.1 wants it, bit by bit from the polynomial: slow, short, and independent of the target's. */

const POLYNOMIAL_REFLECTED = 0x82f63b78;

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL_REFLECTED : crc >>> 1;
  return crc >>> 0;
});

/** The digest of all parts in order, as the four bytes that go on the wire (least significant first). */
export function digestOf(...parts: readonly Buffer[]): Buffer<ArrayBuffer> {
  let crc = 0xffffffff;
  for (const part of parts) {
    for (const byte of part) crc = (TABLE[(crc ^ byte) & 0xff] ?? 0) ^ (crc >>> 8);
  }
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE((crc ^ 0xffffffff) >>> 0);
  return bytes;
}
