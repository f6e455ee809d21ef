/** REPORT and SET TARGET PORT GROUPS (SPC-6 §6.36, §6.45). */
import { getU16, getU32, putU32 } from '../bytes.js';
import { MEDIUM } from '../medium.js';
import { answer, fail, failParameter, good, pending } from '../respond.js';
import { SENSE } from '../sense.js';
import type { Task } from '../task.js';
import { ACCESS_STATE } from '../target-ports.js';
import type { TargetPort } from '../target-ports.js';
import type { Path } from '../unit.js';
import { receiveAll } from './data-out.js';

const EXTENDED = 0x20;

export function reportTargetPortGroups(task: Task, { unit }: Path): void {
  const groups = unit.services.ports.descriptors();
  const extended = (task.cdb[1] & EXTENDED) !== 0;
  const header = Buffer.alloc(extended ? 8 : 4);
  putU32(header, 0, header.length - 4 + groups.length);
  // Extended header: format 001b; implicit transition time 0.
  if (extended) header[4] = 0x10;
  answer(task, Buffer.concat([header, groups]), getU32(task.cdb, 6));
}

const DESCRIPTOR_BYTES = 4;
const LIST_BYTES_MAX = 65_536;

export function setTargetPortGroups(task: Task, path: Path): void {
  const bytes = getU32(task.cdb, 6);
  if (bytes % DESCRIPTOR_BYTES !== 0 || bytes > LIST_BYTES_MAX) {
    fail(task, SENSE.PARAMETER_LIST_LENGTH_ERROR);
    return;
  }
  receiveAll(task, bytes, (list) => {
    if (list.length < bytes) {
      fail(task, SENSE.PARAMETER_LIST_LENGTH_ERROR);
      return;
    }
    const { services } = path.unit;
    const changes: { state: number; port: TargetPort }[] = [];
    for (let at = DESCRIPTOR_BYTES; at < bytes; at += DESCRIPTOR_BYTES) {
      const state = list[at] & 0x0f;
      const port = services.ports.byRelativeId(getU16(list, at + 2));
      if (state > ACCESS_STATE.UNAVAILABLE) {
        failParameter(task, at);
        return;
      }
      if (port === undefined) {
        failParameter(task, at + 2);
        return;
      }
      changes.push({ state, port });
    }
    if (changes.length === 0) {
      good(task);
      return;
    }
    const kept = pending(task, () => good(task));
    services.changeAccessStates(changes, path.nexus, () => kept(MEDIUM.OK));
  });
}
