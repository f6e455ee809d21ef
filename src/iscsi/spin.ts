/**
 * A short poll of the event loop after each command, so that a client with one command at a time doesn't pay for
 * waking an idle processor: it doubles the rate at depth 1 (docs/performance.md).
 *
 * It gives way when somebody else wants the processor: the kernel counts every time that it had to take the processor
 * away from us (involuntary context switches), and a spin that meets one pauses.
 */
const CHECK_EVERY = 32;
const PAUSE_MS = 20;

export class Spin {
  readonly #spinMs: number;
  #running = false;
  #until = 0;
  #pausedUntil = 0;
  #turns = 0;
  #switches = 0;

  /** `spinUs`: how long to poll after the last activity; 0: never. */
  constructor(spinUs: number) {
    this.#spinMs = spinUs / 1000;
  }

  /** Something was received. */
  active(): void {
    if (this.#spinMs === 0) return;
    const now = performance.now();
    this.#until = now + this.#spinMs;
    if (this.#running || now < this.#pausedUntil) return;
    this.#running = true;
    setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    const now = performance.now();
    if (now >= this.#until || (++this.#turns % CHECK_EVERY === 0 && this.#disturbs(now))) {
      this.#running = false;
      return;
    }
    setImmediate(this.#turn);
  };

  #disturbs(now: number): boolean {
    const switches = process.resourceUsage().involuntaryContextSwitches;
    const before = this.#switches;
    this.#switches = switches;
    if (before === 0 || switches - before < 2) return false;
    this.#pausedUntil = now + PAUSE_MS;
    return true;
  }
}
