/** MODE SENSE and MODE SELECT (6/10), SPC-6 §6.11 to §6.14, with the direct-access header of SBC-5 §6.5. */
import { getU16, putU16, putU32, putU64 } from '../bytes.js';
import { PAGE_CONTROL } from '../mode-pages.js';
import type { PageChange } from '../mode-pages.js';
import { answer, fail, failField, failParameter, good } from '../respond.js';
import { SENSE } from '../sense.js';
import type { DataOutHandler, Task } from '../task.js';
import { BLOCK_BYTES, pathOf } from '../unit.js';
import type { LogicalUnit, Path } from '../unit.js';

const DBD = 0x08;
/** Of MODE SENSE (10) only. */
const LLBAA = 0x10;
const WP = 0x80;
const DPOFUA = 0x10;

export function modeSense6(task: Task, path: Path): void {
  modeSense(task, path, 4, task.cdb[4]);
}

export function modeSense10(task: Task, path: Path): void {
  modeSense(task, path, 8, getU16(task.cdb, 7));
}

function modeSense(task: Task, path: Path, headerBytes: number, allocation: number): void {
  const { cdb } = task;
  const { unit } = path;
  const control = cdb[2] >>> 6;
  const pages = unit.modes.find(cdb[2] & 0x3f, cdb[3], control);
  if (pages === undefined) {
    failField(task, (unit.modes.find(cdb[2] & 0x3f, 0xff)?.length ?? 0) > 0 ? 3 : 2);
    return;
  }
  const long = (cdb[1] & LLBAA) !== 0;
  // Without a medium the block descriptor has nothing to say.
  const descriptor =
    (cdb[1] & DBD) !== 0 || !unit.medium.present ? Buffer.alloc(0) : blockDescriptor(unit, long, control);
  const header = Buffer.alloc(headerBytes);
  const flags = (path.writeProtected ? WP : 0) | DPOFUA;
  const bytes = headerBytes + descriptor.length + pages.reduce((sum, page) => sum + page.length, 0);
  if (headerBytes === 4) {
    header[0] = bytes - 1;
    header[2] = flags;
    header[3] = descriptor.length;
  } else {
    putU16(header, 0, bytes - 2);
    header[3] = flags;
    header[4] = long && descriptor.length > 0 ? 0x01 : 0;
    putU16(header, 6, descriptor.length);
  }
  answer(task, Buffer.concat([header, descriptor, ...pages], bytes), allocation);
}

/** Short (8 bytes) or long (16 bytes) LBA mode parameter block descriptor (SBC-5 §6.5.2). Nothing in it is changeable. */
function blockDescriptor(unit: LogicalUnit, long: boolean, control: number): Buffer {
  const descriptor = Buffer.alloc(long ? 16 : 8);
  if (control === PAGE_CONTROL.CHANGEABLE) return descriptor;
  if (long) {
    putU64(descriptor, 0, unit.blocks);
    putU32(descriptor, 12, BLOCK_BYTES);
  } else {
    putU32(descriptor, 0, Math.min(unit.blocks, 0xffff_ffff));
    putU32(descriptor, 4, BLOCK_BYTES);
  }
  return descriptor;
}

const SAVE_PAGES = 0x01;
const PAGE_FORMAT = 0x10;

export function modeSelect6(task: Task): void {
  receiveModeList(task, task.cdb[4]);
}

export function modeSelect10(task: Task): void {
  receiveModeList(task, getU16(task.cdb, 7));
}

function receiveModeList(task: Task, bytes: number): void {
  if ((task.cdb[1] & PAGE_FORMAT) === 0) {
    failField(task, 1, 4);
    return;
  }
  if (bytes === 0) {
    good(task);
    return;
  }
  task.handler = MODE_LIST;
  task.receiveDataOut(bytes, true);
}

const MODE_LIST: DataOutHandler = {
  onDataOut(task, buffer, offset, length) {
    task.scratch = Buffer.from(buffer.subarray(offset, offset + length));
  },
  onDataOutEnd(task) {
    modeSelect(task, (task.scratch as Buffer | undefined) ?? Buffer.alloc(0));
  },
};

/** Checks the whole list before anything takes effect. */
function modeSelect(task: Task, list: Buffer): void {
  const short = task.cdb[0] === 0x15;
  const headerBytes = short ? 4 : 8;
  if (list.length < headerBytes) {
    fail(task, SENSE.PARAMETER_LIST_LENGTH_ERROR);
    return;
  }
  const { unit } = pathOf(task);
  const descriptorBytes = short ? list[3] : getU16(list, 6);
  const long = !short && (list[4] & 0x01) !== 0;
  if (descriptorBytes !== 0 && descriptorBytes !== (long ? 16 : 8)) {
    failParameter(task, short ? 3 : 6);
    return;
  }
  let at = headerBytes + descriptorBytes;
  if (at > list.length) {
    fail(task, SENSE.PARAMETER_LIST_LENGTH_ERROR);
    return;
  }
  if (descriptorBytes > 0 && !descriptorFits(unit, list.subarray(headerBytes, at), long)) {
    failParameter(task, headerBytes);
    return;
  }
  const changes: PageChange[] = [];
  while (at < list.length) {
    const subpageFormat = (list[at] & 0x40) !== 0;
    if (at + (subpageFormat ? 4 : 2) > list.length) {
      fail(task, SENSE.PARAMETER_LIST_LENGTH_ERROR);
      return;
    }
    const bytes = subpageFormat ? 4 + getU16(list, at + 2) : 2 + list[at + 1];
    if (at + bytes > list.length) {
      fail(task, SENSE.PARAMETER_LIST_LENGTH_ERROR);
      return;
    }
    const change = unit.modes.check(list.subarray(at, at + bytes));
    if (typeof change === 'number') {
      failParameter(task, at + change);
      return;
    }
    changes.push(change);
    at += bytes;
  }
  enforce(task, unit, changes);
}

/**
 * The block descriptor may only repeat what is: block length 512, and all blocks, which may also be said as 0 or as the
 * highest number that there is room for (SBC-5 §6.5.2).
 */
function descriptorFits(unit: LogicalUnit, descriptor: Buffer, long: boolean): boolean {
  const count = long ? descriptor.readBigUInt64BE(0) : BigInt(descriptor.readUInt32BE(0));
  const length = long ? descriptor.readUInt32BE(12) : descriptor.readUIntBE(5, 3);
  const highest = long ? 0xffff_ffff_ffff_ffffn : 0xffff_ffffn;
  return (
    (count === 0n || count === BigInt(unit.blocks) || count === highest) &&
    (length === BLOCK_BYTES || length === 0)
  );
}

function enforce(task: Task, unit: LogicalUnit, changes: PageChange[]): void {
  const path = pathOf(task);
  const before = unit.modes.writeCacheEnabled;
  const changed = unit.modes.change(changes);
  unit.refresh();
  // Mode pages are shared by all I_T nexuses (MLUS=0): the others learn of it (SPC-6 §6.11).
  if (changed) unit.attention(SENSE.MODE_PARAMETERS_CHANGED, path);
  const save = (): void => {
    if ((task.cdb[1] & SAVE_PAGES) === 0) {
      good(task);
      return;
    }
    task.pending++;
    unit.modes.save(changes, (error) => {
      task.pending--;
      if (error === undefined) good(task);
      else {
        unit.services.log.error({ err: error, unit: unit.kind }, 'mode pages could not be saved');
        fail(task, SENSE.INTERNAL_TARGET_FAILURE);
      }
    });
  };
  if (before && !unit.modes.writeCacheEnabled && !unit.medium.writeProtected) {
    // The cache has been switched off: what it holds becomes durable first (SBC-5 §6.5.6).
    task.pending++;
    unit.medium.flush((result) => {
      task.pending--;
      if (result === 0) save();
      else fail(task, SENSE.LOGICAL_UNIT_FAILURE);
    });
  } else save();
}
