/** `cldd backup`, `verify`, `restore` and `prune`. */
import type { Command } from 'commander';
import { OperationalError } from '../../operational-error.js';
import { chainOf, gather, hasEnd, readableBackups, verifyBackup } from '../backup/backup-file.js';
import type { BackupFile } from '../backup/backup-file.js';
import { removeDurably } from '../backup/durable.js';
import { isFolder, requirePlace } from '../backup/folder.js';
import { Progress, progressStyle } from '../backup/progress.js';
import { prove } from '../backup/prove.js';
import { kindOf, refuseOwnBackups, restore, whereInterrupted } from '../backup/restore.js';
import { RestoreMark } from '../backup/resume.js';
import { runBackup } from '../backup/run.js';
import { tell } from '../backup/tell.js';
import { ANOTHER_HOOK, thawLeft } from '../backup/thaw.js';
import type { BackupOptions, BackupReport } from '../backup/options.js';
import type { DaemonOptions } from '../daemon-options.js';
import { request, withDaemon } from '../daemon-options.js';
import { examples } from '../examples.js';
import { DoneWithWarnings, UsageError } from '../exit-codes.js';
import { bytes, print, printJson, printable, table } from '../output.js';
import { parseCount, parseSeconds, parseSize } from '../size.js';

interface Printing {
  json?: boolean;
  quiet?: boolean;
}

const FREEZE_SECONDS = 60;

export function addBackup(program: Command): void {
  withDaemon(program.command('backup [target]'))
    .description('Freeze the master, copy it while users go on, prove the copy, let the slave go.')
    .requiredOption('--to <place>', 'a file, a folder of generations, or - for stdout')
    .option('--create', 'make that folder one of backups: once, with its disc mounted')
    .option('--incremental', 'only what changed since the last backup in that folder')
    .option('--full-every <count>', 'with --incremental: a full one when a chain has so many', parseCount)
    .option('--compress', 'with gzip')
    .option('--rate <bytes>', 'read no more a second than this, such as 50M', parseSize)
    .option('--pre <command>', 'shell command before the enable, such as an unmount or fsfreeze')
    .option('--post <command>', 'after it, whatever happens to this command or the daemon: mount or thaw')
    .option('--final <command>', 'shell command at the end')
    .option(
      '--freeze-limit <seconds>',
      'after this the post hook runs in any case, and the backup fails',
      parseSeconds,
      FREEZE_SECONDS,
    )
    .option('--crash-consistent', 'also while a file system on the master is mounted')
    .option('--use-enabled', 'copy a slave that is enabled already, and leave it so')
    .option('--thaw-only', 'no backup: run the post hook if an earlier run was killed before it did')
    .option('--dry-run', 'say what would be done')
    .addHelpText(
      'after',
      examples(
        'cldd backup --to /backup/files --create',
        'cldd backup --to /backup/files --incremental --compress',
        'cldd backup --to /backup/files --pre "ssh files umount /srv" --post "ssh files mount /srv"',
        'cldd backup --to - | ssh vault "cat > files.cldd"',
      ),
    )
    .action(backup);
  program
    .command('verify <files...>')
    .description('Prove backups, and that each has all that it builds on. Needs no daemon and no partition.')
    .option('--json', 'print JSON')
    .option('-q, --quiet', 'print nothing unless it fails')
    .addHelpText('after', examples('cldd verify /backup/files', 'cldd verify full.cldd monday.cldd'))
    .action(verify);
  program
    .command('restore <files...>')
    .description('Write a backup, with all that it builds on, to a raw image, a device or a cldd partition.')
    .requiredOption(
      '--to <path>',
      'image file, block device, or partition made by `cldd init` and not served',
    )
    .option('--generation <number>', 'that one instead of the last', parseCount)
    .option('--yes', 'overwrite what is there; not needed to go on with an interrupted restore')
    .option('--restart', 'begin anew where an interrupted restore could go on')
    .option('--rate <bytes>', 'write no more a second than this, such as 50M', parseSize)
    .option('--dry-run', 'prove the backups and say what would be done')
    .option('--json', 'print JSON')
    .option('-q, --quiet', 'print nothing unless it fails')
    .addHelpText(
      'after',
      examples(
        'cldd restore /backup/files --to files.img',
        'cldd init /dev/sdc1 && cldd restore /backup/files --to /dev/sdc1 --yes',
      ),
    )
    .action(restoreFiles);
  program
    .command('prune <folder>')
    .description('Remove old backups: each full one that is not kept, with those that build on it.')
    .requiredOption('--keep <number>', 'how many full backups of each partition stay, the newest', parseCount)
    .option('--yes', 'really remove them')
    .option('--dry-run', 'say what would be removed')
    .option('--json', 'print JSON')
    .option('-q, --quiet', 'print nothing unless it fails')
    .addHelpText(
      'after',
      examples('cldd prune /backup/files --keep 4 --dry-run', 'cldd prune /backup/files --keep 4 --yes'),
    )
    .action(prune);
}

async function backup(
  target: string | undefined,
  given: Omit<DaemonOptions & BackupOptions, 'target'>,
): Promise<void> {
  const options = target === undefined ? given : { ...given, target };
  if (options.incremental === true && options.to === '-')
    throw new UsageError('--incremental needs a folder: stdout does not tell what was there before');
  if (options.create === true && (options.to === '-' || options.thawOnly === true))
    throw new UsageError('--create makes a folder of backups: name it with --to, and make a backup');
  if (options.to === '-' && options.thawOnly !== true && options.dryRun !== true && process.stdout.isTTY)
    throw new UsageError('--to - is for a pipe or a file: a backup would spoil this terminal');
  if (options.thawOnly === true) {
    await thawOnly(options);
    return;
  }
  const report = await runBackup(options, (command, given) => request(options, command, given));
  // On stdout stands the backup itself.
  if (options.to !== '-') {
    if (options.json) printJson(report);
    else if (!options.quiet) print(printable(inWords(report, options.dryRun === true)));
  }
  if (report.warnings.length > 0) throw new DoneWithWarnings(report.warnings);
}

/** For a service manager, which runs it after every backup, however that ended. */
async function thawOnly(options: DaemonOptions & BackupOptions): Promise<void> {
  const { dryRun, json, quiet } = options;
  const folder = isFolder(options);
  // Without the backup disc nobody knows.
  requirePlace(options, folder);
  const thaw = await thawLeft(options, folder);
  if (json) printJson({ thawed: thaw !== 'nothing' && dryRun !== true });
  else if (!quiet && thaw === 'nothing') print('nothing is left to thaw');
  else if (!quiet) print(dryRun === true ? 'the post hook would run' : 'thawed: the post hook has run');
  if (thaw === 'another' && dryRun !== true) throw new DoneWithWarnings([`thawed: ${ANOTHER_HOOK}`]);
}

function inWords(report: BackupReport, dry: boolean): string {
  const { target, kind, generation, baseGeneration, file, rangeBytes, dataBytes, fileBytes, resumed } =
    report;
  const what = `${kind} backup of generation ${generation}${baseGeneration === null ? '' : ` since ${baseGeneration}`}`;
  if (dry)
    return `${target}: would ${resumed ? 'finish the' : 'make the'} ${what}, ${bytes(rangeBytes)} to read, as ${file}`;
  const how = resumed ? ', resumed' : '';
  return `${target}: ${what}${how}, ${bytes(dataBytes ?? 0)} of data in ${bytes(fileBytes ?? 0)}, proved: ${file}`;
}

/** All of them are looked at, whatever the first ones are. */
function verify(paths: string[], { json, quiet }: Printing): void {
  const proofs = prove(paths);
  if (proofs.length === 0) throw noBackups(paths);
  const rows = proofs.map(({ path, file, dataBytes, fault }) => ({
    file: path,
    sound: fault === undefined,
    fault: fault ?? null,
    target: file?.header.target ?? null,
    kind: file?.header.kind ?? null,
    generation: file?.header.generation ?? null,
    since: file?.header.base?.generation ?? null,
    createdAt: file?.header.createdAt ?? null,
    dataBytes: dataBytes ?? null,
    fileBytes: file?.sizeBytes ?? null,
  }));
  if (json) printJson(rows);
  else if (!quiet)
    print(
      table(
        ['generation', 'kind', 'since', 'made', 'data', 'file', ''],
        rows.map((row) => [
          String(row.generation ?? '?'),
          row.kind ?? '?',
          String(row.since ?? '-'),
          row.createdAt ?? '?',
          row.dataBytes === null ? '?' : bytes(row.dataBytes),
          row.fileBytes === null ? '?' : bytes(row.fileBytes),
          `${row.file}: ${row.sound ? 'sound' : 'NOT SOUND'}`,
        ]),
      ),
    );
  const faults = rows.flatMap(({ fault }) => fault ?? []);
  if (faults.length === 0) return;
  if (faults.length === 1) throw new OperationalError('BACKUP_DAMAGED', faults[0]);
  for (const fault of faults) tell(fault);
  throw new OperationalError('BACKUP_DAMAGED', `${faults.length} of ${rows.length} backups are not sound`);
}

interface RestoreOptions extends Printing {
  to: string;
  generation?: number;
  yes?: boolean;
  restart?: boolean;
  rate?: number;
  dryRun?: boolean;
}

async function restoreFiles(paths: string[], options: RestoreOptions): Promise<void> {
  const { to, generation, yes = false, restart = false, rate, dryRun = false, json, quiet } = options;
  const unsound: string[] = [];
  const found = gather(paths, unsound);
  // Before what may take hours, since it may mean that the newest one is not among them.
  for (const why of unsound) tell(why);
  const files = some(found, paths);
  if (new Set(files.map(({ header }) => header.uuid)).size > 1)
    throw new UsageError('these are backups of several partitions: name the files of one');
  const last =
    generation === undefined
      ? files.reduce((a, b) => (b.header.generation > a.header.generation ? b : a))
      : files.find(({ header }) => header.generation === generation);
  if (last === undefined)
    throw new OperationalError('NO_SUCH_BACKUP', `there is no backup of generation ${generation} among them`);
  const chain = chainOf(last, files);
  refuseOwnBackups(to, files);
  const kind = await kindOf(to, true);
  const mark = new RestoreMark(chain, to, kind);
  const { header } = last;
  const from = restart ? undefined : await whereInterrupted(mark, to, kind, header.capacityBytes);
  if (from === undefined) await kindOf(to, yes || dryRun);
  // Nothing is overwritten before all of it is proved.
  const dataBytes = chain.reduce((sum, file) => sum + verifyBackup(file).dataBytes, 0);
  const report = {
    to,
    kind,
    generation: header.generation,
    files: chain.map(({ path }) => path),
    dataBytes,
    resumed: from !== undefined,
  };
  if (!dryRun) {
    const progress = new Progress(`restoring to ${to}`, header.capacityBytes, progressStyle(options));
    await restore(chain, to, kind, { mark, from, rate, progress });
  }
  if (json) printJson(report);
  else if (!quiet)
    print(
      printable(
        `${to}: ${dryRun ? 'would be ' : ''}restored${from === undefined ? '' : ', resumed,'} as it was in generation ${header.generation} (${header.createdAt}), from ${chain.length} backup${chain.length === 1 ? '' : 's'}, ${bytes(header.capacityBytes)}`,
      ),
    );
  if (unsound.length > 0)
    throw new DoneWithWarnings([`${unsound.length} of the backups are not sound and were left out`]);
}

function prune(
  folder: string,
  {
    keep,
    yes = false,
    dryRun = false,
    json,
    quiet,
  }: Printing & { keep: number; yes?: boolean; dryRun?: boolean },
): void {
  if (keep === 0)
    throw new UsageError('--keep 0 would remove every backup; remove the folder if you mean it');
  const { files, unsound } = readableBackups(folder);
  if (files.length === 0 && unsound.length === 0) throw noBackups([folder]);
  const warnings = [...unsound];
  // One that is cut off doesn't count: nobody could restore it.
  const short = files.filter((file) => !hasEnd(file));
  warnings.push(...short.map(({ path }) => `${path} is cut off and was not counted`));
  const oldestKept = (uuid: string): number =>
    files
      .filter((file) => file.header.uuid === uuid && file.header.kind === 'full' && !short.includes(file))
      .slice(-keep)
      .at(0)?.header.generation ?? 0;
  const doomed = files.filter((file) => {
    try {
      const { uuid, generation } = chainOf(file, files)[0].header;
      return generation < oldestKept(uuid);
    } catch (error) {
      if (!(error instanceof OperationalError)) throw error;
      warnings.push(`${error.message}; it stays`);
      return false;
    }
  });
  if (doomed.length > 0 && !yes && !dryRun)
    throw new OperationalError(
      'NEEDS_YES',
      `${doomed.length} of ${files.length} backups would be removed; nothing was: look at them with --dry-run, or say --yes`,
    );
  // The newest first: an interruption, or a power cut, leaves no backup without what it builds on.
  for (const { path } of doomed.toReversed()) if (!dryRun) removeDurably(path);
  if (json) printJson({ removed: doomed.map(({ path }) => path), kept: files.length - doomed.length });
  else if (!quiet) {
    for (const { path } of doomed) print(printable(`${dryRun ? 'would remove' : 'removed'} ${path}`));
    print(`${files.length - doomed.length} backups ${dryRun ? 'would stay' : 'stay'}`);
  }
  if (warnings.length > 0) throw new DoneWithWarnings(warnings);
}

function some(files: BackupFile[], paths: readonly string[]): BackupFile[] {
  if (files.length > 0) return files;
  throw noBackups(paths);
}

function noBackups(paths: readonly string[]): OperationalError {
  return new OperationalError(
    'NO_SUCH_BACKUP',
    `there is no backup in ${paths.join(', ')}: is the backup disc mounted?`,
  );
}
