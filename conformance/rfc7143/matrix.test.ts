/** See matrix.ts. */
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ROOT } from '../support/paths.js';
import { matrix, THEMES } from './matrix.js';

void t.test('conformance/matrix.md is what the tables say (UPDATE_DOCS=1 writes it)', (t) => {
  const file = join(ROOT, 'conformance/matrix.md');
  if (process.env['UPDATE_DOCS'] === '1') writeFileSync(file, matrix());
  t.equal(readFileSync(file, 'utf8'), matrix());
  t.end();
});

void t.test('ids are unique, and every theme of the matrix has a test file that runs it', (t) => {
  const ids = Object.values(THEMES)
    .flat()
    .map(({ id }) => id);
  t.equal(new Set(ids).size, ids.length);
  const run = readdirSync(join(ROOT, 'conformance/rfc7143'))
    .filter((name) => name.endsWith('.test.ts') && name !== 'matrix.test.ts' && name !== 'fuzz.test.ts')
    .map((name) => name.replace('.test.ts', ''));
  t.same(run.sort(), Object.keys(THEMES).sort());
  t.end();
});

void t.test('conformance/unh-iol.md names rows that exist', (t) => {
  const known = new Set(
    Object.values(THEMES)
      .flat()
      .map(({ id }) => id),
  );
  const text = readFileSync(join(ROOT, 'conformance/unh-iol.md'), 'utf8');
  const named = new Set(text.match(/\b[A-Z]+-\d{2}\b/g));
  t.ok(named.size > 100);
  t.same(
    [...named].filter((id) => !known.has(id)),
    [],
  );
  t.end();
});
