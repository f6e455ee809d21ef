/** `cldd check` beside the daemon: read-only, while the partition is written, flushed, checkpointed, enabled and disabled. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { checkPartition } from '../../src/cow/check-partition.js';
import { PAGE_COVERS_BYTES, SUPERBLOCK_OFFSETS } from '../../src/cow/format.js';
import { Partition } from '../../src/cow/partition.js';
import { RESULT } from '../../src/cow/results.js';
import { BLOCK_BYTES } from '../../src/cow/states.js';
import { FileStore } from '../../src/cow/store.js';

const CHECKS = 12;
const PAGES = 6;
const folder = mkdtempSync(join(tmpdir(), 'cldd-online-'));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
t.setTimeout(600_000);

/** Works on the partition until `isOver`, so that every structure is being written now and then. */
async function work(partition: Partition, isOver: () => boolean): Promise<number> {
  const { master } = partition;
  let writes = 0;
  for (; !isOver(); writes++) {
    const position = (writes % PAGES) * PAGE_COVERS_BYTES + (writes % 997) * BLOCK_BYTES;
    const data = Buffer.alloc(BLOCK_BYTES, writes);
    const result = await new Promise((resolve) => master.writeAsync(position, data, 0, data.length, resolve));
    if (result !== RESULT.OK) throw new Error(`a write ended with ${String(result)}`);
    if (writes % 16 === 0) await new Promise((resolve) => master.flush(resolve));
    if (writes % 200 === 100) await partition.enableSlave({ crashConsistent: true });
    if (writes % 200 === 199) await partition.disableSlave();
    if (writes % 50 === 0)
      await new Promise<void>((resolve) => partition.state.save('key', data, () => resolve()));
  }
  return writes;
}

void t.test('A check beside the work of a daemon finds nothing, and writes nothing', async (t) => {
  const path = join(folder, 'partition');
  await Partition.init(path, { sizeBytes: 512 << 20, thin: true });
  const partition = await Partition.open(path);
  let isOver = false;
  const working = work(partition, () => isOver);
  for (let count = 0; count < CHECKS; count++) {
    const { verdict, shared, notChecked, findings } = await checkPartition(path);
    t.equal(verdict, 'clean', JSON.stringify(findings));
    t.match(shared, /in use by process/);
    t.ok(notChecked.length > 0, 'what it did not look at is told');
  }
  await t.rejects(checkPartition(path, { repair: true }), { code: 'PARTITION_BUSY' });
  isOver = true;
  t.comment(`${await working} writes meanwhile`);

  // Damage is found beside the daemon as well, and left alone.
  const disc = FileStore.open(path, 'write');
  disc.writeSync(Buffer.alloc(512, 0xdb), 0, 512, SUPERBLOCK_OFFSETS[3]);
  await disc.close();
  const before = readFileSync(path).subarray(0, 1 << 20);
  const { verdict, findings } = await checkPartition(path);
  t.equal(verdict, 'repairable');
  t.match(findings, [{ position: SUPERBLOCK_OFFSETS[3], repaired: false }]);
  t.ok(
    readFileSync(path)
      .subarray(0, 1 << 20)
      .equals(before),
    'nothing was written',
  );
  await partition.close();
  t.equal((await checkPartition(path)).verdict, 'clean', 'the close wrote all copies');
});
