/** The manual pages, each made of what the program itself goes by: the parser, the JSON Schema, docs/format.md. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Argument, Command, Option } from 'commander';
import { createProgram } from '../../src/cli/program.js';
import { PACKAGE_ROOT, packageVersion } from '../../src/package-root.js';
import { bold, item, italic, markdown, page, section, subsection, text, verbatim } from './roff.js';

export interface ManualPage {
  /** File name, such as cldd.8. */
  file: string;
  roff: string;
}

export async function manualPages(): Promise<ManualPage[]> {
  return [
    { file: 'cldd.8', roff: await programPage() },
    { file: 'cldd.yaml.5', roff: configurationPage() },
    { file: 'cldd-format.5', roff: formatPage() },
  ];
}

/** Every command that does something, by its full name. */
export function commandsOf(program: Command): { name: string; command: Command }[] {
  const walk = (command: Command, prefix: string): { name: string; command: Command }[] =>
    program
      .createHelp()
      .visibleCommands(command)
      .filter((child) => child.name() !== 'help')
      .flatMap((child) => {
        const name = `${prefix} ${child.name()}`;
        return child.commands.length > 0 ? walk(child, name) : [{ name, command: child }];
      });
  return walk(program, program.name());
}

/** What a command says of itself after its options: the texts that --help ends with. */
export function afterHelp(command: Command): string {
  let said = '';
  command.configureOutput({ writeOut: (part) => (said += part) });
  command.outputHelp();
  const at = said.search(/^(Examples|Exit codes):$/m);
  return at < 0 ? '' : said.slice(at);
}

async function programPage(): Promise<string> {
  const program = await createProgram();
  const codes = [...afterHelp(program).matchAll(/^ {2}(\d+) {2}(.*)$/gm)];
  return page('cldd', 8, 'iSCSI target with a frozen second disc', packageVersion(), [
    section('Synopsis'),
    `${bold('cldd')} ${italic('command')} [${italic('options')}] [${italic('arguments')}]`,
    section('Description'),
    text(program.description()),
    '.PP',
    `A ${italic('target')} may be left out when there is one. Data goes to standard output, messages and the log to standard error. Colours appear on a terminal only, and never if ${bold('NO_COLOR')} is set.`,
    section('Commands'),
    ...commandsOf(program).flatMap(({ name, command }) => commandText(name, command)),
    section('Exit status'),
    ...codes.map(([, code, meaning]) => item(bold(code), text(meaning))),
    section('Environment'),
    item(bold('CLDD_SOCKET'), 'control socket of the daemon, unless an option names it'),
    item(bold('NO_COLOR'), 'no colours'),
    section('Signals'),
    `${bold('SIGTERM')} and ${bold('SIGINT')} stop ${bold('cldd serve')}: initiators are asked to log out, and everything is made durable. ${bold('SIGHUP')} reloads the configuration.`,
    section('Files'),
    item(italic('/etc/cldd/cldd.yaml'), 'configuration of the service'),
    item(italic('/run/cldd/cldd.sock'), "control socket, of the service and of root's daemons"),
    section('See also'),
    '.BR cldd.yaml (5),\n.BR cldd\\-format (5),\n.BR iscsiadm (8)',
  ]);
}

function commandText(name: string, command: Command): string[] {
  const help = command.createHelp();
  const shown = command.registeredArguments.map(argumentText).join(' ');
  const described = help.visibleArguments(command).filter(({ description }) => description !== '');
  const examples = [...afterHelp(command).matchAll(/^ {2}\$ (.*)$/gm)].map(([, line]) => line);
  return [
    subsection(`${name} ${shown}`.trim()),
    text(command.description()),
    ...described.map((one) => item(italic(one.name()), text(help.argumentDescription(one)))),
    ...help
      .visibleOptions(command)
      .filter(({ long }) => long !== '--help')
      .map((option) => item(optionText(option), text(help.optionDescription(option)))),
    ...(examples.length === 0 ? [] : ['.PP', 'Examples:', verbatim(examples)]),
  ];
}

function argumentText(argument: Argument): string {
  const name = `${argument.name()}${argument.variadic ? '…' : ''}`;
  return argument.required ? name.toUpperCase() : `[${name.toUpperCase()}]`;
}

/** Switches in bold, the value in italics. */
function optionText({ flags }: Option): string {
  return flags.replaceAll(
    /[<[]([^>\]]+)[>\]]|(-[\w-]+)|([^<[-]+)/g,
    (_, value?: string, flag?: string, rest?: string) => {
      if (value !== undefined) return italic(value);
      return flag === undefined ? (rest ?? '') : bold(flag);
    },
  );
}

export interface Schema {
  description?: string;
  type?: string;
  enum?: unknown[];
  minimum?: number;
  maximum?: number;
  required?: string[];
  properties?: Record<string, Schema>;
  items?: Schema;
  additionalProperties?: Schema | boolean;
  definitions?: Record<string, Schema>;
  $ref?: string;
}

export function schema(): Schema {
  return JSON.parse(readFileSync(join(PACKAGE_ROOT, 'config/cldd.schema.json'), 'utf8')) as Schema;
}

function configurationPage(): string {
  const root = schema();
  const named: [string, Schema][] = Object.entries(root.definitions ?? {});
  const portal = root.properties?.['portals']?.items;
  const sections: [string, Schema][] = portal === undefined ? named : [['portal', portal], ...named];
  const example = readFileSync(join(PACKAGE_ROOT, 'config/cldd.minimal.yaml'), 'utf8').trimEnd();
  return page('cldd.yaml', 5, 'configuration of the iSCSI target cldd', packageVersion(), [
    section('Description'),
    text(root.description ?? ''),
    text(' It is YAML. Unknown keys are mistakes. Relative paths start at its folder.').trim(),
    `${bold('cldd config check')} reports every mistake with its line, and ${bold('cldd reload')} takes over what changed.`,
    section('Top level'),
    ...keys(root),
    ...sections.flatMap(([name, part]) => [section(name), text(part.description ?? ''), ...keys(part)]),
    section('Example'),
    verbatim(example.split('\n')),
    section('See also'),
    '.BR cldd (8)',
  ]);
}

function keys(of: Schema, prefix = ''): string[] {
  return Object.entries(of.properties ?? {}).flatMap(([key, part]) => {
    const required = of.required?.includes(key) === true ? ' Required.' : '';
    const reference = part.$ref?.split('/').at(-1) ?? part.items?.$ref?.split('/').at(-1);
    const see = reference === undefined ? '' : ` See ${reference} below.`;
    const of_ = part.enum === undefined ? '' : ` One of ${part.enum.map(String).join(', ')}.`;
    const range =
      part.minimum === undefined ? '' : ` From ${String(part.minimum)} to ${String(part.maximum ?? 'any')}.`;
    const words = `${part.description ?? ''}${of_}${range}${required}${see}`.trim();
    const inner = part.items?.properties === undefined || key === 'portals' ? part : part.items;
    return [item(bold(prefix + key), text(words)), ...keys(inner, `${prefix}${key}.`)];
  });
}

function formatPage(): string {
  const source = readFileSync(join(PACKAGE_ROOT, 'docs/format.md'), 'utf8');
  return page('cldd-format', 5, 'what is on a partition of cldd', packageVersion(), [
    section('Description'),
    ...markdown(source),
    section('See also'),
    '.BR cldd (8)',
  ]);
}
