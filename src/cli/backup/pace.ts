/** Keeps a copy below a rate. */
import { setTimeout as sleep } from 'node:timers/promises';

export class Pace {
  readonly #rate: number | undefined;
  readonly #began = performance.now();
  #bytes = 0;

  /** `rate`: bytes a second; undefined: without limit. */
  constructor(rate: number | undefined) {
    this.#rate = rate;
  }

  /** Counts what was copied, and waits while that is ahead of its time. */
  async keep(bytes: number): Promise<void> {
    if (this.#rate === undefined) return;
    this.#bytes += bytes;
    const earlyMs = (this.#bytes / this.#rate) * 1000 - (performance.now() - this.#began);
    if (earlyMs > 1) await sleep(earlyMs);
  }
}
