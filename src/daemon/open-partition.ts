/** The engine's partition in the shape that the daemon uses: here the compiler checks the fit. */
import { Partition } from '../cow/partition.js';
import { QuickSyncs } from '../cow/quick-syncs.js';
import type { OpenPartition } from './partition-engine.js';

export const openPartition: OpenPartition = (path, alone) =>
  Partition.open(path, { quickSyncs: new QuickSyncs(alone) });
