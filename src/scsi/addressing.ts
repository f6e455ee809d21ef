/** LUN addressing (SAM-6 §4.7): peripheral device addressing on bus 0, and flat space addressing. */
import type { Task } from './task.js';
import type { Path } from './unit.js';

/** The path that the task's LUN field names for its nexus, or undefined. */
export function findPath(task: Task): Path | undefined {
  const { lunHigh } = task;
  if (task.lunLow !== 0 || (lunHigh & 0xffff) !== 0) return undefined;
  const method = (lunHigh >>> 24) & 0xff;
  if (method !== 0x00 && method !== 0x40) return undefined;
  return task.nexus.paths[(lunHigh >>> 16) & 0xff];
}

/** True if the LUN field is LUN 0 (the task has found no path there). */
export function absentLunZero(task: Task): boolean {
  return task.lunLow === 0 && (task.lunHigh === 0 || task.lunHigh === 0x4000_0000);
}
