/** Parameter lists of third-party copies: EXTENDED COPY, POPULATE TOKEN and WRITE USING TOKEN. */
import type { Nexus } from '../../src/scsi/nexus.js';
import type { Bench } from './support.js';

/** Identification target descriptor (E4h) with the unit's NAA designator. */
export async function targetDescriptor({ run }: Bench, nexus: Nexus, lun: number): Promise<Buffer> {
  const page = (await run(nexus, lun, [0x12, 1, 0x83, 1, 0, 0])).data;
  const descriptor = Buffer.alloc(32);
  descriptor[0] = 0xe4;
  descriptor[4] = 1;
  descriptor[5] = 3;
  descriptor[7] = 8;
  page.copy(descriptor, 8, 8, 16);
  descriptor.writeUIntBE(512, 29, 3);
  return descriptor;
}

export function parameters(
  targets: Buffer[],
  segments: [from: number, to: number, fromLba: number, toLba: number, blocks: number][],
): Buffer {
  const header = Buffer.alloc(16);
  header[0] = 7;
  header.writeUInt16BE(targets.length * 32, 2);
  header.writeUInt32BE(segments.length * 28, 8);
  const list = segments.map(([from, to, fromLba, toLba, blocks]) => {
    const segment = Buffer.alloc(28);
    segment[0] = 0x02;
    segment.writeUInt16BE(24, 2);
    segment.writeUInt16BE(from, 4);
    segment.writeUInt16BE(to, 6);
    segment.writeUInt16BE(blocks, 10);
    segment.writeUInt32BE(fromLba, 16);
    segment.writeUInt32BE(toLba, 24);
    return segment;
  });
  return Buffer.concat([header, ...targets, ...list]);
}

/** EXTENDED COPY with that list. */
export const xcopy = (list: Buffer): number[] => [
  0x83,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  list.length >> 8,
  list.length & 255,
  0,
  0,
];

export function ranges(list: [lba: number, blocks: number][]): Buffer {
  const data = Buffer.alloc(2 + list.length * 16);
  data.writeUInt16BE(list.length * 16, 0);
  list.forEach(([lba, blocks], index) => {
    data.writeUInt32BE(lba, 2 + index * 16 + 4);
    data.writeUInt32BE(blocks, 2 + index * 16 + 8);
  });
  return data;
}

/** POPULATE TOKEN (10h) or WRITE USING TOKEN (11h). */
export const tokenCdb = (action: number, listId: number, bytes: number): Buffer => {
  const cdb = Buffer.alloc(16);
  cdb[0] = 0x83;
  cdb[1] = action;
  cdb.writeUInt32BE(listId, 6);
  cdb.writeUInt32BE(bytes, 10);
  return cdb;
};

/** POPULATE TOKEN and RECEIVE ROD TOKEN INFORMATION: the token. */
export async function populate(
  { run }: Bench,
  nexus: Nexus,
  lun: number,
  list: [number, number][],
): Promise<Buffer> {
  const parameter = Buffer.concat([Buffer.alloc(14), ranges(list)]);
  parameter.writeUInt16BE(parameter.length - 2, 0);
  await run(nexus, lun, tokenCdb(0x10, 5, parameter.length), parameter);
  const { data } = await run(nexus, lun, [0x84, 7, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]);
  return data.subarray(38, 38 + 512);
}

export function writing(token: Buffer, list: [number, number][], offset = 0): Buffer {
  const parameter = Buffer.concat([Buffer.alloc(16), token, Buffer.alloc(6), ranges(list)]);
  parameter.writeUInt32BE(offset, 12);
  return parameter;
}
