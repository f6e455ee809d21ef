/** Completion for zsh, as a function to autoload: `_cldd` in a folder of $fpath. */
import { nameOf } from './model.js';
import type { CommandModel, OptionModel, Values } from './model.js';

export function zshCompletion(program: CommandModel): string {
  return `#compdef cldd
# zsh completion for cldd, made by \`cldd completion zsh\`.

# What the daemon knows: values of a key in the answer to a command.
_cldd_asked() {
  local -a names
  names=(\${(f)"$(command cldd $1 --json 2> /dev/null | sed -n "s/^ *\\"$2\\": \\"\\{0,1\\}\\([A-Za-z0-9.:-]*\\)\\"\\{0,1\\},\\{0,1\\}$/\\1/p")"})
  compadd -- $names
}

_cldd() {
  local curcontext=$curcontext state
  local -a line
${body(program, '  ')}
}

_cldd "$@"
`;
}

function body(command: CommandModel, indent: string): string {
  const specs = command.options.flatMap(optionSpecs);
  if (command.subcommands.length === 0) {
    const more = command.arguments.map(({ name, values, variadic }, index) =>
      quote(`${variadic ? '*' : `${index + 1}`}:${escape(name)}:${action(values)}`),
    );
    return call(['-s', '-S', ...specs, ...more], indent);
  }
  const names = command.subcommands.map((one) => quote(`${escape(nameOf(one))}:${one.description}`));
  const cases = command.subcommands.map(
    (one) => `${indent}    ${nameOf(one)})\n${body(one, `${indent}      `)}\n${indent}      ;;`,
  );
  return [
    call(['-C', ...specs, "'1: :->command'", "'*:: :->rest'"], indent),
    `${indent}case $state in`,
    `${indent}  command)`,
    `${indent}    local -a commands=(`,
    ...names.map((name) => `${indent}      ${name}`),
    `${indent}    )`,
    `${indent}    _describe -t commands 'command' commands`,
    `${indent}    ;;`,
    `${indent}  rest)`,
    `${indent}    case $words[1] in`,
    ...cases.map((text) => text.replace(/^/gm, '  ')),
    `${indent}    esac`,
    `${indent}    ;;`,
    `${indent}esac`,
  ].join('\n');
}

function call(specs: readonly string[], indent: string): string {
  return `${indent}_arguments \\\n${specs.map((spec) => `${indent}  ${spec}`).join(' \\\n')}`;
}

/** One for each spelling, which exclude each other. */
function optionSpecs({ long, short, description, value }: OptionModel): string[] {
  const flags = short === undefined ? [long] : [long, short];
  return flags.map((flag) => {
    // Of a long option the value may also follow an equals sign.
    const takes = flag === long ? '=' : '+';
    const [mark, tail] =
      value === undefined || value.optional
        ? ['', '']
        : [takes, `:${escape(value.name)}:${action(value.values)}`];
    return quote(`(${flags.join(' ')})${flag}${mark}[${escape(description)}]${tail}`);
  });
}

/** With a space in front no options of compadd are put among the arguments. */
function action(values: Values): string {
  switch (values.kind) {
    case 'choice':
      return `(${values.choices.join(' ')})`;
    case 'file':
      return '_files';
    case 'folder':
      return '_files -/';
    case 'target':
      return ' _cldd_asked targets name';
    case 'session':
      return ' _cldd_asked sessions id';
    case 'text':
      return ' ';
  }
}

const escape = (text: string): string => text.replace(/[[\]:\\]/g, '\\$&');

const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
