/** What can't wait for the end of a command. */
import { printable } from '../output.js';

/** Says it on stderr at once; names of files and words of others are in it. */
export function tell(text: string): void {
  process.stderr.write(`cldd: ${printable(text)}\n`);
}
