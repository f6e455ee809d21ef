/**
 * Every text key of RFC 7143 §13 (and RFC 7144 §7, RFC 7143 §12 for AuthMethod), in one table.
 *
 * `result` is the function that makes one value of an offer and our own wish; 'declare' keys have no result: each
 * side says its own value, and the other obeys it. 'ask' is a question, 'refuse' a key that nothing is agreed on by.
 */
import type { IscsiLimits } from './options.js';

export type KeyResult = 'and' | 'or' | 'minimum' | 'maximum' | 'choose' | 'declare' | 'ask' | 'refuse';

export interface KeyRule {
  readonly name: string;
  /** RFC clause. */
  readonly clause: string;
  readonly kind: 'boolean' | 'number' | 'list' | 'text';
  readonly result: KeyResult;
  /** Stages of the login in which it may appear: security, operational, both, or none of them. */
  readonly stages: 'security' | 'operational' | 'any' | 'none';
  /** May it appear in a text request of the full feature phase? */
  readonly fullFeature: boolean;
  /** Only in the leading login of a session (scope "LO" and session-wide keys). */
  readonly leadingOnly: boolean;
  /** Who may send it first. */
  readonly sender: 'initiator' | 'target' | 'both';
  /** Irrelevant in a discovery session (§13). */
  readonly normalOnly: boolean;
  readonly range?: readonly [low: number, high: number];
  /** Value in force when nobody mentions the key. */
  readonly initial: boolean | number | string | undefined;
  /** What this target wants. */
  readonly wish?: (limits: IscsiLimits) => boolean | number | readonly string[];
}

type Common = Pick<KeyRule, 'stages' | 'fullFeature' | 'leadingOnly' | 'sender' | 'normalOnly'>;
/** Session-wide, negotiated once in the leading login's operational stage. */
const SESSION: Common = {
  stages: 'operational',
  fullFeature: false,
  leadingOnly: true,
  sender: 'both',
  normalOnly: true,
};
const SESSION_ANY_TYPE: Common = { ...SESSION, normalOnly: false };
const CONNECTION: Common = { ...SESSION, leadingOnly: false, normalOnly: false };

const BURST: readonly [number, number] = [512, 0xffffff];

export const KEYS: readonly KeyRule[] = [
  {
    ...CONNECTION,
    name: 'AuthMethod',
    clause: 'RFC 7143 §12',
    kind: 'list',
    result: 'choose',
    stages: 'security',
    initial: undefined,
  },
  ...['CHAP_A', 'CHAP_I', 'CHAP_C', 'CHAP_N', 'CHAP_R'].map(authentication),
  ...['KRB_AP_REQ', 'KRB_AP_REP'].map(authentication),
  ...['SRP_U', 'SRP_GROUP', 'SRP_A', 'SRP_B', 'SRP_M', 'SRP_HM', 'SRP_N', 'SRP_g', 'SRP_s'].map(
    authentication,
  ),
  {
    ...CONNECTION,
    name: 'HeaderDigest',
    clause: 'RFC 7143 §13.1',
    kind: 'list',
    result: 'choose',
    initial: 'None',
    wish: () => ['CRC32C', 'None'],
  },
  {
    ...CONNECTION,
    name: 'DataDigest',
    clause: 'RFC 7143 §13.1',
    kind: 'list',
    result: 'choose',
    initial: 'None',
    wish: () => ['CRC32C', 'None'],
  },
  {
    ...SESSION,
    name: 'MaxConnections',
    clause: 'RFC 7143 §13.2',
    kind: 'number',
    result: 'minimum',
    range: [1, 65535],
    initial: 1,
    wish: (limits) => limits.maxConnections,
  },
  declared('InitiatorName', 'RFC 7143 §13.5', 'initiator', true),
  declared('TargetName', 'RFC 7143 §13.4', 'initiator', true),
  declared('InitiatorAlias', 'RFC 7143 §13.7', 'initiator', true, true),
  declared('TargetAlias', 'RFC 7143 §13.6', 'target', true, true),
  declared('TargetAddress', 'RFC 7143 §13.8', 'target', false, true),
  declared('TargetPortalGroupTag', 'RFC 7143 §13.9', 'target', true),
  declared('SessionType', 'RFC 7143 §13.21', 'initiator', true),
  declared('X#NodeArchitecture', 'RFC 7143 §13.26', 'both', true),
  {
    ...CONNECTION,
    name: 'SendTargets',
    clause: 'RFC 7143 §13.3',
    kind: 'text',
    result: 'ask',
    stages: 'none',
    fullFeature: true,
    sender: 'initiator',
    initial: undefined,
  },
  obsolete('IFMarker', 'boolean'),
  obsolete('OFMarker', 'boolean'),
  obsolete('IFMarkInt', 'text'),
  obsolete('OFMarkInt', 'text'),
  {
    ...SESSION,
    name: 'InitialR2T',
    clause: 'RFC 7143 §13.10',
    kind: 'boolean',
    result: 'or',
    initial: true,
    wish: (limits) => limits.initialR2T,
  },
  {
    ...SESSION,
    name: 'ImmediateData',
    clause: 'RFC 7143 §13.11',
    kind: 'boolean',
    result: 'and',
    initial: true,
    wish: (limits) => limits.immediateData,
  },
  {
    ...CONNECTION,
    name: 'MaxRecvDataSegmentLength',
    clause: 'RFC 7143 §13.12',
    kind: 'number',
    result: 'declare',
    fullFeature: true,
    range: BURST,
    initial: 8192,
  },
  {
    ...SESSION,
    name: 'MaxBurstLength',
    clause: 'RFC 7143 §13.13',
    kind: 'number',
    result: 'minimum',
    range: BURST,
    initial: 262144,
    wish: (limits) => limits.maxBurstBytes,
  },
  {
    ...SESSION,
    name: 'FirstBurstLength',
    clause: 'RFC 7143 §13.14',
    kind: 'number',
    result: 'minimum',
    range: BURST,
    initial: 65536,
    wish: (limits) => limits.firstBurstBytes,
  },
  {
    ...SESSION_ANY_TYPE,
    name: 'DefaultTime2Wait',
    clause: 'RFC 7143 §13.15',
    kind: 'number',
    result: 'maximum',
    range: [0, 3600],
    initial: 2,
    wish: (limits) => limits.time2WaitSeconds,
  },
  {
    ...SESSION_ANY_TYPE,
    name: 'DefaultTime2Retain',
    clause: 'RFC 7143 §13.16',
    kind: 'number',
    result: 'minimum',
    range: [0, 3600],
    initial: 20,
    // Below level 2 nothing outlives its connection.
    wish: (limits) => (limits.errorRecoveryLevel < 2 ? 0 : limits.time2RetainSeconds),
  },
  {
    ...SESSION,
    name: 'MaxOutstandingR2T',
    clause: 'RFC 7143 §13.17',
    kind: 'number',
    result: 'minimum',
    range: [1, 65535],
    initial: 1,
    wish: (limits) => limits.maxOutstandingR2T,
  },
  {
    ...SESSION,
    name: 'DataPDUInOrder',
    clause: 'RFC 7143 §13.18',
    kind: 'boolean',
    result: 'or',
    initial: true,
    wish: () => false,
  },
  {
    ...SESSION,
    name: 'DataSequenceInOrder',
    clause: 'RFC 7143 §13.19',
    kind: 'boolean',
    result: 'or',
    initial: true,
    wish: () => false,
  },
  {
    ...SESSION_ANY_TYPE,
    name: 'ErrorRecoveryLevel',
    clause: 'RFC 7143 §13.20',
    kind: 'number',
    result: 'minimum',
    range: [0, 2],
    initial: 0,
    wish: (limits) => limits.errorRecoveryLevel,
  },
  {
    ...SESSION,
    name: 'TaskReporting',
    clause: 'RFC 7143 §13.23',
    kind: 'list',
    result: 'choose',
    initial: 'RFC3720',
    wish: () => ['FastAbort', 'ResponseFence', 'RFC3720'],
  },
  {
    ...SESSION,
    name: 'iSCSIProtocolLevel',
    clause: 'RFC 7144 §7.1.1',
    kind: 'number',
    result: 'minimum',
    range: [0, 31],
    initial: 1,
    wish: () => 2,
  },
];

function declared(
  name: string,
  clause: string,
  sender: KeyRule['sender'],
  leadingOnly: boolean,
  fullFeature = false,
): KeyRule {
  return {
    name,
    clause,
    kind: 'text',
    result: 'declare',
    stages: 'any',
    fullFeature,
    leadingOnly,
    sender,
    normalOnly: false,
    initial: undefined,
  };
}

/** A step of an authentication method (chap.ts): out of its place, or of another method, it is known and refused (§6.2). */
function authentication(name: string): KeyRule {
  return {
    ...CONNECTION,
    name,
    clause: 'RFC 7143 §12.1',
    kind: 'text',
    result: 'refuse',
    stages: 'security',
    initial: undefined,
  };
}

/** Markers: known, so that they are not answered by NotUnderstood, and never agreed on. */
function obsolete(name: string, kind: 'boolean' | 'text'): KeyRule {
  return {
    ...CONNECTION,
    name,
    clause: 'RFC 7143 §13.25',
    kind,
    result: 'refuse',
    stages: 'any',
    fullFeature: true,
    initial: undefined,
  };
}

/** The rule of a key; undefined: the answer is NotUnderstood (§6.2). */
export const keyRule = (name: string): KeyRule | undefined => BY_NAME.get(name);
const BY_NAME: ReadonlyMap<string, KeyRule> = new Map(KEYS.map((rule) => [rule.name, rule]));
