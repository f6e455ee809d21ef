/**
 * The process that thaws: `guard.js PRE POST SECONDS` runs PRE, tells its exit code on stdout, and runs POST once its
 * stdin ends (the backup released it, or died) or SECONDS have passed, whichever is first. A PRE that still runs then is
 * ended before, so that it can't freeze what POST has thawed. It has its own session, so that no Ctrl-C reaches it.
 */
import { spawn } from 'node:child_process';
import { GUARD_TIMED_OUT, endGroup } from './hooks.js';

const [, , preHook = ':', postHook = ':', seconds = '60'] = process.argv;
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
    process.exit(timedOut ? GUARD_TIMED_OUT : (code ?? 1));
  });
}

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
