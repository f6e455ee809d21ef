/** READ DEFECT DATA (10) and (12), SBC-5 §5.22 and §5.23. */
import { getU16, getU32 } from '../bytes.js';
import { answer } from '../respond.js';
import type { Task } from '../task.js';

/** REQ_PLIST, REQ_GLIST and DEFECT LIST FORMAT, which the header gives back as valid: both lists are empty. */
const REQUEST_BITS = 0x1f;

/** No defects are known here: the partition's device keeps its own lists. */
export function readDefectData10(task: Task): void {
  const data = Buffer.alloc(4);
  data[1] = task.cdb[2] & REQUEST_BITS;
  answer(task, data, getU16(task.cdb, 7));
}

export function readDefectData12(task: Task): void {
  const data = Buffer.alloc(8);
  data[1] = task.cdb[1] & REQUEST_BITS;
  answer(task, data, getU32(task.cdb, 6));
}
