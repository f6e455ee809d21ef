/**
 * Which discovery sessions there are (RFC 7143 §7.4.2). Each is known by the initiator port and by what it asked: the
 * network portal if it named no target (§7.4.2.1), else the target and its portal group (§7.4.2.2), as a normal session
 * is. A new session of the same kind and place ends the old one.
 */
import { LOGIN_STATUS, type LoginStatus } from './constants.js';
import type { Sessions } from './sessions.js';

/** A connection in a discovery session. */
export interface DiscoveryConnection {
  drop(why: string): void;
}

/** What a discovery session is known by. */
export interface DiscoveryIdentity {
  initiatorName: string;
  /** Six bytes in hexadecimal. */
  isid: string;
  /** Undefined: the session is unnamed. */
  targetName: string | undefined;
  portalGroupTag: number;
  /** Address and port that the initiator reached. */
  portal: string;
}

export class DiscoverySessions {
  readonly #sessions: Sessions;
  readonly #byIdentity = new Map<string, { connection: DiscoveryConnection; tsih: number }>();

  /** `sessions`: the normal ones, beside which these stand. */
  constructor(sessions: Sessions) {
    this.#sessions = sessions;
  }

  /**
   * Lets a login in and ends the session of the same identity. One that names a target is under the ISID rule with the
   * normal sessions, but never ends that of a user whom it has not proved to be. `tsih`: as requested.
   */
  enter(
    identity: DiscoveryIdentity,
    tsih: number,
    connection: DiscoveryConnection,
  ): { status: LoginStatus; tsih: number } {
    // It has one connection (§4.3).
    if (tsih !== 0) return { status: LOGIN_STATUS.SESSION_DOES_NOT_EXIST, tsih: 0 };
    const { targetName } = identity;
    const normal = targetName === undefined ? undefined : this.#sessions.find(targetName, identity);
    if (normal?.identity.user !== undefined) return { status: LOGIN_STATUS.AUTHORIZATION_FAILURE, tsih: 0 };
    if (normal !== undefined)
      this.#sessions.end(normal, 'reinstated', 'replaced by a discovery session of the same initiator port');
    this.end(identity);
    const lent = this.#sessions.lendTsih();
    if (lent === undefined) return { status: LOGIN_STATUS.OUT_OF_RESOURCES, tsih: 0 };
    this.#byIdentity.set(keyOf(identity), { connection, tsih: lent });
    return { status: LOGIN_STATUS.SUCCESS, tsih: lent };
  }

  /** A normal session of a target ends a discovery session that named it, too. */
  end(identity: DiscoveryIdentity): void {
    const old = this.#byIdentity.get(keyOf(identity));
    if (old === undefined) return;
    this.#forget(keyOf(identity), old.tsih);
    old.connection.drop('replaced by a new login of the same initiator port');
  }

  /** The connection is gone. */
  leave(connection: DiscoveryConnection): void {
    for (const [key, one] of this.#byIdentity) if (one.connection === connection) this.#forget(key, one.tsih);
  }

  #forget(key: string, tsih: number): void {
    this.#byIdentity.delete(key);
    this.#sessions.takeBackTsih(tsih);
  }
}

const keyOf = ({ initiatorName, isid, targetName, portalGroupTag, portal }: DiscoveryIdentity): string =>
  JSON.stringify([
    initiatorName,
    isid,
    ...(targetName === undefined ? [portal] : [targetName, portalGroupTag]),
  ]);
