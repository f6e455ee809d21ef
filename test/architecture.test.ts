/** The rule of ARCHITECTURE.md as a test: a layer imports only what lies below it, through the agreed files. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { ESLint } from 'eslint';
import t from 'tap';
import { packageRoot } from './package-root.js';

const root = packageRoot();
const src = join(root, 'src');

/** What each folder may import: folders, or single files of them. Its own folder is always allowed. */
const ALLOWED: Record<string, readonly string[]> = {
  scsi: ['operational-error.ts', 'thrown.ts', 'crc32c.ts'],
  cow: ['operational-error.ts', 'thrown.ts', 'crc32c.ts'],
  iscsi: ['crc32c.ts', 'operational-error.ts', 'thrown.ts', 'scsi/task.ts', 'scsi/port.ts', 'scsi/nexus.ts'],
  config: [
    'operational-error.ts',
    'thrown.ts',
    'json-schema.ts',
    'iscsi/options.ts',
    'iscsi/names.ts',
    'scsi/port.ts',
    'package-root.ts',
    'admin/protocol.ts',
  ],
  admin: ['json-schema.ts', 'iscsi/options.ts', 'operational-error.ts', 'thrown.ts', 'package-root.ts'],
  daemon: ['operational-error.ts', 'thrown.ts', 'package-root.ts', 'iscsi', 'scsi', 'cow', 'config', 'admin'],
  cli: [
    'crc32c.ts',
    'json-schema.ts',
    'operational-error.ts',
    'thrown.ts',
    'package-root.ts',
    'daemon',
    'config',
    'admin',
    'cow',
  ],
};

/** Node's modules that only some files may use: sockets and file descriptors have one place each. */
const ONE_PLACE: Partial<Record<string, RegExp>> = {
  'node:net': /^(iscsi\/(server|socket-wire)\.ts|admin\/|config\/|daemon\/|cli\/)/,
  'node:fs':
    /^(cow\/(store|probe|lock|device|partition)[a-z-]*\.ts|config\/|admin\/|daemon\/|cli\/|package-root\.ts)/,
};

function sources(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => join(entry.parentPath, entry.name));
}

const IMPORT = /^(?:import|export)\b[^'"]*?from\s*['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]\s*\)/gm;

function importsOf(file: string): string[] {
  return [...readFileSync(file, 'utf8').matchAll(IMPORT)].flatMap((match) => match.slice(1).filter(Boolean));
}

void t.test('src: every import points downwards (ARCHITECTURE.md)', (t) => {
  let edges = 0;
  for (const file of sources(src)) {
    const from = relative(src, file);
    const layer = from.split('/')[0];
    if (!(layer in ALLOWED)) continue;
    for (const name of importsOf(file)) {
      if (!name.startsWith('.')) continue;
      edges++;
      const to = relative(src, resolve(dirname(file), name)).replace(/\.js$/, '.ts');
      const fine =
        to.startsWith(`${layer}/`) || ALLOWED[layer].some((rule) => to === rule || to.startsWith(`${rule}/`));
      if (!fine) t.fail(`${from} imports ${to}`);
    }
  }
  t.ok(edges > 100, `${edges} imports looked at`);
  t.end();
});

void t.test('src: sockets and file descriptors appear only where they belong', (t) => {
  for (const file of sources(src)) {
    const from = relative(src, file);
    for (const name of importsOf(file)) {
      const place: RegExp | undefined =
        ONE_PLACE[name.replace(/^fs$/, 'node:fs').replace('node:fs/promises', 'node:fs')];
      if (place !== undefined && !place.test(from)) t.fail(`${from} imports ${name}`);
    }
  }
  t.pass('looked at every file');
  t.end();
});

void t.test('src: no file is an archive (style: over 400 lines wants a reason)', (t) => {
  /** Files whose length has a reason, which stands in their head. */
  const argued: ReadonlySet<string> = new Set([
    'iscsi/connection.ts',
    'iscsi/full-feature.ts',
    'iscsi/iscsi-task.ts',
    'scsi/opcodes.ts',
  ]);
  for (const file of sources(src)) {
    const lines = readFileSync(file, 'utf8').split('\n').length;
    const name = relative(src, file);
    if (lines > 450 && !argued.has(name)) t.fail(`${name} has ${lines} lines`);
  }
  t.pass('looked at every file');
  t.end();
});

/** What keeps a promise, an error or a type from getting lost unseen. */
const HONEST = [
  'no-empty',
  ...[
    'no-explicit-any',
    'no-unsafe-argument',
    'no-unsafe-assignment',
    'no-unsafe-call',
    'no-unsafe-member-access',
    'no-unsafe-return',
    'no-non-null-assertion',
    'no-floating-promises',
    'no-misused-promises',
    'only-throw-error',
    'prefer-promise-reject-errors',
    'use-unknown-in-catch-callback-variable',
    'ban-ts-comment',
  ].map((rule) => `@typescript-eslint/${rule}`),
];

void t.test(
  'src: the rules against any, !, lost promises and swallowed errors hold, without exceptions',
  async (t) => {
    const eslint = new ESLint({ cwd: root });
    for (const file of sources(src)) {
      const text = readFileSync(file, 'utf8');
      t.notMatch(text, /eslint-disable|@ts-(?:ignore|expect-error|nocheck)/, relative(src, file));
    }
    const { rules } = (await eslint.calculateConfigForFile(join(src, 'cli/main.ts'))) as {
      rules: Record<string, unknown[]>;
    };
    // 2: an error.
    for (const rule of HONEST) t.equal(rules[rule]?.[0], 2, rule);
  },
);
