/** Login phase: stages, status codes, sessions and connections (RFC 7143 §6.3, §11.12, §11.13). */
import { encodeKeys, valuesOf } from './keys.js';
import { encode, isid, loginRequest, nopOut, NO_TAG, OP, STAGE, type LoginFields } from './pdu.js';
import type { Requirement, Tap } from './requirement.js';
import { STATUS, testUnitReady } from './scsi.js';
import { INITIATOR_NAME, only, Session, type LoginAnswer } from './session.js';
import type { Target } from './target.js';

const { SECURITY, OPERATIONAL, RESERVED, FULL_FEATURE } = STAGE;

/** Login status classes and details (RFC 7143 §11.13.5). */
export const LOGIN_STATUS = {
  SUCCESS: 0x0000,
  INITIATOR_ERROR: 0x0200,
  AUTHENTICATION_FAILURE: 0x0201,
  AUTHORIZATION_FAILURE: 0x0202,
  NOT_FOUND: 0x0203,
  UNSUPPORTED_VERSION: 0x0205,
  TOO_MANY_CONNECTIONS: 0x0206,
  MISSING_PARAMETER: 0x0207,
  CANNOT_INCLUDE_IN_SESSION: 0x0208,
  SESSION_TYPE_NOT_SUPPORTED: 0x0209,
  SESSION_DOES_NOT_EXIST: 0x020a,
  INVALID_DURING_LOGIN: 0x020b,
} as const;

/** The keys that every first request of a normal session carries. */
export const namesFor = (target: Target): Record<string, string> => ({
  InitiatorName: INITIATOR_NAME,
  SessionType: 'Normal',
  TargetName: target.iqn,
});

const toFullFeature: LoginFields = { transit: true, csg: OPERATIONAL, nsg: FULL_FEATURE };

/** One first request on a new connection. */
async function first(
  target: Target,
  fields: Partial<LoginFields>,
  keys = namesFor(target),
): Promise<LoginAnswer> {
  const session = await Session.connect(target);
  return session.loginStep({ ...toFullFeature, isid: target.freshIsid(), ...fields }, keys);
}

/** A first request that has to be refused with one of the codes, and the connection closed after it. */
async function refused(
  t: Tap,
  target: Target,
  codes: readonly number[],
  fields: Partial<LoginFields>,
  keys: Record<string, string> = namesFor(target),
): Promise<void> {
  const session = await Session.connect(target);
  const { pdu } = await session.loginStep({ ...toFullFeature, isid: target.freshIsid(), ...fields }, keys);
  isOneOf(t, pdu.loginStatus, codes, 'status');
  t.same(await session.connection.untilClosed(), [], 'the target closes the connection');
}

/** Asserts that a code is one of several. */
export function isOneOf(t: Tap, value: number, codes: readonly number[], what: string): void {
  const text = (code: number): string => code.toString(16).padStart(4, '0');
  t.ok(codes.includes(value), `${what} ${text(value)}h is one of ${codes.map(text).join(', ')}`);
}

/** A refusal: class 2, or the connection closed without a word where the standard leaves that open. */
async function refusedOrClosed(t: Tap, session: Session): Promise<void> {
  const pdu = await session.connection.receive();
  if (pdu === undefined) {
    t.pass('the target closed');
    return;
  }
  t.equal(pdu.opcode, OP.LOGIN_RESPONSE);
  t.equal(pdu.loginStatus >> 8, 2, `initiator error, not ${pdu.loginStatus.toString(16)}h`);
  await session.connection.untilClosed();
}

const start: readonly Requirement[] = [
  {
    id: 'LOGIN-01',
    clause: 'RFC 7143 §4.2.1, §6.3.1, §11.13.3',
    level: 'MUST',
    text: 'a leading login with TSIH 0 ends in the full feature phase with a TSIH other than 0',
    async run(t, target) {
      const session = await Session.connect(target);
      const { pdu } = await session.enter(target, { keepUnitAttention: true });
      t.equal(pdu.loginStatus, LOGIN_STATUS.SUCCESS);
      t.ok(pdu.final);
      t.equal(pdu.nsg, FULL_FEATURE);
      t.not(pdu.tsih, 0);
    },
  },
  {
    id: 'LOGIN-02',
    clause: 'RFC 7143 §11.13, §11.13.3',
    level: 'MUST',
    text: 'responses repeat ITT and ISID, and carry TSIH 0 until the final one of a new session',
    async run(t, target) {
      const session = await Session.connect(target);
      const fields = { transit: false, csg: SECURITY, itt: 0x12345678, isid: isid(0xbeef) };
      const { pdu } = await session.loginStep(fields, namesFor(target));
      t.equal(pdu.itt, 0x12345678);
      t.same(pdu.isid, isid(0xbeef));
      t.equal(pdu.tsih, 0);
      const last = await session.loginStep(
        { ...fields, transit: true, nsg: FULL_FEATURE },
        { AuthMethod: 'None' },
      );
      t.equal(last.pdu.itt, 0x12345678);
      t.same(last.pdu.isid, isid(0xbeef));
    },
  },
  {
    id: 'LOGIN-03',
    clause: 'RFC 7143 §11.12.8, §11.13.4',
    level: 'MUST',
    text: 'numbering starts from the CmdSN of the leading login, which is not consumed by it',
    async run(t, target) {
      const { pdu } = await first(target, { cmdSN: 0xfffffffe });
      t.equal(pdu.expCmdSN, 0xfffffffe);
    },
  },
  {
    id: 'LOGIN-04',
    clause: 'RFC 7143 §11.12.4, §11.13.1, §11.13.2',
    level: 'MUST',
    text: 'version 0 is chosen from a range 0 to FFh, and named as the highest one known',
    async run(t, target) {
      const { pdu } = await first(target, { versionMax: 0xff, versionMin: 0 });
      t.equal(pdu.loginStatus, LOGIN_STATUS.SUCCESS);
      t.equal(pdu.bhs[2], 0, 'Version-max');
      t.equal(pdu.bhs[3], 0, 'Version-active');
    },
  },
  {
    id: 'LOGIN-05',
    clause: 'RFC 7143 §11.12.4, §11.13.5',
    level: 'MUST',
    text: 'a version range without 0 is refused with 0205h',
    run: (t, target) =>
      refused(t, target, [LOGIN_STATUS.UNSUPPORTED_VERSION], { versionMax: 2, versionMin: 1 }),
  },
  {
    id: 'LOGIN-06',
    clause: 'RFC 7143 §6.3.1, §13.9, §11.13.8',
    level: 'MUST',
    text: 'the first response of a normal session declares TargetPortalGroupTag, no later one does',
    async run(t, target) {
      const session = await Session.connect(target);
      const fields = { transit: false, csg: SECURITY, isid: target.freshIsid() };
      const one = await session.loginStep(fields, namesFor(target));
      t.match(only(one, 'TargetPortalGroupTag'), /^\d{1,5}$/);
      const two = await session.loginStep(
        { ...fields, transit: true, nsg: FULL_FEATURE },
        { AuthMethod: 'None' },
      );
      t.same(valuesOf(two.keys, 'TargetPortalGroupTag'), []);
    },
  },
  {
    id: 'LOGIN-07',
    clause: 'RFC 7143 §4.2.4, §6.3.1',
    level: 'MUST',
    text: 'the connection is ended at once if the first PDU is no Login Request',
    async run(t, target) {
      const session = await Session.connect(target);
      session.connection.send(nopOut({ itt: 1, cmdSN: 1, expStatSN: 0, immediate: true }));
      t.same(await session.connection.untilClosed(), []);
    },
  },
  {
    id: 'LOGIN-08',
    clause: 'RFC 7143 §7.1.4, §4.2.4, §4.2.4, §6.3.1, §11.13.5',
    level: 'MUST',
    text: 'another PDU in the midst of a login is answered by a Login Response 020Bh and a close',
    async run(t, target) {
      const session = await Session.connect(target);
      await session.loginStep({ transit: false, csg: SECURITY, isid: target.freshIsid() }, namesFor(target));
      session.connection.send(nopOut({ itt: 1, cmdSN: 1, expStatSN: 0, immediate: true }));
      const pdu = await session.expect(OP.LOGIN_RESPONSE);
      t.equal(pdu.loginStatus, LOGIN_STATUS.INVALID_DURING_LOGIN);
      t.same(await session.connection.untilClosed(), []);
    },
  },
  {
    id: 'LOGIN-09',
    clause: 'RFC 7143 §11.12',
    level: 'MUST',
    text: 'the login survives every way that TCP can cut it in two',
    async run(t, target) {
      const keys = encodeKeys(namesFor(target));
      for (let cut = 1; cut < 48 + keys.length; cut += 7) {
        const session = await Session.connect(target);
        const bytes = encode(loginRequest({ ...toFullFeature, isid: target.freshIsid(), data: keys }));
        await session.connection.writeSplit(bytes, [cut]);
        const { pdu } = await session.loginAnswer();
        if (pdu.loginStatus !== 0) t.fail(`cut at ${cut}: ${pdu.loginStatus.toString(16)}h`);
        session.connection.destroy();
      }
      t.pass('all logins went through');
    },
  },
  {
    id: 'LOGIN-10',
    clause: 'RFC 7143 §6.3.1, §7.5.1',
    level: 'SHOULD',
    text: 'a login that does not get on is ended by a time limit, before and after its first request',
    needs: (target) => target.profile.loginTimeoutMs !== undefined,
    async run(t, target) {
      const limitMs = (target.profile.loginTimeoutMs ?? 0) * 3 + 2000;
      const silent = await Session.connect(target);
      const half = await Session.connect(target);
      await half.loginStep({ transit: false, csg: SECURITY, isid: target.freshIsid() }, namesFor(target));
      const partial = await Session.connect(target);
      partial.connection.write(encode(loginRequest(toFullFeature)).subarray(0, 20));
      await Promise.all([silent, half, partial].map((session) => session.connection.untilClosed(limitMs)));
      t.pass('all three were closed');
    },
  },
];

const stages: readonly Requirement[] = [
  {
    id: 'LOGIN-20',
    clause: 'RFC 7143 §6.3.2, §11.12.3',
    level: 'MUST',
    text: 'security, operational and full feature phase follow each other when both sides ask for it',
    async run(t, target) {
      const session = await Session.connect(target);
      const common = { isid: target.freshIsid() };
      const security = await session.loginStep(
        { ...common, transit: true, csg: SECURITY, nsg: OPERATIONAL },
        { ...namesFor(target), AuthMethod: 'None' },
      );
      t.equal(only(security, 'AuthMethod'), 'None');
      t.ok(security.pdu.final);
      t.equal(security.pdu.csg, SECURITY);
      t.equal(security.pdu.nsg, OPERATIONAL);
      const operational = await session.loginStep({ ...common, ...toFullFeature }, { InitialR2T: 'Yes' });
      t.equal(operational.pdu.csg, OPERATIONAL);
      t.ok(operational.pdu.final);
      t.equal(operational.pdu.nsg, FULL_FEATURE);
      t.not(operational.pdu.tsih, 0);
    },
  },
  {
    id: 'LOGIN-21',
    clause: 'RFC 7143 §6.3.2, §6.3, §11.12.3',
    level: 'MUST',
    text: 'the operational stage may be skipped: security leads to the full feature phase',
    async run(t, target) {
      const { pdu } = await first(target, { csg: SECURITY }, { ...namesFor(target), AuthMethod: 'None' });
      t.equal(pdu.loginStatus, 0);
      t.ok(pdu.final);
      t.equal(pdu.nsg, FULL_FEATURE);
    },
  },
  {
    id: 'LOGIN-22',
    clause: 'RFC 7143 §6.3, §6.3, §11.13.6',
    level: 'MUST',
    text: 'the target does not set T unless the request did, and keeps the stage',
    async run(t, target) {
      const session = await Session.connect(target);
      const fields = { isid: target.freshIsid(), transit: false, csg: OPERATIONAL };
      for (const keys of [namesFor(target), {}, {}]) {
        const { pdu } = await session.loginStep(fields, keys);
        t.notOk(pdu.final);
        t.equal(pdu.csg, OPERATIONAL);
        t.equal(pdu.nsg, 0, 'NSG is reserved without T');
      }
      const { pdu } = await session.loginStep({ ...fields, ...toFullFeature });
      t.equal(pdu.nsg, FULL_FEATURE);
    },
  },
  ...(
    [
      ['LOGIN-23', 'from security to the reserved stage', SECURITY, RESERVED],
      ['LOGIN-24', 'from operational back to security', OPERATIONAL, SECURITY],
      ['LOGIN-25', 'from operational to itself', OPERATIONAL, OPERATIONAL],
      ['LOGIN-26', 'out of the reserved stage', RESERVED, FULL_FEATURE],
      ['LOGIN-27', 'out of the full feature phase', FULL_FEATURE, FULL_FEATURE],
      ['LOGIN-28', 'from security to itself', SECURITY, SECURITY],
    ] as const
  ).map(([id, text, csg, nsg]): Requirement => ({
    id,
    clause: 'RFC 7143 §6.3, §11.12.3, §7.12',
    level: 'MUST',
    text: `a transition ${text} is refused as an initiator error`,
    async run(t, target) {
      const session = await Session.connect(target);
      session.sendLogin({ transit: true, csg, nsg, isid: target.freshIsid() }, namesFor(target));
      await refusedOrClosed(t, session);
    },
  })),
  {
    id: 'LOGIN-29',
    clause: 'RFC 7143 §6.2, §11.12.2',
    level: 'MUST',
    text: 'T and C together are refused',
    async run(t, target) {
      const session = await Session.connect(target);
      session.sendLogin({ ...toFullFeature, more: true, isid: target.freshIsid() }, namesFor(target));
      await refusedOrClosed(t, session);
    },
  },
  {
    id: 'LOGIN-30',
    clause: 'RFC 7143 §6.2, §11.12.2',
    level: 'MUST',
    text: 'text cut anywhere by C=1 is answered by empty responses until it is whole',
    async run(t, target) {
      const text = encodeKeys({ ...namesFor(target), InitialR2T: 'Yes' });
      for (const cuts of [[5], [13, 14], [text.length - 1], [1, 2, 3, 60]]) {
        const session = await Session.connect(target);
        const common = { isid: target.freshIsid(), csg: OPERATIONAL };
        let from = 0;
        for (const cut of cuts) {
          const { pdu } = await session.loginStep({
            ...common,
            transit: false,
            more: true,
            data: text.subarray(from, cut),
          });
          t.equal(pdu.loginStatus, 0);
          t.equal(pdu.data.length, 0, 'no data until the text is whole');
          t.notOk(pdu.final);
          from = cut;
        }
        const last = await session.loginStep({ ...common, ...toFullFeature, data: text.subarray(from) });
        t.equal(last.pdu.loginStatus, 0);
        t.ok(last.pdu.final);
        t.equal(only(last, 'InitialR2T'), 'Yes');
      }
    },
  },
  {
    id: 'LOGIN-31',
    clause: 'RFC 7143 §11.12',
    level: 'ROBUST',
    text: 'ISID or CID changing within one login, or a reserved bit of byte 1, does no harm',
    async run(t, target) {
      for (const change of [{ isid: isid(0x7777) }, { cid: 9 }, { tsih: 99 }]) {
        const session = await Session.connect(target);
        await session.loginStep({ transit: false, csg: SECURITY, isid: isid(0x7776) }, namesFor(target));
        session.sendLogin({ transit: true, csg: SECURITY, nsg: FULL_FEATURE, isid: isid(0x7776), ...change });
        const pdu = await session.connection.receive();
        t.ok(pdu === undefined || pdu.opcode === OP.LOGIN_RESPONSE);
      }
      await Session.login(target);
    },
  },
];

const names: readonly Requirement[] = [
  {
    id: 'LOGIN-40',
    clause: 'RFC 7143 §11.12.10, §11.13.5, §13.5',
    level: 'MUST',
    text: 'a first request without InitiatorName is refused with 0207h',
    run: (t, target) =>
      refused(
        t,
        target,
        [LOGIN_STATUS.MISSING_PARAMETER],
        {},
        { SessionType: 'Normal', TargetName: target.iqn },
      ),
  },
  {
    id: 'LOGIN-41',
    clause: 'RFC 7143 §11.12.10, §11.13.5, §13.4',
    level: 'MUST',
    text: 'a normal session without TargetName is refused with 0207h',
    run: (t, target) =>
      refused(
        t,
        target,
        [LOGIN_STATUS.MISSING_PARAMETER],
        {},
        { InitiatorName: INITIATOR_NAME, SessionType: 'Normal' },
      ),
  },
  {
    id: 'LOGIN-42',
    clause: 'RFC 7143 §11.13.5, §13.4',
    level: 'MUST',
    text: 'a target that does not exist is refused with 0203h',
    run: (t, target) =>
      refused(
        t,
        target,
        [LOGIN_STATUS.NOT_FOUND],
        {},
        { ...namesFor(target), TargetName: 'iqn.1999-12.org.example:none' },
      ),
  },
  {
    id: 'LOGIN-43',
    clause: 'RFC 7143 §11.13.5, §13.21',
    level: 'MUST',
    text: 'a session type other than Normal and Discovery is refused',
    run: (t, target) =>
      refused(
        t,
        target,
        [LOGIN_STATUS.SESSION_TYPE_NOT_SUPPORTED, LOGIN_STATUS.INITIATOR_ERROR],
        {},
        { ...namesFor(target), SessionType: 'Boot' },
      ),
  },
  {
    id: 'LOGIN-44',
    clause: 'RFC 7143 §13.21',
    level: 'MUST',
    text: 'a session is normal if SessionType is not given',
    async run(t, target) {
      const { pdu } = await first(target, {}, { InitiatorName: INITIATOR_NAME, TargetName: target.iqn });
      t.equal(pdu.loginStatus, 0);
    },
  },
  {
    id: 'LOGIN-45',
    clause: 'RFC 7143 §6.1',
    level: 'MUST',
    text: 'key names are case-sensitive: INITIATORNAME is not InitiatorName',
    run: (t, target) =>
      refused(
        t,
        target,
        [LOGIN_STATUS.MISSING_PARAMETER],
        {},
        { INITIATORNAME: INITIATOR_NAME, TargetName: target.iqn, SessionType: 'Normal' },
      ),
  },
  {
    id: 'LOGIN-46',
    clause: 'RFC 7143 §4.2.7.1',
    level: 'MUST',
    text: 'iSCSI names are compared after normalisation, so upper case finds the target',
    async run(t, target) {
      const { pdu } = await first(target, {}, { ...namesFor(target), TargetName: target.iqn.toUpperCase() });
      t.equal(pdu.loginStatus, 0);
    },
  },
  {
    id: 'LOGIN-47',
    clause: 'RFC 7143 §6.1, §4.2.7.2',
    level: 'ROBUST',
    text: 'an initiator name of 224 bytes or with conversion specifiers is refused or served, never trusted',
    async run(t, target) {
      for (const name of [
        `iqn.2026-01.x:${'a'.repeat(300)}`,
        'iqn.2026-01.x:%n%n%s%99999d',
        '',
        '../../etc',
        'iqn.\u0001',
      ]) {
        const session = await Session.connect(target);
        session.sendLogin(
          { ...toFullFeature, isid: target.freshIsid() },
          { ...namesFor(target), InitiatorName: name },
        );
        const pdu = await session.connection.receive();
        t.ok(pdu === undefined || pdu.opcode === OP.LOGIN_RESPONSE, JSON.stringify(name.slice(0, 30)));
        session.connection.destroy();
      }
      await Session.login(target);
    },
  },
  {
    id: 'LOGIN-54',
    clause: 'RFC 7143 §4.2.7.1, §4.2.7.2',
    level: 'MUST',
    text: 'initiator names of all three types are taken, up to 223 bytes; one byte more, and what is no name, is refused with 0200h',
    async run(t, target) {
      const iqn = (bytes: number): string => 'iqn.2026-01.org.example:'.padEnd(bytes, 'x');
      for (const name of [
        iqn(223),
        'eui.02004567A425678D',
        'naa.52004567BA64678D',
        'naa.62004567BA64678D0123456789ABCDEF',
      ]) {
        const { pdu } = await first(target, {}, { ...namesFor(target), InitiatorName: name });
        t.equal(pdu.loginStatus, 0, name.slice(0, 40));
      }
      for (const name of [
        iqn(224),
        '',
        'example',
        'iqn.2026-13.org.example',
        'eui.0200',
        'naa.52',
        'iqn.2026-01.org.example:a b',
      ])
        await refused(
          t,
          target,
          [LOGIN_STATUS.INITIATOR_ERROR],
          {},
          { ...namesFor(target), InitiatorName: name },
        );
    },
  },
  {
    id: 'LOGIN-48',
    clause: 'RFC 7143 §6.2, §6.3, §7.12',
    level: 'MUST',
    text: 'a key that is repeated in one login is refused',
    async run(t, target) {
      const session = await Session.connect(target);
      session.sendLogin({ ...toFullFeature, isid: target.freshIsid() }, [
        ...Object.entries(namesFor(target)),
        ['InitialR2T', 'Yes'],
        ['InitialR2T', 'No'],
      ]);
      await refusedOrClosed(t, session);
    },
  },
  {
    id: 'LOGIN-49',
    clause: 'RFC 7143 §6.2, §6.3',
    level: 'MUST',
    text: 'a key that was negotiated cannot be negotiated again in a later request of the login',
    async run(t, target) {
      const session = await Session.connect(target);
      const common = { isid: target.freshIsid() };
      await session.loginStep(
        { ...common, transit: false, csg: OPERATIONAL },
        { ...namesFor(target), InitialR2T: 'Yes' },
      );
      session.sendLogin({ ...common, ...toFullFeature }, { InitialR2T: 'No' });
      await refusedOrClosed(t, session);
    },
  },
  {
    id: 'LOGIN-50',
    clause: 'RFC 7143 §6.1, §7.7',
    level: 'MUST',
    text: 'text that is no list of key=value pairs is refused',
    async run(t, target) {
      for (const bad of ['NoEqualsSign\0', '=value\0', 'InitialR2T=Yes', '\0\0\0=\0']) {
        const session = await Session.connect(target);
        const data = Buffer.concat([encodeKeys(namesFor(target)), Buffer.from(bad)]);
        session.sendLogin({ ...toFullFeature, isid: target.freshIsid(), data });
        const pdu = await session.connection.receive();
        const survivable = bad === 'InitialR2T=Yes'; // only its last delimiter is missing
        t.ok(
          pdu === undefined || pdu.loginStatus >> 8 === 2 || (survivable && pdu.loginStatus === 0),
          JSON.stringify(bad),
        );
      }
    },
  },
];

const sessions: readonly Requirement[] = [
  {
    id: 'LOGIN-60',
    clause: 'RFC 7143 §6.3.1, §11.13.5, §11.12.6',
    level: 'MUST',
    text: 'a TSIH that no session has is refused with 020Ah',
    run: (t, target) => refused(t, target, [LOGIN_STATUS.SESSION_DOES_NOT_EXIST], { tsih: 0xfedc }),
  },
  {
    id: 'LOGIN-61',
    clause: 'RFC 7143 §4.4.3, §6.3.1, §11.12.6',
    level: 'MUST',
    text: 'the TSIH of a session together with another ISID is refused with 020Ah',
    async run(t, target) {
      const session = await Session.login(target);
      await refused(t, target, [LOGIN_STATUS.SESSION_DOES_NOT_EXIST], {
        tsih: session.tsih,
        isid: target.freshIsid(),
      });
      t.same(await session.fence(), [], 'the session lives on');
    },
  },
  {
    id: 'LOGIN-62',
    clause: 'RFC 7143 §11.13.5, §13.2',
    level: 'MUST',
    text: 'a second connection is refused with 0206h or 0208h while MaxConnections is 1',
    async run(t, target) {
      const session = await Session.login(target, { keys: { MaxConnections: '1' } });
      await refused(t, target, [LOGIN_STATUS.TOO_MANY_CONNECTIONS, LOGIN_STATUS.CANNOT_INCLUDE_IN_SESSION], {
        tsih: session.tsih,
        isid: session.isid,
        cid: 7,
      });
      t.same(await session.fence(), [], 'the session lives on');
    },
  },
  {
    id: 'LOGIN-63',
    clause: 'RFC 7143 §7.15, §6.3.5',
    level: 'MUST',
    text: 'the same initiator port logging in anew with TSIH 0 reinstates the session: the old one is closed',
    async run(t, target) {
      const old = await Session.login(target);
      const fresh = await Session.login(target, { isid: old.isid });
      await old.connection.untilClosed();
      t.not(fresh.tsih, 0);
      t.equal((await fresh.execute({ cdb: testUnitReady() })).status, STATUS.GOOD);
    },
  },
  {
    id: 'LOGIN-64',
    clause: 'RFC 7143 §4.4.3, §6.3.5',
    level: 'MUST',
    text: 'another ISID, or another initiator with the same ISID, is a session beside the first',
    async run(t, target) {
      const one = await Session.login(target);
      const two = await Session.login(target);
      const three = await Session.login(target, { isid: one.isid, initiatorName: `${INITIATOR_NAME}-2` });
      t.equal(new Set([one.tsih, two.tsih, three.tsih]).size, 3, 'every session has its own TSIH');
      for (const session of [one, two, three]) t.same(await session.fence(), []);
    },
  },
  {
    id: 'LOGIN-65',
    clause: 'RFC 7143 §6.3.4',
    level: 'SHOULD',
    text: 'the same ISID, TSIH and CID reinstate the connection: the old one is closed, the session goes on',
    async run(t, target) {
      const old = await Session.login(target);
      const fresh = await Session.connect(target);
      await fresh.enter(target, {
        isid: old.isid,
        tsih: old.tsih,
        cmdSN: old.cmdSN,
        keepUnitAttention: true,
      });
      await old.connection.untilClosed();
      t.equal(fresh.tsih, old.tsih, 'the TSIH stays');
      t.equal((await fresh.execute({ cdb: testUnitReady() })).status, STATUS.GOOD, 'no nexus was lost');
    },
  },
  {
    id: 'LOGIN-66',
    clause: 'RFC 7143 §4.2.4, §7.13, §11.12',
    level: 'ROBUST',
    text: 'a Login Request in the full feature phase is rejected or ends the connection',
    async run(t, target) {
      const session = await Session.login(target);
      session.sendLogin(toFullFeature, namesFor(target));
      const pdu = await session.next();
      t.ok(pdu === undefined || pdu.opcode === OP.REJECT || pdu.loginStatus >> 8 === 2);
    },
  },
  {
    id: 'LOGIN-67',
    clause: 'RFC 7143 §11.12, §11.2.1.1',
    level: 'ROBUST',
    text: 'a Login Request whose I bit is not set is served or refused, and nobody else notices',
    async run(t, target) {
      const session = await Session.connect(target);
      const data = encodeKeys(namesFor(target));
      session.connection.send(
        loginRequest({ ...toFullFeature, isid: target.freshIsid(), data }).u8(0, OP.LOGIN),
      );
      const pdu = await session.connection.receive();
      t.ok(pdu === undefined || pdu.opcode === OP.LOGIN_RESPONSE);
      await Session.login(target);
    },
  },
  {
    id: 'LOGIN-68',
    clause: 'RFC 7143 §11.18.1',
    level: 'ROBUST',
    text: 'a Login Request with the reserved ITT is served or refused, and nobody else notices',
    async run(t, target) {
      const session = await Session.connect(target);
      session.sendLogin({ ...toFullFeature, isid: target.freshIsid(), itt: NO_TAG }, namesFor(target));
      const pdu = await session.connection.receive();
      t.ok(pdu === undefined || pdu.opcode === OP.LOGIN_RESPONSE);
      await Session.login(target);
    },
  },
];

export const login: readonly Requirement[] = [...start, ...stages, ...names, ...sessions];
