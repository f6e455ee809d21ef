/** Tells what a device or file holds already, so that `init` never erases something by mistake. */

import { FileStore } from './store.js';
import type { Store } from './store.js';
import { SUPERBLOCK_OFFSETS } from './format.js';

interface Signature {
  readonly name: string;
  readonly at: number;
  readonly bytes: string;
}

const text = (name: string, at: number, magic: string): Signature => ({ name, at, bytes: magic });

/** Magic numbers as their specifications give them, most specific first. */
const SIGNATURES: readonly Signature[] = [
  ...SUPERBLOCK_OFFSETS.map((at) => text('cldd', at, 'CLDDPART')),
  text('luks', 0, 'LUKS\xba\xbe'),
  text('xfs', 0, 'XFSB'),
  text('btrfs', 0x10040, '_BHRfS_M'),
  text('gpt', 512, 'EFI PART'),
  text('gpt', 4096, 'EFI PART'),
  ...[0, 512, 1024, 1536].map((at) => text('lvm', at, 'LABELONE')),
  text('md', 4096, '\xfc\x4e\x2b\xa9'),
  text('md', 0, '\xfc\x4e\x2b\xa9'),
  text('swap', 4086, 'SWAPSPACE2'),
  text('swap', 65526, 'SWAPSPACE2'),
  text('bcache', 4120, '\xc6\x85\x73\xf6\x4e\x1a\x45\xca'),
  text('f2fs', 1024, '\x10\x20\xf5\xf2'),
  text('jfs', 32768, 'JFS1'),
  text('reiserfs', 0x10034, 'ReIsEr'),
  text('iso9660', 32769, 'CD001'),
  text('squashfs', 0, 'hsqs'),
  text('qcow2', 0, 'QFI\xfb'),
  text('vmdk', 0, 'KDMV'),
  text('ntfs', 3, 'NTFS    '),
  text('exfat', 3, 'EXFAT   '),
  text('vfat', 54, 'FAT1'),
  text('vfat', 82, 'FAT32'),
];
const HEAD_BYTES = 256 * 1024;

/** The name of what is there ('ext4', 'gpt', 'lvm', 'cldd' …), or undefined for nothing known. */
export async function probe(path: string): Promise<string | undefined> {
  const store = FileStore.open(path, 'read');
  try {
    return probeStore(store);
  } finally {
    await store.close();
  }
}

export function probeStore(store: Store): string | undefined {
  const head = Buffer.alloc(HEAD_BYTES);
  store.readSync(head, 0, Math.min(HEAD_BYTES, store.sizeBytes), 0);
  const match = SIGNATURES.find(({ at, bytes }) => head.toString('latin1', at, at + bytes.length) === bytes);
  return match?.name ?? extOf(head) ?? mdAtEnd(store) ?? mbrOf(head);
}

/** ext2, 3 or 4 by the features in the superblock at 1,024. */
function extOf(head: Buffer): string | undefined {
  if (head.readUInt16LE(1024 + 56) !== 0xef53) return undefined;
  const compatible = head.readUInt32LE(1024 + 92);
  const incompatible = head.readUInt32LE(1024 + 96);
  const extentsOr64Bit = 0x40 | 0x80 | 0x200;
  if ((incompatible & extentsOr64Bit) !== 0) return 'ext4';
  return (compatible & 0x4) !== 0 ? 'ext3' : 'ext2';
}

/** Linux software RAID of format 0.90 or 1.0 keeps its superblock near the end. */
function mdAtEnd(store: Store): string | undefined {
  const sectors = Math.floor(store.sizeBytes / 512);
  const places = [(sectors - (sectors % 128) - 128) * 512, Math.floor((sectors - 16) / 8) * 8 * 512];
  const magic = Buffer.alloc(4);
  for (const place of places) {
    if (place < HEAD_BYTES || place + 4 > store.sizeBytes) continue;
    store.readSync(magic, 0, 4, place);
    if (magic.readUInt32LE(0) === 0xa92b4efc) return 'md';
  }
  return undefined;
}

function mbrOf(head: Buffer): string | undefined {
  return head.readUInt16LE(510) === 0xaa55 ? 'mbr' : undefined;
}
