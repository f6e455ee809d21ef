/** The slave for `cldd backup`, over the control socket: an extent an answer, and never of another generation. */
import { SLAVE_READ_BYTES_MAX } from '../admin/protocol.js';
import type { SlaveExtent } from '../admin/protocol.js';
import { OperationalError } from '../operational-error.js';
import { MEDIUM } from '../scsi/medium.js';
import type { Medium, MediumResult } from '../scsi/medium.js';
import type { PartitionEngine } from './partition-engine.js';

/** Looked through for the end of a hole in one go: 32 map pages. */
const HOLE_BYTES_MAX = 1024 ** 3;

export interface Wanted {
  generation: number;
  position: number;
  length: number;
}

/** @throws {OperationalError} SLAVE_GONE, SLAVE_UNREADABLE, BAD_REQUEST beyond the end */
export async function readSlave(
  target: string,
  { slave }: Pick<PartitionEngine, 'slave'>,
  { generation, position, length }: Wanted,
): Promise<SlaveExtent> {
  requireGeneration(target, slave, generation);
  if (position + length > slave.capacityBytes)
    throw new OperationalError('BAD_REQUEST', `the slave ends at ${slave.capacityBytes}`);
  const { mapped, lengthBytes } = slave.provisioning(position, Math.min(length, HOLE_BYTES_MAX));
  if (!mapped) return { position, length: lengthBytes, data: null };
  const buffer = Buffer.alloc(Math.min(lengthBytes, SLAVE_READ_BYTES_MAX));
  const result = await new Promise<MediumResult>((done) =>
    slave.readAsync(position, buffer, 0, buffer.length, done),
  );
  // What was read while the slave went away is not told.
  requireGeneration(target, slave, generation);
  if (result !== MEDIUM.OK)
    throw new OperationalError(
      'SLAVE_UNREADABLE',
      `the slave of ${target} can't be read at byte ${position}`,
    );
  return { position, length: buffer.length, data: buffer.toString('base64') };
}

function requireGeneration(target: string, slave: Medium, generation: number): void {
  if (slave.present && slave.generation === generation) return;
  throw new OperationalError(
    'SLAVE_GONE',
    `the slave of ${target} is not enabled at generation ${generation} any more: somebody disabled it meanwhile`,
  );
}
