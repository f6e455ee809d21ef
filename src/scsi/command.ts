/**
 * What a command is: one entry of the opcode table (opcodes.ts), and the table itself, which dispatches, validates CDBs
 * and answers REPORT SUPPORTED OPERATION CODES.
 */
import type { Task } from './task.js';
import type { Path } from './unit.js';

/** Carries out a command whose CDB, unit attentions, reservations and medium have been checked. */
export type Execute = (task: Task, path: Path) => void;

/** `always`: whoever sends it. `read`: unless reading is excluded, too. `write`: only who may write. */
export type ReservationRule = 'always' | 'read' | 'write';

/** How the opcode table is written down. */
export interface CommandDefinition {
  name: string;
  /**
   * CDB usage data (SPC-6 §6.33.3) in hexadecimal, with spaces for reading: byte 0 is the operation code, a service
   * action stands in its field, every other bit is set if the target evaluates it. Its length is the CDB's.
   */
  usage: string;
  serviceAction?: number;
  /**
   * Fails with NOT READY, MEDIUM NOT PRESENT while the medium is absent. Refused while SANITIZE runs, and after one that
   * failed.
   */
  medium?: boolean;
  /** Changes the medium: refused with DATA PROTECT on a protected unit. */
  writes?: boolean;
  /** SPC-6 §5.14.1 and SBC-5 §4.17: who may send it while another I_T nexus holds a persistent reservation. */
  reservation: ReservationRule;
  /** The rule where it hangs on a field of the CDB, for commands of which the tables have two rows. */
  reservationOf?: (cdb: Buffer) => ReservationRule;
  /** Allowed in spite of another's RESERVE(6) (SPC-2 §5.5.1). */
  reserve6?: boolean;
  /** Answered without reporting a pending unit attention (SPC-6 §6.6, §6.34, §6.38; SAM-6 §5.14). */
  ignoresAttention?: boolean;
  /** Recommended command timeout, for RCTD (SPC-6 §6.33.4). */
  timeoutSeconds?: number;
  /**
   * False: left out of the list of all commands (REPORTING OPTIONS 000b), since initiators with room for 16 CDB bytes
   * stumble over a longer one; it is reported when asked for.
   */
  listed?: boolean;
  clause: string;
  execute: Execute;
}

export interface Command extends CommandDefinition {
  readonly opcode: number;
  readonly usageData: Buffer;
  /** Pairs of byte index and the bits of it that must be zero. */
  readonly refused: Uint8Array;
  readonly needsMedium: boolean;
  readonly changesMedium: boolean;
}

/** Operation codes whose service action is in byte 1, bits 4 to 0 (SPC-6 §4.2). */
const SERVICE_ACTION_MASK = 0x1f;
/** Variable length CDBs: service action in bytes 8 and 9, additional length in byte 7. */
export const VARIABLE_LENGTH = 0x7f;

function compile(definition: CommandDefinition): Command {
  const usageData = Buffer.from(definition.usage.replaceAll(' ', ''), 'hex');
  const opcode = usageData[0];
  const refused: number[] = [];
  // A service action needs no care: the command is found by it, so its bits are those of the usage data.
  for (let byte = 1; byte < usageData.length; byte++) {
    const allowed = usageData[byte];
    if (allowed !== 0xff) refused.push(byte, ~allowed & 0xff);
  }
  return {
    ...definition,
    opcode,
    usageData,
    refused: Uint8Array.from(refused),
    needsMedium: definition.medium === true,
    changesMedium: definition.writes === true,
  };
}

/** All commands of a target, found by operation code and service action. */
export class CommandSet {
  readonly all: readonly Command[];
  private readonly plain: (Command | undefined)[] = new Array<Command | undefined>(256).fill(undefined);
  private readonly byServiceAction: (Map<number, Command> | undefined)[] = new Array<
    Map<number, Command> | undefined
  >(256).fill(undefined);

  constructor(definitions: readonly CommandDefinition[]) {
    this.all = definitions.map(compile);
    for (const command of this.all) {
      if (command.serviceAction === undefined) {
        this.plain[command.opcode] = command;
      } else {
        (this.byServiceAction[command.opcode] ??= new Map()).set(command.serviceAction, command);
      }
    }
  }

  /** The command that a CDB asks for, or undefined if there is none. */
  find(cdb: Buffer): Command | undefined {
    return this.plain[cdb[0]] ?? this.findServiceAction(cdb);
  }

  private findServiceAction(cdb: Buffer): Command | undefined {
    const actions = this.byServiceAction[cdb[0]];
    if (actions === undefined) return undefined;
    return actions.get(cdb[0] === VARIABLE_LENGTH ? (cdb[8] << 8) | cdb[9] : cdb[1] & SERVICE_ACTION_MASK);
  }

  /** The command without a service action of that operation code. */
  byOpcode(opcode: number): Command | undefined {
    return this.plain[opcode];
  }

  /** True if commands of that operation code are told apart by a service action. */
  hasServiceActions(opcode: number): boolean {
    return this.byServiceAction[opcode] !== undefined;
  }

  byOpcodeAndAction(opcode: number, serviceAction: number): Command | undefined {
    return this.byServiceAction[opcode]?.get(serviceAction);
  }
}

/** Index of the first CDB byte with a bit set that the command does not know, or -1. */
export function firstRefusedByte(command: Command, cdb: Buffer): number {
  const { refused } = command;
  for (let i = 0; i < refused.length; i += 2) {
    if ((cdb[refused[i]] & refused[i + 1]) !== 0) return refused[i];
  }
  return -1;
}
