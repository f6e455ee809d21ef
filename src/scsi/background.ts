/**
 * Large reads share the event loop with everybody else (docs/performance.md):
 *
 * - What is read in one turn of the loop is bounded: reads above that wait for the next turns, in their order, and what
 *   others have sent meanwhile comes in between.
 * - Reads of the slave give way to users. While a master is in use they move one piece in every fourth turn, so that a
 *   backup that reads as fast as it can makes few of the users' commands wait, and those for one piece and not for all
 *   that the backup has asked for.
 */
export interface BackgroundSurroundings {
  /** Milliseconds from any fixed moment. */
  now(): number;
  /** Calls back in the next turn of the event loop, after what has arrived meanwhile. */
  nextTurn(callback: () => void): void;
}

const LOOP: BackgroundSurroundings = { now: Date.now, nextTurn: (callback) => void setImmediate(callback) };

/** Shorter reads are not counted: command windows bound them. */
export const LARGE_BYTES = 65_536;
/** What large reads move in one turn, and what the slave's do in one of four while users are at work: some 1 ms, and some 50 µs. */
const TURN_BYTES = 1_048_576;
const PIECE_BYTES = 65_536;
const TURNS_PER_PIECE = 4;
/** A master counts as in use for so long after its last command. */
const IN_USE_MS = 20;

/** Reads at most so many bytes of a command, and tells how many the command has left; 0: it has ended. */
export type Step = (bytes: number) => number;

interface Waiting {
  readonly step: Step;
  left: number;
}

export class Background {
  readonly #loop: BackgroundSurroundings;
  /** Of the masters and of the slaves: at most one for each command under way, which the command windows bound. */
  readonly #users: Waiting[] = [];
  readonly #backups: Waiting[] = [];
  #masterUsedMs = -Infinity;
  /** What large reads have moved since the last turn began. */
  #movedBytes = 0;
  /** Turns that a backup has waited for its next piece. */
  #turnsWaited = 0;
  #turns = false;

  constructor(loop: BackgroundSurroundings = LOOP) {
    this.#loop = loop;
  }

  /** A master has been read or written just now, by the clock that `now` reads. */
  masterUsed(nowMs: number): void {
    this.#masterUsedMs = nowMs;
  }

  /** True if a read of that length may go ahead at once, and counts it; else it is to be done by `run`. */
  admits(bytes: number, ofSlave: boolean): boolean {
    if (ofSlave && (this.#masterInUse || this.#backups.length > 0)) return false;
    if (bytes < LARGE_BYTES) return true;
    if (this.#users.length > 0 || this.#movedBytes >= TURN_BYTES) return false;
    this.#movedBytes += bytes;
    this.#wantTurn();
    return true;
  }

  /** Does the steps of all callers, the masters' before the slaves', each in the order of the calls. */
  run(bytes: number, ofSlave: boolean, step: Step): void {
    (ofSlave ? this.#backups : this.#users).push({ step, left: bytes });
    this.#wantTurn();
  }

  get #masterInUse(): boolean {
    const sinceMs = this.#loop.now() - this.#masterUsedMs;
    // Below 0: the clock was set back.
    return sinceMs >= 0 && sinceMs < IN_USE_MS;
  }

  #wantTurn(): void {
    if (this.#turns) return;
    this.#turns = true;
    this.#loop.nextTurn(this.#turn);
  }

  readonly #turn = (): void => {
    this.#turns = false;
    this.#movedBytes = 0;
    this.#move(this.#users, TURN_BYTES);
    this.#moveBackups();
    if (this.#users.length + this.#backups.length > 0) this.#wantTurn();
  };

  #moveBackups(): void {
    if (this.#backups.length === 0) return;
    if (!this.#masterInUse) this.#move(this.#backups, TURN_BYTES - this.#movedBytes);
    else if (++this.#turnsWaited >= TURNS_PER_PIECE) {
      this.#turnsWaited = 0;
      this.#move(this.#backups, PIECE_BYTES);
    }
  }

  #move(waiting: Waiting[], bound: number): void {
    for (let moved = 0; moved < bound && waiting.length > 0;) {
      const [first] = waiting;
      const left = first.step(bound - moved);
      moved += first.left - left;
      this.#movedBytes += first.left - left;
      first.left = left;
      if (left === 0) waiting.shift();
    }
  }
}
