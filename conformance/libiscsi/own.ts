/** Runs the suite against the project's target: master and slave, in parts that run side by side. */
import fs from 'node:fs/promises';
import path from 'node:path';
import { Cldd, type ClddOptions } from '../support/cldd.js';
import { ROOT } from '../support/paths.js';
import { listTests, runSuite, type SuiteResults } from './suite.js';
import { type Columns, fromJson } from './table.js';

export const RESULTS_FILE = path.join(ROOT, 'conformance/libiscsi/results.md');
export const TGTD_FILE = path.join(ROOT, 'conformance/libiscsi/tgtd.json');

type Unit = 'master' | 'slave';

/** Suites about two paths. Elsewhere the tool would keep the second session, with what one test left on it, for the next. */
export const TWO_PATHS = /^Multipath/;

/** Waits for a minute until an overwrite is over, and needs one that takes more than four seconds, at 64 MiB/s. */
const LONG = 'Sanitize.Reset';
const LONG_SIZE_MIB = 1280;

/** Tests that want another configuration of the target than the default; NOTES in table.ts says why. */
const CONFIGURED: readonly { tests: readonly string[]; options: ClddOptions }[] = [
  { tests: ['GetLBAStatus.UnmapSingle'], options: { physicalBlockBytes: 512 } },
  { tests: ['WriteSame10.ZeroBlocks', 'WriteSame16.ZeroBlocks'], options: { writeSameToEnd: true } },
];

/** A part of no more tests than this runs them one by one, since it does not want the whole of their suites. */
const CONFIGURED_MAX = 2;

/** Suites that write: on the slave without --dataloss, so that their tests skip themselves. */
const WRITING =
  /^(CompareAndWrite|ExtendedCopy|GetLBAStatus|OrWrite|ReceiveCopyResults|Sanitize|Unmap|Write\w+|iSCSIdatasn|iSCSIResiduals|iSCSITMF|Multipath\w+)\./;

/** Tests that write with --dataloss and fail without: not for a write-protected unit. */
const NOT_FOR_SLAVE = /^(ProutReserve\.Access\w+|WriteVerify\d+\.Dpo|Read10\.Async)$/;

/** The tests reset targets and reserve units, so each part has a daemon of its own. */
export async function runOwn(): Promise<Pick<Columns, Unit>> {
  const tests = await listTests();
  const isSlow = (test: string): boolean => test.startsWith('Sanitize.');
  const configured = new Set(CONFIGURED.flatMap((each) => each.tests));
  const quick = tests.filter((test) => !isSlow(test) && !configured.has(test));
  const slow = tests.filter((test) => isSlow(test) && test !== LONG);
  const [slave, ...masters] = await Promise.all([
    runPart('slave', tests),
    runPart('master', quick),
    runPart('master', slow).then(async (results) => {
      const all = new Map(results);
      for (const { tests: some, options } of CONFIGURED)
        for (const [test, result] of await runPart('master', some, options)) all.set(test, result);
      return all;
    }),
    runPart('master', [LONG], { sizeMiB: LONG_SIZE_MIB }),
  ]);
  const found = new Map(masters.flatMap((results) => [...results]));
  const master: SuiteResults = new Map();
  for (const test of tests) {
    const result = found.get(test);
    if (result !== undefined) master.set(test, result);
  }
  return { master, slave };
}

export async function readTgtd(): Promise<SuiteResults> {
  return fromJson(await fs.readFile(TGTD_FILE, 'utf8'));
}

async function runPart(
  unit: Unit,
  tests: readonly string[],
  options: ClddOptions = {},
): Promise<SuiteResults> {
  // The tool sleeps in the midst of its sessions.
  const cldd = await Cldd.start({ portals: 2, allowLoad: true, pings: false, ...options });
  const prepare = async (): Promise<void> => {
    // Tests eject the slave's medium; the next ones begin with a medium again.
    if (unit === 'slave' && !(await cldd.status()).slave.enabled) await cldd.enableSlave();
  };
  const results: SuiteResults = new Map();
  try {
    for (const [suite, members] of bySuite(tests)) {
      const ports = cldd.ports.slice(0, TWO_PATHS.test(suite) ? 2 : 1);
      const urls = ports.map((port) => cldd.url(unit, port));
      const attempt = { urls, dataLoss: unit === 'master' || !WRITING.test(`${suite}.`) };
      const allowed = members.filter((test) => unit === 'master' || !NOT_FOR_SLAVE.test(test));
      const whole = tests.length > CONFIGURED_MAX && allowed.length === members.length;
      const parts = whole ? [{ test: suite, members }] : allowed.map((test) => ({ test, members: [test] }));
      for (const part of parts) {
        const found = await runSuite(part.members, { ...attempt, test: part.test }, prepare);
        for (const [test, result] of found) results.set(test, result);
      }
    }
    return withNotRun(tests, results);
  } finally {
    await cldd.stop();
  }
}

function bySuite(tests: readonly string[]): Map<string, string[]> {
  const suites = new Map<string, string[]>();
  for (const test of tests) {
    const suite = test.slice(0, test.indexOf('.'));
    suites.set(suite, [...(suites.get(suite) ?? []), test]);
  }
  return suites;
}

function withNotRun(tests: readonly string[], results: SuiteResults): SuiteResults {
  const notRun = {
    result: 'skipped',
    reason: 'Not run: it writes, and the slave is write-protected.',
  } as const;
  return new Map(tests.map((test) => [test, results.get(test) ?? notRun]));
}
