/**
 * Put under the daemon by `node --import`: how long its event loop was stopped, and how much its heap has taken up.
 * SIGUSR2 makes it write that to the file CLDD_BENCH_PROBE and begin anew; nothing of it is in the product.
 */
import { openSync, readSync, renameSync, writeFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { getHeapStatistics } from 'node:v8';

/** What the probe found since it last told. */
export interface Probed {
  /** How late timers came, beyond their resolution. */
  stallMs: { p99: number; max: number };
  /** The longest without what it waited for a processor that others had (proc(5), schedstat: the main thread's). */
  ownStallMsMax: number;
  /** Growth of the heap between collections, added up. */
  allocatedBytes: number;
}

const SAMPLE_MS = 1;
const RESOLUTION_MS = 1;

const file = process.env['CLDD_BENCH_PROBE'];
if (file !== undefined) {
  const delays = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  delays.enable();
  const schedstat = openSync('/proc/self/schedstat', 'r');
  const text = Buffer.alloc(80);
  const waitedMs = (): number => {
    const bytes = readSync(schedstat, text, 0, text.length, 0);
    return Number(text.toString('latin1', 0, bytes).split(' ')[1]) / 1e6;
  };
  let allocatedBytes = 0;
  let ownStallMsMax = 0;
  let used = getHeapStatistics().used_heap_size;
  let waited = waitedMs();
  let at = performance.now();
  setInterval(() => {
    const now = getHeapStatistics().used_heap_size;
    if (now > used) allocatedBytes += now - used;
    used = now;
    const nowMs = performance.now();
    const nowWaited = waitedMs();
    ownStallMsMax = Math.max(ownStallMsMax, nowMs - at - SAMPLE_MS - (nowWaited - waited));
    at = nowMs;
    waited = nowWaited;
  }, SAMPLE_MS).unref();
  process.on('SIGUSR2', () => {
    const ms = (ns: number): number => Math.max(0, ns / 1e6 - RESOLUTION_MS);
    const found: Probed = {
      stallMs: { p99: ms(delays.percentile(99)), max: ms(delays.max) },
      ownStallMsMax,
      allocatedBytes,
    };
    writeFileSync(`${file}.new`, JSON.stringify(found));
    renameSync(`${file}.new`, file);
    allocatedBytes = ownStallMsMax = 0;
    delays.reset();
  });
}
