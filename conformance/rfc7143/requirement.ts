/**
 * A requirement of the standard and the test that shows it. Every theme is a table of these; `demonstrate` runs a
 * table under tap, and matrix.ts writes all tables down in conformance/matrix.md.
 */
import { appendFileSync } from 'node:fs';
import t from 'tap';
import type { Target } from './target.js';

export interface Requirement {
  /** Stable name, theme and number: LOGIN-07. */
  id: string;
  /** Where the standard says it: "RFC 7143 §11.12.3". */
  clause: string;
  level: 'MUST' | 'SHOULD' | 'MAY' | 'ROBUST';
  /** What is required of a target, in words of our own. */
  text: string;
  /** Shows it; throws or fails an assertion if it does not hold. */
  run: (t: Tap, target: Target) => Promise<void>;
  /** Configuration of the target that the test needs; without it the test is skipped. */
  needs?: (target: Target) => boolean;
}

/** The test object of tap. */
export type Tap = Pick<
  typeof t,
  | 'equal'
  | 'not'
  | 'ok'
  | 'notOk'
  | 'same'
  | 'match'
  | 'notMatch'
  | 'fail'
  | 'pass'
  | 'comment'
  | 'rejects'
  | 'teardown'
>;

/** Most time for one requirement, on a machine that has much else to do. */
const LIMIT_MS = 120_000;

/** Runs a table against one target, each row on connections of its own. */
export async function demonstrate(requirements: readonly Requirement[], target: Target): Promise<void> {
  for (const requirement of requirements) {
    const name = `${requirement.id} ${requirement.text} (${requirement.clause})`;
    if (only !== undefined && !requirement.id.startsWith(only)) continue;
    if (requirement.needs !== undefined && !requirement.needs(target)) {
      await t.test(name, { skip: 'the target under test is not configured for it' }, () => undefined);
      record(requirement.id, 'skipped');
      continue;
    }
    await t.test(name, { timeout: LIMIT_MS }, async (test) => {
      let passed = false;
      try {
        await requirement.run(test, target);
        const violations = target.sessions.flatMap((session) => session.connection.violations);
        test.same(violations, [], 'every PDU of the target keeps the rules of the wire');
        passed = test.passing();
      } finally {
        for (const session of target.sessions.splice(0)) session.connection.destroy();
        record(requirement.id, passed ? 'passed' : 'failed');
      }
    });
  }
}

/** Set to an id or its beginning to run only those rows. */
const only = process.env['RFC7143_ONLY'];

/** For matrix.ts: one line a requirement, in the file that it names. */
function record(id: string, result: 'passed' | 'failed' | 'skipped'): void {
  const file = process.env['RFC7143_RESULTS'];
  if (file !== undefined) appendFileSync(file, `${id} ${result}\n`);
}
