/**
 * What peers can make the target hold: connections, half-open logins, time, memory. Each limit comes from the
 * configuration, and while one peer runs into it another is served.
 */
import { Connection } from './connection.js';
import { namesFor } from './login.js';
import { encodeKeys } from './keys.js';
import { dataOut, encode, loginRequest, NO_TAG, OP, STAGE, type Pdu, TASK_FUNCTION } from './pdu.js';
import type { Requirement, Tap } from './requirement.js';
import { read10, STATUS, testUnitReady, write10 } from './scsi.js';
import { Session } from './session.js';
import { site, startSite } from './site.js';
import type { Target } from './target.js';
import { serialAfter } from './wire.js';
import { pattern } from './write.js';

const withLimits = (limits: object): object => ({
  portals: [{ listen: '0.0.0.0:0' }],
  targets: [site.target('a')],
  limits,
});

/** A connection that says nothing. */
const silent = async (target: Target): Promise<Connection> => {
  const session = await Session.connect(target);
  return session.connection;
};

/** True if the target keeps a new connection long enough to answer a login. */
async function getsIn(target: Target): Promise<boolean> {
  const session = await Session.connect(target);
  session.sendLogin(
    { transit: true, csg: STAGE.OPERATIONAL, nsg: STAGE.FULL_FEATURE, isid: target.freshIsid() },
    namesFor(target),
  );
  return (await session.connection.receive())?.loginStatus === 0;
}

/** What the daemon holds outside of the heap, in bytes; it runs in this process. */
const heldBytes = (): number => process.memoryUsage().arrayBuffers;

async function served(t: Tap, session: Session): Promise<void> {
  const { status } = await session.execute({ cdb: read10(0, 1), read: session.blockBytes });
  t.equal(status, STATUS.GOOD, 'another one is served');
}

export const limits: readonly Requirement[] = [
  {
    id: 'LIM-01',
    clause: 'RFC 7143 §9.2 (denial of service)',
    level: 'ROBUST',
    text: 'half-open logins of one address are limited; another address, and sessions that are there, do not notice',
    async run(t) {
      const { at } = await startSite(t, ['a'], () => withLimits({ halfOpenPerAddressMax: 3 }));
      const here = { ...at('a'), host: '127.0.0.1' };
      const session = await Session.login(here);
      const waiting = [await silent(here), await silent(here), await silent(here)] as const;
      t.notOk(await getsIn(here), 'the fourth is refused');
      t.ok(await getsIn({ ...here, from: '127.0.0.9' }));
      await served(t, session);
      waiting[0].destroy();
      for (let attempt = 0; attempt < 100 && !(await getsIn(here)); attempt++)
        await new Promise((resolve) => setTimeout(resolve, 20));
      t.ok(await getsIn(here), 'room comes back');
    },
  },
  {
    id: 'LIM-02',
    clause: 'RFC 7143 §9.2 (denial of service)',
    level: 'ROBUST',
    text: 'half-open logins of all addresses together are limited; the address with the most gives its oldest to one that has fewer',
    async run(t) {
      const { at } = await startSite(t, ['a'], () => withLimits({ halfOpenMax: 4 }));
      const here = { ...at('a'), host: '127.0.0.1' };
      const session = await Session.login(here);
      const oldest = await silent({ ...here, from: '127.0.1.1' });
      for (let n = 2; n <= 4; n++) await silent({ ...here, from: `127.0.1.${n}` });
      t.notOk(await getsIn({ ...here, from: '127.0.1.1' }), 'who has as many as anybody is refused');
      t.ok(await getsIn({ ...here, from: '127.0.1.5' }), 'who has none gets in');
      t.same(await oldest.untilClosed(20_000), [], 'in place of the oldest');
      await served(t, session);
    },
  },
  {
    id: 'LIM-03',
    clause: 'RFC 7143 §9.2 (denial of service)',
    level: 'ROBUST',
    text: 'connections in all are limited',
    async run(t) {
      const { at } = await startSite(t, ['a'], () => withLimits({ connectionsMax: 3 }));
      const here = { ...at('a'), host: '127.0.0.1' };
      const sessions = [
        await Session.login(here),
        await Session.login(here),
        await Session.login(here),
      ] as const;
      t.notOk(await getsIn(here));
      for (const session of sessions) await served(t, session);
      await sessions[0].logout();
      await sessions[0].connection.untilClosed();
      await Session.login(here);
    },
  },
  {
    id: 'LIM-04',
    clause: 'RFC 7143 §6.3.1',
    level: 'ROBUST',
    text: 'a login has a time limit, whether the peer is silent, sends byte by byte, stops in the middle, or never comes to an end',
    async run(t) {
      const { at } = await startSite(t, ['a'], () => withLimits({ loginTimeoutMs: 500 }));
      const here = { ...at('a'), host: '127.0.0.1' };
      const session = await Session.login(here);
      const bytes = encode(
        loginRequest({ transit: false, csg: STAGE.OPERATIONAL, data: encodeKeys(namesFor(here)) }),
      );
      const [mute, dripping, half, endless] = [
        await silent(here),
        await silent(here),
        await silent(here),
        await silent(here),
      ];
      half.write(bytes.subarray(0, 60));
      let at0 = 0;
      const drip = setInterval(() => {
        if (at0 < bytes.length) dripping.write(bytes.subarray(at0, ++at0));
        const more = loginRequest({
          transit: false,
          more: true,
          csg: STAGE.OPERATIONAL,
          data: encodeKeys({ 'X-a': 'b' }),
        });
        endless.write(encode(more));
      }, 20);
      try {
        for (const connection of [mute, dripping, half, endless]) await connection.untilClosed(20_000);
      } finally {
        clearInterval(drip);
      }
      await served(t, session);
    },
  },
  {
    id: 'LIM-05',
    clause: 'RFC 7143 §11.19, §7.5.2',
    level: 'ROBUST',
    text: 'a peer that asks for much and reads nothing costs bounded memory, and is dropped when it answers no ping',
    async run(t) {
      const { at, daemon } = await startSite(t, ['a'], () =>
        withLimits({ nopIntervalMs: 500, nopTimeoutMs: 500, connectionBufferBytesMax: 2 << 20 }),
      );
      const here = { ...at('a'), host: '127.0.0.1' };
      const other = await Session.login(here);
      const greedy = await Session.login(here, { keys: { MaxRecvDataSegmentLength: '262144' } });
      greedy.connection.socket.pause();
      const before = heldBytes();
      // All at once, so that the target has them before it has sent anything.
      const commands = Array.from({ length: 100 }, () =>
        encode(greedy.commandPdu({ cdb: read10(0, 2048), read: 1 << 20 })),
      );
      greedy.connection.write(Buffer.concat(commands));
      const deadline = Date.now() + 20_000;
      let most = 0;
      while (daemon.sessions().length > 1) {
        if (Date.now() > deadline) throw new Error('the greedy one is never dropped');
        await served(t, other);
        most = Math.max(most, heldBytes() - before);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      t.ok(most < 48 << 20, `of 100 MiB that were asked for, ${most >> 20} MiB are held`);
      await served(t, other);
    },
  },
  {
    id: 'LIM-06',
    clause: 'RFC 7143 §11.19, §7.5.2',
    level: 'ROBUST',
    text: 'a peer that stops in the middle of a PDU is dropped when it answers no ping',
    async run(t) {
      const { at } = await startSite(t, ['a'], () => withLimits({ nopIntervalMs: 500, nopTimeoutMs: 500 }));
      const here = { ...at('a'), host: '127.0.0.1' };
      const session = await Session.login(here);
      const pdu = session.commandPdu({ cdb: read10(0, 1), write: Buffer.alloc(4096), immediateBytes: 4096 });
      session.connection.write(encode(pdu).subarray(0, 1000));
      await session.connection.untilClosed(20_000);
      await Session.login(here);
    },
  },
  {
    id: 'LIM-08',
    clause: 'RFC 7143 §4.3, §9.2 (denial of service)',
    level: 'ROBUST',
    text: 'discovery sessions, which strangers may have, count with the half-open ones of their address, and end when they are idle',
    async run(t) {
      const { at } = await startSite(t, ['a'], () =>
        withLimits({ halfOpenPerAddressMax: 2, loginTimeoutMs: 400 }),
      );
      const here = { ...at('a'), host: '127.0.0.1' };
      const session = await Session.login(here);
      const idle = await Session.login(here, { discovery: true });
      const busy = await Session.login(here, { discovery: true });
      t.notOk(await getsIn(here));
      t.ok(await getsIn({ ...here, from: '127.0.0.9' }));
      let ended = false;
      const gone = idle.connection.untilClosed(20_000).then(() => (ended = true));
      const closed = (): boolean => ended;
      while (!closed()) {
        await busy.text({ SendTargets: 'All' });
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      await gone;
      t.ok(await getsIn(here), 'room comes back');
      await served(t, session);
    },
  },
  {
    id: 'LIM-09',
    clause: 'RFC 7143 §4.2.2.1, §13.11',
    level: 'MUST',
    text: 'a window full of commands with data that wait for an earlier one, more than the buffers’ budget, does not lock the connection up',
    async run(t) {
      const { at } = await startSite(t, ['a'], () => withLimits({ connectionBufferBytesMax: 1 << 20 }));
      const session = await Session.login(
        { ...at('a'), host: '127.0.0.1' },
        { keys: { FirstBurstLength: '65536' } },
      );
      const data = pattern(65_536, 3);
      const write = { write: data, immediateBytes: data.length };
      const base = session.takeCmdSN();
      const waiting: number[] = [];
      for (let n = 0; n < 60; n++)
        waiting.push(session.sendCommand({ cdb: write10(128 * (n % 16), 128), ...write }));
      await session.finish(session.sendCommand({ cdb: read10(0, 1), read: 512, cmdSN: base }), { read: 512 });
      for (const itt of waiting) t.equal((await session.finish(itt, {})).status, STATUS.GOOD);
    },
  },
  {
    id: 'LIM-10',
    clause: 'RFC 7143 §11.7.6, §13.17',
    level: 'MUST',
    text: 'many writes at once whose data come in pieces of odd size cost no more than a block each beside what is under way',
    async run(t) {
      const { at } = await startSite(t, ['a'], () => withLimits({ connectionBufferBytesMax: 1 << 20 }));
      const session = await Session.login(
        { ...at('a'), host: '127.0.0.1' },
        { keys: { ImmediateData: 'No', InitialR2T: 'Yes' } },
      );
      const data = pattern(131_072, 4);
      const r2ts: Pdu[] = [];
      for (let n = 0; n < 40; n++) {
        session.sendCommand({ cdb: write10(0, 256), write: data });
        r2ts.push(await session.expect(OP.R2T));
      }
      const { expStatSN, lun } = session;
      const pieces = [0, 1001, 2000, 70_001, data.length];
      for (let dataSN = 0; dataSN + 1 < pieces.length; dataSN++) {
        const [offset = 0, end = 0] = pieces.slice(dataSN);
        for (const { itt, ttt } of r2ts)
          session.connection.send(
            dataOut({
              itt,
              ttt,
              lun,
              expStatSN,
              dataSN,
              offset,
              data: data.subarray(offset, end),
              final: end === data.length,
            }),
          );
      }
      for (const { itt } of r2ts) t.equal((await session.finish(itt, {})).status, STATUS.GOOD);
      const read = await session.execute({ cdb: read10(0, 256), read: data.length });
      t.ok(read.data.equals(data));
    },
  },
  {
    id: 'LIM-11',
    clause: 'RFC 7143 §4.2.2.1, §11.4.11, §11.19.1',
    level: 'MUST',
    text: 'a window of one command opens again with each answer, and by a NOP-In without a tag where a command ends without one',
    async run(t) {
      const { at } = await startSite(t, ['a'], () => withLimits({ commandWindow: 1 }));
      const session = await Session.login(
        { ...at('a'), host: '127.0.0.1' },
        { keys: { InitialR2T: 'Yes', ImmediateData: 'No' } },
      );
      const isOpen = (pdu: Pdu | undefined): boolean =>
        pdu !== undefined && !serialAfter(session.cmdSN, pdu.maxCmdSN);
      const { blockBytes } = session;
      for (let n = 0; n < 4; n++) {
        const write = await session.execute({ cdb: write10(8 * n, 8), write: pattern(8 * blockBytes, n) });
        t.equal(write.status, STATUS.GOOD);
        t.notOk(isOpen(write.r2ts[0]), 'no other command meanwhile');
        t.ok(isOpen(write.pdus.at(-1)), 'after the answer of a write that had to wait');
        const read = await session.execute({ cdb: read10(8 * n, 8), read: 8 * blockBytes });
        t.ok(read.data.equals(pattern(8 * blockBytes, n)));
        t.ok(isOpen(read.pdus.at(-1)), 'after the answer of a read');
      }
      const referencedTag = session.sendCommand({ cdb: write10(0, 8), write: Buffer.alloc(8 * blockBytes) });
      await session.expect(OP.R2T);
      session.sendManage(TASK_FUNCTION.ABORT_TASK, { referencedTag, refCmdSN: session.cmdSN - 1 });
      let told = await session.connection.receive();
      if (told?.opcode === OP.NOP_IN) {
        t.equal(told.itt, NO_TAG);
        t.equal(told.ttt, NO_TAG, 'which wants no answer');
        t.ok(isOpen(told), 'after a command that ended without an answer');
        told = await session.connection.receive();
      }
      t.equal(told?.opcode, OP.TASK_MANAGEMENT_RESPONSE);
      t.ok(isOpen(told), 'after an abort');
    },
  },
  {
    id: 'LIM-50',
    clause: 'RFC 7143 §7.14, §7.3',
    level: 'ROBUST',
    text: 'a CmdSN that never comes while commands wait for it ends the session in the end, with event 3; one that comes in time does not, nor one that nobody waits for',
    async run(t) {
      const { at, log } = await startSite(t, ['a'], () => withLimits({ nopTimeoutMs: 250 }));
      const here = { ...at('a'), host: '127.0.0.1' };
      const idle = await Session.login(here);
      const rejected = await Session.login(here);
      const slow = await Session.login(here);
      rejected.sendCommand({ cdb: testUnitReady(), itt: NO_TAG });
      t.equal((await rejected.expect(OP.REJECT)).response, 4);
      const missing = slow.takeCmdSN();
      idle.takeCmdSN();
      rejected.sendCommand({ cdb: testUnitReady() });
      const waiting = slow.sendCommand({ cdb: testUnitReady() });
      t.same([await rejected.fence(), await slow.fence()], [[], []]);
      await slow.execute({ cdb: testUnitReady(), cmdSN: missing });
      t.equal((await slow.finish(waiting, {})).status, STATUS.GOOD);
      const [told, ...more] = await rejected.connection.untilClosed(20_000);
      t.same([told?.opcode, told?.asyncEvent, more], [OP.ASYNC, 3, []]);
      t.ok(log.some(({ why }) => why === 'a command that others wait for never came'));
      await served(t, slow);
      idle.cmdSN--;
      await served(t, idle);
    },
  },
  {
    id: 'LIM-07',
    clause: 'RFC 7143 §9.2 (denial of service)',
    level: 'ROBUST',
    text: 'connections that come and go by hundreds, with and without a word, leave nothing behind',
    async run(t) {
      const { at, daemon } = await startSite(t, ['a'], () => withLimits({}));
      const here = { ...at('a'), host: '127.0.0.1' };
      const session = await Session.login(here);
      for (let n = 0; n < 300; n++) {
        const connection = await Connection.open(here.host, here.port);
        if (n % 3 === 1) connection.write(Buffer.alloc(n, 0x43));
        if (n % 2) connection.socket.resetAndDestroy();
        else connection.destroy();
      }
      await served(t, session);
      const deadline = Date.now() + 20_000;
      while (daemon.status().iscsi.connections > 1) {
        if (Date.now() > deadline) throw new Error('connections are left');
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      t.ok(await getsIn(here));
    },
  },
];
