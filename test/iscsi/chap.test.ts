/** CHAP (RFC 7143 §12.1.3, RFC 1994). */
import { createHash } from 'node:crypto';
import t from 'tap';
import { Chap } from '../../src/iscsi/chap.js';
import type { AuthenticationOptions } from '../../src/iscsi/options.js';

const SECRET = Buffer.from('a secret of sixteen+');
const options = (more: Partial<AuthenticationOptions> = {}): AuthenticationOptions => ({
  users: [{ name: 'alice', secret: SECRET }],
  algorithms: ['SHA3_256', 'SHA256', 'SHA1', 'MD5'],
  ...more,
});

const keys = (pairs: Record<string, string>): Map<string, string> => new Map(Object.entries(pairs));

function begin(chap: Chap, algorithms = '5'): Map<string, string> {
  const step = chap.step(keys({ CHAP_A: algorithms }));
  if (step.outcome !== 'continue') throw new Error(`unexpected ${step.outcome}`);
  return new Map(step.reply);
}

function response(hash: string, secret: Buffer, identifier: string, challenge: string): string {
  return createHash(hash)
    .update(Buffer.from([Number(identifier)]))
    .update(secret)
    .update(Buffer.from(challenge.slice(2), 'hex'))
    .digest('hex');
}

for (const [number, hash] of [
  ['5', 'md5'],
  ['6', 'sha1'],
  ['7', 'sha256'],
  ['8', 'sha3-256'],
])
  // prettier-ignore
  void t.test(`CHAP: ${hash} is algorithm ${number}, and the right response gets in`, (t) => {
    const chap = new Chap(options());
    const ask = begin(chap, number);
    t.equal(ask.get('CHAP_A'), number);
    const hex = response(hash, SECRET, ask.get('CHAP_I') ?? '', ask.get('CHAP_C') ?? '');
    t.match(chap.step(keys({ CHAP_N: 'alice', CHAP_R: `0x${hex}` })), { outcome: 'done', user: 'alice', reply: [] });
    t.match(chap.step(keys({ CHAP_N: 'alice', CHAP_R: `0x${hex}` })), { outcome: 'failed' }, 'once only');
    t.end();
  });

void t.test('CHAP: the target prefers by its own order, and base64 responses are read', (t) => {
  const chap = new Chap(options());
  const ask = begin(chap, '5,7,6');
  t.equal(ask.get('CHAP_A'), '7');
  const hex = response('sha256', SECRET, ask.get('CHAP_I') ?? '', ask.get('CHAP_C') ?? '');
  const base64 = Buffer.from(hex, 'hex').toString('base64');
  t.match(chap.step(keys({ CHAP_N: 'alice', CHAP_R: `0b${base64}` })), { outcome: 'done' });
  t.end();
});

void t.test('CHAP: wrong names, secrets, lengths and orders are refused', (t) => {
  const tries: [string, (hex: string) => Record<string, string>][] = [
    [
      'wrong secret',
      (hex) => ({ CHAP_N: 'alice', CHAP_R: `0x${hex.replace(/./, (c) => (c === '0' ? '1' : '0'))}` }),
    ],
    ['unknown user', (hex) => ({ CHAP_N: 'bob', CHAP_R: `0x${hex}` })],
    ['short response', (hex) => ({ CHAP_N: 'alice', CHAP_R: `0x${hex.slice(2)}` })],
    ['long response', () => ({ CHAP_N: 'alice', CHAP_R: `0x${'00'.repeat(1025)}` })],
    ['no response', () => ({ CHAP_N: 'alice' })],
    ['a challenge without identifier', (hex) => ({ CHAP_N: 'alice', CHAP_R: `0x${hex}`, CHAP_C: '0x01' })],
    ['an identifier without challenge', (hex) => ({ CHAP_N: 'alice', CHAP_R: `0x${hex}`, CHAP_I: '1' })],
    ['no encoding', (hex) => ({ CHAP_N: 'alice', CHAP_R: hex })],
    [
      'mutual without configuration',
      (hex) => ({ CHAP_N: 'alice', CHAP_R: `0x${hex}`, CHAP_I: '1', CHAP_C: '0x00' }),
    ],
  ];
  for (const [name, make] of tries) {
    const chap = new Chap(options());
    const ask = begin(chap);
    const hex = response('md5', SECRET, ask.get('CHAP_I') ?? '', ask.get('CHAP_C') ?? '');
    t.equal(chap.step(keys(make(hex))).outcome, 'failed', name);
  }
  t.equal(new Chap(options()).step(keys({ CHAP_A: '9' })).outcome, 'failed', 'no common algorithm');
  t.equal(
    new Chap(options()).step(keys({ CHAP_N: 'alice', CHAP_R: '0x00' })).outcome,
    'failed',
    'response first',
  );
  t.end();
});

void t.test('CHAP: mutual, and our own challenge sent back is refused (RFC 7143 §12.1.3)', (t) => {
  const mutual = { name: 'target', secret: Buffer.from('another secret entirely') };
  for (const reflect of [false, true]) {
    const chap = new Chap(options({ mutual }));
    const ask = begin(chap);
    const hex = response('md5', SECRET, ask.get('CHAP_I') ?? '', ask.get('CHAP_C') ?? '');
    const challenge = reflect ? (ask.get('CHAP_C') ?? '') : '0x0102030405060708';
    const step = chap.step(keys({ CHAP_N: 'alice', CHAP_R: `0x${hex}`, CHAP_I: '7', CHAP_C: challenge }));
    if (reflect) t.equal(step.outcome, 'failed');
    else
      t.match(step, {
        outcome: 'done',
        reply: [['CHAP_N', 'target'], ['CHAP_R', `0x${response('md5', mutual.secret, '7', challenge)}`]], // prettier-ignore
      });
  }
  t.end();
});

void t.test('CHAP: challenges are never the same', (t) => {
  const seen = new Set<string>();
  for (let i = 0; i < 200; i++) seen.add(begin(new Chap(options())).get('CHAP_C') ?? '');
  t.equal(seen.size, 200);
  t.end();
});

void t.test('CHAP: challenges are of 32 bytes, and neither count nor repeat in any bit', (t) => {
  const ROUNDS = 400;
  const challenges = Array.from({ length: ROUNDS }, () =>
    Buffer.from((begin(new Chap(options())).get('CHAP_C') ?? '').slice(2), 'hex'),
  );
  const bits = ([...bytes]: Buffer): number[] =>
    bytes.flatMap((byte) => Array.from({ length: 8 }, (_, bit) => (byte >> bit) & 1));
  const ones = new Array<number>(256).fill(0);
  let turned = 0;
  for (const [round, challenge] of challenges.entries()) {
    t.equal(challenge.length, 32);
    const before = bits(challenges[round === 0 ? ROUNDS - 1 : round - 1]);
    for (const [at, bit] of bits(challenge).entries()) {
      ones[at] += bit;
      turned += bit ^ before[at];
    }
  }
  // Eight standard deviations: chance alone goes as far once in 10^15 runs.
  for (const [at, count] of ones.entries()) t.ok(Math.abs(count - ROUNDS / 2) < 80, `bit ${at}: ${count}`);
  t.ok(Math.abs(turned / (ROUNDS * 256) - 0.5) < 0.02, `${turned} bits turned from one to the next`);
  t.end();
});
