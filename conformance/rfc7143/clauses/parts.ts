/** The RFCs in parts: the accounts of each, and the words of obligation that they have to answer for. */
import type { Account, Accounts } from './account.js';
import { RFC7143_WORDS, RFC7144_WORDS } from './counts.js';
import { rfc7144 } from './rfc7144.js';
import { sections1To7 } from './sections-1-7.js';
import { sections8To13 } from './sections-8-13.js';

export interface Part {
  title: string;
  standard: string;
  /** Words of obligation by section. */
  words: Readonly<Record<string, number>>;
  accounts: Accounts;
}

const upTo7 = (section: string): boolean => Number.parseInt(section, 10) <= 7;
const only = (words: typeof RFC7143_WORDS, isIn: (section: string) => boolean): typeof RFC7143_WORDS =>
  Object.fromEntries(Object.entries(words).filter(([section]) => isIn(section)));

export const PARTS: readonly Part[] = [
  {
    title: 'RFC 7143 §1 to §7',
    standard: 'RFC 7143',
    words: only(RFC7143_WORDS, upTo7),
    accounts: sections1To7,
  },
  {
    title: 'RFC 7143 §8 to §15, and appendices',
    standard: 'RFC 7143',
    words: only(RFC7143_WORDS, (section) => !upTo7(section)),
    accounts: sections8To13,
  },
  { title: 'RFC 7144', standard: 'RFC 7144', words: RFC7144_WORDS, accounts: rfc7144 },
];

/** Whether a row's clause ("RFC 7143 §6.2, §11.12; SPC-6 §6.34") cites a section, one around it or one in it. */
export function cites(clause: string, standard: string, section: string): boolean {
  let current = '';
  for (const [, name, number] of clause.matchAll(
    /((?:RFC |SPC-|SBC-|SAM-)\d+)|(?:§|Appendix )([\dA-Z.]*[\dA-Z])/g,
  )) {
    if (name !== undefined) current = name;
    else if (number !== undefined && current === standard) {
      if (`${section}.`.startsWith(`${number}.`) || `${number}.`.startsWith(`${section}.`)) return true;
    }
  }
  return false;
}

/** Lines of a table: section, words, what answers for them. */
export function clauseTable({ words, accounts }: Part): string[][] {
  return Object.entries(words).map(([section, count]) => [
    section,
    String(count),
    (accounts[section] ?? []).map(describe).join('; '),
  ]);
}

function describe(account: Account): string {
  if ('rows' in account) return account.rows.join(', ');
  if ('initiator' in account) return `initiator (${account.words}): ${account.initiator}`;
  if ('beside' in account) return `not applicable (${account.words}): ${account.beside}`;
  return `without a test (${account.words}): ${account.untested}`;
}
