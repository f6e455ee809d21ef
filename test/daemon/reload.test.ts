/** A configuration that changes under a running daemon. */
import { chmodSync, writeFileSync } from 'node:fs';
import { createServer, connect } from 'node:net';
import type { AddressInfo } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import tap from 'tap';
import { needing } from '../../conformance/support/clients.js';
import { freePort } from '../../conformance/support/ports.js';
import { run } from '../../conformance/support/processes.js';
import type { Daemon } from '../../src/daemon/daemon.js';
import { PREFIX, serve, target, url } from './support.js';

const needs = needing('qemu-img');
const ANY = { listen: '127.0.0.1:0' };

/** Whether an initiator gets to the master. */
async function reaches(daemon: Daemon, name: string, login = ''): Promise<boolean> {
  const { code } = await run('qemu-img', [
    'info',
    '-f',
    'raw',
    url(daemon, name).replace('//', `//${login}`),
  ]);
  return code === 0;
}

async function listens(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

void tap.test('targets, access rules and secrets come and go', needs, async (t) => {
  const { daemon, configure, folder } = await serve(t, ['one', 'two'], () => ({
    portals: [ANY],
    targets: [target('one')],
  }));
  t.ok(await reaches(daemon, 'one'));
  t.notOk(await reaches(daemon, 'two'));
  t.match(await daemon.reload(), { added: [], removed: [], changed: [], settings: [], needRestart: [] });

  configure({ portals: [ANY], targets: [target('one'), target('two')], slowIoMs: 5 });
  t.match(await daemon.reload(), { added: [`${PREFIX}two`], settings: ['slowIoMs'] });
  t.ok(await reaches(daemon, 'two'), 'a target that was added');

  const secret = join(folder, 'secret');
  writeFileSync(secret, 'a-secret-of-many-bytes\n');
  chmodSync(secret, 0o600);
  const authentication = { users: [{ name: 'user', secretFile: 'secret' }], algorithms: ['MD5'] };
  configure({
    portals: [ANY],
    targets: [
      target('one', { access: [{ initiator: 'iqn.2026-01.com.example:nobody' }] }),
      target('two', { authentication }),
    ],
    slowIoMs: 5,
  });
  t.same((await daemon.reload()).changed, [`${PREFIX}one`, `${PREFIX}two`]);
  t.notOk(await reaches(daemon, 'one'), 'a rule that lets nobody in');
  t.notOk(await reaches(daemon, 'two'), 'a secret that is asked for');
  t.ok(await reaches(daemon, 'two', 'user%a-secret-of-many-bytes@'));
  writeFileSync(secret, 'another-secret-of-many-bytes\n');
  t.same((await daemon.reload()).changed, [`${PREFIX}two`], 'the secret in its file');
  t.notOk(await reaches(daemon, 'two', 'user%a-secret-of-many-bytes@'));
  t.ok(await reaches(daemon, 'two', 'user%another-secret-of-many-bytes@'));

  configure({ portals: [ANY], targets: [target('two')] });
  t.match(await daemon.reload(), { removed: [`${PREFIX}one`], changed: [`${PREFIX}two`] });
  t.throws(() => daemon.target(`${PREFIX}one`), { code: 'NO_SUCH_TARGET' });
  t.ok(await reaches(daemon, 'two'));
  configure({ portals: [ANY], targets: [target('two'), target('one')] });
  await daemon.reload();
  t.ok(await reaches(daemon, 'one'), 'a partition that was let go can be served again');
});

void tap.test('portals come and go; sessions stay', needs, async (t) => {
  const { daemon, configure } = await serve(t, ['one'], () => ({ portals: [ANY], targets: [target('one')] }));
  const port = await freePort();
  const second = { listen: `127.0.0.1:${port}`, portalGroupTag: 2 };
  configure({ portals: [ANY, second], targets: [target('one')] });
  t.same((await daemon.reload()).settings, ['portals']);
  t.equal(daemon.portals.length, 2);
  t.ok(await listens(port));
  configure({ portals: [ANY, { ...second, portalGroupTag: 3 }], targets: [target('one')] });
  await daemon.reload();
  t.equal(daemon.portals[1].portalGroupTag, 3, 'another group, in place');
  configure({ portals: [ANY], targets: [target('one')] });
  await daemon.reload();
  t.notOk(await listens(port));
  t.ok(await reaches(daemon, 'one'), 'the other one went on');
});

void tap.test('what is wrong changes nothing, and what needs a restart is named', needs, async (t) => {
  const right = { portals: [ANY], targets: [target('one')] };
  const { daemon, configure, file, folder } = await serve(t, ['one', 'two'], () => right);
  const before = JSON.stringify([daemon.status().targets.map(({ name }) => name), daemon.portals]);
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const busy = { listen: `127.0.0.1:${(taken.address() as AddressInfo).port}` };
  const wrong: [string, object, string][] = [
    ['an unknown key', { ...right, portal: [] }, 'CONFIG_INVALID'],
    [
      'a target without a partition',
      { ...right, targets: [target('two'), target('none')] },
      'NO_SUCH_PARTITION',
    ],
    ['a portal in use', { portals: [ANY, busy], targets: [target('two')] }, 'PORTAL_IN_USE'],
    ['a metrics port in use', { ...right, metrics: busy, targets: [target('two')] }, 'METRICS_UNUSABLE'],
    ['another partition', { ...right, targets: [target('one', { partition: 'two' })] }, 'PARTITION_CHANGED'],
  ];
  for (const [what, configuration, code] of wrong) {
    configure(configuration);
    await t.rejects(daemon.reload(), { code }, what);
    t.equal(JSON.stringify([daemon.status().targets.map(({ name }) => name), daemon.portals]), before, what);
  }
  writeFileSync(file, '{ not: [yaml');
  await t.rejects(daemon.reload(), { code: 'CONFIG_INVALID' });
  t.ok(await reaches(daemon, 'one'));
  taken.close();
  const later = { limits: { connectionsMax: 7 }, controlSocket: join(folder, 'other') };
  configure({ ...right, ...later, targets: [target('one', { physicalBlockBytes: 512 })] });
  t.same((await daemon.reload()).needRestart, ['controlSocket', 'limits', `${PREFIX}one physicalBlockBytes`]);
});
