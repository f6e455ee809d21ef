/** Runs libiscsi's test suite against a target, CUnit suite by suite, so that one hanging test holds up nothing. */
import { run, succeed } from '../support/processes.js';
import { parseLog, type TestResult } from './log.js';

/** Results by "SUITE.TEST", in the suite's own order. */
export type SuiteResults = Map<string, TestResult>;

export interface SuiteOptions {
  /** iscsi:// URLs of the same logical unit: the second path enables the multipath tests. */
  urls: readonly string[];
  /** Called before each CUnit suite, to put the target into the state that tests begin from. */
  prepare?: () => Promise<void>;
}

/** The slowest CUnit suite takes 6 s with tgtd; some tests wait for several seconds on purpose. */
const SUITE_TIMEOUT_MS = 45_000;
const TEST_TIMEOUT_MS = 20_000;

/** Every test as "SUITE.TEST". */
export async function listTests(): Promise<string[]> {
  const listed = await succeed('iscsi-test-cu', ['--list']);
  return [...listed.matchAll(/^ALL\.(\S+\.\S+)$/gm)].map((match) => match[1]);
}

/** Runs everything, destructive tests included. */
export async function runSuite(options: SuiteOptions): Promise<SuiteResults> {
  const tests = await listTests();
  const results: SuiteResults = new Map();
  for (const suite of new Set(tests.map((test) => test.slice(0, test.indexOf('.'))))) {
    const names = tests
      .filter((test) => test.startsWith(`${suite}.`))
      .map((test) => test.slice(suite.length + 1));
    await options.prepare?.();
    const first = await attempt(suite, SUITE_TIMEOUT_MS, options);
    for (const name of names) {
      results.set(
        `${suite}.${name}`,
        first.results.get(name) ?? (await alone(suite, name, first.end, options)),
      );
    }
  }
  return results;
}

/** A test that the run of its suite never reached or finished. */
async function alone(suite: string, name: string, end: string, options: SuiteOptions): Promise<TestResult> {
  await options.prepare?.();
  const { results, end: ownEnd } = await attempt(`${suite}.${name}`, TEST_TIMEOUT_MS, options);
  const result = results.get(name);
  if (result === undefined) return { result: 'unfinished', reason: `${ownEnd} (its suite: ${end})` };
  return result;
}

async function attempt(
  test: string,
  timeoutMs: number,
  options: SuiteOptions,
): Promise<{ results: Map<string, TestResult>; end: string }> {
  const flags = ['--dataloss', '--allow-sanitize', '--verbose', `--test=ALL.${test}`];
  const done = await run('iscsi-test-cu', [...flags, ...options.urls], { timeoutMs });
  const end = done.timedOut ? `no end in ${timeoutMs} ms` : `ended with ${String(done.code ?? done.signal)}`;
  const said = done.stderr.trim().split('\n')[0] ?? '';
  return { results: parseLog(`${done.stdout}\n${done.stderr}`), end: said === '' ? end : `${end}: ${said}` };
}
