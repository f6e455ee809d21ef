/**
 * Big-endian fields of CDBs and parameter lists. Shifts, because Buffer's own readers check bounds and are about ten
 * times slower, and these run for every command.
 */

export function getU16(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1];
}

export function getU24(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 16) | (bytes[at + 1] << 8) | bytes[at + 2];
}

export function getU32(bytes: Uint8Array, at: number): number {
  return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;
}

/** A 64-bit field as a number. Above 2^53 it loses low bits, which no valid LBA or length has: range checks still hold. */
export function getU64(bytes: Uint8Array, at: number): number {
  return getU32(bytes, at) * 0x1_0000_0000 + getU32(bytes, at + 4);
}

export function putU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export function putU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/** Writes a number below 2^53 as a 64-bit field. */
export function putU64(bytes: Uint8Array, at: number, value: number): void {
  putU32(bytes, at, Math.floor(value / 0x1_0000_0000));
  putU32(bytes, at + 4, value >>> 0);
}

/** Writes ASCII, padded with spaces to `length` (SPC-6 §4.3.1). */
export function putAscii(bytes: Buffer, at: number, length: number, text: string): void {
  bytes.fill(0x20, at, at + length);
  bytes.write(text.slice(0, length), at, 'latin1');
}
