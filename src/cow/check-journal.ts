/** The journal: every block that a recovery needs, in both copies, and the chain that they make. */

import type { CheckContext } from './check-context.js';
import { unlessUnreadable } from './check-context.js';
import { SEVERITY } from './check-report.js';
import { JOURNAL_BLOCK_BYTES, PAGE_UNITS, UNIT_BLOCKS } from './format.js';
import { JOURNAL_COPIES, decodeBlock, forEachRecord, recoverableRange } from './journal.js';
import type { JournalBlock } from './journal.js';
import type { MapPage } from './map-page.js';
import type { Store } from './store.js';
import { transitionOf } from './superblock.js';
import type { Superblock } from './superblock.js';

export interface JournalView {
  /** The whole blocks of each copy, by LSN. */
  readonly copies: readonly ReadonlyMap<number, JournalBlock>[];
  readonly union: ReadonlyMap<number, JournalBlock>;
  readonly tail: number;
  readonly nextLsn: number;
  readonly needed: number;
}

export function journalPosition(superblock: Superblock, lsn: number, copy: number): number {
  const { journalBlocks, journalOffset } = superblock;
  return journalOffset + (copy * journalBlocks + (lsn % journalBlocks)) * JOURNAL_BLOCK_BYTES;
}

export function viewJournal(store: Store, superblock: Superblock): JournalView {
  const copies: Map<number, JournalBlock>[] = [];
  const union = new Map<number, JournalBlock>();
  for (let copy = 0; copy < JOURNAL_COPIES; copy++) {
    const found = new Map<number, JournalBlock>();
    for (let slot = 0; slot < superblock.journalBlocks; slot++) {
      const bytes = Buffer.alloc(JOURNAL_BLOCK_BYTES);
      const position = journalPosition(superblock, slot, copy);
      const isRead = unlessUnreadable(() => {
        store.readSync(bytes, 0, bytes.length, position);
        return true;
      });
      if (isRead === undefined) continue;
      const block = decodeBlock(bytes, superblock.uuid, slot, superblock.journalBlocks);
      if (block === undefined) continue;
      found.set(block.lsn, block);
      if (!union.has(block.lsn)) union.set(block.lsn, block);
    }
    copies.push(found);
  }
  return { copies, union, ...recoverableRange(superblock, union) };
}

/**
 * What the journal adds to the map: for each page, the records that apply to it. Empty after an orderly close, and while
 * the partition is in use, since it moves on all the time.
 */
export class JournalOverlay {
  readonly #blocks: readonly JournalBlock[];
  readonly #byPage = new Map<number, number[]>();
  /** Blocks of the master that differ from the slave, by the journal's or the superblock's account. */
  readonly divergedBlocks: number;

  constructor(superblock: Superblock, blocks: readonly JournalBlock[]) {
    this.#blocks = blocks;
    const newest = blocks.at(-1);
    const counts =
      newest !== undefined && newest.lsn >= superblock.nextLsn && newest.epoch === superblock.epoch;
    this.divergedBlocks = counts ? newest.divergedBlocks : superblock.divergedBlocks;
    blocks.forEach((block, index) => {
      forEachRecord(block, (unit) => {
        const page = Math.floor(unit / PAGE_UNITS);
        const list = this.#byPage.get(page);
        if (list === undefined) this.#byPage.set(page, [index]);
        else if (list.at(-1) !== index) list.push(index);
      });
    });
  }

  touches(page: number): boolean {
    return this.#byPage.has(page);
  }

  /** Makes the page what a recovery makes of it. */
  apply(page: MapPage, superblock: Superblock): void {
    for (const index of this.#byPage.get(page.number) ?? []) {
      const block = this.#blocks[index];
      forEachRecord(block, (unit, states) => {
        if (Math.floor(unit / PAGE_UNITS) !== page.number || page.epoch > block.epoch) return;
        if (page.epoch < block.epoch) page.normalise(transitionOf(superblock, page.epoch), block.epoch);
        page.states.set(states, (unit % PAGE_UNITS) * UNIT_BLOCKS);
      });
    }
    if (page.epoch < superblock.epoch) page.normalise(transitionOf(superblock, page.epoch), superblock.epoch);
  }
}

/** Checks what a recovery would replay, and returns it. */
export async function checkJournal(context: CheckContext): Promise<JournalOverlay> {
  const { findings } = context;
  if (context.superblock.clean) return new JournalOverlay(context.superblock, []);
  const view = await context.settled(
    () => viewJournal(context.store, context.superblock),
    ({ copies, tail, needed }) => copies.every((copy) => isComplete(copy, tail, needed)),
  );
  const { superblock } = context;
  const { copies, union, tail, needed } = view;
  // No more can be needed than the ring has places for: a block says so under a right checksum, and lies.
  if (needed - tail > superblock.journalBlocks) {
    findings.add({
      structure: 'journal',
      position: superblock.journalOffset,
      lengthBytes: 2 * superblock.journalBlocks * JOURNAL_BLOCK_BYTES,
      severity: SEVERITY.DAMAGED,
      problem: `it needs blocks ${tail} to ${needed - 1}, which are more than it has places for`,
      remedy: 'nothing: restore the partition from a backup',
    });
    return new JournalOverlay(superblock, []);
  }
  const chain: JournalBlock[] = [];
  for (let lsn = tail; lsn < needed; lsn++) {
    const whole = union.get(lsn);
    if (whole !== undefined) chain.push(whole);
    for (const [copy, found] of copies.entries()) {
      if (found.has(lsn)) continue;
      const place = {
        structure: `journal block ${lsn}, copy ${copy}`,
        position: journalPosition(superblock, lsn, copy),
        lengthBytes: JOURNAL_BLOCK_BYTES,
      };
      const problem = 'it is needed for the recovery and is not whole';
      if (whole === undefined) {
        const remedy = 'nothing: neither copy is whole; restore the partition from a backup';
        findings.add({ ...place, severity: SEVERITY.DAMAGED, problem, remedy });
      } else {
        const remedy = `--repair writes it from copy ${1 - copy}`;
        findings.add({ ...place, severity: SEVERITY.REPAIRABLE, problem, remedy, fix: whole.bytes });
      }
    }
  }
  for (const [index, block] of chain.entries()) {
    const problem = contradiction(superblock, block, chain[index - 1]);
    if (problem === undefined) continue;
    findings.add({
      structure: `journal block ${block.lsn}`,
      position: journalPosition(superblock, block.lsn, 0),
      lengthBytes: JOURNAL_BLOCK_BYTES,
      severity: SEVERITY.DAMAGED,
      problem,
      remedy: 'nothing: restore the partition from a backup',
    });
    return new JournalOverlay(superblock, []);
  }
  return new JournalOverlay(superblock, context.shared || chain.length < needed - tail ? [] : chain);
}

function isComplete(copy: ReadonlyMap<number, JournalBlock>, tail: number, needed: number): boolean {
  for (let lsn = tail; lsn < needed; lsn++) if (!copy.has(lsn)) return false;
  return true;
}

function contradiction(
  superblock: Superblock,
  block: JournalBlock,
  before?: JournalBlock,
): string | undefined {
  if (block.epoch > superblock.epoch || block.generation > superblock.generation)
    return `it is of epoch ${block.epoch} and generation ${block.generation}, newer than every superblock copy`;
  if (block.tail > block.lsn)
    return `it names block ${block.tail} as the first one needed, which comes later`;
  if (before?.lsn === block.lsn - 1) {
    if (block.epoch < before.epoch || block.generation < before.generation || block.tail < before.tail)
      return 'its epoch, generation or tail goes back behind the block before';
    const goesOn = block.batchFirst === before.batchFirst;
    if (goesOn ? block.batchBlocks !== before.batchBlocks : block.batchFirst !== block.lsn)
      return 'it does not continue the batch before, and begins none';
  }
  const last = superblock.segments.reduce(
    (pages, { blocks }) => pages + Math.ceil(blocks / (PAGE_UNITS * UNIT_BLOCKS)),
    0,
  );
  let problem: string | undefined;
  forEachRecord(block, (unit) => {
    if (unit >= last * PAGE_UNITS)
      problem = `it names map page ${Math.floor(unit / PAGE_UNITS)}, which does not exist`;
  });
  return problem;
}
