/** Requirements on a target that no test here shows, with the reason: conformance/matrix.md lists them as such. */
export interface Untested {
  clause: string;
  level: 'MUST' | 'SHOULD' | 'MAY';
  text: string;
  why: string;
}

const NO_RECOVERY = 'error recovery level 2 is not negotiated';

export const untested: readonly Untested[] = [
  {
    clause: 'RFC 7143 §4.2.2.3.3',
    level: 'MUST',
    text: 'in a session of several connections a response with a fence waits until what was sent on the others is acknowledged',
    why: 'not done: the response waits for tasks and data of the other connections only',
  },
  {
    clause: 'RFC 7143 §6.3.4, §7.14',
    level: 'MUST',
    text: 'a login with the CID of a failed connection reinstates it at error recovery level 2',
    why: NO_RECOVERY,
  },
  {
    clause: 'RFC 7143 §7.2.2, §11.5.6',
    level: 'MUST',
    text: 'TASK REASSIGN moves the allegiance of a task to another connection',
    why: NO_RECOVERY,
  },
  {
    clause: 'RFC 7143 §7.5.3, §13.15, §13.16',
    level: 'MUST',
    text: 'Time2Wait and Time2Retain: a task outlives its connection that long',
    why: NO_RECOVERY,
  },
  {
    clause: 'RFC 7143 §11.9.1',
    level: 'MAY',
    text: 'asynchronous event 4 asks for a renegotiation of parameters',
    why: 'never sent: nothing that changes here is worth it, since Linux answers it by dropping the session',
  },
  {
    clause: 'RFC 7143 §9.3',
    level: 'MUST',
    text: 'IPsec is implemented',
    why: 'left to the operating system, as everywhere',
  },
];
