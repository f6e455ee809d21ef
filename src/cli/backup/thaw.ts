/**
 * What is left to thaw when a run and its guard were killed at once, as by a crash of the host: a mark beside the backup
 * says from before the pre hook until after the post hook that something may be frozen. It holds no command, since
 * whoever can write there must not make us run one: the post hook is given again. If that is another one than before, it
 * runs all the same, being what thaws this target now, and the operator is told.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { takeLock } from '../../cow/lock.js';
import type { Lock } from '../../cow/lock.js';
import { OperationalError } from '../../operational-error.js';
import { readMark, removeDurably, writeDurably } from './durable.js';
import { runHook } from './hooks.js';
import type { BackupOptions } from './options.js';

const RETRY_MS = 250;
/** Beyond the limits of both hooks. */
const GUARD_GRACE_MS = 10_000;

/** The mark of a place and a target, as it was given; undefined for stdout, beside which nothing can lie. */
export function frozenMark(
  { to, target = '' }: Pick<BackupOptions, 'to' | 'target'>,
  folder: boolean,
): string | undefined {
  if (to === '-') return undefined;
  const digest = digestOf(target);
  return folder ? join(to, `.frozen-${digest}`) : `${to}.frozen-${digest}`;
}

/** Held by a guard, which runs the post hook itself as long as it lives. */
export function takeGuardLock(mark: string): Lock {
  return takeLock(`${mark}.lock`, 'the post hook of this backup');
}

/** Call before the pre hook. `post`: what is to thaw. */
export function markFrozen(mark: string, post: string): void {
  writeDurably(mark, `${new Date().toISOString()} ${digestOf(post)}\n`);
}

/** Call when the post hook has run well. */
export function markThawed(mark: string): void {
  removeDurably(mark);
}

/** What a run found of an earlier one. `another`: it froze with another post hook. */
export type Thaw = 'nothing' | 'thawed' | 'another';

export const ANOTHER_HOOK =
  'its post hook was another one, and the present one has run: see that nothing is left frozen';

/**
 * Runs the post hook if an earlier run left something frozen; a guard that lives is left to do so.
 * @returns what has run, or would in a dry run
 * @throws {OperationalError} HOOK_FAILED; HOOK_MISSING; PARTITION_BUSY if a guard outlives its time
 */
export async function thawLeft(options: BackupOptions, folder: boolean): Promise<Thaw> {
  const { post, freezeLimit, dryRun } = options;
  const mark = frozenMark(options, folder);
  if (mark === undefined || !existsSync(mark)) return 'nothing';
  if (post === undefined) {
    if (guardLives(mark)) return 'nothing';
    throw new OperationalError(
      'HOOK_MISSING',
      `an earlier run was killed before it thawed, and there is no --post now: thaw, then remove ${mark}`,
    );
  }
  if (dryRun === true) return thawOf(mark, post);
  return await thawMarked(mark, post, freezeLimit);
}

/** Runs the post hook once no guard lives, unless one has done it. @throws {OperationalError} as thawLeft does */
export async function thawMarked(mark: string, post: string, limitSeconds: number): Promise<Thaw> {
  const lock = await guardGone(mark, 2 * limitSeconds * 1000 + GUARD_GRACE_MS);
  try {
    if (!existsSync(mark)) return 'nothing';
    const thaw = thawOf(mark, post);
    await runHook('post', post, limitSeconds);
    markThawed(mark);
    return thaw;
  } finally {
    lock.release();
  }
}

/** By what the mark says of its hook, which is nothing but compared. */
function thawOf(mark: string, post: string): Thaw {
  const digest = readMark(mark).trim().split(' ').at(1);
  return digest === undefined || digest === digestOf(post) ? 'thawed' : 'another';
}

function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 12);
}

function guardLives(mark: string): boolean {
  try {
    takeGuardLock(mark).release();
    return false;
  } catch (error) {
    if (error instanceof OperationalError && error.code === 'PARTITION_BUSY') return true;
    throw error;
  }
}

async function guardGone(mark: string, limitMs: number): Promise<Lock> {
  const began = performance.now();
  for (;;) {
    try {
      return takeGuardLock(mark);
    } catch (error) {
      const busy = error instanceof OperationalError && error.code === 'PARTITION_BUSY';
      if (!busy || performance.now() - began > limitMs) throw error;
      await sleep(RETRY_MS);
    }
  }
}
