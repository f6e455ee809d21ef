/** What a backup has to read: all, or what changed since the last one. */
import type { ChangedRange } from '../../daemon/partition-engine.js';
import type { TargetStatus } from '../../daemon/status.js';
import { OperationalError } from '../../operational-error.js';
import { chainOf, hasEnd } from './backup-file.js';
import type { BackupFile } from './backup-file.js';
import { changesSince } from './copy.js';
import type { Ask } from './copy.js';
import { damaged } from './format.js';
import type { BackupHeader } from './format.js';
import type { BackupOptions } from './options.js';
import type { Place } from './place.js';

interface Plan {
  head: Pick<BackupHeader, 'kind' | 'base'>;
  ranges: ChangedRange[];
}

/** Incremental if that was asked for and can be. */
export async function planRanges(
  { earlier }: Place,
  { name, capacityBytes, slave }: TargetStatus,
  { incremental, fullEvery }: BackupOptions,
  ask: Ask,
  warnings: string[],
): Promise<Plan> {
  const full: Plan = { head: { kind: 'full', base: null }, ranges: whole(capacityBytes) };
  if (incremental !== true) return full;
  const base = earlier.at(-1);
  const instead = (why: string): Plan => {
    warnings.push(`${why}, so this one is full`);
    return full;
  };
  if (base === undefined) return instead('there is no earlier backup of this partition in that folder');
  const { id, generation, capacityBytes: before, enabledAt } = base.header;
  try {
    const chain = wholeChain(base, earlier);
    if (chain.length >= (fullEvery ?? Infinity)) return full;
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    return instead(error.message);
  }
  if (!slave.enabled && slave.generation === generation && (enabledAt ?? slave.enabledAt) !== slave.enabledAt)
    return instead(`${base.path} is of a copy of this partition`);
  const changes = await changesSince(ask, name, generation);
  if (changes.full || before !== capacityBytes)
    return instead('the change map does not reach back to the last backup');
  return { head: { kind: 'incremental', base: { id, generation } }, ranges: changes.ranges };
}

/** @throws {OperationalError} CHAIN_BROKEN, BACKUP_DAMAGED */
function wholeChain(last: BackupFile, earlier: readonly BackupFile[]): BackupFile[] {
  const chain = chainOf(last, earlier);
  const short = chain.find((file) => !hasEnd(file));
  if (short !== undefined) throw damaged(`${short.path} is cut off`);
  return chain;
}

/** Why an unfinished backup can't build on what its header names; undefined if it can. */
export function chainFault({ base }: BackupHeader, { earlier }: Place): string | undefined {
  if (base === null) return undefined;
  const found = earlier.find(({ header }) => header.id === base.id);
  if (found === undefined)
    return `what it builds on, the backup of generation ${base.generation}, is gone or damaged`;
  try {
    wholeChain(found, earlier);
    return undefined;
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    return error.message;
  }
}

export const whole = (length: number): ChangedRange[] => [{ position: 0, length }];

/** What of a range lies from a byte on. */
export function after({ position, length }: ChangedRange, from: number): ChangedRange {
  const begin = Math.max(position, from);
  return { position: begin, length: Math.max(position + length - begin, 0) };
}

export function bytesOf(ranges: readonly ChangedRange[]): number {
  return ranges.reduce((sum, { length }) => sum + length, 0);
}
