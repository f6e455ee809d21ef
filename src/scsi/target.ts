/**
 * The SCSI target device of one partition: two logical units, the master and the slave, and the way of a command to
 * them (SAM-6 §4).
 */
import { isLunZero, findPath } from './addressing.js';
import { executeAbsent } from './absent-unit.js';
import { Background } from './background.js';
import { CommandSet } from './command.js';
import { Sanitize } from './commands/sanitize.js';
import { Tokens } from './commands/token-store.js';
import { Holds } from './holds.js';
import { identify } from './identity.js';
import type { Latencies } from './latency.js';
import type { ChangeMap, Medium, StateStore } from './medium.js';
import { MediumNotices } from './medium-notices.js';
import { ModePages } from './mode-pages.js';
import { Nexus } from './nexus.js';
import { OPCODES } from './opcodes.js';
import { admit, execute } from './execute.js';
import type { LunAccess, NexusEnd, NexusOptions, ScsiPort, TaskManagementRequest } from './port.js';
import { Reservations } from './reservations.js';
import { SENSE } from './sense.js';
import { ACCESS_STATES, TargetPorts } from './target-ports.js';
import type { AccessStateName, TargetPort } from './target-ports.js';
import { manage } from './task-management.js';
import { TaskSet } from './task-set.js';
import type { Task } from './task.js';
import { LogicalUnit, PHASE, PHYSICAL_BYTES, Path, pathOf } from './unit.js';
import type { MediumControl, ScsiLog, TargetServices, UnitStatistics } from './unit.js';

export type { ControlDone, MediumControl, ScsiLog, UnitStatistics } from './unit.js';

export interface ScsiTargetOptions {
  /** iSCSI name of the target. */
  name: string;
  /** UUID of the partition: both logical units derive their identity from it. */
  uuid: string;
  master: Medium;
  slave: Medium;
  state: StateStore;
  /** Portal group tags by which the target can be reached; others are added as they appear. */
  portalGroupTags: readonly number[];
  /** Asymmetric access state of each portal group by its tag (SPC-6 §5.18); optimized if left out. */
  accessStates?: ReadonlyMap<number, AccessStateName>;
  /** Physical block size that READ CAPACITY reports; 4,096, the engine's own, if left out. */
  physicalBlockBytes?: 512 | 4096;
  /** WRITE SAME of zero blocks goes to the end of the medium; refused if left out. */
  writeSameToEnd?: boolean;
  /** What START STOP UNIT with LOEJ may do. */
  control: MediumControl;
  /** For GET LBA STATUS (32) with a generation as ELEMENT IDENTIFIER, which is refused if left out. */
  changes?: ChangeMap;
  /** Pace of SANITIZE OVERWRITE; 64 MiB/s if left out. */
  sanitizeBytesPerSecond?: number;
  /** What the slave's reads give way to; targets of one process share it. Only this target's master if left out. */
  background?: Background;
  log: ScsiLog;
}

/** An initiator, as messages to the operator name it. */
export interface NexusName {
  initiator: string;
  address: string;
}

const SANITIZE_BYTES_PER_SECOND = 67_108_864;
/** Former nexuses remembered, so that a new one of the same name finds I_T NEXUS LOSS. */
const FORMER_MAX = 256;
/** A nexus counts as using the master for so long after it last read or changed it. */
const LATELY_MS = 30_000;

export class ScsiTarget implements ScsiPort {
  private readonly master: LogicalUnit;
  private readonly slave: LogicalUnit;
  private readonly ports: TargetPorts;
  private readonly notices: MediumNotices;
  private readonly nexuses = new Set<Nexus>();
  private readonly former = new Map<string, NexusEnd>();
  private readonly services: TargetServices;

  constructor(options: ScsiTargetOptions) {
    const { log, state } = options;
    const states = new Map(
      [...(options.accessStates ?? [])].map(([tag, name]) => [tag, ACCESS_STATES[name]]),
    );
    this.ports = new TargetPorts(options.name, options.portalGroupTags, states, state);
    this.notices = new MediumNotices(state, log);
    this.services = {
      log,
      state,
      control: options.control,
      commands: new CommandSet(OPCODES),
      ports: this.ports,
      tokens: new Tokens(),
      background: options.background ?? new Background(),
      changes: options.changes,
      holds: new Holds(state, options.slave, log),
      loadingNexus: undefined,
      attentionReported: (path, code) => this.attentionReported(path, code),
      changeAccessStates: (changes, by, done) => this.changeAccessStates(changes, by, done),
    };
    this.master = this.makeUnit('master', options.master, options);
    this.slave = this.makeUnit('slave', options.slave, options);
    // In this order, so that nothing is written to what has been sanitized.
    this.master.atomics.resume(this.master, () => this.master.sanitize.resume());
  }

  private makeUnit(kind: 'master' | 'slave', medium: Medium, options: ScsiTargetOptions): LogicalUnit {
    return new LogicalUnit(
      {
        kind,
        medium,
        physicalBlockBytes: options.physicalBlockBytes ?? PHYSICAL_BYTES,
        writeSameToEnd: options.writeSameToEnd ?? false,
        identity: identify(options.name, options.uuid, kind),
        modes: new ModePages(kind, options.state, options.log),
        services: this.services,
      },
      {
        tasks: (unit) => new TaskSet(execute, () => unit.refresh()),
        reservations: (unit) => new Reservations(unit, kind, options.state, options.log),
        sanitize: (unit) => new Sanitize(unit, options.sanitizeBytesPerSecond ?? SANITIZE_BYTES_PER_SECOND),
      },
    );
  }

  // ---- ScsiPort

  attach(options: NexusOptions): Nexus {
    const nexus = new Nexus(options);
    nexus.relativePort = this.ports.byPortalGroup(options.portalGroupTag).relativeId;
    this.nexuses.add(nexus);
    this.connect(nexus, options.luns);
    this.services.holds.returned(nexus);
    const before = this.former.get(formerKey(nexus));
    for (const path of nexus.paths) {
      if (path === undefined) continue;
      if (path.unit.removable) this.announceMedium(path);
      else
        path.attention(
          before === undefined
            ? SENSE.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED
            : SENSE.I_T_NEXUS_LOSS_OCCURRED,
        );
    }
    nexus.announced = true;
    return nexus;
  }

  detach(nexus: Nexus, why: NexusEnd): void {
    if (!nexus.attached) return;
    nexus.attached = false;
    this.nexuses.delete(nexus);
    this.former.delete(formerKey(nexus));
    this.former.set(formerKey(nexus), why);
    if (this.former.size > FORMER_MAX) {
      const [oldest] = this.former.keys();
      this.former.delete(oldest);
    }
    for (const path of [...nexus.paths]) if (path !== undefined) this.disconnect(path);
    if (why === 'logout') this.services.holds.release(nexus);
    else this.services.holds.lost(nexus);
  }

  changeAccess(nexus: Nexus, luns: readonly LunAccess[]): void {
    const same = (path: Path, access: LunAccess | undefined): boolean =>
      access?.unit === path.unit.kind && access.readOnly === path.readOnly;
    for (const path of [...nexus.paths]) {
      if (path === undefined) continue;
      if (
        !same(
          path,
          luns.find(({ lun }) => lun === path.lun),
        )
      ) {
        this.disconnect(path);
        if (path.unit.removable) this.services.holds.release(nexus);
      }
    }
    this.connect(nexus, luns);
    for (const path of nexus.paths) path?.attention(SENSE.REPORTED_LUNS_DATA_HAS_CHANGED);
  }

  submit(task: Task): void {
    const path = findPath(task);
    if (path === undefined) {
      executeAbsent(task, isLunZero(task));
      return;
    }
    task.unit = path;
    task.phase = PHASE.RUNNING;
    task.flags = 0;
    task.pending = 0;
    task.result = 0;
    task.scratch = undefined;
    if ((path.special || task.attribute > 1) && !admit(task, path)) return;
    execute(task);
    // The task object may by now have ended and serve another command: that one is looked at, which does no harm.
    if (task.phase === PHASE.RUNNING) path.unit.tasks.track(task);
  }

  commandsCleared(nexus: Nexus, lunHigh: number, lunLow: number): void {
    const path = findPath({ nexus, lunHigh, lunLow });
    path?.attention(SENSE.SOME_COMMANDS_CLEARED_BY_ISCSI_PROTOCOL_EVENT);
  }

  manage(request: TaskManagementRequest, done: (response: number, additional: number) => void): void {
    manage(request, [this.master, this.slave], done);
  }

  // ---- what the daemon tells and asks

  /** The slave was enabled: a new medium is in. Every nexus is told, but the one whose START STOP UNIT loaded it. */
  mediumLoaded(): void {
    this.slave.refresh();
    for (const path of this.slave.paths) {
      if (path.nexus === this.services.loadingNexus) this.markTold(path);
      else path.attention(SENSE.NOT_READY_TO_READY_CHANGE);
    }
  }

  /** The slave was disabled: from now on NOT READY, MEDIUM NOT PRESENT. Unit attentions of a medium that is gone go too. */
  mediumRemoved(): void {
    for (const path of this.slave.paths) path.dropAttention(SENSE.NOT_READY_TO_READY_CHANGE);
    this.slave.refresh();
  }

  /**
   * A rollback: the master's content is another. 28h/00h is what SBC-5 §4.4 has for a medium that may have changed, and
   * it makes every initiator forget what it knew; on a fixed disk Linux retries the command after it, so nothing fails.
   */
  masterChanged(): void {
    this.master.attention(SENSE.NOT_READY_TO_READY_CHANGE);
  }

  /** Both units have another size (SBC-5 §4.4: CAPACITY DATA HAS CHANGED). */
  capacityChanged(): void {
    this.master.attention(SENSE.CAPACITY_DATA_HAS_CHANGED);
    if (this.slave.medium.present) this.slave.attention(SENSE.CAPACITY_DATA_HAS_CHANGED);
  }

  /** The initiators that prevent removal of the slave's medium. */
  slaveHolders(): NexusName[] {
    return this.services.holds.all().map(({ initiator, address }) => ({ initiator, address }));
  }

  /** For a forced disable: nobody prevents removal any more. */
  clearPrevents(): void {
    this.services.holds.releaseAll();
  }

  /** The nexuses that have read or changed the master's medium within the last half minute, or hold tasks there. */
  masterInUse(): NexusName[] {
    const since = Date.now() - LATELY_MS;
    const busy = new Set([...this.master.tasks.all()].map(pathOf));
    return names(this.master, (path) => path.lastUseMs > since || busy.has(path));
  }

  /** How long commands took, and how many are under way or wait. */
  performance(): Record<'master' | 'slave', { queueDepth: number; latencies: Latencies }> {
    const of = ({ tasks, latencies }: LogicalUnit) => ({ queueDepth: tasks.depth, latencies });
    return { master: of(this.master), slave: of(this.slave) };
  }

  /** Commands that take this long, in milliseconds, are told in the log; Infinity: none. */
  set slowMs(slowMs: number) {
    this.master.slowMs = slowMs;
    this.slave.slowMs = slowMs;
  }

  statistics(): { master: Readonly<UnitStatistics>; slave: Readonly<UnitStatistics> } {
    return { master: this.master.statistics, slave: this.slave.statistics };
  }

  // ---- inside

  private connect(nexus: Nexus, luns: readonly LunAccess[]): void {
    nexus.luns = luns;
    for (const access of luns) {
      if (nexus.paths[access.lun] !== undefined) continue;
      const unit = access.unit === 'master' ? this.master : this.slave;
      const path = new Path(nexus, access.lun, unit, access.readOnly);
      nexus.paths[access.lun] = path;
      unit.paths.add(path);
    }
  }

  /** SAM-6 §6.3.4: tasks and SCSI-2 reservations end with the nexus; prevention, see Holds. */
  private disconnect(path: Path): void {
    const { unit, nexus } = path;
    unit.tasks.abort((task) => task.unit === path);
    if (unit.reservations.reservedBy === path) unit.reservations.reservedBy = undefined;
    unit.paths.delete(path);
    nexus.paths[path.lun] = undefined;
    if (this.services.loadingNexus === nexus) this.services.loadingNexus = undefined;
    unit.refresh();
  }

  /**
   * What a new nexus hears of the medium that is in: nothing if it knows it; MEDIUM MAY HAVE CHANGED if it knew another
   * one, since it may hold stale data; and power on, which says everything, if it has never seen one.
   */
  private announceMedium(path: Path): void {
    const { medium } = path.unit;
    if (!medium.present) return;
    const told = this.notices.lastTold(path.nexus.initiatorPort);
    if (told === medium.generation) return;
    path.attention(
      told === undefined
        ? SENSE.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED
        : SENSE.NOT_READY_TO_READY_CHANGE,
    );
  }

  private attentionReported(path: Path, code: number): void {
    if (!path.unit.removable || !path.unit.medium.present) return;
    if (
      code === SENSE.NOT_READY_TO_READY_CHANGE ||
      code === SENSE.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED
    )
      this.markTold(path);
  }

  private markTold(path: Path): void {
    const attached = [...this.nexuses].map((nexus) => nexus.initiatorPort);
    this.notices.tell(path.nexus.initiatorPort, path.unit.medium.generation, attached);
  }

  private changeAccessStates(
    changes: readonly { state: number; port: TargetPort }[],
    by: Nexus,
    done: () => void,
  ): void {
    for (const { state, port } of changes) {
      port.state = state;
      port.statusCode = 1;
    }
    for (const unit of [this.master, this.slave]) {
      unit.refresh();
      for (const path of unit.paths) {
        if (path.nexus !== by && !path.unit.removable) path.attention(SENSE.ASYMMETRIC_ACCESS_STATE_CHANGED);
      }
    }
    this.ports.save((error) => {
      if (error !== undefined)
        this.services.log.warn(
          { err: error },
          'access states not kept: a restart brings back the configured ones',
        );
      done();
    });
  }
}

function formerKey(nexus: Nexus): string {
  return `${nexus.relativePort} ${nexus.initiatorPort}`;
}

function names(unit: LogicalUnit, matches: (path: Path) => boolean): NexusName[] {
  return [...unit.paths]
    .filter(matches)
    .map(({ nexus }) => ({ initiator: nexus.initiatorName, address: nexus.address }));
}
