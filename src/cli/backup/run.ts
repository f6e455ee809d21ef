/**
 * The whole cycle of `cldd backup`: freeze, enable, thaw, copy, prove, disable.
 *
 * Killed at any point it can be run again. The unfinished file is there, with its header, before the slave is enabled:
 * so the next run knows an enabled slave as its own, goes on where the file is sound, and disables it at the end.
 */
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { takeLock } from '../../cow/lock.js';
import type { ChangedRange } from '../../daemon/partition-engine.js';
import type { DaemonStatus, TargetStatus } from '../../daemon/status.js';
import { OperationalError } from '../../operational-error.js';
import { gather, openBackup, verifyBackup } from './backup-file.js';
import { changesSince, copySlave } from './copy.js';
import type { Ask } from './copy.js';
import { BACKUP_VERSION } from './format.js';
import type { BackupHeader } from './format.js';
import { runHook, startGuard } from './hooks.js';
import type { Release } from './hooks.js';
import { interrupted, isFolder, openStream, placeOf, removeStale } from './place.js';
import type { OpenStream, Place } from './place.js';
import { Progress, progressStyle } from './progress.js';

export interface BackupOptions {
  to: string;
  incremental?: boolean;
  compress?: boolean;
  rate?: number;
  pre?: string;
  post?: string;
  final?: string;
  freezeLimit: number;
  crashConsistent?: boolean;
  useEnabled?: boolean;
  dryRun?: boolean;
  quiet?: boolean;
  json?: boolean;
}

export interface BackupReport {
  target: string;
  /** Null for stdout. */
  file: string | null;
  kind: 'full' | 'incremental';
  generation: number;
  baseGeneration: number | null;
  capacityBytes: number;
  /** Of the ranges that were looked at. */
  rangeBytes: number;
  /** Of the image, without zeros; null in a dry run. */
  dataBytes: number | null;
  /** Of the file; null for stdout. */
  fileBytes: number | null;
  resumed: boolean;
  warnings: string[];
}

/** @throws {OperationalError} whatever hindered it; the slave stays enabled if running again could finish it */
export async function runBackup(
  target: string | undefined,
  options: BackupOptions,
  ask: Ask,
): Promise<BackupReport> {
  const folder = isFolder(options.to, options.incremental === true);
  let status = await targetStatus(target, ask);
  if (options.dryRun !== true && options.useEnabled !== true && isFinished(options.to, status)) {
    // Killed between its last two steps, or the slave was held then.
    await ask('slave-disable', { target: status.name });
    status = await targetStatus(target, ask);
  }
  if (options.to === '-' || options.dryRun === true) return await locked(status, folder, options, ask);
  if (folder) mkdirSync(options.to, { recursive: true, mode: 0o700 });
  const lock = takeLock(
    folder ? join(options.to, '.cldd-backup.lock') : `${options.to}.lock`,
    `the place of the backup, ${options.to},`,
  );
  try {
    return await locked(status, folder, options, ask);
  } finally {
    lock.release();
  }
}

async function locked(
  status: TargetStatus,
  folder: boolean,
  options: BackupOptions,
  ask: Ask,
): Promise<BackupReport> {
  const warnings: string[] = [];
  const { slave, name, uuid, capacityBytes } = status;
  const generation = slave.enabled ? slave.generation : slave.generation + 1;
  const place = placeOf(options.to, folder, uuid, generation);
  const plan = await planRanges(place, status, options, ask, warnings);
  const fresh: BackupHeader = {
    version: BACKUP_VERSION,
    id: randomUUID(),
    ...plan.head,
    target: name,
    uuid,
    generation,
    createdAt: new Date().toISOString(),
    capacityBytes,
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
  const left = interrupted(place);
  const resume = slave.enabled && left?.generation === generation && left.uuid === uuid;
  if (slave.enabled && !resume && options.useEnabled !== true)
    throw new OperationalError(
      'ALREADY_ENABLED',
      `the slave of ${name} is enabled (generation ${generation}) and not for an interrupted backup in ${options.to}: disable it first, or copy it as it is with --use-enabled`,
    );
  if (options.dryRun === true) return report(resume ? left : fresh, plan.ranges, resume);

  const open = (): Promise<OpenStream> => openStream(place, fresh, resume);
  const stream = slave.enabled ? await open() : await enable(fresh, place, open, options, ask, warnings);
  const { header } = stream;
  // The map is asked once more: what changed before the enable belongs to this backup.
  const ranges =
    header.base === null
      ? whole(capacityBytes)
      : (await changesSince(ask, name, header.base.generation)).ranges;
  if (!stream.complete) {
    const todo = bytesOf(ranges.map((range) => after(range, stream.from)));
    const progress = new Progress(`copying ${name}`, todo, progressStyle(options));
    const { compress: gzip = false, rate } = options;
    await copySlave(ranges, { ...stream, ask, gzip, rate, progress });
    progress.end();
  }
  const result = report(header, ranges, resume);
  await finish(place, stream.finish, result);
  if (options.useEnabled !== true || resume) await disable(name, ask, warnings);
  if (folder && place.partial !== undefined) removeStale(options.to, uuid, place.partial);
  await attempt(warnings, async () => {
    if (options.final !== undefined) await runHook('final', options.final, options.freezeLimit);
  });
  return result;
}

async function targetStatus(target: string | undefined, ask: Ask): Promise<TargetStatus> {
  const { targets } = (await ask('status', target === undefined ? {} : { target })) as DaemonStatus;
  const [only, ...others] = targets;
  if (others.length === 0) return only;
  const names = targets.map(({ name }) => name).join(', ');
  throw new OperationalError('TARGET_AMBIGUOUS', `say which target: ${names}`);
}

/** Whether the enabled slave is that of a backup that is in its place already. */
function isFinished(to: string, { slave, uuid }: TargetStatus): boolean {
  if (!slave.enabled || to === '-' || !existsSync(to)) return false;
  return gather([to]).some(({ header }) => header.uuid === uuid && header.generation === slave.generation);
}

interface Plan {
  head: Pick<BackupHeader, 'kind' | 'base'>;
  ranges: ChangedRange[];
}

/** Incremental if that was asked for and can be. */
async function planRanges(
  { base }: Place,
  { name, capacityBytes }: TargetStatus,
  { incremental }: BackupOptions,
  ask: Ask,
  warnings: string[],
): Promise<Plan> {
  const full: Plan = { head: { kind: 'full', base: null }, ranges: whole(capacityBytes) };
  if (incremental !== true) return full;
  if (base === undefined) {
    warnings.push('there is no earlier backup of this partition in that folder, so this one is full');
    return full;
  }
  const { id, generation, capacityBytes: before } = base.header;
  const changes = await changesSince(ask, name, generation);
  if (changes.full || before !== capacityBytes) {
    warnings.push('the change map does not reach back to the last backup, so this one is full');
    return full;
  }
  return { head: { kind: 'incremental', base: { id, generation } }, ranges: changes.ranges };
}

/**
 * Enables the slave between the hooks. The stream is opened in the last moment before, so that an unfinished file with a
 * header means a slave of ours, and none that somebody enabled after we died in a hook.
 */
async function enable(
  { target: name, generation }: BackupHeader,
  { partial }: Place,
  open: () => Promise<OpenStream>,
  options: BackupOptions,
  ask: Ask,
  warnings: string[],
): Promise<OpenStream> {
  const { pre, post, freezeLimit, crashConsistent = false } = options;
  let release: Release = () => Promise.resolve();
  let enabled = false;
  let stream: OpenStream;
  try {
    if ((pre ?? post) !== undefined) release = await startGuard(pre, post, freezeLimit);
    stream = await open();
    const answer = (await ask('slave-enable', { target: name, crashConsistent })) as { generation: number };
    enabled = true;
    if (answer.generation !== generation)
      throw new OperationalError(
        'SLAVE_GONE',
        'somebody else used the slave meanwhile: run the backup again',
      );
  } catch (error) {
    // The reason why it failed counts, not what the thaw says; that is told as well.
    await attempt(warnings, release);
    for (const warning of warnings) process.stderr.write(`cldd: ${warning}\n`);
    if (enabled) await ask('slave-disable', { target: name });
    if (partial !== undefined) rmSync(partial, { force: true });
    throw error;
  }
  try {
    await release();
  } catch (error) {
    if (error instanceof OperationalError && error.code === 'HOOK_TIMEOUT') {
      await ask('slave-disable', { target: name });
      if (partial !== undefined) rmSync(partial, { force: true });
      throw error;
    }
    warnings.push(messageOf(error));
  }
  return stream;
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

async function attempt(warnings: string[], step: () => Promise<void>): Promise<void> {
  try {
    await step();
  } catch (error) {
    warnings.push(messageOf(error));
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

const whole = (length: number): ChangedRange[] => [{ position: 0, length }];

function after({ position, length }: ChangedRange, from: number): ChangedRange {
  const begin = Math.max(position, from);
  return { position: begin, length: Math.max(position + length - begin, 0) };
}

function bytesOf(ranges: readonly ChangedRange[]): number {
  return ranges.reduce((sum, { length }) => sum + length, 0);
}
