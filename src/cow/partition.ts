/** A partition as the daemon sees it: a device or file that is held exclusively, with a master and a slave on it. */

import { realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { uuidText } from './bytes.js';
import { listChanges } from './changes.js';
import type { Changes, ChangesWindow } from './changes.js';
import type { Counters } from './core.js';
import { Engine } from './engine.js';
import type { EngineOptions } from './recovery.js';
import { growEngine, planGrowth } from './grow.js';
import type { Growth } from './grow.js';
import { initStore } from './init.js';
import { takeLock, takeUuidLock } from './lock.js';
import type { Lock } from './lock.js';
import { MasterMedium, SlaveMedium } from './mediums.js';
import { OperationalError } from '../operational-error.js';
import { probe, probeStore } from './probe.js';
import { findMounted } from './quiet.js';
import { readSuperblock } from './recovery.js';
import { RESULT } from './results.js';
import type { StateArea } from './state-area.js';
import { BLOCK_BYTES } from './states.js';
import { FileStore, createFile, removeFile, requireSpace, resizeFile } from './store.js';

export interface SlaveStatus {
  readonly enabled: boolean;
  /** How often it was enabled; the enabled slave is the image of this generation. */
  readonly generation: number;
  /** ISO 8601; undefined before the first enable. */
  readonly enabledAt: string | undefined;
  readonly divergedBlocks: number;
  readonly divergedBytes: number;
}

export interface PartitionStatus {
  readonly path: string;
  readonly uuid: string;
  readonly capacityBytes: number;
  readonly slave: SlaveStatus;
  /** Why the partition takes no more writes; undefined while all is well. */
  readonly failed: string | undefined;
  readonly counters: Readonly<Counters>;
}

export interface InitPartitionOptions {
  /** For a file: its size. Needed if it does not exist yet. */
  sizeBytes?: number;
  /** Erase whatever is there. */
  overwrite?: boolean;
  /** A file may be larger than the room that its file system has now. */
  thin?: boolean;
}

export class Partition {
  readonly path: string;
  /** In the usual text form. */
  readonly uuid: string;
  /** 16 hexadecimal digits, for INQUIRY. */
  readonly serial: string;
  readonly master: MasterMedium;
  readonly slave: SlaveMedium;
  readonly state: StateArea;
  readonly #engine: Engine;
  readonly #locks: readonly Lock[];

  constructor(path: string, engine: Engine, locks: readonly Lock[]) {
    const { uuid } = engine.core.superblock;
    this.path = path;
    this.uuid = uuidText(uuid);
    this.serial = uuid.toString('hex', 0, 8);
    this.master = new MasterMedium(engine);
    this.slave = new SlaveMedium(engine);
    this.state = engine.state;
    this.#engine = engine;
    this.#locks = locks;
  }

  /** What a device or file holds ('ext4', 'gpt', 'cldd' …); undefined for nothing known, or if it does not exist. */
  static async probe(path: string): Promise<string | undefined> {
    try {
      return await probe(path);
    } catch (error) {
      if (error instanceof OperationalError && error.code === 'NO_SUCH_PARTITION') return undefined;
      throw error;
    }
  }

  /**
   * Makes a device or file a partition with an empty master.
   * @throws OperationalError HOLDS_DATA (names what it found), SIZE_NEEDED, TOO_SMALL, NO_SPACE, PARTITION_BUSY …
   */
  static async init(
    path: string,
    options: InitPartitionOptions = {},
  ): Promise<{ uuid: string; partitionBytes: number; masterBytes: number }> {
    const created = createFile(path, options.sizeBytes);
    const locks: Lock[] = [];
    let store: FileStore | undefined;
    try {
      store = FileStore.open(path, 'write');
      if (!store.isBlockDevice) locks.push(takeLock(lockPath(path), path));
      refuseKnownContent(store, path, options.overwrite === true, locks);
      if (options.sizeBytes !== undefined) {
        if (!store.isBlockDevice && options.thin !== true) requireSpace(path, options.sizeBytes);
        resizeFile(store, path, options.sizeBytes);
      }
      const core = await initStore(store);
      return {
        uuid: uuidText(core.superblock.uuid),
        partitionBytes: store.sizeBytes,
        masterBytes: core.capacityBytes,
      };
    } catch (error) {
      if (created) removeFile(path);
      throw error;
    } finally {
      await store?.close();
      for (const lock of locks) lock.release();
    }
  }

  /**
   * Opens and, after a crash, recovers a partition, and holds it until `close` or the end of the process.
   * @throws OperationalError NO_SUCH_PARTITION, PARTITION_BUSY, NOT_CLDD, DAMAGED, DEVICE_SHRUNK …
   */
  static async open(path: string, options: EngineOptions = {}): Promise<Partition> {
    const store = FileStore.open(path, 'write');
    const locks: Lock[] = [];
    try {
      if (!store.isBlockDevice) locks.push(takeLock(lockPath(path), path));
      const { uuid } = readSuperblock(store);
      locks.push(takeUuidLock(uuidText(uuid), `${path} (partition ${uuidText(uuid)})`));
      return new Partition(path, await Engine.open(store, options), locks);
    } catch (error) {
      for (const lock of locks) lock.release();
      await store.close();
      throw error;
    }
  }

  /** Told once, when a write or sync fails and the partition takes no more writes. */
  onFailure(listener: (error: Error) => void): void {
    this.#engine.core.onFailure(listener);
  }

  /**
   * The slave becomes the master as it is when this resolves; writes wait meanwhile.
   * @throws OperationalError MASTER_MOUNTED unless crashConsistent, ALREADY_ENABLED, PARTITION_FAILED
   */
  async enableSlave(options: { crashConsistent?: boolean } = {}): Promise<SlaveStatus> {
    await this.#engine.enable(options.crashConsistent === true ? undefined : () => this.requireQuiet());
    return this.status().slave;
  }

  /** The slave's medium goes. @throws OperationalError NOT_ENABLED, PARTITION_FAILED */
  disableSlave(): Promise<void> {
    return this.#engine.disable();
  }

  /** The master becomes the slave's image again. The slave stays. @throws OperationalError NOT_ENABLED, PARTITION_FAILED */
  rollback(): Promise<void> {
    return this.#engine.rollback();
  }

  /** What differs between the slave of generation `since` and the master now. @throws OperationalError NO_SUCH_GENERATION */
  changes(since?: number, window?: ChangesWindow): Changes {
    return listChanges(this.#engine, since, window);
  }

  /** Makes use of what the device gained. @throws OperationalError NOT_GROWN, TOO_MANY_SEGMENTS */
  grow(): Promise<Growth> {
    return growEngine(this.#engine);
  }

  /** What `grow` would answer; nothing is changed. @throws OperationalError as grow does */
  planGrow(): Growth {
    const { capacityBytes, addedBytes } = planGrowth(this.#engine);
    return { capacityBytes, addedBytes };
  }

  status(): PartitionStatus {
    const { core } = this.#engine;
    const { enabled, generation, enabledAt } = core.superblock;
    return {
      path: this.path,
      uuid: this.uuid,
      capacityBytes: core.capacityBytes,
      slave: {
        enabled,
        generation,
        enabledAt: enabledAt === 0 ? undefined : new Date(enabledAt).toISOString(),
        divergedBlocks: core.divergedBlocks,
        divergedBytes: core.divergedBlocks * BLOCK_BYTES,
      },
      failed: core.failure?.message,
      counters: { ...core.counters },
    };
  }

  /** Checkpoints, flushes, marks clean, lets go. */
  async close(): Promise<void> {
    try {
      await this.#engine.close();
    } finally {
      for (const lock of this.#locks) lock.release();
    }
  }

  /** No file system on the master is mounted, as far as its superblock tells. @throws OperationalError MASTER_MOUNTED */
  requireQuiet(): void {
    const busy = findMounted((position, buffer) => {
      if (this.master.read(position, buffer, 0, buffer.length) !== RESULT.OK) {
        throw new OperationalError('MASTER_UNREADABLE', `the master can't be read at ${position}`);
      }
    }, this.master.capacityBytes);
    if (busy.length === 0) return;
    const list = busy.map(({ type, offsetBytes }) => `${type} at byte ${offsetBytes}`).join(', ');
    throw new OperationalError(
      'MASTER_MOUNTED',
      `the master holds a file system that is mounted or was not cleanly unmounted (${list}): ` +
        'unmount it on the file server and try again, or ask for a crash-consistent image',
    );
  }
}

/** Hidden, beside the file, and the same whatever link led there. */
export function lockPath(path: string): string {
  const real = realpathSync(path);
  return join(dirname(real), `.${basename(real)}.lock`);
}

/** What probe's names are called in a message, where they alone would say too little. */
const SPELT_OUT: ReadonlyMap<string, string> = new Map([
  ['cldd', 'a cldd partition'],
  ['gpt', 'a GPT partition table'],
  ['mbr', 'an MBR partition table'],
]);

function refuseKnownContent(store: FileStore, path: string, overwrite: boolean, locks: Lock[]): void {
  const found = probeStore(store);
  if (found === undefined) return;
  if (!overwrite) {
    throw new OperationalError(
      'HOLDS_DATA',
      `${path} holds ${SPELT_OUT.get(found) ?? found}; nothing was changed; say --yes to erase it`,
    );
  }
  if (found !== 'cldd') return;
  try {
    const { uuid } = readSuperblock(store);
    locks.push(takeUuidLock(uuidText(uuid), path));
  } catch (error) {
    // A damaged partition has no uuid to hold; its owner asked to erase it.
    if (!(error instanceof OperationalError) || error.code === 'PARTITION_BUSY') throw error;
  }
}
