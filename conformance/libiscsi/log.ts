/**
 * Reads what iscsi-test-cu prints. Its exit code says nothing, and a test that skips itself ends with "passed", so
 * the log is the only truth.
 */

export const RESULTS = ['passed', 'partly', 'skipped', 'failed', 'unfinished'] as const;
/**
 * `skipped`: the test checked nothing of what it is about. `partly`: it passed, but left out a step, saying [SKIPPED],
 * and checked others of the same command.
 */
export type Result = (typeof RESULTS)[number];

export interface TestResult {
  result: Result;
  /** The test's own first words on why it was skipped or failed; empty for a test that passed. */
  reason: string;
}

/** The results in a log, by test name without its suite. A test that never ended is left out. */
export function parseLog(log: string): Map<string, TestResult> {
  const results = new Map<string, TestResult>();
  for (const block of log.split(/^ {2}Test: /m).slice(1)) {
    const name = /^(\S+) \.\.\./.exec(block)?.[1];
    // The verdict begins a line, or stands behind the dots if the test printed nothing. What the suite's clean-up
    // says may follow on the same line and is none of the test's business.
    const verdict = /^(?:\S+ \.\.\.)?(passed|FAILED)(?=\s|$)/m.exec(block);
    if (name === undefined || verdict === null) continue;
    const passed = verdict[1] === 'passed';
    results.set(name, judge(passed ? block.slice(0, verdict.index) : block, passed));
  }
  return results;
}

function judge(block: string, passed: boolean): TestResult {
  if (!passed) {
    const said = /\[FAILED\] (.*)/.exec(block)?.[1] ?? /^ +1\. (.*)$/m.exec(block)?.[1] ?? 'no reason given';
    return { result: 'failed', reason: tidy(said) };
  }
  const skipped = /\[SKIPPED\] ((\S+).*)/.exec(block);
  if (skipped === null) return { result: 'passed', reason: '' };
  const result = block.includes(`[OK] ${skipped[2]} returned `) ? 'partly' : 'skipped';
  return { result, reason: tidy(skipped[1]) };
}

function tidy(text: string): string {
  return text
    .replace(/\s{2,}Send .*$/, '')
    .replace(/" ?"|"\)$/g, '')
    .replace(/\s+/g, ' ')
    .trim();
}
