/** The running daemon: the only place that joins configuration, engine, SCSI, iSCSI and control socket. */
import { isDeepStrictEqual } from 'node:util';
import { MetricsServer } from '../admin/metrics-server.js';
import type { MetricsAddress } from '../admin/metrics-server.js';
import { AdminServer } from '../admin/server.js';
import type { Configuration, LogLevel } from '../config/configuration.js';
import { emptyCounters } from '../iscsi/counters.js';
import { IscsiServer } from '../iscsi/server.js';
import type { IscsiService, SessionInfo } from '../iscsi/options.js';
import { OperationalError } from '../operational-error.js';
import { packageVersion } from '../package-root.js';
import { answer } from './commands.js';
import type { DaemonLog } from './log.js';
import { openPartition } from './open-partition.js';
import type { OpenPartition } from './partition-engine.js';
import { Health } from './health.js';
import { renderPrometheus } from './prometheus.js';
import { explainListenError } from './listen-error.js';
import { planReload } from './reload.js';
import type { ReloadReport } from './reload.js';
import { ServedTarget } from './served-target.js';
import { sessionStatus } from './status.js';
import type { DaemonStatus, PortalStatus } from './status.js';

export interface DaemonOptions {
  configuration: Configuration;
  /** Reads the configuration again, for reload; undefined if it came from the command line. */
  reread?: { file: string; load: () => Configuration };
  log: DaemonLog;
  /** Sockets that a service manager listens at, for the portals that have their addresses. */
  inheritedFds?: readonly number[];
  /** For tests: something else than the engine. */
  openPartition?: OpenPartition;
}

export class Daemon {
  readonly #options: DaemonOptions;
  readonly #startedAt = new Date();
  readonly #targets = new Map<string, ServedTarget>();
  #configuration: Configuration;
  #service: IscsiService | undefined;
  #admin: AdminServer | undefined;
  #metrics: MetricsServer | undefined;
  readonly #health = new Health();
  #portals: PortalStatus[] = [];
  #closing: Promise<void> | undefined;
  #reloading: Promise<unknown> = Promise.resolve();

  private constructor(options: DaemonOptions) {
    this.#options = options;
    this.#configuration = options.configuration;
  }

  /**
   * Opens every partition, then the control socket, then the portals. Whatever fails, all is closed again.
   * @throws {OperationalError} as the partitions and the control socket do, and PORTAL_UNUSABLE
   */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const daemon = new Daemon(options);
    try {
      await daemon.#start();
      return daemon;
    } catch (error) {
      await daemon.close();
      throw error;
    }
  }

  async #start(): Promise<void> {
    const { configuration, log } = this.#options;
    for (const target of configuration.targets) this.#targets.set(target.name, await this.#open(target));
    this.#admin = await AdminServer.listen(
      configuration.controlSocket,
      (request) => answer(this, request),
      log,
    );
    const { metrics } = configuration;
    if (metrics !== undefined) this.#metrics = await this.#openMetrics(metrics);
    const service = new IscsiServer({
      portals: configuration.portals,
      ...(this.#options.inheritedFds === undefined ? {} : { inheritedFds: this.#options.inheritedFds }),
      ...this.#served(),
      limits: configuration.limits,
      log,
    });
    try {
      this.#portals = await service.listen();
    } catch (error) {
      throw explainListenError(error, (this.#options.inheritedFds?.length ?? 0) > 0);
    }
    this.#service = service;
  }

  #openMetrics(address: MetricsAddress): Promise<MetricsServer> {
    const source = { metrics: () => renderPrometheus(this.status()), fault: () => this.#fault() };
    return MetricsServer.listen(address, source, this.#options.log);
  }

  #fault(): string | undefined {
    const failed = this.targets.filter(({ partition }) => partition.status().failed !== undefined);
    if (failed.length === 0) return undefined;
    return `takes no more writes: ${failed.map(({ name }) => name).join(', ')}`;
  }

  #open(target: Configuration['targets'][number]): Promise<ServedTarget> {
    const { log, openPartition: open = openPartition } = this.#options;
    const tags = [...new Set(this.#configuration.portals.map(({ portalGroupTag }) => portalGroupTag))];
    const alone = (): boolean => this.#service?.alone ?? false;
    return ServedTarget.open(target, tags, open, log, alone).then((served) => {
      served.slowIoMs = this.#configuration.slowIoMs;
      return served;
    });
  }

  #served() {
    const { discoveryAuthentication } = this.#configuration;
    return {
      targets: [...this.#targets.values()].map((target) => target.iscsiOptions()),
      discoveryAuthentication: () => discoveryAuthentication,
    };
  }

  get portals(): readonly PortalStatus[] {
    return this.#portals;
  }

  get targets(): readonly ServedTarget[] {
    return [...this.#targets.values()];
  }

  /** The target of that name, or the only one. @throws {OperationalError} NO_SUCH_TARGET, TARGET_AMBIGUOUS */
  target(name: string | undefined): ServedTarget {
    const names = [...this.#targets.keys()].join(', ');
    if (name === undefined) {
      const [only, ...others] = this.#targets.values();
      if (others.length > 0) throw new OperationalError('TARGET_AMBIGUOUS', `say which target: ${names}`);
      return only;
    }
    const target = this.#targets.get(name.toLowerCase());
    if (target === undefined)
      throw new OperationalError('NO_SUCH_TARGET', `no target ${name} here, only ${names}`);
    return target;
  }

  /** Normal and discovery sessions. */
  sessions(): readonly SessionInfo[] {
    return this.#service?.sessions() ?? [];
  }

  killSession(id: number): boolean {
    const found = this.sessions().find((session) => session.id === id);
    const killed = this.#service?.kill(id) ?? false;
    const { target, initiator, address } = found ?? {};
    if (killed)
      this.#options.log.info({ session: id, target, initiator, address, by: 'operator' }, 'session killed');
    return killed;
  }

  status(): DaemonStatus {
    const sessions = this.sessions();
    return {
      version: packageVersion(),
      pid: process.pid,
      startedAt: this.#startedAt.toISOString(),
      configuration: this.#options.reread?.file ?? null,
      controlSocket: this.#configuration.controlSocket,
      logLevel: this.#options.log.level,
      portals: this.#portals.map(({ host, port, portalGroupTag }) => ({ host, port, portalGroupTag })),
      targets: this.targets.map((target) => target.status(sessions)),
      metrics: this.#metrics?.address ?? null,
      iscsi: {
        ...(this.#service?.counters ?? emptyCounters()),
        connections: this.#service?.connections ?? 0,
        failedLogins: this.#service?.failedLogins ?? 0,
      },
      health: this.#health.status(),
      discoverySessions: sessions.filter(({ target }) => target === undefined).map(sessionStatus),
    };
  }

  get logLevel(): LogLevel {
    return this.#options.log.level;
  }

  set logLevel(level: LogLevel) {
    this.#options.log.level = level;
  }

  /**
   * Takes over what changed in the configuration file, or only says what that is. Whatever is wrong with it, nothing
   * changes.
   */
  reload({ dryRun = false } = {}): Promise<ReloadReport> {
    const run = this.#reloading.then(() => this.#reload(dryRun));
    this.#reloading = run.catch(() => undefined);
    return run;
  }

  async #reload(dryRun: boolean): Promise<ReloadReport> {
    const { reread, log } = this.#options;
    if (reread === undefined)
      throw new OperationalError(
        'NO_CONFIGURATION',
        'this daemon was started without a configuration file: restart it instead',
      );
    const next = reread.load();
    const report = planReload(this.#configuration, next);
    if (dryRun) return report;
    const opened = await this.#openAll(next.targets.filter(({ name }) => report.added.includes(name)));
    let metrics: MetricsServer | undefined;
    try {
      metrics = await this.#openNewMetrics(next.metrics);
      this.#portals = (await this.#service?.setPortals(next.portals)) ?? this.#portals;
    } catch (error) {
      for (const target of opened) await target.close();
      await metrics?.close();
      throw explainListenError(error);
    }
    // From here on nothing can fail.
    const removed = report.removed.map((name) => this.target(name));
    for (const { name } of removed) this.#targets.delete(name);
    for (const target of opened) this.#targets.set(target.name, target);
    for (const target of next.targets) this.#targets.get(target.name)?.reconfigure(target);
    // What needs a restart stays as it is.
    const { controlSocket, limits } = this.#configuration;
    const before = this.#metrics;
    if (report.settings.includes('metrics')) this.#metrics = metrics;
    this.#configuration = { ...next, controlSocket, limits };
    for (const target of this.#targets.values()) target.slowIoMs = next.slowIoMs;
    log.level = next.logLevel;
    this.#service?.update(this.#served());
    for (const target of removed) await target.close();
    if (before !== this.#metrics) await before?.close();
    log.info({ ...report }, 'configuration reloaded');
    return report;
  }

  /** Undefined if the address is what it was, or there shall be none. */
  async #openNewMetrics(address: MetricsAddress | undefined): Promise<MetricsServer | undefined> {
    if (address === undefined || isDeepStrictEqual(address, this.#configuration.metrics)) return undefined;
    return await this.#openMetrics(address);
  }

  /** Opens all or none. */
  async #openAll(targets: readonly Configuration['targets'][number][]): Promise<ServedTarget[]> {
    const opened: ServedTarget[] = [];
    try {
      for (const target of targets) opened.push(await this.#open(target));
      return opened;
    } catch (error) {
      for (const target of opened) await target.close();
      throw error;
    }
  }

  /** Asks initiators to log out, drops who doesn't in time, makes everything durable and lets go of it. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const failures: unknown[] = [];
    const attempt = async (step: Promise<void> | undefined): Promise<void> => {
      await step?.catch((error: unknown) => failures.push(error));
    };
    await attempt(this.#service?.close(this.#configuration.shutdownGraceMs));
    await this.#reloading;
    for (const target of this.#targets.values()) await attempt(target.close());
    await attempt(this.#admin?.close());
    await attempt(this.#metrics?.close());
    this.#health.close();
    if (failures.length > 0) throw failures[0];
  }
}
