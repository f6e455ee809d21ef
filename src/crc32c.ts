/**
 * CRC-32C (Castagnoli; RFC 7143 §13.1 for the digests of iSCSI, and every structure of the partition).
 *
 * Sixteen bytes a step ("slicing"), read as four aligned 32-bit words: table[16 - i] tells what a byte that lies
 * i places into the step contributes to the remainder after the step. The words are read through a cached view of
 * the underlying ArrayBuffer, so that nothing is allocated as long as the same few buffers return.
 */

/** The polynomial 1EDC6F41h, bit-reflected. */
const POLYNOMIAL = 0x82f63b78;
const STEP_BYTES = 16;

const tables = buildTables();
const [t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, t11, t12, t13, t14, t15] = tables;
const littleEndian = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1;

const views = new WeakMap<ArrayBufferLike, Int32Array>();
let lastArrayBuffer: ArrayBufferLike = new ArrayBuffer(0);
let lastView: Int32Array = new Int32Array(0);

/**
 * The CRC-32C of `length` bytes of `buffer` from `offset`, as an unsigned number.
 * To go on where an earlier call ended, give its result as `seed`.
 */
export function crc32c(buffer: Uint8Array, offset: number, length: number, seed = 0): number {
  if (offset < 0 || length < 0 || offset + length > buffer.length)
    throw new RangeError('CRC range outside the buffer');
  let crc = ~seed;
  let at = offset;
  const end = offset + length;
  if (littleEndian && length >= 2 * STEP_BYTES) {
    const aligned = at + (-(buffer.byteOffset + at) & 3);
    while (at < aligned) crc = (crc >>> 8) ^ t0[(crc ^ buffer[at++]) & 0xff];
    const steps = (end - at) >>> 4;
    crc = crcOfSteps(viewOf(buffer.buffer), (buffer.byteOffset + at) >>> 2, steps, crc);
    at += steps * STEP_BYTES;
  }
  while (at < end) crc = (crc >>> 8) ^ t0[(crc ^ buffer[at++]) & 0xff];
  return ~crc >>> 0;
}

function crcOfSteps(words: Int32Array, first: number, steps: number, seed: number): number {
  let crc = seed;
  const end = first + steps * 4;
  for (let word = first; word < end; word += 4) {
    const a = words[word] ^ crc;
    const b = words[word + 1];
    const c = words[word + 2];
    const d = words[word + 3];
    crc =
      t15[a & 0xff] ^
      t14[(a >>> 8) & 0xff] ^
      t13[(a >>> 16) & 0xff] ^
      t12[a >>> 24] ^
      t11[b & 0xff] ^
      t10[(b >>> 8) & 0xff] ^
      t9[(b >>> 16) & 0xff] ^
      t8[b >>> 24] ^
      t7[c & 0xff] ^
      t6[(c >>> 8) & 0xff] ^
      t5[(c >>> 16) & 0xff] ^
      t4[c >>> 24] ^
      t3[d & 0xff] ^
      t2[(d >>> 8) & 0xff] ^
      t1[(d >>> 16) & 0xff] ^
      t0[d >>> 24];
  }
  return crc;
}

/** Covers every whole 32-bit word of the memory; a resizable or odd-sized ArrayBuffer keeps its last bytes outside. */
function viewOf(memory: ArrayBufferLike): Int32Array {
  if (memory === lastArrayBuffer) return lastView;
  let view = views.get(memory);
  if (view === undefined) {
    view = new Int32Array(memory, 0, memory.byteLength >>> 2);
    views.set(memory, view);
  }
  lastArrayBuffer = memory;
  lastView = view;
  return view;
}

function buildTables(): Int32Array[] {
  const all: Int32Array[] = [];
  for (let slice = 0; slice < STEP_BYTES; slice++) {
    const table = new Int32Array(256);
    for (let byte = 0; byte < 256; byte++) {
      if (slice === 0) {
        let remainder = byte;
        for (let bit = 0; bit < 8; bit++) remainder = (remainder >>> 1) ^ (remainder & 1 ? POLYNOMIAL : 0);
        table[byte] = remainder;
      } else {
        const previous = all[slice - 1][byte];
        table[byte] = (previous >>> 8) ^ all[0][previous & 0xff];
      }
    }
    all.push(table);
  }
  return all;
}
