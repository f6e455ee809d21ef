/** What a changed configuration means for a running daemon. */
import { isDeepStrictEqual } from 'node:util';
import type { Configuration } from '../config/configuration.js';
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

const LIVE = ['discoveryAuthentication', 'logLevel', 'shutdownGraceMs'] as const;
const AT_START = ['portals', 'controlSocket', 'limits'] as const;

/** @throws {OperationalError} PARTITION_CHANGED if a target shall move to another partition under its sessions. */
export function planReload(now: Configuration, next: Configuration): ReloadReport {
  const before = new Map(now.targets.map((target) => [target.name, target]));
  const after = new Map(next.targets.map((target) => [target.name, target]));
  const changed: string[] = [];
  for (const [name, target] of after) {
    const old = before.get(name);
    if (old === undefined || isDeepStrictEqual(old, target)) continue;
    if (old.partition !== target.partition) {
      throw new OperationalError(
        'PARTITION_CHANGED',
        `target ${name} has another partition now (${target.partition}): remove it, reload, add it again, or restart`,
      );
    }
    changed.push(name);
  }
  return {
    added: [...after.keys()].filter((name) => !before.has(name)),
    removed: [...before.keys()].filter((name) => !after.has(name)),
    changed,
    settings: LIVE.filter((key) => !isDeepStrictEqual(now[key], next[key])),
    needRestart: AT_START.filter((key) => !isDeepStrictEqual(now[key], next[key])),
  };
}
