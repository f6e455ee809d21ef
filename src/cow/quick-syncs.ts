/**
 * Decides between waiting for the disc in the event loop's own thread and through the thread pool. At once spares a
 * durable write two changes of thread, which take as long as a quick disc (docs/performance.md); but meanwhile nobody
 * else is served. So it is done only while nobody else has been active lately (who opens the partition knows that),
 * little has to be written, and the disc has just shown itself quick: one wait that took long, wherever it was done, and
 * what follows goes through the pool until the disc has proved itself again.
 */

/** A wait that is no longer than this is quick. */
const QUICK_MS = 2;
/** Longer than this is a stall, after which twice as many quick waits are asked for. */
const STALL_MS = 10;
const STREAK_MIN = 16;
const STREAK_MAX = 4096;
/** So many times the streak that was asked for, and a stall is forgotten. */
const FORGIVEN = 8;
/** More may take a quick disc long. */
const AT_ONCE_BYTES_MAX = 1_048_576;

export class QuickSyncs {
  readonly #alone: () => boolean;
  readonly #now: () => number;
  #begunMs = 0;
  #streak = 0;
  #wanted = STREAK_MIN;

  /** `alone`: true while no more than one connection has been active lately; `now`: milliseconds from any fixed moment. */
  constructor(alone: () => boolean, now: () => number = () => performance.now()) {
    this.#alone = alone;
    this.#now = now;
  }

  /** True if the wait for so many bytes may stop the event loop. */
  atOnce(bytes: number): boolean {
    return this.#streak >= this.#wanted && bytes <= AT_ONCE_BYTES_MAX && this.#alone();
  }

  /** A commit begins to wait. Commits, and the two waits of one, follow each other. */
  begins(): void {
    this.#begunMs = this.#now();
  }

  /** The wait is over, and did not fail. */
  ends(): void {
    const elapsedMs = this.#now() - this.#begunMs;
    if (elapsedMs <= QUICK_MS) {
      this.#streak++;
      if (this.#streak >= FORGIVEN * this.#wanted) this.#wanted = STREAK_MIN;
      return;
    }
    this.#streak = 0;
    if (elapsedMs > STALL_MS) this.#wanted = Math.min(2 * this.#wanted, STREAK_MAX);
  }
}
