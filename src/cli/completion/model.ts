/** What a shell may offer, taken from the parser: commands, their options, and what kind of value each takes. */
import type { Argument, Command, Option } from 'commander';

/** How a value is found: names of files or folders, one of a list, a target or session that the daemon knows, or not. */
export type Values =
  | { kind: 'file' | 'folder' | 'target' | 'session' | 'text' }
  | { kind: 'choice'; choices: readonly string[] };

export interface OptionModel {
  /** With their dashes. */
  long: string;
  short: string | undefined;
  description: string;
  /** Undefined: a switch. */
  value: { name: string; values: Values; optional: boolean } | undefined;
}

export interface CommandModel {
  /** Words after `cldd`; empty for the program itself. */
  path: string;
  description: string;
  options: OptionModel[];
  /** By place; the last one may come again and again. */
  arguments: { name: string; values: Values; variadic: boolean }[];
  subcommands: CommandModel[];
}

/** Kinds of values by the names that the parser gives them. */
const KINDS = new Map<string, Exclude<Values['kind'], 'choice'>>(
  Object.entries({
    path: 'file',
    file: 'file',
    files: 'file',
    config: 'file',
    partition: 'file',
    place: 'file',
    folder: 'folder',
    target: 'target',
    session: 'session',
  } as const),
);

export function modelOf(command: Command, path = ''): CommandModel {
  const help = command.createHelp();
  return {
    path,
    description: command.description(),
    options: help.visibleOptions(command).map(optionModel),
    arguments: command.registeredArguments.map((argument) => ({
      name: argument.name(),
      values: valuesOf(argument.name(), argument),
      variadic: argument.variadic,
    })),
    subcommands: help
      .visibleCommands(command)
      .filter((child) => child.name() !== 'help')
      .map((child) => modelOf(child, `${path} ${child.name()}`.trim())),
  };
}

/** A command and all below it. */
export function allOf(model: CommandModel): CommandModel[] {
  return [model, ...model.subcommands.flatMap(allOf)];
}

/** The last word of its path. */
export const nameOf = ({ path }: CommandModel): string => path.slice(path.lastIndexOf(' ') + 1);

function optionModel(option: Option): OptionModel {
  const name = /[<[]([^>\]]+)[>\]]/.exec(option.flags)?.at(1);
  return {
    long: option.long ?? '',
    short: option.short,
    description: option.description,
    value:
      name === undefined
        ? undefined
        : {
            name,
            values: option.long === '--target' ? TEXT : valuesOf(name, option),
            optional: option.optional,
          },
  };
}

const TEXT: Values = { kind: 'text' };

function valuesOf(name: string, { argChoices }: Argument | Option): Values {
  if (argChoices !== undefined) return { kind: 'choice', choices: argChoices };
  return { kind: KINDS.get(name) ?? 'text' };
}
