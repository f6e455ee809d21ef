/**
 * The course of a text negotiation, in login and full feature phase (RFC 7143 §6.1 to §6.4): what may be proposed, what
 * an answer may be, how long one is, and when values hold. What each key comes to is in negotiation.ts.
 */
import { decodeKeys, encodeKeys, valuesOf, type Keys } from './keys.js';
import { LOGIN_STATUS, namesFor } from './login.js';
import { NO_TAG, OP, STAGE, textRequest, type Pdu } from './pdu.js';
import type { Requirement, Tap } from './requirement.js';
import { read10, STATUS } from './scsi.js';
import { INITIATOR_NAME, only, Session } from './session.js';
import type { Target } from './target.js';

const { SECURITY, OPERATIONAL, FULL_FEATURE } = STAGE;
const PROTOCOL_ERROR = 4;
const INVALID_PDU_FIELD = 9;
const TOO_LONG = 'x'.repeat(8193);

/** Keys in the first request of a login, in a stage that is not left. */
async function offered(target: Target, keys: Keys, csg: number = OPERATIONAL): Promise<Pdu> {
  const session = await Session.connect(target);
  const pairs = keys instanceof Array ? keys : Object.entries(keys);
  const all = [...Object.entries(namesFor(target)), ...pairs];
  return (await session.loginStep({ transit: false, csg, isid: target.freshIsid() }, all)).pdu;
}

/** A Text Request whose answer may be anything; the CmdSN of one that is rejected is used again (§7.3). */
async function asked(
  session: Session,
  keys: Keys | Buffer,
  options: { final?: boolean; more?: boolean; ttt?: number; itt?: number } = {},
): Promise<Pdu> {
  const data = Buffer.isBuffer(keys) ? keys : encodeKeys(keys);
  const { expStatSN } = session;
  const itt = options.itt ?? session.nextTag();
  session.connection.send(textRequest({ cmdSN: session.takeCmdSN(), expStatSN, ...options, itt, data }));
  const pdu = await session.next();
  if (pdu === undefined) throw new Error('the target closed instead of answering a Text Request');
  if (pdu.opcode === OP.REJECT) session.cmdSN = pdu.expCmdSN;
  return pdu;
}

/** Longest data segment of a read of 8 KiB: what the target takes this side's MaxRecvDataSegmentLength for. */
async function segmentBytes(t: Tap, session: Session): Promise<number> {
  const outcome = await session.execute({ cdb: read10(0, 8192 / session.blockBytes), read: 8192 });
  t.equal(outcome.status, STATUS.GOOD);
  return Math.max(...outcome.pdus.map(({ data }) => data.length));
}

const proposals: readonly Requirement[] = [
  {
    id: 'NEG-39',
    clause: 'RFC 7143 §6.2, §7.12',
    level: 'MUST',
    text: 'Reject, Irrelevant and NotUnderstood as a proposal are a protocol error: in a login 0200h, later Reject (reason 4)',
    async run(t, target) {
      for (const [key, value] of [
        ['MaxBurstLength', 'Reject'],
        ['InitialR2T', 'Irrelevant'],
        ['HeaderDigest', 'NotUnderstood'],
        ['HeaderDigest', 'CRC32C,Reject,None'],
        ['TaskReporting', 'Irrelevant'],
        ['InitiatorAlias', 'NotUnderstood'],
        ['MaxRecvDataSegmentLength', 'Reject'],
        ['X-org.example.key', 'Irrelevant'],
        ['IFMarker', 'Reject'],
      ] as const)
        t.equal(
          (await offered(target, { [key]: value })).loginStatus,
          LOGIN_STATUS.INITIATOR_ERROR,
          `${key}=${value}`,
        );
      t.equal(
        (await offered(target, { AuthMethod: 'Reject' }, SECURITY)).loginStatus,
        LOGIN_STATUS.INITIATOR_ERROR,
        'AuthMethod=Reject',
      );
      for (const keys of [
        { 'X-org.example.key': 'Reject' },
        { SendTargets: 'Irrelevant' },
        { InitialR2T: 'Reject' },
      ]) {
        const session = await Session.login(target);
        const pdu = await asked(session, keys);
        t.equal(pdu.opcode, OP.REJECT, JSON.stringify(keys));
        t.equal(pdu.response, PROTOCOL_ERROR);
        t.same(await session.fence(), [], 'and the session goes on');
      }
    },
  },
  {
    id: 'NEG-43',
    clause: 'RFC 7143 §6.2',
    level: 'MUST',
    text: 'None is a value of lists where it is offered, and no proposal for numbers and yes or no',
    async run(t, target) {
      for (const key of ['MaxBurstLength', 'InitialR2T', 'ErrorRecoveryLevel', 'MaxRecvDataSegmentLength'])
        t.equal((await offered(target, { [key]: 'None' })).loginStatus, LOGIN_STATUS.INITIATOR_ERROR, key);
      const lists = await offered(target, {
        HeaderDigest: 'None',
        TaskReporting: 'None',
        InitiatorAlias: 'None',
      });
      t.equal(lists.loginStatus, 0);
      const keys = decodeKeys(lists.data);
      t.same(valuesOf(keys, 'HeaderDigest'), ['None']);
      t.same(valuesOf(keys, 'TaskReporting'), ['Reject'], 'a list without any value that is known');
    },
  },
  {
    id: 'NEG-44',
    clause: 'RFC 7143 §6.2, §7.12',
    level: 'MUST',
    text: 'NotUnderstood for what the target has declared is a protocol error, since all know the keys of the standard, and Reject a failure: the login ends with 0200h; Irrelevant hinders nothing',
    async run(t, target) {
      for (const key of ['TargetPortalGroupTag', 'MaxRecvDataSegmentLength'])
        for (const word of ['NotUnderstood', 'Reject', 'Irrelevant']) {
          const session = await Session.connect(target);
          const common = { isid: target.freshIsid() };
          const first = await session.loginStep(
            { ...common, transit: false, csg: OPERATIONAL },
            namesFor(target),
          );
          t.match(only(first, key), /^\d+$/);
          const second = await session.loginStep(
            { ...common, transit: true, csg: OPERATIONAL, nsg: FULL_FEATURE },
            { [key]: word },
          );
          const expected = word === 'Irrelevant' ? 0 : LOGIN_STATUS.INITIATOR_ERROR;
          t.equal(second.pdu.loginStatus, expected, `${key}=${word}`);
          if (expected === 0) t.same(second.keys, [], 'an answer is not answered');
          else t.same(await session.connection.untilClosed(), []);
        }
    },
  },
  {
    id: 'NEG-45',
    clause: 'RFC 7143 §13.3, Appendix C',
    level: 'MUST',
    text: 'SendTargets during a login is refused, in both stages and session types, and tells of no target',
    async run(t, target) {
      for (const csg of [SECURITY, OPERATIONAL]) {
        const pdu = await offered(target, { SendTargets: 'All' }, csg);
        t.same(valuesOf(decodeKeys(pdu.data), 'SendTargets'), ['Reject'], `stage ${csg}`);
        t.notOk(pdu.data.includes('TargetName='));
      }
      const session = await Session.connect(target);
      const { keys } = await session.loginStep(
        { transit: false, csg: OPERATIONAL, isid: target.freshIsid() },
        { InitiatorName: INITIATOR_NAME, SessionType: 'Discovery', SendTargets: 'All' },
      );
      t.same(valuesOf(keys, 'SendTargets'), ['Reject']);
      t.same(valuesOf(keys, 'TargetName'), []);
    },
  },
  {
    id: 'NEG-46',
    clause: 'RFC 7143 §13.25',
    level: 'MUST',
    text: 'markers are refused wherever they are offered, in each stage and later, and are never NotUnderstood',
    async run(t, target) {
      const offers = [
        ['IFMarker', 'Yes'],
        ['OFMarker', 'No'],
        ['IFMarkInt', '2048'],
        ['OFMarkInt', '2048~8192'],
      ] as const;
      const judge = (pdu: Pdu, where: string): void => {
        const keys = decodeKeys(pdu.data);
        t.same(valuesOf(keys, 'IFMarker'), ['Reject'], where);
        t.ok(['No', 'Reject'].includes(valuesOf(keys, 'OFMarker').join()), where);
        t.same(valuesOf(keys, 'IFMarkInt'), ['Reject'], where);
        t.same(valuesOf(keys, 'OFMarkInt'), ['Reject'], where);
      };
      judge(await offered(target, offers, SECURITY), 'security');
      judge(await offered(target, offers, OPERATIONAL), 'operational');
      judge(await asked(await Session.login(target), offers), 'full feature phase');
      const discovery = await Session.login(target, { discovery: true });
      judge(await asked(discovery, [...offers, ['SendTargets', target.iqn]]), 'discovery');
    },
  },
];

const lengths: readonly Requirement[] = [
  {
    id: 'LOGIN-51',
    clause: 'RFC 7143 §6.2, §11.13, §13.12',
    level: 'MUST',
    text: 'login answers come in pieces of the MaxRecvDataSegmentLength that was declared, with C=1, no T, and no key lost',
    async run(t, target) {
      const unknown = Array.from({ length: 60 }, (_, n): [string, string] => [`X-org.example.key-${n}`, '1']);
      for (const bytes of [512, 700]) {
        const session = await Session.connect(target);
        const fields = { transit: true, csg: OPERATIONAL, nsg: FULL_FEATURE, isid: target.freshIsid() };
        session.sendLogin(fields, [
          ...Object.entries(namesFor(target)),
          ['MaxRecvDataSegmentLength', String(bytes)],
          ...unknown,
        ]);
        let pdu = await session.expect(OP.LOGIN_RESPONSE);
        const parts = [pdu.data];
        for (let round = 0; pdu.continues && round < 20; round++) {
          t.ok(pdu.data.length <= bytes, `${pdu.data.length} bytes of ${bytes}`);
          t.notOk(pdu.final, 'T is not set while the answer goes on');
          session.sendLogin(fields);
          pdu = await session.expect(OP.LOGIN_RESPONSE);
          parts.push(pdu.data);
        }
        t.ok(parts.length > 2);
        t.ok(pdu.final);
        const answered = decodeKeys(Buffer.concat(parts)).filter(([, value]) => value === 'NotUnderstood');
        t.same(
          answered.map(([key]) => key),
          unknown.map(([key]) => key),
          'each answered once, in order',
        );
      }
    },
  },
  {
    id: 'LOGIN-53',
    clause: 'RFC 7143 §13.12',
    level: 'MUST',
    text: 'login answers have 8,192 bytes at most while the initiator has declared nothing, or more',
    async run(t, target) {
      for (const declared of [[], [['MaxRecvDataSegmentLength', '65536'] as const]]) {
        const session = await Session.connect(target);
        const common = { csg: OPERATIONAL, isid: target.freshIsid() };
        const unknown = Array.from({ length: 118 }, (_, n) => [`X-${n}-`.padEnd(63, 'x'), ''] as const);
        const data = encodeKeys([...Object.entries(namesFor(target)), ...declared, ...unknown]);
        t.ok(data.length <= 8192);
        session.sendLogin({ ...common, transit: false, data });
        const first = await session.expect(OP.LOGIN_RESPONSE);
        t.equal(first.loginStatus, 0);
        t.ok(first.continues, 'the answer is longer than that');
        t.ok(first.data.length <= 8192, `${first.data.length} bytes`);
      }
    },
  },
];

const limits: readonly Requirement[] = [
  {
    id: 'NEG-51',
    clause: 'RFC 7143 §6.1',
    level: 'MUST',
    text: 'key names of 63 bytes and texts of 255 are taken; a longer name ends the negotiation, a longer text is refused',
    async run(t, target) {
      const name = 'X-org.example.'.padEnd(63, 'n');
      const good = await offered(target, { [name]: '1', InitiatorAlias: 'a'.repeat(255) });
      t.same(
        decodeKeys(good.data).filter(([key]) => key === name || key === 'InitiatorAlias'),
        [[name, 'NotUnderstood']],
      );
      t.equal((await offered(target, { [`${name}n`]: '1' })).loginStatus, LOGIN_STATUS.INITIATOR_ERROR);
      const long = await offered(target, { InitiatorAlias: 'a'.repeat(256) });
      t.same(valuesOf(decodeKeys(long.data), 'InitiatorAlias'), ['Reject']);
      const pdu = await asked(await Session.login(target), { [`${name}n`]: '1' });
      t.equal(pdu.opcode, OP.REJECT);
      t.equal(pdu.response, PROTOCOL_ERROR);
    },
  },
  {
    id: 'NEG-52',
    clause: 'RFC 7143 §6.1, §11.10.2',
    level: 'MUST',
    text: 'text of 16 PDUs with C=1 is taken, in login and full feature phase, each key answered once',
    async run(t, target) {
      const unknown = Array.from({ length: 96 }, (_, n): [string, string] => [
        `X-org.example.key-${n}`,
        'v'.repeat(1000),
      ]);
      const data = encodeKeys(unknown.slice(0, 60));
      const pieceBytes = Math.ceil(data.length / 16);
      const session = await Session.login(target);
      const itt = session.nextTag();
      let ttt: number = NO_TAG;
      let pdu: Pdu | undefined;
      for (let at = 0; at < data.length; at += pieceBytes) {
        const more = at + pieceBytes < data.length;
        pdu = await asked(session, data.subarray(at, at + pieceBytes), { ttt, itt, more, final: !more });
        if (more) t.equal(pdu.data.length, 0);
        ttt = pdu.ttt;
      }
      t.same(
        decodeKeys(pdu?.data ?? Buffer.alloc(0)),
        unknown.slice(0, 60).map(([key]) => [key, 'NotUnderstood']),
      );
    },
  },
];

const course: readonly Requirement[] = [
  {
    id: 'LOGIN-52',
    clause: 'RFC 7143 §7.12, §6.3, §13.4, §13.5, §13.21',
    level: 'MUST',
    text: 'SessionType, InitiatorName and TargetName belong to the first request: later they end the login with 0200h',
    async run(t, target) {
      for (const [key, value] of [
        ['SessionType', 'Discovery'],
        ['SessionType', 'Normal'],
        ['InitiatorName', INITIATOR_NAME],
        ['TargetName', target.iqn],
      ] as const) {
        for (const discovery of key === 'TargetName' ? [true, false] : [false]) {
          const session = await Session.connect(target);
          const common = { isid: target.freshIsid() };
          const first = await session.loginStep(
            { ...common, transit: false, csg: OPERATIONAL },
            {
              InitiatorName: INITIATOR_NAME,
              ...(discovery ? { SessionType: 'Discovery' } : { TargetName: target.iqn }),
            },
          );
          t.equal(first.pdu.loginStatus, 0);
          const { pdu } = await session.loginStep(
            { ...common, transit: true, csg: OPERATIONAL, nsg: FULL_FEATURE },
            { [key]: value },
          );
          t.equal(pdu.loginStatus, LOGIN_STATUS.INITIATOR_ERROR, `${key}=${value}`);
          t.same(await session.connection.untilClosed(), []);
        }
      }
    },
  },
  {
    id: 'NEG-47',
    clause: 'RFC 7143 §6.2, §6.2, §6.4, §11.10.1',
    level: 'MUST',
    text: 'values of a text negotiation hold from its end (F=1 on both sides), and not before',
    async run(t, target) {
      const session = await Session.login(target, { keys: { MaxRecvDataSegmentLength: '8192' } });
      const open = await asked(session, { MaxRecvDataSegmentLength: '512' }, { final: false });
      t.notOk(open.final);
      t.equal(await segmentBytes(t, session), 8192, 'the negotiation is open');
      const end = await asked(session, {}, { ttt: open.ttt, itt: open.itt });
      t.ok(end.final);
      t.equal(await segmentBytes(t, session), 512, 'it is over');
    },
  },
  {
    id: 'NEG-48',
    clause: 'RFC 7143 §6.2, §6.4, §11.10.4',
    level: 'MUST',
    text: 'a text negotiation that the initiator resets, or gives up, leaves every value as it was',
    async run(t, target) {
      const session = await Session.login(target, { keys: { MaxRecvDataSegmentLength: '8192' } });
      await asked(session, { MaxRecvDataSegmentLength: '512' }, { final: false });
      const fresh = await asked(session, { 'X-org.example.a': '1' }, { ttt: NO_TAG });
      t.ok(fresh.final, 'a new exchange');
      t.equal(await segmentBytes(t, session), 8192);
      const again = await asked(session, { MaxRecvDataSegmentLength: '1024' });
      t.ok(again.final);
      t.equal(await segmentBytes(t, session), 1024, 'and the key may be named again');
    },
  },
  {
    id: 'NEG-49',
    clause: 'RFC 7143 §6.2, §6.4, §7.12',
    level: 'MUST',
    text: 'a text negotiation that fails is answered by Reject and leaves every value as it was, also those that were in order',
    async run(t, target) {
      for (const bad of [
        encodeKeys([
          ['MaxRecvDataSegmentLength', '512'],
          ['MaxRecvDataSegmentLength', '1024'],
        ]),
        encodeKeys({ MaxRecvDataSegmentLength: '512', InitialR2T: 'Reject' }),
        Buffer.from('MaxRecvDataSegmentLength=512\0no pair\0'),
        encodeKeys({ MaxRecvDataSegmentLength: '512', 'X-org.example.long': TOO_LONG }),
      ]) {
        const session = await Session.login(target, { keys: { MaxRecvDataSegmentLength: '8192' } });
        const pdu = await asked(session, bad);
        t.equal(pdu.opcode, OP.REJECT);
        t.equal(pdu.response, PROTOCOL_ERROR);
        t.equal(await segmentBytes(t, session), 8192);
      }
      const session = await Session.login(target, { keys: { MaxRecvDataSegmentLength: '8192' } });
      const open = await asked(session, { MaxRecvDataSegmentLength: '512' }, { final: false });
      const wrong = await asked(session, {}, { ttt: open.ttt + 77, itt: open.itt });
      t.equal(wrong.opcode, OP.REJECT);
      t.equal(wrong.response, INVALID_PDU_FIELD);
      t.equal(await segmentBytes(t, session), 8192);
    },
  },
  {
    id: 'NEG-50',
    clause: 'RFC 7143 §6.2, §6.4, §13.12',
    level: 'MUST',
    text: 'an answer that continues belongs to its negotiation: new values hold when its last piece has gone',
    async run(t, target) {
      const session = await Session.login(target, { keys: { MaxRecvDataSegmentLength: '512' } });
      session.connection.maxRecvDataSegmentBytes = 512;
      const unknown = Array.from({ length: 30 }, (_, n) => [`X-org.example.key-${n}`, '1'] as const);
      let pdu = await asked(session, [['MaxRecvDataSegmentLength', '4096'], ...unknown]);
      for (let round = 0; pdu.continues && round < 20; round++) {
        t.equal(await segmentBytes(t, session), 512, 'the answer goes on');
        pdu = await asked(session, {}, { ttt: pdu.ttt, itt: pdu.itt });
      }
      t.ok(pdu.final);
      session.connection.maxRecvDataSegmentBytes = 4096;
      t.equal(await segmentBytes(t, session), 4096);
    },
  },
];

const tags: readonly Requirement[] = [
  {
    id: 'TEXT-09',
    clause: 'RFC 7143 §11.10.3, §4.2.5.3',
    level: 'MUST',
    text: 'all requests of an exchange have one ITT: another one with its TTT is rejected (reason 9), and the exchange is void',
    async run(t, target) {
      const session = await Session.login(target, { keys: { MaxRecvDataSegmentLength: '8192' } });
      const open = await asked(session, { MaxRecvDataSegmentLength: '512' }, { final: false });
      t.notOk(open.final);
      const other = await asked(session, {}, { ttt: open.ttt, itt: open.itt + 1 });
      t.equal(other.opcode, OP.REJECT);
      t.equal(other.response, INVALID_PDU_FIELD);
      t.equal(await segmentBytes(t, session), 8192);
      const late = await asked(session, {}, { ttt: open.ttt, itt: open.itt });
      t.equal(late.opcode, OP.REJECT, 'nothing is left of it');
    },
  },
  {
    id: 'TEXT-10',
    clause: 'RFC 7143 §6.4, §11.11.1, §11.11.4, §11.10.4',
    level: 'MUST',
    text: 'a Text Response with F carries the reserved TTT, one without F another one',
    async run(t, target) {
      const session = await Session.login(target);
      const open = await asked(session, { 'X-org.example.a': '1' }, { final: false });
      t.notOk(open.final);
      t.not(open.ttt, NO_TAG);
      const end = await asked(session, {}, { ttt: open.ttt, itt: open.itt });
      t.ok(end.final);
      t.equal(end.ttt, NO_TAG);
    },
  },
];

export const text: readonly Requirement[] = [...proposals, ...lengths, ...limits, ...course, ...tags];
