/** Floods of half-open logins, users of the same machine, and what the time of an answer tells. */
import { createHash } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import tap from 'tap';
import { Session } from '../../conformance/rfc7143/session.js';
import { read10, STATUS } from '../../conformance/rfc7143/scsi.js';
import type { Tap } from '../../conformance/rfc7143/requirement.js';
import { startTarget, type Target } from '../../conformance/rfc7143/target.js';
import { ROOT } from '../../conformance/support/paths.js';
import { run, Running, succeed } from '../../conformance/support/processes.js';
import { Chap } from '../../src/iscsi/chap.js';
import { admission } from '../../src/iscsi/half-open.js';

const PROGRAM = join(ROOT, 'bin/cldd');
const env = { ...process.env, CLDD_DIST: resolve(import.meta.dirname, '../..') };
const WAIT_MS = 60_000;
const NOBODY = 65_534;
/** Connections opened at once by the flood. */
const WAVE = 250;
tap.setTimeout(600_000);

void tap.test('who is admitted to a login while many others are half-way', (t) => {
  const limits = { halfOpenMax: 4, halfOpenPerAddressMax: 3 };
  const there = (...addresses: string[]) =>
    addresses.map((address, number) => ({ address, isLogin: !address.startsWith('d'), number }));
  t.equal(admission([], 'a', limits), 'admit');
  t.equal(admission(there('a', 'a', 'a'), 'a', limits), 'refuse', 'an address has a limit of its own');
  t.equal(admission(there('d', 'd', 'd'), 'd', limits), 'refuse', 'discovery sessions count in it');
  t.equal(admission(there('d', 'd', 'd', 'd2', 'a'), 'a', limits), 'admit', 'but not in the limit of all');
  const full = there('a', 'b', 'b', 'c');
  t.match(admission(full, 'e', limits), { number: 1 }, 'the oldest of whom has the most makes room');
  t.match(admission(full, 'a', limits), { number: 1 }, 'for one that has fewer');
  t.equal(admission(full, 'b', limits), 'refuse', 'not for one that has as many');
  t.match(admission(there('a', 'b', 'c', 'e'), 'f', limits), { number: 0 });
  t.equal(admission(there('a', 'b', 'c', 'e'), 'a', limits), 'refuse');
  t.end();
});

/** Connections that say nothing, from addresses of 127.0.0.0/8 in turn. */
async function flood(port: number, count: number, addresses: number): Promise<Socket[]> {
  const sockets: Socket[] = [];
  for (let first = 0; first < count; first += WAVE) {
    const wave = Array.from({ length: Math.min(WAVE, count - first) }, (_, n) => {
      const address = (first + n) % addresses;
      const localAddress = `127.1.${address >> 8}.${address & 255}`;
      const socket = connect({ host: '127.0.0.1', port, localAddress });
      socket.on('error', () => undefined);
      return socket;
    });
    await Promise.all(wave.map((socket) => Promise.race([once(socket, 'connect'), once(socket, 'close')])));
    sockets.push(...wave);
  }
  return sockets;
}

async function serves(t: Tap, target: Target, settled: Session, what: string): Promise<void> {
  const { status } = await settled.execute({ cdb: read10(0, 1), read: settled.blockBytes });
  t.equal(status, STATUS.GOOD, `${what}: a session that was there goes on`);
  const began = performance.now();
  const fresh = await Session.connect({ ...target, from: '127.0.0.1' });
  fresh.connection.patienceMs = WAIT_MS;
  await fresh.enter(target);
  t.comment(`${what}: a login took ${Math.round(performance.now() - began)} ms`);
  t.pass(`${what}: another host logs in`);
  await fresh.logout();
  fresh.connection.destroy();
}

void tap.test('200 and 5,000 half-open logins leave service for the allowed', async (t) => {
  const target = await startTarget();
  t.teardown(() => target.stop());
  const settled = await Session.login(target);
  settled.connection.patienceMs = WAIT_MS;
  for (const [count, addresses] of [
    [200, 1],
    [200, 200],
    [5000, 250],
  ] as const) {
    const sockets = await flood(target.port, count, addresses);
    await serves(t, target, settled, `${count} from ${addresses}`);
    for (const socket of sockets) socket.destroy();
  }
  t.teardown(() => settled.connection.destroy());
  await settled.logout();
});

const asRoot = process.getuid?.() === 0 ? {} : { skip: 'only root may become another user' };

void tap.test('another user of the machine cannot use the control socket', asRoot, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'cldd-strangers-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  // Only the socket's own mode stands in the way.
  chmodSync(folder, 0o755);
  const [partition, socket] = [join(folder, 'p'), join(folder, 's')];
  await succeed(PROGRAM, ['init', partition, '--size', '32M'], { env });
  const daemon = new Running(
    PROGRAM,
    ['serve', '--partition', partition, '--portal', '127.0.0.1:0', '--socket', socket],
    { env },
  );
  t.teardown(() => daemon.end('SIGKILL'));
  await daemon.waitFor(/^cldd ready/m, WAIT_MS);
  const ask = ['status', '--socket', socket];
  t.equal((await run(PROGRAM, ask, { env })).code, 0);
  const drop = [
    '--reuid',
    String(NOBODY),
    '--regid',
    String(NOBODY),
    '--clear-groups',
    '--no-new-privs',
    '--',
  ];
  // The test runner has each Node note its end in a folder of the runner's, where a stranger may not write.
  const clean = ['env', '-u', 'NODE_OPTIONS', process.execPath];
  for (const args of [ask, ['slave', 'enable', '--socket', socket]]) {
    const refused = await run('setpriv', [...drop, ...clean, PROGRAM, ...args], { env });
    t.match(refused, { code: 4, stderr: /no permission for the control socket/ });
  }
  const raw = `require('net').connect(${JSON.stringify(socket)}).on('error', (e) => console.log(e.code)).on('connect', () => console.log('in'))`;
  t.equal((await succeed('setpriv', [...drop, ...clean, '-e', raw], { env })).trim(), 'EACCES');
  t.equal((await run(PROGRAM, ask, { env })).code, 0, 'its owner still can');
});

const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1] ?? 0;

void tap.test(
  'the time of a refusal tells neither which names exist nor how much of a response is right',
  (t) => {
    const ROUNDS = 4000;
    /** Of the median; what a name or a byte could tell over a network is far below its noise. */
    const DIFFERENCE_MAX = 0.25;
    const users = Array.from({ length: 16 }, (_, n) => ({
      name: `host-${n}`,
      secret: Buffer.from(`secret of host ${n} 0123`),
    }));
    const wrong = Buffer.alloc(32);
    const kinds: Record<string, (right: Buffer) => [name: string, response: Buffer]> = {
      'a known name, all of the response wrong': () => ['host-0', wrong],
      'a known name, the last byte wrong': (right) => {
        const almost = Buffer.from(right);
        almost[31] ^= 1;
        return ['host-0', almost];
      },
      'the last name': () => [`host-${users.length - 1}`, wrong],
      'no such name': () => ['nobody', wrong],
    };
    const took = new Map<string, number[]>(Object.keys(kinds).map((what) => [what, []]));
    for (let round = 0; round < ROUNDS; round++)
      for (const [what, make] of Object.entries(kinds)) {
        const chap = new Chap({ users, algorithms: ['SHA256'] });
        const asked = chap.step(new Map([['CHAP_A', '7']]));
        const question = new Map(asked.outcome === 'continue' ? asked.reply : []);
        const right = createHash('sha256')
          .update(Buffer.from([Number(question.get('CHAP_I'))]))
          .update(users[0]?.secret ?? '')
          .update(Buffer.from(question.get('CHAP_C')?.slice(2) ?? '', 'hex'))
          .digest();
        const [name, response] = make(right);
        const keys = new Map([
          ['CHAP_N', name],
          ['CHAP_R', `0x${response.toString('hex')}`],
        ]);
        const from = process.hrtime.bigint();
        const { outcome } = chap.step(keys);
        const ns = Number(process.hrtime.bigint() - from);
        if (outcome !== 'failed') t.fail('accepted');
        // The first rounds are those of the compiler.
        if (round >= ROUNDS / 4) took.get(what)?.push(ns);
      }
    const medians = [...took].map(([what, values]) => [what, median(values)] as const);
    for (const [what, ns] of medians) t.comment(`${what}: median ${ns} ns`);
    const all = medians.map(([, ns]) => ns);
    const apart = (Math.max(...all) - Math.min(...all)) / Math.min(...all);
    t.comment(`medians are ${(apart * 100).toFixed(1)} % apart, ${(ROUNDS * 3) / 4} rounds each`);
    t.ok(apart < DIFFERENCE_MAX);
    t.end();
  },
);
