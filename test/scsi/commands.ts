import { CommandSet } from '../../src/scsi/command.js';
import { OPCODES } from '../../src/scsi/opcodes.js';

/** The compiled opcode table. */
export const COMMANDS = new CommandSet(OPCODES).all;
