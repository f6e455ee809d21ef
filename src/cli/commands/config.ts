/** `cldd config check`. */
import type { Command } from 'commander';
import { loadConfiguration } from '../../config/load.js';
import { ConfigurationError } from '../../config/mistakes.js';
import { examples } from '../examples.js';
import { print, printJson } from '../output.js';

interface CheckOptions {
  json?: boolean;
  quiet?: boolean;
}

export function addConfig(program: Command): void {
  program
    .command('config')
    .description('Work with configuration files.')
    .command('check <file>')
    .description('Report every mistake of a configuration file as FILE:LINE:COLUMN PATH MESSAGE.')
    .option('--json', 'print JSON')
    .option('-q, --quiet', 'print nothing if it is correct')
    .addHelpText('after', examples('cldd config check /etc/cldd/cldd.yaml'))
    .action(check);
}

function check(file: string, { json, quiet }: CheckOptions): void {
  try {
    const { targets, portals } = loadConfiguration(file);
    if (json) printJson({ file, valid: true, mistakes: [] });
    else if (!quiet) print(`${file}: correct; targets: ${targets.length}, portals: ${portals.length}`);
  } catch (error) {
    if (json && error instanceof ConfigurationError)
      printJson({ file, valid: false, mistakes: error.mistakes });
    throw error;
  }
}
