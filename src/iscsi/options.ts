/**
 * What the daemon tells the iSCSI layer: portals, targets, who may log in, limits. Plain data, already validated by
 * src/config; secrets appear here and nowhere else below it.
 */
import type { LunAccess, ScsiPort } from '../scsi/port.js';
import type { IscsiCounters } from './counters.js';

/** A network portal (RFC 7143 §3.1 "Network Portal"): one listening TCP address. */
export interface PortalOptions {
  /** IPv4 or IPv6 address to listen on. */
  host: string;
  /** TCP port, 0 for one that the system picks. */
  port: number;
  /** Target portal group tag, 0 to 65535. */
  portalGroupTag: number;
  /** "HOST:PORT" to give in SendTargets instead of the local address of the connection (NAT, port forwarding). */
  advertise?: string;
}

/** CHAP algorithms by their numbers in the registry of RFC 7143 §12.1.3 and its successors. */
export const CHAP_ALGORITHM = { MD5: 5, SHA1: 6, SHA256: 7, SHA3_256: 8 } as const;
export type ChapAlgorithm = keyof typeof CHAP_ALGORITHM;

/** One CHAP user. */
export interface ChapUser {
  name: string;
  secret: Buffer;
}

export interface AuthenticationOptions {
  /** Users that may log in; empty: no authentication asked for. */
  users: readonly ChapUser[];
  /** What the target answers when the initiator authenticates it (mutual CHAP). */
  mutual?: ChapUser;
  /** Accepted algorithms, best first. */
  algorithms: readonly ChapAlgorithm[];
}

/** Who asks: everything that an access rule may look at. */
export interface Asker {
  /** Normalised iSCSI name. */
  initiatorName: string;
  /** Remote address without port. */
  address: string;
  portalGroupTag: number;
  /** CHAP user that authenticated, if any; undefined while SendTargets or the login only asks for visibility. */
  user: string | undefined;
}

export interface IscsiTargetOptions {
  /** iSCSI name of the target, normalised. */
  name: string;
  alias?: string;
  port: ScsiPort;
  /** LUNs that this asker gets, or undefined if the target does not exist for it. */
  access: (asker: Asker) => readonly LunAccess[] | undefined;
  /** What the target wants otherwise than `IscsiServerOptions.limits` says. */
  limits?: SessionLimits;
  /** Authentication that this asker has to pass. */
  authentication: (asker: Asker) => AuthenticationOptions;
  /** Where this asker is sent instead of being let in (RFC 7143 §11.13.5, class 01h); undefined: it is let in. */
  moved?: (asker: Asker) => { permanent: boolean; address: string } | undefined;
}

/** Limits of what peers can make the target hold, and its preferences in negotiation (RFC 7143 §13). */
export interface IscsiLimits {
  /** Connections accepted in all; more are refused at accept. */
  connectionsMax: number;
  /** Connections that have not finished their login, overall and per address. */
  halfOpenMax: number;
  halfOpenPerAddressMax: number;
  /** Time to finish a login. */
  loginTimeoutMs: number;
  /** Idle time after which a NOP-In asks whether the initiator is alive; 0: never. */
  nopIntervalMs: number;
  /** Time to answer it before the connection is dropped. */
  nopTimeoutMs: number;
  /** Commands that a session may have outstanding (MaxCmdSN window). */
  commandWindow: number;
  /** Connections that a session may have (MaxConnections). */
  maxConnections: number;
  /** ErrorRecoveryLevel, 0 to 2 (§7.1.5). */
  errorRecoveryLevel: number;
  /** DefaultTime2Wait and DefaultTime2Retain; the latter at level 2 only (§13.15, §13.16). */
  time2WaitSeconds: number;
  time2RetainSeconds: number;
  maxRecvDataSegmentBytes: number;
  maxBurstBytes: number;
  firstBurstBytes: number;
  maxOutstandingR2T: number;
  initialR2T: boolean;
  immediateData: boolean;
  /** Bytes of answers and pinned data that a connection may hold before it stops reading. */
  connectionBufferBytesMax: number;
  /** Whether unit attentions are also told by asynchronous messages (RFC 7143 §11.9.1, event 0). */
  scsiEvents: boolean;
  /** How long the event loop polls for the next command before it sleeps; 0: never. */
  spinUs: number;
}

/** Limits that a target may have of its own: they hold for sessions that begin from now on. */
export type SessionLimits = Partial<
  Pick<IscsiLimits, 'maxConnections' | 'errorRecoveryLevel' | 'time2WaitSeconds' | 'time2RetainSeconds'>
>;

/** Structured log sink: pino's shape, so that the daemon hands a child logger down. */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface IscsiServerOptions {
  portals: readonly PortalOptions[];
  targets: readonly IscsiTargetOptions[];
  /** Authentication of discovery sessions. */
  discoveryAuthentication: (asker: Asker) => AuthenticationOptions;
  limits: IscsiLimits;
  log: Log;
  /** Sockets that listen already (systemd's socket activation): each belongs to the portal of its address. */
  inheritedFds?: readonly number[];
}

/** A session as `cldd status` shows it. */
export interface SessionInfo {
  /** Identifies the session in this daemon's life (TSIH). */
  id: number;
  /** Undefined for a discovery session. */
  target: string | undefined;
  initiator: string;
  /** Connections that it has; 0 while the tasks of those that it had wait to be reassigned. */
  connections: number;
  /** Remote address and port, of the first connection; without one the address alone, and an empty `portal`. */
  address: string;
  portal: string;
  luns: number[];
  since: Date;
  user: string | undefined;
  headerDigest: boolean;
  dataDigest: boolean;
}

/** What the daemon uses of the server (src/iscsi/server.ts: `class IscsiServer implements IscsiService`). */
export interface IscsiService {
  /** Binds every portal; rejects with an Error that has `code` (EADDRINUSE, …) and `portal` ("HOST:PORT"). */
  listen(): Promise<{ host: string; port: number; portalGroupTag: number }[]>;
  sessions(): SessionInfo[];
  /** Logins that failed to authenticate since the start. */
  readonly failedLogins: number;
  readonly counters: Readonly<IscsiCounters>;
  /** Connections, those that log in included. */
  readonly connections: number;
  /** True while no more than one connection has said anything lately. */
  readonly alone: boolean;
  /**
   * Listens on what is new, then stops listening on what is gone; sessions go on. A portal that keeps its address takes
   * over its group tag and advertised address, for logins to come. Rejects as `listen` does, having changed nothing.
   */
  setPortals(
    portals: readonly PortalOptions[],
  ): Promise<{ host: string; port: number; portalGroupTag: number }[]>;
  /** Drops a session; false if there is none of that id. */
  kill(id: number): boolean;
  /** Replaces the targets' rules (same names keep their sessions where access still allows it). */
  update(options: Pick<IscsiServerOptions, 'targets' | 'discoveryAuthentication'>): void;
  /** Stops accepting, asks initiators to log out, drops what is left after `graceMs`. */
  close(graceMs: number): Promise<void>;
}

export const DEFAULT_LIMITS: IscsiLimits = {
  connectionsMax: 1024,
  halfOpenMax: 128,
  halfOpenPerAddressMax: 32,
  loginTimeoutMs: 15_000,
  nopIntervalMs: 15_000,
  nopTimeoutMs: 15_000,
  commandWindow: 128,
  maxConnections: 1,
  errorRecoveryLevel: 0,
  time2WaitSeconds: 0,
  time2RetainSeconds: 20,
  maxRecvDataSegmentBytes: 262_144,
  maxBurstBytes: 1_048_576,
  firstBurstBytes: 262_144,
  maxOutstandingR2T: 4,
  initialR2T: false,
  immediateData: true,
  connectionBufferBytesMax: 16_777_216,
  scsiEvents: true,
  spinUs: 500,
};
