/**
 * A logical unit (the master or the slave) and the I_T_L nexuses, here called paths, by which initiators reach it.
 */
import { AtomicLog } from './atomic-log.js';
import type { Background } from './background.js';
import { ProvisioningCensus } from './census.js';
import type { CommandSet } from './command.js';
import type { Holds } from './holds.js';
import type { ChangeMap, Medium, StateStore } from './medium.js';
import type { Identity } from './identity.js';
import { Latencies } from './latency.js';
import type { ModePages } from './mode-pages.js';
import type { Nexus } from './nexus.js';
import type { TargetPort, TargetPorts } from './target-ports.js';
import type { Reservations } from './reservations.js';
import type { Tokens } from './commands/token-store.js';
import { senseData } from './sense.js';
import type { Sanitize } from './commands/sanitize.js';
import type { Task } from './task.js';
import type { TaskSet } from './task-set.js';

/** Logical block, and what a physical block and the engine's granularity are in logical blocks. */
export const BLOCK_BYTES = 512;
export const BLOCKS_PER_PHYSICAL = 8;
export const PHYSICAL_BYTES = BLOCK_BYTES * BLOCKS_PER_PHYSICAL;

/** Life of a task in the SCSI layer. */
export const PHASE = {
  ENDED: 0,
  /** Started, and nobody has had to remember it yet. */
  RUNNING: 1,
  /** Outlived `submit`: the task set knows it. */
  TRACKED: 2,
  /** In the task set, waiting for older tasks (SAM-6 §8.6). */
  WAITING: 3,
} as const;

/** Structured log sink (pino's shape). */
export interface ScsiLog {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** Answer of the daemon to a request to load or eject: undefined if it was done, else why it was refused. */
export type ControlDone = (refusal?: { code: 'not-allowed' | 'in-use' | 'failed'; message: string }) => void;

/** What START STOP UNIT with LOEJ asks of the daemon, which decides by the configuration. `done` may be called at once. */
export interface MediumControl {
  load(nexus: Nexus, done: ControlDone): void;
  eject(nexus: Nexus, done: ControlDone): void;
}

/** What the commands of one unit may use of the target around it. */
export interface TargetServices {
  readonly log: ScsiLog;
  readonly state: StateStore;
  readonly control: MediumControl;
  readonly commands: CommandSet;
  readonly ports: TargetPorts;
  readonly tokens: Tokens;
  readonly background: Background;
  /** What GET LBA STATUS (32) may be asked for by generation. */
  readonly changes: ChangeMap | undefined;
  /** Who keeps the slave's medium in. */
  readonly holds: Holds;
  /** The nexus whose START STOP UNIT is loading the slave just now. */
  loadingNexus: Nexus | undefined;
  /** A unit attention has been reported to the initiator. */
  attentionReported(path: Path, code: number): void;
  /** SET TARGET PORT GROUPS. */
  changeAccessStates(
    changes: readonly { state: number; port: TargetPort }[],
    by: Nexus,
    done: () => void,
  ): void;
}

/** Counters since the target was made. */
export interface UnitStatistics {
  readOps: number;
  readBytes: number;
  writeOps: number;
  writeBytes: number;
  flushes: number;
  readErrors: number;
  writeErrors: number;
  verifyOps: number;
  verifyBytes: number;
}

export function emptyStatistics(): UnitStatistics {
  return {
    readOps: 0,
    readBytes: 0,
    writeOps: 0,
    writeBytes: 0,
    flushes: 0,
    readErrors: 0,
    writeErrors: 0,
    verifyOps: 0,
    verifyBytes: 0,
  };
}

export interface LogicalUnitParts {
  kind: 'master' | 'slave';
  medium: Medium;
  /** 512 or 4,096. */
  physicalBlockBytes: number;
  /** WRITE SAME of zero blocks goes to the end of the medium. */
  writeSameToEnd: boolean;
  identity: Identity;
  modes: ModePages;
  services: TargetServices;
}

export class LogicalUnit {
  readonly kind: 'master' | 'slave';
  readonly removable: boolean;
  readonly medium: Medium;
  readonly physicalBlockBytes: number;
  readonly writeSameToEnd: boolean;
  readonly identity: Identity;
  readonly modes: ModePages;
  readonly services: TargetServices;
  readonly paths = new Set<Path>();
  readonly tasks: TaskSet;
  readonly reservations: Reservations;
  readonly sanitize: Sanitize;
  readonly atomics: AtomicLog;
  readonly census: ProvisioningCensus;
  readonly statistics = emptyStatistics();
  readonly latencies = new Latencies();
  /** Commands that take this long, in ms, are told in the log. */
  slowMs = Infinity;
  /** What LOG SELECT has cleared off the log pages. */
  readonly countedBefore = emptyStatistics();
  /** The same of the processing times, in seconds. */
  timedBefore = { read: 0, write: 0 };

  constructor(
    parts: LogicalUnitParts,
    make: {
      tasks: (unit: LogicalUnit) => TaskSet;
      reservations: (unit: LogicalUnit) => Reservations;
      sanitize: (unit: LogicalUnit) => Sanitize;
    },
  ) {
    this.kind = parts.kind;
    this.removable = parts.kind === 'slave';
    this.medium = parts.medium;
    this.physicalBlockBytes = parts.physicalBlockBytes;
    this.writeSameToEnd = parts.writeSameToEnd;
    this.identity = parts.identity;
    this.modes = parts.modes;
    this.services = parts.services;
    this.atomics = new AtomicLog(this.medium, parts.services.state, parts.services.log);
    this.census = new ProvisioningCensus(this);
    this.tasks = make.tasks(this);
    this.reservations = make.reservations(this);
    this.sanitize = make.sanitize(this);
  }

  get blocks(): number {
    return this.medium.capacityBytes / BLOCK_BYTES;
  }

  /** Recomputes what every path keeps at hand; call after anything that `Path.refresh` looks at. */
  refresh(): void {
    for (const path of this.paths) path.refresh();
  }

  /** Establishes a unit attention for every path but `except` (SAM-6 §5.14). */
  attention(code: number, except?: Path): void {
    for (const path of this.paths) if (path !== except) path.attention(code);
  }
}

/** One initiator port, one target port, one logical unit. */
export class Path {
  readonly nexus: Nexus;
  readonly lun: number;
  readonly unit: LogicalUnit;
  readonly readOnly: boolean;
  /** Set if anything but the plain checks is due before the next command: the hot path looks only here. */
  special = false;
  writeProtected = false;
  /** Time of the last command that read blocks or changed the medium, in ms; 0: never. */
  lastUseMs = 0;
  readonly attentions: number[] = [];

  constructor(nexus: Nexus, lun: number, unit: LogicalUnit, readOnly: boolean) {
    this.nexus = nexus;
    this.lun = lun;
    this.unit = unit;
    this.readOnly = readOnly;
    this.refresh();
  }

  refresh(): void {
    const { unit } = this;
    this.writeProtected = this.readOnly || unit.medium.writeProtected || unit.modes.softwareWriteProtect;
    this.special =
      this.attentions.length > 0 ||
      unit.reservations.active ||
      unit.tasks.ordering ||
      unit.sanitize.refusal !== undefined ||
      unit.atomics.replaying ||
      unit.services.ports.restricted(this.nexus.relativePort);
  }

  /** Queues a unit attention, in order of precedence, once (SAM-6 §5.14.2). */
  attention(code: number): void {
    if (this.attentions.includes(code)) return;
    // A power on or reset condition supersedes everything older; at most this many kinds exist, so it is bounded.
    if (isReset(code)) this.attentions.unshift(code);
    else this.attentions.push(code);
    this.special = true;
    this.nexus.attentionEstablished(this.lun, senseData(code, this.unit.modes.descriptorSense));
  }

  dropAttention(code: number): void {
    const index = this.attentions.indexOf(code);
    if (index < 0) return;
    this.attentions.splice(index, 1);
    this.refresh();
  }

  /** Takes the next unit attention off the queue; it counts as reported. */
  takeAttention(): number | undefined {
    const code = this.attentions.shift();
    if (code !== undefined) {
      this.refresh();
      this.unit.services.attentionReported(this, code);
    }
    return code;
  }
}

function isReset(code: number): boolean {
  return ((code >>> 8) & 0xff) === 0x29;
}

/** The path that a task came by. Valid from `submit` until the task's end. */
export function pathOf(task: Task): Path {
  return task.unit as Path;
}
