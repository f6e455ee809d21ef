/** The four copies of the superblock, and whether what they say can be true of this device. */

import assert from 'node:assert/strict';
import type { CheckContext } from './check-context.js';
import { SEVERITY } from './check-report.js';
import { messageOf } from '../thrown.js';
import type { Complaint } from './check-report.js';
import { SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, placeSegments } from './format.js';
import type { Store } from './store.js';
import { HISTORY_EPOCHS, decodeSuperblock } from './superblock.js';
import type { Superblock } from './superblock.js';

export interface SuperblockCopy {
  readonly position: number;
  readonly bytes: Buffer;
  /** A text says what is wrong with it. */
  readonly content: Superblock | string;
}

export function readSuperblockCopies(store: Store): SuperblockCopy[] {
  return SUPERBLOCK_OFFSETS.map((position) => {
    const bytes = Buffer.alloc(SUPERBLOCK_BYTES);
    try {
      store.readSync(bytes, 0, bytes.length, position);
    } catch (error) {
      return { position, bytes, content: `it can't be read: ${messageOf(error)}` };
    }
    return { position, bytes, content: decodeSuperblock(bytes) ?? 'no superblock is there' };
  });
}

/** What is wrong with the copies, the newest of them being the truth. Nothing is written yet: see `checkStore`. */
export async function checkSuperblocks(context: CheckContext): Promise<Complaint[]> {
  const copies = await context.settled(
    () => readSuperblockCopies(context.store),
    (seen) => seen.every(({ content }) => typeof content !== 'string'),
  );
  const newest = newestOf(copies);
  if (newest === undefined) return lostCopies(copies);
  const complaints: Complaint[] = [];
  for (const [index, copy] of copies.entries()) {
    const problem =
      context.shared && typeof copy.content !== 'string' ? undefined : against(copy, index, newest);
    if (problem !== undefined) complaints.push(problem);
  }
  for (const problem of impossibilities(newest.content, context.store.sizeBytes)) {
    complaints.push({
      structure: 'superblock',
      position: newest.position,
      lengthBytes: SUPERBLOCK_BYTES,
      severity: SEVERITY.DAMAGED,
      problem,
      remedy: problem.startsWith('the device has')
        ? 'give the device its size back'
        : 'restore the partition from a backup',
    });
  }
  return complaints;
}

type WholeCopy = SuperblockCopy & { content: Superblock };

export function newestOf(copies: readonly SuperblockCopy[]): WholeCopy | undefined {
  let newest: WholeCopy | undefined;
  for (const copy of copies) {
    const { content } = copy;
    if (typeof content === 'string') continue;
    if (newest === undefined || content.sequence > newest.content.sequence) newest = { ...copy, content };
  }
  return newest;
}

/** What is to be said if no copy is whole. */
export function lostCopies(copies: readonly SuperblockCopy[]): Complaint[] {
  return copies.map(({ position, content }, index) => {
    assert(typeof content === 'string', 'a copy is whole');
    return {
      structure: `superblock, copy ${index}`,
      position,
      lengthBytes: SUPERBLOCK_BYTES,
      severity: SEVERITY.DAMAGED,
      problem: content,
      remedy: 'nothing: no copy is whole; restore the partition from a backup',
    };
  });
}

function against(copy: SuperblockCopy, index: number, newest: WholeCopy): Complaint | undefined {
  const place = {
    structure: `superblock, copy ${index}`,
    position: copy.position,
    lengthBytes: SUPERBLOCK_BYTES,
  };
  const remedy = `--repair writes version ${newest.content.sequence} there, from the copy at ${newest.position}`;
  const fix = newest.bytes;
  if (typeof copy.content === 'string') {
    return { ...place, severity: SEVERITY.REPAIRABLE, problem: copy.content, remedy, fix };
  }
  if (copy.bytes.equals(newest.bytes)) return undefined;
  const { sequence } = copy.content;
  if (sequence === newest.content.sequence) {
    const problem = `it says something else than the copy at ${newest.position}, and is as new`;
    return {
      ...place,
      severity: SEVERITY.DAMAGED,
      problem,
      remedy: 'nothing: which one is true can not be told; restore the partition from a backup',
    };
  }
  const problem = `it is version ${sequence}, the newest is ${newest.content.sequence}`;
  // The last two copies are written after the first two are durable.
  const underWay = index >= 2 && sequence === newest.content.sequence - 1;
  const severity = underWay ? SEVERITY.NOTE : SEVERITY.REPAIRABLE;
  return underWay
    ? { ...place, severity, problem: `${problem}, as a crash leaves it`, remedy: 'the next open writes it' }
    : { ...place, severity, problem, remedy, fix };
}

/**
 * What no superblock that cldd wrote says. Its checksum is right, and its numbers can be true together (`nonsenseIn`), so
 * each is a mistake of a program.
 */
function impossibilities(superblock: Superblock, deviceBytes: number): string[] {
  const { journalBlocks, nextLsn, tailLsn, epoch, historyBase } = superblock;
  const problems: string[] = [];
  const expect = (holds: boolean, problem: string): void => {
    if (!holds) problems.push(problem);
  };
  expect(
    deviceBytes >= superblock.deviceBytes,
    `the device has ${deviceBytes} bytes, but the partition was made for ${superblock.deviceBytes}`,
  );
  for (const [index, segment] of placeSegments(superblock.segments).entries()) {
    const { deviceOffset, halfB, masterBytes } = segment;
    expect(
      halfB + masterBytes === deviceOffset + segment.deviceBytes,
      `segment ${index} does not fit its place`,
    );
  }
  expect(
    nextLsn - tailLsn <= journalBlocks,
    `its journal goes from block ${tailLsn} to ${nextLsn}, more than the ring holds`,
  );
  expect(
    epoch - historyBase < HISTORY_EPOCHS,
    `its history begins with epoch ${historyBase}, which does not reach epoch ${epoch}`,
  );
  return problems;
}
