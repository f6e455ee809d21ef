/**
 * A bad disc, put under the daemon from outside (node --import): what it wrote without a sync is lost when it is
 * killed, as by a power cut, and the disc answers EIO or ENOSPC while the file named by SOAK_DISC says so.
 *
 * Half of the writes stay in this process until the next fdatasync, the others go on at once, so that a kill also
 * finds them out of order. O_DSYNC writes go on at once. SIGUSR2 makes the process write down what keeps it running.
 *
 * SOAK_FAULT plants a fault of the daemon's own, to show that the soak notices it.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { Reader } from '../../src/cow/reader.js';
import { LOCATION_OF_BASE, LOCATION_OF_MASTER } from '../../src/cow/states.js';

const SECTOR_BYTES = 512;
const control = process.env['SOAK_DISC'] ?? '';
const partition = process.env['SOAK_PARTITION'] ?? '';
const fault = process.env['SOAK_FAULT'] ?? '';
const real = { ...fs };

/** Of the partition's descriptors: whether writes are durable by themselves. */
const descriptors = new Map<number, boolean>();
/** Written, and not synced. */
const held = new Map<number, Buffer>();
let writes = 0;
/** 'good', or what fails: 'EIO' and 'ENOSPC' of writes and syncs, 'EIO reads'. */
let mode = 'good';

function failure(reading: boolean): NodeJS.ErrnoException | undefined {
  const [code, what] = mode.split(' ');
  if (mode === 'good' || (what === 'reads') !== reading) return undefined;
  return Object.assign(new Error(`${code}: the disc of the soak`), { code });
}

/** The kernel's page cache has whole sectors, whatever is written. */
function hold(fd: number, bytes: Buffer, position: number): void {
  const first = position - (position % SECTOR_BYTES);
  const end = Math.ceil((position + bytes.length) / SECTOR_BYTES) * SECTOR_BYTES;
  const copy = Buffer.alloc(end - first);
  if (copy.length > bytes.length) {
    real.readSync(fd, copy, 0, copy.length, first);
    overlay(copy, first);
  }
  bytes.copy(copy, position - first);
  for (let at = 0; at < copy.length; at += SECTOR_BYTES)
    held.set(first + at, copy.subarray(at, at + SECTOR_BYTES));
}

function forget(position: number, length: number): void {
  for (let at = position; at < position + length; at += SECTOR_BYTES) held.delete(at);
}

function overlay(bytes: Buffer, position: number): void {
  const first = position - (position % SECTOR_BYTES);
  for (let at = first; at < position + bytes.length; at += SECTOR_BYTES) {
    const sector = held.get(at);
    if (sector === undefined) continue;
    const from = Math.max(0, position - at);
    sector.copy(
      bytes,
      Math.max(0, at - position),
      from,
      Math.min(SECTOR_BYTES, position + bytes.length - at),
    );
  }
}

function put(fd: number, bytes: Buffer, position: number): number {
  const error = failure(false);
  if (error !== undefined) throw error;
  writes++;
  if (fault === 'lost-write' && writes % 50 === 0) return bytes.length;
  const whole = position % SECTOR_BYTES === 0 && bytes.length % SECTOR_BYTES === 0;
  if (whole && (descriptors.get(fd) === true || (Math.imul(writes, 0x9e3779b1) & 0x400) === 0)) {
    const count = real.writeSync(fd, bytes, 0, bytes.length, position);
    if (count === bytes.length) forget(position, count);
    return count;
  }
  hold(fd, bytes, position);
  if (descriptors.get(fd) === true) settle(fd);
  return bytes.length;
}

function get(fd: number, bytes: Buffer, position: number): number {
  const error = failure(true);
  if (error !== undefined) throw error;
  const count = real.readSync(fd, bytes, 0, bytes.length, position);
  overlay(bytes.subarray(0, count), position);
  return count;
}

function settle(fd: number): void {
  const error = failure(false);
  if (error !== undefined) throw error;
  if (fault === 'skip-sync') return;
  for (const [position, sector] of held) real.writeSync(fd, sector, 0, sector.length, position);
  held.clear();
  real.fdatasyncSync(fd);
}

const view = (buffer: Uint8Array, offset: number, length: number): Buffer =>
  Buffer.from(buffer.buffer, buffer.byteOffset + offset, length);

type Done = (error: Error | null, count?: number) => void;

/** As the thread pool would: later, with an error or a count. */
function later(work: () => number | undefined, done: Done): void {
  setImmediate(() => {
    let count: number | undefined;
    try {
      count = work();
    } catch (error) {
      done(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    done(null, count);
  });
}

Object.assign(fs, {
  openSync(path: string, flags?: fs.OpenMode, permissions?: fs.Mode): number {
    const fd = real.openSync(path, flags ?? 'r', permissions);
    if (path === partition) descriptors.set(fd, ((Number(flags) || 0) & fs.constants.O_DSYNC) !== 0);
    return fd;
  },
  closeSync(fd: number): void {
    descriptors.delete(fd);
    real.closeSync(fd);
  },
  close(fd: number, done: (error?: Error | null) => void): void {
    descriptors.delete(fd);
    real.close(fd, done);
  },
  readSync(fd: number, buffer: Uint8Array, ...where: [number, number, number]): number {
    // Others may leave out where: a lock is read with two arguments, and three that are undefined would read nothing.
    if (!descriptors.has(fd)) return real.readSync(fd, buffer, ...where);
    const [offset, length, position] = where;
    return get(fd, view(buffer, offset, length), position);
  },
  writeSync(fd: number, buffer: Uint8Array, offset: number, length: number, position: number): number {
    if (!descriptors.has(fd)) return real.writeSync(fd, buffer, offset, length, position);
    return put(fd, view(buffer, offset, length), position);
  },
  read(fd: number, buffer: Uint8Array, offset: number, length: number, position: number, done: Done): void {
    if (!descriptors.has(fd)) real.read(fd, buffer, offset, length, position, done);
    else later(() => get(fd, view(buffer, offset, length), position), done);
  },
  write(fd: number, buffer: Uint8Array, offset: number, length: number, position: number, done: Done): void {
    if (!descriptors.has(fd)) real.write(fd, buffer, offset, length, position, done);
    else later(() => put(fd, view(buffer, offset, length), position), done);
  },
  fdatasyncSync(fd: number): void {
    if (!descriptors.has(fd)) real.fdatasyncSync(fd);
    else settle(fd);
  },
  fdatasync(fd: number, done: Done): void {
    if (!descriptors.has(fd)) real.fdatasync(fd, done);
    else later(() => (settle(fd), undefined), done);
  },
});
syncBuiltinESMExports();

process.on('SIGUSR2', () => {
  mode = real.readFileSync(control, 'utf8');
  real.writeFileSync(`${control}.new`, JSON.stringify(process.getActiveResourcesInfo()));
  real.renameSync(`${control}.new`, `${control}.seen`);
});

if (fault === 'newer-slave') {
  const before = Object.create(null, Object.getOwnPropertyDescriptors(Reader.prototype)) as Reader;
  // Some of the slave's blocks are read as the master has them.
  const wrong = (table: unknown, position: number): typeof LOCATION_OF_MASTER | undefined =>
    table === LOCATION_OF_BASE && position < 2 ** 22 ? LOCATION_OF_MASTER : undefined;
  Reader.prototype.read = function (table, position, ...rest) {
    return before.read.call(this, wrong(table, position) ?? table, position, ...rest);
  };
  Reader.prototype.readAsync = function (table, position, ...rest) {
    before.readAsync.call(this, wrong(table, position) ?? table, position, ...rest);
  };
}
