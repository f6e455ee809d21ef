/**
 * The whole cycle of `cldd backup`: freeze, enable, thaw, copy, prove, disable.
 *
 * Killed at any point it can be run again. While the slave is enabled, a mark stands beside the backup, and after the
 * thaw the unfinished file, whose header names the moment of the enable: so the next run knows an enabled slave as its
 * own. From the mark alone it can't tell whether the thaw came too early, so it begins anew; a file it goes on with.
 */
import { randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { UNREACHABLE } from '../../admin/client.js';
import { takeLock } from '../../cow/lock.js';
import type { ChangedRange } from '../../daemon/partition-engine.js';
import type { TargetStatus } from '../../daemon/status.js';
import { OperationalError } from '../../operational-error.js';
import { socketPath } from '../daemon-options.js';
import { attempt } from './attempt.js';
import { openBackup, verifyBackup } from './backup-file.js';
import { changesSince, copySlave } from './copy.js';
import type { Ask } from './copy.js';
import { enable, reclaim, targetStatus } from './enable.js';
import { BACKUP_VERSION } from './format.js';
import type { BackupHeader } from './format.js';
import { runHook, startRelease } from './hooks.js';
import type { BackupOptions, BackupReport } from './options.js';
import { createFolder, isFolder, requirePlace } from './folder.js';
import { interrupted, openStream, placeOf, removeStale } from './place.js';
import type { OpenStream, Place } from './place.js';
import { after, bytesOf, chainFault, planRanges, whole } from './plan.js';
import { Progress, progressStyle } from './progress.js';
import { tell } from './tell.js';
import { ANOTHER_HOOK, thawLeft } from './thaw.js';

/** How long a copy waits for a daemon that went away. */
const RESTART_MS = 60_000;
const RETRY_MS = 250;

/** @throws {OperationalError} whatever hindered it; the slave stays enabled if running again could finish it */
export async function runBackup(options: BackupOptions, ask: Ask): Promise<BackupReport> {
  const folder = isFolder(options);
  requirePlace(options, folder);
  const warnings: string[] = [];
  // Before anything else, and though the daemon may not answer: users wait.
  if (options.dryRun !== true)
    await attempt(warnings, async () => {
      const thaw = await thawLeft(options, folder);
      if (thaw === 'nothing') return;
      const now = thaw === 'another' ? ANOTHER_HOOK : 'the post hook has run now';
      warnings.push(`an earlier run was killed before it thawed: ${now}`);
    });
  const status = await targetStatus(options.target, ask);
  if (options.to === '-' || options.dryRun === true)
    return await locked(status, folder, options, ask, warnings);
  if (options.create === true) createFolder(options.to);
  const lock = takeLock(
    folder ? join(options.to, '.cldd-backup.lock') : `${options.to}.lock`,
    `the place of the backup, ${options.to},`,
  );
  try {
    const report = await locked(status, folder, options, ask, warnings);
    await attempt(warnings, () => thawAtLast(options, folder));
    return report;
  } catch (error) {
    await attempt(warnings, () => thawAtLast(options, folder));
    // There will be no report to hold them.
    for (const warning of warnings) tell(warning);
    throw error;
  } finally {
    lock.release();
  }
}

/** If the post hook failed before, and was tried in vain. */
async function thawAtLast(options: BackupOptions, folder: boolean): Promise<void> {
  // That there is none has been said.
  if (options.post === undefined) return;
  if ((await thawLeft(options, folder)) !== 'nothing')
    tell('the post hook, which had failed, has run well now');
}

async function locked(
  found: TargetStatus,
  folder: boolean,
  options: BackupOptions,
  ask: Ask,
  warnings: string[],
): Promise<BackupReport> {
  const status =
    options.dryRun === true || options.useEnabled === true
      ? found
      : await reclaim(found, folder, options, ask);
  const { slave, name, uuid, capacityBytes } = status;
  const generation = slave.enabled ? slave.generation : slave.generation + 1;
  const place = placeOf(options.to, folder, uuid, generation);
  warnings.push(...place.unsound);
  const left = interrupted(place);
  const ours =
    slave.enabled &&
    left?.generation === generation &&
    left.uuid === uuid &&
    left.enabledAt === slave.enabledAt;
  const fault = ours ? chainFault(left, place) : undefined;
  if (fault !== undefined) warnings.push(`the interrupted backup can't go on: ${fault}`);
  const resume = ours && fault === undefined;
  if (slave.enabled && !ours && options.useEnabled !== true)
    throw new OperationalError(
      'ALREADY_ENABLED',
      `the slave of ${name} is enabled (generation ${generation}) and not for an interrupted backup in ${options.to}: disable it first, or copy it as it is with --use-enabled`,
    );
  const plan = resume
    ? { head: left, ranges: await rangesOf(name, left, ask) }
    : await planRanges(place, status, options, ask, warnings);
  const leave = ours ? left.slaveLeft === true : slave.enabled;
  const fresh: BackupHeader = {
    version: BACKUP_VERSION,
    id: randomUUID(),
    kind: plan.head.kind,
    base: plan.head.base,
    target: name,
    uuid,
    generation,
    createdAt: new Date().toISOString(),
    capacityBytes,
    ...(slave.enabled ? { enabledAt: slave.enabledAt ?? '' } : {}),
    ...(leave ? { slaveLeft: true } : {}),
  };
  const report = (header: BackupHeader, ranges: readonly ChangedRange[], resumed: boolean): BackupReport => ({
    target: name,
    file: place.final === undefined ? null : resolve(place.final),
    kind: header.kind,
    generation,
    baseGeneration: header.base?.generation ?? null,
    capacityBytes,
    rangeBytes: bytesOf(ranges),
    dataBytes: null,
    fileBytes: null,
    resumed,
    warnings,
  });
  if (options.dryRun === true) return report(resume ? left : fresh, plan.ranges, resume);

  const copy = async (stream: OpenStream): Promise<BackupReport> => {
    const { header } = stream;
    const patient = waitingFor(ask);
    // The map is asked once more: what changed before the enable belongs to this backup.
    const ranges = await rangesOf(name, header, patient);
    if (!stream.complete) {
      const todo = bytesOf(ranges.map((range) => after(range, stream.from)));
      const progress = new Progress(`copying ${name}`, todo, progressStyle(options));
      const { compress: gzip = false, rate } = options;
      await copySlave(ranges, { ...stream, ask: patient, gzip, rate, progress });
      progress.end();
    }
    const result = report(header, ranges, resume);
    await finish(place, stream.finish, result);
    // The header says whose slave it is, also for a run that goes on with it.
    if (header.slaveLeft !== true) await disable(name, patient, warnings);
    if (folder && place.partial !== undefined) removeStale(options.to, uuid, place.partial);
    await attempt(warnings, async () => {
      if (options.final !== undefined) await runHook('final', options.final);
    });
    return result;
  };

  const letGo =
    place.final === undefined && !slave.enabled
      ? startRelease(await socketPath(options), name, generation)
      : undefined;
  try {
    const enabledAt = slave.enabled ? fresh.enabledAt : await enable(fresh, place, options, ask, warnings);
    const stream = await openStream(
      place,
      { ...fresh, ...(enabledAt === undefined ? {} : { enabledAt }) },
      resume,
    );
    if (place.enabling !== undefined) rmSync(place.enabling, { force: true });
    return await copy(stream);
  } catch (error) {
    // Nobody can go on with a stream.
    if (letGo !== undefined) await letGo(!(error instanceof OperationalError && error.code === UNREACHABLE));
    throw error;
  }
}

/** What of the slave belongs into that backup. */
async function rangesOf(
  target: string,
  { base, capacityBytes }: BackupHeader,
  ask: Ask,
): Promise<ChangedRange[]> {
  if (base === null) return whole(capacityBytes);
  return (await changesSince(ask, target, base.generation)).ranges;
}

/** As `ask`, but waits for a daemon that is being restarted: the slave outlives that. */
function waitingFor(ask: Ask): Ask {
  return async (command, given) => {
    const began = performance.now();
    for (;;) {
      try {
        return await ask(command, given);
      } catch (error) {
        const away = error instanceof OperationalError && error.code === UNREACHABLE;
        if (!away || performance.now() - began > RESTART_MS) throw error;
        await sleep(RETRY_MS);
      }
    }
  };
}

/** Proves what was written, as it can be read back, before it gets its name. */
async function finish(place: Place, publish: () => Promise<void>, report: BackupReport): Promise<void> {
  if (place.partial === undefined) {
    await publish();
    return;
  }
  const written = openBackup(place.partial);
  report.dataBytes = verifyBackup(written).dataBytes;
  report.fileBytes = written.sizeBytes;
  await publish();
}

async function disable(target: string, ask: Ask, warnings: string[]): Promise<void> {
  await attempt(warnings, async () => {
    await ask('slave-disable', { target });
  });
}
