/** `cldd check`, `dump`, `changes`, `rollback` and `grow`, in processes of their own. */
import { copyFileSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { gunzipSync } from 'node:zlib';
import tap from 'tap';
import { ROOT } from '../../conformance/support/paths.js';
import { run, Running } from '../../conformance/support/processes.js';
import { EXIT } from '../../src/cli/exit-codes.js';

const PROGRAM = join(ROOT, 'bin/cldd');
const env = { ...process.env, CLDD_DIST: resolve(import.meta.dirname, '../..') };
const READY_TIMEOUT_MS = 60_000;
const folder = mkdtempSync(join(tmpdir(), 'cldd-check-'));
tap.teardown(() => rmSync(folder, { recursive: true, force: true }));
const cldd = (...args: string[]) => run(PROGRAM, args, { env });

void tap.test(
  'check finds, repairs and ends as documented; dump prints damaged partitions too',
  async (t) => {
    const path = join(folder, 'golden');
    writeFileSync(path, gunzipSync(readFileSync(join(ROOT, 'test/cow/golden/format-2.img.gz'))));
    t.equal((await cldd('check', path)).code, EXIT.DONE);
    writeFileSync(path, Buffer.alloc(100, 1), { flag: 'r+' });
    const found = await cldd('check', path, '--json');
    t.equal(found.code, EXIT.REPAIRABLE);
    t.match(JSON.parse(found.stdout), {
      verdict: 'repairable',
      findings: [{ position: 0, repaired: false }],
    });
    const dumped = JSON.parse((await cldd('dump', path, '--json')).stdout) as { superblocks: unknown[] };
    t.match(dumped.superblocks, [{ sequence: null }, { problem: null }]);
    t.equal((await cldd('check', path, '--repair')).code, EXIT.REPAIRED);
    t.equal((await cldd('check', path)).code, EXIT.DONE);
    t.equal((await cldd('check', path, '--empty-state')).code, EXIT.USAGE);
  },
);

void tap.test('a served partition is held, checked read-only, rolled back and grown', async (t) => {
  const path = join(folder, 'served');
  t.equal((await cldd('init', path, '--size', '64M')).code, EXIT.DONE);
  const socket = join(folder, 'control.sock');
  const args = ['serve', '--partition', path, '--portal', '127.0.0.1:0', '--socket', socket];
  const daemon = new Running(PROGRAM, args, { env });
  t.teardown(() => daemon.end());
  await daemon.waitFor(/^cldd ready: .*$/m, READY_TIMEOUT_MS);
  const ask = (...words: string[]) => cldd(...words, '--socket', socket);
  const beside = await cldd('check', path);
  t.equal(beside.code, EXIT.DONE, beside.stdout);
  t.match(beside.stdout, /read-only/);
  t.equal((await cldd('check', path, '--repair')).code, EXIT.REFUSED);
  for (const other of [path, join(folder, 'copy')]) {
    if (other !== path) copyFileSync(path, other);
    const second = await cldd(
      'serve',
      '--partition',
      other,
      '--portal',
      '127.0.0.1:0',
      '--socket',
      `${other}.sock`,
    );
    t.equal(second.code, EXIT.REFUSED, second.stderr);
    t.match(second.stderr, /in use by process/);
  }
  t.equal((await ask('slave', 'enable')).code, EXIT.DONE);
  const changes = JSON.parse((await ask('changes', '--since', '1', '--json')).stdout) as unknown;
  t.match(changes, { since: 1, generation: 1, full: false, approximate: false, ranges: [] });
  t.equal((await ask('rollback')).code, EXIT.REFUSED);
  t.match(JSON.parse((await ask('rollback', '--yes', '--json')).stdout), { generation: 1 });
  t.equal((await ask('grow')).code, EXIT.FAILURE, 'nothing was gained');
  truncateSync(path, 96 << 20);
  const { addedBytes } = JSON.parse((await ask('grow', '--json')).stdout) as { addedBytes: number };
  t.ok(addedBytes > 15 << 20);
  await daemon.end();
  t.equal((await cldd('check', path)).code, EXIT.DONE);
  truncateSync(path, 64 << 20);
  const shrunk = await cldd('serve', '--partition', path, '--portal', '127.0.0.1:0', '--socket', socket);
  t.equal(shrunk.code, EXIT.FAILURE);
  t.match(shrunk.stderr, /size back/);
});
