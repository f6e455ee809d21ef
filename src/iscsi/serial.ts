/** Serial number arithmetic of 32 bits (RFC 1982), which all iSCSI sequence numbers use (RFC 7143 §4.2.2.1). */

/** n + step, modulo 2^32. */
export const serialAdd = (n: number, step: number): number => (n + step) >>> 0;

/** a − b as a signed distance: negative when a precedes b. */
export const serialDistance = (a: number, b: number): number => (a - b) | 0;
