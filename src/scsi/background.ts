/**
 * Reads of the slave give way to users. While a master is in use they run piece by piece, one piece in a turn of the
 * event loop, so that a backup that reads as fast as it can makes a user's command wait for one piece and not for all
 * that the backup has asked for. While no master is in use, nothing waits (docs/performance.md).
 */
export interface BackgroundSurroundings {
  /** Milliseconds from any fixed moment. */
  now(): number;
  /** Calls back in the next turn of the event loop, after what has arrived meanwhile. */
  nextTurn(callback: () => void): void;
}

const LOOP: BackgroundSurroundings = { now: Date.now, nextTurn: (callback) => void setImmediate(callback) };

/** A master counts as in use for so long after its last command. */
const IN_USE_MS = 20;

/** One piece of work; false: there is more, to be done in a later turn. */
export type Step = () => boolean;

export class Background {
  readonly #loop: BackgroundSurroundings;
  /** At most one for each command under way, which the command windows bound. */
  readonly #steps: Step[] = [];
  #masterUsedMs = -Infinity;

  constructor(loop: BackgroundSurroundings = LOOP) {
    this.#loop = loop;
  }

  /** A master has been read or written just now, by the clock that `now` reads. */
  masterUsed(nowMs: number): void {
    this.#masterUsedMs = nowMs;
  }

  /** True if a read of the slave is to be done by `run`: a master is in use, or earlier reads still wait. */
  get givesWay(): boolean {
    return this.#steps.length > 0 || this.#loop.now() - this.#masterUsedMs < IN_USE_MS;
  }

  /** Does the steps of all callers in the order of their calls, one step in each turn. */
  run(step: Step): void {
    if (this.#steps.push(step) === 1) this.#loop.nextTurn(this.#turn);
  }

  readonly #turn = (): void => {
    const [step] = this.#steps;
    if (step()) this.#steps.shift();
    if (this.#steps.length > 0) this.#loop.nextTurn(this.#turn);
  };
}
