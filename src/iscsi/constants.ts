/** Numbers of the iSCSI protocol, with the names and clauses of RFC 7143 (and RFC 7144 where said). */

/** Initiator opcodes (§11.2.1.2). */
export const REQUEST = {
  NOP_OUT: 0x00,
  SCSI_COMMAND: 0x01,
  TASK_MANAGEMENT: 0x02,
  LOGIN: 0x03,
  TEXT: 0x04,
  DATA_OUT: 0x05,
  LOGOUT: 0x06,
  SNACK: 0x10,
} as const;

/** Target opcodes (§11.2.1.2). */
export const RESPONSE = {
  NOP_IN: 0x20,
  SCSI_RESPONSE: 0x21,
  TASK_MANAGEMENT: 0x22,
  LOGIN: 0x23,
  TEXT: 0x24,
  DATA_IN: 0x25,
  LOGOUT: 0x26,
  R2T: 0x31,
  ASYNC_MESSAGE: 0x32,
  REJECT: 0x3f,
} as const;

/** The I bit beside the opcode (§11.2.1.1) and the opcode's six bits. */
export const IMMEDIATE = 0x40;
export const OPCODE_MASK = 0x3f;

/** The basic header segment's length (§11.2.1). */
export const BHS_BYTES = 48;
/** Length of a header or data digest (§11.2.3, §11.2.4). */
export const DIGEST_BYTES = 4;
/** No tag: ITT or TTT that names nothing (§11.2.1.8, §11.7.4). */
export const TAG_NONE = 0xffffffff;

/** Byte 1 flags that many PDUs share: F (§11.2.1.3), and C of text and login (§11.10.2, §11.12.2). */
export const FINAL = 0x80;
export const CONTINUE = 0x40;

/** Byte 1 of a SCSI Command (§11.3.1). */
export const COMMAND_READ = 0x40;
export const COMMAND_WRITE = 0x20;
export const COMMAND_ATTRIBUTE_MASK = 0x07;
/** The last task attribute; the values above it are reserved. */
export const ATTRIBUTE_ACA = 4;

/** Byte 1 of SCSI Response and Data-In: residual flags and status in Data-In (§11.4.1, §11.7.3). */
export const RESIDUAL_OVERFLOW = 0x04;
export const RESIDUAL_UNDERFLOW = 0x02;
export const DATA_IN_STATUS = 0x01;
/** Byte 1 of Data-In: A, an acknowledgement is asked for (§11.7.2). */
export const DATA_IN_ACKNOWLEDGE = 0x40;

/** SNACK types (§11.16.1). */
export const SNACK = { DATA_OR_R2T: 0, STATUS: 1, DATA_ACK: 2, R_DATA: 3 } as const;

/** AHS types (§11.2.2.1). */
export const AHS_EXTENDED_CDB = 1;
export const AHS_BIDIRECTIONAL_READ_LENGTH = 2;

/** Login stages (§11.12.3). */
export const STAGE = { SECURITY: 0, OPERATIONAL: 1, FULL_FEATURE: 3 } as const;

/** Login status, class in the high byte and detail in the low one (§11.13.5). */
export const LOGIN_STATUS = {
  SUCCESS: 0x0000,
  TARGET_MOVED_TEMPORARILY: 0x0101,
  TARGET_MOVED_PERMANENTLY: 0x0102,
  INITIATOR_ERROR: 0x0200,
  AUTHENTICATION_FAILURE: 0x0201,
  AUTHORIZATION_FAILURE: 0x0202,
  NOT_FOUND: 0x0203,
  TARGET_REMOVED: 0x0204,
  UNSUPPORTED_VERSION: 0x0205,
  TOO_MANY_CONNECTIONS: 0x0206,
  MISSING_PARAMETER: 0x0207,
  CANNOT_INCLUDE_IN_SESSION: 0x0208,
  SESSION_TYPE_NOT_SUPPORTED: 0x0209,
  SESSION_DOES_NOT_EXIST: 0x020a,
  INVALID_DURING_LOGIN: 0x020b,
  TARGET_ERROR: 0x0300,
  SERVICE_UNAVAILABLE: 0x0301,
  OUT_OF_RESOURCES: 0x0302,
} as const;
export type LoginStatus = (typeof LOGIN_STATUS)[keyof typeof LOGIN_STATUS];

/** Reject reasons (§11.17.1). */
export const REJECT = {
  DATA_DIGEST_ERROR: 0x02,
  SNACK_REJECT: 0x03,
  PROTOCOL_ERROR: 0x04,
  COMMAND_NOT_SUPPORTED: 0x05,
  IMMEDIATE_COMMAND_REJECT: 0x06,
  TASK_IN_PROGRESS: 0x07,
  INVALID_DATA_ACK: 0x08,
  INVALID_PDU_FIELD: 0x09,
  LONG_OPERATION_REJECT: 0x0a,
  WAITING_FOR_LOGOUT: 0x0c,
} as const;

/** Logout reasons and responses (§11.14.1, §11.15.1). */
export const LOGOUT_REASON = { CLOSE_SESSION: 0, CLOSE_CONNECTION: 1, REMOVE_FOR_RECOVERY: 2 } as const;
export const LOGOUT_RESPONSE = {
  CLOSED: 0,
  CID_NOT_FOUND: 1,
  RECOVERY_NOT_SUPPORTED: 2,
  CLEANUP_FAILED: 3,
} as const;

/** Asynchronous message events (§11.9.1). */
export const ASYNC_EVENT = {
  SCSI: 0,
  LOGOUT_REQUEST: 1,
  CONNECTION_DROP: 2,
  SESSION_DROP: 3,
  NEGOTIATION_REQUEST: 4,
  TASKS_TERMINATED: 5,
} as const;

/** SCSI statuses that this layer itself looks at (SAM-6 §5.3.1). */
export const SCSI_GOOD = 0x00;
export const SCSI_CHECK_CONDITION = 0x02;
