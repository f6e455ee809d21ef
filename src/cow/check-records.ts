/** The activity log and the state area. */

import { readActivitySlot } from './activity-log.js';
import type { CheckContext } from './check-context.js';
import { unlessUnreadable } from './check-context.js';
import { SEVERITY } from './check-report.js';
import { ACTIVITY_SLOTS, STATE_TWIN_BYTES } from './format.js';
import { STATE_TWINS, encodeState, readStateTwin } from './state-area.js';

/** A slot of zeros was never written. */
function readSlot(
  context: CheckContext,
  slot: number,
): { bytes: Buffer; sequence: number | undefined; blank: boolean } {
  const { store, superblock } = context;
  const { activityOffset, activitySlotBytes } = superblock;
  const bytes = Buffer.alloc(activitySlotBytes);
  const isRead = unlessUnreadable(() => {
    store.readSync(bytes, 0, bytes.length, activityOffset + slot * activitySlotBytes);
    return true;
  });
  const list = isRead ? readActivitySlot(store, superblock, slot) : undefined;
  return { bytes, sequence: list?.sequence, blank: isRead === true && bytes.every((byte) => byte === 0) };
}

/** Slots 0 and 1 hold one list, 2 and 3 another. */
export async function checkActivity(context: CheckContext): Promise<void> {
  const slots = await context.settled(
    () => Array.from({ length: ACTIVITY_SLOTS }, (_, slot) => readSlot(context, slot)),
    (seen) => seen.every(({ sequence, blank }) => sequence !== undefined || blank),
  );
  const { activityOffset, activitySlotBytes } = context.superblock;
  for (const [slot, { sequence, blank }] of slots.entries()) {
    const twin = slots[slot ^ 1];
    if (blank && twin.blank) continue;
    const where = {
      structure: `activity log, slot ${slot}`,
      position: activityOffset + slot * activitySlotBytes,
      lengthBytes: activitySlotBytes,
    };
    if (sequence === undefined && twin.sequence === undefined) {
      const problem = 'neither copy of this list is whole, as a power cut during its writing leaves it';
      const remedy = context.superblock.clean
        ? 'nothing is needed: the partition was closed in order'
        : 'the list before is used; if this is no trace of a power cut, make the next incremental backup a full one';
      context.findings.add({ ...where, severity: SEVERITY.NOTE, problem, remedy });
    } else if (sequence === undefined) {
      const remedy = `--repair writes it from slot ${slot ^ 1}`;
      const problem = 'it is not whole';
      context.findings.add({ ...where, severity: SEVERITY.REPAIRABLE, problem, remedy, fix: twin.bytes });
    } else if (twin.sequence !== undefined && sequence < twin.sequence && !context.shared) {
      const problem = `it has list ${sequence}, its copy has list ${twin.sequence}, as a crash leaves it`;
      const remedy = 'the next open writes both';
      context.findings.add({ ...where, severity: SEVERITY.NOTE, problem, remedy });
    }
  }
}

export async function checkState(context: CheckContext, mayEmpty: boolean): Promise<void> {
  const { store, findings } = context;
  const twins = await context.settled(
    () =>
      Array.from({ length: STATE_TWINS }, (_, twin) =>
        unlessUnreadable(() => readStateTwin(store, context.superblock, twin)),
      ),
    (seen) => !seen.includes(undefined),
  );
  const { superblock } = context;
  const [first, second] = twins;
  const newest = first && second ? (first.sequence >= second.sequence ? first : second) : (first ?? second);
  const image = newest ?? (mayEmpty ? { sequence: 1, records: new Map<string, Buffer>() } : undefined);
  const bytes = image && encodeState(image, superblock.uuid);
  const fix = bytes === undefined ? {} : { fix: bytes };
  for (const [twin, found] of twins.entries()) {
    if (bytes !== undefined && found !== undefined && encodeState(found, superblock.uuid).equals(bytes))
      continue;
    const where = {
      structure: `state area, twin ${twin}`,
      position: superblock.stateOffset + twin * STATE_TWIN_BYTES,
      lengthBytes: STATE_TWIN_BYTES,
    };
    if (newest === undefined) {
      findings.add({
        ...where,
        severity: mayEmpty ? SEVERITY.REPAIRABLE : SEVERITY.DAMAGED,
        problem: 'neither twin is whole: persistent reservations, saved mode pages and holders are lost',
        remedy: mayEmpty
          ? '--empty-state writes an empty one'
          : 'no data is lost: --repair --empty-state makes the area empty, and the partition opens again',
        ...fix,
      });
      continue;
    }
    if (found !== undefined && context.shared) continue;
    if (found?.sequence === newest.sequence) {
      const problem = 'it says something else than the other twin, and is as new';
      const remedy = `--repair writes it from twin ${1 - twin}, which an open believes`;
      findings.add({ ...where, severity: SEVERITY.REPAIRABLE, problem, remedy, ...fix });
      continue;
    }
    const problem = found === undefined ? 'it is not whole' : 'it is older than the other twin';
    const crashed =
      found !== undefined && !superblock.clean && twin === 1 && newest.sequence - found.sequence === 1;
    const severity = crashed ? SEVERITY.NOTE : SEVERITY.REPAIRABLE;
    const remedy = `${crashed ? 'the next open, or --repair,' : '--repair'} writes it from twin ${1 - twin}`;
    findings.add({ ...where, severity, problem, remedy, ...fix });
  }
}
