/** A configuration as the file spells it, after the schema accepted its shape (config/cldd.schema.json). */
import type { ChapAlgorithm, IscsiLimits, SessionLimits } from '../iscsi/options.js';
import type { LogLevel } from './configuration.js';

export interface RawUser {
  name: string;
  secretFile?: string;
  secretCredential?: string;
}

export interface RawRedirect {
  to: string;
  permanent?: boolean;
  portalGroupTag?: number;
}

export interface RawAuthentication {
  users: RawUser[];
  mutual?: RawUser;
  algorithms?: ChapAlgorithm[];
}

export interface RawRule {
  initiator?: string;
  address?: string;
  portalGroupTag?: number;
  user?: string;
  show?: ('master' | 'slave')[];
  luns?: { lun: number; unit: 'master' | 'slave'; readOnly?: boolean }[];
  readOnly?: boolean;
  allowEject?: boolean;
  allowLoad?: boolean;
}

export interface RawTarget extends SessionLimits {
  name: string;
  alias?: string;
  partition: string;
  access?: RawRule[];
  authentication?: RawAuthentication;
  allowEject?: boolean;
  allowLoad?: boolean;
  physicalBlockBytes?: 512 | 4096;
  writeSameToEnd?: boolean;
  reportChanges?: boolean;
  redirect?: RawRedirect;
  accessStates?: Record<string, 'optimized' | 'non-optimized' | 'standby' | 'unavailable'>;
}

export interface RawPortal {
  listen: string;
  portalGroupTag?: number;
  advertise?: string;
}

export interface RawConfiguration {
  portals?: RawPortal[];
  targets: RawTarget[];
  discovery?: { authentication?: RawAuthentication };
  controlSocket?: string;
  logLevel?: LogLevel;
  metrics?: { listen?: string };
  slowIoMs?: number;
  shutdownGraceMs?: number;
  limits?: Partial<IscsiLimits>;
}
