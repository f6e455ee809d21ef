/** `cldd dump`: what lies where on a partition, however damaged it is. */
import type { Command } from 'commander';
import { newestOf, readSuperblockCopies } from '../../cow/check-superblock.js';
import { dumpPage, dumpStore } from '../../cow/dump.js';
import type { PageDump, PartitionDump } from '../../cow/dump.js';
import { FileStore } from '../../cow/store.js';
import { OperationalError } from '../../operational-error.js';
import { examples } from '../examples.js';
import { print, printJson, table, printable } from '../output.js';
import { parseCount } from '../size.js';

interface DumpOptions {
  page?: number;
  json?: boolean;
  quiet?: boolean;
}

export function addDump(program: Command): void {
  program
    .command('dump <partition>')
    .description('Print what lies where on a partition, however damaged it is. Only reads.')
    .option('--page <number>', 'only this map page: the states of its 8,192 blocks', parseCount)
    .option('--json', 'print JSON')
    .option('-q, --quiet', 'print nothing unless it fails')
    .addHelpText('after', examples('cldd dump /dev/sdb1', 'cldd dump /dev/sdb1 --page 0'))
    .action(dump);
}

async function dump(path: string, { page, json, quiet }: DumpOptions): Promise<void> {
  const store = FileStore.open(path, 'read');
  try {
    if (page !== undefined) {
      const superblock = newestOf(readSuperblockCopies(store))?.content;
      const twins = superblock === undefined ? undefined : dumpPage(store, superblock, page);
      if (twins === undefined) throw new OperationalError('NO_SUCH_PAGE', `${path} has no map page ${page}`);
      if (json) printJson(twins);
      else if (!quiet) showPage(twins);
      return;
    }
    const found = dumpStore(store);
    if (json) printJson(found);
    else if (!quiet) show(found);
  } finally {
    await store.close();
  }
}

function show(found: PartitionDump): void {
  for (const { position, sequence, problem } of found.superblocks)
    print(`superblock at ${position}: ${problem ?? `version ${String(sequence)}`}`);
  if (found.superblock === null) return;
  for (const [field, value] of Object.entries(found.superblock)) print(`  ${field}: ${String(value)}`);
  const rows = found.layout.map(({ what, position, lengthBytes }) => [
    what,
    String(position),
    String(lengthBytes),
  ]);
  print(table(['region', 'byte', 'bytes'], rows));
  if (found.journal !== null) {
    const { tail, nextLsn, batches } = found.journal;
    print(`journal: blocks ${tail} to ${nextLsn - 1} are needed, ${batches.length} batches`);
    for (const { lsn, blocks, records, epoch, generation } of batches)
      print(`  ${lsn}: ${blocks} blocks, ${records} records, epoch ${epoch}, generation ${generation}`);
  }
  for (const { position, twin, whole } of found.bitmap)
    print(`written bitmap, twin ${twin} at ${position}: ${whole ? 'whole' : 'not whole'}`);
  for (const { slot, sequence, entries } of found.activity)
    print(
      `activity log, slot ${slot}: ${sequence === null ? 'none' : `list ${sequence}, ${entries} entries`}`,
    );
  for (const { twin, sequence, records } of found.state) {
    print(`state area, twin ${twin}: ${sequence === null ? 'not whole' : `version ${sequence}`}`);
    for (const { key, bytes } of records) print(printable(`  ${key}: ${bytes} bytes`));
  }
}

function showPage(twins: readonly PageDump[]): void {
  for (const { position, twin, epoch, sequence, runs } of twins) {
    const what = epoch === null ? 'not whole' : `epoch ${epoch}, version ${String(sequence)}`;
    print(`twin ${twin} at ${position}: ${what}`);
    for (const { from, blocks, state } of runs)
      print(`  blocks ${from} to ${from + blocks - 1}: state ${state}`);
  }
}
