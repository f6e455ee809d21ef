/** docs/scsi.md: the opcode table as a page for people. A test keeps the file equal to what this returns. */
import { CommandSet } from './command.js';
import type { Command } from './command.js';
import { OPCODES } from './opcodes.js';
import { SENSE } from './sense.js';

/** The whole page, in Markdown. */
export function opcodePage(): string {
  const commands = [...new CommandSet(OPCODES).all].sort(
    (a, b) => a.opcode - b.opcode || (a.serviceAction ?? 0) - (b.serviceAction ?? 0),
  );
  return [
    '# SCSI commands',
    '',
    'Generated from the opcode table (src/scsi/opcodes.ts), which also dispatches commands, checks CDBs, write protection',
    'and reservations, and answers REPORT SUPPORTED OPERATION CODES. Both logical units, the master and the slave, answer',
    'the same commands; those that write end with DATA PROTECT on the slave.',
    '',
    '- **Usage** is the CDB usage data: the operation code, the service action in its field, and a 1 for every bit that is',
    '  evaluated. Any other bit that is set ends the command with INVALID FIELD IN CDB, with a field pointer.',
    '- **Medium**: `needs` one (NOT READY, MEDIUM NOT PRESENT while the slave is disabled), or `writes` to it.',
    '- **Reservation**: while another initiator holds a persistent reservation the command is allowed `always`, allowed if',
    '  the reservation excludes only writing (`read`), or ends with RESERVATION CONFLICT (`write`). `6` marks commands that',
    "  are allowed in spite of another's RESERVE (6).",
    "- **WRITE ATOMIC (16)**: one aligned block of 4 KiB is as atomic over a power cut as the device's own writes of 4 KiB.",
    '  Up to 128 KiB are recorded in the partition first, which costs several synced writes, and are done again by a restart.',
    '',
    '| code | command | CDB | usage | medium | reservation | clause |',
    '| --- | --- | --- | --- | --- | --- | --- |',
    ...commands.map(row),
    '',
    '## Left out on purpose',
    '',
    '- GET EVENT STATUS NOTIFICATION is a command of MMC, for optical drives; a disk tells of a new medium by a unit attention.',
    '- SANITIZE, CRYPTOGRAPHIC ERASE: nothing is encrypted here, so there is no key to throw away.',
    '- FORMAT UNIT and REASSIGN BLOCKS: formatting is for the operator, and the device below keeps its own spare blocks.',
    '- Protection information (RDPROTECT, WRPROTECT, VRPROTECT other than 0) and ACA (NACA=1) are refused.',
    '',
    '## Sense data',
    '',
    'Every sense key and additional sense code that is reported, by its standard name.',
    '',
    '| key/ASC/ASCQ | name |',
    '| --- | --- |',
    ...Object.entries(SENSE)
      .sort(([, a], [, b]) => a - b)
      .map(([name, code]) => `| ${triple(code)} | ${name.replaceAll('_', ' ')} |`),
    '',
  ].join('\n');
}

function row(command: Command): string {
  const action = command.serviceAction === undefined ? '' : `/${hex(command.serviceAction)}`;
  const medium = command.changesMedium ? 'writes' : command.needsMedium ? 'needs' : '';
  const reservation = command.reservation + (command.reserve6 === true ? ', 6' : '');
  return `| ${[`${hex(command.opcode)}${action}`, command.name, String(command.usageData.length), `\`${command.usage}\``, medium, reservation, command.clause].join(' | ')} |`;
}

function hex(value: number): string {
  return `${value.toString(16).toUpperCase().padStart(2, '0')}h`;
}

function triple(code: number): string {
  return [code >>> 16, (code >>> 8) & 255, code & 255].map(hex).join('/');
}
