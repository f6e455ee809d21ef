/** NOP, logout, SNACK, and what happens when a connection dies (RFC 7143 §4.2.6, §6.3.5, §7, §11.14 to §11.19). */
import { encode, logoutRequest, nopOut, NO_TAG, OP, snack } from './pdu.js';
import type { Requirement } from './requirement.js';
import { read10, senseTriple, STATUS, testUnitReady, write10 } from './scsi.js';
import { Session } from './session.js';
import { pattern } from './write.js';

const SOLICITED = { InitialR2T: 'Yes', ImmediateData: 'No' } as const;

const nop: readonly Requirement[] = [
  {
    id: 'NOP-01',
    clause: 'RFC 7143 §11.18.3, §11.19, §11.18.1',
    level: 'MUST',
    text: 'a ping is answered with its ITT, the reserved TTT and its data',
    async run(t, target) {
      const session = await Session.login(target);
      for (const length of [0, 1, 3, 4, 511, 4096]) {
        const data = pattern(length, 50);
        const { cmdSN, expStatSN } = session;
        session.connection.send(nopOut({ itt: 0x42, cmdSN, expStatSN, immediate: true, data }));
        const pdu = await session.expect(OP.NOP_IN);
        t.equal(pdu.itt, 0x42);
        t.equal(pdu.ttt, NO_TAG);
        t.ok(pdu.final);
        t.ok(pdu.data.equals(data), `${length} bytes of ping data`);
      }
    },
  },
  {
    id: 'NOP-02',
    clause: 'RFC 7143 §11.18.3, §11.19',
    level: 'MUST',
    text: 'ping data is cut to the initiator’s MaxRecvDataSegmentLength',
    async run(t, target) {
      const session = await Session.login(target, { keys: { MaxRecvDataSegmentLength: '512' } });
      const { cmdSN, expStatSN } = session;
      const data = pattern(2048, 51);
      session.connection.send(nopOut({ itt: 0x42, cmdSN, expStatSN, immediate: true, data }));
      const pdu = await session.expect(OP.NOP_IN);
      t.ok(pdu.data.equals(data.subarray(0, 512)));
    },
  },
  {
    id: 'NOP-03',
    clause: 'RFC 7143 §11.18.1',
    level: 'MUST',
    text: 'a NOP-Out with the reserved ITT is not answered',
    async run(t, target) {
      const session = await Session.login(target);
      const { cmdSN, expStatSN } = session;
      session.connection.send(nopOut({ itt: NO_TAG, cmdSN, expStatSN, immediate: true }));
      t.same(await session.fence(), []);
    },
  },
  {
    id: 'NOP-04',
    clause: 'RFC 7143 §4.2.2.1, §11.18',
    level: 'MUST',
    text: 'a ping that is not immediate takes a CmdSN and its turn',
    async run(t, target) {
      const session = await Session.login(target);
      const base = session.cmdSN;
      const { expStatSN } = session;
      session.connection.send(nopOut({ itt: 0x43, cmdSN: base + 1, expStatSN }));
      t.same(await session.fence(), [], 'waits for its turn');
      session.sendCommand({ cdb: testUnitReady() });
      await session.expect(OP.SCSI_RESPONSE);
      const pdu = await session.expect(OP.NOP_IN);
      t.equal(pdu.itt, 0x43);
      t.equal(pdu.expCmdSN, base + 2);
      session.cmdSN = base + 2;
    },
  },
  {
    id: 'NOP-05',
    clause: 'RFC 7143 §11.19, §7.5.2',
    level: 'SHOULD',
    text: 'an idle connection is pinged; an answer keeps it, silence ends it',
    needs: (target) => target.profile.nopIntervalMs !== undefined,
    async run(t, target) {
      const session = await Session.login(target);
      const limitMs = ((target.profile.nopIntervalMs ?? 0) + (target.profile.nopTimeoutMs ?? 0)) * 2 + 4000;
      for (let count = 0; count < 2; count++) {
        const ping = await session.connection.receive(limitMs);
        if (ping === undefined) throw new Error('the target closed instead of asking');
        t.equal(ping.opcode, OP.NOP_IN);
        t.equal(ping.itt, NO_TAG);
        t.not(ping.ttt, NO_TAG);
        t.ok(
          ping.bhs.subarray(8, 16).every((byte) => byte === 0),
          'LUN 0, which every initiator may address',
        );
        const { cmdSN, expStatSN } = session;
        const answer = nopOut({ itt: NO_TAG, ttt: ping.ttt, cmdSN, expStatSN, immediate: true });
        session.connection.send(answer.bytes(8, ping.bhs.subarray(8, 16)));
        t.same(await session.fence(), []);
      }
      await session.connection.untilClosed(limitMs);
    },
  },
  {
    id: 'NOP-06',
    clause: 'RFC 7143 §11.18.2',
    level: 'ROBUST',
    text: 'an answer to a ping that was never sent does no harm',
    async run(t, target) {
      const session = await Session.login(target);
      const { cmdSN, expStatSN } = session;
      session.connection.send(nopOut({ itt: NO_TAG, ttt: 0x777, cmdSN, expStatSN, immediate: true }));
      const pdu = await Session.login(target).then(
        () => session.fence(),
        () => [],
      );
      t.ok(Array.isArray(pdu));
    },
  },
];

const logout: readonly Requirement[] = [
  {
    id: 'OUT-01',
    clause: 'RFC 7143 §11.14.1, §11.15',
    level: 'MUST',
    text: 'logout of the session is answered with success, then the connection is closed',
    async run(t, target) {
      const session = await Session.login(target);
      const pdu = await session.logout(0);
      t.equal(pdu.response, 0);
      t.same(await session.connection.untilClosed(), []);
    },
  },
  {
    id: 'OUT-02',
    clause: 'RFC 7143 §11.14.1, §11.14.3',
    level: 'MUST',
    text: 'logout of the own connection by its CID is answered with success and a close',
    async run(t, target) {
      const session = await Session.login(target, { cid: 5 });
      t.equal((await session.logout(1, 5)).response, 0);
      t.same(await session.connection.untilClosed(), []);
    },
  },
  {
    id: 'OUT-03',
    clause: 'RFC 7143 §11.14.3, §11.15.1',
    level: 'MUST',
    text: 'logout of a CID that does not exist is answered by 1, and the connection stays',
    async run(t, target) {
      const session = await Session.login(target, { cid: 5 });
      t.equal((await session.logout(1, 6)).response, 1);
      t.same(await session.fence(), []);
    },
  },
  {
    id: 'OUT-04',
    clause: 'RFC 7143 §11.14.1, §11.15.1',
    level: 'MUST',
    text: 'logout for recovery is answered by 2 at error recovery level 0',
    async run(t, target) {
      const session = await Session.login(target);
      t.equal((await session.logout(2, 0)).response, 2);
    },
  },
  {
    id: 'OUT-05',
    clause: 'RFC 7143 §11.14.5, §4.2.6',
    level: 'MUST',
    text: 'logout does not hang on tasks that wait for data: they are terminated',
    async run(t, target) {
      const session = await Session.login(target, { keys: SOLICITED });
      session.sendCommand({ cdb: write10(0, 1), write: pattern(session.blockBytes, 52) });
      await session.expect(OP.R2T);
      t.equal((await session.logout(0)).response, 0);
      t.same(await session.connection.untilClosed(), [], 'nothing after the response');
    },
  },
  {
    id: 'OUT-06',
    clause: 'RFC 7143 §11.14, §4.2.2.1',
    level: 'MUST',
    text: 'a logout that is not immediate takes its turn: it waits for a command before it that comes later',
    async run(t, target) {
      const session = await Session.login(target);
      const { cmdSN, expStatSN } = session;
      session.connection.send(logoutRequest({ itt: 0x99, cmdSN: cmdSN + 1, expStatSN, reason: 0 }));
      t.same(await session.fence(), [], 'waits');
      session.sendCommand({ cdb: testUnitReady() });
      t.equal((await session.expect(OP.SCSI_RESPONSE)).scsiStatus, STATUS.GOOD);
      const pdu = await session.expect(OP.LOGOUT_RESPONSE);
      t.equal(pdu.response, 0);
      t.equal(pdu.expCmdSN, cmdSN + 2);
      t.same(await session.connection.untilClosed(), []);
    },
  },
  {
    id: 'OUT-07',
    clause: 'RFC 7143 §11.14.1',
    level: 'ROBUST',
    text: 'a reserved logout reason is rejected or answered by a failure',
    async run(t, target) {
      const session = await Session.login(target);
      const { cmdSN, expStatSN } = session;
      session.connection.send(logoutRequest({ itt: 1, cmdSN, expStatSN, immediate: true, reason: 9 }));
      const pdu = await session.next();
      t.ok(pdu === undefined || pdu.opcode === OP.REJECT || pdu.opcode === OP.LOGOUT_RESPONSE);
    },
  },
  {
    id: 'OUT-08',
    clause: 'RFC 7143 §11.14',
    level: 'ROBUST',
    text: 'commands sent behind a logout in one segment do no harm',
    async run(t, target) {
      const session = await Session.login(target);
      const { cmdSN, expStatSN } = session;
      session.connection.write(
        Buffer.concat([
          encode(logoutRequest({ itt: 1, cmdSN, expStatSN, immediate: true, reason: 0 })),
          encode(session.commandPdu({ cdb: testUnitReady() })),
          encode(session.commandPdu({ cdb: read10(0, 1), read: session.blockBytes })),
        ]),
      );
      t.equal((await session.expect(OP.LOGOUT_RESPONSE)).response, 0);
      t.same(await session.connection.untilClosed(), []);
    },
  },
  {
    id: 'SNACK-01',
    clause: 'RFC 7143 §11.16, §11.17.1',
    level: 'MUST',
    text: 'a SNACK at error recovery level 0 is rejected, whatever its type',
    async run(t, target) {
      for (const type of [0, 1, 2, 3, 9]) {
        const session = await Session.login(target);
        const { expStatSN } = session;
        session.connection.send(snack({ type, itt: NO_TAG, expStatSN, begin: 0, run: 1 }));
        const pdu = await session.next();
        t.ok(pdu === undefined || pdu.opcode === OP.REJECT, `type ${type}`);
      }
    },
  },
];

const death: readonly Requirement[] = [
  {
    id: 'LIFE-01',
    clause: 'RFC 7143 §7.6, §7.14',
    level: 'MUST',
    text: 'tasks end with their connection: a write whose data is cut off leaves nothing but what was sent, and others are served',
    async run(t, target) {
      const session = await Session.login(target, { keys: SOLICITED });
      const { blockBytes } = session;
      const before = pattern(blockBytes * 4, 60);
      await session.execute({ cdb: write10(800, 4), write: before });
      session.sendCommand({ cdb: write10(800, 4), write: Buffer.alloc(blockBytes * 4, 0xaa) });
      await session.expect(OP.R2T);
      session.connection.destroy();
      const other = await Session.login(target);
      const read = await other.execute({ cdb: read10(800, 4), read: before.length });
      t.ok(read.data.equals(before));
    },
  },
  {
    id: 'LIFE-02',
    clause: 'RFC 7143 §7.14',
    level: 'ROBUST',
    text: 'a connection cut at any byte of a PDU, or reset, hurts nobody else',
    async run(t, target) {
      for (let cut = 1; cut < 600; cut += 37) {
        const session = await Session.login(target, { keys: { ImmediateData: 'Yes' } });
        const { blockBytes } = session;
        const pdu = session.commandPdu({
          cdb: write10(0, 1),
          write: Buffer.alloc(blockBytes),
          immediateBytes: blockBytes,
        });
        session.connection.write(encode(pdu).subarray(0, cut));
        if (cut % 2) session.connection.socket.resetAndDestroy();
        else session.connection.destroy();
      }
      const session = await Session.login(target);
      t.equal((await session.execute({ cdb: testUnitReady() })).status, STATUS.GOOD);
    },
  },
  {
    id: 'LIFE-03',
    clause: 'RFC 7143 §7.1.4.3, §4.2.6, §7.14',
    level: 'MUST',
    text: 'a connection that the initiator closes for sending is closed by the target',
    async run(t, target) {
      const session = await Session.login(target);
      session.connection.socket.end();
      t.same(await session.connection.untilClosed(), []);
    },
  },
  {
    id: 'LIFE-04',
    clause: 'RFC 7143 §7.15, §6.3.5, §7.6',
    level: 'MUST',
    text: 'session reinstatement ends the tasks of the old session without a trace',
    async run(t, target) {
      const old = await Session.login(target, { keys: SOLICITED });
      const { blockBytes } = old;
      const before = pattern(blockBytes, 61);
      await old.execute({ cdb: write10(810, 1), write: before });
      const late = Buffer.alloc(blockBytes, 0xab);
      old.sendCommand({ cdb: write10(810, 1), write: late });
      const r2t = await old.expect(OP.R2T);
      const fresh = await Session.login(target, { isid: old.isid });
      old.answerR2T(r2t, late);
      await old.connection.untilClosed();
      const read = await fresh.execute({ cdb: read10(810, 1), read: blockBytes });
      t.ok(read.data.equals(before));
    },
  },
  {
    id: 'LIFE-05',
    clause: 'RFC 7143 §6.3.5.1',
    level: 'MUST',
    text: 'a new session of the same initiator port learns of the loss of its nexus by a unit attention',
    async run(t, target) {
      const first = await Session.login(target);
      first.connection.destroy();
      const second = await Session.login(target, { isid: first.isid, keepUnitAttention: true });
      const outcome = await second.execute({ cdb: testUnitReady() });
      t.equal(outcome.status, STATUS.CHECK_CONDITION);
      t.match(senseTriple(outcome.sense), /^06\/29\//);
    },
  },
  {
    id: 'LIFE-06',
    clause: 'RFC 7143 §10 (implementation notes)',
    level: 'ROBUST',
    text: 'an initiator that asks for much and reads nothing is no burden to another',
    async run(t, target) {
      const greedy = await Session.login(target, {
        keys: { MaxRecvDataSegmentLength: '262144', MaxBurstLength: '1048576' },
      });
      greedy.connection.socket.pause();
      const bytes = 1048576;
      for (let n = 0; n < 100; n++)
        greedy.sendCommand({ cdb: read10(0, bytes / greedy.blockBytes), read: bytes });
      const other = await Session.login(target);
      for (let n = 0; n < 50; n++) {
        t.equal((await other.execute({ cdb: read10(0, 1), read: other.blockBytes })).status, STATUS.GOOD);
      }
    },
  },
  {
    id: 'LIFE-07',
    clause: 'RFC 7143 §6.3.5',
    level: 'ROBUST',
    text: 'two hundred logins that are dropped, and as many that are reinstated, leave the target as it was',
    async run(t, target) {
      for (let n = 0; n < 200; n++) {
        const session = await Session.connect(target);
        await session.enter(target, { keepUnitAttention: true });
        session.connection.destroy();
        target.sessions.pop();
      }
      const isid = target.freshIsid();
      for (let n = 0; n < 200; n++) {
        const session = await Session.connect(target);
        await session.enter(target, { isid, keepUnitAttention: true });
      }
      const session = await Session.login(target);
      t.equal((await session.execute({ cdb: testUnitReady() })).status, STATUS.GOOD);
    },
  },
];

export const life: readonly Requirement[] = [...nop, ...logout, ...death];
