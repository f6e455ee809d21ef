/** What is wrong with a configuration, and where. */
import { OperationalError } from '../operational-error.js';

export interface Mistake {
  /** 1 and up. */
  line: number;
  /** 1 and up, in characters. */
  column: number;
  /** JSON pointer (RFC 6901) of the value; empty for the whole document. */
  path: string;
  message: string;
}

/** `file:line:column path message`, one line. */
export function formatMistake(file: string, { line, column, path, message }: Mistake): string {
  return `${file}:${line}:${column} ${path === '' ? '/' : path} ${message}`;
}

/** The file can't be used; the message has one line for each mistake, in the file's order. Code CONFIG_INVALID. */
export class ConfigurationError extends OperationalError {
  readonly mistakes: readonly Mistake[];

  constructor(file: string, mistakes: readonly Mistake[]) {
    const sorted = mistakes.toSorted((a, b) => a.line - b.line || a.column - b.column);
    super('CONFIG_INVALID', sorted.map((mistake) => formatMistake(file, mistake)).join('\n'));
    this.mistakes = sorted;
  }
}
