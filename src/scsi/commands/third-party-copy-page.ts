/** Vital product data page 8Fh, Third-Party Copy (SPC-6 §7.7.18): what EXTENDED COPY and its kin can do. */
import { putU16, putU32 } from '../bytes.js';
import type { Path } from '../unit.js';
import {
  DESCRIPTOR_LIST_BYTES_MAX,
  SEGMENT_DESCRIPTORS_MAX,
  SEGMENT_TYPE_BLOCK_TO_BLOCK,
  TARGET_DESCRIPTORS_MAX,
  TARGET_TYPE_IDENTIFICATION,
} from './copy-results.js';

/** Third-party copy descriptor types. */
const TYPE = { SUPPORTED_COMMANDS: 0x0001, PARAMETER_DATA: 0x0004, SUPPORTED_DESCRIPTORS: 0x0008 } as const;
const THIRD_PARTY_COPY_OUT = 0x83;
const THIRD_PARTY_COPY_IN = 0x84;

export function thirdPartyCopy({ unit }: Path): Buffer {
  const lists = [THIRD_PARTY_COPY_OUT, THIRD_PARTY_COPY_IN].map((opcode) => {
    const actions = unit.services.commands.all.flatMap((command) =>
      command.opcode === opcode && command.serviceAction !== undefined ? [command.serviceAction] : [],
    );
    return Buffer.from([opcode, actions.length, ...actions]);
  });
  const commands = Buffer.concat(lists);
  const limits = Buffer.alloc(28);
  putU16(limits, 4, TARGET_DESCRIPTORS_MAX);
  putU16(limits, 6, SEGMENT_DESCRIPTORS_MAX);
  putU32(limits, 8, DESCRIPTOR_LIST_BYTES_MAX);
  return Buffer.concat([
    descriptor(TYPE.SUPPORTED_COMMANDS, Buffer.concat([Buffer.from([commands.length]), commands])),
    descriptor(TYPE.PARAMETER_DATA, limits),
    descriptor(
      TYPE.SUPPORTED_DESCRIPTORS,
      Buffer.from([2, SEGMENT_TYPE_BLOCK_TO_BLOCK, TARGET_TYPE_IDENTIFICATION]),
    ),
  ]);
}

/** Type, length, value, padded to a multiple of four. */
function descriptor(type: number, value: Buffer): Buffer {
  const padded = Buffer.alloc(4 + Math.ceil(value.length / 4) * 4);
  putU16(padded, 0, type);
  putU16(padded, 2, padded.length - 4);
  value.copy(padded, 4);
  return padded;
}
