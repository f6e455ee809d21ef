/** CHAP, one-way and mutual (RFC 7143 §9.2.1, §12.1.3). */
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { succeed } from '../support/processes.js';
import { PROGRAM, PROGRAM_ENVIRONMENT } from './cldd.js';
import { valuesOf } from './keys.js';
import { isOneOf, LOGIN_STATUS, namesFor } from './login.js';
import { OP, STAGE, type LoginFields } from './pdu.js';
import type { Requirement, Tap } from './requirement.js';
import { INITIATOR_NAME, only, Session, type LoginAnswer, type SessionOptions } from './session.js';
import { ANY_PORT, site, startSite, type Site } from './site.js';
import type { Target } from './target.js';

/** Numbers of the algorithms in the registry of IANA, and the length of their results. */
const ALGORITHMS = [
  ['5', 'md5', 16],
  ['6', 'sha1', 20],
  ['7', 'sha256', 32],
  ['8', 'sha3-256', 32],
] as const;

type Hash = (typeof ALGORITHMS)[number][1];

const respond = (hash: Hash, identifier: number, secret: string, challenge: Buffer): Buffer =>
  createHash(hash)
    .update(Buffer.from([identifier]))
    .update(secret)
    .update(challenge)
    .digest();

const hex = (bytes: Buffer): string => `0x${bytes.toString('hex')}`;
const base64 = (bytes: Buffer): string => `0b${bytes.toString('base64')}`;

function binary(value: string): Buffer {
  if (/^0x/i.test(value)) return Buffer.from(value.slice(2).padStart((value.length - 1) & ~1, '0'), 'hex');
  if (/^0b/i.test(value)) return Buffer.from(value.slice(2), 'base64');
  throw new Error(`not a binary value: ${value}`);
}

const SECURITY: LoginFields = { transit: false, csg: STAGE.SECURITY };
const ONWARD: LoginFields = { transit: true, csg: STAGE.SECURITY, nsg: STAGE.FULL_FEATURE };

const DISCOVERY = { InitiatorName: INITIATOR_NAME, SessionType: 'Discovery' } as const;

interface Challenge {
  session: Session;
  fields: LoginFields;
  identifier: number;
  challenge: Buffer;
  algorithm: string;
}

let addresses = 0;

/**
 * The target, reached from a loopback address of its own: one that has failed before would be answered ever later.
 */
export function fromElsewhere(target: Target): Target {
  if (!target.host.startsWith('127.') || target.from !== undefined) return target;
  addresses++;
  return {
    ...target,
    from: `127.${64 + ((addresses >> 16) & 63)}.${(addresses >> 8) & 255}.${addresses & 255}`,
  };
}

/** To the point where the target has sent its challenge. */
async function challenged(
  target: Target,
  algorithms = '5',
  options: SessionOptions = {},
): Promise<Challenge> {
  const session = await Session.connect(fromElsewhere(target));
  const { isid = target.freshIsid(), tsih = 0, cid = 0, cmdSN = 1 } = options;
  Object.assign(session, { isid, cmdSN });
  const fields = { ...SECURITY, isid, tsih, cid };
  const method = await session.loginStep(fields, {
    ...(options.discovery ? DISCOVERY : namesFor(target)),
    AuthMethod: 'CHAP',
  });
  if (only(method, 'AuthMethod') !== 'CHAP') throw new Error('the target does not choose CHAP');
  const answer = await session.loginStep(fields, { CHAP_A: algorithms });
  return {
    session,
    fields,
    algorithm: only(answer, 'CHAP_A'),
    identifier: Number(only(answer, 'CHAP_I')),
    challenge: binary(only(answer, 'CHAP_C')),
  };
}

/** A session of somebody who has proved to be that user; throws if the login is refused. */
export async function chapLogin(
  target: Target,
  { name, secret }: { name: string; secret: string },
  algorithms = '5',
  options: SessionOptions = {},
): Promise<Session> {
  const state = await challenged(target, algorithms, options);
  const hash = ALGORITHMS.find(([number]) => number === state.algorithm)?.[1] ?? 'md5';
  const { session, fields } = state;
  const proved = await session.loginStep(
    { ...fields, transit: true, nsg: STAGE.OPERATIONAL },
    { CHAP_N: name, CHAP_R: hex(respond(hash, state.identifier, secret, state.challenge)) },
  );
  letIn(proved);
  const operational = { csg: STAGE.OPERATIONAL, nsg: STAGE.FULL_FEATURE, transit: true };
  const last = await session.loginStep({ ...fields, ...operational }, options.keys ?? {});
  letIn(last);
  for (const [key, value] of last.keys) session.agreed.set(key, value);
  await session.accepted(last, { keepUnitAttention: true, ...options });
  return session;
}

function letIn({ pdu: { loginStatus } }: LoginAnswer): void {
  if (loginStatus !== 0) throw new Error(`login refused: ${loginStatus.toString(16).padStart(4, '0')}h`);
}

const user = (target: Target): { name: string; secret: string; mutualName: string; mutualSecret: string } => {
  if (target.profile.chap === undefined) throw new Error('no CHAP user');
  return target.profile.chap;
};

async function finish(state: Challenge, keys: Record<string, string>): Promise<LoginAnswer> {
  return state.session.loginStep({ ...state.fields, ...ONWARD, ...isidOf(state) }, keys);
}

const isidOf = ({ fields }: Challenge): { isid: Buffer } => ({ isid: fields.isid ?? Buffer.alloc(6) });

/** A daemon with the user `files`, and users of discovery if they are given. */
function withUsers(t: Tap, more: object, discovery?: object): Promise<Site> {
  return startSite(t, ['a'], (folder) => {
    for (const name of ['files', 'scout'])
      writeFileSync(join(folder, name), `secret of ${name} 123\n`, { mode: 0o600 });
    const users = [{ name: 'files', secretFile: 'files' }];
    return {
      portals: [ANY_PORT],
      targets: [site.target('a', { authentication: { users, ...more } })],
      ...(discovery === undefined ? {} : { discovery: { authentication: discovery } }),
    };
  });
}

const needs = (target: Target): boolean => target.profile.chap !== undefined;

async function fails(t: Tap, state: Challenge, answer: LoginAnswer): Promise<void> {
  isOneOf(
    t,
    answer.pdu.loginStatus,
    [LOGIN_STATUS.AUTHENTICATION_FAILURE, LOGIN_STATUS.INITIATOR_ERROR, LOGIN_STATUS.MISSING_PARAMETER],
    'status',
  );
  t.same(await state.session.connection.untilClosed(), [], 'closed');
}

/** The right proof, in a given form. */
const proof = (target: Target, state: Challenge, encoding = hex): Record<string, string> => {
  const algorithm = ALGORITHMS.find(([number]) => number === state.algorithm);
  if (algorithm === undefined) throw new Error(`unknown algorithm ${state.algorithm}`);
  const { name, secret } = user(target);
  return { CHAP_N: name, CHAP_R: encoding(respond(algorithm[1], state.identifier, secret, state.challenge)) };
};

export const chap: readonly Requirement[] = (
  [
    {
      id: 'CHAP-01',
      clause: 'RFC 7143 §6.3.2, §12.1',
      level: 'MUST',
      text: 'a login that offers no authentication is refused with 0201h',
      async run(t, target) {
        for (const [csg, keys] of [
          [STAGE.OPERATIONAL, {}],
          [STAGE.SECURITY, { AuthMethod: 'None' }],
          [STAGE.SECURITY, {}],
        ] as const) {
          const session = await Session.connect(fromElsewhere(target));
          const { pdu } = await session.loginStep(
            { transit: true, csg, nsg: STAGE.FULL_FEATURE, isid: target.freshIsid() },
            { ...namesFor(target), ...keys },
          );
          if (pdu.loginStatus === 0) t.notOk(pdu.final, 'no way into the full feature phase');
          else isOneOf(t, pdu.loginStatus, [LOGIN_STATUS.AUTHENTICATION_FAILURE], 'status');
        }
      },
    },
    ...ALGORITHMS.flatMap(([number, hash, length], index): Requirement[] => [
      {
        id: `CHAP-0${2 + index}`,
        clause: 'RFC 7143 §12.1.3',
        level: number === '5' ? 'MUST' : 'MAY',
        text: `one-way CHAP with algorithm ${number} (${hash}) lets the user in, answers in hexadecimal and base64 alike`,
        async run(t, target) {
          for (const encoding of [hex, base64]) {
            const state = await challenged(target, number);
            t.equal(state.algorithm, number);
            t.ok(state.challenge.length >= length, `challenge of ${state.challenge.length} bytes`);
            const answer = await finish(state, proof(target, state, encoding));
            t.equal(answer.pdu.loginStatus, 0);
            t.ok(answer.pdu.final);
          }
        },
      },
    ]),
    {
      id: 'CHAP-06',
      clause: 'RFC 7143 §6.3.2, §12.1.3',
      level: 'MUST',
      text: 'a wrong response is refused with 0201h and the connection closed',
      async run(t, target) {
        const state = await challenged(target);
        const answer = await finish(state, {
          CHAP_N: user(target).name,
          CHAP_R: hex(Buffer.alloc(16, 1)),
        });
        t.equal(answer.pdu.loginStatus, LOGIN_STATUS.AUTHENTICATION_FAILURE);
        await state.session.connection.untilClosed();
      },
    },
    {
      id: 'CHAP-07',
      clause: 'RFC 7143 §12.1.3',
      level: 'MUST',
      text: 'an unknown user is refused like a wrong secret',
      async run(t, target) {
        const state = await challenged(target);
        const answer = await finish(state, { ...proof(target, state), CHAP_N: 'nobody' });
        t.equal(answer.pdu.loginStatus, LOGIN_STATUS.AUTHENTICATION_FAILURE);
      },
    },
    {
      id: 'CHAP-08',
      clause: 'RFC 7143 §12.1.3, RFC 1994 §4.1',
      level: 'MUST',
      text: 'challenges and identifiers are not repeated',
      async run(t, target) {
        const seen = new Set<string>();
        for (let n = 0; n < 20; n++) {
          const { session, challenge } = await challenged(target);
          seen.add(challenge.toString('hex'));
          session.connection.destroy();
        }
        t.equal(seen.size, 20);
      },
    },
    {
      id: 'CHAP-09',
      clause: 'RFC 7143 §9.2.1, §12.1.3',
      level: 'MUST',
      text: 'the target proves itself when asked to (mutual CHAP), with every algorithm',
      async run(t, target) {
        for (const [number, hash] of ALGORITHMS) {
          const state = await challenged(target, number);
          const mine = Buffer.from('a challenge of the initiator 123');
          const answer = await finish(state, {
            ...proof(target, state),
            CHAP_I: '77',
            CHAP_C: base64(mine),
          });
          t.equal(answer.pdu.loginStatus, 0);
          t.equal(only(answer, 'CHAP_N'), user(target).mutualName);
          t.same(binary(only(answer, 'CHAP_R')), respond(hash, 77, user(target).mutualSecret, mine));
        }
      },
    },
    {
      id: 'CHAP-10',
      clause: 'RFC 7143 §9.2.1, §12.1.3',
      level: 'MUST',
      text: 'the target’s own challenge sent back to it is refused (reflection)',
      async run(t, target) {
        const state = await challenged(target);
        const answer = await finish(state, {
          ...proof(target, state),
          CHAP_I: String(state.identifier),
          CHAP_C: hex(state.challenge),
        });
        t.same(valuesOf(answer.keys, 'CHAP_R'), []);
        await fails(t, state, answer);
      },
    },
    {
      id: 'CHAP-11',
      clause: 'RFC 7143 §12.1.3',
      level: 'MUST',
      text: 'an algorithm of the offer is chosen; if the target supports none, the login fails with 0201h',
      async run(t, target) {
        t.equal((await challenged(target, '99,5')).algorithm, '5');
        t.equal((await challenged(target, '7,5')).algorithm, '7');
        const session = await Session.connect(fromElsewhere(target));
        const fields = { ...SECURITY, isid: target.freshIsid() };
        await session.loginStep(fields, { ...namesFor(target), AuthMethod: 'CHAP' });
        const answer = await session.loginStep(fields, { CHAP_A: '98,99' });
        t.equal(answer.pdu.loginStatus, LOGIN_STATUS.AUTHENTICATION_FAILURE);
      },
    },
    {
      id: 'CHAP-12',
      clause: 'RFC 7143 §12.1.3, §7.12',
      level: 'MUST',
      text: 'steps out of order are refused: response before challenge, response without name, and twice',
      async run(t, target) {
        for (const keys of [
          { CHAP_N: user(target).name, CHAP_R: hex(Buffer.alloc(16)) },
          { CHAP_I: '1', CHAP_C: hex(Buffer.alloc(16, 3)) },
          { CHAP_A: 'five' },
          { CHAP_A: '' },
        ]) {
          const session = await Session.connect(fromElsewhere(target));
          const fields = { ...SECURITY, isid: target.freshIsid() };
          await session.loginStep(fields, { ...namesFor(target), AuthMethod: 'CHAP' });
          session.sendLogin({ ...fields, ...ONWARD, isid: fields.isid }, keys);
          const pdu = await session.connection.receive();
          t.ok(pdu === undefined || pdu.loginStatus >> 8 === 2 || !pdu.final, JSON.stringify(keys));
          t.notOk(pdu?.loginStatus === 0 && pdu.final);
        }
        const state = await challenged(target);
        await fails(t, state, await finish(state, { CHAP_R: proof(target, state)['CHAP_R'] ?? '' }));
      },
    },
    {
      id: 'CHAP-26',
      clause: 'RFC 7143 §9.2, §12.1.3',
      level: 'MUST',
      text: 'keys that a step lacks are refused with 0207h, keys and values that are not those of the step with 0200h, and only what is wrong by cryptography, or not to be had, with 0201h',
      async run(t, target) {
        const { AUTHENTICATION_FAILURE, INITIATOR_ERROR, MISSING_PARAMETER } = LOGIN_STATUS;
        for (const [keys, status] of [
          [{}, MISSING_PARAMETER],
          [{ CHAP_I: '1' }, INITIATOR_ERROR],
          [{ CHAP_A: '5', CHAP_N: 'files' }, INITIATOR_ERROR],
          [{ CHAP_A: 'five' }, INITIATOR_ERROR],
          [{ CHAP_A: '99' }, AUTHENTICATION_FAILURE],
        ] as const) {
          const session = await Session.connect(fromElsewhere(target));
          const fields = { ...SECURITY, isid: target.freshIsid() };
          await session.loginStep(fields, { ...namesFor(target), AuthMethod: 'CHAP' });
          const { pdu } = await session.loginStep(fields, keys);
          t.equal(pdu.loginStatus, status, JSON.stringify(keys));
          t.same(await session.connection.untilClosed(), []);
        }
        const mutual = { CHAP_I: '7', CHAP_C: hex(Buffer.alloc(16, 1)) };
        for (const [change, status] of [
          [{ CHAP_R: undefined }, MISSING_PARAMETER],
          // What a reflection would leave out.
          [{ CHAP_R: undefined, ...mutual }, MISSING_PARAMETER],
          [{ CHAP_N: undefined }, MISSING_PARAMETER],
          [{ ...mutual, CHAP_C: undefined }, MISSING_PARAMETER],
          [{ ...mutual, CHAP_I: undefined }, MISSING_PARAMETER],
          [{ CHAP_R: 'abc' }, INITIATOR_ERROR],
          [{ ...mutual, CHAP_I: '256' }, INITIATOR_ERROR],
          [{ ...mutual, CHAP_C: '0xzz' }, INITIATOR_ERROR],
          [{ CHAP_A: '5' }, INITIATOR_ERROR],
          [{ CHAP_R: hex(Buffer.alloc(16, 1)) }, AUTHENTICATION_FAILURE],
          [{ CHAP_N: 'nobody' }, AUTHENTICATION_FAILURE],
        ] as const) {
          const state = await challenged(target);
          const keys = Object.entries({ ...proof(target, state), ...change }).flatMap(([key, value]) =>
            value === undefined ? [] : ([[key, value]] as [string, string][]),
          );
          const { pdu } = await finish(state, Object.fromEntries(keys));
          t.equal(pdu.loginStatus, status, JSON.stringify(change));
          t.same(await state.session.connection.untilClosed(), []);
        }
      },
    },
    {
      id: 'CHAP-13',
      clause: 'RFC 7143 §6.1, §12.1.3',
      level: 'MUST',
      text: 'values out of bounds are refused: CHAP_R of 1,000 bytes, odd, empty or no binary value',
      async run(t, target) {
        for (const value of [
          hex(Buffer.alloc(1000, 1)),
          base64(Buffer.alloc(2000, 1)),
          '0x',
          '0b',
          '0b====',
          '0xzz',
          'abc',
          '',
          `0b${'A'.repeat(7000)}`,
          hex(Buffer.alloc(15)),
          hex(Buffer.alloc(17)),
        ]) {
          const state = await challenged(target);
          await fails(t, state, await finish(state, { CHAP_N: user(target).name, CHAP_R: value }));
        }
      },
    },
    {
      id: 'CHAP-14',
      clause: 'RFC 7143 §12.1.3',
      level: 'MUST',
      text: 'challenges of up to 1,024 bytes are answered, longer ones refused, an identifier over 255 refused',
      async run(t, target) {
        const mine = Buffer.alloc(1024, 0x77);
        const state = await challenged(target);
        const answer = await finish(state, {
          ...proof(target, state),
          CHAP_I: '0',
          CHAP_C: hex(mine),
        });
        t.equal(answer.pdu.loginStatus, 0);
        t.same(binary(only(answer, 'CHAP_R')), respond('md5', 0, user(target).mutualSecret, mine));
        for (const [identifier, challenge] of [
          ['1', hex(Buffer.alloc(1025, 0x77))],
          ['256', hex(Buffer.alloc(16, 0x77))],
          ['-1', hex(Buffer.alloc(16, 0x77))],
          ['1', '0x'],
        ] as const) {
          const other = await challenged(target);
          const keys = { ...proof(target, other), CHAP_I: identifier, CHAP_C: challenge };
          await fails(t, other, await finish(other, keys));
        }
      },
    },
    {
      id: 'CHAP-15',
      clause: 'RFC 7143 §12.1.3',
      level: 'MUST',
      text: 'the response to one challenge is worth nothing for another (replay)',
      async run(t, target) {
        const one = await challenged(target);
        const two = await challenged(target);
        await fails(t, two, await finish(two, proof(target, one)));
      },
    },
    {
      id: 'CHAP-16',
      clause: 'RFC 7143 §6.3.2',
      level: 'MUST',
      text: 'leaving the security stage before authentication is over is refused',
      async run(t, target) {
        for (const nsg of [STAGE.OPERATIONAL, STAGE.FULL_FEATURE]) {
          const state = await challenged(target);
          state.session.sendLogin({ ...state.fields, transit: true, nsg });
          const pdu = await state.session.connection.receive();
          t.ok(pdu === undefined || pdu.loginStatus !== 0 || !pdu.final, `to stage ${nsg}`);
        }
        const state = await challenged(target);
        state.session.sendLogin({
          ...state.fields,
          transit: true,
          csg: STAGE.OPERATIONAL,
          nsg: STAGE.FULL_FEATURE,
        });
        const pdu = await state.session.connection.receive();
        t.ok(pdu === undefined || pdu.loginStatus !== 0, 'operational stage');
      },
    },
    {
      id: 'CHAP-17',
      clause: 'RFC 7143 §6.3.5, §9.2',
      level: 'MUST',
      text: 'nobody ends a session by a login with its ISID before having authenticated',
      async run(t, target) {
        const state = await challenged(target);
        const answer = await finish(state, proof(target, state));
        t.equal(answer.pdu.loginStatus, 0);
        const intruder = await Session.connect(fromElsewhere(target));
        intruder.sendLogin(
          { transit: true, csg: STAGE.OPERATIONAL, nsg: STAGE.FULL_FEATURE, ...isidOf(state) },
          namesFor(target),
        );
        await intruder.connection.untilClosed();
        t.same(await state.session.fence(), [], 'the session lives on');
      },
    },
    {
      id: 'CHAP-19',
      clause: 'RFC 7143 §6.3.2, §6.3.2, §12.1',
      level: 'MUST',
      text: 'of the offered methods CHAP is chosen, wherever it stands; Kerberos or SRP alone are not, and end the login with 0201h',
      async run(t, target) {
        for (const [offer, chosen] of [
          ['KRB5,SRP,CHAP,None', 'CHAP'],
          ['None,CHAP', 'CHAP'],
          ['KRB5', undefined],
          ['SRP,SPKM1', undefined],
        ] as const) {
          const session = await Session.connect(fromElsewhere(target));
          const answer = await session.loginStep(
            { ...SECURITY, isid: target.freshIsid() },
            { ...namesFor(target), AuthMethod: offer },
          );
          if (chosen !== undefined) t.equal(only(answer, 'AuthMethod'), chosen);
          else t.equal(answer.pdu.loginStatus, LOGIN_STATUS.AUTHENTICATION_FAILURE, offer);
        }
      },
    },
    {
      id: 'CHAP-20',
      clause: 'RFC 7143 §12.1.3',
      level: 'MUST',
      text: 'the algorithms and their order are the configuration’s: its first that is offered is chosen, none other',
      needs: () => true,
      async run(t) {
        for (const [algorithms, offers] of [
          [['MD5', 'SHA256'], { '8,7,6,5': '5', '7,8': '7', '8,6': undefined }],
          [['SHA3_256'], { '5,6,7,8': '8', '5': undefined }],
          [undefined, { '5,6,7,8': '8', '5,6,7': '7', '5,6': '6', '5': '5' }],
        ] as const) {
          const { at } = await withUsers(t, algorithms === undefined ? {} : { algorithms });
          for (const [offer, chosen] of Object.entries(offers)) {
            const state = challenged(at('a'), offer);
            if (chosen === undefined) await t.rejects(state, `${offer} with ${String(algorithms)}`);
            else t.equal((await state).algorithm, chosen, `${offer} with ${String(algorithms)}`);
          }
        }
      },
    },
    {
      id: 'CHAP-21',
      clause: 'RFC 7143 §4.3, §9.2',
      level: 'MUST',
      text: 'discovery has authentication of its own: its users get no further, and the users of a target do not discover',
      needs: () => true,
      async run(t) {
        const { at } = await withUsers(t, {}, { users: [{ name: 'scout', secretFile: 'scout' }] });
        const scout = { name: 'scout', secret: 'secret of scout 123' };
        const files = { name: 'files', secret: 'secret of files 123' };
        const looking = await chapLogin(at('a'), scout, '7', { discovery: true });
        const { keys } = await looking.text({ SendTargets: 'All' });
        t.same(valuesOf(keys, 'TargetName'), [at('a').iqn]);
        t.ok((await chapLogin(at('a'), files)).tsih > 0);
        await t.rejects(chapLogin(at('a'), files, '5', { discovery: true }), { message: /0201h/ });
        await t.rejects(chapLogin(at('a'), scout), { message: /0201h/ });
        await t.rejects(Session.login(at('a'), { discovery: true }), { message: /0201h/ });
      },
    },
    {
      id: 'CHAP-22',
      clause: 'RFC 7143 §9.2.1, §12.1.3',
      level: 'MUST',
      text: 'a target without a secret of its own does not pretend: mutual CHAP is refused, and a wrong user learns nothing of it',
      needs: () => true,
      async run(t) {
        const { at } = await withUsers(t, {});
        const state = await challenged(at('a'));
        const answer = await finish(state, {
          CHAP_N: 'files',
          CHAP_R: hex(respond('md5', state.identifier, 'secret of files 123', state.challenge)),
          CHAP_I: '1',
          CHAP_C: hex(Buffer.alloc(16, 9)),
        });
        t.same(answer.keys, []);
        await fails(t, state, answer);
      },
    },
    {
      id: 'CHAP-25',
      clause: 'RFC 7143 §9.2.1',
      level: 'MUST',
      text: 'secrets of less than 96 bits, and one that serves in both directions, be it for different targets or discovery, are refused by the configuration; 128 bits and more are taken',
      needs: () => true,
      async run(t) {
        const { at, folder, reload } = await withUsers(t, {});
        const write = (name: string, secret: Buffer): { name: string; secretFile: string } => {
          writeFileSync(join(folder, name), secret, { mode: 0o600 });
          return { name, secretFile: name };
        };
        const configure = (authentication: object): Promise<void> =>
          reload({ portals: [ANY_PORT], targets: [site.target('a', { authentication })] });
        // Any byte but the end of a line may be part of a secret.
        const long = Buffer.from(Array.from({ length: 16 }, (_, n) => 0x80 + 7 * n));
        const eleven = write('eleven', Buffer.alloc(11, 0x61));
        await t.rejects(configure({ users: [eleven] }), /12 to 255 bytes/);
        const sixteen = write('sixteen', long);
        const twin = write('twin', long);
        await t.rejects(configure({ users: [sixteen], mutual: twin }), /same secret in both directions/);
        // A user of one could pretend to be the other.
        const elsewhere = {
          portals: [ANY_PORT],
          targets: [site.target('a', { authentication: { users: [sixteen] } })],
        };
        const discovery = {
          authentication: { users: [write('other', Buffer.alloc(16, 0x62))], mutual: twin },
        };
        await t.rejects(reload({ ...elsewhere, discovery }), /same secret in both directions/);
        await configure({ users: [sixteen] });
        const state = await challenged(at('a'));
        const response = createHash('md5')
          .update(Buffer.from([state.identifier]))
          .update(long)
          .update(state.challenge)
          .digest();
        const answer = await finish(state, { CHAP_N: 'sixteen', CHAP_R: hex(response) });
        letIn(answer);
      },
    },
    {
      id: 'CHAP-27',
      clause: 'RFC 7143 §9.2.1',
      level: 'MUST',
      text: 'cldd secret makes secrets of 128 random bits, another each time, that the configuration takes and that let in',
      needs: () => true,
      async run(t) {
        const { at, folder, reload } = await withUsers(t, {});
        const made = new Set<string>();
        for (let n = 0; n < 8; n++) {
          const file = join(folder, `made-${n}`);
          await succeed(PROGRAM, ['secret', file], { env: PROGRAM_ENVIRONMENT });
          made.add(readFileSync(file, 'latin1').trimEnd());
        }
        t.equal(made.size, 8);
        for (const secret of made) t.equal(Buffer.from(secret, 'base64').length, 16, '128 bits');
        const users = [{ name: 'made', secretFile: 'made-0' }];
        await reload({ portals: [ANY_PORT], targets: [site.target('a', { authentication: { users } })] });
        const [secret = ''] = made;
        const session = await chapLogin(at('a'), { name: 'made', secret });
        t.same(await session.fence(), []);
      },
    },
    {
      id: 'CHAP-28',
      clause: 'RFC 7143 §9.2.1',
      level: 'MUST',
      text: 'a response that is made with the target’s own secret is a failure of authentication, and ends the connection',
      async run(t, target) {
        const { name, mutualSecret, mutualName } = user(target);
        for (const user of [name, mutualName]) {
          const state = await challenged(target);
          const response = respond('md5', state.identifier, mutualSecret, state.challenge);
          const { pdu } = await finish(state, { CHAP_N: user, CHAP_R: hex(response) });
          t.equal(pdu.loginStatus, LOGIN_STATUS.AUTHENTICATION_FAILURE, user);
          t.same(await state.session.connection.untilClosed(), []);
        }
      },
    },
    {
      id: 'CHAP-24',
      clause: 'RFC 7143 §7.4.2.2, §9.2',
      level: 'MUST',
      text: 'a discovery session, which proves less, does not end the session of a CHAP user by naming its target and ISID',
      needs: () => true,
      async run(t) {
        const { at } = await withUsers(t, {});
        const files = await chapLogin(at('a'), { name: 'files', secret: 'secret of files 123' });
        const stranger = await Session.connect(at('a'));
        const { pdu } = await stranger.loginStep(
          { transit: true, csg: STAGE.OPERATIONAL, nsg: STAGE.FULL_FEATURE, isid: files.isid },
          { InitiatorName: INITIATOR_NAME, SessionType: 'Discovery', TargetName: at('a').iqn },
        );
        t.equal(pdu.loginStatus, 0x0202);
        t.same(await files.fence(), [], 'the session goes on');
      },
    },
    {
      id: 'CHAP-23',
      clause: 'RFC 7143 §6.3.2, §9.2',
      level: 'MUST',
      text: 'no answer that continues in the next PDU is a way past authentication: T is granted to nobody who has not proved who they are',
      async run(t, target) {
        // More unknown keys than one response has room to answer, so that the target has to set C.
        const strangers: Record<string, string> = {};
        for (let n = 0; n < 118; n++) strangers[`X-${String(n).padStart(61, 'a')}`] = '1';
        for (const nsg of [STAGE.OPERATIONAL, STAGE.FULL_FEATURE])
          for (const begun of [{ AuthMethod: 'CHAP' }, { AuthMethod: 'CHAP', CHAP_A: '5' }, {}]) {
            const session = await Session.connect(fromElsewhere(target));
            const fields = { ...SECURITY, isid: target.freshIsid() };
            session.sendLogin(fields, { ...namesFor(target), ...begun, ...strangers });
            let pdu = await session.expect(OP.LOGIN_RESPONSE);
            t.equal(pdu.loginStatus, 0);
            t.ok(pdu.continues, 'the answer continues');
            for (let n = 0; n < 4 && pdu.loginStatus === 0 && !pdu.final; n++) {
              session.sendLogin({ ...fields, transit: true, nsg });
              const next = await session.connection.receive();
              if (next === undefined) break;
              pdu = next;
            }
            t.notOk(pdu.loginStatus === 0 && pdu.final, `to stage ${nsg}: ${JSON.stringify(begun)}`);
            t.equal(pdu.tsih, 0, 'no session');
          }
      },
    },
    {
      id: 'CHAP-18',
      clause: 'RFC 7143 §12.1.3, §11.12.10',
      level: 'ROBUST',
      text: 'a CHAP name of 255 bytes or with conversion specifiers is refused, never trusted',
      async run(t, target) {
        for (const name of ['%s%n%x'.repeat(20), 'x'.repeat(4000), '\u0007', '']) {
          const state = await challenged(target);
          state.session.sendLogin(
            { ...state.fields, ...ONWARD, ...isidOf(state) },
            { ...proof(target, state), CHAP_N: name },
          );
          const pdu = await state.session.connection.receive();
          t.ok(pdu === undefined || (pdu.opcode === OP.LOGIN_RESPONSE && pdu.loginStatus >> 8 === 2));
        }
      },
    },
  ] satisfies Requirement[]
).map((requirement) => ({ needs, ...requirement }));
