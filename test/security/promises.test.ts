/** docs/security.md names a test for every promise; each is there. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../package-root.js';

const root = packageRoot();

void t.test('every test that docs/security.md names exists', (t) => {
  const tests = ['test', 'conformance']
    .flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true }).map((name) => join(folder, String(name))),
    )
    .filter((name) => name.endsWith('.ts') && !name.endsWith('promises.test.ts'));
  const text = tests.map((name) => readFileSync(join(root, name), 'utf8')).join('\n');
  const rows = readFileSync(join(root, 'docs/security.md'), 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| ') && !/^\| (promise|fault class) /.test(line));
  t.ok(rows.length > 20);
  for (const row of rows) {
    const names = [...(row.split(' | ')[1] ?? '').matchAll(/`([^`]+)`/g)].map(([, name]) => name);
    t.ok(names.length > 0, row);
    for (const name of names) t.ok(tests.includes(name) || text.includes(`'${name}'`), name);
  }
  t.end();
});
