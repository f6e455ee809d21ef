/** Hooks of `cldd backup`: shell commands with a time limit, and one that runs whatever happens. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { OperationalError } from '../../operational-error.js';

/** What the guard ends with when its time was up before it was released. */
export const GUARD_TIMED_OUT = 75;

/** Runs a shell command; its output goes to stderr. @throws {OperationalError} HOOK_FAILED */
export async function runHook(name: string, command: string, limitSeconds: number): Promise<void> {
  const child = spawn('/bin/sh', ['-c', command], { stdio: ['ignore', 2, 2], detached: true });
  const timer = setTimeout(() => endGroup(child.pid), limitSeconds * 1000);
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  clearTimeout(timer);
  if (code === 0) return;
  const why = signal === null ? `ended with ${code}` : `took more than ${limitSeconds} s and was ended`;
  throw new OperationalError('HOOK_FAILED', `the ${name} hook ${why}: ${command}`);
}

/** With all that it started. */
export function endGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Somebody killed the guard, which may not have thawed yet. @throws {OperationalError} HOOK_FAILED in any case */
async function thawHere(post: string, limitSeconds: number, signal: NodeJS.Signals): Promise<never> {
  await runHook('post', post, limitSeconds);
  throw new OperationalError(
    'HOOK_TIMEOUT',
    `the guard of the hooks was ended by ${signal}: the post hook has run`,
  );
}

/** Lets the post hook run now. @throws {OperationalError} HOOK_FAILED, HOOK_TIMEOUT */
export type Release = () => Promise<void>;

/**
 * Runs `pre`, and `post` when released, when the time is up, or when this process ends in whatever way: a process of
 * its own, in a session of its own, waits for the end of a pipe that only we hold (guard.ts).
 * @throws {OperationalError} HOOK_FAILED: `pre` failed or took too long, and `post` has run
 */
export async function startGuard(pre = ':', post = ':', limitSeconds: number): Promise<Release> {
  const script = fileURLToPath(new URL('guard.js', import.meta.url));
  const guard = spawn(process.execPath, [script, pre, post, String(limitSeconds)], {
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
    const [, signal] = await exited;
    if (signal !== null) await thawHere(post, limitSeconds, signal);
    const why = code === undefined ? `took more than ${limitSeconds} s and was ended` : `ended with ${code}`;
    throw new OperationalError('HOOK_FAILED', `the pre hook ${why}, and the post hook has run: ${pre}`);
  }
  return async () => {
    guard.stdin.end();
    const [ended, signal] = await exited;
    if (signal !== null) await thawHere(post, limitSeconds, signal);
    if (ended === 0) return;
    if (ended === GUARD_TIMED_OUT)
      throw new OperationalError(
        'HOOK_TIMEOUT',
        `the post hook had to run before the slave was enabled: pre hook and enable took more than ${limitSeconds} s (--freeze-limit)`,
      );
    throw new OperationalError('HOOK_FAILED', `the post hook ended with ${ended}: ${post}`);
  };
}

/**
 * A process of its own that disables the slave if this one ends, in whatever way, before it calls the answer; used for a
 * stream to stdout, with which no later run could go on. To call it disables a slave that is still there.
 */
export function startRelease(socket: string, target: string, generation: number): () => Promise<void> {
  const script = fileURLToPath(new URL('release.js', import.meta.url));
  const child = spawn(process.execPath, [script, socket, target, String(generation)], {
    stdio: ['pipe', 'ignore', 'inherit'],
    detached: true,
  });
  const exited = once(child, 'exit');
  child.stdin.on('error', () => undefined);
  // Its pipe ends with this process; it alone must not keep us.
  child.unref();
  if (child.stdin instanceof Socket) child.stdin.unref();
  return async () => {
    child.ref();
    child.stdin.end();
    await exited;
  };
}
