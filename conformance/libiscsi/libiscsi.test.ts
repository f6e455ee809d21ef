import fs from 'node:fs/promises';
import t from 'tap';
import { needing } from '../support/clients.js';
import { parseLog } from './log.js';
import { readTgtd, RESULTS_FILE, runOwn } from './own.js';
import { failures, renderTable } from './table.js';

void t.test('a log is judged test by test: [SKIPPED] is no pass, an unfinished test has no result', (t) => {
  const log = [
    'Suite: GetLBAStatus',
    '  Test: Simple ...passed',
    '  Test: BeyondEol ...    [FAILED] GET_LBA_STATUS successful but should have failed',
    'FAILED',
    '    1. test_get_lba_status_beyond_eol.c:38  - CU_ASSERT_EQUAL(_r,0)',
    '  Test: UnmapSingle ...    [SKIPPED] Logical unit is fully provisioned. Skipping test',
    'passed',
    '  Test: Bare ...FAILED',
    '    1. file.c:1  - CU_ASSERT(0)',
    '  Test: Silent ...passed    [FAILED] said by the clean-up of the suite',
    '  Test: Hangs ...',
  ].join('\n');
  t.strictSame(
    [...parseLog(log)],
    [
      ['Simple', { result: 'passed', reason: '' }],
      ['BeyondEol', { result: 'failed', reason: 'GET_LBA_STATUS successful but should have failed' }],
      ['UnmapSingle', { result: 'skipped', reason: 'Logical unit is fully provisioned. Skipping test' }],
      ['Bare', { result: 'failed', reason: 'file.c:1 - CU_ASSERT(0)' }],
      ['Silent', { result: 'passed', reason: '' }],
    ],
  );
  t.end();
});

void t.test(
  'libiscsi: no test fails on master or slave, and results.md tells the truth',
  needing('iscsi-test-cu'),
  async (t) => {
    const columns = { ...(await runOwn()), tgtd: await readTgtd() };
    t.strictSame(failures(columns), [], 'no test fails or hangs');
    t.equal(
      renderTable(columns),
      await fs.readFile(RESULTS_FILE, 'utf8'),
      'results.md is current (node dist/conformance/libiscsi/record.js writes it)',
    );
  },
);
