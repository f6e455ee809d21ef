/** Damage to inputs, drawn from a seed: bits, lengths, tokens of the language, pieces of other inputs. */
import type { Chance } from '../cow/stores.js';

/** Inputs stay below this, or a fuzzer would only measure how long long inputs take. */
const INPUT_BYTES_MAX = 64 * 1024;
const NUMBERS = [
  '0',
  '-1',
  '1',
  '255',
  '65536',
  '4294967295',
  '9007199254740993',
  '1e308',
  '0x',
  '99999999999999999999',
];

export interface Language {
  /** Sound inputs to begin with. */
  seeds: readonly Buffer[];
  /** Words and punctuation that mean something. */
  tokens: readonly string[];
}

/** One to eight changes of a seed. */
export function mutate({ seeds, tokens }: Language, chance: Chance): Buffer {
  let input: Buffer = Buffer.from(seeds[chance.below(seeds.length)]);
  for (let n = 1 + chance.below(8); n > 0; n--) {
    input = change(input, seeds, tokens, chance);
    if (input.length > INPUT_BYTES_MAX) input = input.subarray(0, INPUT_BYTES_MAX);
  }
  return input;
}

function change(input: Buffer, seeds: readonly Buffer[], tokens: readonly string[], chance: Chance): Buffer {
  const at = chance.below(input.length + 1);
  const end = Math.min(input.length, at + chance.below(chance.hits(0.2) ? input.length + 1 : 16));
  const [before, piece, after] = [input.subarray(0, at), input.subarray(at, end), input.subarray(end)];
  switch (chance.below(8)) {
    case 0: {
      const bytes = Buffer.from(input);
      if (at < bytes.length) bytes[at] ^= 1 << chance.below(8);
      return bytes;
    }
    case 1:
      return Buffer.concat([before, after]);
    case 2:
      return Buffer.concat([before, ...Array<Buffer>(2 + chance.below(6)).fill(piece), after]);
    case 3:
      return Buffer.concat([before, Buffer.from(NUMBERS[chance.below(NUMBERS.length)]), after]);
    case 4: {
      const other = seeds[chance.below(seeds.length)];
      const from = chance.below(other.length + 1);
      return Buffer.concat([before, other.subarray(from, from + chance.below(64)), after]);
    }
    case 5:
      return Buffer.concat([before, Buffer.from(Array.from({ length: 4 }, () => chance.below(256))), after]);
    default:
      return Buffer.concat([before, Buffer.from(tokens[chance.below(tokens.length)]), input.subarray(at)]);
  }
}
