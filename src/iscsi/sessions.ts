/**
 * The sessions of all targets: creation, reinstatement and end (RFC 7143 §4.3, §6.3.5, §11.12.6 and §11.13.3).
 */
import { ISCSI_NO_VERSION } from '../scsi/nexus.js';
import type { LunAccess, NexusEnd } from '../scsi/port.js';
import { LOGIN_STATUS, type LoginStatus } from './constants.js';
import type { Negotiation } from './negotiation.js';
import type { IscsiLimits, IscsiTargetOptions, Log } from './options.js';
import { Session, type SessionConnection, type SessionIdentity } from './session.js';

export interface EnterRequest {
  connection: SessionConnection;
  target: IscsiTargetOptions;
  luns: readonly LunAccess[];
  address: string;
  identity: SessionIdentity;
  /** As requested; 0: a new session. */
  tsih: number;
  cid: number;
  cmdSN: number;
  /** For the connection in the place of which this one comes. */
  expStatSN: number;
  negotiation: Negotiation;
}

const TSIH_MAX = 0xffff;
/** Connections of all sessions that are gone and whose tasks live on; of more, some end before their time. */
const LOST_MAX = 64;

export class Sessions {
  readonly #limits: IscsiLimits;
  readonly #log: Log;
  readonly #byTsih = new Map<number, Session>();
  /** Of discovery sessions. */
  readonly #lent = new Set<number>();
  #lastTsih = 0;
  /** The target is shutting down: nothing is kept for later. */
  closing = false;

  constructor(limits: IscsiLimits, log: Log) {
    this.#limits = limits;
    this.#log = log;
  }

  all(): Session[] {
    return [...this.#byTsih.values()];
  }

  byTsih(tsih: number): Session | undefined {
    return this.#byTsih.get(tsih);
  }

  /** Lets a login in: a new session, or a connection of one that exists. */
  enter(request: EnterRequest): { status: LoginStatus; session?: Session } {
    if (request.tsih !== 0) return this.#join(request);
    // The same initiator port logs in anew: its old session is over (session reinstatement, §6.3.5).
    const old = this.find(request.target.name, request.identity);
    if (old !== undefined) this.end(old, 'reinstated', 'replaced by a new login of the same initiator port');
    return this.#create(request);
  }

  /** The session of an initiator port with a target's portal group: there is one at most (ISID rule, §4.4.3). */
  find(targetName: string, identity: Omit<SessionIdentity, 'user'>): Session | undefined {
    return this.all().find(
      (session) =>
        session.target.name === targetName &&
        session.identity.initiatorName === identity.initiatorName &&
        session.identity.isid === identity.isid &&
        session.identity.portalGroupTag === identity.portalGroupTag,
    );
  }

  #create(request: EnterRequest): { status: LoginStatus; session?: Session } {
    const { target, identity, luns, address } = request;
    const tsih = this.#takeTsih();
    if (tsih === undefined) return { status: LOGIN_STATUS.OUT_OF_RESOURCES };
    const made: { session?: Session } = {};
    const nexus = target.port.attach({
      initiatorName: identity.initiatorName,
      initiatorPort: `${identity.initiatorName},i,0x${identity.isid}`,
      portalGroupTag: identity.portalGroupTag,
      transportVersion: ISCSI_NO_VERSION + Number(request.negotiation.value('iSCSIProtocolLevel')),
      luns,
      address,
      onAttention: (lun, sense) => {
        // What a session's own reset brought up is no news to it.
        if (made.session?.endingOwnTasks === false) made.session.anyConnection()?.scsiEvent(lun, sense);
      },
    });
    const session = new Session(tsih, request, nexus, this.#limits.commandWindow);
    made.session = session;
    session.lost.onAdded = () => this.#boundLost();
    session.lost.onExpired = () => {
      if (session.connections.size === 0 && session.lost.size === 0)
        this.end(session, 'connection-lost', 'no connection came back in time');
    };
    session.connections.set(request.cid, request.connection);
    this.#byTsih.set(tsih, session);
    this.#told(session, request);
    return { status: LOGIN_STATUS.SUCCESS, session };
  }

  /** A session may have many connections, from several addresses: each is told. */
  #told({ tsih, connections }: Session, { target, identity, address, cid }: EnterRequest): void {
    const { initiatorName: initiator, user } = identity;
    this.#log.info(
      { target: target.name, initiator, address, session: tsih, user, cid, connections: connections.size },
      'login',
    );
  }

  /**
   * A login with a TSIH: one more connection of the session, or one in the place of another with the same CID. It has to
   * be the same user's, and may not see other LUNs than the session does.
   */
  #join(request: EnterRequest): { status: LoginStatus; session?: Session } {
    const session = this.#byTsih.get(request.tsih);
    const known = session !== undefined && this.find(request.target.name, request.identity) === session;
    if (!known || session.ending) return { status: LOGIN_STATUS.SESSION_DOES_NOT_EXIST };
    if (session.identity.user !== request.identity.user)
      return { status: LOGIN_STATUS.AUTHORIZATION_FAILURE };
    if (JSON.stringify(session.nexus.luns) !== JSON.stringify(request.luns))
      return { status: LOGIN_STATUS.CANNOT_INCLUDE_IN_SESSION };
    const old = session.connections.get(request.cid);
    if (old === undefined && session.connections.size >= session.connectionsMax)
      return { status: LOGIN_STATUS.TOO_MANY_CONNECTIONS };
    // Connection reinstatement (§6.3.4): the old connection is logged out, with its tasks or for their recovery; the
    // session goes on.
    session.connections.set(request.cid, request.connection);
    if (old !== undefined) {
      if (session.recoversConnections) {
        session.acknowledge(old, request.expStatSN);
        session.suspend(old, true);
      } else session.detach(old);
      old.drop('its connection was reinstated');
    }
    session.lost.logOut(request.cid, request.expStatSN);
    session.lost.prune();
    this.#told(session, request);
    return { status: LOGIN_STATUS.SUCCESS, session };
  }

  #takeTsih(): number | undefined {
    for (let tries = 0; tries < TSIH_MAX; tries++) {
      this.#lastTsih = this.#lastTsih === TSIH_MAX ? 1 : this.#lastTsih + 1;
      if (!this.#byTsih.has(this.#lastTsih) && !this.#lent.has(this.#lastTsih)) return this.#lastTsih;
    }
    return undefined;
  }

  /** A session handle for a session that is none of these; undefined if there is none left. */
  lendTsih(): number | undefined {
    const tsih = this.#takeTsih();
    if (tsih !== undefined) this.#lent.add(tsih);
    return tsih;
  }

  takeBackTsih(tsih: number): void {
    this.#lent.delete(tsih);
  }

  /** The tasks of lost connections are kept; of too many, those of the session that has most of them go first. */
  #boundLost(): void {
    const all = this.all();
    if (all.reduce((sum, { lost }) => sum + lost.size, 0) <= LOST_MAX) return;
    const most = all.reduce((a, b) => (b.lost.size > a.lost.size ? b : a));
    most.lost.dropOldest();
  }

  /**
   * A connection is gone: its tasks end, and with the last connection the session (§4.2.6), unless they may be recovered
   * (§7.14).
   */
  leave(session: Session, connection: SessionConnection, how: NexusEnd, why: string): void {
    if (session.connections.get(connection.cid) !== connection) return;
    const recovers = how === 'connection-lost' && this.#recovers(session, connection);
    if (!recovers && session.connections.size === 1 && session.lost.size === 0) {
      this.end(session, how, why);
      return;
    }
    if (recovers) {
      session.suspend(connection, false);
      session.anyConnection()?.announceLoss(connection.cid);
    } else session.detach(connection);
    const { initiatorName: initiator } = session.identity;
    const { cid, remoteAddress: address } = connection;
    this.#log.info(
      { target: session.target.name, initiator, address, session: session.tsih, cid, why },
      recovers
        ? 'connection lost: its commands wait to be reassigned'
        : 'connection ended: its session goes on',
    );
  }

  #recovers(session: Session, connection: SessionConnection): boolean {
    return session.recoversConnections && !connection.loggedOut && !this.closing;
  }

  /** Ends a session: its connections, its tasks, its nexus. */
  end(session: Session, how: NexusEnd, why: string): void {
    if (!this.#byTsih.delete(session.tsih)) return;
    const connections = [...session.connections.values()];
    session.connections.clear();
    session.lost.clear();
    session.fence.close();
    if (how === 'killed') for (const connection of connections) connection.announceEnd();
    session.manager.close();
    for (const { host } of connections) if (host !== undefined) session.order.drop(host);
    session.endsOwnTasks(() => session.target.port.detach(session.nexus, how));
    session.abandonHeld();
    for (const connection of connections) connection.drop(why);
    this.#log.info(
      {
        target: session.target.name,
        initiator: session.identity.initiatorName,
        address: session.nexus.address,
        session: session.tsih,
        how,
        why,
      },
      'session ended',
    );
  }
}
