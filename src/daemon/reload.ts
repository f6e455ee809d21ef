/** What a changed configuration means for a running daemon. */
import { isDeepStrictEqual } from 'node:util';
import type { Configuration, TargetConfiguration } from '../config/configuration.js';
import { OperationalError } from '../operational-error.js';

export interface ReloadReport {
  /** Names of targets. */
  added: string[];
  removed: string[];
  /** Targets with other access rules, authentication, alias or policies. */
  changed: string[];
  /** Other keys that were taken over. */
  settings: string[];
  /** Keys that changed and wait for a restart. */
  needRestart: string[];
}

const LIVE = [
  'portals',
  'discoveryAuthentication',
  'logLevel',
  'metrics',
  'slowIoMs',
  'shutdownGraceMs',
] as const;
const AT_START = ['controlSocket', 'limits'] as const;
/** Of a target: told to initiators when they came, or kept by the SCSI layer. */
const TARGET_AT_START = ['accessStates', 'physicalBlockBytes', 'writeSameToEnd'] as const;

/** @throws {OperationalError} PARTITION_CHANGED if a target shall move to another partition under its sessions. */
export function planReload(now: Configuration, next: Configuration): ReloadReport {
  const before = new Map(now.targets.map((target) => [target.name, target]));
  const after = new Map(next.targets.map((target) => [target.name, target]));
  const changed: string[] = [];
  const needRestart: string[] = AT_START.filter((key) => !isDeepStrictEqual(now[key], next[key]));
  for (const [name, target] of after) {
    const old = before.get(name);
    if (old === undefined || isDeepStrictEqual(old, target)) continue;
    if (old.partition !== target.partition) {
      throw new OperationalError(
        'PARTITION_CHANGED',
        `target ${name} has another partition now (${target.partition}): remove it, reload, add it again, or restart`,
      );
    }
    const later = TARGET_AT_START.filter((key) => !isDeepStrictEqual(old[key], target[key]));
    needRestart.push(...later.map((key) => `${name} ${key}`));
    const live = (one: TargetConfiguration) =>
      Object.entries(one).filter(([key]) => !(TARGET_AT_START as readonly string[]).includes(key));
    if (!isDeepStrictEqual(live(old), live(target))) changed.push(name);
  }
  return {
    added: [...after.keys()].filter((name) => !before.has(name)),
    removed: [...before.keys()].filter((name) => !after.has(name)),
    changed,
    settings: LIVE.filter((key) => !isDeepStrictEqual(now[key], next[key])),
    needRestart,
  };
}
