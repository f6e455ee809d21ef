/** Vital product data page 8Fh, Third-Party Copy (SPC-6 §7.7.18): what EXTENDED COPY and its kin can do. */
import { putU16, putU32, putU64 } from '../bytes.js';
import { RANGES_MAX, TIMEOUT_DEFAULT_S, TIMEOUT_MAX_S } from './token-store.js';
import { TOKEN_BLOCKS_MAX } from './token.js';
import type { Path } from '../unit.js';
import {
  DESCRIPTOR_LIST_BYTES_MAX,
  SEGMENT_DESCRIPTORS_MAX,
  SEGMENT_TYPE_BLOCK_TO_BLOCK,
  TARGET_DESCRIPTORS_MAX,
  TARGET_TYPE_IDENTIFICATION,
} from './copy-results.js';

/** Third-party copy descriptor types. */
const TYPE = {
  BLOCK_DEVICE_ROD_LIMITS: 0x0000,
  SUPPORTED_COMMANDS: 0x0001,
  PARAMETER_DATA: 0x0004,
  SUPPORTED_DESCRIPTORS: 0x0008,
} as const;
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
  const rodLimits = Buffer.alloc(32);
  putU16(rodLimits, 6, RANGES_MAX);
  putU32(rodLimits, 8, TIMEOUT_MAX_S);
  putU32(rodLimits, 12, TIMEOUT_DEFAULT_S);
  putU64(rodLimits, 16, TOKEN_BLOCKS_MAX);
  putU64(rodLimits, 24, TOKEN_BLOCKS_MAX);
  return Buffer.concat([
    descriptor(TYPE.BLOCK_DEVICE_ROD_LIMITS, rodLimits),
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
