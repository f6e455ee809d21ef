/** Who may know of a target: login and SendTargets answer alike (RFC 7143 §9.2, Appendix C). */
import type { Asker, IscsiTargetOptions } from './options.js';

/** What decides about that. */
export type TargetRules = Pick<IscsiTargetOptions, 'access' | 'authentication'>;

/** True if a rule lets the asker in, or could once one of the target's CHAP users has proved who it is. */
export function mightEnter(target: TargetRules, asker: Asker): boolean {
  if (target.access(asker) !== undefined) return true;
  return target
    .authentication(asker)
    .users.some(({ name }) => target.access({ ...asker, user: name }) !== undefined);
}
