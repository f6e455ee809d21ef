/** Addresses and names as people write them in a configuration or on a command line. */
import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';

/** The port of iSCSI (RFC 7143 §14). */
export const ISCSI_PORT = 3260;

/** HOST, HOST:PORT or [IPv6]:PORT; undefined if it is none of them. The host is not looked at. */
export function parseHostPort(
  text: string,
  defaultPort = ISCSI_PORT,
): { host: string; port: number } | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:[\]\s]+))(?::(\d{1,5}))?$/.exec(text);
  if (match === null) return isIP(text) === 6 ? { host: text, port: defaultPort } : undefined;
  const [, bracketed, plain, digits] = match as (string | undefined)[];
  const host = bracketed ?? plain;
  const port = digits === undefined ? defaultPort : Number(digits);
  if (host === undefined || port > 65535 || (bracketed !== undefined && isIP(bracketed) !== 6))
    return undefined;
  return { host, port };
}

/** HOST:PORT with brackets where IPv6 needs them. */
export function formatHostPort(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Whether a text is an IP address or a network ADDRESS/BITS. */
export function isNetwork(text: string): boolean {
  if (!text.includes('/')) return isIP(text) !== 0;
  return isIP(text.split('/')[0]) !== 0 && ipaddr.isValidCIDR(text);
}

/** Whether `address` is the address, or lies in the network, of a rule. IPv4 within IPv6 counts as IPv4. */
export function addressMatches(rule: string, address: string): boolean {
  const bare = address.replace(/%.*$/, '');
  if (!ipaddr.isValid(bare)) return false;
  const asked = ipaddr.process(bare);
  const [network, bits] = rule.includes('/')
    ? ipaddr.parseCIDR(rule)
    : ([ipaddr.process(rule), ipaddr.process(rule).kind() === 'ipv4' ? 32 : 128] as const);
  return asked.kind() === network.kind() && asked.match(network, bits);
}

/** Whether a name fits a pattern with * and ?; in time linear in their product, whatever the pattern. */
export function nameMatches(pattern: string, name: string): boolean {
  let reachable = new Set([0]);
  for (const sign of pattern) {
    const next = new Set<number>();
    if (sign === '*') {
      const first = Math.min(...reachable);
      for (let index = first; index <= name.length; index++) next.add(index);
    } else {
      for (const index of reachable)
        if (index < name.length && (sign === '?' || name[index] === sign)) next.add(index + 1);
    }
    if (next.size === 0) return false;
    reachable = next;
  }
  return reachable.has(name.length);
}
