/** RFC 7144: see account.ts. */
import { type Accounts } from './account.js';

export const rfc7144: Accounts = {};
