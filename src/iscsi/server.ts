/**
 * The iSCSI target node: its portals, targets and sessions (RFC 7143 §4.1, §4.3).
 */
import { createServer, type Server, type Socket } from 'node:net';
import { LOGIN_STATUS, type LoginStatus } from './constants.js';
import { emptyCounters } from './counters.js';
import { Connection, type ConnectionServices } from './connection.js';

import { DiscoverySessions } from './discovery-sessions.js';
import { sendTargets, type ListeningPortal } from './discovery.js';
import { FailedLogins } from './failed-logins.js';
import { admission } from './half-open.js';
import type { LoginResult, LoginServices } from './login-services.js';
import type {
  IscsiLimits,
  IscsiServerOptions,
  IscsiService,
  IscsiTargetOptions,
  PortalOptions,
  SessionInfo,
} from './options.js';
import { listSessions, localPortal } from './session-list.js';
import { Sessions } from './sessions.js';
import { attachSocket, plainAddress } from './socket-wire.js';
import type { TargetRules } from './visibility.js';
import { Spin } from './spin.js';

const HOUSEKEEPING_MS = 1000;
const REFUSED_TOLD_MS = 1000;
/** A connection that was silent for so long would hardly notice if the event loop stopped for some milliseconds. */
const COMPANY_MS = 1000;

interface Listener {
  readonly server: Server;
  readonly portal: ListeningPortal;
}

type BoundPortal = Pick<PortalOptions, 'host' | 'port' | 'portalGroupTag'>;

export class IscsiServer implements IscsiService {
  readonly #options: IscsiServerOptions;
  #targets: ReadonlyMap<string, IscsiTargetOptions>;
  /** What was served once: who could see it is told that it is gone. A reload adds to it, so it is bounded by its operator. */
  readonly #removed = new Map<string, TargetRules>();
  #discoveryAuthentication: IscsiServerOptions['discoveryAuthentication'];
  #listeners: Listener[] = [];
  readonly #connections = new Set<Connection>();
  readonly #sessions: Sessions;
  readonly #discovery: DiscoverySessions;
  readonly #spin: Spin;
  /** Who was heard last, and when anybody else was. */
  #lastHeard: Connection | undefined;
  #othersHeardAtMs = -Infinity;
  readonly #failedLogins = new FailedLogins();
  readonly counters = emptyCounters();
  #housekeeping: NodeJS.Timeout | undefined;
  #refusedToldMs = -Infinity;

  constructor(options: IscsiServerOptions) {
    this.#options = options;
    this.#targets = new Map(options.targets.map((target) => [target.name, target]));
    this.#discoveryAuthentication = options.discoveryAuthentication;
    this.#sessions = new Sessions(options.limits, options.log);
    this.#discovery = new DiscoverySessions(this.#sessions);
    this.#spin = new Spin(options.limits.spinUs);
  }

  // ---- portals

  async listen(): Promise<BoundPortal[]> {
    const { portals, inheritedFds = [], log } = this.#options;
    try {
      for (const fd of inheritedFds) {
        const inherited = await this.#open({ fd });
        const { host, boundPort } = inherited.portal;
        const portal = portals.find((one) => one.host === host && one.port === boundPort);
        if (portal === undefined) {
          log.warn({ fd, host, port: boundPort }, 'no portal has the address of this inherited socket');
          this.#listeners = this.#listeners.filter((one) => one !== inherited);
          stop([inherited]);
        } else Object.assign(inherited.portal, portal);
      }
      const isBound = (portal: PortalOptions): boolean =>
        this.#listeners.some((one) => isAt(one.portal, portal));
      for (const portal of portals)
        if (inheritedFds.length === 0 || !isBound(portal)) await this.#open({ portal });
    } catch (error) {
      this.#stopListening();
      throw error;
    }
    this.#housekeeping = setInterval(() => this.#houseKeep(), HOUSEKEEPING_MS);
    this.#housekeeping.unref();
    return this.#bound();
  }

  async setPortals(next: readonly PortalOptions[]): Promise<BoundPortal[]> {
    const before = [...this.#listeners];
    const kept = before.filter(({ portal }) => next.some((one) => isAt(one, portal)));
    const opened: Listener[] = [];
    try {
      for (const portal of next)
        if (!kept.some((one) => isAt(one.portal, portal))) opened.push(await this.#open({ portal }));
    } catch (error) {
      this.#listeners = before;
      stop(opened);
      throw error;
    }
    for (const { portal } of kept) {
      const now = next.find((one) => isAt(one, portal));
      delete portal.advertise;
      Object.assign(portal, now);
    }
    this.#listeners = [...kept, ...opened];
    stop(before.filter((listener) => !kept.includes(listener)));
    return this.#bound();
  }

  #bound(): BoundPortal[] {
    return this.#listeners.map(({ portal: { host, boundPort, portalGroupTag } }) => ({
      host,
      port: boundPort,
      portalGroupTag,
    }));
  }

  /** Listens at a portal's address, or on a socket that does already. */
  #open({ portal, fd }: { portal?: PortalOptions; fd?: number }): Promise<Listener> {
    const listening: ListeningPortal = {
      host: '',
      port: 0,
      portalGroupTag: 1,
      ...portal,
      boundPort: portal?.port ?? 0,
    };
    const server = createServer({ pauseOnConnect: true }, (socket) => this.#accept(socket, listening));
    const { host, port } = listening;
    return new Promise((resolve, reject) => {
      server.once('error', (error) =>
        reject(
          Object.assign(error, { portal: fd === undefined ? `${host}:${port}` : `of descriptor ${fd}` }),
        ),
      );
      server.listen(fd === undefined ? { host, port, backlog: 511 } : { fd }, () => {
        server.removeAllListeners('error');
        server.on('error', (error) =>
          this.#options.log.error({ err: error }, 'accepting connections failed'),
        );
        const address = server.address();
        if (address !== null && typeof address === 'object') {
          listening.boundPort = address.port;
          if (fd !== undefined) listening.host = address.address;
        }
        const listener = { server, portal: listening };
        this.#listeners.push(listener);
        resolve(listener);
      });
    });
  }

  #accept(socket: Socket, portal: ListeningPortal): void {
    const { limits, log } = this.#options;
    const address = plainAddress(socket.remoteAddress);
    // Discovery asks for no more than a name: who has come so far is hardly less of a stranger.
    const halfOpen = [...this.#connections]
      .filter(({ phase }) => phase === 'login' || phase === 'discovery')
      .map((connection) => ({
        connection,
        address: connection.wire.remoteAddress,
        isLogin: connection.phase === 'login',
      }));
    const admitted =
      this.#connections.size >= limits.connectionsMax ? 'refuse' : admission(halfOpen, address, limits);
    if (admitted === 'refuse') {
      this.counters.connectionsRefused++;
      this.#tellRefused({ address, connections: this.#connections.size, halfOpen: halfOpen.length });
      socket.destroy();
      return;
    }
    if (admitted !== 'admit') {
      this.counters.connectionsRefused++;
      this.#tellRefused({ address: admitted.address, halfOpen: halfOpen.length });
      admitted.connection.drop('another login needs the room');
    }
    attachSocket(socket, (wire) => {
      const connection = new Connection(wire, this.#connectionServices(portal));
      this.#connections.add(connection);
      this.counters.connectionsAccepted++;
      log.debug({ address: wire.remoteAddress, port: wire.remotePort }, 'connection accepted');
      return connection;
    });
  }

  /** A flood is told of once a second, so that the log is not what it fills. */
  #tellRefused(fields: object): void {
    const nowMs = performance.now();
    if (nowMs - this.#refusedToldMs < REFUSED_TOLD_MS) return;
    this.#refusedToldMs = nowMs;
    this.#options.log.warn(
      { ...fields, refused: this.counters.connectionsRefused },
      'connection refused: limit reached',
    );
  }

  #connectionServices(portal: ListeningPortal): ConnectionServices {
    const { limits, log } = this.#options;
    return {
      limits,
      log,
      counters: this.counters,
      portalGroupTag: portal.portalGroupTag,
      login: (connection) => this.#loginServices(connection, portal),
      sendTargets: (connection, value) =>
        sendTargets({
          value,
          asker: { initiatorName: connection.initiatorName ?? '', address: connection.wire.remoteAddress },
          ownTarget: connection.session?.target.name,
          localAddress: connection.wire.localAddress,
          targets: [...this.#targets.values()],
          portals: this.#listeners.map((listener) => listener.portal),
        }),
      targetWasReset: (connection) => this.#targetWasReset(connection),
      formatError: ({ session }, why) => {
        if (session !== undefined) this.#sessions.end(session, 'connection-lost', why);
      },
      active: (connection, waits) => {
        this.#note(connection);
        if (!waits) this.#spin.active();
      },
      closed: (connection) => {
        this.#connections.delete(connection);
        if (connection === this.#lastHeard) this.#lastHeard = undefined;
        const { session, ending } = connection;
        log.debug({ address: connection.wire.remoteAddress, why: ending.why }, 'connection closed');
        this.#discovery.leave(connection);
        if (session !== undefined) this.#sessions.leave(session, connection, ending.how, ending.why);
      },
    };
  }

  // ---- login

  #loginServices(connection: Connection, portal: ListeningPortal): LoginServices {
    const { limits, log } = this.#options;
    const address = connection.wire.remoteAddress;
    return {
      limits,
      address,
      portalGroupTag: portal.portalGroupTag,
      findTarget: (name) => this.#targets.get(name),
      removedTarget: (name) => this.#removed.get(name),
      discoveryAuthentication: (asker) => this.#discoveryAuthentication(asker),
      refused: (initiator, why) => {
        const { failures, delayMs } = this.#failedLogins.add(address);
        log.warn({ initiator, address, why, failures }, 'authentication failed');
        return delayMs;
      },
      negotiationOf: (tsih) => this.#sessions.byTsih(tsih)?.negotiation,
      enter: (login) => this.#enter(connection, portal, login),
    };
  }

  #enter(
    connection: Connection,
    portal: ListeningPortal,
    login: LoginResult,
  ): { status: LoginStatus; tsih: number } {
    const { initiatorName, isid, user } = login;
    const { portalGroupTag } = portal;
    const place = { targetName: login.targetName, portalGroupTag, portal: localPortal(connection) };
    if (this.#sessions.closing) return { status: LOGIN_STATUS.SERVICE_UNAVAILABLE, tsih: 0 };
    if (login.target === undefined)
      return this.#discovery.enter({ initiatorName, isid, ...place }, login.tsih, connection);
    // A reload may have come while the login was under way: what holds now counts.
    const target = this.#targets.get(login.target.name);
    if (target === undefined) return { status: LOGIN_STATUS.TARGET_REMOVED, tsih: 0 };
    const address = connection.wire.remoteAddress;
    const asker = { initiatorName, address, portalGroupTag, user };
    const { users } = target.authentication(asker);
    if (users.length > 0 && !users.some(({ name }) => name === user))
      return { status: LOGIN_STATUS.AUTHENTICATION_FAILURE, tsih: 0 };
    const luns = target.access(asker);
    if (luns === undefined) return { status: LOGIN_STATUS.AUTHORIZATION_FAILURE, tsih: 0 };
    const { status, session } = this.#sessions.enter({
      connection,
      target,
      luns,
      address,
      identity: { initiatorName, isid, portalGroupTag, user },
      tsih: login.tsih,
      cid: login.cid,
      cmdSN: login.cmdSN,
      expStatSN: login.expStatSN,
      negotiation: login.negotiation,
    });
    if (session === undefined) return { status, tsih: 0 };
    this.counters.logins++;
    if (login.tsih === 0) this.#discovery.end({ initiatorName, isid, ...place });
    connection.join(session);
    return { status, tsih: session.tsih };
  }

  /** §11.5.1: a cold reset is a power cycle, which ends every connection to the target. */
  #targetWasReset(by: Connection): void {
    const { session } = by;
    if (session === undefined) return;
    for (const other of this.#sessions.all())
      if (other.target.name === session.target.name && other !== session)
        this.#sessions.end(other, 'killed', 'target cold reset');
    session.dropOthers(by.cid, 'target cold reset');
    by.endAfterFlush('target cold reset', 'connection-lost');
  }

  // ---- housekeeping

  #houseKeep(): void {
    const { limits } = this.#options;
    const now = performance.now();
    for (const connection of this.#connections) {
      if (connection.phase === 'login') {
        if (now - connection.openedAtMs > limits.loginTimeoutMs) connection.fail('the login took too long');
        continue;
      }
      if (connection.phase === 'discovery' && now - connection.heardAtMs > discoveryIdleMs(limits)) {
        connection.fail('an idle discovery session');
        continue;
      }
      if (limits.nopIntervalMs === 0 || connection.phase !== 'full-feature') continue;
      const unanswered = connection.pingedAtMs > connection.heardAtMs;
      const waitedMs = now - (unanswered ? connection.pingedAtMs : connection.heardAtMs);
      // Its answer is not read now. Each ping still finds out whether its host has closed or reset the connection.
      if (connection.waitsForMedium) {
        if (waitedMs > limits.nopIntervalMs) connection.ping(now);
      } else if (unanswered) {
        if (waitedMs > limits.nopTimeoutMs) connection.fail('no answer to a NOP-In');
      } else if (waitedMs > limits.nopIntervalMs) connection.ping(now);
    }
    for (const session of this.#sessions.all()) {
      if (session.missesCommandMs(now) < commandGapMs(limits)) continue;
      for (const connection of session.connections.values()) connection.announceEnd();
      this.#sessions.end(session, 'connection-lost', 'a command that others wait for never came');
    }
  }

  // ---- IscsiService

  get connections(): number {
    return this.#connections.size;
  }

  get alone(): boolean {
    return performance.now() - this.#othersHeardAtMs > COMPANY_MS;
  }

  #note(connection: Connection): void {
    if (connection === this.#lastHeard) return;
    this.#othersHeardAtMs = this.#lastHeard?.heardAtMs ?? this.#othersHeardAtMs;
    this.#lastHeard = connection;
  }

  get failedLogins(): number {
    return this.#failedLogins.total;
  }

  sessions(): SessionInfo[] {
    return listSessions(this.#connections, this.#sessions.all());
  }

  kill(id: number): boolean {
    const session = this.#sessions.byTsih(id);
    if (session === undefined) return false;
    this.#sessions.end(session, 'killed', 'ended by the operator');
    return true;
  }

  update(options: Pick<IscsiServerOptions, 'targets' | 'discoveryAuthentication'>): void {
    for (const [name, { access, authentication }] of this.#targets)
      this.#removed.set(name, { access, authentication });
    this.#targets = new Map(options.targets.map((target) => [target.name, target]));
    for (const name of this.#targets.keys()) this.#removed.delete(name);
    this.#discoveryAuthentication = options.discoveryAuthentication;
    for (const session of this.#sessions.all()) {
      const target = this.#targets.get(session.target.name);
      const { initiatorName, portalGroupTag, user } = session.identity;
      const asker = { initiatorName, address: session.nexus.address, portalGroupTag, user };
      const luns = target?.access(asker);
      const users = target?.authentication(asker).users ?? [];
      if (users.length > 0 && !users.some(({ name }) => name === user))
        this.#sessions.end(session, 'killed', 'its CHAP user is not accepted any more');
      else if (luns === undefined) this.#sessions.end(session, 'killed', 'access was withdrawn');
      else if (JSON.stringify(luns) !== JSON.stringify(session.nexus.luns))
        session.target.port.changeAccess(session.nexus, luns);
      // A connection from another address may have lost what its session keeps.
      for (const connection of [...session.connections.values()]) {
        const there = { ...asker, address: connection.remoteAddress };
        if (JSON.stringify(target?.access(there)) === JSON.stringify(luns)) continue;
        this.#sessions.leave(session, connection, 'killed', 'access was withdrawn');
        connection.drop('access was withdrawn');
      }
      session.lost.dropFrom(
        (address) => JSON.stringify(target?.access({ ...asker, address })) !== JSON.stringify(luns),
      );
      if (session.connections.size === 0 && session.lost.size === 0)
        this.#sessions.end(session, 'killed', 'access was withdrawn');
    }
  }

  async close(graceMs: number): Promise<void> {
    clearInterval(this.#housekeeping);
    this.#sessions.closing = true;
    this.#stopListening();
    for (const connection of this.#connections) connection.requestLogout(Math.ceil(graceMs / 1000));
    const deadline = performance.now() + graceMs;
    while (this.#connections.size > 0 && performance.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, Math.min(20, graceMs)));
    for (const connection of this.#connections) {
      connection.announceEnd();
      connection.drop('the target is shutting down');
    }
    // What only waits to be reassigned keeps no session: the others end with their connections.
    for (const session of this.#sessions.all())
      if (session.connections.size === 0)
        this.#sessions.end(session, 'killed', 'the target is shutting down');
      else session.lost.clear();
    const gone = performance.now() + CLOSE_WAIT_MS;
    while (this.#connections.size > 0 && performance.now() < gone)
      await new Promise((resolve) => setTimeout(resolve, 5));
  }

  #stopListening(): void {
    stop(this.#listeners.splice(0));
  }
}

/** The address is free at once; the connections that came by it go on. */
function stop(listeners: readonly Listener[]): void {
  for (const { server } of listeners) if (server.listening) server.close();
}

const isAt = (a: PortalOptions, b: PortalOptions): boolean => a.host === b.host && a.port === b.port;

/** Discovery takes a moment; nobody is asked whether he is still there. */
const discoveryIdleMs = ({ loginTimeoutMs }: IscsiLimits): number => 2 * loginTimeoutMs;

/** An initiator whose command was lost or rejected sends it again, or aborts it, when its own time is up (§7.3, §7.11). */
const commandGapMs = ({ nopTimeoutMs }: IscsiLimits): number => 4 * nopTimeoutMs;

const CLOSE_WAIT_MS = 3000;
