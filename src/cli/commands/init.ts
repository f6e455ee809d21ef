/** `cldd init`: a block device or a file becomes a partition of cldd. */
import type { Command } from 'commander';
import { existsSync } from 'node:fs';
import { Partition } from '../../cow/partition.js';
import { examples } from '../examples.js';
import { UsageError } from '../exit-codes.js';
import { bytes, print, printJson } from '../output.js';
import { parseSize } from '../size.js';

interface InitOptions {
  size?: number;
  yes?: boolean;
  thin?: boolean;
  dryRun?: boolean;
  json?: boolean;
  quiet?: boolean;
}

export function addInit(program: Command): void {
  program
    .command('init <partition>')
    .description(
      'Associate a block device or a file: half of it becomes the master, the rest keeps the slave.',
    )
    .option(
      '--size <size>',
      'size of the file, such as 1G (binary units); needed if it does not exist',
      parseSize,
    )
    .option('--yes', 'erase what it holds')
    .option('--thin', 'let the file be larger than the room that its file system has now')
    .option('--dry-run', 'say what is there and whether it would be erased')
    .option('--json', 'print JSON')
    .option('-q, --quiet', 'print nothing unless it fails')
    .addHelpText('after', examples('cldd init /dev/sdb1', 'cldd init /srv/files.cldd --size 100G'))
    .action(init);
}

async function init(
  path: string,
  { size, yes = false, thin = false, dryRun = false, json, quiet }: InitOptions,
): Promise<void> {
  if (size === undefined && !existsSync(path))
    throw new UsageError(
      `${path} does not exist: check the path, or give --size to create a file of that size`,
    );
  if (dryRun) {
    const holds = existsSync(path) ? ((await Partition.probe(path)) ?? null) : null;
    if (json) printJson({ partition: path, exists: existsSync(path), holds, sizeBytes: size ?? null });
    else if (!quiet) print(plan(path, holds, yes));
    return;
  }
  const result = await Partition.init(path, {
    overwrite: yes,
    thin,
    ...(size === undefined ? {} : { sizeBytes: size }),
  });
  if (json) printJson({ partition: path, ...result });
  else if (!quiet) {
    const { partitionBytes, masterBytes, uuid } = result;
    print(
      `${path}: ${bytes(partitionBytes)}, master of ${bytes(masterBytes)} (${masterBytes} bytes), uuid ${uuid}`,
    );
    print(`Serve it with: cldd serve --partition ${path}`);
  }
}

function plan(path: string, holds: string | null, yes: boolean): string {
  if (!existsSync(path)) return `${path}: would be made`;
  if (holds === null) return `${path}: holds nothing known; would become a partition`;
  return `${path}: holds ${holds}, which would be ${yes ? 'erased' : 'refused without --yes'}`;
}
