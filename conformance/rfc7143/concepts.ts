/** What RFC 7143 asks for in its concepts, negotiation and recovery (§4, §6, §7) beside the fields of PDUs. */
import { AUTHENTICATION_KEYS, KEYS_OF_RFC } from './key-list.js';
import { decodeKeys, encodeKeys, valuesOf, type Keys } from './keys.js';
import { namesFor } from './login.js';
import { nopOut, OP, STAGE, taskManagement, textRequest, type Pdu } from './pdu.js';
import { discovered } from './discovery.js';
import type { Requirement } from './requirement.js';
import { inquiryPage, persistentReserveIn, persistentReserveOut, STATUS, testUnitReady } from './scsi.js';
import { INITIATOR_NAME, Session } from './session.js';
import { ANY_PORT, site, startSite } from './site.js';
import type { Target } from './target.js';
import { serialAfter } from './wire.js';

const QUERY_OR_NO_FUNCTION = 99;
/** SPC-6 §6.16.3: SERVICE ACTION of PERSISTENT RESERVE IN. */
const READ_FULL_STATUS = 3;
const REGISTER_AND_IGNORE = 6;

/** Designators of the device identification page (SPC-6 §7.7.6), by association and type. */
function designators(page: Buffer): { association: number; type: number; text: Buffer }[] {
  const found = [];
  for (let at = 4; at + 4 <= page.length; at += 4 + page.readUInt8(at + 3)) {
    const second = page.readUInt8(at + 1);
    const text = page.subarray(at + 4, at + 4 + page.readUInt8(at + 3));
    found.push({ association: (second >> 4) & 3, type: second & 0x0f, text });
  }
  return found;
}

/** A text that is padded with zero bytes, as it stands before them. */
const untilNull = (bytes: Buffer): string => bytes.toString('utf8').replace(/\0+$/, '');

/** All keys of an answer, over all PDUs that it takes; undefined if it is rejected. */
async function allKeys(session: Session, keys: Keys): Promise<[string, string][] | undefined> {
  const itt = session.nextTag();
  const ask = async (data: Buffer, ttt?: number): Promise<Pdu> => {
    const { expStatSN } = session;
    const fields = { itt, cmdSN: session.takeCmdSN(), expStatSN, data };
    session.connection.send(textRequest(ttt === undefined ? fields : { ...fields, ttt }));
    const pdu = await session.next();
    if (pdu === undefined) throw new Error('the target closed instead of answering');
    return pdu;
  };
  let pdu = await ask(encodeKeys(keys));
  const parts = [pdu.data];
  while (pdu.opcode === OP.TEXT_RESPONSE && pdu.continues) {
    pdu = await ask(Buffer.alloc(0), pdu.ttt);
    parts.push(pdu.data);
  }
  if (pdu.opcode !== OP.TEXT_RESPONSE) {
    session.cmdSN = pdu.expCmdSN;
    return undefined;
  }
  return decodeKeys(Buffer.concat(parts));
}

const names: readonly Requirement[] = [
  {
    id: 'CON-02',
    clause: 'RFC 7143 §4.5, §4.2.7.1, §4.4.2',
    level: 'MUST',
    text: 'SCSI knows the target by its iSCSI name, and its port by that, ",t,0x" and the portal group tag, with a zero byte',
    async run(t, target) {
      const session = await Session.login(target);
      const { status, data } = await session.execute({ cdb: inquiryPage(0x83, 2048), read: 2048 });
      t.equal(status, STATUS.GOOD);
      // SCSI name strings are of type 8: of the device (association 2) and of the port (1).
      const named = designators(data).filter(({ type }) => type === 8);
      const of = (association: number): Buffer =>
        named.find((one) => one.association === association)?.text ?? Buffer.alloc(0);
      t.equal(untilNull(of(2)), target.iqn);
      t.match(untilNull(of(1)), /,t,0[xX][0-9a-fA-F]{4}$/);
      t.equal(untilNull(of(1)).slice(0, -',t,0x0001'.length), target.iqn);
      for (const association of [1, 2]) t.equal(of(association).at(-1), 0);
    },
  },
  {
    id: 'CON-03',
    clause: 'RFC 7143 §4.4.2',
    level: 'MUST',
    text: 'an initiator port is reported as the initiator’s name, ",i,0x" and the ISID, with a zero byte',
    async run(t, target) {
      const session = await Session.login(target);
      const key = Buffer.alloc(24);
      key.writeUInt32BE(0xabcd, 12);
      const out = { cdb: persistentReserveOut(REGISTER_AND_IGNORE, 24), write: key, immediateBytes: 24 };
      t.equal((await session.execute(out)).status, STATUS.GOOD);
      const { data } = await session.execute({
        cdb: persistentReserveIn(READ_FULL_STATUS, 4096),
        read: 4096,
      });
      const port = `${INITIATOR_NAME},i,0x${session.isid.toString('hex')}\0`;
      t.ok(data.toString('latin1').toLowerCase().includes(port), 'TransportID');
      const gone = { cdb: persistentReserveOut(REGISTER_AND_IGNORE, 24), write: Buffer.alloc(24) };
      t.equal((await session.execute({ ...gone, immediateBytes: 24 })).status, STATUS.GOOD);
    },
  },
  {
    id: 'CON-04',
    clause: 'RFC 7143 §4.2.7.1',
    level: 'MUST',
    text: 'a target’s name may have 223 bytes: it is found, logged in to and reported to SCSI whole',
    async run(t) {
      const name = 'a'.padEnd(223 - site.PREFIX.length, 'x');
      const { at } = await startSite(t, ['a'], () => ({
        portals: [ANY_PORT],
        targets: [{ ...site.target('a'), name: site.PREFIX + name }],
      }));
      const target = at(name);
      t.equal(target.iqn.length, 223);
      t.same(valuesOf(await discovered(t, target, INITIATOR_NAME), 'TargetName'), [target.iqn]);
      const session = await Session.login(target);
      const { data } = await session.execute({ cdb: inquiryPage(0x83, 2048), read: 2048 });
      t.ok(designators(data).some(({ text }) => untilNull(text) === target.iqn));
    },
  },
];

const numbering: readonly Requirement[] = [
  {
    id: 'CON-01',
    clause: 'RFC 7143 §4.2.2.1',
    level: 'MUST',
    text: 'no answer comes before the acknowledgement of what it answers: ExpCmdSN is past that in the answer itself, or was before',
    async run(t, target) {
      const session = await Session.login(target);
      const { expStatSN } = session;
      const numbered = (): { itt: number; cmdSN: number; expStatSN: number } => ({
        itt: session.nextTag(),
        cmdSN: session.takeCmdSN(),
        expStatSN,
      });
      const data = encodeKeys({ 'X-org.example.key': 'v' });
      const command = (extra: object): Pdu => session.commandPdu({ cdb: testUnitReady(), ...extra });
      for (const [pdu, cmdSN] of [
        () => command({}),
        () => command({ cdb: inquiryPage(0x83, 255), read: 255 }),
        () => command({ cdb: Buffer.from([0xff, ...Buffer.alloc(15)]) }),
        () => nopOut({ ...numbered() }),
        () => textRequest({ ...numbered(), data }),
        () => taskManagement({ ...numbered(), function: QUERY_OR_NO_FUNCTION, lun: 0, immediate: false }),
      ].map((make): [Pdu, number] => [make(), (session.cmdSN - 1) >>> 0])) {
        session.connection.send(pdu);
        const answer = await session.next();
        t.ok(answer !== undefined && serialAfter(answer.expCmdSN, cmdSN), `${answer?.opcode.toString(16)}h`);
      }
    },
  },
];

const negotiation: readonly Requirement[] = [
  {
    id: 'CON-05',
    clause: 'RFC 7143 §6.2, §13',
    level: 'MUST',
    text: 'no key of the standard is answered by NotUnderstood, in neither stage of the login, nor after it, nor in a discovery session',
    async run(t, target) {
      for (const [key, value] of KEYS_OF_RFC) {
        for (const csg of [STAGE.SECURITY, STAGE.OPERATIONAL]) {
          const session = await Session.connect(target);
          session.sendLogin(
            { transit: false, csg, isid: target.freshIsid() },
            { ...namesFor(target), [key]: value },
          );
          const pdu = await session.expect(OP.LOGIN_RESPONSE);
          t.notOk(pdu.data.includes('NotUnderstood'), `${key} in stage ${csg}`);
          session.connection.destroy();
        }
      }
      for (const discovery of [false, true]) {
        const session = await Session.login(target, { discovery });
        for (const [key, value] of KEYS_OF_RFC) {
          const keys = (await allKeys(session, { [key]: value })) ?? [];
          t.notOk(valuesOf(keys, key).includes('NotUnderstood'), `${key} after the login`);
        }
      }
    },
  },
  {
    id: 'CON-06',
    clause: 'RFC 7143 §6.1',
    level: 'MUST',
    text: 'a login takes 8,192 bytes of keys and many more, over several PDUs, and answers each key once',
    async run(t, target) {
      const unknown = Array.from({ length: 40 }, (_, n): [string, string] => [
        `X-org.example.key-${n}`,
        'v'.repeat(1000),
      ]);
      const data = encodeKeys([...Object.entries(namesFor(target)), ...unknown]);
      const session = await Session.connect(target);
      const common = { csg: STAGE.OPERATIONAL, isid: target.freshIsid() };
      let answer: Pdu | undefined;
      for (let at = 0; at < data.length; at += 8192) {
        const more = at + 8192 < data.length;
        session.sendLogin({ ...common, transit: false, more, data: data.subarray(at, at + 8192) });
        answer = await session.expect(OP.LOGIN_RESPONSE);
        t.equal(answer.loginStatus, 0);
        if (more) t.equal(answer.data.length, 0);
      }
      const keys = decodeKeys(answer?.data ?? Buffer.alloc(0));
      t.same(
        keys.filter(([key]) => key.startsWith('X-')),
        unknown.map(([key]) => [key, 'NotUnderstood']),
      );
    },
  },
  {
    id: 'CON-07',
    clause: 'RFC 7143 §6.2',
    level: 'SHOULD',
    text: 'a negotiation may take six exchanges and more, in login and full feature phase',
    async run(t, target) {
      const session = await Session.connect(target);
      const common = { csg: STAGE.OPERATIONAL, isid: target.freshIsid() };
      for (let n = 0; n < 10; n++) {
        const { pdu, keys } = await session.loginStep(
          { ...common, transit: false },
          { ...(n === 0 ? namesFor(target) : {}), [`X-org.example.key-${n}`]: 'v' },
        );
        t.equal(pdu.loginStatus, 0);
        t.same(valuesOf(keys, `X-org.example.key-${n}`), ['NotUnderstood']);
      }
      const answer = await session.loginStep({ ...common, transit: true, nsg: STAGE.FULL_FEATURE });
      t.equal(answer.pdu.nsg, STAGE.FULL_FEATURE);
      await session.accepted(answer);
      const itt = session.nextTag();
      let ttt: number | undefined;
      for (let n = 0; n < 10; n++) {
        const options = { itt, final: n === 9, ...(ttt === undefined ? {} : { ttt }) };
        const { pdu, keys } = await session.text({ [`X-org.example.key-${n}`]: 'v' }, options);
        t.same(valuesOf(keys, `X-org.example.key-${n}`), ['NotUnderstood']);
        t.equal(pdu.final, n === 9);
        ({ ttt } = pdu);
      }
    },
  },
  {
    id: 'CON-08',
    clause: 'RFC 7143 §6.3, §12',
    level: 'MUST',
    text: 'keys of authentication are settled in the login: after it they are refused',
    async run(t, target) {
      const session = await Session.login(target);
      for (const [key, value] of AUTHENTICATION_KEYS) {
        const keys = await allKeys(session, { [key]: value });
        if (keys !== undefined) t.same(keys, [[key, 'Reject']]);
        else t.pass('rejected as a whole');
      }
      t.same(await session.fence(), [], 'the session goes on');
    },
  },
  {
    id: 'CON-09',
    clause: 'RFC 7143 §6.3, §6.4',
    level: 'MUST',
    text: 'the last response of a stage or text exchange proposes nothing that would have to be answered',
    async run(t, target) {
      const DECLARED = ['TargetPortalGroupTag', 'TargetAlias', 'MaxRecvDataSegmentLength'];
      const session = await Session.connect(target);
      const common = { isid: target.freshIsid() };
      const undeclared = (pairs: [string, string][]): string[] =>
        pairs.map(([key]) => key).filter((key) => !DECLARED.includes(key));
      const security = await session.loginStep(
        { ...common, transit: true, csg: STAGE.SECURITY, nsg: STAGE.OPERATIONAL },
        namesFor(target),
      );
      t.same([security.pdu.final, undeclared(security.keys)], [true, []]);
      const operational = await session.loginStep({
        ...common,
        transit: true,
        csg: STAGE.OPERATIONAL,
        nsg: STAGE.FULL_FEATURE,
      });
      t.same([operational.pdu.final, undeclared(operational.keys)], [true, []]);
      await session.accepted(operational);
      const text = await session.text({});
      t.same([text.pdu.final, text.keys], [true, []]);
    },
  },
];

const discoveryRows: readonly Requirement[] = [
  {
    id: 'CON-10',
    clause: 'RFC 7143 §7.4.2.1',
    level: 'MUST',
    text: 'unnamed discovery sessions of one initiator port through different portals stand beside each other',
    async run(t) {
      const { at } = await startSite(t, ['a'], () => ({
        portals: [ANY_PORT, { listen: '127.0.0.2:0' }],
        targets: [site.target('a')],
      }));
      const here = at('a');
      const there: Target = { ...at('a', 1), host: '127.0.0.2' };
      const first = await Session.login(here, { discovery: true });
      const { isid } = first;
      const second = await Session.login(there, { discovery: true, isid });
      for (const session of [first, second])
        t.ok(((await allKeys(session, { SendTargets: 'All' })) ?? []).length > 0, 'both are served');
      await Session.login(there, { discovery: true, isid });
      t.same(await second.connection.untilClosed(), [], 'the same portal: reinstated');
      t.ok(((await allKeys(first, { SendTargets: 'All' })) ?? []).length > 0);
    },
  },
];

export const concepts: readonly Requirement[] = [...names, ...numbering, ...negotiation, ...discoveryRows];
