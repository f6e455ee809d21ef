/**
 * The process that thaws: `guard.js PRE POST SECONDS [MARK]` runs PRE, tells its exit code on stdout, and runs POST once its
 * stdin ends (the backup released it, or died) or SECONDS have passed, whichever is first. A PRE that still runs then is
 * ended before, so that it can't freeze what POST has thawed. It has its own session, so that no Ctrl-C reaches it. For
 * the case that it is killed as well, MARK is there from before PRE until POST has run well.
 */
import { spawn } from 'node:child_process';
import type { Lock } from '../../cow/lock.js';
import { GUARD_TIMED_OUT, GUARD_TIMED_OUT_FAILED, GUARD_UNMARKED, endGroup } from './hooks.js';
import { tell } from './tell.js';
import { markFrozen, markThawed, takeGuardLock } from './thaw.js';
import { messageOf } from '../../thrown.js';

const [, , preHook = ':', postHook = ':', seconds = '60', mark = ''] = process.argv;
const limitMs = Number(seconds) * 1000;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);

const shell = (command: string) =>
  spawn('/bin/sh', ['-c', command], { stdio: ['ignore', 2, 2], detached: true });

let thawing = false;
function thaw(timedOut: boolean): void {
  if (thawing) return;
  thawing = true;
  if (pre.exitCode !== null || pre.signalCode !== null) post(timedOut);
  else {
    pre.once('exit', () => post(timedOut));
    endGroup(pre.pid);
  }
}

function post(timedOut: boolean): void {
  const child = shell(postHook);
  const timer = setTimeout(() => endGroup(child.pid), limitMs);
  child.once('exit', (code) => {
    clearTimeout(timer);
    if (code === 0 && mark !== '') markThawed(mark);
    lock?.release();
    if (timedOut) process.exit(code === 0 ? GUARD_TIMED_OUT : GUARD_TIMED_OUT_FAILED);
    process.exit(code ?? 1);
  });
}

function note(): Lock | undefined {
  if (mark === '') return undefined;
  try {
    const taken = takeGuardLock(mark);
    markFrozen(mark, postHook);
    return taken;
  } catch (error) {
    tell(messageOf(error));
    process.exit(GUARD_UNMARKED);
  }
}

const lock = note();
const pre = shell(preHook);
process.stdout.on('error', () => undefined);
pre.once('exit', (code) => {
  if (!thawing) process.stdout.write(`${code ?? 1}\n`);
});
const limit = setTimeout(() => thaw(true), limitMs);
process.stdin.once('close', () => {
  clearTimeout(limit);
  thaw(false);
});
process.stdin.resume();
