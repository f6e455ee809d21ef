/**
 * The iSCSI target node: its portals, targets and sessions (RFC 7143 §4.1, §4.3).
 */
import { createServer, type Server, type Socket } from 'node:net';
import { LOGIN_STATUS, type LoginStatus } from './constants.js';
import { Connection, type ConnectionServices } from './connection.js';

import { sendTargets, type ListeningPortal } from './discovery.js';
import { FailedLogins } from './failed-logins.js';
import type { LoginResult, LoginServices } from './login.js';
import type {
  IscsiServerOptions,
  IscsiService,
  IscsiTargetOptions,
  PortalOptions,
  SessionInfo,
} from './options.js';
import { Sessions } from './sessions.js';
import { attachSocket, plainAddress } from './socket-wire.js';
import { Spin } from './spin.js';

const HOUSEKEEPING_MS = 1000;

export class IscsiServer implements IscsiService {
  readonly #options: IscsiServerOptions;
  #targets: ReadonlyMap<string, IscsiTargetOptions>;
  #discoveryAuthentication: IscsiServerOptions['discoveryAuthentication'];
  readonly #servers: Server[] = [];
  readonly #portals: ListeningPortal[] = [];
  readonly #connections = new Set<Connection>();
  readonly #sessions: Sessions;
  readonly #spin: Spin;
  readonly #failedLogins = new FailedLogins();
  #housekeeping: NodeJS.Timeout | undefined;

  constructor(options: IscsiServerOptions) {
    this.#options = options;
    this.#targets = new Map(options.targets.map((target) => [target.name, target]));
    this.#discoveryAuthentication = options.discoveryAuthentication;
    this.#sessions = new Sessions(options.limits, options.log);
    this.#spin = new Spin(options.limits.spinUs);
  }

  // ---- portals

  async listen(): Promise<{ host: string; port: number; portalGroupTag: number }[]> {
    try {
      for (const portal of this.#options.portals) await this.#listen(portal);
    } catch (error) {
      await this.#stopListening();
      throw error;
    }
    this.#housekeeping = setInterval(() => this.#houseKeep(), HOUSEKEEPING_MS);
    this.#housekeeping.unref();
    return this.#portals.map(({ host, boundPort, portalGroupTag }) => ({
      host,
      port: boundPort,
      portalGroupTag,
    }));
  }

  #listen(portal: PortalOptions): Promise<void> {
    const listening: ListeningPortal = { ...portal, boundPort: portal.port };
    const server = createServer({ pauseOnConnect: true }, (socket) => this.#accept(socket, listening));
    this.#servers.push(server);
    return new Promise((resolve, reject) => {
      server.once('error', (error) =>
        reject(Object.assign(error, { portal: `${portal.host}:${portal.port}` })),
      );
      server.listen({ host: portal.host, port: portal.port, backlog: 511 }, () => {
        server.removeAllListeners('error');
        server.on('error', (error) =>
          this.#options.log.error({ err: error }, 'accepting connections failed'),
        );
        const address = server.address();
        if (address !== null && typeof address === 'object') listening.boundPort = address.port;
        this.#portals.push(listening);
        resolve();
      });
    });
  }

  #accept(socket: Socket, portal: ListeningPortal): void {
    const { limits, log } = this.#options;
    const address = plainAddress(socket.remoteAddress);
    const halfOpen = [...this.#connections].filter((connection) => connection.phase === 'login');
    const fromThere = halfOpen.filter((connection) => connection.wire.remoteAddress === address);
    if (
      this.#connections.size >= limits.connectionsMax ||
      halfOpen.length >= limits.halfOpenMax ||
      fromThere.length >= limits.halfOpenPerAddressMax
    ) {
      log.warn(
        { address, connections: this.#connections.size, halfOpen: halfOpen.length },
        'connection refused: limit reached',
      );
      socket.destroy();
      return;
    }
    attachSocket(socket, (wire) => {
      const connection = new Connection(wire, this.#connectionServices(portal));
      this.#connections.add(connection);
      log.debug({ address: wire.remoteAddress, port: wire.remotePort }, 'connection accepted');
      return connection;
    });
  }

  #connectionServices(portal: ListeningPortal): ConnectionServices {
    const { limits, log } = this.#options;
    return {
      limits,
      log,
      portalGroupTag: portal.portalGroupTag,
      login: (connection) => this.#loginServices(connection, portal),
      sendTargets: (connection, value) =>
        sendTargets({
          value,
          asker: { initiatorName: connection.initiatorName ?? '', address: connection.wire.remoteAddress },
          ownTarget: connection.session?.target.name,
          localAddress: connection.wire.localAddress,
          targets: [...this.#targets.values()],
          portals: this.#portals,
        }),
      active: () => this.#spin.active(),
      closed: (connection) => {
        this.#connections.delete(connection);
        const { session, ending } = connection;
        log.debug({ address: connection.wire.remoteAddress, why: ending.why }, 'connection closed');
        if (session?.connection === connection) this.#sessions.end(session, ending.how, ending.why);
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
    const { target, initiatorName, user } = login;
    // A discovery session needs no more than a handle that isn't 0 (RFC 7143 §11.13.3).
    if (target === undefined) return { status: LOGIN_STATUS.SUCCESS, tsih: 1 };
    const { portalGroupTag } = portal;
    const address = connection.wire.remoteAddress;
    const luns = target.access({ initiatorName, address, portalGroupTag, user });
    if (luns === undefined) return { status: LOGIN_STATUS.AUTHORIZATION_FAILURE, tsih: 0 };
    const { status, session } = this.#sessions.enter({
      connection,
      target,
      luns,
      address,
      identity: { initiatorName, isid: login.isid, portalGroupTag, user },
      tsih: login.tsih,
      cid: login.cid,
      cmdSN: login.cmdSN,
      negotiation: login.negotiation,
    });
    if (session === undefined) return { status, tsih: 0 };
    connection.join(session);
    return { status, tsih: session.tsih };
  }

  // ---- housekeeping

  #houseKeep(): void {
    const { limits } = this.#options;
    const now = performance.now();
    for (const connection of this.#connections) {
      if (connection.phase === 'login') {
        if (Date.now() - connection.since.getTime() > limits.loginTimeoutMs)
          connection.fail('the login took too long');
        continue;
      }
      if (limits.nopIntervalMs === 0 || connection.phase !== 'full-feature') continue;
      const silentMs = now - connection.heardAtMs;
      if (connection.pingedAtMs > connection.heardAtMs) {
        if (now - connection.pingedAtMs > limits.nopTimeoutMs) connection.fail('no answer to a NOP-In');
      } else if (silentMs > limits.nopIntervalMs) connection.ping(now);
    }
  }

  // ---- IscsiService

  get failedLogins(): number {
    return this.#failedLogins.total;
  }

  sessions(): SessionInfo[] {
    const infos: SessionInfo[] = [];
    for (const connection of this.#connections) {
      const { phase, session, wire, parameters } = connection;
      if (phase !== 'full-feature' && phase !== 'discovery') continue;
      infos.push({
        id: session?.tsih ?? 0,
        target: session?.target.name,
        initiator: connection.initiatorName ?? '',
        address: `${wire.remoteAddress}:${wire.remotePort}`,
        portal: `${wire.localAddress}:${wire.localPort}`,
        luns: session?.nexus.luns.map(({ lun }) => lun) ?? [],
        since: session?.since ?? connection.since,
        user: session?.identity.user,
        headerDigest: parameters.headerDigest,
        dataDigest: parameters.dataDigest,
      });
    }
    return infos;
  }

  kill(id: number): boolean {
    const session = this.#sessions.byTsih(id);
    if (session === undefined) return false;
    this.#sessions.end(session, 'killed', 'ended by the operator');
    return true;
  }

  update(options: Pick<IscsiServerOptions, 'targets' | 'discoveryAuthentication'>): void {
    this.#targets = new Map(options.targets.map((target) => [target.name, target]));
    this.#discoveryAuthentication = options.discoveryAuthentication;
    for (const session of this.#sessions.all()) {
      const target = this.#targets.get(session.target.name);
      const { initiatorName, portalGroupTag, user } = session.identity;
      const luns = target?.access({ initiatorName, address: session.nexus.address, portalGroupTag, user });
      if (luns === undefined) this.#sessions.end(session, 'killed', 'access was withdrawn');
      else if (JSON.stringify(luns) !== JSON.stringify(session.nexus.luns))
        session.target.port.changeAccess(session.nexus, luns);
    }
  }

  async close(graceMs: number): Promise<void> {
    clearInterval(this.#housekeeping);
    const stopped = this.#stopListening();
    for (const connection of this.#connections) connection.requestLogout(Math.ceil(graceMs / 1000));
    const deadline = performance.now() + graceMs;
    while (this.#connections.size > 0 && performance.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, Math.min(20, graceMs)));
    for (const connection of this.#connections) connection.drop('the target is shutting down');
    await stopped;
    const gone = performance.now() + CLOSE_WAIT_MS;
    while (this.#connections.size > 0 && performance.now() < gone)
      await new Promise((resolve) => setTimeout(resolve, 5));
  }

  async #stopListening(): Promise<void> {
    const servers = this.#servers.splice(0);
    this.#portals.length = 0;
    await Promise.all(
      servers.map(
        (server) =>
          new Promise<void>((resolve) => (server.listening ? server.close(() => resolve()) : resolve())),
      ),
    );
  }
}

const CLOSE_WAIT_MS = 3000;
