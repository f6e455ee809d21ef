/** What all parts of a check share, and how they read while somebody else may be writing. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Findings } from './check-report.js';
import { placeSegments } from './format.js';
import type { PlacedSegment } from './format.js';
import { readSuperblock } from './recovery.js';
import type { Store } from './store.js';
import type { Superblock } from './superblock.js';

/** What is still bad after so many looks was not just being written. */
const LOOKS = 6;
const BETWEEN_LOOKS_MS = 60;

export class CheckContext {
  readonly store: Store;
  readonly findings: Findings;
  /** Somebody else may be writing: copies may differ, and what looks bad is looked at again. */
  readonly shared: boolean;
  superblock: Superblock;

  constructor(store: Store, findings: Findings, superblock: Superblock, shared: boolean) {
    this.store = store;
    this.findings = findings;
    this.superblock = superblock;
    this.shared = shared;
  }

  get segments(): PlacedSegment[] {
    return placeSegments(this.superblock.segments);
  }

  /**
   * What `look` sees; if that is bad and somebody else may be writing, what it sees later, with the superblock as it is
   * by then.
   */
  async settled<T>(look: () => T, isGood: (seen: T) => boolean): Promise<T> {
    let seen = look();
    for (let again = 1; this.shared && again < LOOKS && !isGood(seen); again++) {
      await sleep(BETWEEN_LOOKS_MS);
      this.superblock = readSuperblock(this.store);
      seen = look();
    }
    return seen;
  }
}

/** What `read` returns; undefined if the device has an error there. */
export function unlessUnreadable<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    // A sector that can't be read is as bad as one with a wrong checksum, and is told as that.
    return undefined;
  }
}
