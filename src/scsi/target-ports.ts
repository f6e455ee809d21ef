/**
 * The target's SCSI ports: one for each portal group, each its own target port group (SPC-6 §5.18), so that an
 * administrator can direct multipath initiators.
 */
import { putU16 } from './bytes.js';

/** Asymmetric access states (SPC-6 §6.36, table "ASYMMETRIC ACCESS STATE field"). */
export const ACCESS_STATE = { OPTIMIZED: 0, NON_OPTIMIZED: 1, STANDBY: 2, UNAVAILABLE: 3 } as const;

export interface TargetPort {
  /** RELATIVE TARGET PORT IDENTIFIER and TARGET PORT GROUP, the same number. */
  relativeId: number;
  portalGroupTag: number;
  state: number;
  /** STATUS CODE: 0 none, 1 altered by SET TARGET PORT GROUPS. */
  statusCode: number;
}

export class TargetPorts {
  readonly all: TargetPort[] = [];
  private readonly targetName: string;

  constructor(targetName: string, portalGroupTags: readonly number[]) {
    this.targetName = targetName;
    for (const tag of [...portalGroupTags].sort((a, b) => a - b)) this.byPortalGroup(tag);
  }

  /** The port of a portal group; one not known before is added. */
  byPortalGroup(portalGroupTag: number): TargetPort {
    const known = this.all.find((port) => port.portalGroupTag === portalGroupTag);
    if (known !== undefined) return known;
    const port = {
      relativeId: this.all.length + 1,
      portalGroupTag,
      state: ACCESS_STATE.OPTIMIZED,
      statusCode: 0,
    };
    this.all.push(port);
    return port;
  }

  byRelativeId(relativeId: number): TargetPort | undefined {
    return this.all.at(relativeId - 1);
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
