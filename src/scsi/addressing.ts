/** LUN addressing (SAM-6 §4.7): peripheral device addressing on bus 0, and flat space addressing. */
import type { Nexus } from './nexus.js';
import type { Path } from './unit.js';

/** A LUN field, as a task or a task management request carries it. */
interface Address {
  nexus: Nexus;
  lunHigh: number;
  lunLow: number;
}

/** The path that the LUN field names for the nexus, or undefined. */
export function findPath(address: Address): Path | undefined {
  const { lunHigh } = address;
  if (address.lunLow !== 0 || (lunHigh & 0xffff) !== 0) return undefined;
  const method = (lunHigh >>> 24) & 0xff;
  if (method !== 0x00 && method !== 0x40) return undefined;
  return address.nexus.paths[(lunHigh >>> 16) & 0xff];
}

/** True if the LUN field is LUN 0, whether anything is there or not. */
export function isLunZero({ lunHigh, lunLow }: Address): boolean {
  return lunLow === 0 && (lunHigh === 0 || lunHigh === 0x4000_0000);
}
