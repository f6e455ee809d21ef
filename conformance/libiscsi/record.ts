/**
 * Writes results.md from a new run against the project's target; with --tgtd, records tgtd's column first.
 *
 *     node dist/conformance/libiscsi/record.js [--tgtd]
 */
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { startTgtd } from '../support/tgtd.js';
import { readTgtd, RESULTS_FILE, runOwn, TGTD_FILE } from './own.js';
import { runSuite, type SuiteResults } from './suite.js';
import { renderTable, toJson } from './table.js';

if (process.argv.includes('--tgtd')) await fs.writeFile(TGTD_FILE, toJson(await runTgtd()));
await fs.writeFile(RESULTS_FILE, renderTable({ ...(await runOwn()), tgtd: await readTgtd() }));

async function runTgtd(): Promise<SuiteResults> {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'cldd-tgtd-'));
  try {
    const disk = path.join(folder, 'disk');
    await fs.writeFile(disk, '');
    await fs.truncate(disk, 128 * 1024 * 1024);
    const tgtd = await startTgtd([disk], 2);
    try {
      return await runSuite({ urls: tgtd.ports.map((port) => `iscsi://127.0.0.1:${port}/${tgtd.target}/1`) });
    } finally {
      await tgtd.stop();
    }
  } finally {
    await fs.rm(folder, { recursive: true, force: true });
  }
}
