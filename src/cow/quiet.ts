/**
 * Is the master quiet? Reads the file systems on it (on the whole disc, or in MBR or GPT partitions) and tells which
 * of them are mounted, or were not unmounted cleanly: an image taken then would need repair.
 */

/** Fills the buffer from a position of the master; throws if that can't be read. */
export type ReadMaster = (position: number, buffer: Buffer) => void;

export interface BusyFileSystem {
  /** 'ext2', 'ext4', 'xfs' … */
  readonly type: string;
  /** Where it begins on the master. */
  readonly offsetBytes: number;
}

const MAX_PARTITIONS = 256;

export function findMounted(read: ReadMaster, capacityBytes: number): BusyFileSystem[] {
  const offsets = [0, ...partitionOffsets(read, capacityBytes)];
  const busy: BusyFileSystem[] = [];
  for (const offsetBytes of offsets) {
    if (offsetBytes + 65536 > capacityBytes) continue;
    const type = mountedType(read, offsetBytes, capacityBytes);
    if (type !== undefined) busy.push({ type, offsetBytes });
  }
  return busy;
}

function readAt(read: ReadMaster, position: number, length: number): Buffer {
  const buffer = Buffer.alloc(length);
  read(position, buffer);
  return buffer;
}

function mountedType(read: ReadMaster, offset: number, capacityBytes: number): string | undefined {
  const head = readAt(read, offset, 4096);
  if (head.readUInt16LE(1024 + 56) === 0xef53) return mountedExt(head.subarray(1024));
  if (head.toString('latin1', 0, 4) === 'XFSB')
    return isXfsLogDirty(read, offset, head, capacityBytes) ? 'xfs' : undefined;
  if (head.toString('latin1', 82, 87) === 'FAT32') return (head[65] & 1) !== 0 ? 'vfat' : undefined;
  return undefined;
}

/** With a journal, NEEDS_RECOVERY is set while mounted; without one, the state loses its VALID bit. */
function mountedExt(superblock: Buffer): string | undefined {
  const state = superblock.readUInt16LE(58);
  const compatible = superblock.readUInt32LE(92);
  const incompatible = superblock.readUInt32LE(96);
  const hasJournal = (compatible & 0x4) !== 0;
  const mounted = hasJournal ? (incompatible & 0x4) !== 0 : (state & 1) === 0;
  if (!mounted) return undefined;
  if ((incompatible & (0x40 | 0x80 | 0x200)) !== 0) return 'ext4';
  return hasJournal ? 'ext3' : 'ext2';
}

const XLOG_MAGIC = 0xfeedbabe;
const XLOG_UNMOUNT = 0x20;
const XLOG_BLOCK_BYTES = 512;
/** A record has at most 256 KiB and some headers. */
const XLOG_RECORD_BLOCKS_MAX = 600;

/** The log of a cleanly unmounted XFS ends with an unmount record. An external log can't be seen from here. */
function isXfsLogDirty(read: ReadMaster, offset: number, superblock: Buffer, capacityBytes: number): boolean {
  const blockBytes = superblock.readUInt32BE(4);
  const logStart = superblock.readUInt32BE(48) * 2 ** 32 + superblock.readUInt32BE(52);
  const agBlocks = superblock.readUInt32BE(84);
  const logBlocks = superblock.readUInt32BE(96);
  const agBits = superblock[124];
  if (logStart === 0 || blockBytes < 512 || blockBytes > 65536) return false;
  const group = Math.floor(logStart / 2 ** agBits);
  const start = offset + (group * agBlocks + (logStart % 2 ** agBits)) * blockBytes;
  const blocks = (logBlocks * blockBytes) / XLOG_BLOCK_BYTES;
  if (blocks < 2 || start + blocks * XLOG_BLOCK_BYTES > capacityBytes) return false;
  const logBlock = (index: number): Buffer =>
    readAt(read, start + index * XLOG_BLOCK_BYTES, XLOG_BLOCK_BYTES);
  const head = findLogHead(logBlock, blocks);
  for (let back = 1; back <= XLOG_RECORD_BLOCKS_MAX && back <= blocks; back++) {
    const index = (head - back + blocks) % blocks;
    const header = logBlock(index);
    if (header.readUInt32BE(0) !== XLOG_MAGIC) continue;
    const headerBlocks = Math.max(1, Math.ceil(header.readUInt32BE(320) / 32768));
    const operation = logBlock((index + headerBlocks) % blocks);
    return !(header.readUInt32BE(40) === 1 && (operation[9] & XLOG_UNMOUNT) !== 0);
  }
  return true;
}

/** Every log block carries the number of the turn in which it was written: the head is where it drops by one. */
function findLogHead(logBlock: (index: number) => Buffer, blocks: number): number {
  const cycleOf = (index: number): number => {
    const block = logBlock(index);
    const first = block.readUInt32BE(0);
    return first === XLOG_MAGIC ? block.readUInt32BE(4) : first;
  };
  const last = cycleOf(blocks - 1);
  if (cycleOf(0) === last) return 0;
  let low = 0;
  let high = blocks - 1;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (cycleOf(middle) === last) high = middle;
    else low = middle;
  }
  return high;
}

function partitionOffsets(read: ReadMaster, capacityBytes: number): number[] {
  const head = readAt(read, 0, 8192);
  for (const sectorBytes of [512, 4096]) {
    if (head.toString('latin1', sectorBytes, sectorBytes + 8) === 'EFI PART') {
      return gptOffsets(read, head.subarray(sectorBytes), sectorBytes, capacityBytes);
    }
  }
  return head.readUInt16LE(510) === 0xaa55 ? mbrOffsets(read, head, capacityBytes) : [];
}

function gptOffsets(read: ReadMaster, header: Buffer, sectorBytes: number, capacityBytes: number): number[] {
  const at = header.readUInt32LE(72) * sectorBytes;
  const count = Math.min(MAX_PARTITIONS, header.readUInt32LE(80));
  const entryBytes = header.readUInt32LE(84);
  if (entryBytes < 128 || entryBytes > 4096 || at + count * entryBytes > capacityBytes) return [];
  const entries = readAt(read, at, Math.ceil((count * entryBytes) / 512) * 512);
  const offsets: number[] = [];
  for (let index = 0; index < count; index++) {
    const entry = entries.subarray(index * entryBytes);
    const start = entry.readUInt32LE(32) + entry.readUInt32LE(36) * 2 ** 32;
    if (!entry.subarray(0, 16).every((byte) => byte === 0)) offsets.push(start * sectorBytes);
  }
  return offsets;
}

const EXTENDED_TYPES: readonly number[] = [0x05, 0x0f, 0x85];

/** Primary partitions, and the chain of logical ones within an extended partition. */
function mbrOffsets(read: ReadMaster, head: Buffer, capacityBytes: number): number[] {
  const offsets: number[] = [];
  let extended = 0;
  for (let at = 446; at < 510; at += 16) {
    const start = head.readUInt32LE(at + 8) * 512;
    if (EXTENDED_TYPES.includes(head[at + 4])) extended = start;
    else if (head[at + 4] !== 0 && start > 0) offsets.push(start);
  }
  let table = extended;
  for (let links = 0; table > 0 && table + 512 <= capacityBytes && links < MAX_PARTITIONS; links++) {
    const block = readAt(read, table, 512);
    if (block.readUInt16LE(510) !== 0xaa55) break;
    const start = block.readUInt32LE(446 + 8) * 512;
    if (start > 0) offsets.push(table + start);
    const next = block.readUInt32LE(462 + 8) * 512;
    table = next > 0 ? extended + next : 0;
  }
  return offsets;
}
