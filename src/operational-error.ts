/** Thrown for what an operator can put right: `code` is stable and for programs, `message` says what happened and what to do. */
export class OperationalError extends Error {
  readonly code: string;

  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'OperationalError';
    this.code = code;
  }
}
