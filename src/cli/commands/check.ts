/** `cldd check`: is all metadata of a partition whole, and if not, can it be mended? */
import type { Command } from 'commander';
import { checkPartition } from '../../cow/check-partition.js';
import type { PartitionCheck } from '../../cow/check-partition.js';
import type { Finding } from '../../cow/check-report.js';
import { examples } from '../examples.js';
import { CheckEnded, EXIT, UsageError } from '../exit-codes.js';
import { count, paint, print, printJson } from '../output.js';

interface CheckCommandOptions {
  repair?: boolean;
  emptyState?: boolean;
  dryRun?: boolean;
  json?: boolean;
  quiet?: boolean;
}

export function addCheck(program: Command): void {
  program
    .command('check <partition>')
    .description(
      'Check the metadata of a partition; beside a daemon that serves it, read-only. Exit code 0: whole, 6: repaired, 7: --repair would mend it, 8: damaged beyond repair.',
    )
    .option('--repair', 'write what is bad again from its whole copy; the partition must not be in use')
    .option('--empty-state', 'with --repair: if no copy of the state area is whole, empty it')
    .option('--dry-run', 'with --repair: only say what it would write')
    .option('--json', 'print JSON')
    .option('-q, --quiet', 'print nothing but what is wrong')
    .addHelpText(
      'after',
      examples(
        'cldd check /dev/sdb1',
        'cldd check /dev/sdb1 --repair --dry-run',
        'cldd check /dev/sdb1 --repair',
      ),
    )
    .action(check);
}

async function check(path: string, options: CheckCommandOptions): Promise<void> {
  const { repair = false, emptyState = false, dryRun = false } = options;
  if (emptyState && !repair) throw new UsageError('--empty-state needs --repair');
  const result = await checkPartition(
    path,
    dryRun ? { repair: false, emptyState: false } : { repair, emptyState },
  );
  if (options.json) printJson({ partition: path, ...result, shared: result.shared ?? null });
  else show(path, result, options.quiet === true);
  const { verdict, counts } = result;
  if (verdict === 'clean') return;
  const bad = counts.repairable + counts.damaged;
  if (verdict === 'repaired') throw new CheckEnded(`${path}: ${bad} found, all repaired`, EXIT.REPAIRED);
  if (verdict === 'repairable')
    throw new CheckEnded(`${path}: ${bad} found; cldd check --repair mends it`, EXIT.REPAIRABLE);
  throw new CheckEnded(`${path}: damaged beyond repair in ${counts.damaged} places`, EXIT.DAMAGED);
}

function show(path: string, result: PartitionCheck, quiet: boolean): void {
  if (!quiet && result.shared !== undefined) {
    print(`${result.shared}: so it is checked read-only, as it is at this moment. Not checked:`);
    for (const what of result.notChecked) print(`  ${what}`);
  }
  for (const finding of result.findings) if (!quiet || finding.severity !== 'note') print(line(finding));
  if (result.omitted > 0) print(`… and ${count(result.omitted)} more`);
  if (quiet || result.verdict !== 'clean') return;
  const closed = result.closedInOrder === false && result.shared === undefined;
  print(
    `${path}: clean, ${count(result.mapPages)} map pages in use` +
      (closed ? '; it was not closed in order, and recovers when it is opened' : ''),
  );
}

const STYLES = { note: 'dim', repairable: 'yellow', damaged: 'red' } as const;

function line(finding: Finding): string {
  const { structure, position, severity, problem, remedy, repaired } = finding;
  const end = position + finding.lengthBytes - 1;
  const what = repaired ? paint('green', 'repaired') : paint(STYLES[severity], severity);
  return `${what}: ${structure} (bytes ${position} to ${end}): ${problem}\n  ${remedy}`;
}
