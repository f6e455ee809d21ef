/** Several connections in one session (RFC 7143 §4.2.2, §4.3, §6.3.4, §7.2.1, §11.14, §13.2). */
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { chapLogin } from './chap.js';
import { COMMAND, dataOut, logoutRequest, OP, type Pdu, TASK_FUNCTION } from './pdu.js';
import type { Requirement, Tap } from './requirement.js';
import {
  persistentReserveOut,
  read10,
  senseTriple,
  STATUS,
  testUnitReady,
  toldOfCleared,
  write10,
} from './scsi.js';
import { Session, type Command, type SessionOptions } from './session.js';
import { site, startSite } from './site.js';
import type { Target } from './target.js';
import { pattern } from './write.js';

/** Service actions of PERSISTENT RESERVE OUT (SPC-6 §6.17.2). */
const RESERVE = 1;
const CLEAR = 3;
const PREEMPT_AND_ABORT = 5;
const REGISTER_AND_IGNORE = 6;
const KEYS = { MaxConnections: '4', InitialR2T: 'Yes', ImmediateData: 'No' } as const;

/** One more connection of a session. Its commands take their CmdSN from the first one's (`by`). */
export function join(
  target: Target,
  lead: Session,
  cid: number,
  options: SessionOptions = {},
): Promise<Session> {
  const { isid, tsih, cmdSN } = lead;
  return Session.login(target, { isid, tsih, cmdSN, cid, keepUnitAttention: true, ...options });
}

/** Runs a command on a connection with the session's next CmdSN. */
async function by(lead: Session, session: Session): Promise<number> {
  return (await session.execute({ cdb: testUnitReady(), cmdSN: lead.takeCmdSN() })).status;
}

async function pair(target: Target): Promise<[Session, Session]> {
  const a = await Session.login(target, { keys: KEYS, cid: 1 });
  return [a, await join(target, a, 2)];
}

/** Lets a session acknowledge what comes, and answer pings, until something has come to its end. */
async function acknowledging<T>(session: Session, action: Promise<T>): Promise<T> {
  const state = { done: false };
  const end = (): void => {
    state.done = true;
  };
  action.then(end, end);
  while (!state.done) await session.fence();
  return action;
}

/** What other sessions hear, which acknowledge and answer pings, until something has come to its end, and then. */
async function heardUntil<T>(
  others: readonly Session[],
  action: Promise<T>,
): Promise<{ result: T; heard: Map<Session, Pdu[]> }> {
  const heard = new Map(others.map((session): [Session, Pdu[]] => [session, []]));
  const state = { done: false };
  const end = (): void => {
    state.done = true;
  };
  action.then(end, end);
  const listen = async (): Promise<void> => {
    for (const [session, pdus] of heard) pdus.push(...(await session.fence()));
  };
  while (!state.done) await listen();
  await listen();
  return { result: await action, heard };
}

/** A write of one block that has been asked for its data; its CmdSN is the next of the session (`lead`). */
interface Owing {
  session: Session;
  itt: number;
  r2t: Pdu;
  data: Buffer;
}

async function owing(lead: Session, session: Session, lba: number): Promise<Owing> {
  const data = Buffer.alloc(lead.blockBytes, 0xd0);
  const itt = session.sendCommand({ cdb: write10(lba, 1), write: data, cmdSN: lead.takeCmdSN() });
  return { session, itt, r2t: await session.expect(OP.R2T), data };
}

const deliver = ({ session, r2t, data }: Owing): void => session.answerR2T(r2t, data);

/** Asynchronous messages that the tasks of a logical unit have ended (event 5). */
const terminations = (pdus: readonly Pdu[] = []): Pdu[] =>
  pdus.filter(({ opcode, asyncEvent }) => opcode === OP.ASYNC && asyncEvent === 5);

/**
 * ABORT TASK SET or CLEAR TASK SET on one of three connections, where tasks wait for data on two of them, on one of two
 * connections of a second session, which has FastAbort, and in a third one without.
 */
async function endsTaskSets(t: Tap, target: Target, fn: number, TaskReporting: string): Promise<void> {
  const everybodys = fn === TASK_FUNCTION.CLEAR_TASK_SET;
  const fast = TaskReporting === 'FastAbort';
  const a = await Session.login(target, { keys: { ...KEYS, TaskReporting }, cid: 1 });
  const [b, c] = [await join(target, a, 2), await join(target, a, 3)];
  const d = await Session.login(target, { keys: { ...KEYS, TaskReporting: 'FastAbort' }, cid: 1 });
  const e = await join(target, d, 2);
  const f = await Session.login(target, { keys: KEYS });
  const before = pattern(4 * a.blockBytes, 77);
  await a.execute({ cdb: write10(920, 4), write: before });
  const own = await owing(a, a, 920);
  const beside = [await owing(a, b, 921), await owing(a, b, 921)] as const;
  const others = [await owing(d, e, 922), await owing(d, e, 922), await owing(f, f, 923)] as const;
  for (const session of [c, d]) await session.fence();

  a.sendManage(fn);
  if (!fast) {
    t.same(await a.fence(), [], 'data are owed on two connections');
    deliver(own);
    deliver(beside[0]);
    t.same(await a.fence(), [], 'and still on one');
    deliver(beside[1]);
  }
  const { result, heard } = await heardUntil([b, c, d, e, f], a.expect(OP.TASK_MANAGEMENT_RESPONSE));
  t.equal(result.response, 0);
  t.same(await a.fence(), [], 'nothing follows');
  const told = terminations(heard.get(b));
  t.equal(
    told.length,
    fast ? 1 : 0,
    'the other connection with tasks is told of their end once, with FastAbort',
  );
  t.ok(told.every(({ bhs }) => bhs.readUInt8(9) === target.lun));
  t.same(heard.get(b)?.length, told.length, 'and of nothing else');
  t.same(heard.get(c), [], 'one without tasks is not');
  t.equal(terminations(heard.get(e)).length, everybodys ? 1 : 0, 'nor are others, unless theirs have ended');
  for (const session of [d, f]) t.same(terminations(heard.get(session)), []);
  if (fast) for (const one of [own, ...beside]) deliver(one);
  for (const session of [a, b]) t.same(await session.fence(), [], 'late data are dropped');

  for (const one of others) deliver(one);
  if (everybodys) {
    const first = await acknowledging(e, d.execute({ cdb: testUnitReady() }));
    t.equal(senseTriple(first.sense), '06/2f/00', 'commands cleared by another initiator');
    t.equal(senseTriple((await f.execute({ cdb: testUnitReady() })).sense), '06/2f/00');
    for (const session of [d, e, f]) t.same(withoutEvents(await session.fence()), [], 'no status of theirs');
  } else {
    for (const { session, itt } of others) t.equal((await session.finish(itt, {})).status, STATUS.GOOD);
    t.equal((await d.execute({ cdb: testUnitReady() })).status, STATUS.GOOD);
  }
  const after = await a.execute({ cdb: read10(920, 4), read: before.length });
  const untouched = everybodys ? before.length : 2 * a.blockBytes;
  t.ok(
    after.data.subarray(0, untouched).equals(before.subarray(0, untouched)),
    'nothing of an ended task is written',
  );
}

const withoutEvents = (pdus: readonly Pdu[]): Pdu[] => pdus.filter(({ opcode }) => opcode !== OP.ASYNC);

const needs = (target: Target): boolean => target.pid !== undefined;

const rows: readonly Omit<Requirement, 'needs'>[] = [
  {
    id: 'MC-01',
    clause: 'RFC 7143 §4.4.3, §4.2.2.1, §4.2.2.2, §6.3.1',
    level: 'MUST',
    text: 'a login with the TSIH adds a connection; commands are answered where they came, CmdSN counts over all connections, StatSN on each',
    async run(t, target) {
      const [a, b] = await pair(target);
      t.equal(b.tsih, a.tsih);
      const c = await join(target, a, 9);
      for (const session of [b, a, c, c, b, a]) t.equal(await by(a, session), STATUS.GOOD);
      for (const session of [a, b, c]) t.same(await session.fence(), []);
    },
  },
  {
    id: 'MC-02',
    clause: 'RFC 7143 §4.2.2.1',
    level: 'MUST',
    text: 'a command waits for one before it that comes later by another connection',
    async run(t, target) {
      const [a, b] = await pair(target);
      const first = a.takeCmdSN();
      const itt = b.sendCommand({ cdb: testUnitReady(), cmdSN: a.takeCmdSN() });
      t.same(await b.fence(), [], 'waits');
      t.equal((await a.execute({ cdb: testUnitReady(), cmdSN: first })).status, STATUS.GOOD);
      t.equal((await b.finish(itt, {})).status, STATUS.GOOD);
    },
  },
  {
    id: 'MC-03',
    clause: 'RFC 7143 §4.2.5.1',
    level: 'MUST',
    text: 'R2T, data and status of a command stay on its connection; data on another one are refused and not written',
    async run(t, target) {
      const [a, b] = await pair(target);
      const { blockBytes } = a;
      const data = pattern(blockBytes, 70);
      const itt = b.sendCommand({ cdb: write10(850, 1), write: data, cmdSN: a.takeCmdSN() });
      const r2t = await b.expect(OP.R2T);
      a.answerR2T(r2t, Buffer.alloc(blockBytes, 0xee));
      t.equal((await a.expect(OP.REJECT)).response, 4);
      b.answerR2T(r2t, data);
      t.equal((await b.finish(itt, {})).status, STATUS.GOOD);
      for (const session of [a, b]) {
        const read = await session.execute({ cdb: read10(850, 1), read: blockBytes, cmdSN: a.takeCmdSN() });
        t.ok(read.data.equals(data), 'data and status come where they were asked for');
      }
      t.same([await a.fence(), await b.fence()], [[], []]);
    },
  },
  {
    id: 'MC-04',
    clause: 'RFC 7143 §13.2, §11.13.5',
    level: 'MUST',
    text: 'more connections than were negotiated are refused with 0206h',
    async run(t, target) {
      const a = await Session.login(target, { keys: { MaxConnections: '2' }, cid: 1 });
      await join(target, a, 2);
      await t.rejects(join(target, a, 3), /0206h/);
      t.same(await a.fence(), []);
    },
  },
  {
    id: 'MC-23',
    clause: 'RFC 7143 §13.2, §4.2.2.1',
    level: 'MUST',
    text: 'a session may have eight connections where that is configured: commands on all of them have one order; a ninth is refused',
    async run(t, target) {
      const a = await Session.login(target, { keys: { ...KEYS, MaxConnections: '65535' }, cid: 1 });
      t.equal(a.agreed.get('MaxConnections'), '8');
      const all = [a];
      for (let cid = 2; cid <= 8; cid++) all.push(await join(target, a, cid));
      await t.rejects(join(target, a, 9), /0206h/);
      const first = a.takeCmdSN();
      const waiting = all.map((session, index) =>
        session.sendCommand({ cdb: testUnitReady(), itt: 0x2000 + index, cmdSN: a.takeCmdSN() }),
      );
      for (const session of all) t.same(await session.fence(), [], 'waits');
      t.equal((await a.execute({ cdb: testUnitReady(), cmdSN: first })).status, STATUS.GOOD);
      for (const [index, session] of all.entries())
        t.equal((await session.finish(waiting[index] ?? 0, {})).status, STATUS.GOOD);
    },
  },
  {
    id: 'MC-05',
    clause: 'RFC 7143 §11.14.1, §4.2.6',
    level: 'MUST',
    text: 'a connection logs itself out: its tasks end, those of the others go on',
    async run(t, target) {
      const [a, b] = await pair(target);
      const data = pattern(a.blockBytes, 71);
      const itt = a.sendCommand({ cdb: write10(860, 1), write: data });
      const r2t = await a.expect(OP.R2T);
      b.sendCommand({ cdb: write10(861, 1), write: data, cmdSN: a.takeCmdSN() });
      await b.expect(OP.R2T);
      b.cmdSN = a.cmdSN;
      t.equal((await b.logout(1, 2)).response, 0);
      t.same(await b.connection.untilClosed(), []);
      a.answerR2T(r2t, data);
      t.equal((await a.finish(itt, {})).status, STATUS.GOOD);
      const again = await join(target, a, 2);
      await toldOfCleared(t, again, a.takeCmdSN());
      t.equal(await by(a, again), STATUS.GOOD, 'the CID is free again');
    },
  },
  {
    id: 'MC-06',
    clause: 'RFC 7143 §11.14.3, §11.15',
    level: 'MUST',
    text: 'a connection logs another one out by its CID: that is closed and its tasks end without a status',
    async run(t, target) {
      const [a, b] = await pair(target);
      const { blockBytes } = a;
      const before = pattern(blockBytes, 72);
      await a.execute({ cdb: write10(870, 1), write: before });
      const late = Buffer.alloc(blockBytes, 0xcc);
      b.sendCommand({ cdb: write10(870, 1), write: late, cmdSN: a.takeCmdSN() });
      const r2t = await b.expect(OP.R2T);
      t.equal((await a.logout(1, 2)).response, 0);
      b.answerR2T(r2t, late);
      t.same(await b.connection.untilClosed(), []);
      await toldOfCleared(t, a);
      const read = await a.execute({ cdb: read10(870, 1), read: blockBytes });
      t.ok(read.data.equals(before));
      t.equal((await a.logout(1, 2)).response, 1, 'that CID is gone');
    },
  },
  {
    id: 'MC-07',
    clause: 'RFC 7143 §11.14.1',
    level: 'MUST',
    text: 'a logout of the session closes all its connections',
    async run(t, target) {
      const [a, b] = await pair(target);
      b.cmdSN = a.cmdSN;
      t.equal((await b.logout(0, 0)).response, 0);
      t.same(await b.connection.untilClosed(), []);
      t.same(await a.connection.untilClosed(), []);
      await t.rejects(join(target, a, 1), /020ah/);
    },
  },
  {
    id: 'MC-08',
    clause: 'RFC 7143 §7.2.1, §7.14',
    level: 'MUST',
    text: 'a connection that is lost takes its tasks along; what it brought and was not delivered is taken by another connection when it is sent again',
    async run(t, target) {
      const [a, b] = await pair(target);
      b.sendCommand({ cdb: write10(880, 1), write: pattern(a.blockBytes, 73), cmdSN: a.takeCmdSN() });
      await b.expect(OP.R2T);
      const missing = a.takeCmdSN();
      const waiting = a.takeCmdSN();
      b.sendCommand({ cdb: testUnitReady(), cmdSN: waiting });
      t.same(await b.fence(), []);
      b.connection.socket.end();
      await b.connection.untilClosed();
      await toldOfCleared(t, a, missing);
      const third = a.sendCommand({ cdb: testUnitReady() });
      t.same(await a.fence(), [], 'the lost command was not executed');
      t.equal((await a.execute({ cdb: testUnitReady(), cmdSN: waiting })).status, STATUS.GOOD);
      t.equal((await a.finish(third, {})).status, STATUS.GOOD);
    },
  },
  {
    id: 'MC-52',
    clause: 'RFC 7143 §7.14',
    level: 'MUST',
    text: 'an immediate task management request that waits for a command ends with its connection, without having acted',
    async run(t, target) {
      const [a, b] = await pair(target);
      const task = await owing(a, a, 926);
      const missing = a.takeCmdSN();
      b.cmdSN = a.cmdSN;
      b.sendManage(TASK_FUNCTION.ABORT_TASK_SET);
      t.same(await b.fence(), [], 'it waits');
      b.connection.socket.end();
      await b.connection.untilClosed();
      t.equal((await a.execute({ cdb: testUnitReady(), cmdSN: missing })).status, STATUS.GOOD);
      deliver(task);
      t.equal((await a.finish(task.itt, {})).status, STATUS.GOOD);
    },
  },
  {
    id: 'MC-09',
    clause: 'RFC 7143 §6.3.4',
    level: 'MUST',
    text: 'a login with the CID of a connection takes its place: that is closed with its tasks, the others go on',
    async run(t, target) {
      const [a, b] = await pair(target);
      const { blockBytes } = a;
      const before = pattern(blockBytes, 74);
      await a.execute({ cdb: write10(890, 1), write: before });
      const late = Buffer.alloc(blockBytes, 0xcd);
      b.sendCommand({ cdb: write10(890, 1), write: late, cmdSN: a.takeCmdSN() });
      const r2t = await b.expect(OP.R2T);
      const fresh = await join(target, a, 2);
      b.answerR2T(r2t, late);
      await b.connection.untilClosed();
      await toldOfCleared(t, fresh, a.takeCmdSN());
      t.equal(await by(a, fresh), STATUS.GOOD);
      const read = await a.execute({ cdb: read10(890, 1), read: blockBytes });
      t.ok(read.data.equals(before));
    },
  },
  {
    id: 'MC-10',
    clause: 'RFC 7143 §4.2.3.3, §11.5.1, §11.6',
    level: 'MUST',
    text: 'task management reaches tasks of other connections, and its response waits for the data that are owed there',
    async run(t, target) {
      const [a, b] = await pair(target);
      const data = pattern(a.blockBytes, 75);
      const write = { cdb: write10(895, 1), write: data };
      const single = b.sendCommand({ ...write, cmdSN: a.takeCmdSN() });
      await b.expect(OP.R2T);
      t.equal((await a.manage(TASK_FUNCTION.ABORT_TASK, { referencedTag: single })).response, 0);
      b.sendCommand({ ...write, cmdSN: a.takeCmdSN() });
      const r2t = await b.expect(OP.R2T);
      a.sendManage(TASK_FUNCTION.LOGICAL_UNIT_RESET);
      t.same(await a.fence(), [], 'waits');
      b.answerR2T(r2t, data);
      t.equal((await a.expect(OP.TASK_MANAGEMENT_RESPONSE)).response, 0);
      t.same(await b.fence(), []);
    },
  },
  {
    id: 'MC-11',
    clause: 'RFC 7143 §4.3, §9.2',
    level: 'MUST',
    text: 'a further connection that access rules show other LUNs, or none, is refused',
    async run(t) {
      const { at } = await startSite(t, ['a'], () => ({
        portals: [{ listen: '0.0.0.0:0' }],
        limits: { maxConnections: 8 },
        targets: [
          {
            ...site.target('a'),
            access: [
              { address: '127.0.0.1', show: ['master'] },
              { address: '127.0.0.2', show: ['master', 'slave'] },
              { address: '127.0.0.3', show: ['master'] },
            ],
          },
        ],
      }));
      const here = { ...at('a'), host: '127.0.0.1', from: '127.0.0.1' };
      const a = await Session.login(here, { keys: KEYS, cid: 1 });
      await t.rejects(join({ ...here, from: '127.0.0.2' }, a, 2), /0208h/);
      await t.rejects(join({ ...here, from: '127.0.0.4' }, a, 2), /0203h/);
      const b = await join({ ...here, from: '127.0.0.3' }, a, 2);
      t.equal(await by(a, b), STATUS.GOOD);
    },
  },
  {
    id: 'MC-12',
    clause: 'RFC 7143 §11.14, §4.2.2.1',
    level: 'MUST',
    text: 'a logout that is not immediate waits for commands that come by other connections',
    async run(t, target) {
      const [a, b] = await pair(target);
      const first = a.takeCmdSN();
      const { expStatSN } = b;
      b.connection.send(logoutRequest({ itt: 0x99, cmdSN: a.takeCmdSN(), expStatSN, reason: 1, cid: 2 }));
      t.same(await b.fence(), [], 'waits');
      t.equal((await a.execute({ cdb: testUnitReady(), cmdSN: first })).status, STATUS.GOOD);
      t.equal((await b.expect(OP.LOGOUT_RESPONSE)).response, 0);
      t.same(await b.connection.untilClosed(), []);
      t.equal((await a.execute({ cdb: testUnitReady() })).status, STATUS.GOOD);
    },
  },
  {
    id: 'MC-51',
    clause: 'RFC 7143 §4.2.2.1',
    level: 'MUST',
    text: 'a command that waits for the logout of another connection is executed when that has come',
    async run(t, target) {
      const [a, b] = await pair(target);
      const cmdSN = a.takeCmdSN();
      const waiting = b.sendCommand({ cdb: testUnitReady(), cmdSN: a.takeCmdSN() });
      t.same(await b.fence(), []);
      const { expStatSN } = a;
      a.connection.send(logoutRequest({ itt: a.nextTag(), cmdSN, expStatSN, reason: 1, cid: 1 }));
      t.equal((await a.expect(OP.LOGOUT_RESPONSE)).response, 0);
      t.equal((await b.finish(waiting, {})).status, STATUS.GOOD);
    },
  },
  {
    id: 'MC-21',
    clause: 'RFC 7143 §7.2.1, §4.2.2.2',
    level: 'MUST',
    text: 'the commands of a connection that is cut end, those that wait for each other, too, without having run; the session goes on',
    async run(t, target) {
      const [a, b] = await pair(target);
      const { blockBytes } = a;
      const before = await a.execute({ cdb: read10(880, 1), read: blockBytes });
      let itt = 0x1000;
      const cut = (cdb: Buffer, attribute: number, write?: Buffer): number =>
        b.sendCommand({ cdb, attribute, itt: itt++, cmdSN: a.takeCmdSN(), ...(write && { write }) });
      cut(write10(880, 1), COMMAND.ORDERED, pattern(blockBytes, 75));
      await b.expect(OP.R2T);
      for (let i = 0; i < 4; i++) cut(testUnitReady(), i % 2 === 0 ? COMMAND.ORDERED : COMMAND.SIMPLE);
      b.connection.destroy();
      await b.connection.untilClosed();
      await toldOfCleared(t, a);
      const after = await a.execute({ cdb: read10(880, 1), read: blockBytes });
      t.ok(after.data.equals(before.data));
      t.same(await a.fence(), []);
    },
  },
  {
    id: 'MC-13',
    clause: 'RFC 7143 §4.2.3.4, §4.2.3.4, §4.2.3.3, §4.2.2.3.2, §4.2.2.3.3, §4.2.2.3.4, §11.6.1, §13.23',
    level: 'MUST',
    text: 'with ResponseFence or FastAbort the response to a reset waits until all connections have acknowledged, and later ones until it is acknowledged',
    async run(t, target) {
      for (const TaskReporting of ['ResponseFence', 'FastAbort', 'RFC3720']) {
        const fenced = TaskReporting !== 'RFC3720';
        const a = await Session.login(target, { keys: { ...KEYS, TaskReporting }, cid: 1 });
        const b = await join(target, a, 2);
        await a.fence();
        b.acknowledged = b.expStatSN;
        t.equal(await by(a, b), STATUS.GOOD);
        a.sendManage(TASK_FUNCTION.LOGICAL_UNIT_RESET);
        if (fenced) {
          t.same(await a.fence(), [], 'what was answered on the other connection is not acknowledged');
          const ping = await b.connection.receive();
          t.equal(ping?.opcode, OP.NOP_IN, 'an acknowledgement is asked for');
          t.not(ping?.ttt, 0xffffffff);
        }
        a.acknowledged = a.expStatSN;
        b.acknowledged = undefined;
        await b.fence();
        t.equal((await a.expect(OP.TASK_MANAGEMENT_RESPONSE)).response, 0);
        const itt = b.sendCommand({ cdb: testUnitReady(), cmdSN: a.takeCmdSN() });
        if (fenced) t.same(await b.fence(), [], 'the response is not acknowledged');
        a.acknowledged = undefined;
        const { status } = await acknowledging(a, b.finish(itt, {}));
        t.ok(status === STATUS.GOOD || status === STATUS.CHECK_CONDITION);
        const read = a.sendCommand({ cdb: read10(0, 1), read: a.blockBytes });
        t.equal((await acknowledging(b, a.finish(read, { read: a.blockBytes }))).status, STATUS.GOOD);
      }
    },
  },
  {
    id: 'MC-14',
    clause: 'RFC 7143 §4.2.3.6, §4.2.3.4, §4.2.3.3, §4.2.2.3.4',
    level: 'MUST',
    text: 'so does a status with a unit attention, and no other status passes it',
    async run(t, target) {
      const a = await Session.login(target, { keys: { ...KEYS, TaskReporting: 'ResponseFence' }, cid: 1 });
      const b = await join(target, a, 2);
      const other = await Session.login(target);
      t.equal((await other.manage(TASK_FUNCTION.LOGICAL_UNIT_RESET)).response, 0);
      b.acknowledged = b.expStatSN;
      await b.fence();
      const attention = a.sendCommand({ cdb: testUnitReady() });
      t.same(
        withoutEvents(await a.fence()),
        [],
        'what was answered on the other connection is not acknowledged',
      );
      const read = a.sendCommand({ cdb: read10(0, 1), read: a.blockBytes });
      const passing = await a.expect(OP.DATA_IN);
      t.same([passing.itt, passing.flags & 1], [read, 0], 'data go on');
      t.same(await a.fence(), [], 'their status does not');
      const beside = b.sendCommand({ cdb: testUnitReady(), cmdSN: a.takeCmdSN() });
      t.same(await b.fence(), [], 'nor does one of another connection');
      a.acknowledged = a.expStatSN;
      b.acknowledged = undefined;
      t.same(await b.fence(), [], 'the acknowledgement lets the unit attention go, and nothing else');
      const first = await a.expect(OP.SCSI_RESPONSE);
      t.equal(first.itt, attention);
      t.match(senseTriple(first.sense), /^06\/29\//);
      t.same([...(await a.fence()), ...(await b.fence())], [], 'it is not acknowledged itself');
      a.acknowledged = undefined;
      const rest = [...(await a.fence()), ...(await b.fence())];
      t.same(
        rest.map(({ opcode, itt, scsiStatus }) => [opcode, itt, scsiStatus]),
        [
          [OP.SCSI_RESPONSE, read, STATUS.GOOD],
          [OP.SCSI_RESPONSE, beside, STATUS.GOOD],
        ],
        'then all that waited goes, where it belongs',
      );
    },
  },
  {
    id: 'MC-53',
    clause: 'RFC 7143 §4.2.2.3.4',
    level: 'MUST',
    text: 'so does the status of PREEMPT AND ABORT',
    async run(t, target) {
      const a = await Session.login(target, {
        keys: { ...KEYS, ImmediateData: 'Yes', TaskReporting: 'FastAbort' },
        cid: 1,
      });
      const b = await join(target, a, 2);
      const reserve = (action: number, key: number, other: number): Command => {
        const parameters = Buffer.alloc(24);
        parameters.writeUInt32BE(key, 4);
        parameters.writeUInt32BE(other, 12);
        return { cdb: persistentReserveOut(action, 24, 3), write: parameters, immediateBytes: 24 };
      };
      t.equal((await a.execute(reserve(REGISTER_AND_IGNORE, 0, 0xa1))).status, STATUS.GOOD);
      t.equal((await a.execute(reserve(RESERVE, 0xa1, 0))).status, STATUS.GOOD);
      b.acknowledged = b.expStatSN;
      await b.fence();
      const itt = a.sendCommand(reserve(PREEMPT_AND_ABORT, 0xa1, 0xa1));
      t.same(await a.fence(), [], 'what was answered on the other connection is not acknowledged');
      b.acknowledged = undefined;
      await b.fence();
      t.equal((await a.finish(itt, {})).status, STATUS.GOOD);
      t.equal((await acknowledging(b, a.execute(reserve(CLEAR, 0xa1, 0)))).status, STATUS.GOOD);
    },
  },
  {
    id: 'MC-18',
    clause: 'RFC 7143 §4.2.3.1, §11.5.1, §11.5.5',
    level: 'MUST',
    text: 'ABORT TASK ends a task of another connection, or one that waits there for its turn, without a word on that connection',
    async run(t, target) {
      for (const TaskReporting of ['RFC3720', 'ResponseFence', 'FastAbort']) {
        const a = await Session.login(target, { keys: { ...KEYS, TaskReporting }, cid: 1 });
        const b = await join(target, a, 2);
        const before = (await a.execute({ cdb: read10(924, 1), read: a.blockBytes })).data;
        b.acknowledged = b.expStatSN;
        const one = await owing(a, b, 924);
        t.equal(
          (await a.manage(TASK_FUNCTION.ABORT_TASK, { referencedTag: one.itt })).response,
          0,
          'it waits for nobody',
        );
        deliver(one);
        t.same(await b.fence(), [], 'late data are dropped, nothing is told');
        const first = a.takeCmdSN();
        const refCmdSN = a.takeCmdSN();
        const referencedTag = b.sendCommand({ cdb: testUnitReady(), cmdSN: refCmdSN });
        t.same(await b.fence(), []);
        t.equal((await a.manage(TASK_FUNCTION.ABORT_TASK, { referencedTag, refCmdSN })).response, 0);
        t.equal((await a.execute({ cdb: testUnitReady(), cmdSN: first })).status, STATUS.GOOD);
        t.equal(
          (await a.execute({ cdb: testUnitReady() })).status,
          STATUS.GOOD,
          'it keeps its place in the order',
        );
        t.same(await b.fence(), []);
        const after = (await a.execute({ cdb: read10(924, 1), read: a.blockBytes })).data;
        t.ok(after.equals(before));
      }
    },
  },
  {
    id: 'MC-50',
    clause: 'RFC 7143 §4.2.2.1, §4.2.3.2, §4.6.1.3',
    level: 'MUST',
    text: 'an immediate multi-task abort leaves commands numbered behind it alone that have overtaken it on another connection',
    async run(t, target) {
      for (const fn of [
        TASK_FUNCTION.ABORT_TASK_SET,
        TASK_FUNCTION.CLEAR_TASK_SET,
        TASK_FUNCTION.LOGICAL_UNIT_RESET,
      ]) {
        const a = await Session.login(target, { keys: { ...KEYS, TaskReporting: 'FastAbort' }, cid: 1 });
        const b = await join(target, a, 2);
        const before = await owing(a, b, 924);
        const place = a.cmdSN;
        const behind = await owing(a, b, 925);
        a.cmdSN = place;
        const { result } = await heardUntil([b], a.manage(fn));
        t.equal(result.response, 0);
        a.cmdSN = place + 1;
        await a.fence();
        deliver(before);
        deliver(behind);
        const outcome = await b.finish(behind.itt, {});
        t.same([outcome.status, b.connection.violations], [STATUS.GOOD, []]);
        a.connection.destroy();
      }
    },
  },
  {
    id: 'MC-19',
    clause: 'RFC 7143 §4.2.3.2, §4.2.3.3, §4.2.3.4',
    level: 'MUST',
    text: 'CLEAR TASK SET ends the tasks of all connections and sessions: data that its session owes on any connection are waited for; with FastAbort they are not, and each other connection that had tasks is told by event 5',
    async run(t, target) {
      for (const TaskReporting of ['RFC3720', 'ResponseFence', 'FastAbort'])
        await endsTaskSets(t, target, TASK_FUNCTION.CLEAR_TASK_SET, TaskReporting);
    },
  },
  {
    id: 'MC-20',
    clause: 'RFC 7143 §4.2.3.2, §4.2.3.3, §4.2.3.4',
    level: 'MUST',
    text: 'ABORT TASK SET ends the tasks of all connections of its session in the same way, and those of no other',
    async run(t, target) {
      for (const TaskReporting of ['RFC3720', 'ResponseFence', 'FastAbort'])
        await endsTaskSets(t, target, TASK_FUNCTION.ABORT_TASK_SET, TaskReporting);
    },
  },
  {
    id: 'MC-22',
    clause: 'RFC 7143 §4.2.2.3.3',
    level: 'MUST',
    text: 'a status that has waited for data of its command waits for the fence, too',
    async run(t, target) {
      const keys = { ...KEYS, InitialR2T: 'No', TaskReporting: 'ResponseFence' };
      const a = await Session.login(target, { keys, cid: 1 });
      const b = await join(target, a, 2);
      const data = Buffer.alloc(a.blockBytes);
      const failed = a.sendCommand({ cdb: write10(0xfffffff0, 1), write: data, final: false });
      t.same(await a.fence(), [], 'the status waits for the data');
      const other = await Session.login(target);
      t.equal((await other.manage(TASK_FUNCTION.LOGICAL_UNIT_RESET)).response, 0);
      await a.fence();
      a.acknowledged = a.expStatSN;
      await a.fence();
      const attention = b.sendCommand({ cdb: testUnitReady(), cmdSN: a.takeCmdSN() });
      t.same(withoutEvents(await b.fence()), [], 'the fence is up');
      const { lun, expStatSN } = a;
      a.connection.send(dataOut({ itt: failed, lun, expStatSN, dataSN: 0, offset: 0, data, final: true }));
      t.same(withoutEvents(await a.fence()), [], 'the data are here, the fence is still up');
      b.acknowledged = b.expStatSN;
      a.acknowledged = undefined;
      t.same(withoutEvents(await a.fence()), [], 'the unit attention is not acknowledged');
      const first = await b.expect(OP.SCSI_RESPONSE);
      t.same([first.itt, first.scsiStatus], [attention, STATUS.CHECK_CONDITION]);
      b.acknowledged = undefined;
      await b.fence();
      t.equal((await a.finish(failed, {})).status, STATUS.CHECK_CONDITION);
    },
  },
  {
    id: 'MC-15',
    clause: 'RFC 7143 §11.13.5, §9.2',
    level: 'MUST',
    text: 'a further connection that logs in as another CHAP user is refused with 0202h',
    async run(t) {
      const { at } = await startSite(t, ['a'], (folder) => {
        for (const name of ['files', 'backup'])
          writeFileSync(path.join(folder, name), `secret of ${name} 123\n`, { mode: 0o600 });
        const users = ['files', 'backup'].map((name) => ({ name, secretFile: name }));
        return {
          portals: [{ listen: '127.0.0.1:0' }],
          limits: { maxConnections: 8 },
          targets: [site.target('a', { access: [{ initiator: '*' }], authentication: { users } })],
        };
      });
      const here = at('a');
      const files = { name: 'files', secret: 'secret of files 123' };
      const a = await chapLogin(here, files, '5', { keys: KEYS, cid: 1 });
      const { isid, tsih, cmdSN } = a;
      const options = { isid, tsih, cmdSN, cid: 2 };
      const backup = { name: 'backup', secret: 'secret of backup 123' };
      await t.rejects(chapLogin(here, backup, '5', options), /0202h/);
      const b = await chapLogin(here, files, '5', options);
      t.equal(b.tsih, tsih);
      t.same(await b.fence(), []);
    },
  },
  {
    id: 'MC-16',
    clause: 'RFC 7143 §4.2.6, §9.2',
    level: 'MUST',
    text: 'a reload that forbids the address of one connection ends that one, and its tasks; the others go on',
    async run(t) {
      const configuration = (...addresses: string[]): object => ({
        portals: [{ listen: '127.0.0.1:0' }],
        limits: { maxConnections: 8 },
        targets: [site.target('a', { access: addresses.map((address) => ({ address })) })],
      });
      const { at, reload } = await startSite(t, ['a'], () => configuration('127.0.0.1', '127.0.0.3'));
      const here = { ...at('a'), host: '127.0.0.1', from: '127.0.0.1' };
      const a = await Session.login(here, { keys: KEYS, cid: 1 });
      const b = await join({ ...here, from: '127.0.0.3' }, a, 2);
      const write = Buffer.alloc(a.blockBytes, 0xdd);
      b.sendCommand({ cdb: write10(5, 1), write, cmdSN: a.takeCmdSN() });
      await b.expect(OP.R2T);
      await reload(configuration('127.0.0.1'));
      await b.connection.untilClosed();
      await toldOfCleared(t, a);
      t.equal(await by(a, a), STATUS.GOOD);
      const read = await a.execute({ cdb: read10(5, 1), read: a.blockBytes });
      t.notOk(read.data.equals(write));
    },
  },
  {
    id: 'MC-17',
    clause: 'RFC 7143 §11.5.1',
    level: 'MUST',
    text: 'a cold reset that comes by one of several connections is answered there, and ends all of them at any error recovery level',
    async run(t, target) {
      for (const ErrorRecoveryLevel of ['0', '2']) {
        const a = await Session.login(target, { keys: { ...KEYS, ErrorRecoveryLevel }, cid: 1 });
        const b = await join(target, a, 2);
        t.equal((await a.manage(TASK_FUNCTION.TARGET_COLD_RESET)).response, 0);
        await a.connection.untilClosed();
        await b.connection.untilClosed();
        await t.rejects(join(target, a, 3), /020ah/, 'the session is gone');
      }
    },
  },
];

export const connections: readonly Requirement[] = rows.map((row) => ({ ...row, needs }));
