/** Task management (RFC 7143 §4.2.3, §11.5, §11.6; RFC 7144). */
import {
  dataOut,
  lastOf,
  NO_TAG,
  nopOut,
  OP,
  taskManagement as managementRequest,
  type Pdu,
  TASK_FUNCTION,
} from './pdu.js';
import type { Requirement, Tap } from './requirement.js';
import { modeSelect6, read10, senseTriple, STATUS, testUnitReady, write10 } from './scsi.js';
import { Session } from './session.js';
import type { Target } from './target.js';
import { pattern } from './write.js';

/** Responses (RFC 7143 §11.6.1, RFC 7144). */
const COMPLETE = 0;
const NO_TASK = 1;
const NO_LUN = 2;
const NO_REASSIGNMENT = 4;
const NOT_SUPPORTED = 5;
const NOT_AUTHORIZED = 6;
const SUCCEEDED = 7;
const REJECTED = 255;

const SOLICITED = { InitialR2T: 'Yes', ImmediateData: 'No' } as const;
const FAST = { ...SOLICITED, TaskReporting: 'FastAbort' } as const;
const LEVEL_2 = { ...SOLICITED, iSCSIProtocolLevel: '2' } as const;

interface Waiting {
  itt: number;
  r2t: Pdu;
  data: Buffer;
  lba: number;
}

/** A write that waits for the data it has asked for. */
async function waitingWrite(session: Session, lba: number): Promise<Waiting> {
  const data = Buffer.alloc(session.blockBytes, 0xcc);
  const itt = session.sendCommand({ cdb: write10(lba, 1), write: data });
  return { itt, r2t: await session.expect(OP.R2T), data, lba };
}

/** Late data of an aborted task, which the target has to swallow. */
function sendLate(session: Session, { itt, r2t, data }: Waiting): void {
  const { expStatSN, lun } = session;
  session.connection.send(
    dataOut({ itt, ttt: r2t.ttt, lun, expStatSN, dataSN: 0, offset: 0, data, final: true }),
  );
}

async function prepared(
  target: Target,
  lba: number,
  keys: Record<string, string> = SOLICITED,
): Promise<{ session: Session; before: Buffer }> {
  const session = await Session.login(target, { keys });
  const before = pattern(session.blockBytes * 4, 70);
  await session.execute({ cdb: write10(lba, 4), write: before });
  return { session, before };
}

async function holds(t: Tap, session: Session, lba: number, data: Buffer, why: string): Promise<void> {
  for (let attempt = 0; attempt < 3; attempt++) {
    const outcome = await session.execute({
      cdb: read10(lba, data.length / session.blockBytes),
      read: data.length,
    });
    if (outcome.status === STATUS.CHECK_CONDITION && senseTriple(outcome.sense).startsWith('06')) continue;
    t.ok(outcome.data.equals(data), why);
    return;
  }
  t.fail('unit attention without end');
}

/** The response to a task management request; other PDUs before it are returned beside. */
async function responseTo(session: Session, itt: number): Promise<{ pdu: Pdu; before: Pdu[] }> {
  const before: Pdu[] = [];
  for (;;) {
    const pdu = await session.next();
    if (pdu === undefined) throw new Error('closed instead of a task management response');
    if (pdu.opcode === OP.TASK_MANAGEMENT_RESPONSE && pdu.itt === itt) return { pdu, before };
    if (pdu.opcode === OP.REJECT) throw new Error(`rejected: ${pdu.response}`);
    before.push(pdu);
  }
}

const multiTask = (id: string, fn: number, name: string): Requirement => ({
  id,
  clause: 'RFC 7143 §4.2.3.3, §11.5.1',
  level: 'MUST',
  text: `${name} ends all writes that wait for data, after the data that was asked for came in; nothing follows the response`,
  async run(t, target) {
    const { session, before } = await prepared(target, 900);
    const tasks = [await waitingWrite(session, 900), await waitingWrite(session, 901)];
    const itt = session.sendManage(fn);
    // Standard semantics: the initiator goes on answering the R2Ts that it has.
    for (const task of tasks) sendLate(session, task);
    const { pdu } = await responseTo(session, itt);
    t.equal(pdu.response, COMPLETE);
    t.same(await session.fence(), [], 'no data or status of the tasks follows');
    await holds(t, session, 900, before, 'nothing was written');
  },
});

export const taskManagement: readonly Requirement[] = [
  {
    id: 'TMF-01',
    clause: 'RFC 7143 §11.5.1, §11.6.1',
    level: 'MUST',
    text: 'ABORT TASK ends a write that waits for data; its late data is swallowed and not written',
    async run(t, target) {
      const { session, before } = await prepared(target, 900);
      const task = await waitingWrite(session, 900);
      t.equal(
        (await session.manage(TASK_FUNCTION.ABORT_TASK, { referencedTag: task.itt })).response,
        COMPLETE,
      );
      sendLate(session, task);
      t.same(await session.fence(), [], 'no response of the task');
      await holds(t, session, 900, before, 'nothing was written');
    },
  },
  {
    id: 'TMF-02',
    clause: 'RFC 7143 §7.11, §11.5.1, §11.6.1',
    level: 'MUST',
    text: 'ABORT TASK of a task that ended, with RefCmdSN outside of the window, gives Task does not exist',
    async run(t, target) {
      const session = await Session.login(target);
      await session.execute({ cdb: testUnitReady() });
      const refCmdSN = session.cmdSN - 1;
      t.equal(
        (await session.manage(TASK_FUNCTION.ABORT_TASK, { referencedTag: 0xdead, refCmdSN })).response,
        NO_TASK,
      );
    },
  },
  {
    id: 'TMF-03',
    clause: 'RFC 7143 §7.11, §11.5.1, §11.5.5',
    level: 'MUST',
    text: 'ABORT TASK of a command that has not arrived counts it as received: Function complete, and no wait for it',
    async run(t, target) {
      const session = await Session.login(target);
      const lost = session.takeCmdSN();
      t.equal(
        (await session.manage(TASK_FUNCTION.ABORT_TASK, { referencedTag: 0xbeef, refCmdSN: lost })).response,
        COMPLETE,
      );
      t.equal(
        (await session.execute({ cdb: testUnitReady() })).status,
        STATUS.GOOD,
        'the next command does not wait',
      );
      session.sendCommand({ cdb: testUnitReady(), cmdSN: lost, itt: 0xbeef });
      t.same(await session.fence(), [], 'the late command is ignored');
    },
  },
  {
    id: 'TMF-04',
    clause: 'RFC 7143 §4.2.5.3, §11.5.3, §11.5.4',
    level: 'MUST',
    text: 'ABORT TASK with the LUN of another unit leaves the task alone',
    async run(t, target) {
      const { session } = await prepared(target, 900);
      const task = await waitingWrite(session, 900);
      const pdu = await session.manage(TASK_FUNCTION.ABORT_TASK, { referencedTag: task.itt, lun: 77 });
      t.not(pdu.response, COMPLETE);
      sendLate(session, task);
      t.equal((await session.finish(task.itt, {})).status, STATUS.GOOD);
    },
  },
  {
    id: 'TMF-05',
    clause: 'RFC 7143 §11.5.1',
    level: 'MUST',
    text: 'ABORT TASK leaves the other tasks of the session alone',
    async run(t, target) {
      const { session } = await prepared(target, 900);
      const one = await waitingWrite(session, 900);
      const two = await waitingWrite(session, 901);
      t.equal(
        (await session.manage(TASK_FUNCTION.ABORT_TASK, { referencedTag: one.itt })).response,
        COMPLETE,
      );
      sendLate(session, two);
      t.equal((await session.finish(two.itt, {})).status, STATUS.GOOD);
    },
  },
  multiTask('TMF-10', TASK_FUNCTION.ABORT_TASK_SET, 'ABORT TASK SET'),
  multiTask('TMF-11', TASK_FUNCTION.CLEAR_TASK_SET, 'CLEAR TASK SET'),
  multiTask('TMF-12', TASK_FUNCTION.LOGICAL_UNIT_RESET, 'LOGICAL UNIT RESET'),
  {
    id: 'TMF-13',
    clause: 'RFC 7143 §4.2.3.2',
    level: 'MUST',
    text: 'ABORT TASK SET leaves the tasks of another session alone',
    async run(t, target) {
      const { session } = await prepared(target, 900);
      const task = await waitingWrite(session, 900);
      const other = await Session.login(target, { keys: SOLICITED });
      t.equal((await other.manage(TASK_FUNCTION.ABORT_TASK_SET)).response, COMPLETE);
      sendLate(session, task);
      t.equal((await session.finish(task.itt, {})).status, STATUS.GOOD);
    },
  },
  {
    id: 'TMF-14',
    clause: 'RFC 7143 §4.2.3.2, §11.5.1',
    level: 'MUST',
    text: 'LOGICAL UNIT RESET ends the tasks of every session, and the others find a unit attention',
    async run(t, target) {
      const { session, before } = await prepared(target, 900);
      const task = await waitingWrite(session, 900);
      const other = await Session.login(target, { keys: SOLICITED });
      const itt = other.sendManage(TASK_FUNCTION.LOGICAL_UNIT_RESET);
      sendLate(session, task);
      t.equal((await responseTo(other, itt)).pdu.response, COMPLETE);
      const first = await session.execute({ cdb: testUnitReady() });
      t.equal(first.status, STATUS.CHECK_CONDITION);
      t.match(senseTriple(first.sense), /^06\/(29|2f)\//);
      t.notOk(first.pdus.some(({ itt: tag }) => tag === task.itt));
      await holds(t, session, 900, before, 'nothing was written');
    },
  },
  {
    id: 'TMF-15',
    clause: 'RFC 7143 §11.5.1, §11.6.1',
    level: 'MUST',
    text: 'TARGET WARM RESET is done, or refused as not supported or not authorised',
    async run(t, target) {
      const session = await Session.login(target);
      const { response } = await session.manage(TASK_FUNCTION.TARGET_WARM_RESET);
      t.ok([COMPLETE, NOT_SUPPORTED, NOT_AUTHORIZED].includes(response), `response ${response}`);
    },
  },
  {
    id: 'TMF-16',
    clause: 'RFC 7143 §11.5.1, §11.6.1',
    level: 'MUST',
    text: 'TARGET COLD RESET closes all sessions, or is refused as not supported or not authorised',
    async run(t, target) {
      const session = await Session.login(target);
      const other = await Session.login(target);
      const itt = session.sendManage(TASK_FUNCTION.TARGET_COLD_RESET);
      const pdu = await session.next();
      if (pdu === undefined) {
        t.pass('closed');
        return;
      }
      t.equal(pdu.itt, itt);
      t.ok([COMPLETE, NOT_SUPPORTED, NOT_AUTHORIZED].includes(pdu.response), `response ${pdu.response}`);
      if (pdu.response === COMPLETE) {
        await session.connection.untilClosed();
        await other.connection.untilClosed();
      }
      await Session.login(target);
    },
  },
  {
    id: 'TMF-17',
    clause: 'RFC 7143 §11.5.1',
    level: 'MUST',
    text: 'CLEAR ACA is done, or refused as not supported',
    async run(t, target) {
      const session = await Session.login(target);
      const { response } = await session.manage(TASK_FUNCTION.CLEAR_ACA);
      t.ok([COMPLETE, NOT_SUPPORTED].includes(response), `response ${response}`);
    },
  },
  {
    id: 'TMF-18',
    clause: 'RFC 7143 §11.6.1, §7.2.2',
    level: 'MUST',
    text: 'TASK REASSIGN is refused at error recovery level 0: not supported, or no such task',
    async run(t, target) {
      const session = await Session.login(target);
      const { response } = await session.manage(TASK_FUNCTION.TASK_REASSIGN, { referencedTag: 0x1234 });
      t.ok([NO_TASK, NO_REASSIGNMENT, NOT_SUPPORTED].includes(response), `response ${response}`);
    },
  },
  {
    id: 'TMF-19',
    clause: 'RFC 7143 §11.6.1',
    level: 'MUST',
    text: 'functions that are not defined are answered by not supported or rejected',
    async run(t, target) {
      for (const fn of [0, 13, 14, 64, 127]) {
        const session = await Session.login(target);
        session.sendManage(fn);
        const pdu = await session.next();
        if (pdu === undefined) throw new Error('closed');
        if (pdu.opcode === OP.REJECT) continue;
        t.equal(pdu.opcode, OP.TASK_MANAGEMENT_RESPONSE);
        t.ok([NOT_SUPPORTED, REJECTED].includes(pdu.response), `function ${fn}: response ${pdu.response}`);
      }
    },
  },
  {
    id: 'TMF-20',
    clause: 'RFC 7143 §11.6.1',
    level: 'MUST',
    text: 'functions on a LUN that does not exist are answered by LUN does not exist',
    async run(t, target) {
      const session = await Session.login(target);
      for (const fn of [
        TASK_FUNCTION.ABORT_TASK_SET,
        TASK_FUNCTION.CLEAR_TASK_SET,
        TASK_FUNCTION.LOGICAL_UNIT_RESET,
      ]) {
        t.equal((await session.manage(fn, { lun: 77 })).response, NO_LUN, `function ${fn}`);
      }
    },
  },
  {
    id: 'TMF-21',
    clause: 'RFC 7143 §11.5, §4.2.2.1',
    level: 'MUST',
    text: 'a request that is not immediate takes its turn in CmdSN order',
    async run(t, target) {
      const session = await Session.login(target);
      const base = session.cmdSN;
      const { expStatSN, lun } = session;
      session.connection.send(
        managementRequest({
          function: TASK_FUNCTION.ABORT_TASK_SET,
          itt: 0x321,
          cmdSN: base + 1,
          expStatSN,
          immediate: false,
          lun,
        }),
      );
      t.same(await session.fence(), [], 'waits');
      session.sendCommand({ cdb: testUnitReady(), cmdSN: base });
      session.cmdSN = base + 2;
      const pdus = await session.fence();
      t.equal(pdus.at(-1)?.opcode, OP.TASK_MANAGEMENT_RESPONSE);
      t.equal(pdus.at(-1)?.expCmdSN, base + 2);
    },
  },
  {
    id: 'TMF-22',
    clause: 'RFC 7143 §4.2.2.3, §11.6',
    level: 'MUST',
    text: 'under a storm of reads and aborts every task ends once: by its status, or by an abort and nothing else',
    async run(t, target) {
      const session = await Session.login(target);
      const { pdus } = await session.execute({ cdb: testUnitReady() });
      const count = Math.min(40, ((lastOf(pdus).maxCmdSN - session.cmdSN) >>> 0) + 1);
      const ended = new Map<number, number>();
      const aborted = new Map<number, number>();
      for (let n = 0; n < count; n++) {
        const itt = session.sendCommand({ cdb: read10(0, 8), read: 8 * session.blockBytes });
        const refCmdSN = session.cmdSN - 1;
        ended.set(itt, 0);
        aborted.set(session.sendManage(TASK_FUNCTION.ABORT_TASK, { referencedTag: itt, refCmdSN }), itt);
      }
      for (let left = count; left > 0;) {
        const pdu = await session.next();
        if (pdu === undefined) throw new Error('closed');
        if (pdu.opcode === OP.TASK_MANAGEMENT_RESPONSE) {
          left--;
          const task = aborted.get(pdu.itt) ?? -1;
          if (pdu.response === COMPLETE) t.equal(ended.get(task), 0, 'an aborted task has no status');
          else t.equal(ended.get(task), 1, 'a task that does not exist any more has a status');
        } else if (pdu.opcode === OP.SCSI_RESPONSE || (pdu.flags & 1) !== 0) {
          ended.set(pdu.itt, (ended.get(pdu.itt) ?? 0) + 1);
        }
      }
      t.same(await session.fence(), []);
    },
  },
  {
    id: 'TMF-23',
    clause: 'RFC 7143 §4.2.3.4, §13.23, §10.7',
    level: 'MUST',
    text: 'with FastAbort a multi-task abort does not wait for data that was asked for, and what comes late is dropped',
    async run(t, target) {
      const { session, before } = await prepared(target, 900, FAST);
      t.equal(session.agreed.get('TaskReporting'), 'FastAbort');
      const task = await waitingWrite(session, 900);
      const itt = session.sendManage(TASK_FUNCTION.ABORT_TASK_SET);
      const { pdu, before: others } = await responseTo(session, itt);
      t.equal(pdu.response, COMPLETE);
      t.same(others, [], 'the issuing connection needs no asynchronous message');
      sendLate(session, task);
      t.same(await session.fence(), []);
      await holds(t, session, 900, before, 'nothing was written');
    },
  },
  {
    id: 'TMF-24',
    clause: 'RFC 7143 §4.2.3.3, §13.23',
    level: 'MUST',
    text: 'without FastAbort the response to a multi-task abort comes after the data that R2Ts have asked for',
    async run(t, target) {
      for (const reporting of ['RFC3720', 'ResponseFence']) {
        const { session, before } = await prepared(target, 900, { ...SOLICITED, TaskReporting: reporting });
        t.equal(session.agreed.get('TaskReporting'), reporting);
        const tasks = [await waitingWrite(session, 900), await waitingWrite(session, 901)] as const;
        const itt = session.sendManage(TASK_FUNCTION.CLEAR_TASK_SET);
        t.same(await session.fence(), [], 'waits for both');
        sendLate(session, tasks[0]);
        t.same(await session.fence(), [], 'waits for the other');
        sendLate(session, tasks[1]);
        const { pdu, before: others } = await responseTo(session, itt);
        t.equal(pdu.response, COMPLETE);
        t.same(others, []);
        await holds(t, session, 900, before, 'nothing was written');
      }
    },
  },
  {
    id: 'TMF-25',
    clause: 'RFC 7143 §4.2.3.3',
    level: 'ROBUST',
    text: 'an initiator that answers no R2T after its reset, as Linux does by default, gets its response all the same',
    async run(t, target) {
      const { session, before } = await prepared(target, 900);
      const task = await waitingWrite(session, 900);
      t.equal((await session.manage(TASK_FUNCTION.LOGICAL_UNIT_RESET)).response, COMPLETE);
      sendLate(session, task);
      t.same(await session.fence(), []);
      await holds(t, session, 900, before, 'nothing was written');
    },
  },
  {
    id: 'TMF-26',
    clause: 'RFC 7143 §4.2.3.3, §4.2.3.4',
    level: 'MUST',
    text: 'an immediate multi-task abort reaches the commands numbered before it, also those that come after it',
    async run(t, target) {
      const { session, before } = await prepared(target, 900, FAST);
      const { cmdSN } = session;
      session.cmdSN = cmdSN + 1;
      const itt = session.sendManage(TASK_FUNCTION.ABORT_TASK_SET);
      t.same(await session.fence(), [], 'waits for the command');
      const data = Buffer.alloc(session.blockBytes, 0xcd);
      session.sendCommand({ cdb: write10(900, 1), write: data, cmdSN });
      const r2t = await session.expect(OP.R2T);
      t.equal((await responseTo(session, itt)).pdu.response, COMPLETE);
      sendLate(session, { itt: r2t.itt, r2t, data, lba: 900 });
      t.same(await session.fence(), []);
      await holds(t, session, 900, before, 'nothing was written');
    },
  },
  {
    id: 'TMF-27',
    clause: 'RFC 7143 §4.2.3.3, §4.2.3.4',
    level: 'MUST',
    text: 'for a reset of the target, commands before it that have not arrived count as received',
    async run(t, target) {
      const session = await Session.login(target);
      const lost = session.takeCmdSN();
      const { response } = await session.manage(TASK_FUNCTION.TARGET_WARM_RESET);
      if (response !== COMPLETE) {
        t.ok([NOT_SUPPORTED, NOT_AUTHORIZED].includes(response));
        return;
      }
      const first = await session.execute({ cdb: testUnitReady() });
      t.match(senseTriple(first.sense), /^06\/29\//, 'the next command does not wait');
      session.sendCommand({ cdb: testUnitReady(), cmdSN: lost });
      t.same(await session.fence(), [], 'the late one is ignored');
    },
  },
  {
    id: 'TMF-50',
    clause: 'RFC 7143 §4.2.2.1, §4.2.3.2, §4.6.1.3',
    level: 'MUST',
    text: 'an immediate multi-task abort leaves the commands numbered behind it alone, though they wait with those before it',
    async run(t, target) {
      for (const fn of [
        TASK_FUNCTION.ABORT_TASK_SET,
        TASK_FUNCTION.CLEAR_TASK_SET,
        TASK_FUNCTION.LOGICAL_UNIT_RESET,
      ]) {
        const { session, before } = await prepared(target, 900, FAST);
        const missing = session.takeCmdSN();
        const data = Buffer.alloc(session.blockBytes, 0xcd);
        const waiting = session.sendCommand({ cdb: write10(900, 1), write: data });
        const itt = session.sendManage(fn);
        const behind = session.sendCommand({ cdb: read10(900, 1), read: before.length / 4 });
        t.same(await session.fence(), []);
        session.sendCommand({ cdb: testUnitReady(), cmdSN: missing });
        const { before: sent } = await responseTo(session, itt);
        t.notOk(
          sent.some((pdu) => pdu.itt === waiting && pdu.opcode === OP.SCSI_RESPONSE),
          'what is before it has ended without a status',
        );
        t.notOk(
          sent.some((pdu) => pdu.itt === behind),
          'what is behind it is answered behind it',
        );
        const outcome = await session.finish(behind, { read: before.length / 4 });
        if (fn === TASK_FUNCTION.LOGICAL_UNIT_RESET) t.match(senseTriple(outcome.sense), /^06\/29\//);
        else t.ok(outcome.data.equals(before.subarray(0, session.blockBytes)), 'it has run');
        await holds(t, session, 900, before, 'nothing was written');
      }
    },
  },
  {
    id: 'TMF-51',
    clause: 'RFC 7143 §4.2.3.3, §4.2.3.4',
    level: 'MUST',
    text: 'a reset of the target also ends the commands before it that wait for one which has not arrived',
    async run(t, target) {
      const { session, before } = await prepared(target, 900);
      const lost = session.takeCmdSN();
      const data = Buffer.alloc(session.blockBytes, 0xcd);
      session.sendCommand({ cdb: write10(900, 1), write: data });
      t.same(await session.fence(), [], 'it waits');
      const { response } = await session.manage(TASK_FUNCTION.TARGET_WARM_RESET);
      if (response !== COMPLETE) {
        t.ok([NOT_SUPPORTED, NOT_AUTHORIZED].includes(response));
        return;
      }
      t.same(await session.fence(), [], 'nothing of it follows the response');
      const first = await session.execute({ cdb: testUnitReady() });
      t.match(senseTriple(first.sense), /^06\/29\//, 'the next command does not wait');
      session.sendCommand({ cdb: testUnitReady(), cmdSN: lost });
      t.same(await session.fence(), [], 'the late one is ignored');
      await holds(t, session, 900, before, 'nothing was written');
    },
  },
  {
    id: 'TMF-53',
    clause: 'RFC 7143 §4.2.3.3, §4.2.3.4',
    level: 'MUST',
    text: 'commands that wait for one which does not come end with a multi-task abort of their unit that has waited in vain, too; those of another unit do not',
    async run(t, target) {
      const { session, before } = await prepared(target, 900);
      const missing = session.takeCmdSN();
      session.sendCommand({ cdb: write10(900, 1), write: Buffer.alloc(session.blockBytes, 0xcd) });
      const other = session.sendCommand({ cdb: testUnitReady(), lun: 77 });
      t.equal((await session.manage(TASK_FUNCTION.ABORT_TASK_SET)).response, COMPLETE, 'without the command');
      const late = session.sendCommand({ cdb: testUnitReady(), cmdSN: missing });
      const answers = await session.fence();
      t.same(
        answers.map(({ opcode, itt }) => [opcode, itt]),
        [late, other].map((itt) => [OP.SCSI_RESPONSE, itt]),
      );
      await holds(t, session, 900, before, 'nothing was written');
    },
  },
  {
    id: 'TMF-52',
    clause: 'RFC 7143 §4.2.5.3, §11.5.5',
    level: 'MUST',
    text: 'ABORT TASK whose RefCmdSN is that of a waiting command with another tag ends neither: Task does not exist',
    async run(t, target) {
      const session = await Session.login(target);
      const missing = session.takeCmdSN();
      const refCmdSN = session.cmdSN;
      const waiting = session.sendCommand({ cdb: testUnitReady() });
      const { response } = await session.manage(TASK_FUNCTION.ABORT_TASK, {
        referencedTag: 0xbeef,
        refCmdSN,
      });
      t.equal(response, NO_TASK);
      session.sendCommand({ cdb: testUnitReady(), cmdSN: missing });
      t.equal((await session.expect(OP.SCSI_RESPONSE)).scsiStatus, STATUS.GOOD);
      const pdu = await session.expect(OP.SCSI_RESPONSE);
      t.same([pdu.itt, pdu.scsiStatus], [waiting, STATUS.GOOD]);
    },
  },
  {
    id: 'TMF-28',
    clause: 'RFC 7143 §4.2.3.5, §4.2.3.4, §11.9.1',
    level: 'MUST',
    text: 'third parties with FastAbort are told of their ended tasks by one asynchronous message of event 5 a LUN, others are not',
    async run(t, target) {
      const { session, before } = await prepared(target, 900, FAST);
      const standard = await Session.login(target, { keys: SOLICITED });
      const idle = await Session.login(target, { keys: FAST });
      const tasks = [await waitingWrite(session, 900), await waitingWrite(session, 901)] as const;
      const theirs = await waitingWrite(standard, 902);
      const issuer = await Session.login(target, { keys: FAST });
      t.equal((await issuer.manage(TASK_FUNCTION.LOGICAL_UNIT_RESET)).response, COMPLETE);
      const told = await session.fence();
      const terminated = told.filter((pdu) => pdu.opcode === OP.ASYNC && pdu.asyncEvent === 5);
      t.equal(terminated.length, 1, 'once for both tasks');
      t.equal(terminated[0]?.bhs.readUInt8(9), target.lun, 'the LUN');
      t.equal(terminated[0]?.data.length, 0);
      t.notOk(
        told.some(({ itt }) => tasks.some((task) => task.itt === itt)),
        'no response of the tasks',
      );
      for (const other of [standard, idle, issuer])
        t.notOk(
          (await other.fence()).some((pdu) => pdu.opcode === OP.ASYNC && pdu.asyncEvent === 5),
          'nobody else is told',
        );
      // The acknowledgement frees the tags; data that were on their way are dropped.
      for (const task of tasks) sendLate(session, task);
      sendLate(standard, theirs);
      session.connection.send(
        nopOut({
          itt: NO_TAG,
          cmdSN: session.cmdSN,
          expStatSN: session.expStatSN,
          immediate: true,
          lun: target.lun,
        }),
      );
      t.same(await session.fence(), []);
      await holds(t, session, 900, before, 'nothing was written');
    },
  },
  {
    id: 'TMF-54',
    clause: 'RFC 7143 §4.2.3.4, §4.2.3.5',
    level: 'MUST',
    text: 'a target reset is told to a third party with FastAbort by one message of event 5 for each of its logical units that had tasks, whatever the issuer has agreed on',
    async run(t, target) {
      for (const keys of [FAST, SOLICITED]) {
        const session = await Session.login(target, { keys: FAST });
        await waitingWrite(session, 900);
        session.sendCommand({ cdb: modeSelect6(24), write: Buffer.alloc(24), lun: 1 });
        if ((await session.next())?.opcode !== OP.R2T) {
          t.pass('there is no second unit that can have a task');
          return;
        }
        const issuer = await Session.login(target, { keys });
        const { response } = await issuer.manage(TASK_FUNCTION.TARGET_WARM_RESET);
        if (response !== COMPLETE) {
          t.ok([NOT_SUPPORTED, NOT_AUTHORIZED].includes(response));
          return;
        }
        const told = (await session.fence()).filter(
          ({ opcode, asyncEvent }) => opcode === OP.ASYNC && asyncEvent === 5,
        );
        t.same(told.map(({ bhs }) => bhs.readUInt8(9)).sort(), [0, 1]);
      }
    },
  },
  {
    id: 'TMF-35',
    clause: 'RFC 7143 §4.2.3.3, §4.2.3.4, §11.6',
    level: 'MUST',
    text: 'a command that had failed before its unsolicited data came sends no status behind the response to a multi-task abort',
    async run(t, target) {
      for (const reporting of ['ResponseFence', 'FastAbort']) {
        for (const fn of [
          TASK_FUNCTION.ABORT_TASK_SET,
          TASK_FUNCTION.CLEAR_TASK_SET,
          TASK_FUNCTION.LOGICAL_UNIT_RESET,
        ]) {
          const session = await Session.login(target, {
            keys: { InitialR2T: 'No', TaskReporting: reporting },
          });
          const data = Buffer.alloc(session.blockBytes);
          const itt = session.sendCommand({ cdb: write10(0xfffffff0, 1), write: data, final: false });
          t.same(await session.fence(), [], 'the status waits for the data');
          const { pdu } = await responseTo(session, session.sendManage(fn));
          t.equal(pdu.response, COMPLETE);
          const { expStatSN, lun } = session;
          session.connection.send(dataOut({ itt, lun, expStatSN, dataSN: 0, offset: 0, data, final: true }));
          t.same(await session.fence(), [], `nothing follows function ${fn} with ${reporting}`);
        }
      }
    },
  },
  {
    id: 'TMF-29',
    clause: 'RFC 7143 §4.2.3.1, §4.2.3.4',
    level: 'MUST',
    text: 'a single abort, and the end of a session, are no business of third parties: no event 5',
    async run(t, target) {
      const { session } = await prepared(target, 900, FAST);
      const task = await waitingWrite(session, 900);
      const other = await Session.login(target, { keys: FAST });
      await waitingWrite(other, 901);
      other.connection.destroy();
      t.equal(
        (await session.manage(TASK_FUNCTION.ABORT_TASK, { referencedTag: task.itt })).response,
        COMPLETE,
      );
      sendLate(session, task);
      t.same(await session.fence(), []);
    },
  },
  {
    id: 'TMF-30',
    clause: 'RFC 7144 §4.1, §6.3, §6.4',
    level: 'MUST',
    text: 'QUERY TASK gives Function succeeded for a task that is there, and Function complete for one that is not',
    async run(t, target) {
      const { session } = await prepared(target, 900, LEVEL_2);
      if (session.agreed.get('iSCSIProtocolLevel') !== '2') return;
      const task = await waitingWrite(session, 900);
      t.equal(
        (await session.manage(TASK_FUNCTION.QUERY_TASK, { referencedTag: task.itt })).response,
        SUCCEEDED,
      );
      t.equal((await session.manage(TASK_FUNCTION.QUERY_TASK, { referencedTag: 0xdead })).response, COMPLETE);
      sendLate(session, task);
      t.equal((await session.finish(task.itt, {})).status, STATUS.GOOD);
    },
  },
  {
    id: 'TMF-31',
    clause: 'RFC 7144 §4.1, §6.3, §6.4',
    level: 'MUST',
    text: 'QUERY TASK SET gives Function succeeded while the nexus has a task in the set, else Function complete',
    async run(t, target) {
      const { session } = await prepared(target, 900, LEVEL_2);
      if (session.agreed.get('iSCSIProtocolLevel') !== '2') return;
      t.equal((await session.manage(TASK_FUNCTION.QUERY_TASK_SET)).response, COMPLETE);
      const task = await waitingWrite(session, 900);
      t.equal((await session.manage(TASK_FUNCTION.QUERY_TASK_SET)).response, SUCCEEDED);
      const other = await Session.login(target, { keys: LEVEL_2 });
      t.equal(
        (await other.manage(TASK_FUNCTION.QUERY_TASK_SET)).response,
        COMPLETE,
        'tasks of others do not count',
      );
      sendLate(session, task);
      t.equal((await session.finish(task.itt, {})).status, STATUS.GOOD);
    },
  },
  {
    id: 'TMF-32',
    clause: 'RFC 7144 §4.1, §6.3, §6.4, §6.5',
    level: 'MUST',
    text: 'I_T NEXUS RESET ends the tasks of the nexus and drops all connections of its session, not those of another; the next one is told of the loss',
    async run(t, target) {
      const { session } = await prepared(target, 900, LEVEL_2);
      if (session.agreed.get('iSCSIProtocolLevel') !== '2') return;
      const other = await Session.login(target, { keys: LEVEL_2 });
      const mine = await waitingWrite(session, 900);
      const theirs = await waitingWrite(other, 901);
      const itt = session.sendManage(TASK_FUNCTION.I_T_NEXUS_RESET);
      sendLate(session, mine);
      const { pdu } = await responseTo(session, itt);
      t.equal(pdu.response, COMPLETE);
      sendLate(other, theirs);
      t.equal((await other.finish(theirs.itt, {})).status, STATUS.GOOD);
      t.same(await session.connection.untilClosed(), [], 'nothing of the task, and the end');
      const again = await Session.login(target, { isid: session.isid, keepUnitAttention: true });
      t.equal(senseTriple((await again.execute({ cdb: testUnitReady() })).sense), '06/29/07');

      // Nothing is kept to be reassigned, whatever was agreed on.
      const keys = { ...LEVEL_2, ErrorRecoveryLevel: '2', MaxConnections: '2', DefaultTime2Retain: '60' };
      const lead = await Session.login(target, { keys, cid: 1 });
      if (lead.agreed.get('ErrorRecoveryLevel') !== '2') return;
      const { isid, tsih } = lead;
      const join = (cid: number): Promise<Session> =>
        Session.login(target, { isid, tsih, cid, cmdSN: lead.cmdSN, keepUnitAttention: true });
      const second = await join(2);
      await waitingWrite(second, 900);
      lead.cmdSN = second.cmdSN;
      t.equal((await lead.manage(TASK_FUNCTION.I_T_NEXUS_RESET)).response, COMPLETE);
      t.same(await lead.connection.untilClosed(), []);
      t.same(await second.connection.untilClosed(), []);
      await t.rejects(join(3), /020ah/);
    },
  },
  {
    id: 'TMF-33',
    clause: 'RFC 7144 §4.1, §6.3, §6.4',
    level: 'MUST',
    text: 'QUERY ASYNCHRONOUS EVENT tells whether a unit attention is pending, and which, without clearing it',
    async run(t, target) {
      const session = await Session.login(target, { keys: LEVEL_2 });
      if (session.agreed.get('iSCSIProtocolLevel') !== '2') return;
      const none = await session.manage(TASK_FUNCTION.QUERY_ASYNCHRONOUS_EVENT);
      t.equal(none.response, COMPLETE);
      t.equal(none.bhs.readUInt32BE(8), 0, 'no additional response information');
      const other = await Session.login(target);
      t.equal((await other.manage(TASK_FUNCTION.LOGICAL_UNIT_RESET)).response, COMPLETE);
      // The event itself may have been told already (§11.9.1).
      await session.fence();
      for (let round = 0; round < 2; round++) {
        const { response, bhs } = await session.manage(TASK_FUNCTION.QUERY_ASYNCHRONOUS_EVENT);
        t.equal(response, SUCCEEDED);
        t.equal(bhs.readUInt8(8), 0x16, 'one condition, UNIT ATTENTION');
        t.equal(bhs.readUInt8(9), 0x29, 'additional sense code');
        t.equal(bhs.readUInt8(11), 0, 'reserved');
      }
      const outcome = await session.execute({ cdb: testUnitReady() });
      t.match(senseTriple(outcome.sense), /^06\/29\//, 'the condition is still there');
      t.equal((await session.manage(TASK_FUNCTION.QUERY_ASYNCHRONOUS_EVENT)).response, COMPLETE);
    },
  },
  {
    id: 'TMF-34',
    clause: 'RFC 7144 §4.1, §7.1.1',
    level: 'SHOULD',
    text: 'functions 9 to 12 are refused below protocol level 2',
    async run(t, target) {
      const session = await Session.login(target);
      for (const fn of [
        TASK_FUNCTION.QUERY_TASK,
        TASK_FUNCTION.QUERY_TASK_SET,
        TASK_FUNCTION.I_T_NEXUS_RESET,
        TASK_FUNCTION.QUERY_ASYNCHRONOUS_EVENT,
      ]) {
        session.sendManage(fn);
        const pdu = await session.next();
        if (pdu?.opcode === OP.REJECT) continue;
        t.ok(
          [NOT_SUPPORTED, REJECTED].includes(pdu?.response as 5),
          `function ${fn}: response ${pdu?.response}`,
        );
      }
    },
  },
];
