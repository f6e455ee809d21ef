/**
 * A seeded fuzzer of what strangers may say before they have authenticated: lists of keys up to what a request may hold and
 * beyond, cut anywhere by the C bit, in stages and with transitions of every kind, while answers continue. Nobody here knows
 * the secret, so nobody may get in.
 */
import { fromElsewhere } from './chap.js';
import { randomFrom, type FuzzReport } from './fuzz.js';
import { encodeKeys } from './keys.js';
import { OP, type LoginFields, type Pdu } from './pdu.js';
import { testUnitReady } from './scsi.js';
import { INITIATOR_NAME, Session } from './session.js';
import type { Target } from './target.js';

const FULL_FEATURE = 3;
const REQUESTS_MAX = 24;
const PIECES_MAX = 12;
/** Data segment that every target takes in a login (RFC 7143 §13.12). */
const SEGMENT_BYTES = 8192;

type Random = (limit: number) => number;

/**
 * Sends at least `pdus` of them. Throws if a stranger is let in, or the target is silent.
 * planted-login.ts is a target that lets strangers in: it has to be found.
 */
export async function fuzzLogins(
  target: Target,
  options: { seed: number; pdus: number },
): Promise<FuzzReport> {
  const random = randomFrom(options.seed);
  const report: FuzzReport = { pdus: 0, connections: 0 };
  while (report.pdus < options.pdus) {
    // Failed attempts from one address are answered ever later.
    const session = await Session.connect(fromElsewhere(target));
    session.isid = target.freshIsid();
    report.connections++;
    let answer: Pdu | undefined;
    let discovers = false;
    let answers = '';
    for (let n = 0; n < REQUESTS_MAX; n++) {
      const fields = stageOf(answer, random);
      const text = answer?.continues === true && random(8) > 0 ? Buffer.alloc(0) : textOf(n, target, random);
      discovers ||= text.includes('SessionType=Discovery');
      answer = await say(session, fields, text, random, report);
      if (answer === undefined || answer.loginStatus !== 0) break;
      answers += answer.data.toString('latin1');
      if (!answer.final) continue;
      // A discovery session is open to all here, and serves no command. In others no stage may be left.
      const full = answer.nsg === FULL_FEATURE;
      session.connection.headerDigest = answers.includes('HeaderDigest=CRC32C\0');
      if (full) session.sendCommand({ cdb: testUnitReady() });
      if (!discovers || (full && (await session.next())?.opcode === OP.SCSI_RESPONSE))
        throw new Error(`a stranger is let in: seed ${options.seed}, connection ${report.connections}`);
      if (full) break;
    }
    const { violations } = session.connection;
    if (violations.length > 0) throw new Error(`seed ${options.seed}: ${violations.join('; ')}`);
    session.connection.destroy();
    target.sessions.length = 0;
  }
  return report;
}

/** One text, in one request or cut by the C bit; the last answer, or undefined if the target has closed. */
async function say(
  session: Session,
  fields: LoginFields,
  text: Buffer,
  random: Random,
  report: FuzzReport,
): Promise<Pdu | undefined> {
  // Cut anywhere, but not into more pieces than a stream has room for.
  const cutBytes = Math.max(1 + random(SEGMENT_BYTES), Math.ceil(text.length / PIECES_MAX));
  const pieceBytes = random(3) === 0 ? cutBytes : SEGMENT_BYTES;
  for (let at = 0; ; at += pieceBytes) {
    const more = at + pieceBytes < text.length;
    session.sendLogin({
      ...fields,
      // Now and then T is set where C forbids it.
      transit: (fields.transit ?? false) && (!more || random(16) === 0),
      more,
      data: text.subarray(at, at + pieceBytes),
    });
    report.pdus++;
    const pdu = await session.connection.receive();
    if (pdu === undefined) return undefined;
    if (pdu.opcode !== OP.LOGIN_RESPONSE) throw new Error(`a login is answered by ${pdu.opcode}`);
    if (!more || pdu.loginStatus !== 0) return pdu;
    if (pdu.final) throw new Error('T in answer to a request that continues');
  }
}

/** Mostly the stage that the login is in, and every transition. */
function stageOf(answer: Pdu | undefined, random: Random): LoginFields {
  const agreed = answer === undefined ? 0 : answer.final ? answer.nsg : answer.csg;
  const csg = random(8) === 0 ? random(4) : agreed;
  return { csg, nsg: random(3) === 0 ? random(4) : FULL_FEATURE, transit: random(2) === 0 };
}

/** Keys of a stranger: who asks, what a login may negotiate, what belongs elsewhere, and what nobody knows. */
function textOf(round: number, target: Target, random: Random): Buffer {
  const pairs: [string, string][] = [];
  if (round === 0 || random(8) === 0) {
    pairs.push(['InitiatorName', INITIATOR_NAME], ['TargetName', target.iqn]);
    if (random(6) === 0) pairs.push(['SessionType', ['Normal', 'Discovery', 'None'][random(3)] ?? '']);
  }
  // A mistake ends a login: one in three begins without any, so that there is something to get past.
  const careful = round === 0 && random(3) === 0;
  if (careful && random(2) === 0) pairs.push(['AuthMethod', 'CHAP']);
  for (let n = careful ? 0 : random(6); n > 0; n--)
    pairs.push(KNOWN[random(KNOWN.length)] ?? ['AuthMethod', 'CHAP']);
  if (!careful && random(2) === 0) {
    const nameBytes = 12 + random(60);
    const valueBytes = [0, 1, 200, 255, 256, 1000][random(6)] ?? 0;
    for (let n = random(random(3) === 0 ? 300 : 40); n > 0; n--)
      pairs.push([`X-${random(100_000)}-`.padEnd(nameBytes, 'x'), 'v'.repeat(valueBytes)]);
  }
  // As many of the longest names as a negotiation may have: the answer is longer than one response.
  if (random(careful ? 2 : 5) === 0)
    for (let n = 100 + random(25); n > 0; n--) pairs.push([`X-${n}-`.padEnd(63, 'x'), '']);
  if (!careful && random(12) === 0) pairs.push(['CHAP_R', `0x${'ab'.repeat(random(20_000))}`]);
  const text = encodeKeys(pairs);
  return !careful && random(16) === 0 ? text.subarray(0, random(text.length + 1)) : text;
}

const KNOWN: readonly [string, string][] = [
  ['AuthMethod', 'CHAP,None'],
  ['AuthMethod', 'CHAP'],
  ['AuthMethod', 'None'],
  ['AuthMethod', 'Reject'],
  ['CHAP_A', '5,6,7,8'],
  ['CHAP_A', '7'],
  ['CHAP_N', 'user'],
  ['CHAP_R', `0x${'00'.repeat(16)}`],
  ['CHAP_R', '0bAAAAAAAAAAAAAAAAAAAAAA=='],
  ['CHAP_I', '1'],
  ['CHAP_C', `0x${'11'.repeat(16)}`],
  ['HeaderDigest', 'CRC32C,None'],
  ['MaxRecvDataSegmentLength', '512'],
  ['MaxRecvDataSegmentLength', '65536'],
  ['MaxConnections', '8'],
  ['ErrorRecoveryLevel', '2'],
  ['InitialR2T', 'Irrelevant'],
  ['SendTargets', 'All'],
  ['IFMarker', 'Yes'],
  ['TargetPortalGroupTag', 'NotUnderstood'],
  ['InitiatorAlias', 'stranger'],
];
