/** Vital product data (SPC-6 §7.7, SBC-5 §6.6). */
import { putAscii, putU16, putU32, putU64 } from '../bytes.js';
import { VENDOR } from '../identity.js';
import { SENSE_BYTES_MAX } from '../sense.js';
import { BLOCKS_PER_PHYSICAL } from '../unit.js';
import type { LogicalUnit, Path } from '../unit.js';
import { TRANSFER_BLOCKS_MAX } from './block-range.js';
import { COMPARE_BLOCKS_MAX } from './compare-and-write.js';
import { thirdPartyCopy } from './third-party-copy-page.js';
import { UNMAP_BLOCKS_MAX, UNMAP_DESCRIPTORS_MAX } from './unmap.js';
import { ATOMIC_BLOCKS_MAX } from './write-atomic.js';
import { WRITE_SAME_BLOCKS_MAX } from './write-same.js';

type Page = (path: Path) => Buffer;

/** Designation descriptor header fields (SPC-6 §7.7.6.1). */
const CODE_SET = { BINARY: 1, ASCII: 2, UTF8: 3 } as const;
const ASSOCIATION = { UNIT: 0x00, PORT: 0x10, DEVICE: 0x20 } as const;
const DESIGNATOR = { T10: 1, NAA: 3, RELATIVE_PORT: 4, PORT_GROUP: 5, SCSI_NAME: 8, UUID: 0xa } as const;
const PROTOCOL_ISCSI = 0x5;
const PIV = 0x80;

const PAGES: ReadonlyMap<number, Page> = new Map<number, Page>([
  [0x00, (): Buffer => Buffer.from([...PAGES.keys()])],
  [0x80, ({ unit }) => Buffer.from(unit.identity.serial, 'latin1')],
  [0x83, deviceIdentification],
  [0x85, () => Buffer.alloc(0)],
  [0x86, extendedInquiry],
  [0x87, modePagePolicy],
  [0x88, scsiPorts],
  [0x8f, thirdPartyCopy],
  [0xb0, blockLimits],
  [0xb1, blockDeviceCharacteristics],
  [0xb2, logicalBlockProvisioning],
  [0xb7, blockLimitsExtension],
]);

/** The page with its header, or undefined if there is none of that code. */
export function vpdPage(path: Path, code: number): Buffer | undefined {
  const body = PAGES.get(code)?.(path);
  if (body === undefined) return undefined;
  const page = Buffer.alloc(4 + body.length);
  page[1] = code;
  putU16(page, 2, body.length);
  body.copy(page, 4);
  return page;
}

function designator(codeSet: number, association: number, type: number, value: Buffer): Buffer {
  const header = Buffer.alloc(4);
  header[0] = (association === ASSOCIATION.UNIT ? 0 : PROTOCOL_ISCSI << 4) | codeSet;
  header[1] = (association === ASSOCIATION.UNIT ? 0 : PIV) | association | type;
  header[3] = value.length;
  return Buffer.concat([header, value]);
}

/** A SCSI name string: UTF-8, NUL-terminated, padded to a multiple of four (SPC-6 §7.7.6.11). */
export function scsiName(name: string): Buffer {
  const bytes = Buffer.from(name, 'utf8');
  const padded = Buffer.alloc(Math.ceil((bytes.length + 1) / 4) * 4);
  bytes.copy(padded);
  return padded;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  putU32(bytes, 0, value);
  return bytes;
}

export function naaDesignator(unit: LogicalUnit): Buffer {
  return designator(CODE_SET.BINARY, ASSOCIATION.UNIT, DESIGNATOR.NAA, unit.identity.naa);
}

/** Page 83h (SPC-6 §7.7.6). */
function deviceIdentification({ unit, nexus }: Path): Buffer {
  const { identity, services } = unit;
  const t10 = Buffer.alloc(8 + identity.serial.length);
  putAscii(t10, 0, 8, VENDOR);
  putAscii(t10, 8, identity.serial.length, identity.serial);
  const uuid = Buffer.concat([Buffer.from([0x10, 0]), identity.uuid]);
  const designators = [
    naaDesignator(unit),
    designator(CODE_SET.ASCII, ASSOCIATION.UNIT, DESIGNATOR.T10, t10),
    designator(CODE_SET.BINARY, ASSOCIATION.UNIT, DESIGNATOR.UUID, uuid),
    designator(
      CODE_SET.UTF8,
      ASSOCIATION.UNIT,
      DESIGNATOR.SCSI_NAME,
      scsiName(`naa.${identity.naa.toString('hex').toUpperCase()}`),
    ),
  ];
  const port = services.ports.byRelativeId(nexus.relativePort);
  if (port !== undefined) {
    designators.push(
      designator(CODE_SET.BINARY, ASSOCIATION.PORT, DESIGNATOR.RELATIVE_PORT, u32(port.relativeId)),
      designator(CODE_SET.BINARY, ASSOCIATION.PORT, DESIGNATOR.PORT_GROUP, u32(port.relativeId)),
      designator(CODE_SET.UTF8, ASSOCIATION.PORT, DESIGNATOR.SCSI_NAME, scsiName(services.ports.name(port))),
    );
  }
  designators.push(
    designator(CODE_SET.UTF8, ASSOCIATION.DEVICE, DESIGNATOR.SCSI_NAME, scsiName(identity.targetName)),
  );
  return Buffer.concat(designators);
}

/** Page 86h (SPC-6 §7.7.7). */
function extendedInquiry(): Buffer {
  const page = Buffer.alloc(60);
  // UASK_SUP (sense key specific field pointers), GROUP_SUP clear, PRIOR_SUP clear, HEADSUP, ORDSUP, SIMPSUP.
  page[1] = 0x20 | 0x07;
  // V_SUP: a volatile write cache exists.
  page[2] = 0x01;
  // LUICLR: an I_T nexus loss or reset ends only that nexus's unit attentions.
  page[3] = 0x01;
  // MAXIMUM SUPPORTED SENSE DATA LENGTH.
  page[9] = SENSE_BYTES_MAX;
  return page;
}

/** Page 87h (SPC-6 §7.7.10): one policy for all pages, shared. */
function modePagePolicy(): Buffer {
  return Buffer.from([0x3f, 0xff, 0x00, 0x00]);
}

/** Page 88h (SPC-6 §7.7.15). */
function scsiPorts({ unit }: Path): Buffer {
  const { ports } = unit.services;
  return Buffer.concat(
    ports.all.map((port) => {
      const descriptors = designator(
        CODE_SET.UTF8,
        ASSOCIATION.PORT,
        DESIGNATOR.SCSI_NAME,
        scsiName(ports.name(port)),
      );
      const header = Buffer.alloc(12);
      putU16(header, 2, port.relativeId);
      putU16(header, 10, descriptors.length);
      return Buffer.concat([header, descriptors]);
    }),
  );
}

/** Page B0h (SBC-5 §6.6.4): what one command may ask for, and the granularities of the engine's 4 KiB blocks. */
function blockLimits({ unit }: Path): Buffer {
  const page = Buffer.alloc(60);
  // WSNZ: WRITE SAME of zero blocks is refused.
  page[0] = unit.writeSameToEnd ? 0 : 0x01;
  page[1] = COMPARE_BLOCKS_MAX;
  putU16(page, 2, BLOCKS_PER_PHYSICAL);
  putU32(page, 4, TRANSFER_BLOCKS_MAX);
  putU32(page, 8, 2048);
  putU32(page, 12, 0);
  putU32(page, 16, UNMAP_BLOCKS_MAX);
  putU32(page, 20, UNMAP_DESCRIPTORS_MAX);
  putU32(page, 24, BLOCKS_PER_PHYSICAL);
  // UGAVALID, alignment 0.
  putU32(page, 28, 0x8000_0000);
  putU64(page, 32, WRITE_SAME_BLOCKS_MAX);
  putU32(page, 40, ATOMIC_BLOCKS_MAX);
  putU32(page, 44, BLOCKS_PER_PHYSICAL);
  putU32(page, 48, BLOCKS_PER_PHYSICAL);
  return page;
}

/** Page B1h (SBC-5 §6.6.2). */
function blockDeviceCharacteristics(): Buffer {
  const page = Buffer.alloc(60);
  // MEDIUM ROTATION RATE: non-rotating, since seeks mean nothing to the initiator here.
  putU16(page, 0, 1);
  // WABEREQ 01b and WACEREQ 00b: after SANITIZE BLOCK ERASE reads succeed.
  page[3] = 0x40;
  // FUAB=1 and VBULS=0: SYNCHRONIZE CACHE and FUA act on the whole cache.
  page[4] = 0x02;
  return page;
}

/** Page B2h (SBC-5 §6.6.7). */
function logicalBlockProvisioning(): Buffer {
  const page = Buffer.alloc(4);
  // LBPU, LBPWS, LBPWS10; LBPRZ 001b: unmapped blocks read as zeros; ANC_SUP=0.
  page[1] = 0x80 | 0x40 | 0x20 | 0x04;
  // PROVISIONING TYPE: thin. The full capacity is reserved all the same, so it can't run out.
  page[2] = 0x02;
  return page;
}

/** Page B7h (SBC-5 §6.6.5). */
function blockLimitsExtension(): Buffer {
  return Buffer.alloc(60);
}
