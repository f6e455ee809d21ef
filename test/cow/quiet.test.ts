/** The quiet check on real file systems: what says that it is mounted is found, what was unmounted is quiet. */
import {
  closeSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { needing } from '../../conformance/support/clients.js';
import { succeed } from '../../conformance/support/processes.js';
import { findMounted } from '../../src/cow/quiet.js';
import type { BusyFileSystem } from '../../src/cow/quiet.js';

const folder = mkdtempSync(join(tmpdir(), 'cldd-quiet-'));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));

const MIB = 1 << 20;

function image(name: string, sizeBytes: number): string {
  const path = join(folder, name);
  writeFileSync(path, '');
  truncateSync(path, sizeBytes);
  return path;
}

/** What the check finds in a file from a position on. */
function busy(path: string, from = 0): BusyFileSystem[] {
  const fd = openSync(path, 'r');
  const read = (position: number, buffer: Buffer): void => {
    readSync(fd, buffer, 0, buffer.length, from + position);
  };
  const found = findMounted(read, fstatSync(fd).size - from);
  closeSync(fd);
  return found;
}

/** How debugfs makes a file system look as the kernel leaves it while it is mounted. */
const MOUNTED: Record<string, string> = {
  ext2: 'set_super_value state 0',
  ext3: 'feature needs_recovery',
  ext4: 'feature needs_recovery',
};

for (const [type, asMounted] of Object.entries(MOUNTED)) {
  void t.test(`${type}: quiet when made, busy while mounted`, needing('mke2fs', 'debugfs'), async (t) => {
    const path = image(type, 64 * MIB);
    await succeed('mke2fs', ['-q', '-t', type, path]);
    t.same(busy(path), []);
    await succeed('debugfs', ['-w', '-R', asMounted, path]);
    t.same(busy(path), [{ type, offsetBytes: 0 }]);
  });
}

void t.test(
  'A file system in an MBR partition is found at its place',
  needing('mke2fs', 'debugfs'),
  async (t) => {
    const path = image('partitioned', 80 * MIB);
    await succeed('mke2fs', ['-q', '-t', 'ext2', '-E', `offset=${String(MIB)}`, path, '64M']);
    await succeed('debugfs', ['-w', '-R', 'set_super_value state 0', `${path}?offset=${String(MIB)}`]);
    const table = Buffer.alloc(512);
    table[446 + 4] = 0x83;
    table.writeUInt32LE(MIB / 512, 446 + 8);
    table.writeUInt32LE((64 * MIB) / 512, 446 + 12);
    table.writeUInt16LE(0xaa55, 510);
    writeFileSync(path, table, { flag: 'r+' });
    t.same(busy(path), [{ type: 'ext2', offsetBytes: MIB }]);
  },
);

void t.test(
  'XFS: quiet while its log ends with an unmount, busy otherwise',
  needing('mkfs.xfs'),
  async (t) => {
    const path = image('xfs', 512 * MIB);
    await succeed('mkfs.xfs', ['-q', path]);
    t.same(busy(path), []);
    t.ok(clearUnmountFlag(path), 'the log has an unmount record');
    t.same(busy(path), [{ type: 'xfs', offsetBytes: 0 }]);
  },
);

/** Makes the record that ends the log one of an ordinary transaction. */
function clearUnmountFlag(path: string): boolean {
  const fd = openSync(path, 'r+');
  const chunk = Buffer.alloc(MIB);
  let position = 0;
  let cleared = false;
  while (!cleared && readSync(fd, chunk, 0, MIB, position) === MIB) {
    for (let at = 0; at + 1024 <= MIB; at += 512) {
      if (chunk.readUInt32BE(at) !== 0xfeedbabe || ((chunk[at + 512 + 9] ?? 0) & 0x20) === 0) continue;
      writeSync(fd, Buffer.alloc(1), 0, 1, position + at + 512 + 9);
      cleared = true;
    }
    position += MIB;
  }
  closeSync(fd);
  return cleared;
}

void t.test('Nothing known is quiet, and garbage does no harm', (t) => {
  const path = image('garbage', 8 * MIB);
  t.same(busy(path), []);
  for (const [at, text] of [
    [0, 'XFSB'],
    [512, 'EFI PART'],
    [510, '\x55\xaa'],
    [1080, '\x53\xef'],
  ] as const) {
    const bytes = Buffer.alloc(8192, 0xff);
    bytes.write(text, at, 'latin1');
    writeFileSync(path, bytes, { flag: 'r+' });
    t.doesNotThrow(() => busy(path));
  }
  t.end();
});
