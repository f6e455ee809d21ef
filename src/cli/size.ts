/** Sizes as people type them. */
import { InvalidArgumentError } from 'commander';

const FACTORS = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40, P: 2 ** 50 } as const;

/** Bytes of "1G", "512M", "1.5T", "1GiB" or "1048576": units are binary. @throws {InvalidArgumentError} */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGTP]?)(?:iB|B)?$/i.exec(text.trim());
  const bytes =
    match === null ? NaN : Number(match[1]) * FACTORS[match[2].toUpperCase() as keyof typeof FACTORS];
  if (!Number.isSafeInteger(bytes) || bytes <= 0)
    throw new InvalidArgumentError('a size is a number with K, M, G or T (binary units), such as 1G or 512M');
  return bytes;
}

/** A whole number from 0. @throws {InvalidArgumentError} */
export function parseCount(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value))
    throw new InvalidArgumentError('a whole number is needed');
  return value;
}

/** Seconds above 0, fractions allowed. @throws {InvalidArgumentError} */
export function parseSeconds(text: string): number {
  const value = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || value < 0.1 || value > 86_400)
    throw new InvalidArgumentError('seconds from 0.1 to 86400 are needed');
  return value;
}
