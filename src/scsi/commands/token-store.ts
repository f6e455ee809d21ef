/**
 * Representations of data (RODs) that offloaded copies have made, by their tokens (SPC-6 §5.17.6): what POPULATE TOKEN
 * named and WRITE USING TOKEN may use for a while.
 *
 * A token holds nothing but 32 random bytes; what it stands for stays here, so it can't be forged, and it ends with the
 * daemon, with its time, or with the slave's medium (the generation that it was made of).
 */
import { randomBytes } from 'node:crypto';
import { putU16, putU32, putU64 } from '../bytes.js';
import type { LogicalUnit } from '../unit.js';

/** ROD types (SPC-6 §5.17.6.2). */
export const ROD_TYPE = {
  UNSPECIFIED: 0x0000_0000,
  /** The data is what the blocks hold when it is used. */
  ACCESS_UPON_REFERENCE: 0x0001_0000,
  /** A frozen copy: what the slave is by nature. */
  POINT_IN_TIME_PERSISTENT: 0x0080_0003,
  BLOCK_ZERO: 0xffff_0001,
} as const;

export const TOKEN_BYTES = 512;
export const RANGES_MAX = 64;
/** INACTIVITY TIMEOUT, in seconds. */
export const TIMEOUT_DEFAULT_S = 60;
export const TIMEOUT_MAX_S = 600;
const TOKENS_MAX = 256;
const ID_AT = 96;
const ID_BYTES = 32;

export interface Range {
  lba: number;
  blocks: number;
}

export interface Rod {
  unit: LogicalUnit;
  generation: number;
  ranges: Range[];
  blocks: number;
  timeoutMs: number;
  expiresMs: number;
}

export type Found = Rod | 'unknown' | 'expired' | 'revoked';

export class Tokens {
  private readonly rods = new Map<string, Rod>();

  /** Makes a token for the ranges; the oldest goes if there are too many. */
  create(unit: LogicalUnit, ranges: Range[], timeoutSeconds: number): Buffer {
    const blocks = ranges.reduce((sum, range) => sum + range.blocks, 0);
    const id = randomBytes(ID_BYTES);
    const oldest = this.rods.keys().next();
    if (this.rods.size >= TOKENS_MAX && oldest.done !== true) this.rods.delete(oldest.value);
    const timeoutMs = timeoutSeconds * 1000;
    const { generation } = unit.medium;
    this.rods.set(id.toString('hex'), {
      unit,
      generation,
      ranges,
      blocks,
      timeoutMs,
      expiresMs: Date.now() + timeoutMs,
    });
    const token = Buffer.alloc(TOKEN_BYTES);
    putU32(token, 0, unit.removable ? ROD_TYPE.POINT_IN_TIME_PERSISTENT : ROD_TYPE.ACCESS_UPON_REFERENCE);
    putU16(token, 6, TOKEN_BYTES - 8);
    // Creator: identification descriptor with the unit's NAA designator.
    token[16] = 0xe4;
    token[20] = 0x01;
    token[21] = 0x03;
    token[23] = unit.identity.naa.length;
    unit.identity.naa.copy(token, 24);
    putU64(token, 56, blocks * 512);
    id.copy(token, ID_AT);
    return token;
  }

  /** The data behind a token; using it begins its time anew. */
  find(token: Buffer): Found {
    const key = token.toString('hex', ID_AT, ID_AT + ID_BYTES);
    const rod = this.rods.get(key);
    if (rod === undefined) return 'unknown';
    const expired = rod.expiresMs < Date.now();
    const revoked =
      rod.unit.removable && (!rod.unit.medium.present || rod.unit.medium.generation !== rod.generation);
    if (expired || revoked) {
      this.rods.delete(key);
      return revoked ? 'revoked' : 'expired';
    }
    rod.expiresMs = Date.now() + rod.timeoutMs;
    return rod;
  }

  delete(token: Buffer): void {
    this.rods.delete(token.toString('hex', ID_AT, ID_AT + ID_BYTES));
  }
}
