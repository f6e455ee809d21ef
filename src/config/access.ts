/** Which LUNs an initiator gets: the rules of a target applied to who asks. */
import type { Asker } from '../iscsi/options.js';
import type { LunAccess } from '../scsi/port.js';
import { addressMatches, nameMatches } from './addresses.js';
import type { AccessRule } from './configuration.js';

/**
 * The LUNs of the first rule that fits, or undefined if none does. A rule with a user fits nobody who has not
 * authenticated as that user.
 */
export function lunsFor(rules: readonly AccessRule[], asker: Asker): readonly LunAccess[] | undefined {
  return rules.find((rule) => ruleFits(rule, asker))?.luns;
}

function ruleFits(rule: AccessRule, asker: Asker): boolean {
  return (
    (rule.initiator === undefined || nameMatches(rule.initiator, asker.initiatorName)) &&
    (rule.address === undefined || addressMatches(rule.address, asker.address)) &&
    (rule.portalGroupTag === undefined || rule.portalGroupTag === asker.portalGroupTag) &&
    (rule.user === undefined || rule.user === asker.user)
  );
}
