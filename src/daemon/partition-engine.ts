/**
 * What the daemon uses of an open partition. The engine's `Partition` (src/cow/partition.ts) fits it by shape, as the
 * compiler checks in src/daemon/open-partition.ts.
 */
import type { Medium, StateStore } from '../scsi/medium.js';

export interface ChangedRange {
  position: number;
  length: number;
}

export interface PartitionChanges {
  since: number | undefined;
  generation: number;
  full: boolean;
  approximate: boolean;
  granularityBytes: number;
  capacityBytes: number;
  ranges: AsyncIterable<ChangedRange>;
}

export interface PartitionStatus {
  capacityBytes: number;
  slave: {
    enabled: boolean;
    generation: number;
    /** ISO 8601; undefined before the first enable. */
    enabledAt: string | undefined;
    divergedBlocks: number;
    divergedBytes: number;
  };
  /** Why the partition takes no more writes. */
  failed: string | undefined;
  counters: object;
}

export interface PartitionEngine {
  readonly uuid: string;
  readonly path: string;
  readonly master: Medium;
  readonly slave: Medium;
  readonly state: StateStore;
  /** @throws OperationalError MASTER_MOUNTED, ALREADY_ENABLED */
  enableSlave(options?: { crashConsistent?: boolean }): Promise<PartitionStatus['slave']>;
  /** @throws OperationalError MASTER_MOUNTED */
  requireQuiet(): void;
  /** @throws OperationalError NOT_ENABLED */
  disableSlave(): Promise<void>;
  rollback(): Promise<void>;
  /** `window`: look there only. @throws OperationalError NO_SUCH_GENERATION */
  changes(since?: number, window?: { position: number; end: number }): PartitionChanges;
  /** Told once, when the partition takes no more writes. */
  onFailure(listener: (error: Error) => void): void;
  grow(): Promise<object>;
  /** What grow would answer; nothing is changed. @throws OperationalError as grow does */
  planGrow(): object;
  status(): PartitionStatus;
  close(): Promise<void>;
}

/** Opens the partition at a path. `alone`: true while no more than one connection has been active lately. */
export type OpenPartition = (path: string, alone: () => boolean) => Promise<PartitionEngine>;
