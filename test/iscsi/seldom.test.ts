/** What peers seldom do, and faults of our own, where the wire alone does not show what comes of it. */
import { once } from 'node:events';
import { connect } from 'node:net';
import t from 'tap';
import { digestOf } from '../../conformance/rfc7143/crc32c.js';
import { Session } from '../../conformance/rfc7143/session.js';
import type { Target } from '../../conformance/rfc7143/target.js';
import { isid } from '../../conformance/rfc7143/pdu.js';
import { testUnitReady } from '../../conformance/rfc7143/scsi.js';
import { admission } from '../../src/iscsi/half-open.js';
import { Negotiation } from '../../src/iscsi/negotiation.js';
import { DEFAULT_LIMITS } from '../../src/iscsi/options.js';
import { ReceiveBuffer } from '../../src/iscsi/receive.js';
import { wantsFence } from '../../src/iscsi/response-fence.js';
import { findNextPdu } from '../../src/iscsi/resync.js';
import { SILENT, startServer, TARGET } from './support.js';

/** A header with its digest, and data with theirs if there are any; `damaged` turns a bit of the header behind its digest. */
function pdu(dataBytes: number, { damaged = false, ahsBytes = 0 } = {}): Buffer {
  const header = Buffer.alloc(48 + ahsBytes);
  header[4] = ahsBytes / 4;
  header.writeUIntBE(dataBytes, 5, 3);
  const data = Buffer.alloc(dataBytes + (-dataBytes & 3), 7);
  const sums = [digestOf(header), digestOf(data)];
  if (damaged) header[20] ^= 1;
  return Buffer.concat([header, sums[0], ...(dataBytes > 0 ? [data, sums[1]] : [])]);
}

void t.test(
  'behind a damaged header the next whole one is found, or where to wait for it (RFC 7143 §7.8)',
  (t) => {
    const find = (bytes: Buffer, dataDigest = true): ReturnType<typeof findNextPdu> => {
      const receive = new ReceiveBuffer();
      bytes.copy(receive.buffer);
      receive.end = bytes.length;
      return findNextPdu(receive, dataDigest, 8192);
    };
    const bad = pdu(0, { damaged: true });
    t.equal(find(Buffer.concat([bad, pdu(0)])), 52);
    t.equal(find(Buffer.concat([bad, pdu(0)]), false), 52, 'without data no digest of data is needed');
    t.equal(find(Buffer.concat([pdu(9, { damaged: true }), pdu(0)])), 52 + 12 + 4);
    t.equal(find(Buffer.concat([pdu(9, { damaged: true }), pdu(0)]), false), 'lost');
    t.equal(find(Buffer.concat([bad, bad, pdu(4)])), 104, 'two in a row');
    t.equal(find(Buffer.concat(Array.from({ length: 9 }, () => bad))), 'lost', 'nine');
    t.same(find(Buffer.concat([bad, pdu(0).subarray(0, 20)])), { needBytes: 100 }, 'a header');
    t.same(find(Buffer.concat([bad, pdu(0).subarray(0, 48)])), { needBytes: 104 }, 'its digest');
    t.same(
      find(Buffer.concat([bad, pdu(0, { ahsBytes: 8 }).subarray(0, 50)])),
      { needBytes: 112 },
      'its AHS',
    );
    const large = pdu(0, { damaged: true });
    large.writeUIntBE(8193, 5, 3);
    t.equal(find(large), 'lost', 'more than a segment may have');
    const twice = Buffer.concat([pdu(8192, { damaged: true }), pdu(8192, { damaged: true })]);
    t.equal(find(twice.subarray(0, 16_300)), 'lost', 'more than is ever received at once');
    const data = pdu(8, { damaged: true });
    data[52] ^= 1;
    t.equal(find(Buffer.concat([data, pdu(0)])), 'lost', 'data that are damaged, too');
    t.end();
  },
);

void t.test(
  'a fence is wanted by unit attentions in either format, and by PREEMPT AND ABORT (RFC 7143 §4.2.2.3.4)',
  (t) => {
    const [ready, out] = [Buffer.alloc(16), Buffer.alloc(16)];
    out[0] = 0x5f;
    out[1] = 5;
    const fixed = Buffer.from([0x70, 0, 6]);
    const descriptor = Buffer.from([0x72, 6, 0x29]);
    t.same(
      [fixed, descriptor, Buffer.from([0x70, 6, 5]), Buffer.from([0x72, 5, 6])].map((sense) =>
        wantsFence(ready, 2, sense),
      ),
      [true, true, false, false],
    );
    t.same([wantsFence(ready, 0, undefined), wantsFence(out, 0, undefined)], [false, true]);
    out[1] = 4;
    t.notOk(wantsFence(out, 0, undefined), 'PREEMPT');
    t.end();
  },
);

void t.test('of many half-open logins the address with the most makes room, or nobody', (t) => {
  const from = (address: string, isLogin = true) => ({ address, isLogin });
  const limits = { halfOpenMax: 3, halfOpenPerAddressMax: 3 };
  const there = [from('a'), from('b'), from('b')];
  t.equal(admission(there, 'c', limits), there[1], 'the oldest of who has most');
  t.equal(
    admission([from('b'), from('b'), from('a')], 'b', { ...limits, halfOpenPerAddressMax: 2 }),
    'refuse',
  );
  t.equal(
    admission([from('a', false), from('a', false), from('b')], 'c', limits),
    'admit',
    'two are discovery sessions',
  );
  t.equal(admission(there, 'b', limits), 'refuse', 'it has the most itself');
  t.end();
});

void t.test('what only the leading connection negotiates is refused to the others (RFC 7143 §13)', (t) => {
  const leading = new Negotiation(DEFAULT_LIMITS);
  leading.offer('InitialR2T', 'Yes', 'operational');
  const joining = new Negotiation(DEFAULT_LIMITS);
  joining.join(leading);
  for (const name of ['MaxConnections', 'InitialR2T', 'MaxBurstLength'])
    t.equal(joining.offer(name, name === 'InitialR2T' ? 'No' : '512', 'operational'), 'Reject', name);
  t.equal(joining.value('InitialR2T'), leading.value('InitialR2T'), 'it is the session’s');
  t.equal(joining.offer('HeaderDigest', 'None', 'operational'), 'None', 'each connection has its own');
  t.end();
});

function targetAt(port: number): Target {
  let qualifier = 0x900;
  return {
    ...{ host: '127.0.0.1', port, iqn: TARGET, lun: 0, profile: {}, sessions: [] },
    freshIsid: () => isid(++qualifier),
    stop: () => Promise.resolve(),
  };
}

void t.test('a fault of our own ends its connection alone, and is told to the operator', async (t) => {
  const told: string[] = [];
  const { server, port, memory } = await startServer(
    {},
    {},
    { log: { ...SILENT, error: (_fields, message) => told.push(message) } },
  );
  const target = targetAt(port);
  t.teardown(async () => {
    for (const { connection } of target.sessions) connection.destroy();
    await server.close(0);
  });
  const [first, second] = [
    await Session.login(target, { keepUnitAttention: true }),
    await Session.login(target, { keepUnitAttention: true }),
  ];
  t.equal(server.sessions().length, 2);
  const submit = memory.submit.bind(memory);
  memory.submit = () => {
    throw new Error('a fault of our own');
  };
  const ended = once(first.connection.socket, 'close');
  void first.execute({ cdb: testUnitReady() }).catch(() => undefined);
  await ended;
  memory.submit = submit;
  t.same(told, ['internal error: the connection is dropped']);
  t.equal((await second.execute({ cdb: testUnitReady() })).status, 0, 'the other one goes on');
  t.equal(memory.attached.size, 1);
});

void t.test('sessions are listed, those of discovery too, and ended by their number', async (t) => {
  const { server, port } = await startServer();
  const target = targetAt(port);
  t.teardown(async () => {
    for (const { connection } of target.sessions) connection.destroy();
    await server.close(0);
  });
  const normal = await Session.login(target, { keepUnitAttention: true });
  await Session.login(target, { discovery: true });
  t.match(
    server.sessions().map((session) => session.target),
    [TARGET, undefined],
  );
  t.notOk(server.kill(0xfffe), 'there is no such session');
  const ended = once(normal.connection.socket, 'close');
  t.ok(server.kill(normal.tsih));
  await ended;
  t.equal(server.sessions().length, 1);
});

void t.test(
  'a discovery session takes its requests in the order of CmdSN, and no other (RFC 7143 §4.2.2.1)',
  async (t) => {
    const { server, port } = await startServer();
    const target = targetAt(port);
    t.teardown(async () => {
      for (const { connection } of target.sessions) connection.destroy();
      await server.close(0);
    });
    const session = await Session.login(target, { discovery: true });
    const next = session.takeCmdSN();
    const early = Buffer.alloc(48);
    early[0] = 0x04;
    early[1] = 0x80;
    early.writeUInt32BE(0xffffffff, 20);
    early.writeUInt32BE(77, 16);
    early.writeUInt32BE(next + 5, 24);
    session.connection.socket.write(early);
    session.cmdSN = next;
    t.ok((await session.text([['SendTargets', 'All']])).keys.length > 0, 'the one before it was passed over');
  },
);

void t.test('a portal that cannot be listened on is named by its descriptor or its address', async (t) => {
  const { server, port } = await startServer();
  t.teardown(() => server.close(0));
  await t.rejects(startServer({}, {}, { portals: [{ host: '127.0.0.1', port, portalGroupTag: 1 }] }), {
    code: 'EADDRINUSE',
    portal: `127.0.0.1:${port}`,
  });
  await t.rejects(startServer({}, {}, { inheritedFds: [9999] }), {
    code: /E(?:BADF|INVAL)/,
    portal: 'of descriptor 9999',
  });
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  socket.destroy();
});
