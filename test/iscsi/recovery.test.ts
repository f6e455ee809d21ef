/**
 * Error recovery and several connections where the medium, the clock or the memory have to be the test's own: what only
 * the wire shows is in conformance/rfc7143.
 */
import { mock } from 'node:test';
import t from 'tap';
import {
  dataOut,
  encode,
  isid,
  logoutRequest,
  nopOut,
  NO_TAG,
  OP,
  textRequest,
  type Pdu,
} from '../../conformance/rfc7143/pdu.js';
import { encodeKeys } from '../../conformance/rfc7143/keys.js';
import { read10, write10 } from '../../conformance/rfc7143/scsi.js';
import { Session, type SessionOptions } from '../../conformance/rfc7143/session.js';
import type { Target } from '../../conformance/rfc7143/target.js';
import { LostConnections } from '../../src/iscsi/lost-connections.js';
import { DEFAULT_LIMITS, type IscsiLimits } from '../../src/iscsi/options.js';
import { Negotiation } from '../../src/iscsi/negotiation.js';
import { nextNumber, Retained } from '../../src/iscsi/retained.js';
import type { IscsiServer } from '../../src/iscsi/server.js';
import type { TaskHost } from '../../src/iscsi/task-host.js';
import { startServer, TARGET, type MemoryPort } from './support.js';

const LOGICAL_UNIT_RESET = 5;
const REJECTED = 255;
/** A read of this LBA, or behind it, never ends by itself. */
const STUCK_LBA = 1000;

interface Served {
  server: IscsiServer;
  memory: MemoryPort;
  target: Target;
  /** A session with these keys, on connection 1. */
  lead: (keys?: Record<string, string>) => Promise<Session>;
  /** One more connection of it. */
  join: (lead: Session, cid: number, options?: SessionOptions) => Promise<Session>;
}

async function serve(
  test: { teardown: (end: () => unknown) => void },
  limits: Partial<IscsiLimits> = {},
): Promise<Served> {
  const { server, memory, port } = await startServer({ maxConnections: 8, errorRecoveryLevel: 2, ...limits });
  memory.stuckFromLba = STUCK_LBA;
  let qualifier = 0x100;
  const target: Target = {
    host: '127.0.0.1',
    port,
    iqn: TARGET,
    lun: 0,
    profile: {},
    sessions: [],
    freshIsid: () => isid(++qualifier),
    stop: () => Promise.resolve(),
  };
  test.teardown(async () => {
    for (const { connection } of target.sessions) connection.destroy();
    memory.endFunctions();
    await server.close(0);
  });
  const common = { MaxConnections: '4', InitialR2T: 'Yes', ImmediateData: 'No', DefaultTime2Wait: '0' };
  return {
    server,
    memory,
    target,
    lead: async (keys = {}) => {
      const session = await Session.login(target, {
        ...{ cid: 1, keepUnitAttention: true },
        keys: { ...common, ...keys },
      });
      session.knowsOfLosses = true;
      return session;
    },
    join: async ({ isid, tsih, cmdSN }, cid, options = {}) => {
      const session = await Session.login(target, {
        ...{ isid, tsih, cmdSN, cid, keepUnitAttention: true },
        ...options,
      });
      session.connection.rules.recovers = true;
      session.knowsOfLosses = true;
      return session;
    },
  };
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error('it never came');
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** The memory target has nothing but LUN 0, and blocks of 512 bytes. */
const BLOCK_BYTES = 512;

void t.test('of a Time2Wait, which the initiator chooses, no more than a minute counts', (t) => {
  mock.timers.enable({ apis: ['setTimeout'] });
  try {
    for (const [time2WaitSeconds, seconds] of [
      [3600, 60 + 5],
      [2, 2 + 5],
    ] as const) {
      const parameters = {
        ...new Negotiation(DEFAULT_LIMITS).parameters(),
        ...{ time2WaitSeconds, time2RetainSeconds: 5 },
      };
      const host = { parameters, retained: undefined } as unknown as TaskHost;
      const ended: TaskHost[] = [];
      let expired = 0;
      const lost = new LostConnections({ has: () => true, end: (one) => void ended.push(one) });
      lost.onExpired = () => {
        expired++;
      };
      lost.add(1, host, false, '127.0.0.1');
      mock.timers.tick(seconds * 1000 - 1);
      t.same([lost.size, ended.length, expired], [1, 0, 0]);
      mock.timers.tick(1);
      t.same([lost.size, ended.length, expired], [0, 1, 1], `after ${seconds} s`);
    }
  } finally {
    mock.timers.reset();
  }
  t.end();
});

void t.test('what is kept costs no more than the bound, however small it is cut', (t) => {
  const bytesMax = 65_536;
  const retained = new Retained(1, bytesMax);
  const parameters = new Negotiation(DEFAULT_LIMITS).parameters();
  const buffer = Buffer.alloc(64);
  const sent = { buffer, offset: 0, dataBytes: 0, parameters };
  const task = retained.begin(7, 0, 0);
  const count = 20_000;
  for (let dataSN = 0; dataSN < count; dataSN++) {
    retained.expectAcknowledgement(dataSN + 1, task, dataSN);
    retained.keep(task, sent);
  }
  t.equal(nextNumber(task), count, 'numbers count what was sent');
  t.ok(task.missing > 0 && task.pdus.length > 0, 'the latest ones are there');
  // 48 bytes of header cost more than that.
  t.ok(task.pdus.length < bytesMax / 100, `${task.pdus.length} PDUs`);
  t.ok(task.tags.size < bytesMax / 100, `${task.tags.size} tags`);
  t.ok(retained.acknowledgeData(1, 1), 'an answer to a tag that was given up is only late');
  t.notOk(retained.acknowledgeData(count + 1, 1), 'one that was never given is wrong');
  t.ok(retained.acknowledgeData(count, count));
  t.same([task.first, task.missing, task.pdus.length, task.tags.size], [count, 0, 0, 0]);
  t.end();
});

void t.test(
  'a release within what is missing moves the acknowledgement on and keeps the rest (§11.7.2)',
  (t) => {
    const retained = new Retained(1, 600);
    const parameters = new Negotiation(DEFAULT_LIMITS).parameters();
    const task = retained.begin(7, 0, 0);
    for (let i = 0; i < 4; i++)
      retained.keep(task, { buffer: Buffer.alloc(48), offset: 0, dataBytes: 0, parameters });
    t.same([task.first, task.missing, task.pdus.length], [0, 4, 0]);
    retained.keep(task, { buffer: Buffer.alloc(48), offset: 0, dataBytes: 0, parameters });
    retained.releaseBelow(task, 3);
    t.same([task.first, task.missing, task.pdus.length, nextNumber(task)], [3, 1, 1, 5]);
    const taken = retained.take(7)?.task;
    t.same(
      [taken?.first, taken?.missing, taken?.pdus.length],
      [3, 1, 1],
      'another connection takes over the gap, too',
    );
    t.end();
  },
);

void t.test('a logout for a lost connection is answered when its tasks have ended (§11.15)', async (t) => {
  for (const reason of [1, 0]) {
    const { server, memory, lead, join } = await serve(t);
    const a = await lead({ ErrorRecoveryLevel: '2' });
    const b = await join(a, 2);
    b.sendCommand({ cdb: read10(STUCK_LBA, 1), read: BLOCK_BYTES, cmdSN: a.takeCmdSN() });
    await until(() => memory.stuck.size === 1);
    b.connection.destroy();
    await until(() => server.sessions()[0]?.connections === 1);
    memory.slowFunctions = true;
    const { cmdSN, expStatSN } = a;
    a.connection.send(logoutRequest({ itt: 0x99, cmdSN, expStatSN, immediate: true, reason, cid: 2 }));
    t.same(await a.fence(), [], 'the medium still works for one');
    if (reason === 0) await t.rejects(join(a, 3), /020ah/, 'nobody joins a session that ends');
    memory.endFunctions();
    t.equal((await a.expect(OP.LOGOUT_RESPONSE)).response, 0);
    t.equal(memory.stuck.size, 0);
    if (reason === 0) {
      await a.connection.untilClosed();
      await until(() => server.sessions().length === 0);
    } else t.same(await a.fence(), []);
  }
});

void t.test(
  'one lost connection too many ends the oldest, never the session that has just lost its last',
  async (t) => {
    const { server, memory, lead, join } = await serve(t);
    const keys = { ErrorRecoveryLevel: '2', DefaultTime2Retain: '3600' };
    const first = await lead(keys);
    const second = await join(first, 2);
    first.connection.destroy();
    await until(() => server.sessions()[0]?.connections === 1);
    for (let i = 0; i < 63; i++) {
      const one = await lead(keys);
      one.connection.destroy();
      await until(() => server.sessions().find(({ id }) => id === one.tsih)?.connections === 0);
    }
    second.connection.destroy();
    await until(() => server.connections === 0);
    const mine = server.sessions().filter(({ id }) => id === first.tsih);
    t.same(
      mine.map(({ connections }) => connections),
      [0],
      'it waits for its initiator',
    );
    t.equal(server.sessions().length, 64);
    t.equal(memory.attached.size, 64);
  },
);

void t.test(
  'task management functions that the medium keeps are bounded: of more none is begun',
  async (t) => {
    const { memory, lead } = await serve(t);
    const session = await lead();
    memory.slowFunctions = true;
    const sent = 600;
    for (let i = 0; i < sent; i++) session.sendManage(LOGICAL_UNIT_RESET);
    const refused = await session.fence();
    t.equal(refused.length, sent - 512);
    t.ok(
      refused.every(
        ({ opcode, response }) => opcode === OP.TASK_MANAGEMENT_RESPONSE && response === REJECTED,
      ),
    );
    memory.endFunctions();
    const done = await session.fence();
    t.equal(done.length, 512);
    t.ok(done.every(({ response }) => response === 0));
    t.equal((await session.manage(LOGICAL_UNIT_RESET)).response, 0, 'and then there is room');
  },
);

void t.test('so are those that a response fence keeps', async (t) => {
  const { lead, join } = await serve(t);
  const a = await lead({ TaskReporting: 'ResponseFence' });
  const b = await join(a, 2);
  b.acknowledged = b.expStatSN;
  await b.fence();
  const sent = 600;
  for (let i = 0; i < sent; i++) a.sendManage(LOGICAL_UNIT_RESET);
  const refused = await a.fence();
  t.equal(refused.length, sent - 512);
  t.ok(refused.every(({ response }) => response === REJECTED));
});

void t.test(
  'a place in the window that a connection took along is told by another one (§4.2.2.1)',
  async (t) => {
    for (const level of ['0', '2']) {
      const { server, memory, lead, join } = await serve(t, { commandWindow: 8 });
      const a = await lead({ ErrorRecoveryLevel: level, ImmediateData: 'Yes' });
      a.connection.rules.recovers = true;
      const b = await join(a, 2);
      // At level 2 the commands end on the lost connection, by themselves.
      memory.keeps = level === '2';
      const write = Buffer.alloc(BLOCK_BYTES);
      for (let i = 0; i < 8; i++)
        b.sendCommand({
          cdb: write10(STUCK_LBA + i, 1),
          write,
          cmdSN: a.takeCmdSN(),
          ...(memory.keeps ? { immediateBytes: BLOCK_BYTES } : {}),
        });
      await until(() => memory.stuck.size === 8);
      await a.fence();
      b.connection.destroy();
      if (level === '2') {
        await until(() => server.sessions()[0]?.connections === 1);
        t.equal(memory.stuck.size, 8);
        memory.unstick();
      }
      for (;;) {
        const pdu = await a.connection.receive();
        if (pdu?.opcode === OP.NOP_IN && pdu.itt === NO_TAG && pdu.ttt !== NO_TAG) continue;
        if (pdu?.opcode === OP.ASYNC && pdu.asyncEvent === 2) continue;
        t.equal(pdu?.opcode, OP.NOP_IN, `level ${level}`);
        t.equal(pdu?.itt, NO_TAG);
        t.ok(pdu !== undefined && pdu.maxCmdSN >= a.cmdSN, 'it tells of a place');
        break;
      }
    }
  },
);

/** A command and a text request that changes MaxRecvDataSegmentLength, in one piece. */
function readAndRenegotiate(session: Session, bytes: number): number {
  const itt = session.nextTag();
  const command = session.commandPdu({ cdb: read10(0, bytes / BLOCK_BYTES), read: bytes, itt });
  const data = encodeKeys({ MaxRecvDataSegmentLength: '4096' });
  const { expStatSN } = session;
  const text = textRequest({ itt: session.nextTag(), cmdSN: session.takeCmdSN(), expStatSN, data });
  session.connection.write(Buffer.concat([encode(command), encode(text)]));
  return itt;
}

void t.test('data that were cut before MaxRecvDataSegmentLength fell are cut anew (§13.12)', async (t) => {
  for (const level of ['0', '1']) {
    const { memory, lead } = await serve(t);
    for (let at = 0; at < 65_536; at++) memory.memory[at] = (at * 7) >> 3;
    memory.asynchronous = true;
    const session = await lead({ ErrorRecoveryLevel: level, MaxRecvDataSegmentLength: '65536' });
    const itt = readAndRenegotiate(session, 65_536);
    session.connection.maxRecvDataSegmentBytes = 4096;
    await session.expect(OP.TEXT_RESPONSE);
    const { status, data, pdus } = await session.finish(itt, { read: 65_536 });
    t.equal(status, 0);
    t.ok(data.equals(memory.memory.subarray(0, 65_536)));
    t.equal(pdus.filter(({ opcode }) => opcode === OP.DATA_IN).length, 16);
    t.same(session.connection.violations, []);
    t.same(await session.fence(), [], 'one status');
  }
});

void t.test('data that wait in the socket because nothing is read are not asked for again', async (t) => {
  const { memory, lead } = await serve(t, { connectionBufferBytesMax: 1 << 20 });
  memory.keeps = true;
  const half = 65_536;
  const session = await lead({ ErrorRecoveryLevel: '1' });
  const r2ts: Pdu[] = [];
  for (let n = 0; n < 40; n++) {
    session.sendCommand({ cdb: write10(STUCK_LBA + 512 * n, 256), write: Buffer.alloc(2 * half) });
    r2ts.push(await session.expect(OP.R2T));
  }
  const sendHalf = (which: 0 | 1): void => {
    for (const { itt, ttt } of r2ts) {
      const at = { offset: which * half, dataSN: which, final: which === 1 };
      const { expStatSN } = session;
      session.connection.send(dataOut({ itt, ttt, expStatSN, data: Buffer.alloc(half), ...at }));
    }
  };
  sendHalf(0);
  await until(() => memory.keptBytes >= 1 << 20);
  // Longer than the patience with data that are silent, though something is read.
  await new Promise((resolve) => setTimeout(resolve, 2500));
  memory.unstick();
  sendHalf(1);
  for (const { itt } of r2ts) {
    const { status, r2ts: again } = await session.finish(itt, {});
    t.equal(status, 0);
    t.same(again, []);
  }
});

void t.test('a read whose status waits at a fence holds up nothing of what comes behind it', async (t) => {
  const { memory, lead, join } = await serve(t, { connectionBufferBytesMax: 65_536 });
  memory.asynchronous = true;
  const a = await lead({ TaskReporting: 'ResponseFence' });
  const b = await join(a, 2);
  b.acknowledged = b.expStatSN;
  await b.fence();
  const reset = a.sendManage(LOGICAL_UNIT_RESET);
  t.same(await a.fence(), [], 'the fence is up');
  const { cmdSN, expStatSN } = a;
  const ping = a.nextTag();
  // In one piece, so that the ping is there while the medium works for the read.
  const read = a.commandPdu({ cdb: read10(0, 255), read: 130_560 });
  a.connection.write(
    Buffer.concat([encode(read), encode(nopOut({ itt: ping, immediate: true, cmdSN, expStatSN }))]),
  );
  const before: number[] = [];
  for (let pdu = await a.next(); pdu?.itt !== ping; pdu = await a.next()) before.push(pdu?.opcode ?? 0);
  t.same([...new Set(before)], [OP.DATA_IN]);
  b.acknowledged = undefined;
  await b.fence();
  t.equal((await a.expect(OP.TASK_MANAGEMENT_RESPONSE)).itt, reset);
});
