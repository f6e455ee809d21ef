/**
 * Portals, portal groups, discovery and redirection, from the configuration to the wire (RFC 7143 §4.4, §11.13.5, §13.8,
 * §13.9, Appendix C).
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { networkInterfaces } from 'node:os';
import { freePort } from '../support/ports.js';
import { discovered } from './discovery.js';
import { namesFor } from './login.js';
import { valuesOf } from './keys.js';
import { STAGE } from './pdu.js';
import { only, Session } from './session.js';
import type { Requirement, Tap } from './requirement.js';
import { ANY_PORT, site, startSite } from './site.js';
import type { Target } from './target.js';

const ANOTHER_PORT = { listen: '127.0.0.2:0', portalGroupTag: 2 } as const;
const HOST_A = 'iqn.2026-01.org.example:host-a';
const HOST_B = 'iqn.2026-01.org.example:host-b';

/** The first response to a login without authentication. */
async function firstResponse(target: Target, initiator = HOST_A): Promise<ReturnType<Session['loginStep']>> {
  const session = await Session.connect(target);
  return session.loginStep(
    { transit: true, csg: STAGE.OPERATIONAL, nsg: STAGE.FULL_FEATURE, isid: target.freshIsid() },
    { ...namesFor(target), InitiatorName: initiator },
  );
}

/** A TCP socket as libuv has it; what Node sets on it reaches the system by these. */
interface TcpHandle {
  setNoDelay(on: boolean): number;
  getsockname(out: { port?: number }): number;
}

/** What is set of TCP_NODELAY on the sockets of this process from now on, until the test ends; the system can't be asked. */
async function watchNoDelay(t: Tap): Promise<{ localPort: number | undefined; noDelay: boolean }[]> {
  const server = createServer().listen(0);
  await once(server, 'listening');
  const { _handle } = server as Server & { _handle?: TcpHandle };
  server.close();
  if (_handle === undefined) throw new Error('a server without a handle');
  const prototype = Object.getPrototypeOf(_handle) as TcpHandle;
  const set: (this: TcpHandle, on: boolean) => number = Reflect.get(prototype, 'setNoDelay');
  const sockets: { localPort: number | undefined; noDelay: boolean }[] = [];
  prototype.setNoDelay = function (noDelay) {
    const name: { port?: number } = {};
    this.getsockname(name);
    sockets.push({ localPort: name.port, noDelay });
    return set.call(this, noDelay);
  };
  t.teardown(() => {
    prototype.setNoDelay = set;
  });
  return sockets;
}

const hasIPv6 = (): boolean =>
  Object.values(networkInterfaces())
    .flat()
    .some((address) => address?.address === '::1');

export const portals: readonly Requirement[] = [
  {
    id: 'PORT-01',
    clause: 'RFC 7143 §13.9, §4.4.2',
    level: 'MUST',
    text: 'a portal answers with the tag of its own group, and SendTargets names every portal with its tag',
    async run(t) {
      const { at, daemon } = await startSite(t, ['a'], () => ({
        portals: [ANY_PORT, ANOTHER_PORT],
        targets: [site.target('a')],
      }));
      for (const [portal, tag] of [
        [0, '1'],
        [1, '2'],
      ] as const)
        t.equal(only(await firstResponse(at('a', portal)), 'TargetPortalGroupTag'), tag);
      const pairs = await discovered(t, at('a'), HOST_A);
      t.same(
        valuesOf(pairs, 'TargetAddress'),
        daemon.portals.map(({ host, port }, index) => `${host}:${port},${index + 1}`),
      );
    },
  },
  {
    id: 'PORT-02',
    clause: 'RFC 7143 §4.4.3, §4.4.2',
    level: 'MUST',
    text: 'one ISID may have a session with each portal group: they are different I_T nexuses, and neither replaces the other',
    async run(t) {
      const { at } = await startSite(t, ['a'], () => ({
        portals: [ANY_PORT, ANOTHER_PORT],
        targets: [site.target('a')],
      }));
      const one = await Session.login(at('a', 0));
      const two = await Session.login(at('a', 1), { isid: one.isid });
      t.same(await one.fence(), []);
      t.same(await two.fence(), []);
    },
  },
  {
    id: 'PORT-03',
    clause: 'RFC 7143 §13.8',
    level: 'MUST',
    text: 'an advertised address stands in SendTargets instead of the local one: a name, IPv4, or IPv6 in brackets',
    async run(t) {
      const advertised = ['storage.example.com:3260', '192.0.2.7:4000', '[2001:db8::7]:3260'];
      const { at } = await startSite(t, ['a'], () => ({
        portals: advertised.map((advertise, index) => ({
          ...ANY_PORT,
          portalGroupTag: index + 7,
          advertise,
        })),
        targets: [site.target('a')],
      }));
      const pairs = await discovered(t, at('a'), HOST_A);
      t.same(
        valuesOf(pairs, 'TargetAddress'),
        advertised.map((address, index) => `${address},${index + 7}`),
      );
    },
  },
  {
    id: 'PORT-04',
    clause: 'RFC 7143 §13.8, §4.2.7.3',
    level: 'MUST',
    text: 'a portal on IPv6 lets in, and SendTargets names its address in brackets',
    needs: hasIPv6,
    async run(t) {
      const { at, daemon } = await startSite(t, ['a'], () => ({
        portals: [{ listen: '[::1]:0' }],
        targets: [site.target('a', { access: [{ initiator: '*', address: '::1/128' }] })],
      }));
      const session = await Session.login(at('a'));
      t.same(await session.fence(), []);
      t.same(valuesOf(await discovered(t, at('a'), HOST_A), 'TargetAddress'), [
        `[::1]:${daemon.portals[0]?.port},1`,
      ]);
    },
  },
  {
    id: 'PORT-05',
    clause: 'RFC 7143 Appendix C',
    level: 'MUST',
    text: 'a portal that listens on every address is named by the one that the asker has reached',
    async run(t) {
      const { at, daemon } = await startSite(t, ['a'], () => ({
        portals: [{ listen: '0.0.0.0:0' }],
        targets: [site.target('a')],
      }));
      const port = daemon.portals[0]?.port ?? 0;
      for (const host of ['127.0.0.1', '127.0.0.3']) {
        const pairs = await discovered(t, { ...at('a'), host }, HOST_A);
        t.same(valuesOf(pairs, 'TargetAddress'), [`${host}:${port},1`]);
      }
    },
  },
  {
    id: 'PORT-06',
    clause: 'RFC 7143 Appendix C, §9.2',
    level: 'MUST',
    text: 'SendTargets shows what the asker may log in to, by which portals, and nothing else: each is tried',
    async run(t) {
      const rules = {
        a: [{ initiator: HOST_A }],
        b: [{ initiator: '*host-b', portalGroupTag: 2 }],
        both: [{ initiator: HOST_A, portalGroupTag: 2 }, { initiator: HOST_B }],
        nobody: [],
      };
      const names = Object.keys(rules);
      const { at, daemon } = await startSite(t, names, () => ({
        portals: [ANY_PORT, ANOTHER_PORT],
        targets: Object.entries(rules).map(([name, access]) => site.target(name, { access })),
      }));
      for (const initiator of [HOST_A, HOST_B, 'iqn.2026-01.org.example:host-c']) {
        const pairs = await discovered(t, at('a'), initiator);
        const shown = new Set<string>();
        let name = '';
        for (const [key, value] of pairs) {
          if (key === 'TargetName') name = value;
          else shown.add(`${name} ${value}`);
        }
        for (const target of names) {
          for (const [portal, { host, port }] of daemon.portals.entries()) {
            const { pdu } = await firstResponse(at(target, portal), initiator);
            const listed = shown.has(`${site.PREFIX}${target} ${host}:${port},${portal + 1}`);
            t.equal(pdu.loginStatus, listed ? 0 : 0x0203, `${initiator} at ${target} by portal ${portal}`);
          }
          const named = await discovered(t, at(target), initiator, site.PREFIX + target);
          const listed = [...shown].some((line) => line.startsWith(`${site.PREFIX}${target} `));
          t.equal(named.length > 0, listed, 'asked for by its name');
        }
      }
    },
  },
  {
    id: 'PORT-07',
    clause: 'RFC 7143 §11.13.5, §13.8',
    level: 'MUST',
    text: 'a target that has moved answers 0101h or 0102h with TargetAddress without a tag, and lets nobody in there',
    async run(t) {
      for (const [permanent, status] of [
        [false, 0x0101],
        [true, 0x0102],
      ] as const) {
        const { at } = await startSite(t, ['a'], () => ({
          portals: [ANY_PORT],
          targets: [site.target('a', { redirect: { to: 'storage.example.com:3261', permanent } })],
        }));
        for (const csg of [STAGE.SECURITY, STAGE.OPERATIONAL]) {
          const session = await Session.connect(at('a'));
          const answer = await session.loginStep(
            { transit: true, csg, nsg: STAGE.FULL_FEATURE, isid: at('a').freshIsid() },
            { ...namesFor(at('a')), ...(csg === STAGE.SECURITY ? { AuthMethod: 'None' } : {}) },
          );
          t.equal(answer.pdu.loginStatus, status);
          t.same(answer.keys, [['TargetAddress', 'storage.example.com:3261']]);
          t.notOk(answer.pdu.final, 'T is 0');
          t.same(await session.connection.untilClosed(), []);
        }
      }
    },
  },
  {
    id: 'PORT-08',
    clause: 'RFC 7143 §11.13.5',
    level: 'MUST',
    text: 'a redirection to another portal group can be followed; it comes and goes with a reload, and sessions that are there stay',
    async run(t) {
      const port = await freePort();
      const listen = [ANY_PORT, { listen: `127.0.0.2:${port}`, portalGroupTag: 2 }];
      const plain = { portals: listen, targets: [site.target('a')] };
      const redirect = { to: `127.0.0.2:${port}`, portalGroupTag: 1 };
      const { at, reload } = await startSite(t, ['a'], () => plain);
      const early = await Session.login(at('a'));
      await reload({ portals: listen, targets: [site.target('a', { redirect })] });
      t.same(await early.fence(), [], 'the session goes on');
      const answer = await firstResponse(at('a'));
      t.equal(answer.pdu.loginStatus, 0x0101);
      const [host = '', to] = only(answer, 'TargetAddress').split(':');
      const followed = await Session.login({ ...at('a'), host, port: Number(to) });
      t.same(await followed.fence(), []);
      await reload(plain);
      t.equal((await firstResponse(at('a'))).pdu.loginStatus, 0);
      t.same(await followed.fence(), []);
    },
  },
  {
    id: 'PORT-09',
    clause: 'RFC 7143 §11.13.5, §9.2',
    level: 'MUST',
    text: 'who may not see a target does not learn where it has moved to',
    async run(t) {
      const { at } = await startSite(t, ['a'], () => ({
        portals: [ANY_PORT],
        targets: [site.target('a', { access: [{ initiator: HOST_A }], redirect: { to: '192.0.2.1:3260' } })],
      }));
      const answer = await firstResponse(at('a'), HOST_B);
      t.equal(answer.pdu.loginStatus, 0x0203);
      t.same(answer.keys, []);
    },
  },
  {
    id: 'PORT-12',
    clause: 'RFC 7143 §11.13.5',
    level: 'MUST',
    text: 'a target that a reload took away is answered by 0204h to who could see it, and by 0203h to others, until it comes back',
    async run(t) {
      const both = {
        portals: [ANY_PORT],
        targets: [site.target('a'), site.target('b', { access: [{ initiator: HOST_A }] })],
      };
      const { at, reload } = await startSite(t, ['a', 'b'], () => both);
      await reload({ portals: [ANY_PORT], targets: [site.target('a')] });
      t.equal((await firstResponse(at('b'), HOST_A)).pdu.loginStatus, 0x0204);
      t.equal((await firstResponse(at('b'), HOST_B)).pdu.loginStatus, 0x0203);
      await reload(both);
      t.equal((await firstResponse(at('b'), HOST_A)).pdu.loginStatus, 0);
    },
  },
  {
    id: 'PORT-13',
    clause: 'RFC 7143 §11.13.5, §11.9.1',
    level: 'MUST',
    text: 'a login that is under way when the target is stopped is refused with 0301h',
    async run(t) {
      const { at, daemon } = await startSite(t, ['a'], () => ({
        portals: [ANY_PORT],
        targets: [site.target('a')],
        shutdownGraceMs: 5000,
      }));
      const target = at('a');
      const session = await Session.connect(target);
      const fields = { csg: STAGE.OPERATIONAL, isid: target.freshIsid() };
      const first = await session.loginStep({ ...fields, transit: false }, namesFor(target));
      t.equal(first.pdu.loginStatus, 0);
      const stopped = daemon.close();
      const last = await session.loginStep({ ...fields, transit: true, nsg: STAGE.FULL_FEATURE });
      t.equal(last.pdu.loginStatus, 0x0301);
      t.same(await session.connection.untilClosed(), []);
      await stopped;
    },
  },
  {
    id: 'PORT-14',
    clause: 'RFC 7143 §13.6',
    level: 'SHOULD',
    text: 'a target with an alias tells it in the login of a normal session',
    async run(t) {
      const { at } = await startSite(t, ['a'], () => ({
        portals: [ANY_PORT],
        targets: [site.target('a', { alias: 'files of all' })],
      }));
      t.equal(only(await firstResponse(at('a')), 'TargetAlias'), 'files of all');
    },
  },
  {
    id: 'PORT-11',
    clause: 'RFC 7143 §4.2.6, RFC 1122 §4.2.3.6',
    level: 'SHOULD',
    text: 'connections are kept under watch by TCP keepalive, also before and without a login',
    async run(t) {
      const { at, daemon } = await startSite(t, ['a'], () => ({
        portals: [ANY_PORT],
        targets: [site.target('a')],
      }));
      const port = daemon.portals[0]?.port ?? 0;
      const session = await Session.login(at('a'));
      await Session.connect(at('a'));
      t.same(await session.fence(), []);
      // Fields of /proc/net/tcp: local address:port, remote, state (01: established), queues, timer (02: keepalive).
      const watched = (): number =>
        readFileSync('/proc/net/tcp', 'latin1')
          .split('\n')
          .map((line) => line.trim().split(/\s+/))
          .filter(([, local]) => Number.parseInt(local?.split(':')[1] ?? '', 16) === port)
          .filter(([, , , state, , timer]) => state === '01' && timer?.startsWith('02:')).length;
      const deadline = Date.now() + 10_000;
      while (watched() < 2 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
      t.equal(watched(), 2);
    },
  },
  {
    id: 'PORT-16',
    clause: 'RFC 7143 §15',
    level: 'MUST',
    text: 'a portal without a port listens on 3260',
    async run(t) {
      const { at } = await startSite(t, ['a'], () => ({
        portals: [{ listen: '127.88.32.60' }],
        targets: [site.target('a')],
      }));
      t.equal(at('a').port, 3260);
      t.same(await (await Session.login(at('a'))).fence(), []);
    },
  },
  {
    id: 'PORT-15',
    clause: 'RFC 1122 §4.2.3.4',
    level: 'ROBUST',
    text: 'small answers do not wait for the acknowledgement of those before (the algorithm of Nagle is off)',
    async run(t) {
      const { at, daemon } = await startSite(t, ['a'], () => ({
        portals: [ANY_PORT],
        targets: [site.target('a')],
      }));
      const port = daemon.portals[0]?.port ?? 0;
      const sockets = await watchNoDelay(t);
      const session = await Session.login(at('a'));
      t.same(await session.fence(), []);
      t.same(
        sockets.filter(({ localPort }) => localPort === port),
        [{ localPort: port, noDelay: true }],
      );
    },
  },
  {
    id: 'PORT-10',
    clause: 'RFC 7143 Appendix C',
    level: 'MUST',
    text: 'portals that come and go with a reload do so in SendTargets too, and sessions of a portal that is gone stay',
    async run(t) {
      const { at, reload } = await startSite(t, ['a'], () => ({
        portals: [ANY_PORT, ANOTHER_PORT],
        targets: [site.target('a')],
      }));
      const session = await Session.login(at('a', 1));
      t.equal(valuesOf(await discovered(t, at('a'), HOST_A), 'TargetAddress').length, 2);
      await reload({ portals: [ANY_PORT], targets: [site.target('a')] });
      t.equal(valuesOf(await discovered(t, at('a'), HOST_A), 'TargetAddress').length, 1);
      t.same(await session.fence(), []);
    },
  },
];
