/**
 * What answers for each word of obligation (MUST, MUST NOT, SHALL, SHALL NOT, REQUIRED) in a section of an RFC, in the
 * order of its text. counts.ts says how many there are; clauses.test.ts checks that the accounts of a section add up to
 * that, and that what they name exists. matrix.md lists them by clause.
 */
export type Account = { words: number } & (
  | {
      /** Ids of the rows that show it; each cites this section, one around it or one in it. */ rows: string[];
    }
  | { /** A duty of the initiator alone: which. */ initiator: string }
  | { /** Nothing for this target: why. */ beside: string }
  | { /** Text of an entry of untested.ts, which says why no row shows it. */ untested: string }
);

/** Accounts by section: "4.2.2.1", "C". */
export type Accounts = Readonly<Record<string, readonly Account[]>>;

/** Rows show these words. */
export const rows = (words: number, ...rows: string[]): Account => ({ words, rows });
/** A duty of the initiator alone. */
export const initiator = (words: number, initiator: string): Account => ({ words, initiator });
/** They ask nothing of this target: definitions, what is not offered, statements about documents. */
export const beside = (words: number, beside: string): Account => ({ words, beside });
/** No row shows it: see untested.ts. */
export const untested = (words: number, untested: string): Account => ({ words, untested });
