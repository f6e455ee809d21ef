/** Errors that mean "I could, but I should not": exit code 3. Everything else that fails is a failure, exit code 1. */
import { OperationalError } from '../operational-error.js';

const REFUSALS: ReadonlySet<string> = new Set([
  'ALREADY_ENABLED',
  'DAEMON_RUNNING',
  'FILE_EXISTS',
  'HOLDS_DATA',
  'MASTER_IN_USE',
  'MASTER_MOUNTED',
  'NEEDS_YES',
  'NO_BACKUP_FOLDER',
  'NOT_ENABLED',
  'BACKUP_EXISTS',
  'PARTITION_BUSY',
  'SLAVE_HELD',
  'TARGET_AMBIGUOUS',
]);

export function isRefusal(error: unknown): boolean {
  return error instanceof OperationalError && REFUSALS.has(error.code);
}
