/** key=value text (RFC 7143 §6.1), in the order given, so that duplicates and nonsense can be written too. */

export type Keys = readonly (readonly [string, string])[] | Readonly<Record<string, string>>;

/** Text of a data segment: each pair ends with one zero byte. */
export function encodeKeys(keys: Keys): Buffer {
  const pairs = isList(keys) ? keys : Object.entries(keys);
  return Buffer.from(pairs.map(([key, value]) => `${key}=${value}\0`).join(''), 'utf8');
}

/** Pairs of a target's answer; throws if the text is not of the form that RFC 7143 §6.1 demands. */
export function decodeKeys(text: Buffer): [string, string][] {
  if (text.length === 0) return [];
  if (text.at(-1) !== 0) throw new Error('text does not end with a zero byte (RFC 7143 §6.1)');
  return text
    .subarray(0, -1)
    .toString('utf8')
    .split('\0')
    .map((pair) => {
      const equals = pair.indexOf('=');
      if (equals < 1) throw new Error(`not a key=value pair: ${JSON.stringify(pair)} (RFC 7143 §6.1)`);
      return [pair.slice(0, equals), pair.slice(equals + 1)];
    });
}

/** Values of one key, in order. */
export const valuesOf = (pairs: readonly [string, string][], key: string): string[] =>
  pairs.filter(([name]) => name === key).map(([, value]) => value);

function isList(keys: Keys): keys is readonly (readonly [string, string])[] {
  return Array.isArray(keys);
}
