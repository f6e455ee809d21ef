/** What people see at a terminal and programs elsewhere: the live view, colours, and that neither gets the other's. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import tap from 'tap';
import { needing } from '../../conformance/support/clients.js';
import { EXIT } from '../../conformance/support/cldd.js';
import { run } from '../../conformance/support/processes.js';
import { frame } from '../../src/cli/screen.js';
import { PROGRAM, Served, env, scratch, until } from './support.js';

tap.setTimeout(240_000);
const folder = scratch('live');
const ESCAPE = '\u001b';

void tap.test('a frame fits the screen: lines are cut, colours are not', (t) => {
  const text = `${ESCAPE}[32mgreen line of words${ESCAPE}[39m\nshort\nthree\nfour`;
  const lines = frame(text, { columns: 10, rows: 3 }).split('\n');
  t.equal(lines[0], `${ESCAPE}[H${ESCAPE}[32mgreen lin…${ESCAPE}[0m${ESCAPE}[K`);
  t.equal(lines[1], `short${ESCAPE}[K`);
  t.equal(lines[2], `… 2 more …${ESCAPE}[0m${ESCAPE}[K${ESCAPE}[J`);
  t.equal(lines.length, 3);
  t.equal(frame('ten letter', { columns: 10, rows: 1 }), `${ESCAPE}[Hten letter${ESCAPE}[K${ESCAPE}[J`);
  t.end();
});

void tap.test('status at a terminal and elsewhere', needing('script', 'qemu-io'), async (t) => {
  const served = await Served.start(t, folder);
  // A runner whose output is no terminal has asked its tests for no colours, and Node takes CI for a terminal without.
  const colourful: NodeJS.ProcessEnv = { ...env, TERM: 'xterm' };
  for (const name of ['NO_COLOR', 'FORCE_COLOR', 'NODE_DISABLE_COLORS', 'CI'])
    Reflect.deleteProperty(colourful, name);
  const at = (command: string, more: NodeJS.ProcessEnv = {}) =>
    run('script', ['-qec', command, '/dev/null'], { env: { ...colourful, ...more } });
  const status = `${PROGRAM} status --socket ${served.socket}`;
  t.match((await at(status)).stdout, `${ESCAPE}[1miqn.`, 'colours on a terminal');
  t.notOk((await at(status, { NO_COLOR: '1' })).stdout.includes(ESCAPE), 'none with NO_COLOR');
  t.notOk((await served.ask('status')).stdout.includes(ESCAPE), 'none elsewhere');
  t.notOk((await at(`${status} --json`)).stdout.includes(ESCAPE), 'none in JSON');

  const watching = spawn(
    'script',
    ['-qec', `stty cols 60 rows 12; exec ${status} --watch 0.2`, '/dev/null'],
    { env: { ...env, TERM: 'xterm' } },
  );
  let said = '';
  watching.stdout.on('data', (chunk: Buffer) => (said += chunk.toString('utf8')));
  const ended = once(watching, 'exit') as Promise<[number | null]>;
  await until('rates', () => /now +\d+ reads\/s/.test(said));
  await served.write(3, '0', '1M');
  await until('what was written', () => /1 writes \(1 MiB\)/.test(said));
  t.notOk(said.includes(`${ESCAPE}[2J`), 'the screen is not cleared, which flickers');
  await served.daemon.end('SIGKILL');
  await until('that it is away', () => said.includes('waiting for it; Ctrl-C ends this'));
  const seen = said.length;
  await served.serve();
  await until('that it is back', () => said.slice(seen).includes('partition  '));
  watching.stdin.write('\u0003');
  t.equal((await ended)[0], EXIT.DONE, 'Ctrl-C ends it well');

  const lines = served.begin('status', '--watch', '0.2', '--json');
  await until('three values', () => lines.stdout.split('\n').length > 3);
  t.same(await lines.end('SIGINT'), { code: EXIT.DONE, signal: undefined });
  for (const line of lines.stdout.trim().split('\n')) t.ok(JSON.parse(line), 'a value a line');
});
