/** What is restored to: a raw image, a block device, or the master of a cldd partition. */
import {
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  writeSync,
} from 'node:fs';
import { Partition } from '../../cow/partition.js';
import { RESULT } from '../../cow/results.js';
import { OperationalError } from '../../operational-error.js';

const ZEROS = Buffer.alloc(1024 * 1024);
/** A map page's worth: its pages are at hand together. */
const UNMAP_BYTES = 32 * 1024 * 1024;

export interface Destination {
  /** As far as there is something. */
  read(position: number, length: number): Promise<Buffer>;
  write(position: number, data: Buffer): Promise<void>;
  zero(position: number, length: number): Promise<void>;
  /** Makes all durable. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export type DestinationKind = 'image' | 'device' | 'partition';

/**
 * Opens it for a restore of an image of `capacityBytes`.
 * @param resumes what an interrupted restore wrote stays
 * @throws {OperationalError} TOO_SMALL, PARTITION_BUSY, ALREADY_ENABLED …
 */
export async function openDestination(
  path: string,
  kind: DestinationKind,
  capacityBytes: number,
  resumes: boolean,
): Promise<Destination> {
  return kind === 'partition'
    ? await openMaster(path, capacityBytes)
    : openRaw(path, kind, capacityBytes, resumes);
}

function openFile(path: string, kind: DestinationKind): number {
  try {
    // O_EXCL: the kernel refuses a device that is mounted or in use.
    if (kind === 'device') return openSync(path, constants.O_RDWR | constants.O_EXCL);
    return openSync(path, existsSync(path) ? 'r+' : 'w+', 0o600);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EBUSY') throw error;
    throw new OperationalError('PARTITION_BUSY', `${path} is mounted or in use: unmount it first`, {
      cause: error,
    });
  }
}

function openRaw(path: string, kind: DestinationKind, capacityBytes: number, resumes: boolean): Destination {
  const fd = openFile(path, kind);
  if (kind === 'image') {
    try {
      if (!resumes) ftruncateSync(fd, 0);
      ftruncateSync(fd, capacityBytes);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  } else if (readSync(fd, Buffer.alloc(512), 0, 512, capacityBytes - 512) !== 512) {
    closeSync(fd);
    throw tooSmall(path, capacityBytes);
  }
  const write = (position: number, data: Buffer): void => {
    let done = 0;
    while (done < data.length) done += writeSync(fd, data, done, data.length - done, position + done);
  };
  const there = Buffer.alloc(ZEROS.length);
  return {
    read: (position, length) => {
      const bytes = Buffer.alloc(length);
      return Promise.resolve(bytes.subarray(0, readSync(fd, bytes, 0, length, position)));
    },
    write: (position, data) => {
      write(position, data);
      return Promise.resolve();
    },
    // What reads as zeros already is left alone, so that a sparse file stays one.
    zero: (position, length) => {
      for (let at = position; at < position + length; at += ZEROS.length) {
        const size = Math.min(ZEROS.length, position + length - at);
        readSync(fd, there, 0, size, at);
        if (there.compare(ZEROS, 0, size, 0, size) !== 0) write(at, ZEROS.subarray(0, size));
      }
      return Promise.resolve();
    },
    sync: () => {
      fsyncSync(fd);
      return Promise.resolve();
    },
    close: () => {
      closeSync(fd);
      return Promise.resolve();
    },
  };
}

async function openMaster(path: string, capacityBytes: number): Promise<Destination> {
  const partition = await Partition.open(path);
  const { master } = partition;
  const refuse = async (error: OperationalError): Promise<never> => {
    await partition.close();
    throw error;
  };
  if (master.capacityBytes < capacityBytes) await refuse(tooSmall(path, capacityBytes));
  if (partition.slave.present)
    await refuse(
      new OperationalError('ALREADY_ENABLED', `the slave of ${path} is enabled: disable it before a restore`),
    );
  const require = (result: number): void => {
    if (result !== RESULT.OK)
      throw new OperationalError('PARTITION_FAILED', `${path} can't be read or written: check the device`);
  };
  return {
    read: async (position, length) => {
      const bytes = Buffer.alloc(length);
      require(await new Promise((done) => master.readAsync(position, bytes, 0, length, done)));
      return bytes;
    },
    write: async (position, data) =>
      require(await new Promise((done) => master.writeAsync(position, data, 0, data.length, done))),
    zero: async (position, length) => {
      let at = position;
      while (at < position + length) {
        const run = master.provisioning(at, Math.min(UNMAP_BYTES, position + length - at));
        if (run.mapped) {
          let result = master.unmap(at, run.lengthBytes);
          while (result === RESULT.PENDING) {
            const from = at;
            const outcome = await new Promise<number>((done) => {
              const now = master.prepareWrite(from, run.lengthBytes, done);
              if (now !== RESULT.PENDING) done(now);
            });
            if (outcome !== RESULT.PENDING) require(outcome);
            result = master.unmap(at, run.lengthBytes);
          }
          require(result);
        }
        at += run.lengthBytes;
      }
    },
    sync: async () => require(await new Promise((done) => master.flush(done))),
    close: () => partition.close(),
  };
}

function tooSmall(path: string, capacityBytes: number): OperationalError {
  return new OperationalError('TOO_SMALL', `${path} has no room for an image of ${capacityBytes} bytes`);
}
