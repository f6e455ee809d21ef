/** What a backup has to read: all, or what changed since the last one. */
import type { ChangedRange } from '../../daemon/partition-engine.js';
import type { TargetStatus } from '../../daemon/status.js';
import { OperationalError } from '../../operational-error.js';
import { chainOf, hasEnd } from './backup-file.js';
import { changesSince } from './copy.js';
import type { Ask } from './copy.js';
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
    const chain = chainOf(base, earlier);
    const short = chain.find((file) => !hasEnd(file));
    if (short !== undefined) return instead(`${short.path} is cut off`);
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

export const whole = (length: number): ChangedRange[] => [{ position: 0, length }];

/** What of a range lies from a byte on. */
export function after({ position, length }: ChangedRange, from: number): ChangedRange {
  const begin = Math.max(position, from);
  return { position: begin, length: Math.max(position + length - begin, 0) };
}

export function bytesOf(ranges: readonly ChangedRange[]): number {
  return ranges.reduce((sum, { length }) => sum + length, 0);
}
