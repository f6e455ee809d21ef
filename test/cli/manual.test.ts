/** The manual pages, docs/commands.md and --help against the parser and the schema, which they are made of. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import tap from 'tap';
import { needing } from '../../conformance/support/clients.js';
import { ROOT } from '../../conformance/support/paths.js';
import { run, succeed } from '../../conformance/support/processes.js';
import { afterHelp, commandsOf, manualPages, schema } from '../../packaging/manual/pages.js';
import type { Schema } from '../../packaging/manual/pages.js';
import { createProgram, programFor } from '../../src/cli/program.js';

tap.setTimeout(240_000);
const folder = mkdtempSync(join(tmpdir(), 'cldd-manual-'));
tap.teardown(() => rmSync(folder, { recursive: true, force: true }));
const pages = await manualPages();
for (const { file, roff } of pages) writeFileSync(join(folder, file), roff);
const commands = commandsOf(await createProgram());

/** What a reader sees, on one line. */
async function rendered(file: string): Promise<string> {
  const text = await succeed('groff', ['-man', '-t', '-Tutf8', '-P-cbou', '-rLL=2000n', join(folder, file)]);
  return text.replace(/\s+/g, ' ');
}

void tap.test('groff has no complaint about a page', needing('groff'), async (t) => {
  for (const { file } of pages) {
    const done = await run('groff', ['-man', '-t', '-Tutf8', '-ww', '-rLL=80n', join(folder, file)]);
    t.same([done.code, done.stderr], [0, ''], file);
  }
});

void tap.test(
  'cldd(8) tells every command, argument, option, example and exit code',
  needing('groff'),
  async (t) => {
    const told = await rendered('cldd.8');
    t.ok(commands.length >= 20);
    for (const { name, command } of commands) {
      t.ok(told.includes(`${name} `), name);
      t.ok(told.includes(command.description()), `${name}: its description`);
      for (const { flags, description } of command.options) {
        const plain = flags.replace(/[<>[\]]/g, '');
        t.ok(told.includes(plain) && told.includes(description), `${name} ${flags}`);
      }
      for (const [, example] of afterHelp(command).matchAll(/^ {2}\$ (.*)$/gm))
        t.ok(told.includes(example.replace(/\s+/g, ' ')), example);
    }
    for (const [, code, meaning] of afterHelp(await createProgram()).matchAll(/^ {2}(\d+) {2}(.*)$/gm))
      t.ok(told.includes(`${code} ${meaning}`), `exit code ${code}`);
  },
);

void tap.test(
  'a line that names a command loads that command, with its neighbours and no other',
  async (t) => {
    for (const { name, command } of commands) {
      const program = await programFor(name.split(' ').slice(1));
      const found = commandsOf(program).find((other) => other.name === name);
      t.equal(found?.command.helpInformation(), command.helpInformation(), name);
      // The scripts of `completion` tell of all of them.
      t.equal(commandsOf(program).length < commands.length, name !== 'cldd completion', name);
    }
    for (const line of [[], ['--help'], ['help', 'status'], ['statsu']])
      t.equal(commandsOf(await programFor(line)).length, commands.length, `with all: cldd ${line.join(' ')}`);
  },
);

function keysOf(part: Schema): [string, string][] {
  const own = Object.entries(part.properties ?? {}).map(([key, { description }]): [string, string] => [
    key,
    description ?? '',
  ]);
  const inner = [
    ...Object.values(part.properties ?? {}),
    ...Object.values(part.definitions ?? {}),
    ...(part.items === undefined ? [] : [part.items]),
  ];
  return [...own, ...inner.flatMap(keysOf)];
}

void tap.test('cldd.yaml(5) tells every key of the schema', needing('groff'), async (t) => {
  const told = await rendered('cldd.yaml.5');
  const keys = keysOf(schema());
  t.ok(keys.length > 60);
  for (const [key, description] of keys)
    t.ok(told.includes(key) && told.includes(description.replace(/\s+/g, ' ')), key);
});

void tap.test('docs/commands.md has every command, and no other', (t) => {
  const docs = readFileSync(join(ROOT, 'docs/commands.md'), 'utf8');
  const cells = docs
    .split('\n')
    .filter((line) => line.startsWith('| `cldd'))
    .map((line) => line.split(' | ')[0]);
  const named = cells.join('\n');
  for (const { name, command } of commands) {
    const documented = name.startsWith('cldd slave ')
      ? /cldd slave (enable|disable)/
      : new RegExp(`${name}\\b`);
    t.match(named, documented, name);
    const rows = cells.filter((cell) => new RegExp(`${name}\\b`).test(cell));
    for (const [flag] of rows.join(' ').matchAll(/--[a-z-]+/g))
      t.ok(
        command.options.some(({ long }) => long === flag),
        `${name} ${flag} exists`,
      );
  }
  for (const [name] of named.matchAll(/cldd [a-z-]+( (?:kill|check|enable|disable))?/g))
    t.ok(
      commands.some((one) => one.name === name),
      `${name} exists`,
    );
  t.end();
});

/** Commands that run until they are ended, or whose data is for another program. */
const PRINTS_NO_DATA = ['cldd serve', 'cldd completion'];
/** Commands that change nothing that lasts. Every other one has --dry-run; test/cli/commands.test.ts runs them all. */
const ONLY_READS = [
  'serve',
  'status',
  'metrics',
  'targets',
  'sessions',
  'changes',
  'verify',
  'dump',
  'config check',
  'completion',
].map((name) => `cldd ${name}`);
const DESTROYS = ['cldd init', 'cldd rollback', 'cldd restore', 'cldd prune'];

void tap.test('every command has examples, --json, --quiet, --dry-run, and takes no secret', (t) => {
  for (const { name, command } of commands) {
    const has = (flag: string): boolean => command.options.some(({ long }) => long === flag);
    t.match(afterHelp(command), /^Examples:\n {2}\$ /m, `${name}: examples`);
    t.ok(command.description().length > 10, `${name}: a description`);
    for (const option of command.options) {
      t.ok(option.description.length > 3, `${name} ${option.flags}: a description`);
      t.notMatch(option.flags, /secret|password|chap|token/i, 'no secret in an argument');
    }
    t.ok(has('--quiet'), `${name} --quiet`);
    t.equal(has('--json'), !PRINTS_NO_DATA.includes(name), `${name} --json`);
    t.equal(has('--dry-run'), !ONLY_READS.includes(name), `${name} --dry-run`);
    t.equal(has('--yes'), DESTROYS.includes(name), `${name} --yes`);
  }
  t.end();
});
