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
    .option('--json', 'print JSON')
    .option('-q, --quiet', 'print nothing unless it fails')
    .addHelpText('after', examples('cldd init /dev/sdb1', 'cldd init /srv/files.cldd --size 100G'))
    .action(init);
}

async function init(
  path: string,
  { size, yes = false, thin = false, json, quiet }: InitOptions,
): Promise<void> {
  if (size === undefined && !existsSync(path))
    throw new UsageError(
      `${path} does not exist: check the path, or give --size to create a file of that size`,
    );
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
