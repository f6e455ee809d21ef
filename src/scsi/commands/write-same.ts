/** WRITE SAME (10) and (16), SBC-5 §5.55 and §5.56. */
import { MEDIUM } from '../medium.js';
import { failField, finish, good, pending } from '../respond.js';
import type { Task } from '../task.js';
import { BLOCK_BYTES } from '../unit.js';
import type { Path } from '../unit.js';
import { blocks, inRange, lba, lengthByte } from './block-range.js';
import { endWrite } from './compare-and-write.js';
import { receiveExactly } from './data-out.js';
import { fillRange, isZero, lbaOf } from './medium-work.js';

/** MAXIMUM WRITE SAME LENGTH, in blocks: what WRITE SAME (10) can say. */
export const WRITE_SAME_BLOCKS_MAX = 65_535;
const UNMAP = 0x08;
const NDOB = 0x01;

export function writeSame(task: Task, path: Path): void {
  const { cdb } = task;
  const first = lba(cdb);
  if (!inRange(task, first, blocks(cdb), WRITE_SAME_BLOCKS_MAX)) return;
  if (task.remaining === 0) {
    // Zero blocks are all up to the last one (WSNZ=0), which the limit holds for as well (SBC-5 §5.55). A count of zero
    // is more often a mistake than meant so, hence the operator has to allow it.
    const rest = path.unit.blocks - first;
    if (!path.unit.writeSameToEnd || rest > WRITE_SAME_BLOCKS_MAX) {
      failField(task, lengthByte(cdb));
      return;
    }
    task.remaining = rest * BLOCK_BYTES;
  }
  const unmap = (cdb[1] & UNMAP) !== 0;
  // WRITE SAME (10) has no such bit, and is refused with it (src/scsi/opcodes.ts).
  const noDataOut = (cdb[1] & NDOB) !== 0;
  // Some initiators send UNMAP without data and without NDOB (which is younger); they mean zeros.
  if (noDataOut || (unmap && task.expectedDataOut === 0)) fill(task, path, undefined, unmap);
  else
    receiveExactly(task, BLOCK_BYTES, (block) => fill(task, path, isZero(block) ? undefined : block, unmap));
}

/** `block` undefined: zeros. Unmapping is done only for zeros, which is what unmapped blocks read as (LBPRZ). */
function fill(task: Task, path: Path, block: Buffer | undefined, unmap: boolean): void {
  const { unit } = path;
  const { position, remaining: bytes } = task;
  if (bytes === 0) {
    // Zero blocks from behind the last one on.
    good(task);
    return;
  }
  const pattern = unmap && block === undefined ? undefined : (block ?? Buffer.alloc(BLOCK_BYTES));
  unit.statistics.writeOps++;
  unit.statistics.writeBytes += pattern === undefined ? 0 : bytes;
  const filling = fillRange(
    unit.medium,
    position,
    bytes,
    pattern,
    () => task.aborted,
    pending(task, (result) => {
      if (result === MEDIUM.OK) endWrite(task, path, false);
      else finish(task, result, lbaOf(position + filling.doneBytes));
    }),
  );
}
