/** Requirements on a target that no test here shows, with the reason: conformance/matrix.md lists them as such. */
export interface Untested {
  clause: string;
  level: 'MUST' | 'SHOULD' | 'MAY';
  text: string;
  why: string;
}

export const untested: readonly Untested[] = [
  {
    clause: 'RFC 7143 §11.9.1',
    level: 'MAY',
    text: 'asynchronous event 4 asks for a renegotiation of parameters',
    why: 'never sent: nothing that changes here is worth it, since Linux answers it by dropping the session',
  },
  {
    clause: 'RFC 7143 §10.2',
    level: 'SHOULD',
    text: 'ACA is supported',
    why: 'it is not: a command with NACA is refused, and no initiator of today is known to send one',
  },
  {
    clause: 'RFC 7143 §9.1, §9.3',
    level: 'MUST',
    text: 'IPsec is implemented',
    why: 'it lies below TCP, in the operating system: the daemon has the same sockets with it and without, and nothing of it is in this program that a test could look at',
  },
];
