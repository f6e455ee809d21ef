/**
 * The process that lets the slave of a stream go: `release.js SOCKET TARGET GENERATION` waits for the end of its stdin,
 * that is, for the end of the backup in whatever way, and disables the slave if it is still of that generation. An enable
 * that the backup did not hear of may still be under way, so it keeps asking for as long as an answer may take.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ANSWER_MS, ask, UNREACHABLE } from '../../admin/client.js';
import type { DaemonStatus } from '../../daemon/status.js';
import { OperationalError } from '../../operational-error.js';
import { tell } from './tell.js';
import { messageOf } from '../../thrown.js';

const [, , socket = '', target = '', generation = ''] = process.argv;
/** A daemon that is being restarted is waited for. */
const TRIES = 240;
const RETRY_MS = 250;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);

/** Whether it is disabled now, or was enabled again by others. */
async function letGo(): Promise<boolean> {
  const status = (await ask(socket, { command: 'status', arguments: { target } })) as DaemonStatus;
  const { slave } = status.targets[0];
  if (slave.generation > Number(generation)) return true;
  if (!slave.enabled) return slave.generation === Number(generation);
  if (slave.generation < Number(generation)) return false;
  await ask(socket, { command: 'slave-disable', arguments: { target } });
  return true;
}

/** The backup heard what became of its enable, and says so before it ends us. */
let heard = false;
process.stdin.once('data', () => (heard = true));
process.stdin.once('close', () => void retry());

async function retry(): Promise<void> {
  const began = performance.now();
  let away = 0;
  for (;;) {
    try {
      if ((await letGo()) || heard || performance.now() - began > ANSWER_MS) return;
      // The enable may still be under way in the daemon.
      await sleep(RETRY_MS);
    } catch (error) {
      if (error instanceof OperationalError && error.code === UNREACHABLE && ++away < TRIES) {
        await sleep(RETRY_MS);
        continue;
      }
      tell(messageOf(error));
      process.exitCode = 1;
      return;
    }
  }
}
