/** What the log tells: who did what from where, without a secret, and not without bound (docs/monitoring.md). */
import { chmodSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { join as place } from 'node:path';
import tap from 'tap';
import { join } from '../../conformance/rfc7143/connections.js';
import { Session } from '../../conformance/rfc7143/session.js';
import { ANY_PORT, startSite } from '../../conformance/rfc7143/site.js';
import { needing } from '../../conformance/support/clients.js';
import { run } from '../../conformance/support/processes.js';
import { Partition } from '../../src/cow/partition.js';
import { RESULT } from '../../src/cow/results.js';
import { limitRepeats } from '../../src/daemon/log.js';
import { PREFIX, serve, target, url } from './support.js';
import type { Logged } from './support.js';

const NAMES = ['one', 'closed', 'bad'];
const SECRET = 'a-secret-of-many-bytes';
const BACK = 'what-cldd-answers-with';
const WRONG = 'a-secret-that-is-wrong';

/** The partition `bad` has a disc whose syncs fail. */
async function open(path: string): Promise<Partition> {
  const partition = await Partition.open(path);
  if (path.endsWith('bad')) partition.master.flush = (done) => setImmediate(done, RESULT.FAILED);
  return partition;
}

void tap.test('every event is told with its initiator and address', needing('qemu-io'), async (t) => {
  const { daemon, log } = await serve(
    t,
    NAMES,
    (folder) => {
      for (const [name, secret] of [
        ['secret', SECRET],
        ['back', BACK],
      ] as const) {
        writeFileSync(place(folder, name), `${secret}\n`);
        chmodSync(place(folder, name), 0o600);
      }
      const authentication = {
        users: [{ name: 'user', secretFile: 'secret' }],
        mutual: { name: 'cldd', secretFile: 'back' },
        algorithms: ['MD5'],
      };
      return {
        portals: [{ listen: '127.0.0.1:0' }],
        slowIoMs: 1,
        targets: [
          target('one', { authentication }),
          target('closed', { access: [{ initiator: 'iqn.2026-01.com.example:nobody' }] }),
          target('bad'),
        ],
      };
    },
    open,
  );
  const io = (name: string, login: string, ...commands: string[]) =>
    run('qemu-io', [
      ...['-f', 'raw', ...commands.flatMap((command) => ['-c', command])],
      url(daemon, name).replace('//', `//${login}`),
    ]);
  const told = (message: string): Logged => {
    const found = log.find((entry) => entry.message === message);
    if (found === undefined)
      throw new Error(`no "${message}" in ${log.map((one) => one.message).join(', ')}`);
    return found;
  };
  const from = { initiator: /^iqn\./, address: '127.0.0.1' };

  await io('one', `user%${WRONG}@`, 'read 0 512');
  t.match(told('authentication failed'), { level: 'warn', ...from, why: /./ });
  await io('closed', '', 'read 0 512');
  t.match(told('login refused'), { level: 'warn', ...from, why: /./ });
  await io('one', `user%${SECRET}@`, 'write 0 64k', 'flush');
  t.match(told('login'), { level: 'info', ...from, target: `${PREFIX}one`, user: 'user', session: /\d/ });
  t.match(told('session ended'), { level: 'info', ...from, target: `${PREFIX}one`, why: /./ });
  t.match(told('slow I/O'), { level: 'warn', ...from, unit: 'master', class: /./, tookMs: /\d/ });
  await io('bad', '', 'write 0 4k', 'flush');
  t.match(told('the device failed a command'), { level: 'error', ...from, unit: 'master' });

  const served = daemon.target(`${PREFIX}one`);
  const host = { by: 'iqn.2026-01.com.example:backup', address: '127.0.0.2' };
  await served.enable({}, host);
  t.match(told('slave enabled'), { level: 'info', target: `${PREFIX}one`, generation: 1, ...host });
  await t.rejects(served.enable({}, host));
  t.match(told('slave not enabled'), { level: 'warn', why: /enabled already/, ...host });
  await served.rollback({ force: true }, []);
  t.match(told('master rolled back'), { level: 'info', target: `${PREFIX}one`, by: 'operator' });
  await served.disable({}, host);
  t.match(told('slave disabled'), { level: 'info', target: `${PREFIX}one`, ...host });
  await t.rejects(served.disable({}, host));
  t.match(told('slave not disabled'), { level: 'warn', why: /./, ...host });
  await daemon.reload();
  t.match(told('configuration reloaded'), { level: 'info' });
  const all = JSON.stringify([log, daemon.status()]);
  for (const secret of [SECRET, BACK, WRONG])
    for (const form of [secret, Buffer.from(secret).toString('base64'), Buffer.from(secret).toString('hex')])
      t.notOk(all.includes(form), 'no secret in the log or the status');
});

void tap.test('each connection of a session is told, as it comes and as it goes', async (t) => {
  const { at, daemon, log } = await startSite(t, ['one'], () => ({
    portals: [ANY_PORT],
    limits: { maxConnections: 4, errorRecoveryLevel: 2 },
    targets: [target('one')],
  }));
  const told = (message: string): Logged[] => log.filter((entry) => entry.message === message);
  for (const [level, gone] of [
    ['0', 'connection ended: its session goes on'],
    ['2', 'connection lost: its commands wait to be reassigned'],
  ] as const) {
    log.length = 0;
    const keys = { MaxConnections: '4', ErrorRecoveryLevel: level };
    const first = await Session.login(at('one'), { keys, cid: 1 });
    const second = await join(at('one'), first, 2);
    const from = { initiator: /^iqn\./, address: '127.0.0.1', target: `${PREFIX}one`, session: first.tsih };
    t.match(told('login'), [
      { ...from, cid: 1, connections: 1 },
      { ...from, cid: 2, connections: 2 },
    ]);
    second.connection.destroy();
    const deadline = performance.now() + 60_000;
    while (told(gone).length === 0 && performance.now() < deadline) await sleep(10);
    t.match(told(gone), [{ ...from, cid: 2, why: /./ }]);
    daemon.killSession(first.tsih);
    t.match(told('session killed'), [{ initiator: /^iqn\./, address: /^127\.0\.0\.1/, by: 'operator' }]);
  }
});

void tap.test('a message that floods the log is counted instead', (t) => {
  const written: [object, string][] = [];
  const write = (fields: object, message: string): void => void written.push([fields, message]);
  let now = 0;
  const log = limitRepeats({ debug: write, info: write, warn: write, error: write }, () => now);
  for (let n = 0; n < 1000; n++) log.warn({ n }, 'login refused');
  log.info({}, 'login');
  t.equal(written.length, 21, 'twenty of the flood, and what is said besides');
  t.same(written.at(-1), [{}, 'login']);
  now = 10_001;
  log.warn({ n: 1000 }, 'login refused');
  t.same(written.at(-1), [{ n: 1000, suppressed: 980 }, 'login refused'], 'then how many there were');
  t.end();
});
