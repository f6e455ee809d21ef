/**
 * Slows down those who guess secrets (RFC 7143 §9.2.1 asks for secrets that can't be guessed; this makes trying
 * slow, and shows it). Only the answer to a failed attempt is delayed, so that a host with the right secret never waits
 * for what another one did from the same address.
 *
 * The delayed answers need no queue: each belongs to a half-open connection, and those are limited in all and per
 * address (`IscsiLimits.halfOpenMax`, `halfOpenPerAddressMax`).
 */

/** Attempts that are answered at once: somebody mistypes a secret. */
const FREE_ATTEMPTS = 3;
const FIRST_DELAY_MS = 100;
/** Below the patience of every initiator with one login. */
const DELAY_MS_MAX = 500;
/** After that long without a failure an address starts anew. */
const FORGET_MS = 60_000;
/** Addresses remembered; the one whose failure is longest ago makes room. */
const ADDRESSES_MAX = 4096;

export class FailedLogins {
  readonly #now: () => number;
  /** In the order of the last failure. */
  readonly #byAddress = new Map<string, { failures: number; lastMs: number }>();
  /** Failed attempts since the start. */
  total = 0;

  /** `now`: a clock in milliseconds. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Counts a failure: how many this address has had lately, and how long its answer is held back. */
  add(address: string): { failures: number; delayMs: number } {
    const now = this.#now();
    const known = this.#byAddress.get(address);
    const failures = known === undefined || now - known.lastMs > FORGET_MS ? 1 : known.failures + 1;
    this.total++;
    this.#byAddress.delete(address);
    this.#byAddress.set(address, { failures, lastMs: now });
    if (this.#byAddress.size > ADDRESSES_MAX) {
      for (const [oldest] of this.#byAddress) {
        this.#byAddress.delete(oldest);
        break;
      }
    }
    const excess = failures - FREE_ATTEMPTS;
    const delayMs = excess <= 0 ? 0 : Math.min(DELAY_MS_MAX, FIRST_DELAY_MS * 2 ** Math.min(excess - 1, 16));
    return { failures, delayMs };
  }

  get addresses(): number {
    return this.#byAddress.size;
  }
}
