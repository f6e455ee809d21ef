/**
 * Behind a damaged header (RFC 7143 §7.8): a receiver "MUST either discard the header and all data up to the beginning
 * of a later PDU or close the connection", and the beginning of a later PDU has to be found by other means than the
 * lengths of the damaged header alone, since the damage may be in them.
 *
 * The means here are digests. The lengths are taken for right only if they lead past data whose digest is right to a
 * header whose own digest is right (so with data, and without data digests, the connection ends). In twelve of thirteen
 * cases the damage lies elsewhere in the header, and then they do. What is between is dropped. Several damaged PDUs in a row are passed in the same way. Nothing is
 * searched for: data may hold bytes that look like a PDU, and an initiator's user may have put them there.
 */
import { BHS_BYTES, DIGEST_BYTES } from './constants.js';
import { digestMatches, padding } from './framing.js';
import type { ReceiveBuffer } from './receive.js';

/** How long the next PDU may take to come. */
export const RESYNC_MS = 15_000;
/** Damaged PDUs in a row. */
const DAMAGED_MAX = 8;

/**
 * Where the next whole header begins in what was received; or how many bytes from the start on are needed to tell; or
 * 'lost' if the lengths lead nowhere.
 */
export function findNextPdu(
  { buffer, view, start, end }: ReceiveBuffer,
  dataDigest: boolean,
  segmentBytesMax: number,
): number | { needBytes: number } | 'lost' {
  let at = start;
  for (let damaged = 1; damaged <= DAMAGED_MAX; damaged++) {
    const lengths = view.getUint32(at + 4);
    const dataBytes = lengths & 0xffffff;
    if (dataBytes > segmentBytesMax || (dataBytes > 0 && !dataDigest)) return 'lost';
    const dataAt = at + BHS_BYTES + ((lengths >>> 24) << 2) + DIGEST_BYTES;
    const padded = dataBytes + padding(dataBytes);
    const digestBytes = dataBytes > 0 ? DIGEST_BYTES : 0;
    const next = dataAt + padded + digestBytes;
    const have = (needed: number): boolean => needed <= end;
    const more = (needed: number): { needBytes: number } | 'lost' =>
      needed - start > buffer.length ? 'lost' : { needBytes: needed - start };
    if (!have(next + BHS_BYTES)) return more(next + BHS_BYTES);
    if (digestBytes > 0 && !digestMatches(buffer, dataAt, padded)) return 'lost';
    const headerBytes = BHS_BYTES + (buffer[next + 4] << 2);
    if (!have(next + headerBytes + DIGEST_BYTES)) return more(next + headerBytes + DIGEST_BYTES);
    if (digestMatches(buffer, next, headerBytes)) return next;
    at = next;
  }
  return 'lost';
}
