/**
 * The eight states of a pair of locations. One logical block owns location A (first half) and location B (second
 * half). The *base* is what the slave shows; the master shows its *divergence* from it since the enable, or else
 * the base:
 *
 *     state   0     1    2    3      4      5      6      7
 *     base    hole  A    B    hole   A      A      B      B
 *     master  hole  A    B    A      B      hole   A      hole
 *
 * While the slave is disabled only 0, 1 and 2 occur.
 */

export const BLOCK_BYTES = 4096;
export const HOLE = 0;
export const IN_A = 1;
export const IN_B = 2;
/** The first state that is a divergence. */
export const FIRST_DIVERGED = 3;

/** Where a side finds its block: HOLE, IN_A or IN_B. Also the state that is left when the other version is given up. */
export type LocationTable = Uint8Array;
export const LOCATION_OF_MASTER: LocationTable = Uint8Array.of(0, 1, 2, 1, 2, 0, 1, 0);
export const LOCATION_OF_BASE: LocationTable = Uint8Array.of(0, 1, 2, 0, 1, 1, 2, 2);

/** The state after the master's block was written as a whole, slave enabled or not. */
export const WRITTEN_ENABLED = Uint8Array.of(3, 4, 6, 3, 4, 4, 6, 6);
export const WRITTEN_DISABLED = Uint8Array.of(1, 1, 2, 1, 2, 1, 1, 2);
/** The state after the master's block was unmapped, slave enabled or not. */
export const UNMAPPED_ENABLED = Uint8Array.of(0, 5, 7, 0, 5, 5, 7, 7);
export const UNMAPPED_DISABLED = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0);

/** What ends an epoch: the master's version becomes the base (disable), or the base the master again (rollback). */
export const FOLD = 0;
export const DROP = 1;
export type Transition = typeof FOLD | typeof DROP;
