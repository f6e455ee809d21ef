/** Which reads wait in the event loop's thread, and which go through the pool: told by how long the last ones took. */
import t from 'tap';
import { SlowReads } from '../../src/cow/slow-reads.js';

const BYTES = 4096;
/** What a read of so many bytes may take at most: 0.03 ms, and 0.4 ms for a million bytes. */
const quickMs = (bytes: number): number => 0.03 + 0.4e-6 * bytes;
const SLOW_MS = 1;

/** How many reads go through the pool now, before one probes. */
function detour(reads: SlowReads): number {
  let count = 0;
  while (reads.next()) if (++count > 2000) throw new Error('no read probes');
  return count;
}

function slow(reads: SlowReads, times: number): void {
  for (let count = 0; count < times; count++) reads.note(SLOW_MS, BYTES);
}

void t.test('One slow read alone sends none through the pool, two in a row send sixteen', (t) => {
  const reads = new SlowReads();
  t.equal(detour(reads), 0);
  slow(reads, 1);
  t.equal(detour(reads), 0);
  reads.note(0, BYTES);
  slow(reads, 1);
  t.equal(detour(reads), 0, 'a quick one between them counts');
  slow(reads, 1);
  t.equal(detour(reads), 16);
  t.end();
});

void t.test('While the probe is slow too the number doubles, up to 512; a quick one ends it', (t) => {
  const reads = new SlowReads();
  slow(reads, 2);
  const counts = [detour(reads)];
  for (let probe = 0; probe < 7; probe++) {
    slow(reads, 1);
    counts.push(detour(reads));
  }
  t.same(counts, [16, 32, 64, 128, 256, 512, 512, 512]);
  reads.note(0, BYTES);
  t.equal(detour(reads), 0);
  slow(reads, 1);
  t.equal(detour(reads), 0, 'one slow read alone is none again');
  slow(reads, 1);
  t.equal(detour(reads), 16, 'and it begins anew');
  t.end();
});

void t.test('A longer read may take longer', (t) => {
  for (const bytes of [512, 2 ** 20]) {
    const reads = new SlowReads();
    for (let count = 0; count < 2; count++) reads.note(quickMs(bytes), bytes);
    t.equal(detour(reads), 0, `${bytes} bytes`);
    for (let count = 0; count < 2; count++) reads.note(quickMs(bytes) * 1.001, bytes);
    t.equal(detour(reads), 16, `${bytes} bytes, a little slower`);
  }
  t.end();
});
