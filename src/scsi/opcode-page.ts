/** docs/scsi.md: the opcode table as a page for people. A test keeps the file equal to what this returns. */
import { CommandSet } from './command.js';
import type { Command } from './command.js';
import { OPCODES } from './opcodes.js';
import { SENSE } from './sense.js';

/** The whole page, in Markdown. */
export function opcodePage(): string {
  // Those of one operation code stand in the table by their service actions, and stay so.
  const commands = [...new CommandSet(OPCODES).all].sort((a, b) => a.opcode - b.opcode);
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
    '## A SANITIZE that fails',
    '',
    'Such a unit shows and takes no data any more (SBC-5 §4.11): every command for its medium, and START STOP UNIT, ends with',
    '03h/31h/03h (SANITIZE COMMAND FAILED), and REQUEST SENSE tells of it. With AUSE=0 only another SANITIZE that succeeds, with',
    "AUSE=0, too, leads out of that; with AUSE=1 also EXIT FAILURE MODE. The failure is kept in the partition's state area, so a",
    "restart does not end it either. A SANITIZE that can't be recorded there ends with 04h/44h/00h before anything is done, with",
    "IMMED, too, and the unit stays as it was. The slave's image remains in use, and so does a rollback, which is the operator's.",
    '',
    '## Left out on purpose',
    '',
    '- ANCHOR in WRITE SAME and UNMAP (ANC_SUP=0): every block keeps its places on the partition, mapped or not, so an',
    '  anchor would promise nothing that is not so already.',
    '- VPD pages B4h (sequential-access devices) and B6h (zoned block devices) are of other device types; disks have B0h,',
    '  B1h, B2h and B7h. Thresholds of logical block provisioning warn of running out, which cannot happen here.',
    '- GET EVENT STATUS NOTIFICATION is a command of MMC, for optical drives; a disk tells of a new medium by a unit attention.',
    '- SANITIZE, CRYPTOGRAPHIC ERASE: nothing is encrypted here, so there is no key to throw away.',
    '- SANITIZE sees to it that no LBA of the unit shows the old data any more. It does not reach the places on the partition',
    "  that no LBA shows, which are older versions of blocks, nor the slave's image while the slave is enabled. Who gives the",
    '  device away has to overwrite the device.',
    '- RECEIVE COPY RESULTS has neither RECEIVE DATA nor FAILED SEGMENT DETAILS: nothing is held for them.',
    '- FORMAT UNIT and REASSIGN BLOCKS: formatting is for the operator, and the device below keeps its own spare blocks.',
    '- Protection information (RDPROTECT, WRPROTECT, VRPROTECT other than 0) and ACA (NACA=1) are refused.',
    '',
    '## Changed blocks',
    '',
    'With `reportChanges: true` in the configuration of the target, an initiator may ask which blocks have changed since a',
    "generation, and a backup host can read a slave's changed blocks with nothing but SCSI commands:",
    '',
    '    sg_logs --page=0x39 --hex /dev/sdX                         # parameter 0: the generation that is in now',
    '    sg_get_lba_status --32 --readonly --element-id=41 --maxlen=65544 /dev/sdX   # what has changed since the slave of generation 41',
    '',
    'GET LBA STATUS (32) takes the generation in the ELEMENT IDENTIFIER field, which by SBC-5 restricts the answer to some of',
    'the LBAs too, and answers with RTP=1 only descriptors of blocks that may differ between the slave of that generation and',
    'what the unit holds now, each with its true PROVISIONING STATUS: 0 is read, 1 has become a hole. Whatever lies between',
    'the descriptors has not changed. More may be listed than has changed (units of 64 KiB, blocks that the master has',
    'changed since the enable, and after a crash whole extents), never less. If COMPLETION CONDITION (bits 3 to 1 of byte 7)',
    'is 3, the list reaches the end of the medium; else ask again with the LBA behind the last descriptor, and SCAN LENGTH',
    'bounds how far one command looks. A generation that has not been yet ends with INVALID FIELD IN CDB. Without the',
    'option, and in GET LBA STATUS (16), the descriptors are about provisioning only: initiators take a deallocated block for',
    'zeros, so what has merely not changed must not be called so.',
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
