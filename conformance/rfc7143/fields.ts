/**
 * What single fields of requests and responses say (RFC 7143 §11, §13; RFC 7144 §4 to §6). What is reserved in the PDUs of
 * a target is looked at in every test, by wire.ts.
 */
import { join } from './connections.js';
import { encodeKeys } from './keys.js';
import { LOGIN_STATUS, namesFor } from './login.js';
import {
  ahs,
  encode,
  isid,
  logoutRequest,
  nopOut,
  OP,
  Pdu,
  SNACK,
  snack,
  STAGE,
  textRequest,
  TASK_FUNCTION,
} from './pdu.js';
import type { Requirement, Tap } from './requirement.js';
import {
  inquiry,
  read10,
  reportLuns,
  senseTriple,
  STATUS,
  testUnitReady,
  toldOfCleared,
  write10,
  writeSame16,
} from './scsi.js';
import { only, Session, type LoginAnswer } from './session.js';
import type { Target } from './target.js';
import { WireRules } from './wire.js';

const COMPLETE = 0;
const REJECTED = 255;
const CLOSE_CONNECTION = 1;
const FOR_RECOVERY = 2;
const PROTOCOL_ERROR = 4;
const SOLICITED = { InitialR2T: 'Yes', ImmediateData: 'No' } as const;
const LEVEL_2 = {
  ...SOLICITED,
  ErrorRecoveryLevel: '2',
  MaxConnections: '2',
  DefaultTime2Wait: '0',
  DefaultTime2Retain: '10',
} as const;

/** §11.2.1.2. */
const TARGET_OPCODES = [
  OP.NOP_IN,
  OP.SCSI_RESPONSE,
  OP.TASK_MANAGEMENT_RESPONSE,
  OP.LOGIN_RESPONSE,
  OP.TEXT_RESPONSE,
  OP.DATA_IN,
  OP.LOGOUT_RESPONSE,
  OP.R2T,
  OP.ASYNC,
  OP.REJECT,
];

/** A write that waits for its data. */
async function waitingWrite(session: Session, cmdSN?: number): Promise<{ r2t: Pdu; data: Buffer }> {
  const data = Buffer.alloc(session.blockBytes, 0x3c);
  session.sendCommand({ cdb: write10(1200, 1), write: data, ...(cmdSN === undefined ? {} : { cmdSN }) });
  return { r2t: await session.expect(OP.R2T), data };
}

/** The sense of the next command, if it is not GOOD. */
async function nextSense(session: Session, lun = session.lun): Promise<string> {
  const { status, sense } = await session.execute({ cdb: testUnitReady(), lun });
  return status === STATUS.GOOD ? 'good' : senseTriple(sense);
}

/** A function for many tasks that waits for the data of a write. */
async function waitingFunction(session: Session): Promise<{ itt: number; end: () => void }> {
  const { r2t, data } = await waitingWrite(session);
  const itt = session.sendManage(TASK_FUNCTION.ABORT_TASK_SET);
  return { itt, end: () => session.answerR2T(r2t, data) };
}

/** Response to a function that names a logout which waits for a long write; undefined if that had ended before. */
async function namesLogout(target: Target): Promise<number | undefined> {
  const a = await Session.login(target, { keys: { ...LEVEL_2, ImmediateData: 'Yes' }, cid: 1 });
  const b = await join(target, a, 2);
  b.connection.rules.recovers = true;
  const block = Buffer.alloc(a.blockBytes, 0x5a);
  a.sendCommand({ cdb: writeSame16(4000, 65_535), write: block, immediateBytes: block.length });
  await a.fence();
  const itt = b.nextTag();
  const { expStatSN } = b;
  b.connection.send(
    logoutRequest({ itt, cmdSN: a.cmdSN, expStatSN, immediate: true, reason: CLOSE_CONNECTION, cid: 1 }),
  );
  b.sendManage(TASK_FUNCTION.TASK_REASSIGN, { referencedTag: itt });
  const first = await b.next();
  return first?.opcode === OP.TASK_MANAGEMENT_RESPONSE ? first.response : undefined;
}

/** Sends a PDU that is to be rejected. */
async function rejectedFor(t: Tap, session: Session, pdu: Pdu, reason: number, what: string): Promise<Pdu> {
  session.connection.send(pdu);
  const reject = await session.expect(OP.REJECT);
  t.equal(reject.response, reason, what);
  return reject;
}

/** Every key of §13 that an initiator may send in the operational stage, each with a value that may be. */
const KEYS: Readonly<Record<string, string>> = {
  HeaderDigest: 'None',
  DataDigest: 'None',
  MaxConnections: '1',
  InitiatorAlias: 'raw',
  InitialR2T: 'Yes',
  ImmediateData: 'Yes',
  MaxRecvDataSegmentLength: '8192',
  MaxBurstLength: '262144',
  FirstBurstLength: '65536',
  DefaultTime2Wait: '2',
  DefaultTime2Retain: '20',
  MaxOutstandingR2T: '1',
  DataPDUInOrder: 'Yes',
  DataSequenceInOrder: 'Yes',
  ErrorRecoveryLevel: '0',
  TaskReporting: 'RFC3720',
  iSCSIProtocolLevel: '1',
  IFMarker: 'No',
  OFMarker: 'No',
  IFMarkInt: '2048',
  OFMarkInt: '2048',
  'X#NodeArchitecture': 'Raw/1.0',
};
/** What a target may say of itself in a login. */
const DECLARED = new Set(['TargetPortalGroupTag', 'TargetAlias', 'MaxRecvDataSegmentLength']);

const operational = { transit: true, csg: STAGE.OPERATIONAL, nsg: STAGE.FULL_FEATURE } as const;

/** The answer to a login with one request. */
async function answerTo(
  target: Target,
  id: Buffer,
  keys: Record<string, string>,
): Promise<{ session: Session; answer: LoginAnswer }> {
  const session = await Session.connect(target);
  return {
    session,
    answer: await session.loginStep({ ...operational, isid: id }, { ...namesFor(target), ...keys }),
  };
}

export const fields: readonly Requirement[] = [
  {
    id: 'FIELD-01',
    clause: 'RFC 7143 §11.5.1; RFC 7144 §6.3',
    level: 'MUST',
    text: 'ABORT TASK and QUERY TASK that name a task management function are answered by Function rejected, and leave it alone',
    async run(t, target) {
      const session = await Session.login(target, { keys: { ...SOLICITED, iSCSIProtocolLevel: '2' } });
      const waiting = await waitingFunction(session);
      for (const fn of [TASK_FUNCTION.ABORT_TASK, TASK_FUNCTION.QUERY_TASK])
        t.equal((await session.manage(fn, { referencedTag: waiting.itt })).response, REJECTED, `${fn}`);
      waiting.end();
      const response = await session.expect(OP.TASK_MANAGEMENT_RESPONSE);
      t.same([response.itt, response.response], [waiting.itt, COMPLETE]);
    },
  },
  {
    id: 'FIELD-02',
    clause: 'RFC 7143 §11.5.1',
    level: 'MUST',
    text: 'TASK REASSIGN that names a task management function, a text negotiation or a logout is answered by Function rejected',
    needs: ({ pid }) => pid !== undefined,
    async run(t, target) {
      const a = await Session.login(target, { keys: LEVEL_2, cid: 1 });
      const b = await join(target, a, 2);
      b.connection.rules.recovers = true;
      const waiting = await waitingFunction(a);
      const text = a.nextTag();
      a.connection.send(
        textRequest({
          itt: text,
          cmdSN: a.takeCmdSN(),
          expStatSN: a.expStatSN,
          final: false,
          data: encodeKeys({ MaxRecvDataSegmentLength: '4096' }),
        }),
      );
      await a.expect(OP.TEXT_RESPONSE);
      // A task for the sake of which the connection is kept.
      await waitingWrite(a);
      b.cmdSN = a.cmdSN;
      t.equal((await b.logout(FOR_RECOVERY, 1)).response, 0);
      const reassign = async (referencedTag: number): Promise<number> =>
        (await b.manage(TASK_FUNCTION.TASK_REASSIGN, { referencedTag })).response;
      t.equal(await reassign(text), REJECTED, 'text negotiation');
      t.equal(await reassign(waiting.itt), REJECTED, 'task management function');
      const answers: (number | undefined)[] = [];
      for (let tries = 0; tries < 20 && answers.at(-1) === undefined; tries++)
        answers.push(await namesLogout(target));
      t.equal(answers.at(-1), REJECTED, 'logout');
    },
  },
  {
    id: 'FIELD-03',
    clause: 'RFC 7143 §11.14.5',
    level: 'MUST',
    text: 'when tasks have ended with their connection and the session goes on, the next command to each of their logical units is told so, on any connection: 47h/7Fh',
    async run(t, target) {
      const ways: readonly [string, (a: Session, b: Session) => Promise<unknown>][] = [
        [
          'logged out by another',
          (a, b) => {
            b.cmdSN = a.cmdSN;
            return b.logout(CLOSE_CONNECTION, 1);
          },
        ],
        [
          'lost',
          (a) => {
            a.connection.destroy();
            return Promise.resolve();
          },
        ],
        ['logged out by itself', (a) => a.logout(CLOSE_CONNECTION, 1)],
        ['reinstated', (a) => join(target, a, 1)],
      ];
      for (const [how, leave] of ways) {
        const a = await Session.login(target, { keys: { ...SOLICITED, MaxConnections: '2' }, cid: 1 });
        const b = await join(target, a, 2);
        await waitingWrite(a);
        await leave(a, b);
        b.cmdSN = a.cmdSN;
        t.comment(how);
        await toldOfCleared(t, b);
        t.equal(await nextSense(b), 'good', 'once');
        t.not(await nextSense(b, 1), '06/47/7f', 'not for a unit that had no task');
        t.equal((await b.logout(0)).response, 0);
      }
    },
  },
  {
    id: 'FIELD-04',
    clause: 'RFC 7143 §11.17.4',
    level: 'MUST',
    text: 'a Reject carries the whole header that it refuses, additional segments included where the initiator takes so much',
    async run(t, target) {
      for (const [declared, bytes] of [
        ['8192', 48 + 600],
        ['512', 48],
      ] as const) {
        const session = await Session.login(target, { keys: { MaxRecvDataSegmentLength: declared } });
        const pdu = new Pdu().u8(0, 0x5c).u8(1, 0x80).u32(16, 77).u32(24, session.cmdSN);
        pdu.u32(28, session.expStatSN).ahs = ahs(1, Buffer.alloc(597, 0x41));
        const { data } = await rejectedFor(t, session, pdu, 5, 'not supported');
        t.ok(data.equals(encode(pdu).subarray(0, bytes)), `${data.length} bytes`);
        t.same(await session.fence(), []);
      }
    },
  },
  {
    id: 'FIELD-05',
    clause: 'RFC 7143 §11.17.2, §11.16',
    level: 'MUST',
    text: 'a Reject of a Data/R2T SNACK for what was never sent says which number would come next',
    async run(t, target) {
      const session = await Session.login(target, { keys: { ErrorRecoveryLevel: '1' } });
      if (session.agreed.get('ErrorRecoveryLevel') !== '1') return;
      const read = 32_768;
      session.acknowledged = session.expStatSN;
      const itt = session.sendCommand({ cdb: read10(0, read / session.blockBytes), read });
      const sent = (await session.finish(itt, { read })).pdus.filter(({ opcode }) => opcode === OP.DATA_IN);
      const { expStatSN } = session;
      const request = snack({ type: SNACK.DATA_OR_R2T, itt, expStatSN, begin: 99, run: 1 });
      const reject = await rejectedFor(t, session, request, PROTOCOL_ERROR, 'never sent');
      t.equal(reject.dataSN, sent.length);
    },
  },
  {
    id: 'FIELD-06',
    clause: 'RFC 7143 §11, §11.3.1, §11.2.2.1, §11.14.1, §11.16.1',
    level: 'MUST',
    text: 'reserved codes of requests are rejected as a protocol error (4): task attributes, AHS types, logout reasons, SNACK types; the session goes on',
    async run(t, target) {
      const session = await Session.login(target, { keys: { ErrorRecoveryLevel: '1' } });
      const { expStatSN } = session;
      for (const attribute of [5, 6, 7]) {
        const pdu = session.commandPdu({ cdb: testUnitReady(), attribute, cmdSN: session.cmdSN });
        await rejectedFor(t, session, pdu, PROTOCOL_ERROR, `attribute ${attribute}`);
      }
      for (const type of [0, 3, 0x3f]) {
        const pdu = session.commandPdu({ cdb: testUnitReady(), cmdSN: session.cmdSN });
        pdu.ahs = ahs(type, Buffer.alloc(5));
        await rejectedFor(t, session, pdu, PROTOCOL_ERROR, `AHS type ${type}`);
      }
      for (const reason of [3, 0x7f]) {
        const pdu = logoutRequest({ itt: 1, cmdSN: session.cmdSN, expStatSN, immediate: true, reason });
        await rejectedFor(t, session, pdu, PROTOCOL_ERROR, `logout reason ${reason}`);
      }
      if (session.agreed.get('ErrorRecoveryLevel') === '1')
        for (const type of [4, 15]) {
          const pdu = snack({ type, itt: 1, expStatSN, begin: 0, run: 0 });
          await rejectedFor(t, session, pdu, PROTOCOL_ERROR, `SNACK type ${type}`);
        }
      t.equal((await session.execute({ cdb: testUnitReady() })).status, STATUS.GOOD);
    },
  },
  {
    id: 'FIELD-07',
    clause: 'RFC 7143 §11, §11.12.5',
    level: 'MUST',
    text: 'an ISID of the reserved type 11b is refused with 0200h; the other three are taken',
    async run(t, target) {
      for (const [type, status] of [
        [0x00, 0],
        [0x40, 0],
        [0x80, 0],
        [0xc0, LOGIN_STATUS.INITIATOR_ERROR],
      ] as const) {
        const id = Buffer.from(isid(0x2000));
        id[0] = type;
        const { answer } = await answerTo(target, id, {});
        t.equal(answer.pdu.loginStatus, status, `type ${type >> 6}`);
        t.ok(answer.pdu.isid.equals(id));
      }
    },
  },
  {
    id: 'FIELD-08',
    clause: 'RFC 7143 §11.12.4.1, §11.12.4.2',
    level: 'MUST',
    text: 'the versions of the first Login Request count, whatever later ones of the same login say',
    async run(t, target) {
      const session = await Session.connect(target);
      const id = target.freshIsid();
      await session.loginStep({ transit: false, csg: STAGE.OPERATIONAL, isid: id }, namesFor(target));
      const { pdu } = await session.loginStep({ ...operational, isid: id, versionMin: 1, versionMax: 1 });
      t.equal(pdu.loginStatus, 0);
      t.ok(pdu.final);
    },
  },
  {
    id: 'FIELD-09',
    clause: 'RFC 7143 §13.17, §13.19',
    level: 'MUST',
    text: 'MaxOutstandingR2T is 1 where errors are recovered and sequences are in order, in whatever order the keys come; else the minimum',
    async run(t, target) {
      for (const [keys, agreed] of [
        [{ MaxOutstandingR2T: '4', ErrorRecoveryLevel: '1', DataSequenceInOrder: 'Yes' }, '1'],
        [{ ErrorRecoveryLevel: '2', MaxOutstandingR2T: '4' }, '1'],
        [{ MaxOutstandingR2T: '4', ErrorRecoveryLevel: '1', DataSequenceInOrder: 'No' }, '4'],
        [{ MaxOutstandingR2T: '4', ErrorRecoveryLevel: '0', DataSequenceInOrder: 'Yes' }, '4'],
      ] as const) {
        const { answer } = await answerTo(target, target.freshIsid(), keys);
        const level = 'ErrorRecoveryLevel' in keys ? only(answer, 'ErrorRecoveryLevel') : '0';
        if (level !== keys.ErrorRecoveryLevel) continue;
        t.equal(only(answer, 'MaxOutstandingR2T'), agreed, JSON.stringify(keys));
      }
    },
  },
  {
    id: 'FIELD-10',
    clause: 'RFC 7144 §4.2, §7.1.1; SPC-6 §6.6.2',
    level: 'MUST',
    text: 'the iSCSI version descriptor of standard INQUIRY data is 0960h and the protocol level that was negotiated, 1 if none was',
    async run(t, target) {
      for (const [level, descriptor] of [
        ['0', 0x0960],
        ['1', 0x0961],
        ['2', 0x0962],
        [undefined, 0x0961],
      ] as const) {
        const session = await Session.login(
          target,
          level === undefined ? {} : { keys: { iSCSIProtocolLevel: level } },
        );
        for (const lun of [session.lun, 99]) {
          const { data } = await session.execute({ cdb: inquiry(96), read: 96, lun });
          const found = Array.from({ length: 8 }, (_, index) => data.readUInt16BE(58 + 2 * index));
          t.same(
            found.filter((code) => code >= 0x0960 && code <= 0x097f),
            [descriptor],
            `level ${level}, LUN ${lun}`,
          );
        }
      }
    },
  },
  {
    id: 'FIELD-12',
    clause: 'RFC 7143 §11, §11.2.1, §11.6.2, §11.8.1, §11.15.2; RFC 7144 §5.2.1',
    level: 'MUST',
    text: 'each kind of PDU that a target sends has an opcode of a target, no header segments, data only where it may, and 0 in all that is reserved',
    async run(t, target) {
      const session = await Session.connect(target);
      const seen = new Map<number, Pdu>();
      const see = (...pdus: (Pdu | undefined)[]): void => {
        for (const pdu of pdus) if (pdu !== undefined) seen.set(pdu.opcode, pdu);
      };
      see((await session.enter(target, { keys: SOLICITED })).pdu);
      const data = Buffer.alloc(session.blockBytes, 0x11);
      see(...(await session.execute({ cdb: write10(1300, 1), write: data })).pdus);
      see(...(await session.execute({ cdb: read10(1300, 1), read: data.length })).pdus);
      see(...(await session.execute({ cdb: Buffer.alloc(6, 0xff) })).pdus);
      see(
        (await session.text({ 'X-org.example.a': '1' })).pdu,
        await session.manage(TASK_FUNCTION.ABORT_TASK),
      );
      const other = await Session.login(target);
      t.equal((await other.manage(TASK_FUNCTION.LOGICAL_UNIT_RESET)).response, COMPLETE);
      see(await session.expect(OP.ASYNC));
      const { cmdSN, expStatSN } = session;
      session.connection.send(
        nopOut({ itt: 56, immediate: true, cmdSN, expStatSN, data: Buffer.from('echo') }),
      );
      see(await session.expect(OP.NOP_IN));
      see(await rejectedFor(t, session, new Pdu().u8(0, 0x5c).u32(28, expStatSN), 5, 'unknown'));
      see(await session.logout(0), ...(await session.connection.untilClosed()));
      t.same([...seen.keys()].sort(), TARGET_OPCODES);
      for (const opcode of [OP.R2T, OP.TASK_MANAGEMENT_RESPONSE, OP.LOGOUT_RESPONSE])
        t.equal(seen.get(opcode)?.dataSegmentLength, 0);
      // wire.ts has looked at the rest: it finds what is planted.
      for (const pdu of seen.values()) {
        const rules = new WireRules();
        rules.check(pdu);
        t.same(rules.violations, []);
        rules.expStatSN = undefined;
        pdu.u8(4, 1);
        rules.check(pdu);
        t.match(rules.violations, [/AHS/]);
      }
    },
  },
  {
    id: 'FIELD-13',
    clause: 'RFC 7143 §11.4.5.3',
    level: 'MUST',
    text: 'what an allocation length cuts off is no overflow; where less comes than was expected, by it or by itself, it is an underflow',
    async run(t, target) {
      const session = await Session.login(target);
      const all = (await session.execute({ cdb: reportLuns(4096), read: 4096 })).data;
      t.ok(all.length > 16, 'a list of more than one');
      for (const [allocation, edtl, comes] of [
        [16, 16, 16],
        [16, 64, 16],
        [4096, 4096, all.length],
        [all.length, all.length, all.length],
      ] as const) {
        const outcome = await session.execute({ cdb: reportLuns(allocation), read: edtl });
        t.equal(outcome.data.length, comes);
        t.notOk(outcome.overflow);
        t.same([outcome.underflow, outcome.residual], [edtl > comes, edtl - comes]);
        t.equal(outcome.data.readUInt32BE(0), all.length - 8, 'LUN LIST LENGTH is not cut');
      }
    },
  },
  {
    id: 'FIELD-14',
    clause: 'RFC 7143 §11.12.5, §11.12.6, §11.12.7, §11.13.5',
    level: 'MUST',
    text: 'ISID, TSIH, CID and ITT of the first Login Request count: a later one of the same login that has others is refused with 0200h, and the connection closed',
    async run(t, target) {
      for (const change of [{ isid: isid(0x2001) }, { tsih: 99 }, { cid: 9 }, { itt: 77 }]) {
        const session = await Session.connect(target);
        const id = target.freshIsid();
        await session.loginStep({ transit: false, csg: STAGE.OPERATIONAL, isid: id }, namesFor(target));
        const { pdu } = await session.loginStep({ ...operational, isid: id, ...change });
        t.equal(pdu.loginStatus, LOGIN_STATUS.INITIATOR_ERROR, Object.keys(change)[0]);
        t.same(await session.connection.untilClosed(), []);
      }
    },
  },
  {
    id: 'FIELD-15',
    clause: 'RFC 7143 §11.12.10, §11.13.6, §11.13.8',
    level: 'MUST',
    text: 'no key of §13 is one that the target does not know, and a response that grants T proposes nothing: it answers, and declares',
    async run(t, target) {
      const { answer } = await answerTo(target, target.freshIsid(), KEYS);
      t.equal(answer.pdu.loginStatus, 0);
      t.ok(answer.pdu.final);
      for (const [key, value] of answer.keys) {
        t.not(value, 'NotUnderstood', key);
        t.ok(key in KEYS || DECLARED.has(key), `${key} is an answer, or a declaration`);
      }
      const answered = new Set(answer.keys.map(([key]) => key));
      t.same(
        Object.keys(KEYS).filter((key) => !answered.has(key)),
        ['InitiatorAlias', 'X#NodeArchitecture'],
        'all but declarations are answered',
      );
    },
  },
  {
    id: 'FIELD-16',
    clause: 'RFC 7143 §13, §13.2, §13.10',
    level: 'MUST',
    text: 'keys that belong to the leading login are rejected on another connection, and what the session has agreed on stays',
    needs: ({ pid }) => pid !== undefined,
    async run(t, target) {
      const keys = { ...SOLICITED, MaxConnections: '2', MaxBurstLength: '4096' };
      const lead = await Session.login(target, { keys, cid: 1 });
      const offered = {
        InitialR2T: 'No',
        MaxBurstLength: '65536',
        MaxConnections: '1',
        ErrorRecoveryLevel: '0',
      };
      const second = await join(target, lead, 2, { keys: offered });
      for (const key of Object.keys(offered)) t.equal(second.agreed.get(key), 'Reject', key);
      second.cmdSN = lead.cmdSN;
      const write = Buffer.alloc(8192, 0x21);
      const outcome = await second.execute({ cdb: write10(1400, 8192 / lead.blockBytes), write });
      t.same(
        outcome.r2ts.map(({ desiredLength }) => desiredLength),
        [4096, 4096],
      );
      t.equal(outcome.status, STATUS.GOOD);
    },
  },
  {
    id: 'FIELD-17',
    clause: 'RFC 7143 §11.16',
    level: 'MUST',
    text: 'what a SNACK brings again carries ExpCmdSN and MaxCmdSN of now, an R2T StatSN, too',
    async run(t, target) {
      const session = await Session.login(target, { keys: { ...SOLICITED, ErrorRecoveryLevel: '1' } });
      if (session.agreed.get('ErrorRecoveryLevel') !== '1') return;
      session.acknowledged = session.expStatSN;
      const { r2t, data } = await waitingWrite(session);
      const read = session.blockBytes;
      const itt = session.sendCommand({ cdb: read10(0, 1), read });
      const [dataIn, response] = (await session.finish(itt, { read })).pdus;
      if (dataIn === undefined || response === undefined) throw new Error('data or status is missing');
      for (let n = 0; n < 3; n++) await session.execute({ cdb: testUnitReady() });
      const now = session.connection.rules.expStatSN;
      const { expStatSN } = session;
      for (const [first, type, tag, begin] of [
        [dataIn, SNACK.DATA_OR_R2T, itt, 0],
        [response, SNACK.STATUS, 0xffffffff, response.statSN],
        [r2t, SNACK.DATA_OR_R2T, r2t.itt, 0],
      ] as const) {
        session.connection.send(snack({ type, itt: tag, expStatSN, begin, run: 1 }));
        const again = await session.expect(first.opcode);
        t.equal(again.expCmdSN, session.cmdSN, `ExpCmdSN of ${first.opcode}`);
        t.ok(again.expCmdSN > first.expCmdSN && again.maxCmdSN > first.maxCmdSN);
        t.equal(again.statSN, first === r2t ? now : first.statSN, 'StatSN');
      }
      session.answerR2T(r2t, data);
      t.equal((await session.finish(r2t.itt, {})).status, STATUS.GOOD);
    },
  },
  {
    id: 'FIELD-18',
    clause: 'RFC 7143 §11.7.7',
    level: 'SHOULD',
    text: 'Data-In without F are filled to whole words, also where the declared lengths are none; a ping is echoed to the last byte',
    async run(t, target) {
      for (const level of ['0', '1']) {
        const session = await Session.login(target, {
          keys: { MaxRecvDataSegmentLength: '1001', MaxBurstLength: '4099', ErrorRecoveryLevel: level },
        });
        const read = 32 * session.blockBytes;
        const { pdus, data } = await session.execute({ cdb: read10(0, 32), read });
        t.equal(data.length, read);
        const odd = pdus.filter(
          (pdu) => pdu.opcode === OP.DATA_IN && !pdu.final && pdu.data.length % 4 !== 0,
        );
        t.same(odd, []);
        const { cmdSN, expStatSN } = session;
        const ping = nopOut({ itt: 57, immediate: true, cmdSN, expStatSN, data: Buffer.alloc(1200, 0x70) });
        session.connection.send(ping);
        t.equal((await session.expect(OP.NOP_IN)).data.length, 1001);
      }
    },
  },
  {
    id: 'FIELD-11',
    clause: 'RFC 7143 §11.19, §11.19.3',
    level: 'MUST',
    text: 'the answer to a ping that names a LUN carries the reserved TTT, so that its own LUN field is reserved',
    async run(t, target) {
      const session = await Session.login(target);
      const { cmdSN, expStatSN } = session;
      session.connection.send(nopOut({ itt: 55, immediate: true, cmdSN, expStatSN, lun: 7 }));
      const pdu = await session.expect(OP.NOP_IN);
      t.equal(pdu.ttt, 0xffffffff);
      t.ok(pdu.bhs.subarray(8, 16).every((byte) => byte === 0));
    },
  },
];
