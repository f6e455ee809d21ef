/**
 * Text of login and text PDUs: key=value pairs, each ended by a NUL (RFC 7143 §6.1).
 */

/** Longest key name (§6.1) and longest value (§6.1: 8,192 bytes unless the key says otherwise). */
const KEY_BYTES_MAX = 63;
const VALUE_BYTES_MAX = 8192;
/** Names begin with a capital, but for iSCSIProtocolLevel; X# begins the registered extensions (§13.22, §13.26). */
const KEY = /^(?:X#)?[A-Za-z][A-Za-z0-9.\-+@_]*$/;

/** The text breaks the rules of §6.1; the message says which, without quoting what was sent. */
export class TextError extends Error {
  override readonly name = 'TextError';
}

/**
 * Splits text into its pairs, in order. A last pair without its NUL is accepted, as initiators exist that leave it
 * out; empty pairs (padding) are skipped.
 */
export function parseText(bytes: Buffer): [key: string, value: string][] {
  const pairs: [string, string][] = [];
  for (const pair of bytes.toString('utf8').split('\0')) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    if (equals < 1) throw new TextError('a key without a value');
    const key = pair.slice(0, equals);
    const value = pair.slice(equals + 1);
    if (key.length > KEY_BYTES_MAX || !KEY.test(key)) throw new TextError('a malformed key name');
    if (Buffer.byteLength(value) > VALUE_BYTES_MAX) throw new TextError('a value over 8,192 bytes');
    pairs.push([key, value]);
  }
  return pairs;
}

/** The pairs as they go on the wire. */
export function formatText(pairs: readonly (readonly [key: string, value: string])[]): Buffer {
  return Buffer.from(pairs.map(([key, value]) => `${key}=${value}\0`).join(''), 'utf8');
}

const DECIMAL = /^(?:0|[1-9]\d*)$/;
const HEX_NUMBER = /^0[xX][0-9a-fA-F]+$/;

/** A numerical value, decimal or hexadecimal (§6.1); undefined if it is neither or exceeds 2^53. */
export function parseNumber(value: string): number | undefined {
  if (!DECIMAL.test(value) && !HEX_NUMBER.test(value)) return undefined;
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : undefined;
}

const BASE64 = /^0[bB](?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** A binary value, "0x" hexadecimal or "0b" base64 (§6.1); undefined if malformed or longer than `bytesMax`. */
export function parseBinary(value: string, bytesMax: number): Buffer | undefined {
  let bytes: Buffer;
  if (HEX_NUMBER.test(value)) {
    const digits = value.slice(2);
    bytes = Buffer.from(digits.length % 2 ? `0${digits}` : digits, 'hex');
  } else if (BASE64.test(value)) {
    bytes = Buffer.from(value.slice(2), 'base64');
  } else return undefined;
  return bytes.length > bytesMax ? undefined : bytes;
}
