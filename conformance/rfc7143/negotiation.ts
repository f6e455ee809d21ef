/** Text negotiation: every key, by its result function and range (RFC 7143 §6, §13; RFC 7144). */
import { isOneOf, LOGIN_STATUS, namesFor } from './login.js';
import { valuesOf, type Keys } from './keys.js';
import { OP, STAGE, textRequest } from './pdu.js';
import type { Requirement, Tap } from './requirement.js';
import { read10 } from './scsi.js';
import { only, Session, type LoginAnswer } from './session.js';
import type { Target } from './target.js';

/** Offers keys in the operational stage, without leaving it. */
async function offer(target: Target, keys: Keys): Promise<LoginAnswer> {
  const session = await Session.connect(target);
  const pairs = keys instanceof Array ? keys : Object.entries(keys);
  return session.loginStep({ transit: false, csg: STAGE.OPERATIONAL, isid: target.freshIsid() }, [
    ...Object.entries(namesFor(target)),
    ...pairs,
  ]);
}

/** What the target makes of one offer. */
async function answerTo(target: Target, key: string, value: string): Promise<string> {
  const answer = await offer(target, { [key]: value });
  if (answer.pdu.loginStatus !== 0) return `status ${answer.pdu.loginStatus.toString(16)}`;
  return only(answer, key);
}

interface Rule {
  id: string;
  clause: string;
  text: string;
  key: string;
  /** Offers, and the results that the key's function allows. */
  offers: readonly (readonly [string, (result: string) => boolean])[];
}

const is =
  (...values: string[]) =>
  (result: string): boolean =>
    values.includes(result);
const between =
  (low: number, high: number) =>
  (result: string): boolean =>
    /^(\d+|0[xX][0-9a-fA-F]+)$/.test(result) && Number(result) >= low && Number(result) <= high;

const RULES: readonly Rule[] = [
  {
    id: 'NEG-01',
    clause: 'RFC 7143 §6.2.2, §13.10',
    text: 'InitialR2T is the OR of both sides',
    key: 'InitialR2T',
    offers: [
      ['Yes', is('Yes')],
      ['No', is('Yes', 'No')],
    ],
  },
  {
    id: 'NEG-02',
    clause: 'RFC 7143 §6.2.2, §13.11',
    text: 'ImmediateData is the AND of both sides',
    key: 'ImmediateData',
    offers: [
      ['No', is('No')],
      ['Yes', is('Yes', 'No')],
    ],
  },
  {
    id: 'NEG-03',
    clause: 'RFC 7143 §6.2.2, §13.13',
    text: 'MaxBurstLength is the minimum, 512 to 16777215',
    key: 'MaxBurstLength',
    offers: [
      ['512', is('512')],
      ['16777215', between(512, 16777215)],
    ],
  },
  {
    id: 'NEG-04',
    clause: 'RFC 7143 §13.14',
    text: 'FirstBurstLength is the minimum, 512 to 16777215',
    key: 'FirstBurstLength',
    offers: [
      ['512', is('512')],
      ['16777215', between(512, 16777215)],
    ],
  },
  {
    id: 'NEG-05',
    clause: 'RFC 7143 §6.2.2, §13.15',
    text: 'DefaultTime2Wait is the maximum, 0 to 3600',
    key: 'DefaultTime2Wait',
    offers: [
      ['3600', is('3600')],
      ['0', between(0, 3600)],
    ],
  },
  {
    id: 'NEG-06',
    clause: 'RFC 7143 §13.16',
    text: 'DefaultTime2Retain is the minimum, 0 to 3600',
    key: 'DefaultTime2Retain',
    offers: [
      ['0', is('0')],
      ['3600', between(0, 3600)],
    ],
  },
  {
    id: 'NEG-07',
    clause: 'RFC 7143 §13.17',
    text: 'MaxOutstandingR2T is the minimum, 1 to 65535',
    key: 'MaxOutstandingR2T',
    offers: [
      ['1', is('1')],
      ['65535', between(1, 65535)],
    ],
  },
  {
    id: 'NEG-08',
    clause: 'RFC 7143 §13.18',
    text: 'DataPDUInOrder is the OR of both sides',
    key: 'DataPDUInOrder',
    offers: [
      ['Yes', is('Yes')],
      ['No', is('Yes', 'No')],
    ],
  },
  {
    id: 'NEG-09',
    clause: 'RFC 7143 §13.19',
    text: 'DataSequenceInOrder is the OR of both sides',
    key: 'DataSequenceInOrder',
    offers: [
      ['Yes', is('Yes')],
      ['No', is('Yes', 'No')],
    ],
  },
  {
    id: 'NEG-10',
    clause: 'RFC 7143 §13.20',
    text: 'ErrorRecoveryLevel is the minimum, 0 to 2',
    key: 'ErrorRecoveryLevel',
    offers: [
      ['0', is('0')],
      ['2', between(0, 2)],
    ],
  },
  {
    id: 'NEG-11',
    clause: 'RFC 7143 §13.2',
    text: 'MaxConnections is the minimum, 1 to 65535',
    key: 'MaxConnections',
    offers: [
      ['1', is('1')],
      ['65535', between(1, 65535)],
    ],
  },
  {
    id: 'NEG-12',
    clause: 'RFC 7143 §6.2.1, §13.1',
    text: 'HeaderDigest is the first value of the list that the target supports, None and CRC32C among them',
    key: 'HeaderDigest',
    offers: [
      ['None', is('None')],
      ['CRC32C', is('CRC32C')],
      ['X-other,None', is('None')],
      ['CRC32C,None', is('CRC32C', 'None')],
    ],
  },
  {
    id: 'NEG-13',
    clause: 'RFC 7143 §6.2.1, §13.1',
    text: 'DataDigest is the first value of the list that the target supports, None and CRC32C among them',
    key: 'DataDigest',
    offers: [
      ['None', is('None')],
      ['CRC32C', is('CRC32C')],
      ['X-other,None', is('None')],
      ['CRC32C,None', is('CRC32C', 'None')],
    ],
  },
  {
    id: 'NEG-14',
    clause: 'RFC 7143 §13.23',
    text: 'TaskReporting is answered by a value of the offered list, or Reject',
    key: 'TaskReporting',
    offers: [
      ['FastAbort', is('FastAbort', 'Reject')],
      ['RFC3720', is('RFC3720')],
      ['ResponseFence,RFC3720', is('ResponseFence', 'RFC3720')],
    ],
  },
  {
    id: 'NEG-15',
    clause: 'RFC 7143 §13.24; RFC 7144 §7.1.1',
    text: 'iSCSIProtocolLevel is the minimum of both sides',
    key: 'iSCSIProtocolLevel',
    offers: [
      ['1', is('1')],
      ['2', is('1', '2')],
      ['31', is('1', '2')],
    ],
  },
  {
    id: 'NEG-16',
    clause: 'RFC 7143 §6.2.1',
    text: 'a list without any supported value is answered by Reject',
    key: 'HeaderDigest',
    offers: [['X-one,X-two', is('Reject')]],
  },
  {
    id: 'NEG-17',
    clause: 'RFC 7143 §6.1',
    text: 'numbers may be hexadecimal, in either case',
    key: 'MaxBurstLength',
    offers: [
      ['0x200', is('512', '0x200')],
      ['0X3fF', is('1023', '0x3ff', '0X3fF')],
    ],
  },
  {
    id: 'NEG-18',
    clause: 'RFC 7143 §13.25',
    text: 'IFMarker and OFMarker are answered by Reject or No, never NotUnderstood',
    key: 'IFMarker',
    offers: [
      ['Yes', is('Reject', 'No')],
      ['No', is('Reject', 'No')],
    ],
  },
  {
    id: 'NEG-19',
    clause: 'RFC 7143 §6.2.2, §13.25',
    text: 'OFMarkInt and IFMarkInt are answered by Reject',
    key: 'OFMarkInt',
    offers: [['2048~8192', is('Reject')]],
  },
  {
    id: 'NEG-20',
    clause: 'RFC 7143 §6.1, §6.2',
    text: 'a key that is not known is answered by NotUnderstood, private extensions too',
    key: 'X-org.example.unheard-of',
    offers: [['Yes', is('NotUnderstood')]],
  },
  {
    id: 'NEG-21',
    clause: 'RFC 7143 §6.1, §6.2',
    text: 'a public key that is not known is answered by NotUnderstood',
    key: 'MaxUnheardOf',
    offers: [['1', is('NotUnderstood')]],
  },
];

/** Values out of range or of the wrong type: a negotiation answers Reject (RFC 7143 §6.2.2) or fails. */
const BAD: readonly (readonly [string, readonly string[]])[] = [
  [
    'MaxBurstLength',
    ['511', '16777216', '-1', '65536k', '0x', '1e3', '', '99999999999999999999', '512~1024'],
  ],
  ['FirstBurstLength', ['0', '16777216', 'Yes']],
  ['MaxOutstandingR2T', ['0', '65536']],
  ['MaxConnections', ['0', '65536']],
  ['ErrorRecoveryLevel', ['3', '-1', 'two']],
  ['DefaultTime2Wait', ['3601', '-1']],
  ['DefaultTime2Retain', ['3601']],
  ['InitialR2T', ['Maybe', 'yes', 'Yes,No', '1', '']],
  ['ImmediateData', ['TRUE']],
  ['DataPDUInOrder', ['']],
];

const rules = RULES.map(({ id, clause, text, key, offers }): Requirement => ({
  id,
  clause,
  level: 'MUST',
  text,
  async run(t, target) {
    for (const [value, allowed] of offers) {
      const result = await answerTo(target, key, value);
      t.ok(allowed(result), `${key}=${value} gives ${result}`);
    }
  },
}));

async function refusesValue(t: Tap, target: Target, key: string, value: string): Promise<void> {
  const session = await Session.connect(target);
  const keys = { ...namesFor(target), [key]: value };
  session.sendLogin({ transit: false, csg: STAGE.OPERATIONAL, isid: target.freshIsid() }, keys);
  const pdu = await session.connection.receive();
  if (pdu === undefined) return;
  if (pdu.loginStatus >> 8 === 2) return;
  const text = pdu.data.toString('latin1');
  t.ok(text.includes(`${key}=Reject\0`), `${key}=${value.slice(0, 40)} is refused: ${JSON.stringify(text)}`);
}

export const negotiation: readonly Requirement[] = [
  ...rules,
  {
    id: 'NEG-30',
    clause: 'RFC 7143 §6.2, §6.2.2',
    level: 'MUST',
    text: 'values out of range or of the wrong type are answered by Reject (or end the login)',
    async run(t, target) {
      for (const [key, values] of BAD) {
        for (const value of values) await refusesValue(t, target, key, value);
      }
      t.pass('all were refused');
    },
  },
  {
    id: 'NEG-31',
    clause: 'RFC 7143 §6.1',
    level: 'MUST',
    text: 'a value longer than 255 bytes is refused where no rule of the key allows more',
    async run(t, target) {
      const session = await Session.connect(target);
      session.sendLogin(
        { transit: false, csg: STAGE.OPERATIONAL, isid: target.freshIsid() },
        { ...namesFor(target), InitiatorAlias: 'a'.repeat(7000) },
      );
      const pdu = await session.connection.receive();
      t.ok(pdu === undefined || pdu.loginStatus >> 8 === 2 || pdu.data.includes('InitiatorAlias=Reject\0'));
      await Session.login(target);
    },
  },
  {
    id: 'NEG-32',
    clause: 'RFC 7143 §13.12',
    level: 'MUST',
    text: 'MaxRecvDataSegmentLength is declared by each side for itself, 512 to 16777215',
    async run(t, target) {
      const answer = await offer(target, { MaxRecvDataSegmentLength: '4096' });
      t.equal(answer.pdu.loginStatus, 0);
      for (const value of valuesOf(answer.keys, 'MaxRecvDataSegmentLength')) {
        t.ok(Number(value) >= 512 && Number(value) <= 16777215, `the target declares ${value}`);
      }
      await refusesValue(t, target, 'MaxRecvDataSegmentLength', '511');
      await refusesValue(t, target, 'MaxRecvDataSegmentLength', '16777216');
    },
  },
  {
    id: 'NEG-33',
    clause: 'RFC 7143 §6.2, §13.5, §13.7',
    level: 'MUST',
    text: 'declarations (InitiatorName, InitiatorAlias, SessionType, TargetName) are not answered',
    async run(t, target) {
      const answer = await offer(target, { InitiatorAlias: 'a file server' });
      for (const key of ['InitiatorName', 'InitiatorAlias', 'SessionType', 'TargetName']) {
        t.same(valuesOf(answer.keys, key), [], key);
      }
    },
  },
  {
    id: 'NEG-34',
    clause: 'RFC 7143 §6.2, §13.14',
    level: 'MUST',
    text: 'FirstBurstLength never exceeds MaxBurstLength in the result',
    async run(t, target) {
      const answer = await offer(target, { MaxBurstLength: '1024', FirstBurstLength: '65536' });
      if (answer.pdu.loginStatus !== 0) {
        t.equal(answer.pdu.loginStatus >> 8, 2);
        return;
      }
      const first = only(answer, 'FirstBurstLength');
      t.ok(
        first === 'Reject' || Number(first) <= Number(only(answer, 'MaxBurstLength')),
        `FirstBurstLength=${first}`,
      );
    },
  },
  {
    id: 'NEG-35',
    clause: 'RFC 7143 §13',
    level: 'MUST',
    text: 'in a discovery session the keys that only normal sessions use are answered by Irrelevant',
    async run(t, target) {
      const session = await Session.connect(target);
      const answer = await session.loginStep(
        { transit: false, csg: STAGE.OPERATIONAL, isid: target.freshIsid() },
        {
          InitiatorName: 'iqn.2026-01.org.example:asker',
          SessionType: 'Discovery',
          MaxConnections: '1',
          InitialR2T: 'Yes',
          ImmediateData: 'Yes',
          MaxBurstLength: '65536',
          FirstBurstLength: '65536',
          MaxOutstandingR2T: '1',
          DataPDUInOrder: 'Yes',
          DataSequenceInOrder: 'Yes',
        },
      );
      t.equal(answer.pdu.loginStatus, 0);
      for (const key of [
        'MaxConnections',
        'InitialR2T',
        'ImmediateData',
        'MaxBurstLength',
        'FirstBurstLength',
        'MaxOutstandingR2T',
        'DataPDUInOrder',
        'DataSequenceInOrder',
      ]) {
        t.equal(only(answer, key), 'Irrelevant', key);
      }
    },
  },
  {
    id: 'NEG-36',
    clause: 'RFC 7143 §6.4, §13.12',
    level: 'MUST',
    text: 'MaxRecvDataSegmentLength may be declared anew in the full feature phase, and is kept from then on',
    async run(t, target) {
      const session = await Session.login(target, { keys: { MaxRecvDataSegmentLength: '8192' } });
      const { pdu } = await session.text({ MaxRecvDataSegmentLength: '512' });
      t.ok(pdu.final);
      session.connection.maxRecvDataSegmentBytes = 512;
      const blocks = 8192 / session.blockBytes;
      const outcome = await session.execute({ cdb: read10(0, blocks), read: 8192 });
      t.equal(outcome.data.length, 8192);
      t.ok(outcome.pdus.length >= 16, `${outcome.pdus.length} Data-In PDUs`);
    },
  },
  {
    id: 'NEG-37',
    clause: 'RFC 7143 §6.4, §13.10, §13.20',
    level: 'MUST',
    text: 'keys of the login phase are refused in the full feature phase',
    async run(t, target) {
      for (const [key, value] of [
        ['InitialR2T', 'Yes'],
        ['HeaderDigest', 'CRC32C'],
        ['ErrorRecoveryLevel', '0'],
        ['MaxConnections', '1'],
        ['TargetName', 'iqn.2026-01.org.example:x'],
      ] as const) {
        const session = await Session.login(target);
        session.connection.send(
          textRequest({
            itt: session.nextTag(),
            cmdSN: session.takeCmdSN(),
            expStatSN: session.expStatSN,
            data: Buffer.from(`${key}=${value}\0`),
          }),
        );
        const pdu = await session.next();
        const text = pdu?.data.toString('latin1') ?? '';
        t.ok(
          pdu === undefined || pdu.opcode === OP.REJECT || text.includes(`${key}=Reject\0`),
          `${key}: ${JSON.stringify(text)}`,
        );
        session.connection.destroy();
      }
    },
  },
  {
    id: 'NEG-38',
    clause: 'RFC 7143 §13.3',
    level: 'ROBUST',
    text: 'SendTargets and AuthMethod in the operational stage of a login do no harm',
    async run(t, target) {
      for (const key of ['SendTargets', 'AuthMethod', 'CHAP_A', 'TargetAddress', 'TargetPortalGroupTag']) {
        const session = await Session.connect(target);
        session.sendLogin(
          { transit: false, csg: STAGE.OPERATIONAL, isid: target.freshIsid() },
          { ...namesFor(target), [key]: 'None' },
        );
        const pdu = await session.connection.receive();
        t.ok(pdu === undefined || pdu.opcode === OP.LOGIN_RESPONSE, key);
        t.notOk(pdu?.data.toString().includes('TargetName='), 'no target is told');
      }
    },
  },
  {
    id: 'NEG-41',
    clause: 'RFC 7143 §13.22, §13.26',
    level: 'MUST',
    text: 'X#NodeArchitecture is a declaration that is taken, and other X# keys are answered by NotUnderstood: neither ends a login',
    async run(t, target) {
      const answer = await offer(target, { 'X#NodeArchitecture': 'ExampleOS,1.0', 'X#Nobody': 'knows' });
      t.equal(answer.pdu.loginStatus, 0);
      t.same(valuesOf(answer.keys, 'X#NodeArchitecture'), []);
      t.same(valuesOf(answer.keys, 'X#Nobody'), ['NotUnderstood']);
    },
  },
  {
    id: 'NEG-42',
    clause: 'RFC 7143 §6.2, §12.1',
    level: 'MUST',
    text: 'AuthMethod that is repeated is refused like every other key, though no authentication is asked for',
    async run(t, target) {
      const session = await Session.connect(target);
      const { pdu } = await session.loginStep(
        { transit: false, csg: STAGE.SECURITY, isid: target.freshIsid() },
        [...Object.entries(namesFor(target)), ['AuthMethod', 'None'], ['AuthMethod', 'None']],
      );
      t.equal(pdu.loginStatus, LOGIN_STATUS.INITIATOR_ERROR);
    },
  },
  {
    id: 'NEG-54',
    clause: 'RFC 7143 §13.6, §13.8, §13.9',
    level: 'MUST',
    text: 'keys that only a target may send (TargetAlias, TargetAddress, TargetPortalGroupTag) are refused from an initiator, and nothing is taken from them',
    async run(t, target) {
      for (const [key, value] of [
        ['TargetAlias', 'mine'],
        ['TargetAddress', '192.0.2.1:3260,9'],
        ['TargetPortalGroupTag', '9'],
      ] as const) {
        const { pdu, keys } = await offer(target, { [key]: value });
        const answers = valuesOf(keys, key);
        t.ok(pdu.loginStatus !== 0 || answers.includes('Reject'), `${key}: ${answers.join()}`);
        t.notOk(answers.includes(value), key);
      }
    },
  },
  {
    id: 'NEG-53',
    clause: 'RFC 7143 §12, §6.3.2',
    level: 'MUST',
    text: 'operational keys do not belong to the security stage: they end the login with 0200h, or are refused',
    async run(t, target) {
      for (const [key, value] of [
        ['HeaderDigest', 'CRC32C'],
        ['MaxConnections', '8'],
        ['ImmediateData', 'No'],
        ['MaxBurstLength', '65536'],
        ['ErrorRecoveryLevel', '2'],
        ['TaskReporting', 'FastAbort'],
      ] as const) {
        const session = await Session.connect(target);
        const { pdu, keys } = await session.loginStep(
          { transit: false, csg: STAGE.SECURITY, isid: target.freshIsid() },
          { ...namesFor(target), [key]: value },
        );
        if (pdu.loginStatus === 0) t.same(valuesOf(keys, key), ['Reject'], key);
        else t.equal(pdu.loginStatus, LOGIN_STATUS.INITIATOR_ERROR, key);
      }
    },
  },
  {
    id: 'NEG-40',
    clause: 'RFC 7143 §6.3.2, §12.1',
    level: 'MUST',
    text: 'an AuthMethod list without any that the target accepts is answered by Reject or 0201h',
    async run(t, target) {
      const session = await Session.connect(target);
      const answer = await session.loginStep(
        { transit: false, csg: STAGE.SECURITY, isid: target.freshIsid() },
        { ...namesFor(target), AuthMethod: 'KRB5,SRP' },
      );
      if (answer.pdu.loginStatus === 0) t.equal(only(answer, 'AuthMethod'), 'Reject');
      else isOneOf(t, answer.pdu.loginStatus, [LOGIN_STATUS.AUTHENTICATION_FAILURE], 'status');
    },
  },
];
