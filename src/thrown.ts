/** What was thrown need not be an Error. */
export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

/** The message of what was thrown, in words for an operator. */
export function messageOf(thrown: unknown): string {
  return asError(thrown).message;
}
