import '../../conformance/support/without-hook.js';
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { connect, createServer } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { spawn } from 'node:child_process';
import t from 'tap';
import { ask } from '../../src/admin/client.js';
import { CONNECTIONS_MAX, REQUEST_BYTES_MAX, parseResponse } from '../../src/admin/protocol.js';
import { parseRequest } from '../../src/admin/requests.js';
import { AdminServer } from '../../src/admin/server.js';
import type { Handler } from '../../src/admin/server.js';
import { OperationalError } from '../../src/operational-error.js';

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/** A handler that answers with a fixed value. */
const always =
  (value: unknown): Handler =>
  () =>
    Promise.resolve(value);

type Teardown = (end: () => unknown) => void;

/** A folder with a name short enough for a socket. */
function shortFolder(t: { teardown: Teardown }): string {
  const folder = mkdtempSync(join(tmpdir(), 'cldd-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  return folder;
}

async function serve(t: { teardown: Teardown }, handler: Handler) {
  const folder = shortFolder(t);
  const path = join(folder, 'made', 'cldd.sock');
  const server = await AdminServer.listen(path, handler, silent);
  t.teardown(() => server.close());
  return { path, server };
}

/** Sends bytes and returns all that comes until the other end closes. */
async function exchange(path: string, bytes: string | Buffer): Promise<string> {
  const socket = connect(path);
  await once(socket, 'connect');
  socket.write(bytes);
  return text(socket);
}

void t.test('a request reaches the handler and its result comes back; the socket is private', async (t) => {
  const { path } = await serve(t, ({ command, arguments: given }) => Promise.resolve({ command, given }));
  t.equal(statSync(path).mode & 0o777, 0o600);
  t.same(readdirSync(join(path, '..')), ['cldd.sock'], 'nothing else is left behind');
  const result = await ask(path, {
    command: 'slave-enable',
    arguments: { target: 'x', crashConsistent: true },
  });
  t.same(result, { command: 'slave-enable', given: { target: 'x', crashConsistent: true } });
});

void t.test('errors keep their code and message, and say whether it was a refusal', async (t) => {
  const errors = [
    new OperationalError('MASTER_MOUNTED', 'still mounted'),
    new OperationalError('PARTITION_FAILED', 'broken'),
    new TypeError('our own mistake'),
  ];
  const { path } = await serve(t, () => Promise.reject(errors.shift() ?? new Error('no more')));
  const status = { command: 'status', arguments: {} } as const;
  await t.rejects(ask(path, status), { code: 'MASTER_MOUNTED', message: 'still mounted', refused: true });
  await t.rejects(ask(path, status), { code: 'PARTITION_FAILED', refused: false });
  await t.rejects(ask(path, status), { code: 'INTERNAL', refused: false });
});

void t.test('requests of one connection are answered in order, one at a time', async (t) => {
  let running = 0;
  const { path } = await serve(t, async ({ arguments: { level } }) => {
    t.equal(++running, 1);
    await new Promise((resolve) => setImmediate(resolve));
    running--;
    return level;
  });
  const socket = connect(path);
  await once(socket, 'connect');
  const levels = ['debug', 'info', 'warn', 'error'];
  const lines = levels.map((level) => `{"cldd":1,"command":"log-level","arguments":{"level":"${level}"}}\n`);
  socket.write(lines.join(''));
  let got = '';
  for await (const chunk of socket.setEncoding('utf8') as AsyncIterable<string>) {
    got += chunk;
    if (got.split('\n').length > levels.length) break;
  }
  t.same(
    got
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { result: string }).result),
    levels,
  );
});

void t.test('what is no request is answered with an error and the connection ends', async (t) => {
  const { path } = await serve(t, () => Promise.resolve(t.fail('the handler must not run')));
  const wrong = [
    'nonsense\n',
    '{"cldd":1}\n',
    '{"cldd":1,"command":"format"}\n',
    '{"cldd":1,"command":"status","more":1}\n',
    '{"cldd":1,"command":"status","arguments":{"force":true}}\n',
    '{"cldd":1,"command":"session-kill","arguments":{}}\n',
    '{"cldd":1,"command":"changes","arguments":{"since":-1}}\n',
    '{"cldd":1,"command":"status","arguments":{"__proto__":{"target":"x"}}}\n',
    Buffer.from([0xff, 0xfe, 0x0a]),
  ];
  for (const bytes of wrong) t.match(await exchange(path, bytes), /"code":"BAD_REQUEST"/);
  t.match(await exchange(path, '{"cldd":2,"command":"status"}\n'), /"code":"PROTOCOL_VERSION"/);
  t.match(
    await exchange(path, 'x'.repeat(REQUEST_BYTES_MAX + 1)),
    /the request is too long/,
    'also without an end',
  );
  t.match(
    await exchange(path, `${'x'.repeat(REQUEST_BYTES_MAX + 1)}\n`),
    /"code":"BAD_REQUEST"/,
    'and with one',
  );
});

void t.test('who goes away while the daemon works takes nothing with it', async (t) => {
  let release = (): void => undefined;
  let begun = (): void => undefined;
  const started = new Promise<void>((resolve) => (begun = resolve));
  let first = true;
  const { path } = await serve(t, async () => {
    if (first) {
      first = false;
      begun();
      await new Promise<void>((resolve) => (release = resolve));
    }
  });
  const socket = connect(path);
  await once(socket, 'connect');
  socket.write('{"cldd":1,"command":"reload"}\n'.repeat(3));
  await started;
  socket.destroy();
  await once(socket, 'close');
  // The server learns of the close a turn later.
  await new Promise((resolve) => setTimeout(resolve, 20));
  release();
  t.equal(
    await ask(path, { command: 'status', arguments: {} }),
    null,
    'what answers nothing is answered by null',
  );
});

void t.test('more connections than allowed are turned away, and room comes back', async (t) => {
  const { path } = await serve(t, always('ok'));
  const sockets = Array.from({ length: CONNECTIONS_MAX }, () => connect(path));
  await Promise.all(sockets.map((socket) => once(socket, 'connect')));
  t.match(await exchange(path, ''), /"code":"BUSY"/);
  const gone = once(sockets[0], 'close');
  sockets[0].destroy();
  await gone;
  let answer: unknown;
  // The server learns of the close a turn later.
  for (let attempt = 0; answer !== 'ok' && attempt < 100; attempt++)
    answer = await ask(path, { command: 'status', arguments: {} }).catch(() => undefined);
  t.equal(answer, 'ok');
  for (const socket of sockets) socket.destroy();
});

void t.test('a living daemon is not replaced, a dead one is', async (t) => {
  const { path, server } = await serve(t, always('first'));
  await t.rejects(AdminServer.listen(path, always('second'), silent), {
    code: 'DAEMON_RUNNING',
    message: /another cldd daemon answers/,
  });
  t.equal(await ask(path, { command: 'status', arguments: {} }), 'first');
  await server.close();
  t.notOk(existsSync(path), 'a clean end leaves no socket');

  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  await once(spawn(process.execPath, ['-e', script]), 'exit');
  t.ok(existsSync(path), 'a killed daemon leaves its socket');
  await t.rejects(ask(path, { command: 'status', arguments: {} }), { code: 'DAEMON_UNREACHABLE' });
  const next = await AdminServer.listen(path, always('third'), silent);
  t.equal(await ask(path, { command: 'status', arguments: {} }), 'third');
  await next.close();
});

void t.test('a place that can not be a socket is refused and left alone', async (t) => {
  const folder = shortFolder(t);
  writeFileSync(join(folder, 'file'), 'content');
  const handler = always(undefined);
  await t.rejects(AdminServer.listen(join(folder, 'file'), handler, silent), { code: 'SOCKET_UNUSABLE' });
  t.equal(statSync(join(folder, 'file')).size, 7);
  await t.rejects(AdminServer.listen(join(folder, 'file', 's'), handler, silent), {
    code: 'SOCKET_UNUSABLE',
  });
  symlinkSync('/nowhere', join(folder, 'link'));
  await t.rejects(AdminServer.listen(join(folder, 'link'), handler, silent), { code: 'SOCKET_UNUSABLE' });
  await t.rejects(AdminServer.listen(join(folder, 'x'.repeat(90)), handler, silent), /at most/);
});

void t.test('the client bounds its wait and says who is not there', async (t) => {
  const folder = shortFolder(t);
  const request = { command: 'status', arguments: {} } as const;
  await t.rejects(ask(join(folder, 'none'), request), {
    code: 'DAEMON_UNREACHABLE',
    message: /no cldd daemon answers/,
  });
  writeFileSync(join(folder, 'file'), '');
  await t.rejects(ask(join(folder, 'file', 'below'), request), {
    code: 'DAEMON_UNREACHABLE',
    message: /can't be reached: /,
  });
  const mute = createServer(() => undefined).listen(join(folder, 'mute'));
  await once(mute, 'listening');
  await t.rejects(ask(join(folder, 'mute'), request, 50), {
    code: 'DAEMON_UNREACHABLE',
    message: /no answer in 50 ms/,
  });
  mute.close();
  const other = createServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')).listen(
    join(folder, 'other'),
  );
  await once(other, 'listening');
  await t.rejects(ask(join(folder, 'other'), request), OperationalError);
  other.close();
});

void t.test('requests and responses are checked as they are parsed', (t) => {
  t.same(parseRequest('{"cldd":1,"command":"reload"}'), { command: 'reload', arguments: {} });
  t.same(parseResponse('{"cldd":1,"result":null}'), { result: null });
  for (const wrong of ['null', '{"cldd":1}', '{"cldd":2,"result":1}', '{"cldd":1,"error":{"code":1}}'])
    t.throws(() => parseResponse(wrong), { code: 'BAD_RESPONSE' });
  t.end();
});
