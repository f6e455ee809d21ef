/** Runs libiscsi's test suite against a target, CUnit suite by suite, so that one hanging test holds up nothing. */
import { run, succeed } from '../support/processes.js';
import { parseLog, type TestResult } from './log.js';

/** Results by "SUITE.TEST". */
export type SuiteResults = Map<string, TestResult>;

export interface Attempt {
  /** A suite, or "SUITE.TEST". */
  test: string;
  /** iscsi:// URLs of the same logical unit: the second path enables the multipath tests. */
  urls: readonly string[];
  /** Allow tests that change, sanitize or reserve the medium. */
  dataLoss: boolean;
}

/** The slowest test waits for 65 s on purpose, most suites take less than one. */
const TIMEOUT_MS = 240_000;

/** Every test as "SUITE.TEST", in the suite's own order. */
export async function listTests(): Promise<string[]> {
  const listed = await succeed('iscsi-test-cu', ['--list']);
  return [...listed.matchAll(/^ALL\.(\S+\.\S+)$/gm)].map((match) => match[1]);
}

/**
 * Runs a suite. What it did not finish (a test hung, or the tool crashed) runs once more by itself, after `prepare` has
 * put the target into the state that tests begin from.
 */
export async function runSuite(
  tests: readonly string[],
  attempt: Attempt,
  prepare: () => Promise<void>,
): Promise<SuiteResults> {
  await prepare();
  const first = await execute(attempt);
  const results: SuiteResults = new Map();
  for (const test of tests) {
    const name = test.slice(test.indexOf('.') + 1);
    let result = first.results.get(name);
    if (result === undefined) {
      await prepare();
      const again = await execute({ ...attempt, test });
      result = again.results.get(name) ?? {
        result: 'unfinished',
        reason: `${again.end} (its suite: ${first.end})`,
      };
    }
    results.set(test, result);
  }
  return results;
}

async function execute({ test, urls, dataLoss }: Attempt): Promise<{
  results: Map<string, TestResult>;
  end: string;
}> {
  const flags = ['--verbose', '--Verbose-scsi', ...(dataLoss ? ['--dataloss', '--allow-sanitize'] : [])];
  const done = await run('iscsi-test-cu', [...flags, `--test=ALL.${test}`, ...urls], {
    timeoutMs: TIMEOUT_MS,
  });
  const end = done.timedOut ? `no end in ${TIMEOUT_MS} ms` : `ended with ${String(done.code ?? done.signal)}`;
  const said = done.stderr.trim().split('\n')[0] ?? '';
  return { results: parseLog(`${done.stdout}\n${done.stderr}`), end: said === '' ? end : `${end}: ${said}` };
}
