/** Errors that mean "I could, but I should not": exit code 3. Everything else that fails is a failure, exit code 1. */
import { OperationalError } from '../operational-error.js';

const REFUSALS: ReadonlySet<string> = new Set([
  'MASTER_MOUNTED',
  'MASTER_IN_USE',
  'SLAVE_HELD',
  'SLAVE_ENABLED',
  'SLAVE_DISABLED',
  'ALREADY_ENABLED',
  'NOT_ENABLED',
  'NOT_EMPTY',
  'NEEDS_YES',
  'SIZE_MISSING',
  'DAEMON_RUNNING',
  'PARTITION_BUSY',
  'PARTITION_IN_USE',
  'TARGET_AMBIGUOUS',
]);

export function isRefusal(error: unknown): boolean {
  return error instanceof OperationalError && REFUSALS.has(error.code);
}
