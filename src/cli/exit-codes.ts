/** How every command ends (docs/commands.md). */
import { CommanderError } from 'commander';
import { DaemonError, UNREACHABLE } from '../admin/client.js';
import { isRefusal } from '../admin/refusals.js';
import { OperationalError } from '../operational-error.js';

export const EXIT = {
  DONE: 0,
  FAILURE: 1,
  USAGE: 2,
  /** It could be done, but should not; the reason is on stderr. */
  REFUSED: 3,
  UNREACHABLE: 4,
} as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** The command line itself is wrong. */
export class UsageError extends OperationalError {
  constructor(message: string) {
    super('USAGE', message);
  }
}

const USAGE_CODES: ReadonlySet<string> = new Set(['USAGE', 'SIZE_NEEDED']);

export function exitCodeOf(error: unknown): ExitCode {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.DONE : EXIT.USAGE;
  if (error instanceof DaemonError) return error.refused ? EXIT.REFUSED : EXIT.FAILURE;
  if (isRefusal(error)) return EXIT.REFUSED;
  if (!(error instanceof OperationalError)) return EXIT.FAILURE;
  if (error.code === UNREACHABLE) return EXIT.UNREACHABLE;
  return USAGE_CODES.has(error.code) ? EXIT.USAGE : EXIT.FAILURE;
}
