/**
 * iSCSI names (RFC 7143 §4.2.7): iqn., eui. and naa. types, their syntax and the form in which they are compared.
 */

/** Longest name in bytes (RFC 7143 §4.2.7.2). */
export const NAME_BYTES_MAX = 223;

const IQN = /^iqn\.\d{4}-(0[1-9]|1[0-2])\.[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::\S+)?$/u;
const EUI = /^eui\.[0-9a-f]{16}$/;
const NAA = /^naa\.(?:[0-9a-f]{16}|[0-9a-f]{32})$/;
/** Characters that stringprep leaves (RFC 3722 §6.2): no controls, no white space, no ASCII punctuation but - . : */
const FORBIDDEN = /[\p{Cc}\p{Cf}\p{Z}!-,/;-@[-`{-~]/u;

/**
 * The name as it is compared and shown: NFKC, lower case (RFC 3722). Undefined if it isn't an iSCSI name.
 */
export function normaliseName(name: string): string | undefined {
  const normal = name.normalize('NFKC').toLowerCase();
  if (Buffer.byteLength(normal) > NAME_BYTES_MAX || FORBIDDEN.test(normal)) return undefined;
  return IQN.test(normal) || EUI.test(normal) || NAA.test(normal) ? normal : undefined;
}
