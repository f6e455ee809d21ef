/** Completion for fish 3 or later. */
import { allOf, nameOf } from './model.js';
import type { CommandModel, OptionModel, Values } from './model.js';

export function fishCompletion(program: CommandModel): string {
  const commands = allOf(program);
  const paths = commands.filter(({ path }) => path !== '').map(({ path }) => quote(path));
  return `# fish completion for cldd, made by \`cldd completion fish\`.

# Whether the words before the cursor name this command.
function __cldd_is
  set -l path
  for word in (commandline -opc)[2..-1]
    contains -- (string join ' ' -- $path $word) ${paths.join(' ')}
    and set -a path $word
  end
  test "$path" = "$argv"
end

# What the daemon knows: values of a key in the answer to a command.
function __cldd_asked
  command cldd $argv[1] --json 2> /dev/null | string match -rg '^ *"'$argv[2]'": "?([A-Za-z0-9.:-]+)"?,?$'
end

complete -c cldd -f
${commands.flatMap(lines).join('\n')}
`;
}

function lines(command: CommandModel): string[] {
  const here = `complete -c cldd -n ${quote(`__cldd_is ${quote(command.path)}`)}`;
  const subcommands = command.subcommands.map(
    (one) => `${here} -a ${nameOf(one)} -d ${quote(one.description)}`,
  );
  const values = command.arguments.map((argument) => offer(argument.values)).filter((text) => text !== '');
  return [
    ...subcommands,
    ...[...new Set(values)].map((text) => `${here} ${text}`),
    ...command.options.map((option) => `${here} ${optionText(option)}`),
  ];
}

function optionText({ long, short, description, value }: OptionModel): string {
  const flags = [`-l ${long.slice(2)}`, ...(short === undefined ? [] : [`-s ${short.slice(1)}`])];
  if (value !== undefined && !value.optional) flags.push('-r', offer(value.values));
  return [...flags, '-d', quote(description)].filter((part) => part !== '').join(' ');
}

function offer(values: Values): string {
  switch (values.kind) {
    case 'choice':
      return `-a ${quote(values.choices.join(' '))}`;
    case 'file':
      return '-F';
    case 'folder':
      return "-a '(__fish_complete_directories)'";
    case 'target':
      return "-a '(__cldd_asked targets name)'";
    case 'session':
      return "-a '(__cldd_asked sessions id)'";
    case 'text':
      return '';
  }
}

const quote = (text: string): string => `'${text.replace(/['\\]/g, '\\$&')}'`;
