/** Failed authentication: counted, logged with address and name, answered ever later (RFC 7143 §9.2.1). */
import t from 'tap';
import { Connection } from '../../conformance/rfc7143/connection.js';
import { encodeKeys } from '../../conformance/rfc7143/keys.js';
import { loginRequest, OP, STAGE } from '../../conformance/rfc7143/pdu.js';
import { FailedLogins } from '../../src/iscsi/failed-logins.js';
import { SILENT, startServer, TARGET } from './support.js';

void t.test('the first failures are answered at once, later ones after a delay that has a limit', (t) => {
  let now = 0;
  const failed = new FailedLogins(() => now);
  const delays = Array.from({ length: 10 }, () => failed.add('192.0.2.1').delayMs);
  t.same(delays, [0, 0, 0, 100, 200, 400, 500, 500, 500, 500]);
  for (let n = 0; n < 5000; n++) t.ok(failed.add('192.0.2.1').delayMs <= 500);
  t.equal(failed.add('192.0.2.2').delayMs, 0, 'another address does not pay for it');
  now += 60_001;
  t.same(failed.add('192.0.2.1'), { failures: 1, delayMs: 0 }, 'forgotten after a minute');
  t.equal(failed.total, 5012);
  t.end();
});

void t.test('a flood from many addresses is remembered in bounded memory', (t) => {
  const failed = new FailedLogins(() => 0);
  for (let n = 0; n < 10_000; n++) failed.add(`2001:db8::${n.toString(16)}`);
  t.equal(failed.addresses, 4096);
  t.equal(failed.add('2001:db8::270f').failures, 2, 'the last ones are still known');
  t.equal(failed.add('2001:db8::0').failures, 1, 'the first ones are not');
  t.end();
});

void t.test(
  'a wrong secret is logged with address and name, and each further one waits longer',
  async (t) => {
    const warnings: { fields: object; message: string }[] = [];
    const log = {
      ...SILENT,
      warn: (fields: object, message: string) => void warnings.push({ fields, message }),
    };
    const users = [{ name: 'alice', secret: Buffer.from('a secret of sixteen+') }];
    const { server, port } = await startServer(
      {},
      { authentication: () => ({ users, algorithms: ['SHA256'] }) },
      { log },
    );
    const names = {
      InitiatorName: 'iqn.2026-11.example:guesser',
      SessionType: 'Normal',
      TargetName: TARGET,
    };
    const began = performance.now();
    for (let attempt = 0; attempt < 5; attempt++) {
      const connection = await Connection.open('127.0.0.1', port);
      let sent = 0;
      const step = async (keys: Record<string, string>): Promise<number | undefined> => {
        const data = encodeKeys(keys);
        connection.send(loginRequest({ transit: false, csg: STAGE.SECURITY, expStatSN: sent++, data }));
        const pdu = await connection.receive();
        t.equal(pdu?.opcode, OP.LOGIN_RESPONSE);
        return pdu?.loginStatus;
      };
      t.equal(await step({ ...names, AuthMethod: 'CHAP' }), 0);
      t.equal(await step({ CHAP_A: '7' }), 0);
      t.equal(await step({ CHAP_N: 'alice', CHAP_R: `0x${'11'.repeat(32)}` }), 0x0201);
      t.same(await connection.untilClosed(), []);
    }
    t.ok(performance.now() - began >= 290, 'the fourth waited 100 ms, the fifth 200 ms');
    t.equal(server.failedLogins, 5);
    const failures = warnings.filter(({ message }) => message === 'authentication failed');
    t.match(
      failures.map(({ fields }) => fields),
      [1, 2, 3, 4, 5].map((count) => ({
        initiator: names.InitiatorName,
        address: '127.0.0.1',
        failures: count,
      })),
    );
    await server.close(0);
  },
);
