/**
 * Completion for bash 4 or later, without the package bash-completion. Names of files are left to readline, which quotes
 * them best; where none belong, its fallback is switched off.
 */
import { allOf, nameOf } from './model.js';
import type { CommandModel, OptionModel, Values } from './model.js';

export function bashCompletion(program: CommandModel): string {
  const commands = allOf(program);
  const paths = commands.filter(({ path }) => path !== '').map(({ path }) => word(path));
  return `# bash completion for cldd, made by \`cldd completion bash\`.
_cldd() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} path= word
  COMPREPLY=()
  # --option=value comes in three words.
  if [[ $cur == = ]]; then cur=
  elif [[ $prev == = ]]; then prev=\${COMP_WORDS[COMP_CWORD-2]}
  fi
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "\${path:+$path }$word" in
      ${paths.join('|')}) path="\${path:+$path }$word" ;;
    esac
  done
  case "$path/$prev" in
${commands.flatMap(valueCases).join('\n')}
  esac
  if [[ $cur == -* ]]; then
    case "$path" in
${commands.map(optionCase).join('\n')}
    esac
    return
  fi
  case "$path" in
${commands.map(argumentCase).join('\n')}
  esac
}

# Offers the words given that begin as the one under the cursor, and no files.
_cldd_words() {
  compopt +o default +o bashdefault 2> /dev/null
  mapfile -t COMPREPLY < <(compgen -W "$*" -- "$cur")
}

# What the daemon knows: values of a key in the answer to a command. A colon ends a word for readline, so that only what
# follows the last one is to be offered.
_cldd_asked() {
  local typed=\${COMP_LINE:0:COMP_POINT} names
  typed=\${typed##* }
  names=$(cldd "$1" --json 2> /dev/null | sed -n "s/^ *\\"$2\\": \\"\\{0,1\\}\\([A-Za-z0-9.:-]*\\)\\"\\{0,1\\},\\{0,1\\}$/\\1/p")
  compopt +o default +o bashdefault 2> /dev/null
  mapfile -t COMPREPLY < <(compgen -W "$names" -- "$typed")
  if [[ $typed == *:* && $COMP_WORDBREAKS == *:* ]]; then
    COMPREPLY=("\${COMPREPLY[@]#"\${typed%"\${typed##*:}"}"}")
  fi
}

complete -o bashdefault -o default -F _cldd cldd
`;
}

const word = (text: string): string => `'${text}'`;

function valueCases({ path, options }: CommandModel): string[] {
  return options.flatMap(({ long, short, value }) => {
    if (value === undefined || value.optional) return [];
    const flags = [long, short].flatMap((flag) => (flag === undefined ? [] : [word(`${path}/${flag}`)]));
    return [`    ${flags.join('|')}) ${offer(value.values)}; return ;;`];
  });
}

function optionCase({ path, options }: CommandModel): string {
  const flags = options.flatMap(({ long, short }: OptionModel) =>
    short === undefined ? [long] : [long, short],
  );
  return `      ${word(path)}) _cldd_words ${flags.join(' ')} ;;`;
}

function argumentCase({ path, subcommands, arguments: given }: CommandModel): string {
  const what =
    subcommands.length > 0
      ? `_cldd_words ${subcommands.map(nameOf).join(' ')}`
      : offer(given.at(0)?.values ?? { kind: 'text' });
  return `    ${word(path)}) ${what} ;;`;
}

function offer(values: Values): string {
  switch (values.kind) {
    case 'choice':
      return `_cldd_words ${values.choices.join(' ')}`;
    case 'file':
      return ':';
    case 'folder':
      return 'compopt +o default +o bashdefault -o dirnames -o filenames 2> /dev/null';
    case 'target':
      return '_cldd_asked targets name';
    case 'session':
      return '_cldd_asked sessions id';
    case 'text':
      return '_cldd_words';
  }
}
