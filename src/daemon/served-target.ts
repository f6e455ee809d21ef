/**
 * One target as the daemon serves it: the partition's engine and the SCSI target over it, and what an operator or an
 * initiator may do to the slave.
 *
 * Order of a medium change: the engine makes the new state visible and resolves its promise; from there to
 * `mediumLoaded` only promise reactions run, no I/O callback. So no initiator's command can come between, and none
 * sees the new medium without its unit attention.
 */
import { OperationalError } from '../operational-error.js';
import type { AccessState, TargetConfiguration } from '../config/configuration.js';
import { lunsFor } from '../config/access.js';
import type { IscsiTargetOptions, Log, SessionInfo } from '../iscsi/options.js';
import { findMounted } from '../cow/quiet.js';
import { Background } from '../scsi/background.js';
import { MEDIUM } from '../scsi/medium.js';
import type { ChangeMap, Medium } from '../scsi/medium.js';
import type { Nexus } from '../scsi/nexus.js';
import type { LunAccess } from '../scsi/port.js';
import { ScsiTarget } from '../scsi/target.js';
import type { ControlDone, NexusName } from '../scsi/target.js';
import type { OpenPartition, PartitionEngine, PartitionStatus } from './partition-engine.js';
import { isRefusal } from '../admin/refusals.js';
import { targetStatus } from './status.js';
import type { TargetStatus } from './status.js';
import { messageOf } from '../thrown.js';

/** Who asked, for the log. */
export interface By {
  by: string;
  address?: string;
}

export const OPERATOR: By = { by: 'operator' };

/** One for all: the users of every target share the event loop. */
const background = new Background();

export class ServedTarget {
  readonly partition: PartitionEngine;
  readonly scsi: ScsiTarget;
  readonly #log: Log;
  #configuration: TargetConfiguration;
  /** Changes of the slave's medium run one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(
    configuration: TargetConfiguration,
    partition: PartitionEngine,
    tags: readonly number[],
    log: Log,
  ) {
    this.#configuration = configuration;
    this.partition = partition;
    this.#log = log;
    const { master, slave, state, uuid } = partition;
    const control = {
      load: (nexus: Nexus, done: ControlDone) => this.#load(nexus, done),
      eject: (nexus: Nexus, done: ControlDone) => this.#eject(nexus, done),
    };
    const { name } = configuration;
    partition.onFailure((error) => {
      log.error(
        { target: name, why: error.message },
        'the partition failed and takes no more writes: check the device',
      );
    });
    const { physicalBlockBytes = 4096, writeSameToEnd = false } = configuration;
    const { accessStates = new Map<number, AccessState>() } = configuration;
    const changes = { changedRanges: this.#changedRanges.bind(this) };
    const limits = { physicalBlockBytes, writeSameToEnd };
    const access = { portalGroupTags: tags, accessStates, control, changes, log };
    this.scsi = new ScsiTarget({ name, uuid, master, slave, state, background, ...limits, ...access });
  }

  static async open(
    configuration: TargetConfiguration,
    tags: readonly number[],
    openPartition: OpenPartition,
    log: Log,
    alone: () => boolean = () => false,
  ): Promise<ServedTarget> {
    const partition = await openPartition(configuration.partition, alone);
    try {
      return new ServedTarget(configuration, partition, tags, log);
    } catch (error) {
      await partition.close();
      throw error;
    }
  }

  get name(): string {
    return this.#configuration.name;
  }

  get configuration(): TargetConfiguration {
    return this.#configuration;
  }

  /** Takes over what may change while the target is served: everything but name and partition. */
  reconfigure(configuration: TargetConfiguration): void {
    this.#configuration = configuration;
  }

  /** A command that takes this long is logged, in milliseconds; 0: none. */
  set slowIoMs(slowIoMs: number) {
    this.scsi.slowMs = slowIoMs === 0 ? Infinity : slowIoMs;
  }

  iscsiOptions(): IscsiTargetOptions {
    const { name, alias, access, authentication, redirect, sessionLimits } = this.#configuration;
    const options: IscsiTargetOptions = {
      name,
      port: this.scsi,
      access: (asker) => lunsFor(access, asker),
      authentication: () => authentication,
    };
    if (alias !== undefined) options.alias = alias;
    if (sessionLimits !== undefined) options.limits = sessionLimits;
    if (redirect !== undefined)
      options.moved = ({ portalGroupTag }) =>
        redirect.portalGroupTag === undefined || redirect.portalGroupTag === portalGroupTag
          ? redirect
          : undefined;
    return options;
  }

  status(sessions: readonly SessionInfo[]): TargetStatus {
    const own = sessions.filter(({ target }) => target === this.name);
    return targetStatus(this.#configuration, this.partition, this.scsi, own);
  }

  enable(options: { crashConsistent?: boolean }, by: By = OPERATOR): Promise<PartitionStatus['slave']> {
    return this.#inTurn(async () => {
      const { crashConsistent = false } = options;
      try {
        const enabled = await this.partition.enableSlave({ crashConsistent });
        this.scsi.mediumLoaded();
        const { generation } = enabled;
        this.#log.info({ target: this.name, generation, crashConsistent, ...by }, 'slave enabled');
        return enabled;
      } catch (error) {
        throw this.#noted('slave not enabled', error, by);
      }
    });
  }

  /** @throws {OperationalError} SLAVE_HELD unless `force`, NOT_ENABLED. */
  disable(options: { force?: boolean }, by: By = OPERATOR): Promise<void> {
    return this.#inTurn(async () => {
      const holders = this.scsi.slaveHolders();
      try {
        if (holders.length > 0 && options.force !== true) throw held(this.name, holders);
        await this.partition.disableSlave();
        this.scsi.clearPrevents();
        this.scsi.mediumRemoved();
        this.#log.info({ target: this.name, forced: holders.length > 0, ...by }, 'slave disabled');
      } catch (error) {
        throw this.#noted('slave not disabled', error, by);
      }
    });
  }

  /**
   * The master becomes the slave's image. Somebody uses the master who lately read or wrote there, or who is logged in
   * while a file system on it says that it is mounted.
   * @throws {OperationalError} MASTER_IN_USE unless `force`, NOT_ENABLED.
   */
  rollback(options: { force?: boolean }, sessions: readonly SessionInfo[], by: By = OPERATOR): Promise<void> {
    return this.#inTurn(async () => {
      const users = this.#masterUsers(sessions);
      try {
        if (users.length > 0 && options.force !== true) throw masterInUse(this.name, users);
        await this.partition.rollback();
        this.scsi.masterChanged();
        this.#log.info({ target: this.name, forced: users.length > 0, ...by }, 'master rolled back');
      } catch (error) {
        throw this.#noted('master not rolled back', error, by);
      }
    });
  }

  grow(): Promise<object> {
    return this.#inTurn(async () => {
      const before = this.partition.master.capacityBytes;
      const result = await this.partition.grow().catch((error: unknown) => {
        throw this.#noted('partition not grown', error, OPERATOR);
      });
      const capacityBytes = this.partition.master.capacityBytes;
      if (capacityBytes !== before) {
        this.scsi.capacityChanged();
        this.#log.info({ target: this.name, capacityBytes, ...OPERATOR }, 'partition grown');
      }
      return result;
    });
  }

  /**
   * The same changes, only looked at: what they would come to, with the errors that they would end with.
   * @throws {OperationalError} as each of them does
   */
  readonly would = {
    enable: ({ crashConsistent }: { crashConsistent: boolean }): { generation: number } => {
      const { enabled, generation } = this.partition.status().slave;
      if (enabled) throw alreadyEnabled(this.name);
      if (!crashConsistent) this.partition.requireQuiet();
      return { generation: generation + 1 };
    },
    disable: ({ force }: { force: boolean }): { generation: number } => {
      const { generation } = this.#requireEnabled();
      const holders = this.scsi.slaveHolders();
      if (holders.length > 0 && !force) throw held(this.name, holders);
      return { generation };
    },
    rollback: (
      { force }: { force: boolean },
      sessions: readonly SessionInfo[],
    ): { generation: number; divergedBytes: number; initiators: string[] } => {
      const { generation, divergedBytes } = this.#requireEnabled();
      const users = this.#masterUsers(sessions);
      if (users.length > 0 && !force) throw masterInUse(this.name, users);
      const initiators = sessions.filter(({ target }) => target === this.name).map((one) => one.initiator);
      return { generation, divergedBytes, initiators };
    },
    grow: (): object => this.partition.planGrow(),
  };

  #requireEnabled(): PartitionStatus['slave'] {
    const { slave } = this.partition.status();
    if (slave.enabled) return slave;
    throw new OperationalError('NOT_ENABLED', `the slave of ${this.name} is not enabled`);
  }

  /** Ends a change under way, then makes everything durable. Sessions must be gone. */
  async close(): Promise<void> {
    await this.#inTurn(() => this.partition.close());
  }

  #masterUsers(sessions: readonly SessionInfo[]): NexusName[] {
    const lately = this.scsi.masterInUse();
    if (lately.length > 0 || !masterSaysMounted(this.partition.master)) return lately;
    const { access } = this.#configuration;
    const masters = new Set(
      access.flatMap(({ luns }) => luns.filter(({ unit }) => unit === 'master').map(({ lun }) => lun)),
    );
    return sessions.filter(
      ({ target, luns }) => target === this.name && luns.some((lun) => masters.has(lun)),
    );
  }

  /** For GET LBA STATUS (32), as the configuration allows. */
  #changedRanges(since: number, position: number, end: number): ReturnType<ChangeMap['changedRanges']> {
    const { generation } = this.partition.status().slave;
    if (this.#configuration.reportChanges !== true || since > generation) return undefined;
    return this.partition.changes(since, { position, end }).ranges;
  }

  #load(nexus: Nexus, done: ControlDone): void {
    if (!(slaveAccess(nexus)?.mayLoad ?? this.#configuration.allowLoad)) {
      done({
        code: 'not-allowed',
        message: 'the configuration does not allow this initiator to enable the slave (allowLoad)',
      });
      return;
    }
    settle(this.enable({}, by(nexus)), done);
  }

  #eject(nexus: Nexus, done: ControlDone): void {
    if (!(slaveAccess(nexus)?.mayEject ?? this.#configuration.allowEject)) {
      done({
        code: 'not-allowed',
        message: 'the configuration does not allow this initiator to disable the slave (allowEject)',
      });
      return;
    }
    settle(this.disable({}, by(nexus)), done);
  }

  #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const run = this.#last.then(change);
    this.#last = run.catch(() => undefined);
    return run;
  }

  #noted(what: string, error: unknown, by: By): unknown {
    const why = messageOf(error);
    this.#log[isRefusal(error) ? 'warn' : 'error']({ target: this.name, why, ...by }, what);
    return error;
  }
}

/** How the nexus sees the slave, by the access rule that let it in. */
function slaveAccess({ luns }: Nexus): LunAccess | undefined {
  return luns.find(({ unit }) => unit === 'slave');
}

function by(nexus: Nexus): By {
  return { by: nexus.initiatorName, address: nexus.address };
}

function list(names: readonly NexusName[]): string {
  return names.map(({ initiator, address }) => `${initiator} (${address})`).join(', ');
}

function held(target: string, holders: readonly NexusName[]): OperationalError {
  return new OperationalError(
    'SLAVE_HELD',
    `the slave of ${target} is mounted or open at ${list(holders)}: unmount it there first, or use --force`,
  );
}

function alreadyEnabled(target: string): OperationalError {
  return new OperationalError(
    'ALREADY_ENABLED',
    `the slave of ${target} is enabled already: disable it first`,
  );
}

function masterInUse(target: string, users: readonly NexusName[]): OperationalError {
  return new OperationalError(
    'MASTER_IN_USE',
    `the master of ${target} is in use by ${list(users)}: unmount it and log out there, or use --force`,
  );
}

/** Whether a file system on the master says that it is mounted. An unreadable master is not a reason to say so. */
function masterSaysMounted(master: Medium): boolean {
  const read = (position: number, buffer: Buffer): void => {
    if (master.read(position, buffer, 0, buffer.length) !== MEDIUM.OK) buffer.fill(0);
  };
  return findMounted(read, master.capacityBytes).length > 0;
}

/** Tells START STOP UNIT how the change ended. */
function settle(change: Promise<unknown>, done: ControlDone): void {
  change.then(
    () => done(),
    (error: unknown) => {
      const message = messageOf(error);
      const inUse = error instanceof OperationalError && error.code === 'SLAVE_HELD';
      done({ code: inUse ? 'in-use' : 'failed', message });
    },
  );
}
