/** Runs one workload on every peer in turn, round after round, so that what disturbs the machine meets all alike. */
import { load, type Load, type Measured } from './load.js';
import type { Peer } from './peers.js';
import { evict, settle } from './stores.js';
import type { Workload } from './workloads.js';

/** One peer in the comparison, and what is done with its slave. */
export interface Entrant {
  /** Column of the table. */
  readonly column: string;
  readonly peer: Peer;
  /** The slave is enabled: before each run of writes anew, so that every write is a first overwrite. */
  readonly slaveEnabled: boolean;
}

export interface Settings {
  rounds: number;
  seconds: number;
  /** Bytes of each LUN that are used. */
  region: number;
}

/** What each column measured, one for each round, in the same order for all. */
export type Row = Record<string, Measured[]>;

export async function measure(
  workload: Workload,
  entrants: readonly Entrant[],
  settings: Settings,
): Promise<Row> {
  const able = entrants.filter(({ column }) => workload.without?.includes(column) !== true);
  if (workload.load.operation === 'read') for (const { peer } of able) await warmUp(peer, settings.region);
  const row: Row = Object.fromEntries(able.map(({ column }) => [column, []]));
  for (let round = 0; round < settings.rounds; round++) {
    // Whoever comes first has no advantage of it.
    for (let turn = 0; turn < able.length; turn++) {
      const entrant = able[(turn + round) % able.length];
      row[entrant.column].push(await once(workload, entrant, settings, round));
    }
  }
  return row;
}

async function once(
  workload: Workload,
  { peer, slaveEnabled }: Entrant,
  { seconds, region }: Settings,
  round: number,
): Promise<Measured> {
  const writes = workload.load.operation === 'write';
  if (writes && slaveEnabled && peer.slave !== undefined) {
    await peer.slave.disable();
    await peer.slave.enable();
  }
  await settle(peer.file);
  if (workload.cold === true) await evict(peer.file);
  const wanted: Load = { ...workload.load, region, seconds, seed: round + 1 };
  if (writes) wanted.ops = Math.floor(region / workload.load.bytes);
  const measured = await load(peer.url, peer.pid, wanted);
  if (writes) await settle(peer.file);
  return measured;
}

/**
 * Fills the peer's region and reads it back, every byte compared. Where there is a slave, once into either half of the
 * partition, so that no file has blocks still to be allocated when it is measured: partitions have none. `digests`: with
 * header and data digests, too.
 */
export async function fillAndCheck(peer: Peer, region: number, digests = false): Promise<void> {
  const all = { ...WHOLE, region, ops: Math.floor(region / WHOLE.bytes) };
  await load(peer.url, peer.pid, { ...all, operation: 'fill' });
  if (peer.slave !== undefined) {
    await peer.slave.enable();
    await load(peer.url, peer.pid, { ...all, operation: 'fill' });
    await load(peer.slave.url, peer.pid, { ...all, operation: 'check' });
    await peer.slave.disable();
  }
  await load(peer.url, peer.pid, { ...all, operation: 'check' });
  if (!digests) return;
  // raw.c moves the same bytes, and back: what it writes load.c finds, and the other way round.
  const verified = { ...all, headerDigest: true, dataDigest: true };
  await load(peer.url, peer.pid, { ...verified, operation: 'check' });
  await load(peer.url, peer.pid, { ...verified, operation: 'fill' });
  await load(peer.url, peer.pid, { ...all, operation: 'check' });
}

/** Brings the region into the page cache. */
async function warmUp(peer: Peer, region: number): Promise<void> {
  await load(peer.url, peer.pid, {
    ...WHOLE,
    region,
    ops: Math.floor(region / WHOLE.bytes),
    operation: 'read',
  });
}

const WHOLE = { order: 'sequential', bytes: 262_144, depth: 8 } as const;

/** Overwrites a part of the region at random with what `fillAndCheck` wants to find, each block at most once. */
export async function diverge(peer: Peer, region: number, share: number, seed = 1): Promise<void> {
  const ops = Math.floor((region / 4096) * share);
  if (ops === 0) return;
  await load(peer.url, peer.pid, {
    operation: 'fill',
    order: 'random',
    bytes: 4096,
    depth: 32,
    region,
    ops,
    seed,
  });
}
