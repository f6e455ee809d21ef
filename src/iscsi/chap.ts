/**
 * CHAP, one way and mutual (RFC 7143 §12.1.3, RFC 1994). The target authenticates the initiator; when the initiator
 * asks for it, the target answers the initiator's challenge too.
 */
import { createHash, randomBytes, randomInt, timingSafeEqual } from 'node:crypto';
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
  /** `protocol`: keys missing or malformed; `refused`: wrong name or secret. Both end the login. */
  | { outcome: 'failed'; why: string };

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
    if (this.#finished) return failed('keys after the end of the exchange');
    return this.#algorithm === undefined ? this.#choose(keys) : this.#verify(keys, this.#algorithm);
  }

  /** CHAP_A=<A1,A2…> → CHAP_A=<A> CHAP_I=<I> CHAP_C=<C> */
  #choose(keys: ReadonlyMap<string, string>): ChapStep {
    const list = keys.get('CHAP_A');
    if (list === undefined) return failed('CHAP_A is missing');
    if (keys.has('CHAP_N') || keys.has('CHAP_R'))
      return failed('CHAP_N or CHAP_R before CHAP_A was answered');
    const offered = list.split(',').map(parseNumber);
    const algorithm = this.#options.algorithms.find((name) => offered.includes(CHAP_ALGORITHM[name]));
    if (algorithm === undefined) return failed('no common CHAP algorithm');
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
    const response = parseBinary(keys.get('CHAP_R') ?? '', BINARY_BYTES_MAX);
    if (name === undefined || response === undefined)
      return failed('CHAP_N or CHAP_R is missing or malformed');
    const user = this.#options.users.find((candidate) => candidate.name === name);
    // An unknown user costs the same computation as a known one, so that timing tells nobody which names exist.
    const expected = digest(algorithm, this.#identifier, user?.secret ?? NO_SECRET, this.#challenge);
    const matches = response.length === expected.length && timingSafeEqual(response, expected);
    if (user === undefined || !matches) return failed('wrong CHAP name or secret');

    if (!keys.has('CHAP_I') && !keys.has('CHAP_C')) return { outcome: 'done', reply: [], user: name };
    return this.#answer(keys, algorithm, user);
  }

  /** The initiator authenticates the target. */
  #answer(keys: ReadonlyMap<string, string>, algorithm: ChapAlgorithm, user: ChapUser): ChapStep {
    const identifier = parseNumber(keys.get('CHAP_I') ?? '');
    const challenge = parseBinary(keys.get('CHAP_C') ?? '', BINARY_BYTES_MAX);
    if (identifier === undefined || identifier > 255 || challenge === undefined || challenge.length === 0)
      return failed('CHAP_I or CHAP_C is missing or malformed');
    const mutual = this.#options.mutual;
    if (mutual === undefined) return failed('the initiator asks for mutual CHAP, which is not configured');
    // §12.1.3: a challenge that is ours sent back would make us compute our own expected answer.
    if (challenge.equals(this.#challenge)) return failed('the challenge was reflected');
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

const failed = (why: string): ChapStep => ({ outcome: 'failed', why });

/** RFC 1994 §4.1: H(identifier ‖ secret ‖ challenge). */
function digest(algorithm: ChapAlgorithm, identifier: number, secret: Buffer, challenge: Buffer): Buffer {
  return createHash(HASH[algorithm])
    .update(Buffer.from([identifier]))
    .update(secret)
    .update(challenge)
    .digest();
}
