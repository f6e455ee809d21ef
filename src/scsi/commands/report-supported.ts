/** REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS (SPC-6 §6.33, §6.34): the opcode table tells itself. */
import { getU16, getU32, putU16, putU32 } from '../bytes.js';
import type { Command } from '../command.js';
import { answer, failField } from '../respond.js';
import type { Task } from '../task.js';
import type { Path } from '../unit.js';

/** REPORTING OPTIONS (SPC-6 §6.33.1). */
const REPORTING = { ALL: 0, ONE_WITHOUT_ACTION: 1, ONE_WITH_ACTION: 2, ONE_OF_EITHER: 3 } as const;
const RCTD = 0x80;
/** SUPPORT (SPC-6 §6.33.3): not supported; supported as the standard says. */
const SUPPORT = { NONE: 1, STANDARD: 3 } as const;
const TIMEOUTS_BYTES = 12;

export function reportSupportedOpcodes(task: Task, path: Path): void {
  const { cdb } = task;
  const { commands } = path.unit.services;
  const timeouts = (cdb[2] & RCTD) !== 0;
  const opcode = cdb[3];
  const action = getU16(cdb, 4);
  const allocation = getU32(cdb, 6);
  const withActions = commands.hasServiceActions(opcode);
  switch (cdb[2] & 0x07) {
    case REPORTING.ALL:
      answer(
        task,
        all(
          commands.all.filter(({ listed }) => listed !== false),
          timeouts,
        ),
        allocation,
      );
      return;
    case REPORTING.ONE_WITHOUT_ACTION:
      if (withActions) failField(task, 2, 2);
      else answer(task, one(commands.byOpcode(opcode), timeouts), allocation);
      return;
    case REPORTING.ONE_WITH_ACTION:
      if (!withActions && commands.byOpcode(opcode) !== undefined) failField(task, 2, 2);
      else answer(task, one(commands.byOpcodeAndAction(opcode, action), timeouts), allocation);
      return;
    case REPORTING.ONE_OF_EITHER: {
      const plain = action === 0 ? commands.byOpcode(opcode) : undefined;
      answer(
        task,
        one(withActions ? commands.byOpcodeAndAction(opcode, action) : plain, timeouts),
        allocation,
      );
      return;
    }
    default:
      failField(task, 2, 2);
  }
}

function all(commands: readonly Command[], timeouts: boolean): Buffer {
  const each = timeouts ? 8 + TIMEOUTS_BYTES : 8;
  const data = Buffer.alloc(4 + commands.length * each);
  putU32(data, 0, commands.length * each);
  commands.forEach((command, index) => {
    const at = 4 + index * each;
    data[at] = command.opcode;
    if (command.serviceAction !== undefined) {
      putU16(data, at + 2, command.serviceAction);
      data[at + 5] = 0x01;
    }
    if (timeouts) {
      data[at + 5] |= 0x02;
      putTimeouts(data, at + 8, command);
    }
    putU16(data, at + 6, command.usageData.length);
  });
  return data;
}

function one(command: Command | undefined, timeouts: boolean): Buffer {
  if (command === undefined) return Buffer.from([0, SUPPORT.NONE, 0, 0]);
  const { usageData } = command;
  const data = Buffer.alloc(4 + usageData.length + (timeouts ? TIMEOUTS_BYTES : 0));
  data[1] = SUPPORT.STANDARD | (timeouts ? 0x80 : 0);
  putU16(data, 2, usageData.length);
  usageData.copy(data, 4);
  if (timeouts) putTimeouts(data, 4 + usageData.length, command);
  return data;
}

/** Command timeouts descriptor (SPC-6 §6.33.4); NOMINAL COMMAND PROCESSING TIMEOUT 0: not specified. */
function putTimeouts(data: Buffer, at: number, command: Command): void {
  putU16(data, at, TIMEOUTS_BYTES - 2);
  putU32(data, at + 8, command.timeoutSeconds ?? 30);
}

const REPD = 0x80;

export function reportTaskManagement(task: Task): void {
  const extended = (task.cdb[2] & REPD) !== 0;
  const data = Buffer.alloc(extended ? 16 : 4);
  // ATS, ATSS, CTSS, LURS, QTS. Not CACAS: CLEAR ACA needs an ACA, which NACA=0 never makes.
  data[0] = 0x80 | 0x40 | 0x10 | 0x08 | 0x04;
  // QAES, QTSS, ITNRS.
  data[1] = 0x04 | 0x02 | 0x01;
  if (extended) {
    data[3] = 12;
    // All times in 100 ms units; 0: not specified.
    putU32(data, 8, 0);
  }
  answer(task, data, getU32(task.cdb, 6));
}
