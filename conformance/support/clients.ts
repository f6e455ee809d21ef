/** Whether the real clients that a test needs are on this host. */
import { findProgram } from './paths.js';

/**
 * Options for `t.test`: skips, with a reason, where a program is missing. In CI nothing is skipped, so that a missing
 * client fails there.
 */
export function needing(...programs: string[]): { skip: string | false } {
  const missing = programs.filter((program) => findProgram(program) === undefined);
  const ci = process.env['CI'] ?? '';
  if (missing.length === 0 || (ci !== '' && ci !== 'false')) return { skip: false };
  return { skip: `missing: ${missing.join(', ')} (node scripts/debian.mjs names the packages)` };
}
