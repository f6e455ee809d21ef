/** Makes the golden image of the current format, see golden.ts. */
import { makeGolden } from './golden.js';

process.stdout.write(`${await makeGolden()}\n`);
