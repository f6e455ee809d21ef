/** Asynchronous messages (RFC 7143 §11.9): what the target says of its own accord. */
import { logoutRequest, OP, type Pdu, TASK_FUNCTION } from './pdu.js';
import type { Requirement, Tap } from './requirement.js';
import { senseTriple, STATUS, testUnitReady, write10 } from './scsi.js';
import { Session } from './session.js';
import { ANY_PORT, site, startSite } from './site.js';

const EVENT = { SCSI: 0, LOGOUT_REQUEST: 1, CONNECTION_DROP: 2, SESSION_DROP: 3 } as const;

const open = { portals: [ANY_PORT], targets: [site.target('a')] };

/** The sense data of an event 0: behind a length of two bytes (§11.9.4). */
function senseOf(t: Tap, pdu: Pdu): string {
  t.equal(pdu.data.readUInt16BE(0), pdu.data.length - 2, 'SenseLength');
  return senseTriple(pdu.data.subarray(2));
}

/** The message that must come next. */
async function message(t: Tap, session: Session, event: number): Promise<Pdu> {
  const pdu = await session.expect(OP.ASYNC);
  t.equal(pdu.asyncEvent, event, `event ${event}`);
  t.ok(pdu.final);
  t.equal(pdu.bhs.readUInt8(37), 0, 'AsyncVCode belongs to vendor specific events');
  return pdu;
}

export const asynchronous: readonly Requirement[] = [
  {
    id: 'ASYNC-01',
    clause: 'RFC 7143 §11.9.1, §11.9.4, §11.9.3',
    level: 'MAY',
    text: 'a unit attention is told by event 0 with LUN and sense data, and stays pending for the next command',
    async run(t, target) {
      const session = await Session.login(target);
      const other = await Session.login(target);
      await other.manage(TASK_FUNCTION.LOGICAL_UNIT_RESET);
      const pdu = await message(t, session, EVENT.SCSI);
      t.equal(pdu.bhs.readUInt8(9), target.lun);
      t.match(senseOf(t, pdu), /^06\/29\//);
      t.same(pdu.asyncParameters, [0, 0, 0]);
      const outcome = await session.execute({ cdb: testUnitReady() });
      t.equal(outcome.status, STATUS.CHECK_CONDITION);
      t.match(senseTriple(outcome.sense), /^06\/29\//);
    },
  },
  {
    id: 'ASYNC-02',
    clause: 'RFC 7143 §11.9.1',
    level: 'MAY',
    text: 'a changed list of LUNs is an event, so that a host can look at once: REPORTED LUNS DATA HAS CHANGED',
    async run(t) {
      const master = { access: [{ initiator: '*', show: ['master'] }] };
      const { at, reload } = await startSite(t, ['a'], () => ({
        portals: [ANY_PORT],
        targets: [site.target('a', master)],
      }));
      const session = await Session.login(at('a'));
      await reload(open);
      t.equal(senseOf(t, await message(t, session, EVENT.SCSI)), '06/3f/0e');
    },
  },
  {
    id: 'ASYNC-03',
    clause: 'RFC 7143 §11.9.1',
    level: 'MAY',
    text: 'events are left out where the configuration says so (limits.scsiEvents)',
    async run(t) {
      const { at } = await startSite(t, ['a'], () => ({ ...open, limits: { scsiEvents: false } }));
      const session = await Session.login(at('a'));
      const other = await Session.login(at('a'));
      await other.manage(TASK_FUNCTION.LOGICAL_UNIT_RESET);
      t.same(await session.fence(), []);
    },
  },
  {
    id: 'ASYNC-04',
    clause: 'RFC 7143 §11.9.1, §11.14',
    level: 'MUST',
    text: 'a planned stop asks for a logout within Parameter3 seconds (event 1), answers it, and tells those who stay of the end (event 3)',
    async run(t) {
      const { at, daemon } = await startSite(t, ['a'], () => ({ ...open, shutdownGraceMs: 1500 }));
      const obedient = await Session.login(at('a'));
      const stubborn = await Session.login(at('a'), { keys: { DefaultTime2Wait: '7' } });
      const stopped = daemon.close();
      for (const session of [obedient, stubborn])
        t.same((await message(t, session, EVENT.LOGOUT_REQUEST)).asyncParameters, [0, 0, 2]);
      const { cmdSN, expStatSN } = obedient;
      obedient.connection.send(logoutRequest({ itt: 1, cmdSN, expStatSN, immediate: true, reason: 0 }));
      t.equal((await obedient.expect(OP.LOGOUT_RESPONSE)).response, 0);
      t.same(await obedient.connection.untilClosed(), []);
      t.same(
        (await message(t, stubborn, EVENT.SESSION_DROP)).asyncParameters,
        [0, 7, 0],
        'Time2Wait as negotiated',
      );
      t.same(await stubborn.connection.untilClosed(), []);
      await stopped;
    },
  },
  {
    id: 'ASYNC-05',
    clause: 'RFC 7143 §11.9.1',
    level: 'MAY',
    text: 'a session that the operator ends, or whose access is withdrawn, is told by event 3 before its connection closes',
    async run(t) {
      const { at, daemon, reload } = await startSite(t, ['a'], () => open);
      const killed = await Session.login(at('a'));
      t.ok(daemon.sessions().length === 1 && daemon.killSession(daemon.sessions()[0]?.id ?? 0));
      await message(t, killed, EVENT.SESSION_DROP);
      t.same(await killed.connection.untilClosed(), []);
      const shut = await Session.login(at('a'));
      await reload({
        portals: [ANY_PORT],
        targets: [site.target('a', { access: [{ initiator: 'iqn.2026-01.x:y' }] })],
      });
      await message(t, shut, EVENT.SESSION_DROP);
      t.same(await shut.connection.untilClosed(), []);
    },
  },
  {
    id: 'ASYNC-06',
    clause: 'RFC 7143 §11.9.1, §7.8',
    level: 'MAY',
    text: 'a connection that the target drops is told by event 2 with its CID',
    async run(t, target) {
      const digest = await Session.login(target, { cid: 9, keys: { DataDigest: 'CRC32C' } });
      digest.sendCommand(
        { cdb: write10(0, 1), write: Buffer.alloc(512), immediateBytes: 512 },
        { badDataDigest: true },
      );
      t.equal((await digest.expect(OP.REJECT)).response, 2);
      t.same((await message(t, digest, EVENT.CONNECTION_DROP)).asyncParameters, [9, 2, 0]);
      t.same(await digest.connection.untilClosed(), []);
      const long = await Session.login(target, { cid: 4 });
      long.connection.send(long.commandPdu({ cdb: testUnitReady() }), { dataSegmentLength: 0xffffff });
      t.same((await message(t, long, EVENT.CONNECTION_DROP)).asyncParameters, [4, 2, 0]);
      t.same(await long.connection.untilClosed(), []);
    },
  },
  {
    id: 'ASYNC-07',
    clause: 'RFC 7143 §11.9, §4.2.2.2',
    level: 'MUST',
    text: 'an asynchronous message carries the reserved ITT and a StatSN of its own, and fits between the answers of commands',
    async run(t, target) {
      const session = await Session.login(target);
      const other = await Session.login(target);
      for (let round = 0; round < 20; round++) {
        session.sendCommand({ cdb: testUnitReady() });
        other.sendManage(TASK_FUNCTION.LOGICAL_UNIT_RESET);
        session.sendCommand({ cdb: testUnitReady() });
      }
      // Numbering and reserved fields are rules of the wire: see the end of each row.
      let responses = 0;
      while (responses < 40) {
        const pdu = await session.next();
        if (pdu?.opcode === OP.SCSI_RESPONSE) responses++;
        else t.equal(pdu?.opcode, OP.ASYNC);
      }
      await session.fence();
    },
  },
];
