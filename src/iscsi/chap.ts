/**
 * CHAP, one way and mutual (RFC 7143 §12.1.3, RFC 1994). The target authenticates the initiator; when the initiator
 * asks for it, the target answers the initiator's challenge too.
 */
import { createHash, randomBytes, randomInt, timingSafeEqual } from 'node:crypto';
import { LOGIN_STATUS, type LoginStatus } from './constants.js';
import { CHAP_ALGORITHM, type AuthenticationOptions, type ChapAlgorithm, type ChapUser } from './options.js';
import { parseBinary, parseNumber } from './text.js';

/** Longest challenge or response that is accepted (§12.1.3: 1,024 bytes). */
const BINARY_BYTES_MAX = 1024;
const CHALLENGE_BYTES = 32;

const HASH: Record<ChapAlgorithm, string> = {
  MD5: 'md5',
  SHA1: 'sha1',
  SHA256: 'sha256',
  SHA3_256: 'sha3-256',
};

export type ChapStep =
  | { outcome: 'continue'; reply: [string, string][] }
  | { outcome: 'done'; reply: [string, string][]; user: string }
  /** Ends the login with that status (§9.2): the secret is wrong, keys are missing, or they are not those of the step. */
  | { outcome: 'failed'; status: LoginStatus; why: string };

/** One authentication exchange. Feed it the security keys of each login request. */
export class Chap {
  readonly #options: AuthenticationOptions;
  #algorithm: ChapAlgorithm | undefined;
  readonly #identifier = randomInt(256);
  readonly #challenge = randomBytes(CHALLENGE_BYTES);
  #finished = false;

  constructor(options: AuthenticationOptions) {
    this.#options = options;
  }

  get started(): boolean {
    return this.#algorithm !== undefined;
  }

  step(keys: ReadonlyMap<string, string>): ChapStep {
    if (this.#finished) return broken('keys after the end of the exchange');
    return this.#algorithm === undefined ? this.#choose(keys) : this.#verify(keys, this.#algorithm);
  }

  /** CHAP_A=<A1,A2…> → CHAP_A=<A> CHAP_I=<I> CHAP_C=<C> */
  #choose(keys: ReadonlyMap<string, string>): ChapStep {
    const list = keys.get('CHAP_A');
    if (keys.size > (list === undefined ? 0 : 1)) return broken('other keys before CHAP_A was answered');
    if (list === undefined) return missing('CHAP_A');
    const offered = list.split(',').map(parseNumber);
    if (offered.includes(undefined)) return broken('CHAP_A is no list of numbers');
    const algorithm = this.#options.algorithms.find((name) => offered.includes(CHAP_ALGORITHM[name]));
    if (algorithm === undefined) return refused('no common CHAP algorithm');
    this.#algorithm = algorithm;
    return {
      outcome: 'continue',
      reply: [
        ['CHAP_A', String(CHAP_ALGORITHM[algorithm])],
        ['CHAP_I', String(this.#identifier)],
        ['CHAP_C', `0x${this.#challenge.toString('hex')}`],
      ],
    };
  }

  /** CHAP_N CHAP_R [CHAP_I CHAP_C] → [CHAP_N CHAP_R] */
  #verify(keys: ReadonlyMap<string, string>, algorithm: ChapAlgorithm): ChapStep {
    this.#finished = true;
    const name = keys.get('CHAP_N');
    const sent = keys.get('CHAP_R');
    if (keys.has('CHAP_A')) return broken('CHAP_A came again');
    if (name === undefined || sent === undefined) return missing('CHAP_N or CHAP_R');
    const response = parseBinary(sent, BINARY_BYTES_MAX);
    if (response === undefined) return broken('CHAP_R is malformed');
    const user = this.#options.users.find((candidate) => candidate.name === name);
    // An unknown user costs the same computation as a known one, so that timing tells nobody which names exist.
    const expected = digest(algorithm, this.#identifier, user?.secret ?? NO_SECRET, this.#challenge);
    const matches = response.length === expected.length && timingSafeEqual(response, expected);
    if (user === undefined || !matches) return refused('wrong CHAP name or secret');

    if (!keys.has('CHAP_I') && !keys.has('CHAP_C')) return { outcome: 'done', reply: [], user: name };
    return this.#answer(keys, algorithm, user);
  }

  /** The initiator authenticates the target. */
  #answer(keys: ReadonlyMap<string, string>, algorithm: ChapAlgorithm, user: ChapUser): ChapStep {
    const number = keys.get('CHAP_I');
    const binary = keys.get('CHAP_C');
    if (number === undefined || binary === undefined) return missing('CHAP_I or CHAP_C');
    const identifier = parseNumber(number);
    const challenge = parseBinary(binary, BINARY_BYTES_MAX);
    if (identifier === undefined || identifier > 255 || challenge === undefined || challenge.length === 0)
      return broken('CHAP_I or CHAP_C is malformed');
    const mutual = this.#options.mutual;
    if (mutual === undefined) return refused('the initiator asks for mutual CHAP, which is not configured');
    // §12.1.3: a challenge that is ours sent back would make us compute our own expected answer.
    if (challenge.equals(this.#challenge)) return refused('the challenge was reflected');
    const answer = digest(algorithm, identifier, mutual.secret, challenge);
    return {
      outcome: 'done',
      reply: [
        ['CHAP_N', mutual.name],
        ['CHAP_R', `0x${answer.toString('hex')}`],
      ],
      user: user.name,
    };
  }
}

const NO_SECRET = randomBytes(16);

const failed =
  (status: LoginStatus) =>
  (why: string): ChapStep => ({ outcome: 'failed', status, why });
const refused = failed(LOGIN_STATUS.AUTHENTICATION_FAILURE);
const broken = failed(LOGIN_STATUS.INITIATOR_ERROR);
const missing = (keys: string): ChapStep => failed(LOGIN_STATUS.MISSING_PARAMETER)(`${keys} is missing`);

/** RFC 1994 §4.1: H(identifier ‖ secret ‖ challenge). */
function digest(algorithm: ChapAlgorithm, identifier: number, secret: Buffer, challenge: Buffer): Buffer {
  return createHash(HASH[algorithm])
    .update(Buffer.from([identifier]))
    .update(secret)
    .update(challenge)
    .digest();
}
