/**
 * The whole cycle of `cldd backup`: freeze, enable, thaw, copy, prove, disable.
 *
 * Killed at any point it can be run again. While the slave is enabled, a mark stands beside the backup, and after the
 * thaw the unfinished file, whose header names the moment of the enable: so the next run knows an enabled slave as its
 * own. From the mark alone it can't tell whether the thaw came too early, so it begins anew; a file it goes on with.
 */
import { randomUUID } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ANSWER_MS, UNREACHABLE } from '../../admin/client.js';
import { takeLock } from '../../cow/lock.js';
import type { ChangedRange } from '../../daemon/partition-engine.js';
import type { DaemonStatus, TargetStatus } from '../../daemon/status.js';
import { OperationalError } from '../../operational-error.js';
import { socketPath } from '../daemon-options.js';
import { chainOf, gather, hasEnd, openBackup, readableBackups, verifyBackup } from './backup-file.js';
import { changesSince, copySlave } from './copy.js';
import type { Ask } from './copy.js';
import { BACKUP_VERSION } from './format.js';
import type { BackupHeader } from './format.js';
import { runHook, startGuard, startRelease } from './hooks.js';
import type { Release } from './hooks.js';
import { interrupted, isFolder, openStream, placeOf, removeStale } from './place.js';
import type { OpenStream, Place } from './place.js';
import { Progress, progressStyle } from './progress.js';

/** How long a copy waits for a daemon that went away. */
const RESTART_MS = 60_000;
const RETRY_MS = 250;

export interface BackupOptions {
  to: string;
  incremental?: boolean;
  /** Backups in a chain, after which the next one is full. */
  fullEvery?: number;
  /** Control socket, by which a guard disables the slave of a stream that was cut off. */
  socket?: string;
  config?: string;
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
  const status = await targetStatus(target, ask);
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
  found: TargetStatus,
  folder: boolean,
  options: BackupOptions,
  ask: Ask,
): Promise<BackupReport> {
  const warnings: string[] = [];
  const status =
    options.dryRun === true || options.useEnabled === true
      ? found
      : await reclaim(found, folder, options, ask);
  const { slave, name, uuid, capacityBytes } = status;
  const generation = slave.enabled ? slave.generation : slave.generation + 1;
  const place = placeOf(options.to, folder, uuid, generation);
  warnings.push(...place.unsound);
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
    ...(slave.enabled ? { enabledAt: slave.enabledAt ?? '', slaveLeft: true } : {}),
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
  const resume =
    slave.enabled &&
    left?.generation === generation &&
    left.uuid === uuid &&
    left.enabledAt === slave.enabledAt;
  if (slave.enabled && !resume && options.useEnabled !== true)
    throw new OperationalError(
      'ALREADY_ENABLED',
      `the slave of ${name} is enabled (generation ${generation}) and not for an interrupted backup in ${options.to}: disable it first, or copy it as it is with --use-enabled`,
    );
  if (options.dryRun === true) return report(resume ? left : fresh, plan.ranges, resume);

  const copy = async (stream: OpenStream): Promise<BackupReport> => {
    const { header } = stream;
    const patient = waitingFor(ask);
    // The map is asked once more: what changed before the enable belongs to this backup.
    const ranges =
      header.base === null
        ? whole(capacityBytes)
        : (await changesSince(patient, name, header.base.generation)).ranges;
    if (!stream.complete) {
      const todo = bytesOf(ranges.map((range) => after(range, stream.from)));
      const progress = new Progress(`copying ${name}`, todo, progressStyle(options));
      const { compress: gzip = false, rate } = options;
      await copySlave(ranges, { ...stream, ask: patient, gzip, rate, progress });
      progress.end();
    }
    const result = report(header, ranges, resume);
    await finish(place, stream.finish, result);
    if (options.useEnabled !== true || resume) await disable(name, patient, warnings);
    if (folder && place.partial !== undefined) removeStale(options.to, uuid, place.partial);
    await attempt(warnings, async () => {
      if (options.final !== undefined) await runHook('final', options.final, options.freezeLimit);
    });
    return result;
  };

  const letGo =
    place.final === undefined && !slave.enabled
      ? startRelease(socketPath(options), name, generation)
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
    if (letGo !== undefined) await letGo();
    throw error;
  }
}

async function targetStatus(target: string | undefined, ask: Ask): Promise<TargetStatus> {
  const { targets } = (await ask('status', target === undefined ? {} : { target })) as DaemonStatus;
  const [only, ...others] = targets;
  if (others.length === 0) return only;
  const names = targets.map(({ name }) => name).join(', ');
  throw new OperationalError('TARGET_AMBIGUOUS', `say which target: ${names}`);
}

/**
 * Disables a slave that an earlier run of ours left: killed between its last two steps, or held then, or killed while it
 * enabled the slave, when nobody knows whether the thaw came first.
 */
async function reclaim(
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
  const files = statSync(to).isDirectory() ? readableBackups(to).files : gather([to]);
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
  const [generation, at] = readFileSync(mark, 'utf8').split(' ').map(Number);
  const laterMs = Date.parse(slave.enabledAt ?? '') - at;
  return generation === slave.generation && laterMs >= 0 && laterMs < ANSWER_MS;
}

interface Plan {
  head: Pick<BackupHeader, 'kind' | 'base'>;
  ranges: ChangedRange[];
}

/** Incremental if that was asked for and can be. */
async function planRanges(
  { earlier }: Place,
  { name, capacityBytes, slave }: TargetStatus,
  { incremental, fullEvery }: BackupOptions,
  ask: Ask,
  warnings: string[],
): Promise<Plan> {
  const full: Plan = { head: { kind: 'full', base: null }, ranges: whole(capacityBytes) };
  if (incremental !== true) return full;
  const base = earlier.at(-1);
  const instead = (why: string): Plan => {
    warnings.push(`${why}, so this one is full`);
    return full;
  };
  if (base === undefined) return instead('there is no earlier backup of this partition in that folder');
  const { id, generation, capacityBytes: before, enabledAt } = base.header;
  try {
    const chain = chainOf(base, earlier);
    const short = chain.find((file) => !hasEnd(file));
    if (short !== undefined) return instead(`${short.path} is cut off`);
    if (chain.length >= (fullEvery ?? Infinity)) return full;
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    return instead(error.message);
  }
  if (!slave.enabled && slave.generation === generation && (enabledAt ?? slave.enabledAt) !== slave.enabledAt)
    return instead(`${base.path} is of a copy of this partition`);
  const changes = await changesSince(ask, name, generation);
  if (changes.full || before !== capacityBytes)
    return instead('the change map does not reach back to the last backup');
  return { head: { kind: 'incremental', base: { id, generation } }, ranges: changes.ranges };
}

/**
 * Enables the slave between the hooks and answers when that was. A mark stands beside the backup meanwhile, so that a
 * slave that was enabled for a run which died is known; the backup's own file comes after the thaw, when all is sure.
 */
async function enable(
  { target: name, generation }: BackupHeader,
  { enabling }: Place,
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
    if ((pre ?? post) !== undefined) release = await startGuard(pre, post, freezeLimit);
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
      warnings.push(error.message);
      return enabledAt;
    }
    // The reason why it failed counts, not what the thaw says; that is told as well.
    await attempt(warnings, release);
    for (const warning of warnings) process.stderr.write(`cldd: ${warning}\n`);
    if (enabledAt !== undefined) await ask('slave-disable', { target: name });
    // A daemon that went away may have enabled it: the mark tells the next run.
    const unknown = error instanceof OperationalError && error.code === UNREACHABLE;
    if (!unknown) unmark();
    throw error;
  }
}

interface Enabled {
  generation: number;
  enabledAt: string;
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

function writeDurably(path: string, text: string): void {
  const fd = openSync(path, 'w', 0o600);
  try {
    writeSync(fd, text);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
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
