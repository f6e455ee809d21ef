/**
 * The target's SCSI ports: one for each portal group, each its own target port group (SPC-6 §5.18), so that an
 * administrator can direct multipath initiators.
 *
 * A group begins in the state that the configuration gives it. What SET TARGET PORT GROUPS made of it is kept in the
 * partition's state store and outlives a restart, until the configuration says something else than it did then: three
 * bytes for a group, portal group tag u16 and both states, configured in bits 7 to 4.
 */
import { getU16, putU16 } from './bytes.js';
import type { StateStore } from './medium.js';

/** Asymmetric access states (SPC-6 §6.36, table "ASYMMETRIC ACCESS STATE field"). */
export const ACCESS_STATE = { OPTIMIZED: 0, NON_OPTIMIZED: 1, STANDBY: 2, UNAVAILABLE: 3 } as const;

/** As the configuration names them. */
export const ACCESS_STATES = {
  optimized: ACCESS_STATE.OPTIMIZED,
  'non-optimized': ACCESS_STATE.NON_OPTIMIZED,
  standby: ACCESS_STATE.STANDBY,
  unavailable: ACCESS_STATE.UNAVAILABLE,
} as const;
export type AccessStateName = keyof typeof ACCESS_STATES;

const KEY = 'scsi.access-states';
const ENTRY_BYTES = 3;

export interface TargetPort {
  /** RELATIVE TARGET PORT IDENTIFIER and TARGET PORT GROUP, the same number. */
  relativeId: number;
  portalGroupTag: number;
  state: number;
  /** The state that the configuration gives it. */
  readonly configured: number;
  /** STATUS CODE: 0 none, 1 altered by SET TARGET PORT GROUPS. */
  statusCode: number;
}

export class TargetPorts {
  readonly all: TargetPort[] = [];
  private readonly targetName: string;
  private readonly configured: ReadonlyMap<number, number>;
  private readonly state: StateStore;

  /** `configured`: access states by portal group tag; others are optimized. */
  constructor(
    targetName: string,
    portalGroupTags: readonly number[],
    configured: ReadonlyMap<number, number>,
    state: StateStore,
  ) {
    this.targetName = targetName;
    this.configured = configured;
    this.state = state;
    for (const tag of [...portalGroupTags].sort((a, b) => a - b)) this.byPortalGroup(tag);
  }

  /** The port of a portal group; one not known before is added. */
  byPortalGroup(portalGroupTag: number): TargetPort {
    const known = this.all.find((port) => port.portalGroupTag === portalGroupTag);
    if (known !== undefined) return known;
    const configured = this.configured.get(portalGroupTag) ?? ACCESS_STATE.OPTIMIZED;
    const kept = this.kept(portalGroupTag, configured);
    const port = {
      relativeId: this.all.length + 1,
      portalGroupTag,
      state: kept ?? configured,
      configured,
      statusCode: kept === undefined ? 0 : 1,
    };
    this.all.push(port);
    return port;
  }

  private kept(portalGroupTag: number, configured: number): number | undefined {
    const record = this.state.load(KEY) ?? Buffer.alloc(0);
    for (let at = 0; at + ENTRY_BYTES <= record.length; at += ENTRY_BYTES) {
      if (getU16(record, at) === portalGroupTag && record[at + 2] >>> 4 === configured)
        return record[at + 2] & 0x0f;
    }
    return undefined;
  }

  /** Keeps the states that initiators have set. `done` gets an error if they are not durable. */
  save(done: (error?: Error) => void): void {
    const set = this.all.filter((port) => port.statusCode !== 0);
    const record = Buffer.alloc(set.length * ENTRY_BYTES);
    set.forEach((port, index) => {
      putU16(record, index * ENTRY_BYTES, port.portalGroupTag);
      record[index * ENTRY_BYTES + 2] = (port.configured << 4) | port.state;
    });
    this.state.save(KEY, record, done);
  }

  byRelativeId(relativeId: number): TargetPort | undefined {
    return this.all[relativeId - 1];
  }

  /** SCSI port name: target name, ",t,0x", portal group tag (RFC 7143 §4.4.2). */
  name(port: TargetPort): string {
    return `${this.targetName},t,0x${port.portalGroupTag.toString(16).padStart(4, '0')}`;
  }

  /** True if commands that come by the port are limited by its access state. */
  restricted(relativeId: number): boolean {
    const port = this.byRelativeId(relativeId);
    return port !== undefined && port.state >= ACCESS_STATE.STANDBY;
  }

  /** Target port group descriptors (SPC-6 §6.36), 12 bytes each. */
  descriptors(): Buffer {
    const data = Buffer.alloc(this.all.length * 12);
    this.all.forEach((port, index) => {
      const at = index * 12;
      data[at] = port.state;
      // Supported: unavailable, standby, non-optimized, optimized.
      data[at + 1] = 0x0f;
      putU16(data, at + 2, port.relativeId);
      data[at + 5] = port.statusCode;
      data[at + 7] = 1;
      putU16(data, at + 10, port.relativeId);
    });
    return data;
  }
}
