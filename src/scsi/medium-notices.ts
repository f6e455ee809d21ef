/**
 * Which initiator ports have been told of the medium that is in the slave now.
 *
 * Linux fails I/O on any unit attention of a removable device, so a daemon that restarts in mid-session must not repeat
 * "the medium may have changed" to a host that has the slave mounted; and a host that was away while the medium changed
 * must always hear it, or it serves stale pages. Hence the told ports are kept in the partition's state store: the
 * generation, then eight bytes of hash for each port, oldest first. Losing an entry is safe: the port is told once more.
 */
import { createHash } from 'node:crypto';
import { getU32, putU32 } from './bytes.js';
import type { StateStore } from './medium.js';
import type { ScsiLog } from './unit.js';

const KEY = 'scsi.told';
/** Ports remembered. Those logged in now are forgotten last. */
export const TOLD_MAX = 64;
const HASH_BYTES = 8;

export class MediumNotices {
  private generation = -1;
  private told: string[] = [];
  private readonly state: StateStore;
  private readonly log: ScsiLog;

  constructor(state: StateStore, log: ScsiLog) {
    this.state = state;
    this.log = log;
    const record = state.load(KEY);
    if (record === undefined || record.length < 4) return;
    this.generation = getU32(record, 0);
    for (let at = 4; at + HASH_BYTES <= record.length; at += HASH_BYTES) {
      this.told.push(record.toString('hex', at, at + HASH_BYTES));
    }
  }

  /** True if that port knows that the medium of this generation is in. */
  knows(initiatorPort: string, generation: number): boolean {
    return this.generation === generation && this.told.includes(hash(initiatorPort));
  }

  /** The port has been told. `attached` are the ports that are logged in. */
  tell(initiatorPort: string, generation: number, attached: readonly string[]): void {
    if (this.generation !== generation) {
      this.generation = generation;
      this.told = [];
    }
    const entry = hash(initiatorPort);
    if (this.told.includes(entry)) return;
    this.told.push(entry);
    if (this.told.length > TOLD_MAX) {
      const present = new Set(attached.map(hash));
      const oldest = this.told.findIndex((known) => !present.has(known));
      this.told.splice(Math.max(0, oldest), 1);
    }
    const record = Buffer.alloc(4 + this.told.length * HASH_BYTES);
    putU32(record, 0, generation);
    this.told.forEach((known, index) => record.write(known, 4 + index * HASH_BYTES, 'hex'));
    this.state.save(KEY, record, (error) => {
      if (error !== undefined) {
        this.log.warn(
          { err: error },
          'not remembered who knows of the new medium: after a restart it is announced again',
        );
      }
    });
  }
}

function hash(initiatorPort: string): string {
  return createHash('sha256')
    .update(initiatorPort)
    .digest('hex')
    .slice(0, HASH_BYTES * 2);
}
