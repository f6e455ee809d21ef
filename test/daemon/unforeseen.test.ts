/** What nobody foresaw ends the daemon with a reason and a code: half alive, it would serve wrong or not at all. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import tap from 'tap';
import { ROOT } from '../../conformance/support/paths.js';
import { run, Running, succeed } from '../../conformance/support/processes.js';

const PROGRAM = join(ROOT, 'bin/cldd');
const env = { ...process.env, CLDD_DIST: resolve(import.meta.dirname, '../..') };
const WAIT_MS = 120_000;
const folder = mkdtempSync(join(tmpdir(), 'cldd-unforeseen-'));
tap.setTimeout(2 * WAIT_MS);
tap.teardown(() => rmSync(folder, { recursive: true, force: true }));

/** By name, what a signal makes the daemon do. */
const ACCIDENTS: Record<string, string> = {
  'an exception that nobody catches': `setImmediate(() => { throw new Error('planted exception'); })`,
  'a rejection that nobody handles': `void Promise.reject(new Error('planted rejection'))`,
  'a rejection with something that is no error': `void Promise.reject('planted text')`,
};

for (const [index, [what, accident]] of Object.entries(ACCIDENTS).entries())
  void tap.test(`${what} ends the daemon with code 1 and says why; the partition is whole`, async (t) => {
    const [partition, socket, hook] = ['p', 's', 'hook.mjs'].map((name) => join(folder, `${index}${name}`));
    writeFileSync(hook, `process.on('SIGUSR2', () => { ${accident}; });`);
    await succeed(PROGRAM, ['init', partition, '--size', '32M'], { env });
    const daemon = new Running(
      PROGRAM,
      ['serve', '--partition', partition, '--portal', '127.0.0.1:0', '--socket', socket],
      { env: { ...env, NODE_OPTIONS: `--import=${hook}` } },
    );
    t.teardown(() => daemon.end('SIGKILL'));
    await daemon.waitFor(/^cldd ready/m, WAIT_MS);
    await succeed(PROGRAM, ['slave', 'enable', '--socket', socket], { env });
    process.kill(daemon.pid, 'SIGUSR2');
    t.same(await daemon.ended, { code: 1, signal: undefined });
    const said = daemon.stdout + daemon.stderr;
    t.match(said, /unforeseen error: the daemon ends/);
    t.match(said, /planted (exception|rejection|text)/);
    t.equal((await run(PROGRAM, ['check', partition], { env })).code, 0);
  });
