/** What a login asks of the server, and what comes of it. */
import type { LoginStatus } from './constants.js';
import type { Negotiation } from './negotiation.js';
import type { Asker, AuthenticationOptions, IscsiLimits, IscsiTargetOptions } from './options.js';
import type { AnswerFields } from './pdu.js';
import type { TargetRules } from './visibility.js';

/** What the server decides about a login. */
export interface LoginServices {
  readonly limits: IscsiLimits;
  readonly address: string;
  readonly portalGroupTag: number;
  findTarget: (name: string) => IscsiTargetOptions | undefined;
  /** The last rules of a target that is no longer served; undefined: there was none of that name. */
  removedTarget: (name: string) => TargetRules | undefined;
  discoveryAuthentication: (asker: Asker) => AuthenticationOptions;
  /** Told who failed to authenticate; returns how long the answer is to be held back, in ms. */
  refused: (initiator: string, why: string) => number;
  /** What the session of this handle has negotiated, for a login that joins it. */
  negotiationOf: (tsih: number) => Negotiation | undefined;
  /** Creates or joins the session; a status other than SUCCESS refuses. */
  enter: (login: LoginResult) => { status: LoginStatus; tsih: number };
}

/** A login that may enter the full feature phase. */
export interface LoginResult {
  initiatorName: string;
  /** Six bytes in hexadecimal. */
  isid: string;
  /** As requested: 0 for a new session. */
  tsih: number;
  cid: number;
  /** CmdSN of the login, which the first command of the session carries too. */
  cmdSN: number;
  /** Of the first request: for the connection that this login takes the place of (§11.12.9), if there is one. */
  expStatSN: number;
  /** Undefined: a discovery session. */
  target: IscsiTargetOptions | undefined;
  /** Name of the target that the initiator named; a discovery session may name none. */
  targetName: string | undefined;
  user: string | undefined;
  negotiation: Negotiation;
  /** Longest data segment that was declared to the initiator. */
  maxRecvDataSegmentBytes: number;
}

/** What to send, and whether the login ends with it. */
export interface LoginAnswer {
  fields: AnswerFields;
  outcome: 'continue' | 'full-feature' | 'failed';
  /** For the log. */
  why: string | undefined;
  /** Hold the answer back that long. */
  delayMs: number;
  /** What went wrong on this side. */
  error?: unknown;
}
