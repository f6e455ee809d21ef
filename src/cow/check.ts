/**
 * Checks all metadata of a partition and, if wished, repairs it: what is bad is written again from its whole copy, and
 * nothing else is ever written. docs/check.md says what is looked at.
 *
 * The memory that it takes is bounded at any size: map pages are looked at one after the other, and only the journal,
 * at most 16 MiB, is held as a whole.
 */

import { uuidText } from './bytes.js';
import { CheckContext } from './check-context.js';
import { checkJournal } from './check-journal.js';
import { checkMap } from './check-map.js';
import { checkActivity, checkState } from './check-records.js';
import { Findings } from './check-report.js';
import type { Finding, Severity, Verdict } from './check-report.js';
import { checkSuperblocks, lostCopies, newestOf, readSuperblockCopies } from './check-superblock.js';
import { OperationalError } from '../operational-error.js';
import { readSuperblock } from './recovery.js';
import { syncStore } from './store.js';
import type { Store } from './store.js';

export interface CheckOptions {
  /** Write what is bad from its whole copy. Only for who holds the partition alone. */
  readonly repair?: boolean;
  /** With `repair`: if no twin of the state area is whole, make it empty. */
  readonly emptyState?: boolean;
  /** Somebody else may be writing meanwhile. */
  readonly shared?: boolean;
}

export interface CheckReport {
  /** Undefined if no copy of the superblock tells. */
  readonly uuid: string | undefined;
  readonly verdict: Verdict;
  readonly closedInOrder: boolean | undefined;
  readonly counts: Readonly<Record<Severity, number>>;
  readonly findings: readonly Finding[];
  /** So many more were counted, but are not listed. */
  readonly omitted: number;
  readonly mapPages: number;
  /** What could not be checked because the partition is in use. */
  readonly notChecked: readonly string[];
}

const NOT_WHILE_IN_USE: readonly string[] = [
  'whether copies that differ agree in the end',
  'the map together with what the journal adds to it',
  'the count of blocks that differ between master and slave',
];

/**
 * @throws OperationalError NOT_CLDD, UNKNOWN_FORMAT; whatever else is wrong is a finding
 */
export async function checkStore(store: Store, options: CheckOptions = {}): Promise<CheckReport> {
  // What a killed process left in the page cache must be durable before another copy is made from it.
  if (options.repair === true) await syncStore(store);
  const report = await look(store, options);
  if (options.repair !== true || report.repaired === 0) return report.report;
  await syncStore(store);
  // Only another look can tell that a repair did what it should.
  const { report: afterwards } = await look(store, { shared: false });
  if (afterwards.verdict === 'clean') return report.report;
  const remains = afterwards.findings.filter(({ severity }) => severity !== 'note');
  return {
    ...report.report,
    verdict: afterwards.verdict,
    counts: afterwards.counts,
    findings: [...report.report.findings.filter(({ repaired }) => repaired), ...remains],
  };
}

async function look(store: Store, options: CheckOptions): Promise<{ report: CheckReport; repaired: number }> {
  const { repair = false, emptyState = false, shared = false } = options;
  const findings = new Findings(store, repair);
  const copies = readSuperblockCopies(store);
  const newest = newestOf(copies)?.content;
  if (newest === undefined) {
    requireRemains(store);
    for (const complaint of lostCopies(copies)) findings.add(complaint);
    return { repaired: 0, report: { ...summary(findings), uuid: undefined, closedInOrder: undefined } };
  }
  const context = new CheckContext(store, findings, newest, shared);
  const superblocks = await checkSuperblocks(context);
  let mapPages = 0;
  if (superblocks.every(({ severity }) => severity !== 'damaged')) {
    await checkActivity(context);
    await checkState(context, repair && emptyState);
    const overlay = await checkJournal(context);
    mapPages = (await checkMap(context, overlay)).pages;
  }
  // A superblock may only be spread if nothing shows that a newer one was lost.
  const mayWrite = findings.counts.damaged === 0;
  for (const { fix, ...complaint } of superblocks) {
    findings.add(mayWrite && fix !== undefined ? { ...complaint, fix } : complaint);
  }
  return {
    repaired: findings.repaired,
    report: {
      ...summary(findings),
      uuid: uuidText(context.superblock.uuid),
      closedInOrder: context.superblock.clean,
      mapPages,
      notChecked: shared ? NOT_WHILE_IN_USE : [],
    },
  };
}

function summary(findings: Findings): Omit<CheckReport, 'uuid' | 'closedInOrder'> {
  const { verdict, counts, list, omitted } = findings;
  return { verdict, counts, findings: list, omitted, mapPages: 0, notChecked: [] };
}

/** @throws OperationalError NOT_CLDD or UNKNOWN_FORMAT if no copy ever was one that this program could check */
function requireRemains(store: Store): void {
  try {
    readSuperblock(store);
  } catch (error) {
    if (!(error instanceof OperationalError) || error.code !== 'DAMAGED') throw error;
  }
}
