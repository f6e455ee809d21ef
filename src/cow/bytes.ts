/** The 64-byte header that all metadata share: magic (8), CRC-32C of bytes 12 to the end (4), …, uuid at 16 (16). */

import { crc32c } from '../crc32c.js';

const MAGIC_BYTES = 8;
const CRC_AT = 8;
const COVERED_FROM = 12;
const UUID_AT = 16;
const UUID_BYTES = 16;

/** Reads an unsigned 64-bit number; anything above 2^53 comes back as Infinity, which no check of a range lets pass. */
export function readU64(buffer: Buffer, at: number): number {
  const value = buffer.readUInt32LE(at + 4) * 2 ** 32 + buffer.readUInt32LE(at);
  return Number.isSafeInteger(value) ? value : Infinity;
}

export function writeU64(buffer: Buffer, at: number, value: number): void {
  buffer.writeUInt32LE(value % 2 ** 32, at);
  buffer.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
}

/** Fills in magic and uuid, then the CRC over everything behind it: to be called last. */
export function seal(buffer: Buffer, magic: string, uuid: Buffer, length = buffer.length): void {
  buffer.write(magic, 0, MAGIC_BYTES, 'latin1');
  uuid.copy(buffer, UUID_AT);
  buffer.writeUInt32LE(crc32c(buffer, COVERED_FROM, length - COVERED_FROM), CRC_AT);
}

/** True if magic, CRC and (when given) uuid are right. */
export function isSealed(buffer: Buffer, magic: string, uuid?: Buffer, length = buffer.length): boolean {
  if (buffer.toString('latin1', 0, MAGIC_BYTES) !== magic) return false;
  if (uuid !== undefined && buffer.compare(uuid, 0, UUID_BYTES, UUID_AT, UUID_AT + UUID_BYTES) !== 0)
    return false;
  return buffer.readUInt32LE(CRC_AT) === crc32c(buffer, COVERED_FROM, length - COVERED_FROM);
}

export function uuidText(uuid: Buffer): string {
  const hex = uuid.toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
