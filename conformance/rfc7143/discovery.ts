/** Discovery sessions, SendTargets and Text requests (RFC 7143 §4.3, §11.10, §11.11, §13.3, Appendix C). */
import { decodeKeys, encodeKeys, valuesOf } from './keys.js';
import {
  dataOut,
  encode,
  isid,
  logoutRequest,
  nopOut,
  NO_TAG,
  OP,
  scsiCommand,
  snack,
  STAGE,
  taskManagement,
  textRequest,
} from './pdu.js';
import type { Requirement, Tap } from './requirement.js';
import { inquiry } from './scsi.js';
import { INITIATOR_NAME, Session, type LoginAnswer } from './session.js';
import { ANY_PORT, site, startSite } from './site.js';
import type { Target } from './target.js';

const PROTOCOL_ERROR = 4;

/** All of SendTargets, however many PDUs the answer takes. */
async function sendTargets(t: Tap, session: Session, value: string): Promise<[string, string][]> {
  let { pdu } = await session.text({ SendTargets: value });
  const parts = [pdu.data];
  const tag = pdu.itt;
  for (let round = 0; !pdu.final || pdu.continues; round++) {
    t.not(pdu.ttt, NO_TAG, 'an answer that goes on carries a TTT');
    t.ok(round < 50, 'the answer ends');
    ({ pdu } = await session.text({}, { ttt: pdu.ttt, itt: tag }));
    parts.push(pdu.data);
  }
  t.equal(pdu.ttt, NO_TAG, 'the final answer carries the reserved TTT');
  return decodeKeys(Buffer.concat(parts));
}

/** What a discovery session of this initiator is told. */
export async function discovered(
  t: Tap,
  target: Target,
  initiatorName: string,
  value = 'All',
): Promise<[string, string][]> {
  return sendTargets(t, await Session.login(target, { discovery: true, initiatorName }), value);
}

const discover = (target: Target, keys: Record<string, string> = {}): Promise<Session> =>
  Session.login(target, { discovery: true, keys });

export const discovery: readonly Requirement[] = [
  {
    id: 'DISC-01',
    clause: 'RFC 7143 §4.3, §13.21',
    level: 'MUST',
    text: 'a discovery session needs no TargetName',
    async run(t, target) {
      const session = await discover(target);
      t.not(session.tsih, 0);
    },
  },
  {
    id: 'DISC-02',
    clause: 'RFC 7143 §13.3, Appendix C',
    level: 'MUST',
    text: 'SendTargets=All in a discovery session names every target with its addresses',
    async run(t, target) {
      const pairs = await sendTargets(t, await discover(target), 'All');
      t.equal(pairs[0]?.[0], 'TargetName', 'a target name comes first');
      t.ok(valuesOf(pairs, 'TargetName').includes(target.iqn));
      for (const address of valuesOf(pairs, 'TargetAddress')) {
        t.match(address, /^(\[[0-9a-f:]+\]|[^:]+)(:\d+)?,\d{1,5}$/, 'host, port and portal group tag');
      }
      t.same(
        [...new Set(pairs.map(([key]) => key))].filter(
          (key) => key !== 'TargetName' && key !== 'TargetAddress',
        ),
        [],
        'nothing else is sent',
      );
    },
  },
  {
    id: 'DISC-03',
    clause: 'RFC 7143 §13.3, Appendix C',
    level: 'MUST',
    text: 'SendTargets with a name gives that target only, with an unknown name nothing',
    async run(t, target) {
      const session = await discover(target);
      t.same(valuesOf(await sendTargets(t, session, target.iqn), 'TargetName'), [target.iqn]);
      t.same(await sendTargets(t, session, 'iqn.1999-12.org.example:none'), []);
    },
  },
  {
    id: 'DISC-04',
    clause: 'RFC 7143 §13.3, Appendix C',
    level: 'MUST',
    text: 'an empty SendTargets in a normal session gives the session’s own target',
    async run(t, target) {
      const pairs = await sendTargets(t, await Session.login(target), '');
      t.same(valuesOf(pairs, 'TargetName'), [target.iqn]);
    },
  },
  {
    id: 'DISC-05',
    clause: 'RFC 7143 §13.3, Appendix C',
    level: 'MUST',
    text: 'SendTargets=All in a normal session is refused',
    async run(t, target) {
      const session = await Session.login(target);
      const { pdu, keys } = await session.text({ SendTargets: 'All' });
      t.equal(pdu.opcode, OP.TEXT_RESPONSE);
      t.same(keys, [['SendTargets', 'Reject']]);
    },
  },
  {
    id: 'DISC-13',
    clause: 'RFC 7143 §6.2, §6.4',
    level: 'MUST',
    text: 'SendTargets that is repeated in one exchange is a protocol error (reason 4), so that no request is answered many times over',
    async run(t, target) {
      const session = await discover(target);
      session.connection.send(
        textRequest({
          itt: 7,
          cmdSN: session.takeCmdSN(),
          expStatSN: session.expStatSN,
          data: encodeKeys(Array.from({ length: 400 }, () => ['SendTargets', 'All'] as const)),
        }),
      );
      const reject = await session.expect(OP.REJECT);
      t.equal(reject.response, PROTOCOL_ERROR);
      session.cmdSN = reject.expCmdSN;
      t.ok(valuesOf(await sendTargets(t, session, 'All'), 'TargetName').length > 0, 'and asking goes on');
    },
  },
  {
    id: 'DISC-14',
    clause: 'RFC 7143 §4.3, §6.3.1',
    level: 'MUST',
    text: 'a discovery session has one connection: a login with a TSIH is refused with 020Ah',
    async run(t, target) {
      const { tsih } = await discover(target);
      for (const asked of [tsih, 0x4321]) {
        const session = await Session.connect(target);
        const { pdu } = await session.loginStep(
          {
            transit: true,
            csg: STAGE.OPERATIONAL,
            nsg: STAGE.FULL_FEATURE,
            isid: target.freshIsid(),
            tsih: asked,
            cid: 1,
          },
          { InitiatorName: INITIATOR_NAME, SessionType: 'Discovery' },
        );
        t.equal(pdu.loginStatus, 0x020a);
      }
    },
  },
  {
    id: 'DISC-06',
    clause: 'RFC 7143 §4.3',
    level: 'MUST',
    text: 'a discovery session serves SendTargets and the logout of the session only: every other request is rejected with its header, and takes no CmdSN',
    async run(t, target) {
      const session = await discover(target);
      const { cmdSN, expStatSN } = session;
      const numbers = { itt: 9, cmdSN, expStatSN };
      const immediate = { ...numbers, immediate: true };
      for (const [what, pdu] of Object.entries({
        command: scsiCommand({ ...numbers, flags: 0xc1, edtl: 36, cdb: inquiry(36) }),
        'immediate command': scsiCommand({ ...immediate, flags: 0xc1, edtl: 36, cdb: inquiry(36) }),
        'task management': taskManagement({ ...numbers, function: 5 }),
        ping: nopOut({ ...numbers, data: Buffer.from('ping') }),
        'immediate ping': nopOut(immediate),
        'answer to a ping': nopOut({ ...immediate, itt: NO_TAG, ttt: 7 }),
        'Data-Out': dataOut({ itt: 9, expStatSN, dataSN: 0, offset: 0, data: Buffer.alloc(4), final: true }),
        SNACK: snack({ type: 1, itt: NO_TAG, expStatSN, begin: 0, run: 0 }),
        'logout of the connection': logoutRequest({ ...immediate, reason: 1 }),
        'logout for recovery': logoutRequest({ ...numbers, reason: 2 }),
        'text without SendTargets': textRequest({ ...numbers, data: encodeKeys({ 'X-org.example.a': '1' }) }),
        'empty text': textRequest({ ...numbers, data: Buffer.alloc(0) }),
      })) {
        session.connection.send(pdu);
        const reject = await session.expect(OP.REJECT);
        t.ok(reject.data.equals(encode(pdu).subarray(0, 48)), what);
        t.equal(reject.expCmdSN, cmdSN, `${what}: no CmdSN is taken`);
      }
      t.ok(valuesOf(await sendTargets(t, session, 'All'), 'TargetName').includes(target.iqn), 'it goes on');
      t.equal((await session.logout(0)).response, 0);
    },
  },
  {
    id: 'DISC-07',
    clause: 'RFC 7143 §11.14.1, §11.15',
    level: 'MUST',
    text: 'a discovery session ends by a logout that closes the session',
    async run(t, target) {
      const session = await discover(target);
      const pdu = await session.logout(0);
      t.equal(pdu.response, 0);
      t.same(await session.connection.untilClosed(), []);
    },
  },
  {
    id: 'DISC-08',
    clause: 'RFC 7143 §11.11.2, §13.12, §11.11.6',
    level: 'MUST',
    text: 'an answer longer than the initiator’s MaxRecvDataSegmentLength comes in pieces',
    async run(t, target) {
      const session = await discover(target, { MaxRecvDataSegmentLength: '512' });
      // The rule of the wire on segment length is what fails here.
      t.ok(valuesOf(await sendTargets(t, session, 'All'), 'TargetName').includes(target.iqn));
    },
  },
  {
    id: 'DISC-09',
    clause: 'RFC 7143 §7.4.2, §6.3.5',
    level: 'MUST',
    text: 'discovery sessions of one initiator with different ISIDs stand beside each other',
    async run(t, target) {
      const one = await discover(target);
      const two = await discover(target);
      t.ok(valuesOf(await sendTargets(t, one, 'All'), 'TargetName').includes(target.iqn));
      t.ok(valuesOf(await sendTargets(t, two, 'All'), 'TargetName').includes(target.iqn));
    },
  },
  {
    id: 'DISC-10',
    clause: 'RFC 7143 §7.4.2',
    level: 'ROBUST',
    text: 'a discovery session and a normal session with one ISID do not disturb each other’s logins',
    async run(t, target) {
      const normal = await Session.login(target, { isid: isid(0x4444) });
      const session = await Session.login(target, { discovery: true, isid: isid(0x4444) });
      t.ok(valuesOf(await sendTargets(t, session, 'All'), 'TargetName').includes(target.iqn));
      t.same(await normal.fence(), []);
    },
  },
  {
    id: 'TEXT-01',
    clause: 'RFC 7143 §11.10, §11.11',
    level: 'MUST',
    text: 'an empty Text Request is answered by an empty final Text Response with its ITT',
    async run(t, target) {
      const session = await Session.login(target);
      const { pdu, keys } = await session.text({}, { itt: 0xabcd });
      t.equal(pdu.itt, 0xabcd);
      t.ok(pdu.final);
      t.equal(pdu.ttt, NO_TAG);
      t.same(keys, []);
    },
  },
  {
    id: 'TEXT-02',
    clause: 'RFC 7143 §6.1, §6.2, §11.10.5',
    level: 'MUST',
    text: 'unknown keys in a Text Request are answered by NotUnderstood, in one exchange',
    async run(t, target) {
      const session = await Session.login(target);
      const { keys } = await session.text({ 'X-org.example.a': '1', 'X-org.example.b': '2' });
      t.same(keys.toSorted(), [
        ['X-org.example.a', 'NotUnderstood'],
        ['X-org.example.b', 'NotUnderstood'],
      ]);
    },
  },
  {
    id: 'TEXT-03',
    clause: 'RFC 7143 §6.2, §11.10.2, §11.11.2',
    level: 'MUST',
    text: 'a Text Request with C=1 is answered by an empty response with a TTT, and goes on with it',
    async run(t, target) {
      const session = await discover(target);
      const text = encodeKeys({ SendTargets: target.iqn });
      const itt = session.nextTag();
      const piece = (data: Buffer, ttt: number, final: boolean): void => {
        const { expStatSN } = session;
        const cmdSN = session.takeCmdSN();
        session.connection.send(textRequest({ itt, cmdSN, expStatSN, ttt, final, more: !final, data }));
      };
      piece(text.subarray(0, 7), NO_TAG, false);
      const first = await session.expect(OP.TEXT_RESPONSE);
      t.equal(first.data.length, 0);
      t.notOk(first.final);
      t.not(first.ttt, NO_TAG);
      piece(text.subarray(7), first.ttt, true);
      const last = await session.expect(OP.TEXT_RESPONSE);
      t.same(valuesOf(decodeKeys(last.data), 'TargetName'), [target.iqn]);
    },
  },
  {
    id: 'TEXT-04',
    clause: 'RFC 7143 §11.10.1, §11.11.1',
    level: 'MUST',
    text: 'the target does not set F in answer to a request whose F is 0',
    async run(t, target) {
      const session = await Session.login(target);
      const { pdu } = await session.text({ 'X-org.example.a': '1' }, { final: false });
      t.notOk(pdu.final);
      t.not(pdu.ttt, NO_TAG);
      const end = await session.text({}, { ttt: pdu.ttt, itt: pdu.itt });
      t.ok(end.pdu.final);
    },
  },
  {
    id: 'TEXT-05',
    clause: 'RFC 7143 §11.10.4',
    level: 'MUST',
    text: 'a fresh Text Request with the reserved TTT and the same ITT resets a negotiation that hangs',
    async run(t, target) {
      const session = await Session.login(target);
      const one = await session.text({ 'X-org.example.a': '1' }, { final: false, itt: 0x55 });
      t.not(one.pdu.ttt, NO_TAG);
      const two = await session.text({ 'X-org.example.b': '1' }, { itt: 0x55 });
      t.ok(two.pdu.final);
      t.same(two.keys, [['X-org.example.b', 'NotUnderstood']]);
    },
  },
  {
    id: 'TEXT-06',
    clause: 'RFC 7143 §11.10.4, §11.17.1',
    level: 'ROBUST',
    text: 'a Text Request with a TTT that the target never gave is rejected or ends the connection',
    async run(t, target) {
      const session = await Session.login(target);
      const { cmdSN, expStatSN } = session;
      session.connection.send(textRequest({ itt: 5, cmdSN, expStatSN, ttt: 0x1234, data: Buffer.alloc(0) }));
      const pdu = await session.next();
      t.ok(pdu === undefined || pdu.opcode === OP.REJECT || pdu.opcode === OP.TEXT_RESPONSE);
      await Session.login(target);
    },
  },
  {
    id: 'TEXT-07',
    clause: 'RFC 7143 §11.10.2',
    level: 'ROBUST',
    text: 'endless empty Text Requests with C=1 are ended by the target, or answered without growth',
    async run(t, target) {
      const session = await Session.login(target);
      let ttt: number = NO_TAG;
      const itt = session.nextTag();
      for (let round = 0; round < 200; round++) {
        const { expStatSN } = session;
        const cmdSN = session.takeCmdSN();
        const data = Buffer.alloc(round % 2);
        session.connection.send(textRequest({ itt, cmdSN, expStatSN, ttt, final: false, more: true, data }));
        const pdu = await session.next();
        if (pdu === undefined || pdu.opcode === OP.REJECT) break;
        ttt = pdu.ttt;
      }
      await Session.login(target);
      t.pass('the target still serves');
    },
  },
  {
    id: 'TEXT-08',
    clause: 'RFC 7143 §11.14, §4.2.6',
    level: 'MUST',
    text: 'a logout in the midst of a text exchange ends the session',
    async run(t, target) {
      const session = await discover(target);
      await session.text({ SendTargets: target.iqn }, { final: false });
      const { cmdSN, expStatSN } = session;
      session.connection.send(logoutRequest({ itt: 77, cmdSN, expStatSN, immediate: true, reason: 0 }));
      t.equal((await session.expect(OP.LOGOUT_RESPONSE)).response, 0);
      await session.connection.untilClosed();
    },
  },
  {
    id: 'DISC-11',
    clause: 'RFC 7143 §7.4.3',
    level: 'SHOULD',
    text: 'in a discovery session the target says nothing of its own accord: no ping, and at a planned stop no message but the end',
    async run(t) {
      const { at, daemon } = await startSite(t, ['a'], () => ({
        portals: [ANY_PORT],
        targets: [site.target('a')],
        limits: { nopIntervalMs: 100, nopTimeoutMs: 5000 },
      }));
      const target = at('a');
      const normal = await Session.login(target);
      const session = await discover(target);
      const ping = await normal.connection.receive(20_000);
      t.equal(ping?.opcode, OP.NOP_IN, 'meanwhile a normal session is pinged');
      const stopped = daemon.close();
      t.same(await session.connection.untilClosed(), []);
      await stopped;
    },
  },
  {
    id: 'DISC-12',
    clause: 'RFC 7143 §6.3.1, §13.4, §13.9',
    level: 'MUST',
    text: 'a discovery session may name its target: then the first response declares TargetPortalGroupTag, else none does',
    async run(t, target) {
      const session = await Session.connect(target);
      const { pdu, keys } = await enter(session, target, { TargetName: target.iqn });
      t.equal(pdu.loginStatus, 0);
      t.match(valuesOf(keys, 'TargetPortalGroupTag').join(), /^\d{1,5}$/);
      const unnamed = await Session.connect(target);
      t.same(valuesOf((await enter(unnamed, target)).keys, 'TargetPortalGroupTag'), []);
    },
  },
  {
    id: 'DISC-15',
    clause: 'RFC 7143 §11.13.5, §13.4',
    level: 'MUST',
    text: 'a discovery session that names a target which is not there is refused with 0203h',
    async run(t, target) {
      const session = await Session.connect(target);
      const { pdu } = await enter(session, target, { TargetName: 'iqn.1999-12.org.example:none' });
      t.equal(pdu.loginStatus, 0x0203);
    },
  },
  {
    id: 'DISC-16',
    clause: 'RFC 7143 §7.4.2.1 (unnamed ISID rule)',
    level: 'MUST',
    text: 'a new discovery session with the same initiator name, ISID and network portal reinstates the old one, another initiator’s does not',
    async run(t, target) {
      const old = await discover(target);
      const other = await Session.login(target, {
        discovery: true,
        isid: old.isid,
        initiatorName: `${INITIATOR_NAME}-2`,
      });
      const fresh = await Session.login(target, { discovery: true, isid: old.isid });
      t.same(await old.connection.untilClosed(), [], 'the old one is closed');
      for (const session of [other, fresh])
        t.ok(valuesOf(await sendTargets(t, session, 'All'), 'TargetName').includes(target.iqn));
      t.not(fresh.tsih, other.tsih, 'each has its own TSIH');
    },
  },
  {
    id: 'DISC-17',
    clause: 'RFC 7143 §7.4.2.2 (ISID rule)',
    level: 'MUST',
    text: 'a discovery session that names its target is reinstated by a discovery or normal session of the same ISID and target, and by no unnamed one',
    async run(t, target) {
      for (const normal of [false, true]) {
        const old = await Session.connect(target);
        old.isid = target.freshIsid();
        t.equal((await enter(old, target, { TargetName: target.iqn })).pdu.loginStatus, 0);
        const unnamed = await Session.login(target, { discovery: true, isid: old.isid });
        t.ok(valuesOf(await sendTargets(t, old, 'All'), 'TargetName').includes(target.iqn), 'still there');
        if (normal) await Session.login(target, { isid: old.isid });
        else {
          const fresh = await Session.connect(target);
          fresh.isid = old.isid;
          await enter(fresh, target, { TargetName: target.iqn });
        }
        t.same(await old.connection.untilClosed(), []);
        t.ok(valuesOf(await sendTargets(t, unnamed, 'All'), 'TargetName').includes(target.iqn));
      }
    },
  },
  {
    id: 'DISC-18',
    clause: 'RFC 7143 §7.4.2.2 (ISID rule), §11.13.3',
    level: 'MUST',
    text: 'a discovery session that names its target reinstates a normal session of the same ISID and target, and no two sessions have one TSIH',
    async run(t, target) {
      const normal = await Session.login(target);
      const beside = await discover(target);
      t.not(beside.tsih, normal.tsih);
      const named = await Session.connect(target);
      named.isid = normal.isid;
      const { pdu } = await enter(named, target, { TargetName: target.iqn });
      t.equal(pdu.loginStatus, 0);
      t.not(pdu.tsih, beside.tsih);
      await normal.connection.untilClosed();
    },
  },
  {
    id: 'DISC-19',
    clause: 'RFC 7143 §7.4.1, §13.20, §13.21',
    level: 'MUST',
    text: 'a discovery session has error recovery level 0, whatever is offered',
    async run(t, target) {
      const session = await discover(target, { ErrorRecoveryLevel: '2' });
      t.equal(session.agreed.get('ErrorRecoveryLevel'), '0');
    },
  },
];

/** A login to a discovery session in one request, whatever becomes of it. */
function enter(session: Session, target: Target, keys: Record<string, string> = {}): Promise<LoginAnswer> {
  if (session.isid.equals(isid(1))) session.isid = target.freshIsid();
  return session.loginStep(
    { transit: true, csg: STAGE.OPERATIONAL, nsg: STAGE.FULL_FEATURE },
    { InitiatorName: INITIATOR_NAME, SessionType: 'Discovery', ...keys },
  );
}
