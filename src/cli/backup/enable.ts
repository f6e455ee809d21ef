/**
 * The enable between the hooks, and what a run that died around it left. Marks beside the backup tell the next run: one
 * that a slave was asked for (its thaw may have come too early), one that something is frozen (thaw.ts).
 */
import { existsSync, rmSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { ANSWER_MS, UNREACHABLE } from '../../admin/client.js';
import type { DaemonStatus, TargetStatus } from '../../daemon/status.js';
import { OperationalError } from '../../operational-error.js';
import { attempt } from './attempt.js';
import { openBackup, readableBackups } from './backup-file.js';
import type { Ask } from './copy.js';
import { readMark, writeDurably } from './durable.js';
import type { BackupHeader } from './format.js';
import { runHook } from './hooks.js';
import { startGuard } from './freeze.js';
import type { Release } from './freeze.js';
import type { BackupOptions } from './options.js';
import { tell } from './tell.js';
import type { Place } from './place.js';
import { frozenMark, thawMarked } from './thaw.js';
import { messageOf } from '../../thrown.js';

const THAW_AGAIN_MS = [1000, 5000] as const;

/**
 * Enables the slave between the hooks and answers when that was. A mark stands beside the backup meanwhile, so that a
 * slave that was enabled for a run which died is known; the backup's own file comes after the thaw, when all is sure.
 */
export async function enable(
  { target: name, generation }: BackupHeader,
  { enabling, folder }: Place,
  options: BackupOptions,
  ask: Ask,
  warnings: string[],
): Promise<string> {
  const { pre, post, freezeLimit, crashConsistent = false } = options;
  let release: Release = () => Promise.resolve();
  let enabledAt: string | undefined;
  const unmark = (): void => {
    if (enabling !== undefined) rmSync(enabling, { force: true });
  };
  try {
    if ((pre ?? post) !== undefined)
      release = await startGuard(pre, post, freezeLimit, post && frozenMark(options, folder));
    if (enabling !== undefined) writeDurably(enabling, `${generation} ${Date.now()}\n`);
    const answer = (await ask('slave-enable', { target: name, crashConsistent })) as Enabled;
    enabledAt = answer.enabledAt;
    if (answer.generation !== generation)
      throw new OperationalError(
        'SLAVE_GONE',
        'somebody else used the slave meanwhile: run the backup again',
      );
    await release();
    return enabledAt;
  } catch (error) {
    // A thaw that fails is no reason to give up the image, one that came too early is.
    if (enabledAt !== undefined && error instanceof OperationalError && error.code === 'HOOK_FAILED') {
      warnings.push(await thawAgain(error.message, options, folder));
      return enabledAt;
    }
    // The reason why it failed counts, not what the thaw says; that is told as well.
    await attempt(warnings, release);
    for (const warning of warnings.splice(0)) tell(warning);
    if (enabledAt !== undefined) await ask('slave-disable', { target: name });
    // A daemon that went away may have enabled it: the mark tells the next run.
    const unknown = error instanceof OperationalError && error.code === UNREACHABLE;
    if (!unknown) unmark();
    throw error;
  }
}

/** Users wait: a post hook that failed is tried again soon, a few times. Answers what to warn of. */
async function thawAgain(failure: string, options: BackupOptions, folder: boolean): Promise<string> {
  const { post, freezeLimit } = options;
  if (post === undefined) return failure;
  tell(`${failure}; trying it again`);
  for (const delayMs of THAW_AGAIN_MS) {
    await sleep(delayMs);
    try {
      const mark = frozenMark(options, folder);
      if (mark === undefined) await runHook('post', post, freezeLimit);
      else await thawMarked(mark, post, freezeLimit);
      return `${failure}; tried again, it ended well`;
    } catch (error) {
      tell(messageOf(error));
    }
  }
  return `${failure}, also when it was tried again: what it should thaw may be frozen`;
}

interface Enabled {
  generation: number;
  enabledAt: string;
}

/**
 * Disables a slave that an earlier run of ours left: killed between its last two steps, or held then, or killed while it
 * enabled the slave, when nobody knows whether the thaw came first.
 */
export async function reclaim(
  status: TargetStatus,
  folder: boolean,
  { to }: BackupOptions,
  ask: Ask,
): Promise<TargetStatus> {
  const { slave, uuid, name } = status;
  if (to === '-') return status;
  const mark = folder ? `${to}/.enabling-${uuid}` : `${to}.enabling`;
  const ours = slave.enabled && (isFinished(to, status) || isDoubtful(mark, status));
  if (ours) await ask('slave-disable', { target: name });
  rmSync(mark, { force: true });
  return ours ? await targetStatus(name, ask) : status;
}

/** Whether the enabled slave is that of a backup that is in its place already. */
function isFinished(to: string, { slave, uuid }: TargetStatus): boolean {
  if (!existsSync(to)) return false;
  const files = statSync(to).isDirectory() ? readableBackups(to).files : [openBackup(to)];
  return files.some(
    ({ header }) =>
      header.uuid === uuid &&
      header.generation === slave.generation &&
      header.slaveLeft !== true &&
      (header.enabledAt ?? slave.enabledAt) === slave.enabledAt,
  );
}

/** Whether a run of ours asked for this slave and did not live to hear of it. */
function isDoubtful(mark: string, { slave }: TargetStatus): boolean {
  if (!existsSync(mark)) return false;
  const [generation, at] = readMark(mark).split(' ').map(Number);
  const laterMs = Date.parse(slave.enabledAt ?? '') - at;
  return generation === slave.generation && laterMs >= 0 && laterMs < ANSWER_MS;
}

export async function targetStatus(target: string | undefined, ask: Ask): Promise<TargetStatus> {
  const { targets } = (await ask('status', target === undefined ? {} : { target })) as DaemonStatus;
  const [only, ...others] = targets;
  if (others.length === 0) return only;
  const names = targets.map(({ name }) => name).join(', ');
  throw new OperationalError('TARGET_AMBIGUOUS', `say which target: ${names}`);
}
