/**
 * Access rules over real sockets: who sees which side of the partition, under which LUN, and what a reload does to
 * sessions that are there (RFC 7143 §9.2, §11.13.5; SPC-6 §6.34).
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { chapLogin } from './chap.js';
import { discovered } from './discovery.js';
import { namesFor } from './login.js';
import { OP, STAGE } from './pdu.js';
import type { Requirement, Tap } from './requirement.js';
import { inquiry, read10, reportLuns, senseTriple, STATUS, testUnitReady, write10 } from './scsi.js';
import { Session, type SessionOptions } from './session.js';
import { ANY_PORT, site, startSite, type Site } from './site.js';
import { startTarget, type Target } from './target.js';
import { pattern } from './write.js';

const FILES = 'iqn.2026-01.org.example:files';
const BACKUP = 'iqn.2026-01.org.example:backup';
const ADMIN = 'iqn.2026-01.org.example:admin';
const AUTHORIZATION_FAILED = 6;
const NOT_FOUND = 0x0203;

const withRules = (access: readonly object[], more: object = {}): object => ({
  portals: [ANY_PORT],
  targets: [site.target('a', { access, ...more })],
});

const start = (t: Tap, access: readonly object[], more: object = {}): Promise<Site> =>
  startSite(t, ['a'], () => withRules(access, more));

/** Login status without authentication; 0: let in. */
async function status(target: Target, initiator: string): Promise<number> {
  const session = await Session.connect(target);
  const { pdu } = await session.loginStep(
    { transit: true, csg: STAGE.OPERATIONAL, nsg: STAGE.FULL_FEATURE, isid: target.freshIsid() },
    { ...namesFor(target), InitiatorName: initiator },
  );
  return pdu.loginStatus;
}

/** A session that leaves the unit attentions of its LUNs alone: it may see no disk as LUN 0. */
const login = (target: Target, options: SessionOptions = {}): Promise<Session> =>
  Session.login(target, { keepUnitAttention: true, ...options });

/** LUNs as REPORT LUNS tells them. */
async function luns(session: Session): Promise<number[]> {
  const { data } = await session.execute({ cdb: reportLuns(256), read: 256, lun: 0 });
  const count = data.readUInt32BE(0) / 8;
  return Array.from({ length: count }, (_, index) => data.readUInt8(8 + 8 * index + 1));
}

/** Which side a LUN shows: the slave is removable (RMB). Undefined: there is nothing (PERIPHERAL QUALIFIER 011b). */
async function side(session: Session, lun: number): Promise<'master' | 'slave' | undefined> {
  const { data } = await session.execute({ cdb: inquiry(96), read: 96, lun });
  if (data.readUInt8(0) >> 5 === 3) return undefined;
  return (data.readUInt8(1) & 0x80) !== 0 ? 'slave' : 'master';
}

/** Sense of a command once unit attentions are told, or the status if it is no CHECK CONDITION. */
async function outcome(session: Session, command: Parameters<Session['execute']>[0]): Promise<string> {
  for (;;) {
    const { status: code, sense } = await session.execute(command);
    if (code !== STATUS.CHECK_CONDITION) return `status ${code}`;
    const triple = senseTriple(sense);
    if (!triple.startsWith('06/')) return triple;
  }
}

const write = (lun: number): Parameters<Session['execute']>[0] => ({
  cdb: write10(0, 1),
  write: Buffer.alloc(512, 0x77),
  lun,
});

/** A session of FILES writes and compares, several commands at once, until `action` is over. */
async function whileVerifying(t: Tap, target: Target, action: () => Promise<void>): Promise<void> {
  const session = await Session.login(target, { initiatorName: FILES });
  const bytes = 16 * session.blockBytes;
  let going = true;
  let rounds = 0;
  const verify = async (): Promise<void> => {
    for (; going || rounds < 8; rounds++) {
      const writes = [0, 1, 2, 3].map((n) => ({
        cdb: write10(1000 + 16 * n, 16),
        write: pattern(bytes, rounds + 31 * n),
      }));
      const sent = writes.map((command) => ({ command, itt: session.sendCommand(command) }));
      for (const { command, itt } of sent)
        if ((await session.finish(itt, command)).status !== STATUS.GOOD) throw new Error('a write fails');
      const read = await session.execute({ cdb: read10(1000, 64), read: 4 * bytes });
      if (!read.data.equals(Buffer.concat(writes.map(({ write }) => write))))
        throw new Error(`round ${rounds} reads what nobody wrote`);
    }
  };
  const verified = verify();
  try {
    // An error of the session ends the wait; else it goes on until the action is over.
    await Promise.race([action(), verified]);
  } finally {
    going = false;
  }
  await verified;
  t.ok(rounds >= 8, `${rounds} rounds`);
  t.same(await session.fence(), [], 'it is told nothing');
  session.connection.destroy();
}

/** EXTENDED COPY of one block from LUN to LUN 0 of what `names` gives (SPC-4 §6.4.4, §6.4.6.1). */
function copyList(from: Buffer, to: Buffer): Buffer {
  const target = (designator: Buffer): Buffer => {
    const descriptor = Buffer.alloc(32);
    descriptor.writeUInt8(0xe4, 0);
    descriptor.writeUInt8(1, 4);
    descriptor.writeUInt8(3, 5);
    descriptor.writeUInt8(designator.length, 7);
    designator.copy(descriptor, 8);
    descriptor.writeUIntBE(512, 29, 3);
    return descriptor;
  };
  const header = Buffer.alloc(16);
  header.writeUInt8(7, 0);
  header.writeUInt16BE(64, 2);
  header.writeUInt32BE(28, 8);
  const segment = Buffer.alloc(28);
  segment.writeUInt8(0x02, 0);
  segment.writeUInt16BE(24, 2);
  segment.writeUInt16BE(0, 4);
  segment.writeUInt16BE(1, 6);
  segment.writeUInt16BE(1, 10);
  return Buffer.concat([header, target(from), target(to), segment]);
}

/** NAA designator of a LUN (device identification page, SPC-6 §7.7.6). */
async function designator(session: Session, lun: number): Promise<Buffer> {
  const cdb = Buffer.from([0x12, 1, 0x83, 1, 0, 0]);
  const { data } = await session.execute({ cdb, read: 256, lun });
  for (let offset = 4; offset < data.length; offset += 4 + data.readUInt8(offset + 3))
    if ((data.readUInt8(offset + 1) & 0x3f) === 3)
      return data.subarray(offset + 4, offset + 4 + data.readUInt8(offset + 3));
  throw new Error('no NAA designator');
}

export const access: readonly Requirement[] = [
  {
    id: 'ACC-01',
    clause: 'RFC 7143 §9.2, §11.13.5',
    level: 'MUST',
    text: 'rules by name, exact and as a pattern, let in whom they name; for others the target does not exist (0203h)',
    async run(t) {
      const { at } = await start(t, [{ initiator: FILES.toUpperCase() }, { initiator: '*:adm?n' }]);
      for (const [name, expected] of [
        [FILES, 0],
        [FILES.toUpperCase(), 0],
        [ADMIN, 0],
        [BACKUP, NOT_FOUND],
        [`${FILES}2`, NOT_FOUND],
        [`${ADMIN}2`, NOT_FOUND],
      ] as const)
        t.equal(await status(at('a'), name), expected, name);
    },
  },
  {
    id: 'ACC-02',
    clause: 'RFC 7143 §9.2',
    level: 'MUST',
    text: 'rules by address and network count the address that the connection comes from',
    async run(t) {
      const { at } = await start(t, [
        { address: '127.0.0.2', show: ['master'] },
        { address: '127.0.4.0/22', show: ['slave'] },
      ]);
      for (const [from, expected] of [
        ['127.0.0.2', 0],
        ['127.0.4.1', 0],
        ['127.0.7.254', 0],
        ['127.0.0.1', NOT_FOUND],
        ['127.0.8.1', NOT_FOUND],
      ] as const)
        t.equal(await status({ ...at('a'), from }, FILES), expected, from);
      t.same(await luns(await login({ ...at('a'), from: '127.0.7.254' })), [1]);
      t.equal((await discovered(t, { ...at('a'), from: '127.0.8.1' }, FILES)).length, 0);
      t.equal((await discovered(t, { ...at('a'), from: '127.0.4.1' }, FILES)).length, 2);
    },
  },
  {
    id: 'ACC-03',
    clause: 'RFC 7143 §9.2, §4.4.1',
    level: 'MUST',
    text: 'rules by portal group count the portal that the connection came by',
    async run(t) {
      const { at } = await startSite(t, ['a'], () => ({
        portals: [ANY_PORT, { listen: '127.0.0.2:0', portalGroupTag: 2 }],
        targets: [
          site.target('a', {
            access: [
              { portalGroupTag: 1, show: ['master'] },
              { portalGroupTag: 2, show: ['slave'] },
            ],
          }),
        ],
      }));
      t.same(await luns(await login(at('a', 0))), [0]);
      t.same(await luns(await login(at('a', 1))), [1]);
    },
  },
  {
    id: 'ACC-04',
    clause: 'RFC 7143 §9.2, §12.1.3',
    level: 'MUST',
    text: 'rules by CHAP user count who has proved to be that user, not who only says so',
    async run(t) {
      const { at } = await startSite(t, ['a'], (folder) => {
        for (const name of ['files', 'backup'])
          writeFileSync(join(folder, name), `secret of ${name} 123\n`, { mode: 0o600 });
        const users = ['files', 'backup'].map((name) => ({ name, secretFile: name }));
        return withRules(
          [
            { user: 'files', show: ['master'] },
            { user: 'backup', luns: [{ lun: 0, unit: 'slave' }] },
          ],
          { authentication: { users } },
        );
      });
      t.equal(await status(at('a'), 'iqn.2026-01.org.example:files'), 0x0201, 'without CHAP');
      const files = await chapLogin(at('a'), { name: 'files', secret: 'secret of files 123' });
      t.same([await luns(files), await side(files, 0)], [[0], 'master']);
      const backup = await chapLogin(at('a'), { name: 'backup', secret: 'secret of backup 123' });
      t.same([await luns(backup), await side(backup, 0)], [[0], 'slave']);
      await t.rejects(chapLogin(at('a'), { name: 'files', secret: 'secret of backup 123' }), {
        message: /0201h/,
      });
    },
  },
  {
    id: 'ACC-05',
    clause: 'RFC 7143 §11.2.1.7, SPC-6 §6.34',
    level: 'MUST',
    text: 'REPORT LUNS and commands know the LUNs of the asker’s rule and no other: master, slave, both, or the slave as LUN 0',
    async run(t) {
      const { at } = await start(t, [
        { initiator: FILES, show: ['master'] },
        { initiator: BACKUP, luns: [{ lun: 0, unit: 'slave' }] },
        { initiator: ADMIN, luns: [{ lun: 5, unit: 'master' }, { lun: 200, unit: 'slave' }] }, // prettier-ignore
        { initiator: '*' },
      ]);
      const expected: [string, [number, 'master' | 'slave'][]][] = [
        [FILES, [[0, 'master']]],
        [BACKUP, [[0, 'slave']]],
        [ADMIN, [[5, 'master'], [200, 'slave']]], // prettier-ignore
        ['iqn.2026-01.org.example:any', [[0, 'master'], [1, 'slave']]], // prettier-ignore
      ];
      for (const [initiatorName, sees] of expected) {
        const session = await login(at('a'), { initiatorName });
        t.same(await luns(session), sees.map(([lun]) => lun), initiatorName); // prettier-ignore
        for (const lun of [0, 1, 2, 5, 200]) {
          const expectedSide = sees.find(([number]) => number === lun)?.[1];
          t.equal(await side(session, lun), expectedSide, `${initiatorName} LUN ${lun}`);
          if (expectedSide === undefined) {
            t.equal(await outcome(session, { cdb: testUnitReady(), lun }), '05/25/00');
            t.equal(await outcome(session, write(lun)), '05/25/00');
          }
        }
      }
    },
  },
  {
    id: 'ACC-06',
    clause: 'SBC-5 §4.12',
    level: 'MUST',
    text: 'a read-only rule reads and does not write, while another initiator writes',
    async run(t) {
      const { at, daemon } = await start(t, [{ initiator: ADMIN, readOnly: true }, { initiator: FILES }]);
      await daemon.target(`${site.PREFIX}a`).enable({ crashConsistent: true });
      const reader = await login(at('a'), { initiatorName: ADMIN });
      const writer = await login(at('a'), { initiatorName: FILES });
      t.equal(await outcome(writer, write(0)), 'status 0');
      t.equal(await outcome(reader, write(0)), '07/27/00');
      const { data } = await reader.execute({ cdb: read10(0, 1), read: 512 });
      t.ok(data.equals(Buffer.alloc(512, 0x77)));
      t.equal(await outcome(writer, { ...write(0), lun: 1 }), '07/27/00', 'nobody writes the slave');
    },
  },
  {
    id: 'ACC-07',
    clause: 'SPC-4 §6.4.3',
    level: 'MUST',
    text: 'EXTENDED COPY reaches only what its nexus sees, and writes only where it may',
    async run(t) {
      const { at, daemon } = await start(t, [
        { initiator: FILES },
        { initiator: BACKUP, luns: [{ lun: 0, unit: 'slave' }] },
        { initiator: ADMIN, readOnly: true },
      ]);
      const files = await login(at('a'), { initiatorName: FILES });
      t.equal(await outcome(files, write(0)), 'status 0');
      await daemon.target(`${site.PREFIX}a`).enable({ crashConsistent: true });
      const [master, slave] = [await designator(files, 0), await designator(files, 1)];
      const list = copyList(slave, master);
      const copy = (lun: number): Parameters<Session['execute']>[0] => {
        const cdb = Buffer.alloc(16);
        cdb.writeUInt8(0x83, 0);
        cdb.writeUInt32BE(list.length, 10);
        return { cdb, write: list, lun };
      };
      t.equal(await outcome(files, copy(0)), 'status 0', 'who sees both and may write');
      const backup = await login(at('a'), { initiatorName: BACKUP });
      t.equal(await outcome(backup, copy(0)), '0a/08/04', 'UNREACHABLE COPY TARGET');
      const admin = await login(at('a'), { initiatorName: ADMIN });
      t.not(await outcome(admin, copy(0)), 'status 0', 'who may only read');
    },
  },
  {
    id: 'ACC-08',
    clause: 'RFC 7143 §9.2; SPC-6 §6.34',
    level: 'MUST',
    text: 'a reload ends sessions that are no longer allowed, and only these; one whose LUNs change goes on and is told',
    async run(t) {
      const { at, reload } = await start(t, [{ initiator: '*' }]);
      const files = await login(at('a'), { initiatorName: FILES });
      const backup = await login(at('a'), { initiatorName: BACKUP });
      const admin = await login(at('a'), { initiatorName: ADMIN });
      for (const session of [files, backup, admin])
        t.equal(await outcome(session, { cdb: testUnitReady() }), 'status 0');
      await reload(
        withRules([{ initiator: FILES }, { initiator: BACKUP, luns: [{ lun: 0, unit: 'slave' }] }]),
      );
      t.same(
        (await admin.connection.untilClosed()).map(({ opcode }) => opcode),
        [OP.ASYNC],
      );
      t.equal(await status(at('a'), ADMIN), NOT_FOUND, 'nor does it come back');
      t.same(await files.fence(), [], 'unchanged: not even told');
      t.equal(await outcome(files, write(0)), 'status 0');
      const told = await backup.execute({ cdb: testUnitReady() });
      t.equal(senseTriple(told.sense), '06/3f/0e', 'REPORTED LUNS DATA HAS CHANGED');
      t.same([await luns(backup), await side(backup, 0), await side(backup, 1)], [[0], 'slave', undefined]);
    },
  },
  {
    id: 'ACC-11',
    clause: 'RFC 7143 §9.2',
    level: 'MUST',
    text: 'SIGHUP does what a reload does: who stays allowed goes on, the others end',
    async run(t) {
      const daemon = await startTarget();
      try {
        const files = await login(daemon, { initiatorName: FILES });
        const admin = await login(daemon, { initiatorName: ADMIN });
        const { configuration = '', pid = 0 } = daemon;
        const text = readFileSync(configuration, 'utf8');
        writeFileSync(configuration, text.replace('"initiator":"*"', `"initiator":"${FILES}"`));
        process.kill(pid, 'SIGHUP');
        await admin.connection.untilClosed(20_000);
        t.same(await files.fence(), []);
        t.equal(await status(daemon, ADMIN), NOT_FOUND);
        files.connection.destroy();
      } finally {
        await daemon.stop();
      }
    },
  },
  {
    id: 'ACC-13',
    clause: 'RFC 7143 §9.2',
    level: 'MUST',
    text: 'reloads and SIGHUPs while I/O runs: a session that stays allowed reads what it wrote, without an error or a word, while others come and go',
    async run(t) {
      const { at, reload } = await start(t, [{ initiator: FILES }]);
      await whileVerifying(t, at('a'), async () => {
        for (let n = 0; n < 8; n++) {
          await reload(withRules([{ initiator: FILES }, { initiator: ADMIN }], { alias: `alias ${n}` }));
          const admin = await login(at('a'), { initiatorName: ADMIN });
          await reload(withRules([{ initiator: FILES }]));
          await admin.connection.untilClosed(20_000);
        }
      });
      const daemon = await startTarget();
      try {
        const { configuration = '', pid = 0 } = daemon;
        const open = readFileSync(configuration, 'utf8');
        await whileVerifying(t, daemon, async () => {
          const admin = await login(daemon, { initiatorName: ADMIN });
          writeFileSync(configuration, open.replace('"initiator":"*"', `"initiator":"${FILES}"`));
          process.kill(pid, 'SIGHUP');
          await admin.connection.untilClosed(20_000);
          writeFileSync(configuration, open);
          process.kill(pid, 'SIGHUP');
          while ((await status(daemon, ADMIN)) !== 0) await new Promise((resolve) => setTimeout(resolve, 20));
        });
      } finally {
        await daemon.stop();
      }
    },
  },
  {
    id: 'ACC-09',
    clause: 'RFC 7143 §9.2, §12.1.3',
    level: 'MUST',
    text: 'a reload ends the sessions of a user who is no longer listed, or that never proved who they are when that is asked for now',
    async run(t) {
      const authentication = (...names: string[]): object => ({
        authentication: { users: names.map((name) => ({ name, secretFile: name })) },
      });
      const { at, reload } = await startSite(t, ['a'], (folder) => {
        for (const name of ['files', 'backup'])
          writeFileSync(join(folder, name), `secret of ${name} 123\n`, { mode: 0o600 });
        return withRules([{ initiator: '*' }], authentication('files', 'backup'));
      });
      const files = await chapLogin(at('a'), { name: 'files', secret: 'secret of files 123' });
      const backup = await chapLogin(at('a'), { name: 'backup', secret: 'secret of backup 123' });
      await reload(withRules([{ initiator: '*' }], authentication('files')));
      await backup.connection.untilClosed();
      t.same(await files.fence(), []);
      await reload(withRules([{ initiator: '*' }]));
      t.same(await files.fence(), [], 'nothing is asked for any more');
      const open = await login(at('a'));
      await reload(withRules([{ initiator: '*' }], authentication('files')));
      await open.connection.untilClosed();
      t.same(await files.fence(), []);
    },
  },
  {
    id: 'ACC-12',
    clause: 'RFC 7143 §9.2',
    level: 'MUST',
    text: 'a login that was under way when a reload came is held against the new rules and users',
    async run(t) {
      const users = { authentication: { users: [{ name: 'files', secretFile: 'files' }] } };
      const { at, reload } = await startSite(t, ['a'], (folder) => {
        writeFileSync(join(folder, 'files'), 'secret of files 123\n', { mode: 0o600 });
        return withRules([{ initiator: '*' }]);
      });
      for (const [next, refusal] of [
        [withRules([{ initiator: FILES }]), 0x0202],
        [withRules([{ initiator: '*' }], users), 0x0201],
        [withRules([{ initiator: '*' }]), 0],
      ] as const) {
        await reload(withRules([{ initiator: '*' }]));
        const session = await Session.connect(at('a'));
        const fields = { transit: false, csg: STAGE.OPERATIONAL, isid: at('a').freshIsid() };
        const first = await session.loginStep(fields, { ...namesFor(at('a')), InitiatorName: ADMIN });
        t.equal(first.pdu.loginStatus, 0);
        await reload(next);
        const last = await session.loginStep({ ...fields, transit: true, nsg: STAGE.FULL_FEATURE });
        t.equal(last.pdu.loginStatus, refusal);
      }
    },
  },
  {
    id: 'ACC-10',
    clause: 'RFC 7143 §11.5.1, §11.6.1',
    level: 'MUST',
    text: 'a target reset by somebody who does not see every unit of it is not authorised (6), and touches nothing',
    async run(t) {
      const { at } = await start(t, [
        { initiator: FILES },
        { initiator: BACKUP, luns: [{ lun: 0, unit: 'slave' }] },
      ]);
      const files = await login(at('a'), { initiatorName: FILES });
      t.equal(await outcome(files, { cdb: testUnitReady() }), 'status 0');
      const backup = await login(at('a'), { initiatorName: BACKUP });
      for (const reset of [6, 7]) t.equal((await backup.manage(reset)).response, AUTHORIZATION_FAILED);
      t.same(await backup.fence(), []);
      t.same(await files.fence(), []);
      t.equal((await files.execute({ cdb: testUnitReady() })).status, STATUS.GOOD);
    },
  },
];
