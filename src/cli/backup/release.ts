/**
 * The process that lets the slave of a stream go: `release.js SOCKET TARGET GENERATION` waits for the end of its stdin,
 * that is, for the end of the backup in whatever way, and disables the slave if it is still of that generation.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ask, UNREACHABLE } from '../../admin/client.js';
import type { DaemonStatus } from '../../daemon/status.js';
import { OperationalError } from '../../operational-error.js';

const [, , socket = '', target = '', generation = ''] = process.argv;
/** A daemon that is being restarted is waited for. */
const TRIES = 240;
const RETRY_MS = 250;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);

async function letGo(): Promise<void> {
  const status = (await ask(socket, { command: 'status', arguments: { target } })) as DaemonStatus;
  const { slave } = status.targets[0];
  if (slave.enabled && slave.generation === Number(generation))
    await ask(socket, { command: 'slave-disable', arguments: { target } });
}

process.stdin.resume();
process.stdin.once('close', () => void retry());

async function retry(): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      await letGo();
      return;
    } catch (error) {
      const away = error instanceof OperationalError && error.code === UNREACHABLE;
      if (away && tries < TRIES) {
        await sleep(RETRY_MS);
        continue;
      }
      process.stderr.write(`cldd: ${error instanceof Error ? error.message : String(error)}\n`);
      process.exitCode = 1;
      return;
    }
  }
}
