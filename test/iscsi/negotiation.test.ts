/** Text, names, keys and their negotiation (RFC 7143 §4.2.7, §6, §13). */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { KEYS } from '../../src/iscsi/keys.js';
import { normaliseName } from '../../src/iscsi/names.js';
import { Negotiation } from '../../src/iscsi/negotiation.js';
import { DEFAULT_LIMITS } from '../../src/iscsi/options.js';
import { serialAdd, serialDistance } from '../../src/iscsi/serial.js';
import { PACKAGE_ROOT } from '../../src/package-root.js';
import { formatText, parseBinary, parseNumber, parseText } from '../../src/iscsi/text.js';

void t.test('text: pairs end with NUL, and come back as they went (RFC 7143 §6.1)', (t) => {
  const pairs: [string, string][] = [
    ['InitiatorName', 'iqn.2026-11.example:a'],
    ['X-com.example', 'a=b'],
    ['SendTargets', ''],
  ];
  t.same(parseText(formatText(pairs)), pairs);
  t.same(parseText(Buffer.from('A=1\0\0B=2')), [['A', '1'], ['B', '2']], 'padding and a missing last NUL are borne'); // prettier-ignore
  for (const bad of ['=1\0', 'novalue\0', '1lower=1\0', `A=${'x'.repeat(8193)}\0`, `${'A'.repeat(64)}=1\0`])
    t.throws(() => parseText(Buffer.from(bad)), { name: 'TextError' }, bad.slice(0, 20));
  t.end();
});

void t.test('text: numbers and binary values, decimal, hexadecimal and base64 (RFC 7143 §6.1)', (t) => {
  t.equal(parseNumber('262144'), 262144);
  t.equal(parseNumber('0x40000'), 262144);
  for (const bad of ['', '-1', '01', '1k', '0x', '1e3', '9'.repeat(20)])
    t.equal(parseNumber(bad), undefined, bad);
  t.same(parseBinary('0x00ff', 16), Buffer.from([0, 255]));
  t.same(parseBinary('0xfff', 16), Buffer.from([15, 255]), 'an odd number of digits');
  t.same(parseBinary('0bAP8=', 16), Buffer.from([0, 255]));
  for (const bad of ['00ff', '0bA', '0xzz', `0x${'00'.repeat(17)}`])
    t.equal(parseBinary(bad, 16), undefined, bad);
  t.end();
});

void t.test('names: iqn, eui and naa, compared in lower case (RFC 7143 §4.2.7)', (t) => {
  t.equal(normaliseName('IQN.2026-11.Example:Host.1'), 'iqn.2026-11.example:host.1');
  t.equal(normaliseName('eui.02004567A425678D'), 'eui.02004567a425678d');
  t.equal(normaliseName('naa.52004567BA64678D'), 'naa.52004567ba64678d');
  t.equal(normaliseName('iqn.1993-08.org.debian:01:cbf2d38e'), 'iqn.1993-08.org.debian:01:cbf2d38e');
  for (const bad of [
    '',
    'iqn',
    'iqn.2026-13.example',
    'eui.123',
    `iqn.2026-11.example:${'x'.repeat(220)}`,
    'iqn.2026-11.example:a b',
    'iqn.2026-11.example:%n',
    'iqn.2026-11.example:\0',
  ])
    // prettier-ignore
    t.equal(normaliseName(bad), undefined, JSON.stringify(bad).slice(0, 40));
  t.end();
});

void t.test('serial arithmetic wraps (RFC 1982)', (t) => {
  t.equal(serialAdd(0xffffffff, 1), 0);
  t.equal(serialDistance(0, 0xffffffff), 1);
  t.equal(serialDistance(0xfffffff0, 5), -21);
  t.end();
});

void t.test('keys: each has its clause, and a wish where a result is made (RFC 7143 §13)', (t) => {
  for (const rule of KEYS) {
    t.match(rule.clause, /^RFC 714[34] §/, rule.name);
    if (!['declare', 'ask', 'refuse'].includes(rule.result) && rule.name !== 'AuthMethod')
      t.type(rule.wish, 'function', rule.name);
    if (rule.kind === 'number') t.ok(rule.range, `${rule.name} has a range`);
  }
  t.end();
});

void t.test('negotiation: results by the key’s function (RFC 7143 §6.2, §13)', (t) => {
  const n = new Negotiation({ ...DEFAULT_LIMITS, maxConnections: 8 });
  const offers: [string, string, string | undefined][] = [
    ['HeaderDigest', 'CRC32C,None', 'CRC32C'],
    ['DataDigest', 'None,CRC32C', 'None'],
    ['InitialR2T', 'No', 'No'],
    ['ImmediateData', 'Yes', 'Yes'],
    ['MaxBurstLength', '16776192', '1048576'],
    ['FirstBurstLength', '0x10000', '65536'],
    ['MaxOutstandingR2T', '1', '1'],
    ['MaxConnections', '9', '8'],
    ['ErrorRecoveryLevel', '2', '0'],
    ['DefaultTime2Wait', '5', '5'],
    ['DataPDUInOrder', 'No', 'No'],
    ['DataSequenceInOrder', 'Yes', 'Yes'],
    ['MaxRecvDataSegmentLength', '131072', undefined],
    ['TaskReporting', 'FastAbort,RFC3720', 'FastAbort'],
    ['iSCSIProtocolLevel', '2', '2'],
    ['IFMarker', 'No', 'No'],
    ['OFMarkInt', '1~2', 'Reject'],
    ['X-example', '1', 'NotUnderstood'],
    ['TargetPortalGroupTag', '1', 'Reject'],
  ];
  for (const [key, value, answer] of offers)
    t.equal(n.offer(key, value, 'operational'), answer, `${key}=${value}`);
  t.match(n.parameters(), {
    headerDigest: true,
    dataDigest: false,
    initialR2T: false,
    immediateData: true,
    maxBurstBytes: 1048576,
    firstBurstBytes: 65536,
    maxSendDataSegmentBytes: 131072,
    taskReporting: 'FastAbort',
  });
  t.end();
});

void t.test('negotiation: what nobody mentions stands at the standard’s default (RFC 7143 §13)', (t) => {
  t.match(new Negotiation(DEFAULT_LIMITS).parameters(), {
    headerDigest: false,
    dataDigest: false,
    initialR2T: true,
    immediateData: true,
    maxBurstBytes: 262144,
    firstBurstBytes: 65536,
    maxOutstandingR2T: 1,
    maxSendDataSegmentBytes: 8192,
    taskReporting: 'RFC3720',
    protocolLevel: 1,
    errorRecoveryLevel: 0,
    time2WaitSeconds: 2,
    time2RetainSeconds: 20,
  });
  t.end();
});

void t.test('negotiation: values out of range are rejected and change nothing (RFC 7143 §6.2)', (t) => {
  const bad: [string, string][] = [
    ['MaxBurstLength', '511'],
    ['MaxBurstLength', '16777216'],
    ['MaxRecvDataSegmentLength', '0'],
    ['MaxOutstandingR2T', '0'],
    ['InitialR2T', 'yes'],
    ['HeaderDigest', 'MD5'],
    ['ErrorRecoveryLevel', '3'],
  ];
  for (const [key, value] of bad) {
    const n = new Negotiation(DEFAULT_LIMITS);
    const before = n.parameters();
    t.equal(n.offer(key, value, 'operational'), 'Reject', `${key}=${value}`);
    t.same(n.parameters(), before);
  }
  t.end();
});

void t.test('negotiation: repeated keys and keys of another stage (RFC 7143 §6.2, §13)', (t) => {
  const n = new Negotiation(DEFAULT_LIMITS);
  n.offer('MaxBurstLength', '65536', 'operational');
  t.throws(() => n.offer('MaxBurstLength', '65536', 'operational'), { name: 'NegotiationError' });
  t.throws(() => n.offer('InitialR2T', 'No', 'security'), { name: 'NegotiationError' });
  n.restart();
  t.equal(n.offer('InitialR2T', 'No', 'full-feature'), 'Reject', 'settled at login');
  t.equal(n.offer('MaxRecvDataSegmentLength', '4096', 'full-feature'), undefined);
  t.equal(n.parameters().maxSendDataSegmentBytes, 8192, 'not before the negotiation ends (§6.4)');
  t.ok(n.settle());
  t.equal(n.parameters().maxSendDataSegmentBytes, 4096);
  t.equal(n.offer('MaxRecvDataSegmentLength', '512', 'full-feature'), undefined);
  n.restart();
  t.notOk(n.settle(), 'one that was reset changes nothing');
  t.equal(n.offer('MaxRecvDataSegmentLength', '2048', 'full-feature'), undefined);
  t.throws(
    () => {
      for (let i = 0; i < 200; i++) n.offer(`X-${i}`, '1', 'operational');
    },
    { name: 'NegotiationError' },
  );
  t.end();
});

void t.test('negotiation: irrelevant keys are called so (RFC 7143 §13)', (t) => {
  const discovery = new Negotiation(DEFAULT_LIMITS);
  discovery.discovery = true;
  t.equal(discovery.offer('MaxBurstLength', '65536', 'operational'), 'Irrelevant');
  const n = new Negotiation(DEFAULT_LIMITS);
  n.offer('InitialR2T', 'Yes', 'operational');
  n.offer('ImmediateData', 'No', 'operational');
  t.equal(n.offer('FirstBurstLength', '65536', 'operational'), 'Irrelevant', '§13.14');
  t.end();
});

void t.test('docs/iscsi.md names every key, with what this target wants of it', (t) => {
  const manual = readFileSync(join(PACKAGE_ROOT, 'docs/iscsi.md'), 'utf8');
  const rows = manual.split('\n').filter((line) => line.startsWith('| `'));
  for (const { name, result, wish } of KEYS) {
    t.ok(manual.includes(`\`${name}\``), name);
    const wanted = wish?.(DEFAULT_LIMITS);
    if (typeof wanted !== 'number' || result === 'maximum') continue;
    t.match(
      rows.find((row) => row.includes(`\`${name}\``)),
      new RegExp(`\\b${wanted}\\b`),
      name,
    );
  }
  for (const [, key] of manual.matchAll(/`limits\.(\w+)/g)) t.ok(key in DEFAULT_LIMITS, `limits.${key}`);
  t.end();
});
