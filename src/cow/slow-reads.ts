/**
 * Decides between reading at once, which is fastest for what the page cache holds, and reading through the thread
 * pool, which does not stop the event loop while a disc seeks. Every read at once is timed: after two slow ones in a
 * row the next 16 go through the pool; then one read probes, and while it is slow too the number doubles, up to 512.
 */

const SLOW_MS = 0.03;
const SLOW_MS_PER_BYTE = 0.4e-6;
const FIRST_DETOUR_READS = 16;
const MAX_DETOUR_READS = 512;

export class SlowReads {
  #slowInARow = 0;
  #detour = FIRST_DETOUR_READS;
  #left = 0;
  #probing = false;

  /** True if the next read should go through the pool; counts it. */
  next(): boolean {
    if (this.#left === 0) return false;
    this.#left--;
    return true;
  }

  /** Tells how long a read at once took. */
  note(elapsedMs: number, lengthBytes: number): void {
    if (elapsedMs <= SLOW_MS + SLOW_MS_PER_BYTE * lengthBytes) {
      this.#slowInARow = 0;
      this.#probing = false;
      this.#detour = FIRST_DETOUR_READS;
      return;
    }
    this.#slowInARow++;
    if (!this.#probing && this.#slowInARow < 2) return;
    if (this.#probing) this.#detour = Math.min(MAX_DETOUR_READS, 2 * this.#detour);
    this.#left = this.#detour;
    this.#slowInARow = 0;
    this.#probing = true;
  }
}
