/**
 * A short poll of the event loop after each receive, so that a client with one command at a time doesn't pay for waking
 * an idle processor: it triples the rate at depth 1 (docs/performance.md).
 *
 * It costs nobody anything that it need not: no session active, no poll. A poll that finds nothing several times in a
 * row is left out for more and more receives. And when an empty turn of the loop takes a millisecond, the kernel gave
 * the processor to somebody else meanwhile: the machine is busy, and the poll pauses, longer every time.
 */
export interface SpinSurroundings {
  /** Milliseconds from any fixed moment. */
  now(): number;
  /** Calls back in the next turn of the event loop. */
  nextTurn(callback: () => void): void;
}

const LOOP: SpinSurroundings = {
  now: () => performance.now(),
  nextTurn: (callback) => void setImmediate(callback),
};

/** An empty turn takes some microseconds. */
const TAKEN_MS = 1;
const PAUSE_MIN_MS = 50;
const PAUSE_MAX_MS = 1600;
/** So many receives in a row, each within the poll before it, show that the machine is free again. */
const FREE_HITS = 4096;
const MISSES_MAX = 4;
const SKIPPED_MAX = 256;

export class Spin {
  readonly #spinMs: number;
  readonly #loop: SpinSurroundings;
  #running = false;
  /** The poll that runs was followed by a receive. */
  #hit = false;
  /** Something was received since the last turn, so that its length says nothing. */
  #worked = false;
  #until = 0;
  #turnedAt = 0;
  #pausedUntil = 0;
  #pauseMs = PAUSE_MIN_MS;
  #hits = 0;
  #misses = 0;
  /** Receives that are not followed by a poll. */
  #skip = 0;

  /** `spinUs`: how long to poll after the last receive; 0: never. */
  constructor(spinUs: number, loop: SpinSurroundings = LOOP) {
    this.#spinMs = spinUs / 1000;
    this.#loop = loop;
  }

  /** Something was received and handled. */
  active(): void {
    if (this.#spinMs === 0) return;
    const now = this.#loop.now();
    this.#until = now + this.#spinMs;
    this.#worked = true;
    if (this.#running) {
      this.#hit = true;
      if (++this.#hits === FREE_HITS) this.#pauseMs = PAUSE_MIN_MS;
    } else if (now >= this.#pausedUntil && --this.#skip < 0) {
      this.#running = true;
      this.#hit = false;
      this.#loop.nextTurn(this.#turn);
    }
  }

  readonly #turn = (): void => {
    const now = this.#loop.now();
    const tookMs = now - this.#turnedAt;
    this.#turnedAt = now;
    if (!this.#worked && tookMs >= TAKEN_MS) this.#pause(now);
    else if (now >= this.#until) this.#end();
    else this.#loop.nextTurn(this.#turn);
    this.#worked = false;
  };

  #pause(now: number): void {
    this.#running = false;
    this.#hits = 0;
    this.#pausedUntil = now + this.#pauseMs;
    this.#pauseMs = Math.min(2 * this.#pauseMs, PAUSE_MAX_MS);
  }

  #end(): void {
    this.#running = false;
    this.#misses = this.#hit ? 0 : this.#misses + 1;
    this.#skip = this.#misses < MISSES_MAX ? 0 : Math.min(2 ** (this.#misses - MISSES_MAX), SKIPPED_MAX);
  }
}
