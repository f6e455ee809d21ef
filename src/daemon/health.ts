/** How the process fares: event-loop delay, memory, processor time. */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { IntervalHistogram } from 'node:perf_hooks';

/** Delays are of the last whole window, so that several readers see the same. */
const WINDOW_MS = 10_000;
const RESOLUTION_MS = 20;

export interface HealthStatus {
  /** How late timers fire, beyond their resolution: what a command may wait for others. */
  eventLoopDelayMs: { p50: number; p99: number; max: number };
  memoryBytes: { rss: number; heapUsed: number; external: number; arrayBuffers: number };
  cpuSeconds: { user: number; system: number };
}

export class Health {
  readonly #delays: IntervalHistogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  readonly #window: NodeJS.Timeout;
  #last: HealthStatus['eventLoopDelayMs'] | undefined;

  constructor() {
    this.#delays.enable();
    this.#window = setInterval(() => {
      this.#last = this.#read();
      this.#delays.reset();
    }, WINDOW_MS);
    this.#window.unref();
  }

  status(): HealthStatus {
    const { rss, heapUsed, external, arrayBuffers } = process.memoryUsage();
    const { user, system } = process.cpuUsage();
    return {
      eventLoopDelayMs: this.#last ?? this.#read(),
      memoryBytes: { rss, heapUsed, external, arrayBuffers },
      cpuSeconds: { user: user / 1e6, system: system / 1e6 },
    };
  }

  close(): void {
    clearInterval(this.#window);
    this.#delays.disable();
  }

  #read(): HealthStatus['eventLoopDelayMs'] {
    const ms = (nanoseconds: number): number => Math.max(0, nanoseconds / 1e6 - RESOLUTION_MS);
    const delays = this.#delays;
    if (delays.count === 0) return { p50: 0, p99: 0, max: 0 };
    return { p50: ms(delays.percentile(50)), p99: ms(delays.percentile(99)), max: ms(delays.max) };
  }
}
