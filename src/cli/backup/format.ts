/**
 * The backup stream, version 1: frames, one after the other, that can be written to a pipe and proved without a
 * partition. Numbers are little-endian.
 *
 *     0  type     4 letters
 *     4  stored   u32, bytes of payload that follow the header
 *     8  position u64, byte of the image where the frame belongs
 *    16  length   u64, bytes of the image that it covers
 *    24  number   u32, counts the frames from 0: none is missing, none is moved
 *    28  CRC32C   u32, of bytes 0 to 27 and the payload
 *
 * HEAD is first and holds a BackupHeader as JSON. DATA holds image bytes as they are, GZIP compressed (RFC 1952), ZERO
 * none: its bytes are zeros. Positions ascend. DONE is last and holds the SHA-256 of all that went before it. A full
 * backup covers the whole image, an incremental one what changed since its base.
 */
import { createHash } from 'node:crypto';
import type { Hash } from 'node:crypto';
import { gunzipSync } from 'node:zlib';
import { parse } from '@hapi/bourne';
import type { ValidateFunction } from 'ajv';
import { crc32c } from '../../crc32c.js';
import { newAjv } from '../../json-schema.js';
import { OperationalError } from '../../operational-error.js';

export const BACKUP_VERSION = 1;
export const FRAME_HEADER_BYTES = 32;
/** Image bytes in one DATA or GZIP frame. */
export const EXTENT_BYTES_MAX = 1024 * 1024;
const STORED_BYTES_MAX = EXTENT_BYTES_MAX + 64 * 1024;
const CRC_AT = 28;
const SECTOR_BYTES = 512;
/** What a file offset of Node's can name; no partition has more (docs/format.md). */
const CAPACITY_BYTES_MAX = Number.MAX_SAFE_INTEGER;
const GENERATION_MAX = 2 ** 32 - 1;

export type FrameType = 'HEAD' | 'DATA' | 'GZIP' | 'ZERO' | 'DONE';
const TYPES: ReadonlySet<string> = new Set(['HEAD', 'DATA', 'GZIP', 'ZERO', 'DONE']);

export interface BackupHeader {
  version: number;
  /** Names this backup; an incremental one names its base by it. */
  id: string;
  kind: 'full' | 'incremental';
  base: { id: string; generation: number } | null;
  target: string;
  /** Of the partition. */
  uuid: string;
  generation: number;
  /** ISO 8601. */
  createdAt: string;
  capacityBytes: number;
  /** The moment of the enable, as the partition keeps it: generations of a copied partition have the same number. */
  enabledAt?: string;
  /** The slave was somebody else's and stayed enabled. */
  slaveLeft?: boolean;
}

// What is printed holds no control characters, which a terminal would obey, and nothing is longer than it has to be.
const ID = { type: 'string', pattern: '^[0-9a-fA-F-]{1,36}$' };
const TIME = { type: 'string', pattern: '^[0-9TZ.:+-]{0,40}$' };
const NAME = { type: 'string', maxLength: 223, pattern: '^[^\\u0000-\\u001f\\u007f-\\u009f]*$' };

const HEADER = {
  type: 'object',
  required: ['version', 'id', 'kind', 'base', 'target', 'uuid', 'generation', 'createdAt', 'capacityBytes'],
  properties: {
    version: { type: 'integer' },
    id: ID,
    kind: { enum: ['full', 'incremental'] },
    base: {
      type: ['object', 'null'],
      required: ['id', 'generation'],
      properties: { id: ID, generation: { type: 'integer' } },
    },
    target: NAME,
    uuid: ID,
    generation: { type: 'integer', minimum: 1, maximum: GENERATION_MAX },
    createdAt: TIME,
    capacityBytes: {
      type: 'integer',
      minimum: SECTOR_BYTES,
      multipleOf: SECTOR_BYTES,
      maximum: CAPACITY_BYTES_MAX,
    },
    enabledAt: TIME,
    slaveLeft: { type: 'boolean' },
  },
};

let headerCheck: ValidateFunction<BackupHeader> | undefined;

function isHeader(value: unknown): value is BackupHeader {
  headerCheck ??= newAjv({}).compile<BackupHeader>(HEADER);
  return headerCheck(value);
}

export interface Frame {
  type: FrameType;
  position: number;
  length: number;
  payload: Buffer;
}

/** Makes frames in order, and the sum over them. */
export class FrameWriter {
  readonly #hash: Hash;
  #number: number;

  /** To go on after frames that are there already, give what FrameReader counted. */
  constructor(hash: Hash = createHash('sha256'), number = 0) {
    this.#hash = hash;
    this.#number = number;
  }

  frame(type: FrameType, position: number, length: number, payload: Buffer = Buffer.alloc(0)): Buffer {
    const bytes = Buffer.alloc(FRAME_HEADER_BYTES + payload.length);
    bytes.write(type, 0, 'latin1');
    bytes.writeUInt32LE(payload.length, 4);
    bytes.writeBigUInt64LE(BigInt(position), 8);
    bytes.writeBigUInt64LE(BigInt(length), 16);
    bytes.writeUInt32LE(this.#number++, 24);
    payload.copy(bytes, FRAME_HEADER_BYTES);
    bytes.writeUInt32LE(frameSum(bytes), CRC_AT);
    this.#hash.update(bytes);
    return bytes;
  }

  done(): Buffer {
    const sha256 = this.#hash.copy().digest('hex');
    return this.frame('DONE', 0, 0, Buffer.from(JSON.stringify({ sha256 })));
  }
}

/** Bytes of a DONE frame: its payload has one length. */
export const DONE_BYTES = FRAME_HEADER_BYTES + JSON.stringify({ sha256: '0'.repeat(64) }).length;

/** Whether these are a sound DONE frame, of whatever number. */
export function isDone(bytes: Buffer): boolean {
  return bytes.toString('latin1', 0, 4) === 'DONE' && bytes.readUInt32LE(CRC_AT) === frameSum(bytes);
}

/** Takes frames apart and proves each. */
export class FrameReader {
  readonly hash = createHash('sha256');
  number = 0;

  /** Bytes of payload that follow a header. @throws {OperationalError} BACKUP_DAMAGED */
  storedBytes(header: Buffer): number {
    const stored = header.readUInt32LE(4);
    if (!TYPES.has(header.toString('latin1', 0, 4)) || stored > STORED_BYTES_MAX)
      throw damaged(`frame ${this.number} has no valid header`);
    return stored;
  }

  /** @throws {OperationalError} BACKUP_DAMAGED */
  frame(bytes: Buffer): Frame {
    if (bytes.readUInt32LE(CRC_AT) !== frameSum(bytes) || bytes.readUInt32LE(24) !== this.number)
      throw damaged(`frame ${this.number} has a wrong checksum`);
    const frame = {
      type: bytes.toString('latin1', 0, 4) as FrameType,
      position: Number(bytes.readBigUInt64LE(8)),
      length: Number(bytes.readBigUInt64LE(16)),
      payload: bytes.subarray(FRAME_HEADER_BYTES),
    };
    if (frame.type === 'DONE') this.#prove(frame.payload);
    this.hash.update(bytes);
    this.number++;
    return frame;
  }

  #prove(payload: Buffer): void {
    const end = parseJson(payload) as { sha256?: unknown } | null;
    if (end?.sha256 !== this.hash.copy().digest('hex')) throw damaged('the sum over all of it is wrong');
  }
}

/** The header of a HEAD frame. @throws {OperationalError} BACKUP_DAMAGED, BACKUP_VERSION */
export function headerOf(frame: Frame): BackupHeader {
  if (frame.type !== 'HEAD') throw damaged('it does not begin as a backup');
  const header = parseJson(frame.payload);
  if (!isHeader(header)) throw damaged('its header says too little');
  if (header.version !== BACKUP_VERSION)
    throw new OperationalError('BACKUP_VERSION', `it has version ${header.version}, not ${BACKUP_VERSION}`);
  return header;
}

/** The image bytes of a DATA or GZIP frame. @throws {OperationalError} BACKUP_DAMAGED */
export function dataOf({ type, length, payload }: Frame): Buffer {
  const data = type === 'GZIP' ? gunzipSync(payload, { maxOutputLength: EXTENT_BYTES_MAX }) : payload;
  if (data.length !== length) throw damaged(`an extent has ${data.length} bytes, not ${length}`);
  return data;
}

export function damaged(why: string): OperationalError {
  return new OperationalError('BACKUP_DAMAGED', why);
}

function frameSum(bytes: Buffer): number {
  const header = crc32c(bytes, 0, CRC_AT);
  return crc32c(bytes, FRAME_HEADER_BYTES, bytes.length - FRAME_HEADER_BYTES, header);
}

function parseJson(payload: Buffer): unknown {
  try {
    return parse(payload.toString('utf8')) as unknown;
  } catch (error) {
    throw new OperationalError('BACKUP_DAMAGED', 'it holds no valid JSON where some belongs', {
      cause: error,
    });
  }
}
