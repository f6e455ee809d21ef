/**
 * Who keeps the slave's medium in: the initiators that have sent PREVENT ALLOW MEDIUM REMOVAL, which Linux does while
 * the slave is open or mounted.
 *
 * By SBC-5 §5.15 prevention ends with the I_T nexus. But an iSCSI initiator whose connection broke logs in again and
 * goes on with its mounted file system without a further PREVENT, and so does one that lived through a restart of the
 * daemon. Hence a hold outlives its nexus until the initiator allows removal, logs out of its own accord or resets the
 * unit, or until it stayed away for `ABSENCE_MS`. Holds are kept in the partition's state store as a JSON record, with
 * the generation of the medium they are for. A record that could not be saved costs only this protection.
 */
import type { Medium, StateStore } from './medium.js';
import type { Nexus } from './nexus.js';
import type { ScsiLog } from './unit.js';

const KEY = 'scsi.holds';
/** Holds remembered; with 223-byte names the record stays below 20 KiB. */
export const HOLDS_MAX = 32;
/** An initiator that has not come back for so long holds nothing any more: Linux gives up after two minutes. */
export const ABSENCE_MS = 600_000;

export interface Hold {
  readonly initiator: string;
  readonly address: string;
  /** Relative target port and initiator port: the name of the I_T nexus. */
  readonly nexus: string;
}

interface HoldRecord {
  generation: number;
  holds: Hold[];
}

interface KnownHold extends Hold {
  /** Time at which the nexus was lost, in ms; undefined: it is there. */
  lostAtMs: number | undefined;
}

export class Holds {
  private holds: KnownHold[] = [];
  private readonly state: StateStore;
  private readonly slave: Medium;
  private readonly log: ScsiLog;

  constructor(state: StateStore, slave: Medium, log: ScsiLog) {
    this.state = state;
    this.slave = slave;
    this.log = log;
    const lostAtMs = Date.now();
    if (slave.present) this.holds = this.load(slave.generation).map((hold) => ({ ...hold, lostAtMs }));
  }

  /** Those that count now, oldest first. */
  all(): readonly Hold[] {
    const limit = Date.now() - ABSENCE_MS;
    return this.holds.filter(({ lostAtMs }) => lostAtMs === undefined || lostAtMs > limit);
  }

  /**
   * Ends what other nexuses of the same initiator held until they were lost: it is back and speaks for itself, so
   * prevention ends with the I_T nexus here as SBC-5 §5.15 has it.
   */
  releaseLost({ initiatorName }: Nexus): void {
    const left = this.holds.filter((hold) => hold.lostAtMs === undefined || hold.initiator !== initiatorName);
    if (left.length === this.holds.length) return;
    this.holds = left;
    this.save();
  }

  hold(nexus: Nexus): void {
    if (this.find(nexus) !== undefined) return;
    const { initiatorName: initiator, address } = nexus;
    this.holds.push({ initiator, address, nexus: nameOf(nexus), lostAtMs: undefined });
    if (this.holds.length > HOLDS_MAX) this.holds.splice(this.oldest(), 1);
    this.save();
  }

  release(nexus: Nexus): void {
    const key = nameOf(nexus);
    const left = this.holds.filter((hold) => hold.nexus !== key);
    if (left.length === this.holds.length) return;
    this.holds = left;
    this.save();
  }

  releaseAll(): void {
    if (this.holds.length === 0) return;
    this.holds = [];
    this.save();
  }

  /** The nexus ended without a logout: its initiator may come back. */
  lost(nexus: Nexus): void {
    const hold = this.find(nexus);
    if (hold !== undefined) hold.lostAtMs = Date.now();
  }

  /** The nexus is there again. */
  returned(nexus: Nexus): void {
    const hold = this.find(nexus);
    if (hold !== undefined) hold.lostAtMs = undefined;
  }

  private find(nexus: Nexus): KnownHold | undefined {
    const key = nameOf(nexus);
    return this.holds.find((hold) => hold.nexus === key);
  }

  /** The one to forget: the oldest that is away, else the oldest. */
  private oldest(): number {
    return Math.max(
      0,
      this.holds.findIndex(({ lostAtMs }) => lostAtMs !== undefined),
    );
  }

  private save(): void {
    const holds: Hold[] = this.holds.map(({ initiator, address, nexus }) => ({ initiator, address, nexus }));
    const record: HoldRecord = { generation: this.slave.generation, holds };
    const value = holds.length === 0 ? undefined : Buffer.from(JSON.stringify(record));
    this.state.save(KEY, value, (error) => {
      if (error !== undefined)
        this.log.warn({ err: error }, 'not remembered who holds the slave: a restart forgets it');
    });
  }

  private load(generation: number): Hold[] {
    const record = this.state.load(KEY);
    if (record === undefined) return [];
    try {
      const { generation: heldGeneration, holds } = JSON.parse(record.toString('utf8')) as HoldRecord;
      return heldGeneration === generation ? holds : [];
    } catch (error) {
      this.log.error({ err: error }, 'the record of who holds the slave is unreadable: nobody is known');
      return [];
    }
  }
}

function nameOf(nexus: Nexus): string {
  return `${String(nexus.relativePort)} ${nexus.initiatorPort}`;
}
