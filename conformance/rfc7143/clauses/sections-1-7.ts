/** RFC 7143 §1 to §7: see account.ts. */
import { beside, rows, type Accounts } from './account.js';

export const sections1To7: Accounts = {
  '2.3': [beside(3, 'tells what changed since RFC 3720')],
  '2.4': [beside(5, 'names the words of obligation')],
  '7.4.2.1': [rows(4, 'DISC-16')],
  '7.4.2.2': [rows(1, 'DISC-17', 'DISC-18')],
};
