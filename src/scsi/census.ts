/**
 * How much of a unit is mapped, for the Logical Block Provisioning log page. Nothing counts that as it changes, so it is
 * taken from the map when somebody asks: of a medium up to 32 GiB exactly, of a larger one by pieces spread evenly over
 * it. One census serves all who ask within ten seconds, so asking often costs little.
 */
import type { LogicalUnit } from './unit.js';
import { runAt } from './commands/medium-work.js';

const PIECE_BYTES = 33_554_432;
const PIECES_MAX = 1024;
/** Time that one turn of the event loop may take, since the map of a large medium comes from its device. */
const TURN_MS = 2;
const VALID_MS = 10_000;

/** Bytes looked at and what of them is mapped; 0 of 0 without a medium. */
export interface Census {
  mappedBytes: number;
  seenBytes: number;
}

export class ProvisioningCensus {
  private last: Census = { mappedBytes: 0, seenBytes: 0 };
  private takenMs = -Infinity;
  private generation = -1;
  private askers: ((census: Census) => void)[] = [];
  private readonly unit: LogicalUnit;

  constructor(unit: LogicalUnit) {
    this.unit = unit;
  }

  /** `done` is never called before this returned. */
  take(done: (census: Census) => void): void {
    const { medium } = this.unit;
    this.askers.push(done);
    if (this.askers.length > 1) return;
    const fresh = performance.now() - this.takenMs < VALID_MS && this.generation === medium.generation;
    if (fresh || !medium.present) setImmediate(() => this.answer(medium.present ? this.last : NOTHING));
    else this.count(medium.generation);
  }

  private answer(census: Census): void {
    const { askers } = this;
    this.askers = [];
    for (const asker of askers) asker(census);
  }

  private count(generation: number): void {
    const { medium } = this.unit;
    const all = Math.ceil(medium.capacityBytes / PIECE_BYTES);
    const pieces = Math.min(all, PIECES_MAX);
    const census: Census = { mappedBytes: 0, seenBytes: 0 };
    let piece = 0;
    let position = 0;
    let end = 0;
    const turn = (): void => {
      const turnMs = performance.now();
      while (performance.now() - turnMs < TURN_MS) {
        if (!medium.present || medium.generation !== generation) {
          this.answer(NOTHING);
          return;
        }
        if (position >= end) {
          if (piece === pieces) {
            this.last = census;
            this.takenMs = performance.now();
            this.generation = generation;
            this.answer(census);
            return;
          }
          position = Math.floor((piece * all) / pieces) * PIECE_BYTES;
          end = Math.min(position + PIECE_BYTES, medium.capacityBytes);
          piece++;
        }
        const run = runAt(this.unit, position, end - position);
        if (run.mapped) census.mappedBytes += run.lengthBytes;
        census.seenBytes += run.lengthBytes;
        position += run.lengthBytes;
      }
      setImmediate(turn);
    };
    setImmediate(turn);
  }
}

const NOTHING: Census = { mappedBytes: 0, seenBytes: 0 };
