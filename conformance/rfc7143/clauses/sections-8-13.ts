/** RFC 7143 §8 to §15 and its appendices: see account.ts. */
import { type Accounts } from './account.js';

export const sections8To13: Accounts = {};
