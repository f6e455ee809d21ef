/** Hooks of `cldd backup`: shell commands with a time limit, and one that runs whatever happens. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { OperationalError } from '../../operational-error.js';

/** What the guard ends with when its time was up before it was released. */
export const GUARD_TIMED_OUT = 75;
/** And when it could not note that something will be frozen, so that it ran no hook. */
export const GUARD_UNMARKED = 76;
/** Its time was up before, and the post hook failed as well. */
export const GUARD_TIMED_OUT_FAILED = 77;

/** Runs a shell command, if need be with a limit; its output goes to stderr. @throws {OperationalError} HOOK_FAILED */
export async function runHook(name: string, command: string, limitSeconds = Infinity): Promise<void> {
  const child = spawn('/bin/sh', ['-c', command], { stdio: ['ignore', 2, 2], detached: true });
  const timer =
    limitSeconds === Infinity ? undefined : setTimeout(() => endGroup(child.pid), limitSeconds * 1000);
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

/**
 * A process of its own that disables the slave if this one ends, in whatever way, before it calls the answer; used for a
 * stream to stdout, with which no later run could go on. To call it disables a slave that is still there;
 * `heard`: no enable can still be under way.
 */
export function startRelease(
  socket: string,
  target: string,
  generation: number,
): (heard: boolean) => Promise<void> {
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
  return async (heard) => {
    child.ref();
    child.stdin.end(heard ? 'heard' : '');
    await exited;
  };
}
