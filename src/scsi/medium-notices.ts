/**
 * Which medium each initiator port was last told of: the generation that it believes to be in the slave.
 *
 * Linux fails I/O on any unit attention of a removable device, so a daemon that restarts in mid-session must not repeat
 * "the medium may have changed" to a host that has the slave mounted; and a host that was away while the medium changed
 * must always hear it, or it serves stale pages. Hence this is kept in the partition's state store: for each port eight
 * bytes of hash and the generation, the port that was told longest ago first. Losing an entry is safe: such a port is
 * told once more.
 */
import { createHash } from 'node:crypto';
import { getU32, putU32 } from './bytes.js';
import type { StateStore } from './medium.js';
import type { ScsiLog } from './unit.js';

const KEY = 'scsi.told';
/** Ports remembered. Those logged in now are forgotten last. */
export const TOLD_MAX = 64;
const HASH_BYTES = 8;
const ENTRY_BYTES = HASH_BYTES + 4;

export class MediumNotices {
  /** Generation by hash of the port, in the order of telling. */
  private readonly told = new Map<string, number>();
  private readonly state: StateStore;
  private readonly log: ScsiLog;

  constructor(state: StateStore, log: ScsiLog) {
    this.state = state;
    this.log = log;
    const record = state.load(KEY) ?? Buffer.alloc(0);
    for (let at = 0; at + ENTRY_BYTES <= record.length; at += ENTRY_BYTES) {
      this.told.set(record.toString('hex', at, at + HASH_BYTES), getU32(record, at + HASH_BYTES));
    }
  }

  /** Generation of the medium that the port was last told of; undefined if it is not known to have seen one. */
  lastTold(initiatorPort: string): number | undefined {
    return this.told.get(hash(initiatorPort));
  }

  /** The port has been told. `attached` are the ports that are logged in. */
  tell(initiatorPort: string, generation: number, attached: readonly string[]): void {
    const entry = hash(initiatorPort);
    if (this.told.get(entry) === generation) return;
    this.told.delete(entry);
    this.told.set(entry, generation);
    if (this.told.size > TOLD_MAX) this.forget(new Set(attached.map(hash)));
    this.save();
  }

  /** Forgets the port that was told longest ago, one that is away if there is any. */
  private forget(attached: ReadonlySet<string>): void {
    const ports = [...this.told.keys()];
    const port = ports.find((known) => !attached.has(known)) ?? ports[0];
    this.told.delete(port);
  }

  private save(): void {
    const record = Buffer.alloc(this.told.size * ENTRY_BYTES);
    let at = 0;
    for (const [port, generation] of this.told) {
      record.write(port, at, 'hex');
      putU32(record, at + HASH_BYTES, generation);
      at += ENTRY_BYTES;
    }
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
