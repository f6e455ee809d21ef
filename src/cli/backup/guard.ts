/**
 * The process that thaws: `guard.js COMMAND SECONDS` runs COMMAND once its stdin ends (the backup released it, or died)
 * or SECONDS have passed, whichever is first. It has its own session, so that no Ctrl-C reaches it.
 */
import { spawn } from 'node:child_process';
import { GUARD_TIMED_OUT, endGroup } from './hooks.js';

const [, , command = '', seconds = '60'] = process.argv;
const limitMs = Number(seconds) * 1000;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
let began = false;

function thaw(timedOut: boolean): void {
  if (began) return;
  began = true;
  const child = spawn('/bin/sh', ['-c', command], { stdio: ['ignore', 2, 2], detached: true });
  const timer = setTimeout(() => endGroup(child.pid), limitMs);
  child.once('close', (code) => {
    clearTimeout(timer);
    process.exit(timedOut ? GUARD_TIMED_OUT : (code ?? 1));
  });
}

const limit = setTimeout(() => thaw(true), limitMs);
process.stdin.once('close', () => {
  clearTimeout(limit);
  thaw(false);
});
process.stdin.resume();
process.stdout.on('error', () => undefined);
process.stdout.write('on guard\n');
