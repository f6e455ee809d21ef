/** What the iSCSI layer counts since its start. */
export interface IscsiCounters {
  connectionsAccepted: number;
  /** At accept, since a limit was reached. */
  connectionsRefused: number;
  /** Broken off by the target: protocol errors, digest errors, silence. */
  connectionsDropped: number;
  /** Sessions begun; discovery not counted. */
  logins: number;
  /** For whatever reason, those that failed to authenticate included. */
  loginsRefused: number;
  headerDigestErrors: number;
  dataDigestErrors: number;
  /** Reject PDUs sent (RFC 7143 §11.17). */
  rejects: number;
}

export function emptyCounters(): IscsiCounters {
  return {
    connectionsAccepted: 0,
    connectionsRefused: 0,
    connectionsDropped: 0,
    logins: 0,
    loginsRefused: 0,
    headerDigestErrors: 0,
    dataDigestErrors: 0,
    rejects: 0,
  };
}
