/** Blocks that say what they are: address, sequence and generation in front, the rest made from them, so all is checked. */

export const BLOCK_BYTES = 4096;
const SECTORS = BLOCK_BYTES / 512;
const MAGIC = 0x534f414b;
const HEADER_BYTES = 16;

/** Sequence of a block that reads as zeros. */
export const ZERO = 0;

/** Writes block `block` of sequence `sequence` into `buffer` at `offset`. */
export function fill(
  buffer: Buffer,
  offset: number,
  block: number,
  sequence: number,
  generation: number,
): void {
  buffer.writeUInt32BE(MAGIC, offset);
  buffer.writeUInt32BE(block, offset + 4);
  buffer.writeUInt32BE(sequence, offset + 8);
  buffer.writeUInt32BE(generation, offset + 12);
  let state = (Math.imul(block + 1, 0x9e3779b1) ^ Math.imul(sequence, 0x85ebca6b)) | 1;
  for (let at = offset + HEADER_BYTES; at < offset + BLOCK_BYTES; at += 4) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    buffer.writeInt32LE(state, at);
  }
}

const ZEROS = Buffer.alloc(BLOCK_BYTES);
const made = Buffer.alloc(BLOCK_BYTES);

/** The sequence of a whole block as it was read, or what is wrong with it. */
export function identify(bytes: Buffer, offset: number, block: number): number | string {
  const found = bytes.subarray(offset, offset + BLOCK_BYTES);
  if (found.equals(ZEROS)) return ZERO;
  if (found.readUInt32BE(0) !== MAGIC)
    return `block ${block} begins with ${found.toString('hex', 0, HEADER_BYTES)}`;
  const [address, sequence, generation] = [4, 8, 12].map((at) => found.readUInt32BE(at));
  if (address !== block) return `block ${block} holds block ${address}, sequence ${sequence}`;
  fill(made, 0, block, sequence, generation);
  return found.equals(made) ? sequence : `block ${block} is a mixture, sequence ${sequence}`;
}

function cdb(length: number, opcode: number, block: number, blocks: number, flags = 0): Buffer {
  const bytes = Buffer.alloc(length);
  bytes.writeUInt8(opcode, 0);
  bytes.writeUInt8(flags, 1);
  bytes.writeBigUInt64BE(BigInt(block * SECTORS), 2);
  bytes.writeUInt32BE(blocks * SECTORS, 10);
  return bytes;
}

const FUA = 0x08;
export const read16 = (block: number, blocks: number): Buffer => cdb(16, 0x88, block, blocks);
export const write16 = (block: number, blocks: number, durable: boolean): Buffer =>
  cdb(16, 0x8a, block, blocks, durable ? FUA : 0);
/** The whole logical unit. */
export const synchronizeCache = (): Buffer => Buffer.from([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

export function unmap(block: number, blocks: number): { cdb: Buffer; write: Buffer } {
  const write = Buffer.alloc(24);
  write.writeUInt16BE(22, 0);
  write.writeUInt16BE(16, 2);
  write.writeBigUInt64BE(BigInt(block * SECTORS), 8);
  write.writeUInt32BE(blocks * SECTORS, 16);
  return { cdb: Buffer.from([0x42, 0, 0, 0, 0, 0, 0, 0, write.length, 0]), write };
}
