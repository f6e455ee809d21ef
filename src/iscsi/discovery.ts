/**
 * SendTargets (RFC 7143 Appendix C): which targets, at which addresses, the asker may log in to.
 */
import type { Asker, IscsiTargetOptions, PortalOptions } from './options.js';
import { mightEnter } from './visibility.js';

/** A portal as it is listening, with the address that the asker used. */
export interface ListeningPortal extends PortalOptions {
  /** Port that is bound (differs from `port` when that was 0). */
  boundPort: number;
}

export interface SendTargetsRequest {
  /** Value of the SendTargets key: All, a target's name, or empty for the session's own target. */
  value: string;
  asker: Omit<Asker, 'portalGroupTag' | 'user'>;
  /** Target of this session, if it is a normal one. */
  ownTarget: string | undefined;
  /** The address that the asker reached, which answers for portals that listen on every address. */
  localAddress: string;
  targets: readonly IscsiTargetOptions[];
  portals: readonly ListeningPortal[];
}

/** The answer's pairs, or undefined if the request is not allowed (Reject). */
export function sendTargets(request: SendTargetsRequest): [string, string][] | undefined {
  const { value, ownTarget } = request;
  // "All" belongs to discovery sessions, the empty value to normal ones.
  if (value === 'All' ? ownTarget !== undefined : value === '' && ownTarget === undefined) return undefined;
  const wanted = value === 'All' ? undefined : value === '' ? ownTarget : value.toLowerCase();
  const pairs: [string, string][] = [];
  for (const target of request.targets) {
    if (wanted !== undefined && wanted !== target.name) continue;
    const addresses = request.portals
      .filter((portal) => visible(target, request, portal))
      .map((portal) => `${portalAddress(portal, request.localAddress)},${portal.portalGroupTag}`);
    if (addresses.length === 0) continue;
    pairs.push(['TargetName', target.name]);
    for (const address of new Set(addresses)) pairs.push(['TargetAddress', address]);
  }
  return pairs;
}

function visible(target: IscsiTargetOptions, request: SendTargetsRequest, portal: ListeningPortal): boolean {
  return mightEnter(target, { ...request.asker, portalGroupTag: portal.portalGroupTag, user: undefined });
}

const ANY = new Set(['0.0.0.0', '::', '']);

function portalAddress(portal: ListeningPortal, localAddress: string): string {
  if (portal.advertise !== undefined) return portal.advertise;
  const host = ANY.has(portal.host) ? localAddress : portal.host;
  return `${host.includes(':') ? `[${host}]` : host}:${portal.boundPort}`;
}
