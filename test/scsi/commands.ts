import { CommandSet } from '../../src/scsi/command.js';
import { OPCODES } from '../../src/scsi/opcodes.js';

/** The compiled opcode table. */
export const SET = new CommandSet(OPCODES);
export const COMMANDS = SET.all;
