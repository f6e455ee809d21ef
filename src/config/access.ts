/** Which LUNs an initiator gets: the rules of a target applied to who asks. */
import type { Asker } from '../iscsi/options.js';
import type { LunAccess } from '../scsi/port.js';
import { addressMatches, nameMatches } from './addresses.js';
import type { AccessRule } from './configuration.js';

/**
 * The LUNs of the first rule that fits, or undefined if none does. An asker without a user is only asking what it
 * may see before it authenticates, so a rule with a user fits it: the checks of a configuration make sure that such
 * a target always demands CHAP, after which the question is asked again with the user.
 */
export function lunsFor(rules: readonly AccessRule[], asker: Asker): readonly LunAccess[] | undefined {
  return rules.find((rule) => ruleFits(rule, asker))?.luns;
}

function ruleFits(rule: AccessRule, asker: Asker): boolean {
  return (
    (rule.initiator === undefined || nameMatches(rule.initiator, asker.initiatorName)) &&
    (rule.address === undefined || addressMatches(rule.address, asker.address)) &&
    (rule.portalGroupTag === undefined || rule.portalGroupTag === asker.portalGroupTag) &&
    (rule.user === undefined || asker.user === undefined || rule.user === asker.user)
  );
}
