import { messageOf } from '../../thrown.js';

/** Steps whose failure is told, but is no reason to give up what is done. */
export async function attempt(warnings: string[], step: () => Promise<void>): Promise<void> {
  try {
    await step();
  } catch (error) {
    warnings.push(messageOf(error));
  }
}
