import fs from 'node:fs/promises';
import t from 'tap';
import { needing } from '../support/clients.js';
import { parseLog } from './log.js';
import { readTgtd, RESULTS_FILE, runOwn } from './own.js';
import { failures, onEither, passedOnNeither, renderTable } from './table.js';

void t.test('a log is judged test by test: [SKIPPED] is no pass, an unfinished test has no result', (t) => {
  const log = [
    'Suite: GetLBAStatus',
    '  Test: Simple ...passed',
    '  Test: BeyondEol ...    [FAILED] GET_LBA_STATUS successful but should have failed',
    'FAILED',
    '    1. test_get_lba_status_beyond_eol.c:38  - CU_ASSERT_EQUAL(_r,0)',
    '  Test: UnmapSingle ...    [SKIPPED] Logical unit is fully provisioned. Skipping test',
    'passed',
    '  Test: Mostly ...',
    '    [OK] SANITIZE returned RESERVATION_CONFLICT NO SENSE(0x00) (null)(0x0000)',
    '    [SKIPPED] SANITIZE CRYPTO_ERASE is not implemented',
    'passed    [FAILED] PRIN command: failed with sense. RESERVATION CONFLICT',
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
      ['Mostly', { result: 'partly', reason: 'SANITIZE CRYPTO_ERASE is not implemented' }],
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
    // Nothing here has keys to throw away; two more tests leave out the step that does so.
    t.strictSame(passedOnNeither(columns), ['Sanitize.CryptoErase']);
    const passed = new Set(onEither(columns, 'passed'));
    t.strictSame(
      [...columns.master.keys()].filter((test) => !passed.has(test)),
      ['Sanitize.CryptoErase', 'Sanitize.Readonly', 'Sanitize.Reservations'],
    );
    if (process.env['UPDATE_DOCS'] === '1') await fs.writeFile(RESULTS_FILE, renderTable(columns));
    t.equal(
      renderTable(columns),
      await fs.readFile(RESULTS_FILE, 'utf8'),
      'results.md is current (UPDATE_DOCS=1 writes it)',
    );
  },
);
