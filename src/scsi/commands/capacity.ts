/** READ CAPACITY (10) and (16), SBC-5 §5.20 and §5.21. */
import { getU32, putU32, putU64 } from '../bytes.js';
import { answer } from '../respond.js';
import type { Task } from '../task.js';
import { BLOCK_BYTES } from '../unit.js';
import type { Path } from '../unit.js';

export function readCapacity10(task: Task, { unit }: Path): void {
  const data = Buffer.alloc(8);
  putU32(data, 0, Math.min(unit.blocks - 1, 0xffff_ffff));
  putU32(data, 4, BLOCK_BYTES);
  answer(task, data, data.length);
}

export function readCapacity16(task: Task, { unit }: Path): void {
  const data = Buffer.alloc(32);
  putU64(data, 0, unit.blocks - 1);
  putU32(data, 8, BLOCK_BYTES);
  // LBPPBE: 2^n logical blocks per physical block.
  data[13] = Math.log2(unit.physicalBlockBytes / BLOCK_BYTES);
  // LBPME, LBPRZ; lowest aligned LBA 0.
  data[14] = 0xc0;
  answer(task, data, getU32(task.cdb, 10));
}
