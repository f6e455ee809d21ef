/** Checking what is at a path: alone if nobody else has it, else read-only beside the daemon that does. */

import { uuidText } from './bytes.js';
import { checkStore } from './check.js';
import type { CheckOptions, CheckReport } from './check.js';
import { newestOf, readSuperblockCopies } from './check-superblock.js';
import { takeLock, takeUuidLock } from './lock.js';
import type { Lock } from './lock.js';
import { OperationalError } from '../operational-error.js';
import { lockPath } from './partition.js';
import { FileStore } from './store.js';

export interface PartitionCheck extends CheckReport {
  /** Why it was looked at without holding it; undefined if it was held. */
  readonly shared: string | undefined;
}

/**
 * @throws OperationalError PARTITION_BUSY or PARTITION_NOT_PERMITTED if it is to be repaired and can't be held;
 *   NOT_CLDD, UNKNOWN_FORMAT, NO_SUCH_PARTITION
 */
export async function checkPartition(
  path: string,
  options: Pick<CheckOptions, 'repair' | 'emptyState'> = {},
): Promise<PartitionCheck> {
  return withPartition(path, options.repair === true, async (store, shared) => ({
    shared,
    ...(await checkStore(store, { ...options, shared: shared !== undefined })),
  }));
}

const SHARED_CODES: ReadonlySet<string> = new Set(['PARTITION_BUSY', 'PARTITION_NOT_PERMITTED']);

/** Opens the partition, held alone if possible; `use` learns why it is not. */
export async function withPartition<T>(
  path: string,
  mustHold: boolean,
  use: (store: FileStore, shared: string | undefined) => Promise<T>,
): Promise<T> {
  const locks: Lock[] = [];
  let store: FileStore | undefined;
  let shared: string | undefined;
  try {
    try {
      store = FileStore.open(path, 'write');
      if (!store.isBlockDevice) locks.push(takeLock(lockPath(path), path));
      const newest = newestOf(readSuperblockCopies(store));
      // Without a whole superblock there is no uuid that a daemon could have claimed.
      if (newest !== undefined) {
        const uuid = uuidText(newest.content.uuid);
        locks.push(takeUuidLock(uuid, `${path} (partition ${uuid})`));
      }
    } catch (error) {
      if (mustHold || !(error instanceof OperationalError) || !SHARED_CODES.has(error.code)) throw error;
      await store?.close();
      shared = error.message;
      store = FileStore.open(path, 'read');
    }
    return await use(store, shared);
  } finally {
    for (const lock of locks) lock.release();
    await store?.close();
  }
}
