/** `cldd completion`: scripts that complete command lines, made from the parser. */
import { Argument } from 'commander';
import type { Command } from 'commander';
import { bashCompletion } from '../completion/bash.js';
import { fishCompletion } from '../completion/fish.js';
import { modelOf } from '../completion/model.js';
import { zshCompletion } from '../completion/zsh.js';
import { examples } from '../examples.js';

const SCRIPTS = { bash: bashCompletion, zsh: zshCompletion, fish: fishCompletion };
type Shell = keyof typeof SCRIPTS;

export function addCompletion(program: Command): void {
  program
    .command('completion')
    .addArgument(new Argument('<shell>', 'whose script to print').choices(Object.keys(SCRIPTS)))
    .description('Print a script by which a shell completes commands, options, targets and sessions.')
    .option('-q, --quiet', 'print nothing: only whether there is a script for that shell')
    .addHelpText(
      'after',
      examples(
        'source <(cldd completion bash)',
        'cldd completion zsh > /usr/local/share/zsh/site-functions/_cldd',
        'cldd completion fish > ~/.config/fish/completions/cldd.fish',
      ),
    )
    .action((shell: Shell, { quiet = false }: { quiet?: boolean }) => {
      if (!quiet) process.stdout.write(SCRIPTS[shell](modelOf(program)));
    });
}
