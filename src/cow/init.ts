/** Makes an empty store a partition: seconds at any size, since a map page that was never written needs no writing. */

import { randomUUID } from 'node:crypto';
import { Core } from './core.js';
import {
  MIN_PARTITION_BYTES,
  STATE_TWIN_BYTES,
  SUPERBLOCK_BYTES,
  SUPERBLOCK_OFFSETS,
  fitSegment,
  layoutHead,
} from './format.js';
import { writeBitmap } from './committer.js';
import { OperationalError } from '../operational-error.js';
import { STATE_TWINS, encodeState } from './state-area.js';
import type { Store } from './store.js';
import { HISTORY_EPOCHS } from './superblock.js';
import type { Superblock } from './superblock.js';
import { WrittenBitmap } from './written-bitmap.js';

export interface InitOptions {
  /** 16 bytes; random if not given. */
  uuid?: Buffer;
  createdAt?: number;
}

/**
 * Writes the metadata of an empty master. Superblocks come last, after an old one was wiped, so that a crash in
 * between leaves no partition rather than half a one.
 * @throws OperationalError TOO_SMALL
 */
export async function initStore(store: Store, options: InitOptions = {}): Promise<Core> {
  const deviceBytes = store.sizeBytes;
  const { segmentOffset, ...head } = layoutHead(deviceBytes);
  const segment = fitSegment(segmentOffset, deviceBytes, 0);
  if (deviceBytes < MIN_PARTITION_BYTES || segment === undefined) {
    throw new OperationalError(
      'TOO_SMALL',
      `a partition needs at least 8 MiB, this has ${deviceBytes} bytes`,
    );
  }
  const superblock: Superblock = {
    ...head,
    uuid: options.uuid ?? Buffer.from(randomUUID().replaceAll('-', ''), 'hex'),
    sequence: 0,
    clean: true,
    enabled: false,
    deviceBytes,
    nextLsn: 1,
    tailLsn: 1,
    generation: 0,
    approximateGeneration: 0,
    enabledAt: 0,
    createdAt: options.createdAt ?? Date.now(),
    divergedBlocks: 0,
    epoch: 0,
    historyBase: 0,
    history: Buffer.alloc(HISTORY_EPOCHS / 8),
    segments: [segment],
  };
  const core = new Core(store, superblock);
  for (const position of SUPERBLOCK_OFFSETS) core.writeMetadata(Buffer.alloc(SUPERBLOCK_BYTES), position);
  await core.sync();
  const state = encodeState({ sequence: 1, records: new Map() }, superblock.uuid);
  for (let twin = 0; twin < STATE_TWINS; twin++) {
    core.writeMetadata(state, superblock.stateOffset + twin * STATE_TWIN_BYTES);
  }
  const written = new WrittenBitmap(superblock.uuid, core.segments);
  written.addEmpty(0);
  await writeBitmap(core, written);
  await core.replaceSuperblock(core.nextSuperblock());
  return core;
}
