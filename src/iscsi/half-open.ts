/**
 * Who may begin a login while many others do (RFC 7143 §9.2 leaves denial of service to the implementation).
 *
 * One address has at most `halfOpenPerAddressMax` connections that are no session yet. All together have `halfOpenMax`;
 * then the address that has the most gives its oldest one to a newcomer that has fewer. A login takes milliseconds
 * and a flood's connections linger, so whoever is allowed in gets in, from however many addresses the flood comes.
 */
import type { IscsiLimits } from './options.js';

/** A connection without a session, in the order of arrival. */
export interface HalfOpen {
  readonly address: string;
  /** It has not finished its login. Otherwise a discovery session, which counts for its address only. */
  readonly isLogin: boolean;
}

/**
 * @param there oldest first
 * @returns 'refuse' the newcomer, 'admit' it, or the connection that makes room for it.
 */
export function admission<T extends HalfOpen>(
  there: readonly T[],
  address: string,
  limits: Pick<IscsiLimits, 'halfOpenMax' | 'halfOpenPerAddressMax'>,
): 'admit' | 'refuse' | T {
  const counts = new Map<string, number>();
  for (const one of there) counts.set(one.address, (counts.get(one.address) ?? 0) + 1);
  const own = counts.get(address) ?? 0;
  if (own >= limits.halfOpenPerAddressMax) return 'refuse';
  const logins = there.filter(({ isLogin }) => isLogin);
  if (logins.length < limits.halfOpenMax) return 'admit';
  let victim: T | undefined;
  let most = own;
  for (const one of logins) {
    const count = counts.get(one.address) ?? 0;
    if (count > most) [victim, most] = [one, count];
  }
  return victim ?? 'refuse';
}
