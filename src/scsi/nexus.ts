/**
 * An I_T nexus: one initiator port talking to one target port (SAM-6 §4.5), and what the SCSI layer remembers of it.
 */
import type { CopyResult } from './commands/copy-results.js';
import type { LunAccess, NexusOptions } from './port.js';
import { SENSE } from './sense.js';
import type { Path } from './unit.js';

/** Version descriptor (SPC-6 §6.6.2); the protocol level counts from it (RFC 7144 §4.2). */
export const ISCSI_NO_VERSION = 0x0960;

/** Opaque to the transport, which only keeps it and hands it back. */
export class Nexus {
  readonly initiatorName: string;
  readonly initiatorPort: string;
  readonly portalGroupTag: number;
  readonly address: string;
  readonly transportVersion: number;
  luns: readonly LunAccess[];
  /** What this nexus has with each logical unit that it sees, by LUN. */
  readonly paths: (Path | undefined)[] = [];
  /** RELATIVE TARGET PORT IDENTIFIER of the target port (SPC-6 §7.7.6.8), 1 to 65535. */
  relativePort = 1;
  attached = true;
  /** Third-party copies by list identifier, for RECEIVE COPY RESULTS; oldest first. */
  readonly copies = new Map<number, CopyResult>();

  /** Set once the transport knows the nexus: what a new one finds pending is no event. */
  announced = false;
  private readonly onAttention: NexusOptions['onAttention'];

  constructor(options: NexusOptions) {
    this.onAttention = options.onAttention;
    this.initiatorName = options.initiatorName;
    this.initiatorPort = options.initiatorPort;
    this.portalGroupTag = options.portalGroupTag;
    this.address = options.address;
    this.luns = options.luns;
    this.transportVersion = options.transportVersion ?? ISCSI_NO_VERSION;
  }

  /** A unit attention has been established for one of its paths. */
  attentionEstablished(lun: number, sense: Buffer): void {
    if (this.announced && this.attached) this.onAttention?.(lun, sense);
  }

  /** REPORT LUNS has told the initiator what it sees: that unit attention is answered (SPC-6 §6.34). */
  lunsReported(): void {
    for (const path of this.paths) path?.dropAttention(SENSE.REPORTED_LUNS_DATA_HAS_CHANGED);
  }
}
