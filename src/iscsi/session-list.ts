/** What an operator is told of the sessions (`cldd sessions`). */
import type { Connection } from './connection.js';
import type { SessionInfo } from './options.js';
import type { Session } from './session.js';

/** The address and port that the initiator reached. */
export const localPortal = ({ wire }: Connection): string => `${wire.localAddress}:${wire.localPort}`;

/** Discovery sessions, normal ones by their first connection, and then those that have none left (level 2). */
export function listSessions(connections: Iterable<Connection>, sessions: readonly Session[]): SessionInfo[] {
  const infos: SessionInfo[] = [];
  const seen = new Set<Session>();
  for (const connection of connections) {
    const { phase, session, wire, parameters } = connection;
    if (phase !== 'full-feature' && phase !== 'discovery') continue;
    if (session !== undefined) {
      if (seen.has(session)) continue;
      seen.add(session);
    }
    infos.push({
      ...(session === undefined ? discoveryFields(connection) : sessionFields(session)),
      address: `${wire.remoteAddress}:${wire.remotePort}`,
      portal: localPortal(connection),
      headerDigest: parameters.headerDigest,
      dataDigest: parameters.dataDigest,
    });
  }
  for (const session of sessions) {
    if (seen.has(session) || session.connections.size > 0) continue;
    const { headerDigest, dataDigest } = session.negotiation.parameters();
    infos.push({
      ...sessionFields(session),
      address: session.nexus.address,
      portal: '',
      headerDigest,
      dataDigest,
    });
  }
  return infos;
}

type SessionFields = Omit<SessionInfo, 'address' | 'portal' | 'headerDigest' | 'dataDigest'>;

const sessionFields = ({ tsih, target, identity, connections, nexus, since }: Session): SessionFields => ({
  id: tsih,
  target: target.name,
  initiator: identity.initiatorName,
  connections: connections.size,
  luns: nexus.luns.map(({ lun }) => lun),
  since,
  user: identity.user,
});

const discoveryFields = ({ initiatorName, since }: Connection): SessionFields => ({
  id: 0,
  target: undefined,
  initiator: initiatorName ?? '',
  connections: 1,
  luns: [],
  since,
  user: undefined,
});
