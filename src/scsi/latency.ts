/**
 * How long commands take, from their arrival to their answer: a histogram per logical unit and class of command, and a
 * word in the log about each that took too long. On the hot path that is one reading of the clock and one increment.
 */
import { performance } from 'node:perf_hooks';
import type { Task } from './task.js';
import type { LogicalUnit, Path } from './unit.js';

export const COMMAND_CLASSES = ['read', 'write', 'flush', 'unmap', 'other'] as const;
export type CommandClass = (typeof COMMAND_CLASSES)[number];

/** Bucket `i` holds what took less than 2^(i + FIRST_POWER) µs, the last one all that took longer. */
const BUCKETS = 22;
const FIRST_POWER = 3;

/** Upper bounds of the buckets, in seconds; the last bucket has none. 8 µs to 8.4 s. */
export const LATENCY_BOUNDS_SECONDS: readonly number[] = Array.from(
  { length: BUCKETS - 1 },
  (_, index) => 2 ** (index + FIRST_POWER) / 1e6,
);

/** Operation codes of each class (SBC-5 §5, SPC-6 §6); all others are `other`. */
const OPCODES_OF: Partial<Record<CommandClass, readonly number[]>> = {
  read: [0x08, 0x28, 0x88, 0xa8],
  write: [0x0a, 0x2a, 0x2e, 0x41, 0x89, 0x8a, 0x8e, 0x93, 0x9c, 0xaa, 0xae],
  flush: [0x35, 0x91],
  unmap: [0x42],
};

const CLASS_OF = new Uint8Array(256).fill(COMMAND_CLASSES.indexOf('other'));
for (const [name, opcodes] of Object.entries(OPCODES_OF))
  for (const opcode of opcodes) CLASS_OF[opcode] = COMMAND_CLASSES.indexOf(name as CommandClass);

export interface LatencyFigures {
  /** Commands in each bucket, not accumulated; one more than there are bounds. */
  counts: number[];
  sumSeconds: number;
}

export class Latencies {
  // Doubles count to 2^53 without overflow, and cost what integers do.
  private readonly counts = new Float64Array(COMMAND_CLASSES.length * BUCKETS);
  private readonly sumsMs = new Float64Array(COMMAND_CLASSES.length);

  add(opcode: number, spanMs: number): void {
    const kind = CLASS_OF[opcode];
    const power = 32 - Math.clz32(spanMs * 1000) - FIRST_POWER;
    this.counts[kind * BUCKETS + (power < 0 ? 0 : power >= BUCKETS ? BUCKETS - 1 : power)]++;
    this.sumsMs[kind] += spanMs;
  }

  figures(): Record<CommandClass, LatencyFigures> {
    const of = (kind: number): LatencyFigures => ({
      counts: [...this.counts.subarray(kind * BUCKETS, (kind + 1) * BUCKETS)],
      sumSeconds: this.sumsMs[kind] / 1000,
    });
    return { read: of(0), write: of(1), flush: of(2), unmap: of(3), other: of(4) };
  }
}

/** Counts a task that is about to end. Call it before the transport learns of the end, and reuses the task. */
export function measure(task: Task): void {
  const path = task.unit as Path | undefined;
  if (path === undefined) return;
  const spanMs = performance.now() - task.arrivedMs;
  const { unit } = path;
  unit.latencies.add(task.cdb[0], spanMs);
  if (spanMs >= unit.slowMs && task.arrivedMs > 0) tellSlow(task, unit, spanMs);
}

function tellSlow({ cdb, nexus, position }: Task, unit: LogicalUnit, spanMs: number): void {
  unit.services.log.warn(
    {
      unit: unit.kind,
      class: COMMAND_CLASSES[CLASS_OF[cdb[0]]],
      opcode: `0x${cdb[0].toString(16).padStart(2, '0')}`,
      position,
      tookMs: Math.round(spanMs * 10) / 10,
      initiator: nexus.initiatorName,
      address: nexus.address,
    },
    'slow I/O',
  );
}
