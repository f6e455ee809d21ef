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
  /** It is done, but something beside it went wrong; what, is on stderr. */
  WARNINGS: 5,
  /** `check`: something was bad, and all of it was repaired. */
  REPAIRED: 6,
  /** `check`: something is bad, and --repair would mend all of it. */
  REPAIRABLE: 7,
  /** `check`: something is bad, and no whole copy of it is left. */
  DAMAGED: 8,
} as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** The command line itself is wrong. */
export class UsageError extends OperationalError {
  constructor(message: string) {
    super('USAGE', message);
  }
}

/** All that was asked for is done, but the operator should know of something. */
export class DoneWithWarnings extends OperationalError {
  constructor(warnings: readonly string[]) {
    super('WARNINGS', `done with warnings: ${warnings.join('; ')}`);
  }
}

/** A check found something. */
export class CheckEnded extends OperationalError {
  readonly exit: ExitCode;

  constructor(message: string, exit: ExitCode) {
    super('CHECK', message);
    this.exit = exit;
  }
}

const USAGE_CODES: ReadonlySet<string> = new Set(['USAGE', 'SIZE_NEEDED']);

export function exitCodeOf(error: unknown): ExitCode {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.DONE : EXIT.USAGE;
  if (error instanceof CheckEnded) return error.exit;
  if (error instanceof DoneWithWarnings) return EXIT.WARNINGS;
  if (error instanceof DaemonError) return error.refused ? EXIT.REFUSED : EXIT.FAILURE;
  if (isRefusal(error)) return EXIT.REFUSED;
  if (!(error instanceof OperationalError)) return EXIT.FAILURE;
  if (error.code === UNREACHABLE) return EXIT.UNREACHABLE;
  return USAGE_CODES.has(error.code) ? EXIT.USAGE : EXIT.FAILURE;
}
