/** REZERO UNIT and SEEK (6/10): obsolete since SBC-2, but old drivers and test programs still send them. Nothing moves. */
import { good } from '../respond.js';
import type { Task } from '../task.js';
import { inRange, lba } from './block-range.js';

export function rezeroUnit(task: Task): void {
  good(task);
}

export function seek(task: Task): void {
  if (inRange(task, lba(task.cdb), 1)) good(task);
}
