/** conformance/matrix.md: every requirement that is tested, by theme, and those that are not. */
import { access } from './access.js';
import { asynchronous } from './asynchronous.js';
import { chap } from './chap.js';
import { clauseTable, PARTS } from './clauses/parts.js';
import { command } from './command.js';
import { concepts } from './concepts.js';
import { connections } from './connections.js';
import { digest } from './digest.js';
import { discovery } from './discovery.js';
import { faults } from './faults.js';
import { fields } from './fields.js';
import { life } from './life.js';
import { limits } from './limits.js';
import { login } from './login.js';
import { negotiation } from './negotiation.js';
import { portals } from './portals.js';
import { reassignment } from './reassignment.js';
import { recovery } from './recovery.js';
import type { Requirement } from './requirement.js';
import { taskManagement } from './task-management.js';
import { text } from './text.js';
import { untested } from './untested.js';
import { write } from './write.js';

/** Every theme by the name of its file. */
export const THEMES: Readonly<Record<string, readonly Requirement[]>> = {
  concepts,
  login,
  negotiation,
  text,
  chap,
  discovery,
  command,
  write,
  digest,
  'task-management': taskManagement,
  asynchronous,
  life,
  connections,
  fields,
  recovery,
  reassignment,
  portals,
  access,
  limits,
  faults,
};

const HEAD = `# What RFC 7143 and RFC 7144 ask of a target, and which test shows it

Generated from the tables in conformance/rfc7143 by \`UPDATE_DOCS=1 npm test -- rfc7143/matrix\`, and compared with them by
\`npm test\`. That run also executes every row against cldd and fails if one row fails: what stands here passes.
ROBUST marks what no clause demands but a target on a network has to survive.
`;

const BY_CLAUSE = `## By clause

Every section that has words of obligation (MUST, MUST NOT, SHALL, SHALL NOT, REQUIRED), how many, and what answers for
them: requirements above, in the order of the text; or that they bind the initiator alone; or that they ask nothing of
this target. A test counts that they add up (conformance/rfc7143/clauses).
`;

export function matrix(): string {
  const parts = [HEAD];
  const all = Object.values(THEMES).flat();
  const must = all.filter(({ level }) => level === 'MUST').length;
  parts.push(
    `${all.length} requirements with a test, ${must} of them MUST; ${untested.length} without, listed at the end.\n`,
  );
  for (const [theme, requirements] of Object.entries(THEMES)) {
    parts.push(`## ${theme}\n`, table(['id', 'clause', 'level', 'requirement'], requirements.map(row)));
  }
  parts.push(
    '## Without a test\n',
    table(
      ['clause', 'level', 'requirement', 'why'],
      untested.map(({ clause, level, text, why }) => [clause, level, text, why]),
    ),
  );
  parts.push(BY_CLAUSE);
  for (const part of PARTS) {
    parts.push(`### ${part.title}\n`, table(['clause', 'words', 'what answers for them'], clauseTable(part)));
  }
  return parts.join('\n');
}

const row = ({ id, clause, level, text }: Requirement): string[] => [id, clause, level, text];

function table(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |\n`;
  return [line(heads), line(heads.map(() => '---')), ...rows.map(line)].join('');
}
