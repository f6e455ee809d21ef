/**
 * Put under the daemon by `node --import`: how long its event loop was stopped, and how much its heap has taken up.
 * SIGUSR2 makes it write that to the file CLDD_BENCH_PROBE and begin anew; nothing of it is in the product.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { getHeapStatistics } from 'node:v8';

/** What the probe found since it last told. */
export interface Probed {
  /** How late timers came, beyond their resolution. */
  stallMs: { p99: number; max: number };
  /** Growth of the heap between collections, added up. */
  allocatedBytes: number;
}

const SAMPLE_MS = 2;
const RESOLUTION_MS = 1;

const file = process.env['CLDD_BENCH_PROBE'];
if (file !== undefined) {
  const delays = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  delays.enable();
  let allocatedBytes = 0;
  let used = getHeapStatistics().used_heap_size;
  setInterval(() => {
    const now = getHeapStatistics().used_heap_size;
    if (now > used) allocatedBytes += now - used;
    used = now;
  }, SAMPLE_MS).unref();
  process.on('SIGUSR2', () => {
    const ms = (ns: number): number => Math.max(0, ns / 1e6 - RESOLUTION_MS);
    const found: Probed = {
      stallMs: { p99: ms(delays.percentile(99)), max: ms(delays.max) },
      allocatedBytes,
    };
    writeFileSync(`${file}.new`, JSON.stringify(found));
    renameSync(`${file}.new`, file);
    allocatedBytes = 0;
    delays.reset();
  });
}
