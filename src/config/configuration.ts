/**
 * A configuration after every check: plain data, names normalised, paths absolute, defaults filled in, secrets read.
 */
import type { AuthenticationOptions, IscsiLimits, PortalOptions, SessionLimits } from '../iscsi/options.js';
import type { LunAccess } from '../scsi/port.js';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** One access rule: every condition that is set must hold. */
export interface AccessRule {
  /** Normalised initiator name, or a pattern with * and ?. */
  initiator?: string;
  /** IP address or CIDR network. */
  address?: string;
  portalGroupTag?: number;
  /** CHAP user; one of the target's. */
  user?: string;
  luns: readonly LunAccess[];
}

/** Where initiators are sent instead of being let in (RFC 7143 §11.13.5, class 01h). */
export interface Redirect {
  /** HOST:PORT. */
  address: string;
  permanent: boolean;
  /** Only those who come by a portal of this group; undefined: all. */
  portalGroupTag?: number;
}

/** SPC-6 §5.18.2. */
export type AccessState = 'optimized' | 'non-optimized' | 'standby' | 'unavailable';

export interface TargetConfiguration {
  name: string;
  alias?: string;
  /** Absolute path. */
  partition: string;
  /** The first rule that fits decides; none fits: the target does not exist for that initiator. */
  access: readonly AccessRule[];
  authentication: AuthenticationOptions;
  redirect?: Redirect;
  /** START STOP UNIT may disable the slave. */
  allowEject: boolean;
  /** START STOP UNIT may enable the slave. */
  allowLoad: boolean;
  /** Asymmetric access state of portal groups, by tag; optimized if left out. */
  accessStates?: ReadonlyMap<number, AccessState>;
  /** What initiators are told of the physical block size; 4096 if left out. */
  physicalBlockBytes?: 512 | 4096;
  /** WRITE SAME of zero blocks goes to the end of the medium; refused if left out. */
  writeSameToEnd?: boolean;
  /** GET LBA STATUS (32) tells what has changed since a generation; false if left out. */
  reportChanges?: boolean;
  /** What holds for its sessions instead of the limits for all targets. */
  sessionLimits?: SessionLimits;
}

export interface Configuration {
  portals: readonly PortalOptions[];
  targets: readonly TargetConfiguration[];
  discoveryAuthentication: AuthenticationOptions;
  /** Absolute path of the unix socket. */
  controlSocket: string;
  logLevel: LogLevel;
  /** Where to answer for monitoring, by HTTP; undefined: nowhere. */
  metrics?: { host: string; port: number };
  /** Commands that take this long are logged; 0: none. */
  slowIoMs: number;
  shutdownGraceMs: number;
  limits: IscsiLimits;
}
