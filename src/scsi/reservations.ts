/**
 * Reservations of one logical unit: persistent (SPC-6 §5.14) and SCSI-2's RESERVE/RELEASE (SPC-2 §5.5), as state with
 * its rules. The commands that act on it are in commands/reservations.ts.
 *
 * Registrations belong to I_T nexuses by name, so they outlive sessions; with APTPL they also outlive the daemon, in the
 * partition's state store, and are durable before the command that changed them ends.
 */
import type { Command } from './command.js';
import type { StateStore } from './medium.js';
import type { Nexus } from './nexus.js';
import { SENSE } from './sense.js';
import type { LogicalUnit, Path, ScsiLog } from './unit.js';

/** Persistent reservation types (SPC-6 §6.16.3.4). */
export const RESERVATION_TYPE = {
  WRITE_EXCLUSIVE: 1,
  EXCLUSIVE_ACCESS: 3,
  WRITE_EXCLUSIVE_REGISTRANTS_ONLY: 5,
  EXCLUSIVE_ACCESS_REGISTRANTS_ONLY: 6,
  WRITE_EXCLUSIVE_ALL_REGISTRANTS: 7,
  EXCLUSIVE_ACCESS_ALL_REGISTRANTS: 8,
} as const;
const TYPES: readonly number[] = Object.values(RESERVATION_TYPE);

/** Registrations that one unit holds; bounds what initiators can store. */
export const REGISTRATIONS_MAX = 64;

/** "No key" (SPC-6 §5.14.7). Keys are 16 hexadecimal digits. */
export const NO_KEY = '0000000000000000';

export interface Registration {
  key: string;
  /** Initiator port name; with the target port it names the I_T nexus. */
  initiatorPort: string;
  relativePort: number;
}

interface Saved {
  registrations: Registration[];
  holder: number;
  type: number;
}

export function isRegistrantsOnly(type: number): boolean {
  return (
    type === RESERVATION_TYPE.WRITE_EXCLUSIVE_REGISTRANTS_ONLY ||
    type === RESERVATION_TYPE.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY
  );
}

export function isAllRegistrants(type: number): boolean {
  return type >= RESERVATION_TYPE.WRITE_EXCLUSIVE_ALL_REGISTRANTS;
}

function isWriteExclusive(type: number): boolean {
  return (
    type === RESERVATION_TYPE.WRITE_EXCLUSIVE ||
    type === RESERVATION_TYPE.WRITE_EXCLUSIVE_REGISTRANTS_ONLY ||
    type === RESERVATION_TYPE.WRITE_EXCLUSIVE_ALL_REGISTRANTS
  );
}

export function isType(type: number): boolean {
  return TYPES.includes(type);
}

export class Reservations {
  /** PRGENERATION, 0 from power on whatever is kept (SPC-6 §6.16.2). */
  generation = 0;
  /** APTPL: kept through a power loss. */
  persistThroughPowerLoss = false;
  registrations: Registration[] = [];
  /** Type of the reservation, 0 if there is none. */
  type = 0;
  /** Its holder; undefined for all-registrants types, which all registrants hold. */
  holder: Registration | undefined;
  /** SCSI-2 reservation. */
  reservedBy: Path | undefined;
  private readonly key: string;
  private readonly state: StateStore;
  private readonly unit: LogicalUnit;

  constructor(unit: LogicalUnit, kind: string, state: StateStore, log: ScsiLog) {
    this.unit = unit;
    this.key = `scsi.reservations.${kind}`;
    this.state = state;
    this.restore(log);
  }

  /** True if commands may conflict. */
  get active(): boolean {
    return this.type !== 0 || this.reservedBy !== undefined;
  }

  registrationOf(nexus: Nexus): Registration | undefined {
    return this.registrations.find((entry) => isOf(entry, nexus));
  }

  isHolder(registration: Registration | undefined): boolean {
    if (registration === undefined) return false;
    return isAllRegistrants(this.type) || this.holder === registration;
  }

  /** True if the command must end with RESERVATION CONFLICT (SPC-6 §5.14.1, SPC-2 §5.5.1). */
  conflicts(path: Path, command: Command, cdb?: Buffer): boolean {
    const rule =
      cdb === undefined ? command.reservation : (command.reservationOf?.(cdb) ?? command.reservation);
    const freed = command.reserve6 === true || (command.reservationOf !== undefined && rule === 'always');
    if (this.reservedBy !== undefined && this.reservedBy !== path && !freed) return true;
    if (this.type === 0 || rule === 'always') return false;
    const registration = this.registrationOf(path.nexus);
    if (this.isHolder(registration)) return false;
    if (registration !== undefined && isRegistrantsOnly(this.type)) return false;
    return !(rule === 'read' && isWriteExclusive(this.type));
  }

  register(registration: Registration): boolean {
    if (this.registrations.length >= REGISTRATIONS_MAX) return false;
    this.registrations.push(registration);
    return true;
  }

  /** Removes a registration, and the reservation with it if this ends it; the others are told as §5.14.11.2 asks. */
  unregister(registration: Registration): void {
    this.registrations = this.registrations.filter((entry) => entry !== registration);
    const ends = isAllRegistrants(this.type) ? this.registrations.length === 0 : this.holder === registration;
    if (!ends) return;
    const tell = isRegistrantsOnly(this.type);
    this.release();
    if (tell) this.tell(this.registrations, SENSE.RESERVATIONS_RELEASED);
  }

  reserve(registration: Registration, type: number): void {
    this.type = type;
    this.holder = isAllRegistrants(type) ? undefined : registration;
    this.unit.refresh();
  }

  release(): void {
    this.type = 0;
    this.holder = undefined;
    this.unit.refresh();
  }

  /** Establishes a unit attention for the nexuses of those registrations that are logged in, but `except`. */
  tell(registrations: readonly Registration[], code: number, except?: Nexus): void {
    for (const path of this.unit.paths) {
      if (path.nexus !== except && registrations.some((entry) => isOf(entry, path.nexus)))
        path.attention(code);
    }
  }

  /** Brings the saved state to what is in force. `done` gets an error if it is not durable. */
  save(done: (error?: Error) => void): void {
    if (!this.persistThroughPowerLoss) {
      if (this.state.load(this.key) === undefined) done();
      else this.state.save(this.key, undefined, done);
      return;
    }
    const saved: Saved = {
      registrations: this.registrations,
      holder: this.registrations.findIndex((entry) => entry === this.holder),
      type: this.type,
    };
    this.state.save(this.key, Buffer.from(JSON.stringify(saved)), done);
  }

  private restore(log: ScsiLog): void {
    const record = this.state.load(this.key);
    if (record === undefined) return;
    let saved: unknown;
    try {
      saved = JSON.parse(record.toString('utf8'));
    } catch (error) {
      log.error(
        { err: error, record: this.key },
        'saved persistent reservations cannot be read: none are in force',
      );
      return;
    }
    if (!isSaved(saved)) {
      log.error({ record: this.key }, 'saved persistent reservations make no sense: none are in force');
      return;
    }
    this.persistThroughPowerLoss = true;
    this.registrations = saved.registrations;
    this.type = saved.type;
    this.holder = saved.registrations[saved.holder];
  }
}

function isOf(registration: Registration, nexus: Nexus): boolean {
  return (
    registration.initiatorPort === nexus.initiatorPort && registration.relativePort === nexus.relativePort
  );
}

function isSaved(value: unknown): value is Saved {
  if (value === null) return false;
  const { registrations, holder, type } = value as Record<string, unknown>;
  return (
    typeof holder === 'number' &&
    typeof type === 'number' &&
    (type === 0 || isType(type)) &&
    Array.isArray(registrations) &&
    registrations.every((entry: unknown) => {
      if (entry === null) return false;
      const { key, initiatorPort, relativePort } = entry as Record<string, unknown>;
      return typeof key === 'string' && typeof initiatorPort === 'string' && typeof relativePort === 'number';
    }) &&
    holder < registrations.length &&
    (type === 0 || isAllRegistrants(type) || holder >= 0)
  );
}
