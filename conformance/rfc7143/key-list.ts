/** Text keys that RFC 7143 defines (§12, §13), each with a value that may be offered. */

/** Keys of authentication (§12.1). */
export const AUTHENTICATION_KEYS: readonly (readonly [string, string])[] = [
  ['AuthMethod', 'None'],
  ['CHAP_A', '5'],
  ['CHAP_I', '1'],
  ['CHAP_C', '0x0123456789abcdef'],
  ['CHAP_N', 'user'],
  ['CHAP_R', '0x0123456789abcdef0123456789abcdef'],
  ['KRB_AP_REQ', '0x0123'],
  ['SRP_U', 'user'],
  ['SRP_GROUP', 'SRP-1536'],
];

export const KEYS_OF_RFC: readonly (readonly [string, string])[] = [
  ...AUTHENTICATION_KEYS,
  ['HeaderDigest', 'None'],
  ['DataDigest', 'None'],
  ['MaxConnections', '1'],
  ['SendTargets', 'All'],
  ['InitiatorAlias', 'me'],
  ['TargetAlias', 'you'],
  ['TargetAddress', '192.0.2.1'],
  ['TargetPortalGroupTag', '1'],
  ['InitialR2T', 'Yes'],
  ['ImmediateData', 'Yes'],
  ['MaxRecvDataSegmentLength', '8192'],
  ['MaxBurstLength', '262144'],
  ['FirstBurstLength', '65536'],
  ['DefaultTime2Wait', '2'],
  ['DefaultTime2Retain', '20'],
  ['MaxOutstandingR2T', '1'],
  ['DataPDUInOrder', 'Yes'],
  ['DataSequenceInOrder', 'Yes'],
  ['ErrorRecoveryLevel', '0'],
  ['TaskReporting', 'RFC3720'],
  ['iSCSIProtocolLevel', '1'],
  ['IFMarker', 'No'],
  ['OFMarker', 'No'],
  ['IFMarkInt', '2048~8192'],
  ['OFMarkInt', '2048~8192'],
  ['X#NodeArchitecture', 'test'],
];
