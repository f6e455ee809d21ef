/** Connection recovery, level 2: tasks outlive their connection (RFC 7143 §7.1.5, §7.2.2, §7.5, §11.5.6, §11.14, §13.16). */
import path from 'node:path';
import { run, succeed } from '../support/processes.js';
import { PROGRAM, PROGRAM_ENVIRONMENT } from './cldd.js';
import { join } from './connections.js';
import { dataOut, OP, SNACK, snack, type Pdu, TASK_FUNCTION } from './pdu.js';
import type { Requirement, Tap } from './requirement.js';
import {
  cachingPage,
  modeSelect6,
  read10,
  senseTriple,
  STATUS,
  testUnitReady,
  toldOfCleared,
  write10,
  writeSame16,
} from './scsi.js';
import { Session } from './session.js';
import { site, startSite } from './site.js';
import type { Target } from './target.js';
import { pattern } from './write.js';

const COMPLETE = 0;
const DOES_NOT_EXIST = 1;
const STILL_ALLEGIANT = 3;
const NOT_SUPPORTED = 4;
const FOR_RECOVERY = 2;
const CLOSE_CONNECTION = 1;
const LEVEL_2 = {
  ErrorRecoveryLevel: '2',
  MaxConnections: '4',
  InitialR2T: 'Yes',
  ImmediateData: 'No',
  DefaultTime2Wait: '0',
  DefaultTime2Retain: '10',
} as const;
/** A tag that no other command of these tests has. */
const ITT = 0x9001;

/** A session with connections 1 and 2. */
async function pair(target: Target, keys: Record<string, string> = {}): Promise<[Session, Session]> {
  const a = await Session.login(target, { keys: { ...LEVEL_2, ...keys }, cid: 1 });
  a.knowsOfLosses = true;
  return [a, await another(target, a, 2)];
}

async function another(
  target: Target,
  lead: Session,
  cid: number,
  keys: Record<string, string> = {},
  expStatSN?: number,
): Promise<Session> {
  const session = await join(target, lead, cid, { keys, ...(expStatSN === undefined ? {} : { expStatSN }) });
  session.connection.rules.recovers = true;
  session.knowsOfLosses = lead.knowsOfLosses;
  return session;
}

/** Reads 64 KiB in PDUs of 8 KiB on a connection, of which nothing is acknowledged. */
async function read(session: Session, itt = ITT): Promise<Pdu[]> {
  session.acknowledged = session.expStatSN;
  const bytes = 65_536;
  session.sendCommand({ cdb: read10(2000, bytes / session.blockBytes), read: bytes, itt });
  return (await session.finish(itt, { read: bytes })).pdus;
}

async function prepare(session: Session): Promise<Buffer> {
  const data = pattern(65_536, 110);
  await session.execute({ cdb: write10(2000, data.length / session.blockBytes), write: data });
  return data;
}

/** Breaks a connection; another one says that it is to be recovered. */
async function recover(t: Tap, broken: Session, by: Session, cid: number): Promise<void> {
  broken.connection.destroy();
  by.cmdSN = broken.cmdSN;
  const answer = await by.logout(FOR_RECOVERY, cid);
  t.equal(answer.response, 0);
  t.same([answer.bhs.readUInt16BE(40), answer.bhs.readUInt16BE(42)], [0, 10], 'Time2Wait, Time2Retain');
}

async function reassign(session: Session, expDataSN = 0, referencedTag = ITT): Promise<number> {
  return (await session.manage(TASK_FUNCTION.TASK_REASSIGN, { referencedTag, expDataSN })).response;
}

/**
 * A command is reassigned while it executes, with all its data there. False if it had ended before that, so that nothing
 * was shown.
 */
async function reassignedInTime(t: Tap, target: Target, cdb: Buffer, data: Buffer): Promise<boolean> {
  const [a, b] = await pair(target, { ImmediateData: 'Yes' });
  const dirty = Buffer.alloc(a.blockBytes, 0x5a);
  const fill = { cdb: writeSame16(4000, 65_535), write: dirty, immediateBytes: dirty.length };
  t.equal((await a.execute(fill)).status, STATUS.GOOD);
  a.sendCommand({ cdb, write: data, immediateBytes: data.length, itt: ITT });
  const sent = await a.fence();
  b.cmdSN = a.cmdSN;
  const answered = b.logout(FOR_RECOVERY, 1);
  b.sendManage(TASK_FUNCTION.TASK_REASSIGN, { referencedTag: ITT });
  t.equal((await answered).response, 0);
  t.equal((await b.expect(OP.TASK_MANAGEMENT_RESPONSE)).response, COMPLETE);
  t.equal((await b.finish(ITT, { write: data })).status, STATUS.GOOD);
  t.same(await b.fence(), [], 'it is answered once');
  sent.push(...(await a.connection.untilClosed()));
  return !sent.some(({ itt }) => itt === ITT);
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error('it never came');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const numbers = (pdus: readonly Pdu[]): number[] =>
  pdus.filter(({ opcode }) => opcode === OP.DATA_IN).map(({ dataSN }) => dataSN);

const needs = (target: Target): boolean => target.pid !== undefined;

const rows: readonly Omit<Requirement, 'needs'>[] = [
  {
    id: 'REASSIGN-01',
    clause: 'RFC 7143 §7.1.5, §7.2.2, §11.5.6, §11.5.1, §11.6',
    level: 'MUST',
    text: 'a read whose connection broke is reassigned: data come from ExpDataSN on, then the status with a StatSN of the new connection',
    async run(t, target) {
      for (const [expDataSN, first] of [
        [0, 0],
        [5, 5],
        [8, 8],
        [9, 0],
      ] as const) {
        const [a, b] = await pair(target);
        const data = await prepare(a);
        await read(a);
        await recover(t, a, b, 1);
        b.acknowledged = b.expStatSN;
        t.equal(await reassign(b, expDataSN), COMPLETE);
        const outcome = await b.finish(ITT, { read: data.length });
        t.equal(outcome.status, STATUS.GOOD);
        t.same(
          numbers(outcome.pdus),
          [0, 1, 2, 3, 4, 5, 6, 7].slice(first),
          `ExpDataSN ${expDataSN}${expDataSN > 8 ? ' is ignored' : ''}`,
        );
        t.ok(outcome.data.subarray(first * 8192).equals(data.subarray(first * 8192, outcome.data.length)));
        t.equal(outcome.pdus.at(-1)?.dataSN, 8, 'ExpDataSN of the response');
        t.same(await b.fence(), []);
        t.equal(await reassign(b), STILL_ALLEGIANT, 'now it belongs to that connection');
      }
    },
  },
  {
    id: 'REASSIGN-02',
    clause: 'RFC 7143 §7.2.2',
    level: 'MUST',
    text: 'a write whose connection broke is reassigned: an R2T asks for what has not come',
    async run(t, target) {
      const [a, b] = await pair(target);
      const data = pattern(65_536, 111);
      a.sendCommand({ cdb: write10(2200, data.length / a.blockBytes), write: data, itt: ITT });
      const r2t = await a.expect(OP.R2T);
      const half = dataOut({
        itt: ITT,
        ttt: r2t.ttt,
        lun: a.lun,
        expStatSN: a.expStatSN,
        dataSN: 0,
        offset: 0,
        data: data.subarray(0, 32_768),
        final: false,
      });
      a.connection.send(half);
      await a.fence();
      await recover(t, a, b, 1);
      t.equal(await reassign(b), COMPLETE);
      const again = await b.expect(OP.R2T);
      t.equal(again.itt, ITT);
      t.equal(again.dataSN, 0, 'R2TSN begins at the acknowledgement');
      t.equal(again.bufferOffset, 32_768);
      b.answerR2T(again, data);
      t.equal((await b.finish(ITT, { write: data })).status, STATUS.GOOD);
      const back = await b.execute({
        cdb: read10(2200, data.length / a.blockBytes),
        read: data.length,
      });
      t.ok(back.data.equals(data));
    },
  },
  {
    id: 'REASSIGN-03',
    clause: 'RFC 7143 §7.2.2, §11.6.1',
    level: 'MUST',
    text: 'a task that is allegiant, one that does not exist, and a session that does not recover are told apart',
    async run(t, target) {
      const [a, b] = await pair(target);
      await prepare(a);
      await read(a);
      b.cmdSN = a.cmdSN;
      t.equal(await reassign(b), STILL_ALLEGIANT, 'its connection lives');
      t.equal(await reassign(b, 0, 0x7777), DOES_NOT_EXIST);
      a.connection.destroy();
      t.equal(await reassign(b), STILL_ALLEGIANT, 'its connection was not logged out');
      const [c, d] = await pair(target, { ErrorRecoveryLevel: '1' });
      await read(c);
      c.connection.destroy();
      d.cmdSN = c.cmdSN;
      t.equal(await reassign(d), NOT_SUPPORTED);
    },
  },
  {
    id: 'REASSIGN-04',
    clause: 'RFC 7143 §6.3.4, §7.14',
    level: 'MUST',
    text: 'a login with the CID of the failed connection logs it out implicitly; the session lived on without any',
    async run(t, target) {
      for (const broken of [true, false]) {
        const a = await Session.login(target, { keys: { ...LEVEL_2, MaxConnections: '1' }, cid: 7 });
        const data = await prepare(a);
        await read(a);
        if (broken) a.connection.destroy();
        const b = await another(target, a, 7, { MaxRecvDataSegmentLength: '4096' });
        t.equal(b.tsih, a.tsih);
        t.equal(await reassign(b, 2), COMPLETE);
        const outcome = await b.finish(ITT, { read: data.length });
        t.equal(outcome.status, STATUS.GOOD);
        t.equal(outcome.pdus[0]?.dataSN, 2);
        t.equal(numbers(outcome.pdus).length, 12, 'cut to what the new connection takes');
        t.ok(outcome.data.subarray(16_384).equals(data.subarray(16_384)));
        t.equal((await b.execute({ cdb: testUnitReady(), cmdSN: a.takeCmdSN() })).status, STATUS.GOOD);
      }
    },
  },
  {
    id: 'REASSIGN-05',
    clause: 'RFC 7143 §7.2.1, §11.14',
    level: 'MUST',
    text: 'commands of the failed connection that were not delivered are taken when they are retried on another one',
    async run(t, target) {
      const [a, b] = await pair(target);
      const missing = a.takeCmdSN();
      a.sendCommand({ cdb: testUnitReady(), itt: ITT });
      t.same(await a.fence(), []);
      await recover(t, a, b, 1);
      t.equal(await reassign(b), DOES_NOT_EXIST);
      t.equal((await b.execute({ cdb: testUnitReady(), cmdSN: missing })).status, STATUS.GOOD);
      t.same(await b.fence(), []);
      b.sendCommand({ cdb: testUnitReady(), itt: ITT, cmdSN: (missing + 1) >>> 0 });
      t.equal((await b.finish(ITT, {})).status, STATUS.GOOD);
    },
  },
  {
    id: 'REASSIGN-06',
    clause: 'RFC 7143 §7.5, §13.15, §13.16',
    level: 'MUST',
    text: 'after Time2Wait and Time2Retain the tasks of a lost connection end, and with the last one the session',
    async run(t, target) {
      const [a, b] = await pair(target, { DefaultTime2Retain: '1' });
      const write = { cdb: write10(2300, 1), write: Buffer.alloc(a.blockBytes, 0xaa), itt: ITT };
      const before = (await a.execute({ cdb: read10(2300, 1), read: a.blockBytes })).data;
      a.sendCommand(write);
      await a.expect(OP.R2T);
      a.connection.destroy();
      b.cmdSN = a.cmdSN;
      t.equal(await reassign(b), STILL_ALLEGIANT);
      for (let tries = 0; tries < 200; tries++) {
        if ((await reassign(b)) === DOES_NOT_EXIST) break;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      t.equal(await reassign(b), DOES_NOT_EXIST);
      t.equal((await b.logout(FOR_RECOVERY, 1)).response, 1, 'CID not found');
      await toldOfCleared(t, b);
      t.ok((await b.execute({ cdb: read10(2300, 1), read: a.blockBytes })).data.equals(before));
      b.connection.destroy();
      let refused = '';
      for (let tries = 0; tries < 200 && refused === ''; tries++) {
        const login = Session.login(target, {
          isid: a.isid,
          tsih: a.tsih,
          cid: 20 + tries,
          cmdSN: b.cmdSN,
          keepUnitAttention: true,
        });
        const session = await login.catch((error: unknown) => {
          refused = String(error);
        });
        session?.connection.destroy();
        await new Promise((resolve) => setTimeout(resolve, 1200));
      }
      t.match(refused, /020ah/, 'the session is gone');
    },
  },
  {
    id: 'REASSIGN-07',
    clause: 'RFC 7143 §11.14.1, §11.15',
    level: 'MUST',
    text: 'logout for recovery closes the named connection, by itself or by another, and keeps its tasks; other logouts end them',
    async run(t, target) {
      const [a, b] = await pair(target);
      const data = await prepare(a);
      await read(a);
      b.cmdSN = a.cmdSN;
      t.equal((await b.logout(FOR_RECOVERY, 1)).response, 0, 'of another that lives');
      await a.connection.untilClosed();
      t.equal(await reassign(b), COMPLETE);
      t.ok((await b.finish(ITT, { read: data.length })).data.equals(data));
      const c = await another(target, b, 3);
      c.cmdSN = b.cmdSN;
      await read(b);
      t.equal((await b.logout(FOR_RECOVERY, 2)).response, 0, 'of itself');
      await b.connection.untilClosed();
      c.cmdSN = b.cmdSN;
      t.equal(await reassign(c), COMPLETE);
      t.ok((await c.finish(ITT, { read: data.length })).data.equals(data));
      t.equal((await c.logout(FOR_RECOVERY, 99)).response, 1, 'CID not found');
      const d = await another(target, c, 4);
      await read(c);
      c.connection.destroy();
      d.cmdSN = c.cmdSN;
      t.equal((await d.logout(CLOSE_CONNECTION, 3)).response, 0, 'the lost one is closed');
      t.equal(await reassign(d), DOES_NOT_EXIST);
      const [e, f] = await pair(target, { ErrorRecoveryLevel: '1' });
      f.cmdSN = e.cmdSN;
      t.equal((await f.logout(FOR_RECOVERY, 1)).response, 2, 'recovery is not supported');
    },
  },
  {
    id: 'REASSIGN-08',
    clause: 'RFC 7143 §7.14, §7.2.2, §7.5',
    level: 'MUST',
    text: 'a logout of the session, or a new session of the same initiator port, ends what waits to be reassigned',
    async run(t, target) {
      const [a, b] = await pair(target);
      await prepare(a);
      await read(a);
      a.connection.destroy();
      b.cmdSN = a.cmdSN;
      t.equal((await b.logout(0)).response, 0);
      await b.connection.untilClosed();
      await t.rejects(join(target, a, 5), /020ah/);
      const [c] = await pair(target);
      c.connection.destroy();
      const fresh = await Session.login(target, { isid: c.isid, keys: LEVEL_2 });
      t.not(fresh.tsih, c.tsih);
      t.same(await fresh.fence(), []);
    },
  },
  {
    id: 'REASSIGN-09',
    clause: 'RFC 7143 §7.2.2, §11.5.6',
    level: 'MUST',
    text: 'a command that has all its data and still executes is reassigned: it is carried out and answered once',
    async run(t, target) {
      const lead = await Session.login(target);
      const page = await cachingPage(lead);
      const [on, off] = [0x04, 0].map((wce) => {
        const list = Buffer.concat([Buffer.alloc(4), page]);
        list.writeUInt8((list.readUInt8(6) & ~0x04) | wce, 6);
        return list;
      }) as [Buffer, Buffer];
      const cache = (list: Buffer): Promise<unknown> =>
        lead.execute({ cdb: modeSelect6(list.length), write: list });
      const block = Buffer.alloc(lead.blockBytes, 0xa5);
      for (const [name, cdb, data] of [
        ['WRITE SAME', writeSame16(4000, 65_535), block],
        ['MODE SELECT that switches the cache off', modeSelect6(off.length), off],
      ] as const) {
        let inTime = false;
        for (let tries = 0; tries < 20 && !inTime; tries++) {
          await cache(on);
          inTime = await reassignedInTime(t, target, cdb, data);
        }
        t.ok(inTime, `${name} was still executing`);
      }
      await cache(on);
    },
  },
  {
    id: 'REASSIGN-10',
    clause: 'RFC 7143 §7.2.2, §11.2.1.8',
    level: 'MUST',
    text: 'what a task of a lost connection sent is forgotten when a new command takes its tag',
    async run(t, target) {
      const [a, b] = await pair(target);
      await prepare(a);
      await read(a);
      await recover(t, a, b, 1);
      t.equal((await b.execute({ cdb: testUnitReady(), itt: ITT })).status, STATUS.GOOD);
      t.same(await b.fence(), [], 'its status is acknowledged');
      t.equal(await reassign(b), DOES_NOT_EXIST);
      t.same(await b.fence(), []);
    },
  },
  {
    id: 'REASSIGN-11',
    clause: 'RFC 7143 §11.12.9, §11.14.4',
    level: 'MUST',
    text: 'ExpStatSN of a logout for another connection, or of a login in its place, is that connection’s, not that of the one it comes by',
    async run(t, target) {
      for (const how of ['logout', 'login', 'logout of a live one']) {
        const [a, b] = await pair(target);
        await prepare(a);
        await read(a);
        const { expStatSN: before } = a;
        a.acknowledged = undefined;
        const { expStatSN } = a;
        t.ok(expStatSN > before);
        if (how !== 'logout of a live one') a.connection.destroy();
        b.cmdSN = a.cmdSN;
        if (how === 'login') await another(target, b, 1, {}, expStatSN);
        else {
          await read(b, ITT + 1);
          for (let i = 0; i < 20; i++) await b.execute({ cdb: testUnitReady() });
          const unacknowledged = b.acknowledged;
          b.acknowledged = expStatSN;
          t.equal((await b.logout(FOR_RECOVERY, 1)).response, 0);
          b.acknowledged = unacknowledged;
          b.connection.send(
            snack({ type: SNACK.DATA_OR_R2T, itt: ITT + 1, expStatSN: b.expStatSN, begin: 0, run: 1 }),
          );
          t.equal((await b.expect(OP.DATA_IN)).dataSN, 0, 'nothing of its own was acknowledged');
        }
        t.equal(await reassign(b), DOES_NOT_EXIST, how);
      }
    },
  },
  {
    id: 'REASSIGN-12',
    clause: 'RFC 7143 §11.4.8, §7.8, §7.2.2',
    level: 'MUST',
    text: 'a response that reports a fault of the protocol is sent again on reassignment; ExpDataSN counts no R2Ts',
    async run(t, target) {
      const [a, b] = await pair(target);
      const data = pattern(8192, 112);
      a.acknowledged = a.expStatSN;
      a.sendCommand({ cdb: write10(2400, data.length / a.blockBytes), write: data, itt: ITT });
      const { ttt } = await a.expect(OP.R2T);
      const { lun, expStatSN } = a;
      a.connection.send(
        dataOut({ itt: ITT, ttt, lun, expStatSN, dataSN: 0, offset: 512, data, final: true }),
      );
      t.equal((await a.expect(OP.REJECT)).response, 9);
      const response = await a.expect(OP.SCSI_RESPONSE);
      t.equal(response.scsiStatus, STATUS.CHECK_CONDITION);
      t.equal(response.dataSN, 0, 'ExpDataSN');
      await recover(t, a, b, 1);
      b.acknowledged = b.expStatSN;
      t.equal(await reassign(b), COMPLETE);
      const again = await b.expect(OP.SCSI_RESPONSE);
      t.equal(again.itt, ITT);
      t.equal(again.dataSN, 0);
      t.ok(again.data.equals(response.data), 'the same sense');
    },
  },
  {
    id: 'REASSIGN-17',
    clause: 'RFC 7143 §11.5.1',
    level: 'SHOULD',
    text: 'ABORT TASK of a task whose connection was logged out for recovery ends it without a status; if it had ended, its status comes again before the answer',
    async run(t, target) {
      const [a, b] = await pair(target);
      await prepare(a);
      const refCmdSN = a.cmdSN;
      await read(a);
      const write = Buffer.alloc(a.blockBytes, 0xab);
      a.sendCommand({ cdb: write10(2600, 1), write, itt: ITT + 1 });
      await a.expect(OP.R2T);
      b.cmdSN = a.cmdSN;
      t.equal((await b.logout(FOR_RECOVERY, 1)).response, 0);
      b.acknowledged = b.expStatSN;
      t.equal(
        (await b.manage(TASK_FUNCTION.ABORT_TASK, { referencedTag: ITT + 1, refCmdSN: refCmdSN + 1 }))
          .response,
        COMPLETE,
      );
      b.sendManage(TASK_FUNCTION.ABORT_TASK, { referencedTag: ITT, refCmdSN });
      const status = await b.expect(OP.SCSI_RESPONSE);
      t.same([status.itt, status.scsiStatus, status.dataSN], [ITT, STATUS.GOOD, 8]);
      t.equal((await b.expect(OP.TASK_MANAGEMENT_RESPONSE)).response, DOES_NOT_EXIST);
      t.same(await b.fence(), []);
    },
  },
  {
    id: 'REASSIGN-13',
    clause: 'RFC 7143 §7.2.2, §11.14',
    level: 'ROBUST',
    text: 'connections that log themselves out for recovery are kept up to a number; of those without a task none is',
    async run(t, target) {
      const lead = await Session.login(target, { keys: LEVEL_2, cid: 1 });
      const { blockBytes } = lead;
      const leave = async (cid: number, itt?: number): Promise<void> => {
        const session = await another(target, lead, cid);
        const cdb = write10(2500, 1);
        if (itt !== undefined) {
          // Takes the unit attention of a task that had to go.
          await session.execute({ cdb: testUnitReady(), cmdSN: lead.takeCmdSN() });
          session.sendCommand({ cdb, write: Buffer.alloc(blockBytes), itt, cmdSN: lead.takeCmdSN() });
          await session.expect(OP.R2T);
        }
        session.cmdSN = lead.cmdSN;
        t.equal((await session.logout(FOR_RECOVERY, cid)).response, 0);
        await session.connection.untilClosed();
      };
      await leave(100, ITT);
      for (let i = 1; i <= 70; i++) await leave(100 + i);
      const first = await another(target, lead, 2);
      first.cmdSN = lead.cmdSN;
      t.equal(await reassign(first), COMPLETE, 'those that have nothing to recover took no place');
      // Else it is asked for again while the others come and go.
      const { status } = await first.finish(ITT, { write: Buffer.alloc(blockBytes) });
      t.equal(status, STATUS.GOOD);
      for (let i = 1; i <= 65; i++) await leave(200 + i, ITT + i);
      first.cmdSN = lead.cmdSN;
      t.equal(await reassign(first, 0, ITT + 1), DOES_NOT_EXIST, 'the oldest one had to go');
      t.equal(await reassign(first, 0, ITT + 65), COMPLETE);
      t.equal((await first.expect(OP.R2T)).itt, ITT + 65);
    },
  },
  {
    id: 'REASSIGN-14',
    clause: 'RFC 7143 §4.2.3.3, §7.2.2',
    level: 'ROBUST',
    text: 'a multi-task abort ends the tasks of a lost connection, too, and does not wait for the data that are owed there',
    async run(t, target) {
      const [a, b] = await pair(target);
      const before = (await a.execute({ cdb: read10(2600, 1), read: a.blockBytes })).data;
      const write = Buffer.alloc(a.blockBytes, 0xbb);
      b.sendCommand({ cdb: write10(2600, 1), write, itt: ITT, cmdSN: a.takeCmdSN() });
      await b.expect(OP.R2T);
      b.connection.destroy();
      t.equal((await a.logout(FOR_RECOVERY, 2)).response, 0);
      a.sendManage(TASK_FUNCTION.ABORT_TASK_SET);
      const [answer, ...more] = await a.fence();
      t.equal(answer?.opcode, OP.TASK_MANAGEMENT_RESPONSE, 'at once');
      t.equal(answer?.response, COMPLETE);
      t.same(more, []);
      t.equal(await reassign(a), DOES_NOT_EXIST);
      const after = (await a.execute({ cdb: read10(2600, 1), read: a.blockBytes })).data;
      t.ok(after.equals(before));
    },
  },
  {
    id: 'REASSIGN-15',
    clause: 'RFC 7143 §11.9.1 (event 2)',
    level: 'MUST',
    text: 'a connection that the target drops is told how long its tasks wait to be reassigned: Time2Retain at level 2, else 0',
    async run(t, target) {
      for (const [ErrorRecoveryLevel, retained] of [
        ['2', 10],
        ['1', 0],
      ] as const) {
        const [, b] = await pair(target, { ErrorRecoveryLevel, DefaultTime2Wait: '3' });
        b.knowsOfLosses = false;
        b.connection.send(b.commandPdu({ cdb: testUnitReady() }), { dataSegmentLength: 0xffffff });
        const message = await b.expect(OP.ASYNC);
        t.equal(message.asyncEvent, 2);
        t.same(message.asyncParameters, [2, 3, retained]);
        await b.connection.untilClosed();
      }
    },
  },
  {
    id: 'REASSIGN-50',
    clause: 'RFC 7143 §7.14',
    level: 'MUST',
    text: 'immediate commands end with their connection, and are not there to be reassigned; others are',
    async run(t, target) {
      const [a, b] = await pair(target);
      const before = (await a.execute({ cdb: read10(2700, 2), read: 2 * a.blockBytes })).data;
      const write = Buffer.alloc(a.blockBytes, 0xbb);
      b.cmdSN = a.cmdSN;
      b.sendCommand({ cdb: write10(2700, 1), write, itt: ITT, immediate: true });
      await b.expect(OP.R2T);
      b.sendCommand({ cdb: write10(2701, 1), write, itt: ITT + 1, cmdSN: a.takeCmdSN() });
      await b.expect(OP.R2T);
      b.cmdSN = a.cmdSN;
      await recover(t, b, a, 2);
      t.equal(await reassign(a, 0, ITT), DOES_NOT_EXIST);
      t.equal(await reassign(a, 0, ITT + 1), COMPLETE);
      t.equal((await a.finish(ITT + 1, { write })).status, STATUS.GOOD);
      const told = await a.execute({ cdb: testUnitReady() });
      t.equal(senseTriple(told.sense), '06/47/7f', 'the end of the immediate one is told');
      const after = (await a.execute({ cdb: read10(2700, 2), read: 2 * a.blockBytes })).data;
      t.ok(after.equals(Buffer.concat([before.subarray(0, a.blockBytes), write])));
    },
  },
  {
    id: 'REASSIGN-51',
    clause: 'RFC 7143 §7.1.4.3',
    level: 'SHOULD',
    text: 'a connection that is lost is told by event 2 on another one, with its CID and the times for its recovery',
    async run(t, target) {
      const [a, b] = await pair(target, { DefaultTime2Wait: '3' });
      a.knowsOfLosses = false;
      b.connection.destroy();
      const message = await a.expect(OP.ASYNC);
      t.same([message.asyncEvent, message.asyncParameters], [2, [2, 3, 10]]);
      t.same(await a.fence(), [], 'once');
    },
  },
  {
    id: 'REASSIGN-52',
    clause: 'RFC 7143 §7.2.2',
    level: 'MUST',
    text: 'a SNACK tag that the response of a read would have had is 0 once the read is reassigned',
    async run(t, target) {
      const [a, b] = await pair(target);
      await prepare(a);
      await read(a);
      a.connection.send(
        snack({ type: SNACK.R_DATA, itt: ITT, expStatSN: a.expStatSN, begin: 0, run: 0, tag: 0xbeef }),
      );
      t.equal((await a.finish(ITT, { read: 65_536 })).pdus.at(-1)?.ttt, 0xbeef);
      await recover(t, a, b, 1);
      t.equal(await reassign(b), COMPLETE);
      t.equal((await b.finish(ITT, { read: 65_536 })).pdus.at(-1)?.ttt, 0);
    },
  },
  {
    id: 'REASSIGN-16',
    clause: 'RFC 7143 §7.2.2, §4.3',
    level: 'ROBUST',
    text: 'sessions with lost connections are listed, can be ended by the operator and by a reload that withdraws access, and do not delay a stop',
    async run(t) {
      const configuration = (...addresses: string[]): object => ({
        portals: [{ listen: '127.0.0.1:0' }],
        limits: { maxConnections: 8, errorRecoveryLevel: 2 },
        targets: [site.target('a', { access: addresses.map((address) => ({ address })) })],
      });
      const { at, daemon, folder, log, reload } = await startSite(t, ['a'], () =>
        configuration('127.0.0.1', '127.0.0.3'),
      );
      const here: Target = { ...at('a'), host: '127.0.0.1', from: '127.0.0.1' };
      /** A session whose second connection came from another address, and is lost with a command. */
      const withLost = async (): Promise<Session> => {
        const a = await Session.login(here, { keys: { ...LEVEL_2, DefaultTime2Retain: '3600' }, cid: 1 });
        const b = await another({ ...here, from: '127.0.0.3' }, a, 2);
        const write = Buffer.alloc(a.blockBytes, 0xee);
        b.sendCommand({ cdb: write10(5, 1), write, itt: ITT, cmdSN: a.takeCmdSN() });
        await b.expect(OP.R2T);
        b.connection.destroy();
        await until(() => connectionsOf(a) === 1);
        return a;
      };
      const connectionsOf = ({ tsih }: Session): number | undefined =>
        daemon.sessions().find(({ id }) => id === tsih)?.connections;
      const listed = async (): Promise<string> =>
        succeed(PROGRAM, ['sessions', '--socket', path.join(folder, 's')], { env: PROGRAM_ENVIRONMENT });

      const a = await withLost();
      const before = (await a.execute({ cdb: read10(5, 1), read: a.blockBytes })).data;
      await reload(configuration('127.0.0.1'));
      t.equal((await a.logout(FOR_RECOVERY, 2)).response, 1, 'the lost one is forgotten');
      t.equal(await reassign(a), DOES_NOT_EXIST);
      await toldOfCleared(t, a);
      t.ok((await a.execute({ cdb: read10(5, 1), read: a.blockBytes })).data.equals(before));
      t.match(await listed(), new RegExp(`^ *${a.tsih} +\\S+ +1 +127\\.0\\.0\\.1:\\d+ `, 'm'));
      a.connection.destroy();
      await until(() => connectionsOf(a) === 0);
      t.match(await listed(), new RegExp(`^ *${a.tsih} +\\S+ +0 +127\\.0\\.0\\.1 `, 'm'));
      await reload(configuration('127.0.0.3'));
      t.same(daemon.sessions(), [], 'a session that has lost all ends with its access');

      await reload(configuration('127.0.0.1', '127.0.0.3'));
      const killed = await withLost();
      killed.connection.destroy();
      await until(() => connectionsOf(killed) === 0);
      const kill = ['session', 'kill', String(killed.tsih), '--socket', path.join(folder, 's')];
      t.equal((await run(PROGRAM, kill, { env: PROGRAM_ENVIRONMENT })).code, 0);
      t.same(daemon.sessions(), []);
      const [stays, gone] = [await withLost(), await withLost()];
      gone.connection.destroy();
      await until(() => connectionsOf(gone) === 0);
      const stopped = daemon.close();
      await stays.connection.untilClosed();
      await stopped;
      t.same(daemon.sessions(), []);
      const ended = log.filter(({ message }) => message === 'session ended').map(({ session }) => session);
      for (const { tsih } of [a, killed, stays, gone])
        t.ok(ended.includes(tsih), `session ${tsih} has ended`);
    },
  },
];

export const reassignment: readonly Requirement[] = rows.map((row) => ({ ...row, needs }));
