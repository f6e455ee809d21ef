/** Freezing with a thaw that comes whatever happens: the hooks run in a process of their own, the guard (guard.ts). */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { OperationalError } from '../../operational-error.js';
import { GUARD_TIMED_OUT, GUARD_TIMED_OUT_FAILED, GUARD_UNMARKED, runHook } from './hooks.js';
import { thawMarked } from './thaw.js';
import { messageOf } from '../../thrown.js';

/** Somebody killed the guard, which may not have thawed yet. @throws {OperationalError} HOOK_TIMEOUT in any case */
async function thawHere(
  post: string,
  limitSeconds: number,
  mark: string,
  signal: NodeJS.Signals,
): Promise<never> {
  // Whether it had thawed before the enable nobody knows, so a hook that fails here is no HOOK_FAILED.
  let outcome = 'has run';
  try {
    if (mark === '') await runHook('post', post, limitSeconds);
    else await thawMarked(mark, post, limitSeconds);
  } catch (error) {
    outcome = `failed (${messageOf(error)})`;
  }
  throw new OperationalError(
    'HOOK_TIMEOUT',
    `the guard of the hooks was ended by ${signal}: the post hook ${outcome}`,
  );
}

/** Lets the post hook run now. @throws {OperationalError} HOOK_FAILED, HOOK_TIMEOUT */
export type Release = () => Promise<void>;

/**
 * Runs `pre`, and `post` when released, when the time is up, or when this process ends in whatever way: a process of
 * its own, in a session of its own, waits for the end of a pipe that only we hold (guard.ts).
 * @param mark where the guard notes that something may be frozen (thaw.ts)
 * @throws {OperationalError} HOOK_FAILED: `pre` failed or took too long, and `post` has run; MARK_FAILED: neither has
 */
export async function startGuard(pre = ':', post = ':', limitSeconds: number, mark = ''): Promise<Release> {
  const script = fileURLToPath(new URL('guard.js', import.meta.url));
  const guard = spawn(process.execPath, [script, pre, post, String(limitSeconds), mark], {
    stdio: ['pipe', 'pipe', 'inherit'],
    detached: true,
  });
  const exited = once(guard, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  guard.stdin.on('error', () => undefined);
  const said = once(guard.stdout, 'data') as Promise<[Buffer]>;
  const [first] = await Promise.race([said, exited]);
  const code = Buffer.isBuffer(first) ? Number(first.toString()) : undefined;
  if (code !== 0) {
    guard.stdin.end();
    const [ended, signal] = await exited;
    if (signal !== null) await thawHere(post, limitSeconds, mark, signal);
    if (ended === GUARD_UNMARKED)
      throw new OperationalError(
        'MARK_FAILED',
        `no hook has run, since ${mark} can't be written: make room, or choose another place`,
      );
    const why = code === undefined ? `took more than ${limitSeconds} s and was ended` : `ended with ${code}`;
    throw new OperationalError('HOOK_FAILED', `the pre hook ${why}, and the post hook has run: ${pre}`);
  }
  return async () => {
    guard.stdin.end();
    const [ended, signal] = await exited;
    if (signal !== null) await thawHere(post, limitSeconds, mark, signal);
    if (ended === 0) return;
    if (ended === GUARD_TIMED_OUT || ended === GUARD_TIMED_OUT_FAILED)
      throw new OperationalError(
        'HOOK_TIMEOUT',
        `the post hook had to run before the slave was enabled${ended === GUARD_TIMED_OUT ? '' : ', and failed'}: pre hook and enable took more than ${limitSeconds} s (--freeze-limit)`,
      );
    throw new OperationalError('HOOK_FAILED', `the post hook ended with ${ended}: ${post}`);
  };
}
