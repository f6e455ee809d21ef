/**
 * What a transport may ask of the SCSI layer: a SCSI target port seen from below (SAM-6 §4.3, §6).
 *
 * The iSCSI layer knows this file, task.ts and nexus.ts, and nothing else of src/scsi.
 */
import type { Nexus } from './nexus.js';
import type { Task } from './task.js';

/** Which side of the partition a LUN shows to one initiator, and how. */
export interface LunAccess {
  /** LUN number as the initiator sees it, 0 to 255. */
  lun: number;
  unit: 'master' | 'slave';
  /** The initiator may not write, whatever the unit allows. */
  readOnly: boolean;
  /** Whether it may end or begin a slave by START STOP UNIT; undefined: as the target's other initiators may. */
  mayEject?: boolean;
  mayLoad?: boolean;
}

/** Names and rights of a new I_T nexus. */
export interface NexusOptions {
  /** iSCSI name of the initiator, normalised. */
  initiatorName: string;
  /** SCSI initiator port name: the iSCSI name, ",i,0x" and the ISID in hexadecimal (RFC 7143 §4.4.2). */
  initiatorPort: string;
  /** Target portal group tag; with the target's name it makes the target port name. */
  portalGroupTag: number;
  /**
   * Version descriptor of the transport as negotiated, for standard INQUIRY data (SPC-6 §6.6.2): of iSCSI 0960h and the
   * protocol level (RFC 7144 §4.2). If left out, iSCSI with no version claimed.
   */
  transportVersion?: number;
  /** LUNs that this initiator sees. Anything else does not exist for it. */
  luns: readonly LunAccess[];
  /** The initiator's network address, for messages to the operator. */
  address: string;
  /**
   * Told of each unit attention that is established for this nexus after `attach` returned, with its sense data: what a
   * transport may send as an asynchronous event (RFC 7143 §11.9.1, event 0). The condition stays pending and is reported
   * to the next command all the same. Called from within other calls: must not call back into the port.
   */
  onAttention?: (lun: number, sense: Buffer) => void;
}

/**
 * Why a nexus ends: it decides which unit attention a later nexus of the same name finds. Only a `logout` of the
 * initiator's own accord says that it has done with the slave; one that the target asked for is `connection-lost`.
 */
export type NexusEnd = 'logout' | 'connection-lost' | 'reinstated' | 'killed';

/** Task management functions of SAM-6 §7, numbered as iSCSI carries them (RFC 7143 §11.5.1, RFC 7144 §4.1). */
export const TASK_MANAGEMENT = {
  ABORT_TASK: 1,
  ABORT_TASK_SET: 2,
  CLEAR_ACA: 3,
  CLEAR_TASK_SET: 4,
  LOGICAL_UNIT_RESET: 5,
  TARGET_WARM_RESET: 6,
  TARGET_COLD_RESET: 7,
  TASK_REASSIGN: 8,
  QUERY_TASK: 9,
  QUERY_TASK_SET: 10,
  I_T_NEXUS_RESET: 11,
  QUERY_ASYNCHRONOUS_EVENT: 12,
} as const;

/** Service responses of SAM-6 §7.1, numbered as iSCSI carries them (RFC 7143 §11.6.1, RFC 7144). */
export const TASK_MANAGEMENT_RESPONSE = {
  FUNCTION_COMPLETE: 0,
  TASK_DOES_NOT_EXIST: 1,
  LUN_DOES_NOT_EXIST: 2,
  TASK_STILL_ALLEGIANT: 3,
  REASSIGNMENT_NOT_SUPPORTED: 4,
  NOT_SUPPORTED: 5,
  AUTHORIZATION_FAILED: 6,
  FUNCTION_SUCCEEDED: 7,
  REJECTED: 255,
} as const;

export interface TaskManagementRequest {
  nexus: Nexus;
  /** One of TASK_MANAGEMENT. */
  function: number;
  lunHigh: number;
  lunLow: number;
  /** For ABORT TASK and QUERY TASK: the task, if the transport still has it. */
  task: Task | undefined;
  /** Tasks that a function for many tasks leaves alone: they belong behind it. */
  spared?: ReadonlySet<Task>;
}

/** One SCSI target: the master and slave of one partition. */
export interface ScsiPort {
  /** A session has entered the full feature phase. */
  attach(options: NexusOptions): Nexus;
  /** The session is over: its tasks are discarded and its SCSI-2 reservations go (SAM-6 §6.3.4). */
  detach(nexus: Nexus, why: NexusEnd): void;
  /** The access rules changed: which LUNs the nexus sees from now on (REPORTED LUNS DATA HAS CHANGED). */
  changeAccess(nexus: Nexus, luns: readonly LunAccess[]): void;
  /**
   * The transport has ended commands of the nexus on this LUN without a word, and the nexus goes on: its next command is
   * told so (RFC 7143 §11.14.5).
   */
  commandsCleared(nexus: Nexus, lunHigh: number, lunLow: number): void;
  /** Executes a command. Every outcome goes through the task; never throws because of what a peer sent. */
  submit(task: Task): void;
  /**
   * Task management. `done` gets a TASK_MANAGEMENT_RESPONSE (and for QUERY ASYNCHRONOUS EVENT three bytes of
   * additional information, else 0) once every affected task has ended; perhaps before the call returns.
   */
  manage(request: TaskManagementRequest, done: (response: number, additional: number) => void): void;
}
