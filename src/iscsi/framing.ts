/**
 * Header fields that every PDU from the target has, and its digests (RFC 7143 §11.2).
 */
import { crc32c } from '../crc32c.js';
import { BHS_BYTES, DIGEST_BYTES } from './constants.js';
import type { Parameters } from './negotiation.js';

/** Bytes of padding after a data segment (§11.2.1: to a multiple of four). */
export const padding = (bytes: number): number => -bytes & 3;

/** Bytes that a PDU without AHS takes on the wire. */
export function wireBytes(parameters: Parameters, dataBytes: number): number {
  let bytes = BHS_BYTES + dataBytes + padding(dataBytes);
  if (parameters.headerDigest) bytes += DIGEST_BYTES;
  if (parameters.dataDigest && dataBytes > 0) bytes += DIGEST_BYTES;
  return bytes;
}

/** Where the data segment begins, from the start of the header. */
export const dataOffset = (parameters: Parameters): number =>
  parameters.headerDigest ? BHS_BYTES + DIGEST_BYTES : BHS_BYTES;

/**
 * Completes a PDU whose header stands at `offset` and whose data stand at their place: zeroes the padding and adds
 * the digests that were negotiated.
 */
export function seal(buffer: Buffer, offset: number, dataBytes: number, parameters: Parameters): void {
  let at = offset + BHS_BYTES;
  if (parameters.headerDigest) {
    writeDigest(buffer, at, crc32c(buffer, offset, BHS_BYTES));
    at += DIGEST_BYTES;
  }
  if (dataBytes === 0) return;
  const pad = padding(dataBytes);
  if (pad > 0) buffer.fill(0, at + dataBytes, at + dataBytes + pad);
  if (parameters.dataDigest) writeDigest(buffer, at + dataBytes + pad, crc32c(buffer, at, dataBytes + pad));
}

/** A CRC32C travels least significant byte first (§13.1). */
function writeDigest(buffer: Buffer, offset: number, crc: number): void {
  buffer[offset] = crc;
  buffer[offset + 1] = crc >>> 8;
  buffer[offset + 2] = crc >>> 16;
  buffer[offset + 3] = crc >>> 24;
}

/** True if the digest after `length` bytes at `offset` is theirs. */
export function digestMatches(buffer: Buffer, offset: number, length: number): boolean {
  const at = offset + length;
  const carried =
    (buffer[at] | (buffer[at + 1] << 8) | (buffer[at + 2] << 16) | (buffer[at + 3] << 24)) >>> 0;
  return crc32c(buffer, offset, length) === carried;
}
