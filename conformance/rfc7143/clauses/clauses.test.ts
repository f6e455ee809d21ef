/** See account.ts. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { THEMES } from '../matrix.js';
import { untested } from '../untested.js';
import { countWords } from './count.js';
import { RFC7143_WORDS, RFC7144_WORDS } from './counts.js';
import { cites, PARTS } from './parts.js';

const clauseOf = new Map(
  Object.values(THEMES)
    .flat()
    .map(({ id, clause }) => [id, clause]),
);

for (const { title, standard, words, accounts } of PARTS) {
  void t.test(`${title}: the accounts of a section answer for as many words as it has`, (t) => {
    for (const [section, list] of Object.entries(accounts)) {
      t.equal(
        list.reduce((sum, account) => sum + account.words, 0),
        words[section],
        `§${section}`,
      );
    }
    t.same(
      Object.keys(words).filter((section) => !(section in accounts)),
      [],
      'no section is left out',
    );
    t.end();
  });

  void t.test(`${title}: every row that is named exists and cites the section`, (t) => {
    for (const [section, list] of Object.entries(accounts)) {
      for (const account of list) {
        if ('untested' in account) {
          const entry = untested.find(({ text }) => text === account.untested);
          t.ok(cites(entry?.clause ?? '', standard, section), `§${section}: ${account.untested}`);
        }
        if (!('rows' in account)) continue;
        t.not(account.rows.length, 0, `§${section} names a row`);
        for (const id of account.rows) {
          t.ok(cites(clauseOf.get(id) ?? '', standard, section), `${id} cites §${section}`);
        }
      }
    }
    t.end();
  });
}

void t.test('a row cites a section by its number, or one around it or in it, of the same standard', (t) => {
  const clause = 'RFC 7143 §6.2, §11.12.3 (leading), Appendix C; SPC-6 §6.34';
  for (const section of ['6.2', '6', '6.2.1', '11.12.3', '11.12', 'C']) {
    t.ok(cites(clause, 'RFC 7143', section), section);
  }
  for (const section of ['6.21', '6.1', '11.12.4', '11.12.31', '6.34', 'B']) {
    t.notOk(cites(clause, 'RFC 7143', section), section);
  }
  t.notOk(cites(clause, 'RFC 7144', '6.2'));
  t.end();
});

void t.test('words of obligation are counted by section', (t) => {
  const text = [
    '   1. Contents ...... 3',
    '1.  One',
    '   A MUST NOT, a SHALL',
    '   and a MUST.',
    '<a name="section-1.1">1.1</a>.  Two',
    '   must, should, SHOULD, MUSTARD',
    '1.2.  Three',
    '   It is REQUIRED.',
    'Appendix C.  Last',
    '   SHALL NOT',
  ];
  t.same(countWords(text.join('\n')), { '1': 3, '1.2': 1, C: 1 });
  t.end();
});

const folder = process.env['RFC_TEXTS'];
void t.test(
  'counts.ts is what the texts say',
  { skip: folder === undefined && 'set RFC_TEXTS to a folder with rfc7143.txt and rfc7144.txt' },
  (t) => {
    const text = (name: string): string => readFileSync(join(folder ?? '', name), 'utf8');
    t.same(countWords(text('rfc7143.txt')), RFC7143_WORDS);
    t.same(countWords(text('rfc7144.txt')), RFC7144_WORDS);
    t.end();
  },
);
