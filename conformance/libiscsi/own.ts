/** Runs the suite against the project's target: master and slave at once, each on a daemon of its own. */
import fs from 'node:fs/promises';
import path from 'node:path';
import { Cldd } from '../support/cldd.js';
import { ROOT } from '../support/paths.js';
import { runSuite, type SuiteResults } from './suite.js';
import { type Columns, fromJson } from './table.js';

export const RESULTS_FILE = path.join(ROOT, 'conformance/libiscsi/results.md');
export const TGTD_FILE = path.join(ROOT, 'conformance/libiscsi/tgtd.json');

/** The tests reset targets and reserve units, so the two runs must not meet in one daemon. */
export async function runOwn(): Promise<Pick<Columns, 'master' | 'slave'>> {
  const [master, slave] = await Promise.all([runUnit('master'), runUnit('slave')]);
  return { master, slave };
}

export async function readTgtd(): Promise<SuiteResults> {
  return fromJson(await fs.readFile(TGTD_FILE, 'utf8'));
}

async function runUnit(unit: 'master' | 'slave'): Promise<SuiteResults> {
  const cldd = await Cldd.start();
  try {
    const url = cldd.url(unit);
    return await runSuite({
      urls: [url, url],
      prepare: async () => {
        // Tests eject the slave's medium; the next ones begin with a medium again.
        if (unit === 'slave' && !(await cldd.status()).slave.enabled) await cldd.enableSlave();
      },
    });
  } finally {
    await cldd.stop();
  }
}
