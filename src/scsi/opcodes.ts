/**
 * The opcode table: every command of both logical units, once. Dispatch, CDB validation, write protection, reservation
 * checks, REPORT SUPPORTED OPERATION CODES and docs/scsi.md all come from it.
 *
 * Usage data: bits that the target evaluates or, where the standards let it, ignores knowingly (DPO, FUA_NV, group
 * numbers: hints that need no action). Anything else set in a CDB is refused with INVALID FIELD IN CDB. That includes the
 * protection fields, since no protection information is kept, and NACA.
 */
import type { CommandDefinition } from './command.js';
import { compareAndWrite, orwrite } from './commands/compare-and-write.js';
import { preFetch, synchronizeCache } from './commands/cache.js';
import { readCapacity10, readCapacity16 } from './commands/capacity.js';
import { extendedCopy } from './commands/extended-copy.js';
import { inquiry } from './commands/inquiry.js';
import { readDefectData10, readDefectData12 } from './commands/defect-data.js';
import { getLbaStatus16, getLbaStatus32 } from './commands/lba-status.js';
import { logSelect, logSense } from './commands/log-sense.js';
import { modeSelect10, modeSelect6, modeSense10, modeSense6 } from './commands/mode.js';
import {
  persistentReserveOut,
  readFullStatus,
  readKeys,
  readReservation,
  release6,
  reportCapabilities,
  reserve6,
} from './commands/persistent-reserve.js';
import { copyOperatingParameters, copyStatus } from './commands/copy-results.js';
import { read, write } from './commands/read-write.js';
import { allows, preventAllow, startStopUnit, starts } from './commands/removal.js';
import { reportSupportedOpcodes, reportTaskManagement } from './commands/report-supported.js';
import { sanitizeBlockErase, sanitizeExitFailure, sanitizeOverwrite } from './commands/sanitize.js';
import { rezeroUnit, seek } from './commands/seek.js';
import { reportLuns, requestSense, sendDiagnostic, testUnitReady } from './commands/sense-and-luns.js';
import { reportTargetPortGroups, setTargetPortGroups } from './commands/target-port-groups.js';
import { populateToken, receiveTokenInformation, writeUsingToken } from './commands/token.js';
import { unmap } from './commands/unmap.js';
import { verify, writeAndVerify } from './commands/verify.js';
import { writeAtomic16 } from './commands/write-atomic.js';
import { writeSame } from './commands/write-same.js';

const READS = { medium: true, reservation: 'read' } as const;
const WRITES = { medium: true, writes: true, reservation: 'write' } as const;
const ALWAYS = { reservation: 'always' } as const;

export const OPCODES: readonly CommandDefinition[] = [
  // ---- SPC
  {
    name: 'TEST UNIT READY',
    usage: '00 00 00 00 00 00',
    medium: true,
    ...ALWAYS,
    clause: 'SPC-6 §6.43',
    execute: testUnitReady,
  },
  {
    name: 'REQUEST SENSE',
    usage: '03 01 00 00 FF 00',
    ...ALWAYS,
    reserve6: true,
    ignoresAttention: true,
    clause: 'SPC-6 §6.38',
    execute: requestSense,
  },
  {
    name: 'INQUIRY',
    usage: '12 01 FF FF FF 00',
    ...ALWAYS,
    reserve6: true,
    ignoresAttention: true,
    clause: 'SPC-6 §6.6',
    execute: inquiry,
  },
  {
    name: 'MODE SELECT (6)',
    usage: '15 11 00 00 FF 00',
    reservation: 'write',
    clause: 'SPC-6 §6.11',
    execute: modeSelect6,
  },
  {
    name: 'MODE SELECT (10)',
    usage: '55 11 00 00 00 00 00 FF FF 00',
    reservation: 'write',
    clause: 'SPC-6 §6.12',
    execute: modeSelect10,
  },
  {
    name: 'MODE SENSE (6)',
    usage: '1A 08 FF FF FF 00',
    reservation: 'read',
    clause: 'SPC-6 §6.13',
    execute: modeSense6,
  },
  {
    name: 'MODE SENSE (10)',
    usage: '5A 18 FF FF 00 00 00 FF FF 00',
    reservation: 'read',
    clause: 'SPC-6 §6.14',
    execute: modeSense10,
  },
  {
    name: 'RESERVE (6)',
    usage: '16 00 00 00 00 00',
    ...ALWAYS,
    reserve6: true,
    clause: 'SPC-2 §7.21',
    execute: reserve6,
  },
  {
    name: 'RELEASE (6)',
    usage: '17 00 00 00 00 00',
    ...ALWAYS,
    reserve6: true,
    clause: 'SPC-2 §7.16',
    execute: release6,
  },
  {
    name: 'SEND DIAGNOSTIC',
    usage: '1D FF 00 FF FF 00',
    reservation: 'write',
    clause: 'SPC-6 §6.42',
    execute: sendDiagnostic,
  },
  {
    name: 'PREVENT ALLOW MEDIUM REMOVAL',
    usage: '1E 00 00 00 01 00',
    reservation: 'write',
    reservationOf: (cdb) => (allows(cdb) ? 'always' : 'write'),
    clause: 'SBC-5 §5.15',
    execute: preventAllow,
  },
  {
    name: 'PERSISTENT RESERVE IN, READ KEYS',
    usage: '5E 00 00 00 00 00 00 FF FF 00',
    serviceAction: 0,
    ...ALWAYS,
    clause: 'SPC-6 §6.16.2',
    execute: readKeys,
  },
  {
    name: 'PERSISTENT RESERVE IN, READ RESERVATION',
    usage: '5E 01 00 00 00 00 00 FF FF 00',
    serviceAction: 1,
    ...ALWAYS,
    clause: 'SPC-6 §6.16.3',
    execute: readReservation,
  },
  {
    name: 'PERSISTENT RESERVE IN, REPORT CAPABILITIES',
    usage: '5E 02 00 00 00 00 00 FF FF 00',
    serviceAction: 2,
    ...ALWAYS,
    clause: 'SPC-6 §6.16.4',
    execute: reportCapabilities,
  },
  {
    name: 'PERSISTENT RESERVE IN, READ FULL STATUS',
    usage: '5E 03 00 00 00 00 00 FF FF 00',
    serviceAction: 3,
    ...ALWAYS,
    clause: 'SPC-6 §6.16.5',
    execute: readFullStatus,
  },
  ...(
    [
      'REGISTER',
      'RESERVE',
      'RELEASE',
      'CLEAR',
      'PREEMPT',
      'PREEMPT AND ABORT',
      'REGISTER AND IGNORE EXISTING KEY',
      'REGISTER AND MOVE',
    ] as const
  ).map((action, serviceAction): CommandDefinition => ({
    name: `PERSISTENT RESERVE OUT, ${action}`,
    usage: `5F 0${serviceAction} FF 00 00 FF FF FF FF 00`,
    serviceAction,
    ...ALWAYS,
    clause: 'SPC-6 §6.17',
    execute: persistentReserveOut,
  })),
  {
    name: 'REPORT LUNS',
    usage: 'A0 00 FF 00 00 00 FF FF FF FF 00 00',
    ...ALWAYS,
    reserve6: true,
    ignoresAttention: true,
    clause: 'SPC-6 §6.34',
    execute: reportLuns,
  },
  {
    name: 'REPORT TARGET PORT GROUPS',
    usage: 'A3 2A 00 00 00 00 FF FF FF FF 00 00',
    serviceAction: 0x0a,
    ...ALWAYS,
    clause: 'SPC-6 §6.36',
    execute: reportTargetPortGroups,
  },
  {
    name: 'REPORT SUPPORTED OPERATION CODES',
    usage: 'A3 0C 87 FF FF FF FF FF FF FF 00 00',
    serviceAction: 0x0c,
    ...ALWAYS,
    clause: 'SPC-6 §6.33',
    execute: reportSupportedOpcodes,
  },
  {
    name: 'REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS',
    usage: 'A3 0D 80 00 00 00 FF FF FF FF 00 00',
    serviceAction: 0x0d,
    ...ALWAYS,
    clause: 'SPC-6 §6.35',
    execute: reportTaskManagement,
  },
  {
    name: 'SET TARGET PORT GROUPS',
    usage: 'A4 0A 00 00 00 00 FF FF FF FF 00 00',
    serviceAction: 0x0a,
    reservation: 'write',
    clause: 'SPC-6 §6.45',
    execute: setTargetPortGroups,
  },
  {
    name: 'LOG SELECT',
    usage: '4C 03 C0 00 00 00 00 00 00 00',
    reservation: 'write',
    clause: 'SPC-6 §6.7',
    execute: logSelect,
  },
  {
    name: 'LOG SENSE',
    usage: '4D 00 FF FF 00 FF FF FF FF 00',
    ...ALWAYS,
    reserve6: true,
    clause: 'SPC-6 §6.8',
    execute: logSense,
  },
  {
    name: 'EXTENDED COPY (LID1)',
    usage: '83 00 00 00 00 00 00 00 00 00 FF FF FF FF 00 00',
    serviceAction: 0x00,
    reservation: 'write',
    timeoutSeconds: 300,
    clause: 'SPC-4 §6.3',
    execute: extendedCopy,
  },
  {
    name: 'RECEIVE COPY RESULTS, COPY STATUS (LID1)',
    usage: '84 00 FF 00 00 00 00 00 00 00 FF FF FF FF 00 00',
    serviceAction: 0x00,
    reservation: 'write',
    clause: 'SPC-4 §6.20',
    execute: copyStatus,
  },
  {
    name: 'RECEIVE COPY RESULTS, OPERATING PARAMETERS',
    usage: '84 03 00 00 00 00 00 00 00 00 FF FF FF FF 00 00',
    serviceAction: 0x03,
    reservation: 'write',
    clause: 'SPC-4 §6.22',
    execute: copyOperatingParameters,
  },
  {
    name: 'RECEIVE ROD TOKEN INFORMATION',
    usage: '84 07 FF FF FF FF 00 00 00 00 FF FF FF FF 00 00',
    serviceAction: 0x07,
    ...ALWAYS,
    clause: 'SPC-6 §6.26',
    execute: receiveTokenInformation,
  },

  // ---- SBC, reading
  { name: 'READ (6)', usage: '08 1F FF FF FF 00', ...READS, clause: 'SBC-5 §5.16', execute: read },
  {
    name: 'READ (10)',
    usage: '28 1A FF FF FF FF 3F FF FF 00',
    ...READS,
    clause: 'SBC-5 §5.17',
    execute: read,
  },
  {
    name: 'READ (12)',
    usage: 'A8 1A FF FF FF FF FF FF FF FF 3F 00',
    ...READS,
    clause: 'SBC-5 §5.18',
    execute: read,
  },
  {
    name: 'READ (16)',
    usage: '88 1A FF FF FF FF FF FF FF FF FF FF FF FF 3F 00',
    ...READS,
    clause: 'SBC-5 §5.19',
    execute: read,
  },
  {
    name: 'READ CAPACITY (10)',
    usage: '25 00 00 00 00 00 00 00 00 00',
    medium: true,
    ...ALWAYS,
    reserve6: true,
    clause: 'SBC-5 §5.20',
    execute: readCapacity10,
  },
  {
    name: 'READ CAPACITY (16)',
    usage: '9E 10 00 00 00 00 00 00 00 00 FF FF FF FF 00 00',
    serviceAction: 0x10,
    medium: true,
    ...ALWAYS,
    reserve6: true,
    clause: 'SBC-5 §5.21',
    execute: readCapacity16,
  },
  {
    name: 'READ DEFECT DATA (10)',
    usage: '37 00 1F 00 00 00 00 FF FF 00',
    ...READS,
    clause: 'SBC-5 §5.22',
    execute: readDefectData10,
  },
  {
    name: 'READ DEFECT DATA (12)',
    usage: 'B7 1F FF FF FF FF FF FF FF FF 00 00',
    ...READS,
    clause: 'SBC-5 §5.23',
    execute: readDefectData12,
  },
  {
    name: 'GET LBA STATUS (16)',
    usage: '9E 12 FF FF FF FF FF FF FF FF FF FF FF FF 0F 00',
    serviceAction: 0x12,
    ...READS,
    clause: 'SBC-5 §5.5',
    execute: getLbaStatus16,
  },
  {
    name: 'GET LBA STATUS (32)',
    usage: '7F 00 00 00 00 00 00 18 00 12 0F 00 FF FF FF FF FF FF FF FF FF FF FF FF FF FF FF FF FF FF FF FF',
    serviceAction: 0x12,
    ...READS,
    listed: false,
    clause: 'SBC-5 §5.6',
    execute: getLbaStatus32,
  },
  {
    name: 'PRE-FETCH (10)',
    usage: '34 02 FF FF FF FF 3F FF FF 00',
    ...READS,
    clause: 'SBC-5 §5.12',
    execute: preFetch,
  },
  {
    name: 'PRE-FETCH (16)',
    usage: '90 02 FF FF FF FF FF FF FF FF FF FF FF FF 3F 00',
    ...READS,
    clause: 'SBC-5 §5.13',
    execute: preFetch,
  },
  {
    name: 'VERIFY (10)',
    usage: '2F 16 FF FF FF FF 3F FF FF 00',
    ...READS,
    clause: 'SBC-5 §5.38',
    execute: verify,
  },
  {
    name: 'VERIFY (12)',
    usage: 'AF 16 FF FF FF FF FF FF FF FF 3F 00',
    ...READS,
    clause: 'SBC-5 §5.39',
    execute: verify,
  },
  {
    name: 'VERIFY (16)',
    usage: '8F 16 FF FF FF FF FF FF FF FF FF FF FF FF 3F 00',
    ...READS,
    clause: 'SBC-5 §5.40',
    execute: verify,
  },
  {
    name: 'REZERO UNIT',
    usage: '01 00 00 00 00 00',
    ...READS,
    clause: 'SBC (1997)',
    execute: rezeroUnit,
  },
  { name: 'SEEK (6)', usage: '0B 1F FF FF 00 00', ...READS, clause: 'SBC (1997)', execute: seek },
  {
    name: 'SEEK (10)',
    usage: '2B 00 FF FF FF FF 00 00 00 00',
    ...READS,
    clause: 'SBC (1997)',
    execute: seek,
  },

  {
    name: 'POPULATE TOKEN',
    usage: '83 10 00 00 00 00 FF FF FF FF FF FF FF FF 3F 00',
    serviceAction: 0x10,
    ...READS,
    timeoutSeconds: 60,
    clause: 'SBC-5 §5.11',
    execute: populateToken,
  },

  // ---- SBC, writing
  { name: 'WRITE (6)', usage: '0A 1F FF FF FF 00', ...WRITES, clause: 'SBC-5 §5.43', execute: write },
  {
    name: 'WRITE (10)',
    usage: '2A 1A FF FF FF FF 3F FF FF 00',
    ...WRITES,
    clause: 'SBC-5 §5.44',
    execute: write,
  },
  {
    name: 'WRITE (12)',
    usage: 'AA 1A FF FF FF FF FF FF FF FF 3F 00',
    ...WRITES,
    clause: 'SBC-5 §5.45',
    execute: write,
  },
  {
    name: 'WRITE (16)',
    usage: '8A 1A FF FF FF FF FF FF FF FF FF FF FF FF 3F 00',
    ...WRITES,
    clause: 'SBC-5 §5.46',
    execute: write,
  },
  {
    name: 'WRITE ATOMIC (16)',
    usage: '9C 18 FF FF FF FF FF FF FF FF 00 00 FF FF 3F 00',
    ...WRITES,
    clause: 'SBC-5 §5.48',
    execute: writeAtomic16,
  },
  {
    name: 'WRITE AND VERIFY (10)',
    usage: '2E 12 FF FF FF FF 3F FF FF 00',
    ...WRITES,
    clause: 'SBC-5 §5.49',
    execute: writeAndVerify,
  },
  {
    name: 'WRITE AND VERIFY (12)',
    usage: 'AE 12 FF FF FF FF FF FF FF FF 3F 00',
    ...WRITES,
    clause: 'SBC-5 §5.50',
    execute: writeAndVerify,
  },
  {
    name: 'WRITE AND VERIFY (16)',
    usage: '8E 12 FF FF FF FF FF FF FF FF FF FF FF FF 3F 00',
    ...WRITES,
    clause: 'SBC-5 §5.51',
    execute: writeAndVerify,
  },
  {
    name: 'WRITE SAME (10)',
    usage: '41 08 FF FF FF FF 3F FF FF 00',
    ...WRITES,
    timeoutSeconds: 60,
    clause: 'SBC-5 §5.55',
    execute: writeSame,
  },
  {
    name: 'WRITE SAME (16)',
    usage: '93 09 FF FF FF FF FF FF FF FF FF FF FF FF 3F 00',
    ...WRITES,
    timeoutSeconds: 60,
    clause: 'SBC-5 §5.56',
    execute: writeSame,
  },
  {
    name: 'WRITE USING TOKEN',
    usage: '83 11 00 00 00 00 FF FF FF FF FF FF FF FF 3F 00',
    serviceAction: 0x11,
    ...WRITES,
    timeoutSeconds: 300,
    clause: 'SBC-5 §5.58',
    execute: writeUsingToken,
  },
  {
    name: 'UNMAP',
    usage: '42 00 00 00 00 00 3F FF FF 00',
    ...WRITES,
    timeoutSeconds: 60,
    clause: 'SBC-5 §5.36',
    execute: unmap,
  },
  {
    name: 'COMPARE AND WRITE',
    usage: '89 1A FF FF FF FF FF FF FF FF 00 00 00 FF 3F 00',
    ...WRITES,
    clause: 'SBC-5 §5.3',
    execute: compareAndWrite,
  },
  {
    name: 'ORWRITE (16)',
    usage: '8B 1A FF FF FF FF FF FF FF FF FF FF FF FF 3F 00',
    ...WRITES,
    clause: 'SBC-5 §5.14',
    execute: orwrite,
  },
  {
    name: 'SYNCHRONIZE CACHE (10)',
    usage: '35 06 FF FF FF FF 3F FF FF 00',
    medium: true,
    reservation: 'write',
    timeoutSeconds: 60,
    clause: 'SBC-5 §5.33',
    execute: synchronizeCache,
  },
  {
    name: 'SYNCHRONIZE CACHE (16)',
    usage: '91 06 FF FF FF FF FF FF FF FF FF FF FF FF 3F 00',
    medium: true,
    reservation: 'write',
    timeoutSeconds: 60,
    clause: 'SBC-5 §5.34',
    execute: synchronizeCache,
  },
  {
    name: 'SANITIZE, OVERWRITE',
    usage: '48 A1 00 00 00 00 00 FF FF 00',
    serviceAction: 1,
    ...WRITES,
    timeoutSeconds: 7200,
    clause: 'SBC-5 §5.31',
    execute: sanitizeOverwrite,
  },
  {
    name: 'SANITIZE, BLOCK ERASE',
    usage: '48 A2 00 00 00 00 00 FF FF 00',
    serviceAction: 2,
    ...WRITES,
    timeoutSeconds: 7200,
    clause: 'SBC-5 §5.31',
    execute: sanitizeBlockErase,
  },
  {
    name: 'SANITIZE, EXIT FAILURE MODE',
    usage: '48 9F 00 00 00 00 00 00 00 00',
    serviceAction: 0x1f,
    ...WRITES,
    clause: 'SBC-5 §5.31',
    execute: sanitizeExitFailure,
  },
  {
    name: 'START STOP UNIT',
    usage: '1B 01 00 0F F7 00',
    reservation: 'write',
    reservationOf: (cdb) => (starts(cdb) ? 'always' : 'write'),
    clause: 'SBC-5 §5.32',
    execute: startStopUnit,
  },
];
