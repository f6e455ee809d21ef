/**
 * Records tgtd's column, tgtd.json, which the table of results shows beside ours:
 *
 *     node dist/conformance/libiscsi/record.js
 */
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { startTgtd } from '../support/tgtd.js';
import { TGTD_FILE, TWO_PATHS } from './own.js';
import { listTests, runSuite, type SuiteResults } from './suite.js';
import { toJson } from './table.js';

await fs.writeFile(TGTD_FILE, toJson(await runTgtd()));

async function runTgtd(): Promise<SuiteResults> {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'cldd-tgtd-'));
  try {
    const disk = path.join(folder, 'disk');
    await fs.writeFile(disk, '');
    await fs.truncate(disk, 128 * 1024 * 1024);
    const tgtd = await startTgtd([disk], 2);
    try {
      const urls = tgtd.ports.map((port) => `iscsi://127.0.0.1:${port}/${tgtd.target}/1`);
      const tests = await listTests();
      const results: SuiteResults = new Map();
      for (const suite of new Set(tests.map((test) => test.slice(0, test.indexOf('.'))))) {
        const members = tests.filter((test) => test.startsWith(`${suite}.`));
        const paths = TWO_PATHS.test(suite) ? urls : urls.slice(0, 1);
        const found = await runSuite(members, { test: suite, urls: paths, dataLoss: true }, () =>
          Promise.resolve(),
        );
        for (const [test, result] of found) results.set(test, result);
      }
      return results;
    } finally {
      await tgtd.stop();
    }
  } finally {
    await fs.rm(folder, { recursive: true, force: true });
  }
}
