/** The program `cldd`. */
import { CommanderError } from 'commander';
import { ConfigurationError } from '../config/mistakes.js';
import { EXIT, exitCodeOf } from './exit-codes.js';
import { OperationalError } from '../operational-error.js';
import { printable } from './output.js';
import { programFor } from './program.js';
import { isSystemError } from './system-error.js';

/** Runs a command line and returns how it ended; messages are on stdout and stderr. */
export async function main(argv: readonly string[]): Promise<number> {
  // `cldd changes | head` ends when head does.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(EXIT.DONE);
    report(error);
    process.exit(EXIT.FAILURE);
  });
  try {
    const program = await programFor(argv);
    await program.parseAsync([...argv], { from: 'user' });
    return EXIT.DONE;
  } catch (error) {
    report(error);
    return exitCodeOf(error);
  }
}

/** What went wrong, without a stack trace unless it is our own mistake. */
function report(error: unknown): void {
  // Commander has told it already.
  if (error instanceof CommanderError) return;
  if (error instanceof ConfigurationError)
    process.stderr.write(`${printable(error.message, { lines: true })}\n`);
  else process.stderr.write(`cldd: ${explain(error)}\n`);
}

function explain(error: unknown): string {
  if (error instanceof OperationalError) return printable(error.message);
  if (!(error instanceof Error)) return printable(String(error));
  if (isSystemError(error)) {
    const { code, path, message } = error;
    if (code === 'ENOSPC') return printable(`the disc is full${path === undefined ? '' : ` (${path})`}`);
    return printable(message);
  }
  return printable(`unforeseen error, please report it: ${error.stack ?? error.message}`, { lines: true });
}
