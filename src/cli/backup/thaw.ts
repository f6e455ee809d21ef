/**
 * What is left to thaw when a run and its guard were killed at once, as by a crash of the host: a mark beside the backup
 * says from before the pre hook until after the post hook that something may be frozen. It holds no command, since
 * whoever can write there must not make us run one; its name comes from the post hook, which is given again.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { takeLock } from '../../cow/lock.js';
import type { Lock } from '../../cow/lock.js';
import { OperationalError } from '../../operational-error.js';
import { removeDurably, writeDurably } from './durable.js';
import { runHook } from './hooks.js';
import type { BackupOptions } from './options.js';

const RETRY_MS = 250;
/** Beyond the limits of both hooks. */
const GUARD_GRACE_MS = 10_000;

/** The mark of a place and a post hook; undefined for stdout, beside which nothing can lie. */
export function frozenMark(to: string, folder: boolean, post: string): string | undefined {
  if (to === '-') return undefined;
  const digest = createHash('sha256').update(post).digest('hex').slice(0, 12);
  return folder ? join(to, `.frozen-${digest}`) : `${to}.frozen-${digest}`;
}

/** Held by a guard, which runs the post hook itself as long as it lives. */
export function takeGuardLock(mark: string): Lock {
  return takeLock(`${mark}.lock`, 'the post hook of this backup');
}

/** Call before the pre hook. */
export function markFrozen(mark: string): void {
  writeDurably(mark, `${new Date().toISOString()}\n`);
}

/** Call when the post hook has run well. */
export function markThawed(mark: string): void {
  removeDurably(mark);
}

/**
 * Runs the post hook if an earlier run left something frozen; a guard that lives is left to do so.
 * @returns whether the hook has run, or would in a dry run
 * @throws {OperationalError} HOOK_FAILED; PARTITION_BUSY if a guard outlives its time
 */
export async function thawLeft(
  { to, post, freezeLimit, dryRun }: Pick<BackupOptions, 'to' | 'post' | 'freezeLimit' | 'dryRun'>,
  folder: boolean,
): Promise<boolean> {
  const mark = post === undefined ? undefined : frozenMark(to, folder, post);
  if (post === undefined || mark === undefined || !existsSync(mark)) return false;
  return dryRun === true || (await thawMarked(mark, post, freezeLimit));
}

/** Runs the post hook once no guard lives, unless one has done it. @throws {OperationalError} as thawLeft does */
export async function thawMarked(mark: string, post: string, limitSeconds: number): Promise<boolean> {
  const lock = await guardGone(mark, 2 * limitSeconds * 1000 + GUARD_GRACE_MS);
  try {
    if (!existsSync(mark)) return false;
    await runHook('post', post, limitSeconds);
    markThawed(mark);
    return true;
  } finally {
    lock.release();
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
