/** How an operation on a medium went; the SCSI layer's MEDIUM has the same values, as the daemon's compiler checks. */
export const RESULT = {
  OK: 0,
  PENDING: 1,
  READ_ERROR: 2,
  FAILED: 3,
  ABSENT: 4,
  WRITE_PROTECTED: 5,
} as const;
export type Result = (typeof RESULT)[keyof typeof RESULT];
export type ResultDone = (result: Result) => void;
