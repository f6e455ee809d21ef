/** What a check of a partition says: findings, each with its place, how bad it is, and what a repair does about it. */

import type { Store } from './store.js';
import { messageOf } from '../thrown.js';

export const SEVERITY = {
  /** As a crash leaves it; the next open settles it. */
  NOTE: 'note',
  /** One copy is bad and another is whole. Nothing is lost, but the next damage might be. */
  REPAIRABLE: 'repairable',
  /** No whole copy is left, or what is there contradicts itself. */
  DAMAGED: 'damaged',
} as const;
export type Severity = (typeof SEVERITY)[keyof typeof SEVERITY];

export interface Finding {
  /** Such as 'map page 17, twin 1'. */
  readonly structure: string;
  /** Where it begins on the device, in bytes. */
  readonly position: number;
  readonly lengthBytes: number;
  readonly severity: Severity;
  readonly problem: string;
  /** What a repair does, or what else can be done. */
  readonly remedy: string;
  readonly repaired: boolean;
}

/** What is to be said of a structure, and the bytes that a repair puts in its place. */
export interface Complaint extends Omit<Finding, 'repaired'> {
  readonly fix?: Buffer;
}

/** 'repairable': a repair would mend all of it; 'damaged': no repair can. */
export type Verdict = 'clean' | 'repaired' | 'repairable' | 'damaged';

/** A device that is bad from end to end would fill the memory otherwise; all findings are counted. */
const FINDINGS_MAX = 10_000;

export class Findings {
  readonly list: Finding[] = [];
  readonly counts: Record<Severity, number> = { note: 0, repairable: 0, damaged: 0 };
  repaired = 0;
  readonly #store: Store;
  readonly #repair: boolean;

  constructor(store: Store, repair: boolean) {
    this.#store = store;
    this.#repair = repair;
  }

  /** Notes a finding, and mends it at once if that is wished and possible. */
  add({ fix, ...complaint }: Complaint): void {
    if (!this.#repair || fix === undefined) {
      this.#note({ ...complaint, repaired: false });
      return;
    }
    try {
      this.#store.writeSync(fix, 0, fix.length, complaint.position);
      this.repaired++;
      this.#note({ ...complaint, repaired: true });
    } catch (error) {
      const remedy = `the device takes no write there (${messageOf(error)}): copy it to another one`;
      this.#note({ ...complaint, severity: SEVERITY.DAMAGED, remedy, repaired: false });
    }
  }

  /** How many are not in the list, because there are too many. */
  get omitted(): number {
    const { note, repairable, damaged } = this.counts;
    return note + repairable + damaged - this.list.length;
  }

  get verdict(): Verdict {
    if (this.counts.damaged > 0) return 'damaged';
    if (this.counts.repairable > this.repaired) return 'repairable';
    return this.repaired > 0 ? 'repaired' : 'clean';
  }

  #note(finding: Finding): void {
    this.counts[finding.severity]++;
    if (this.list.length < FINDINGS_MAX) this.list.push(finding);
  }
}
