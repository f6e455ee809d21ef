/**
 * An I_T nexus: one initiator port talking to one target port (SAM-6 §4.5), and what the SCSI layer remembers of it.
 */
import type { LunAccess, NexusOptions } from './port.js';

/** Opaque to the transport, which only keeps it and hands it back. */
export class Nexus {
  readonly initiatorName: string;
  readonly initiatorPort: string;
  readonly portalGroupTag: number;
  readonly address: string;
  luns: readonly LunAccess[];

  constructor(options: NexusOptions) {
    this.initiatorName = options.initiatorName;
    this.initiatorPort = options.initiatorPort;
    this.portalGroupTag = options.portalGroupTag;
    this.address = options.address;
    this.luns = options.luns;
  }
}
