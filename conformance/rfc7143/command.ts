/** SCSI Command, Data-In, SCSI Response and the command window (RFC 7143 §4.2.2, §11.3, §11.4, §11.7). */
import {
  bidirectionalReadLength,
  COMMAND,
  encode,
  lastOf,
  logoutRequest,
  NO_TAG,
  OP,
  scsiCommand,
  textRequest,
  type Pdu,
  TASK_FUNCTION,
} from './pdu.js';
import type { Requirement } from './requirement.js';
import { inquiry, read10, reportLuns, senseTriple, STATUS, testUnitReady, write10 } from './scsi.js';
import { Session } from './session.js';
import { serialAfter } from './wire.js';

/** Residual flags (§11.4.1): U of the write, o and u of a bidirectional command's read. */
const UNDERFLOW = 0x02;
const READ_UNDERFLOW = 0x08;
const READ_OVERFLOW = 0x10;

const window: readonly Requirement[] = [
  {
    id: 'CMD-01',
    clause: 'RFC 7143 §4.2.2.1',
    level: 'MUST',
    text: 'commands that arrive out of CmdSN order are executed in order',
    async run(t, target) {
      const session = await Session.login(target);
      const base = session.cmdSN;
      const tags = [3, 1, 2, 0].map((ahead) =>
        session.sendCommand({ cdb: testUnitReady(), cmdSN: base + ahead, itt: 0x500 + ahead }),
      );
      session.cmdSN = base + tags.length;
      const answered: number[] = [];
      for (let n = 0; n < tags.length; n++) answered.push((await session.expect(OP.SCSI_RESPONSE)).itt);
      t.same(answered, [0x500, 0x501, 0x502, 0x503]);
    },
  },
  {
    id: 'CMD-02',
    clause: 'RFC 7143 §4.2.2.1',
    level: 'MUST',
    text: 'a command after a gap waits, and ExpCmdSN names the one that is missing',
    async run(t, target) {
      const session = await Session.login(target);
      const base = session.cmdSN;
      session.sendCommand({ cdb: testUnitReady(), cmdSN: base + 1, itt: 0x601 });
      t.same(await session.fence(), [], 'nothing happens');
      session.sendCommand({ cdb: testUnitReady(), cmdSN: base, itt: 0x600 });
      t.equal((await session.expect(OP.SCSI_RESPONSE)).itt, 0x600);
      const last = await session.expect(OP.SCSI_RESPONSE);
      t.equal(last.itt, 0x601);
      t.equal(last.expCmdSN, base + 2);
      session.cmdSN = base + 2;
    },
  },
  {
    id: 'CMD-03',
    clause: 'RFC 7143 §4.2.2.1',
    level: 'MUST',
    text: 'a non-immediate command outside of the window (above MaxCmdSN, or below ExpCmdSN) is silently ignored',
    async run(t, target) {
      const session = await Session.login(target);
      const { pdus } = await session.execute({ cdb: testUnitReady() });
      const { expCmdSN, maxCmdSN } = lastOf(pdus);
      for (const cmdSN of [
        maxCmdSN + 1,
        maxCmdSN + 1000,
        expCmdSN - 1,
        expCmdSN - 100,
        expCmdSN + 0x7fffffff,
      ]) {
        session.sendCommand({ cdb: testUnitReady(), cmdSN: cmdSN >>> 0 });
        t.same(await session.fence(), [], `CmdSN ${cmdSN} in the window ${expCmdSN} to ${maxCmdSN}`);
      }
      t.equal((await session.execute({ cdb: testUnitReady() })).status, STATUS.GOOD);
    },
  },
  {
    id: 'CMD-10',
    clause: 'RFC 7143 §4.2.2.1',
    level: 'MUST',
    text: 'a closed window holds: the command whose CmdSN is the next one is ignored, too, until tasks have ended; immediate commands and task management are taken',
    async run(t, target) {
      const session = await Session.login(target, {
        keys: { InitialR2T: 'Yes', ImmediateData: 'No', TaskReporting: 'FastAbort' },
      });
      const write = Buffer.alloc(session.blockBytes);
      const last = (await session.execute({ cdb: testUnitReady() })).pdus.at(-1);
      let { maxCmdSN, expCmdSN } = last ?? { maxCmdSN: 0, expCmdSN: 0 };
      // Each waits for data that do not come.
      for (let sent = 0; sent < 2000 && serialAfter((maxCmdSN + 1) >>> 0, expCmdSN); sent++) {
        session.sendCommand({ cdb: write10(0, 1), write });
        ({ maxCmdSN, expCmdSN } = await session.expect(OP.R2T));
      }
      t.equal((maxCmdSN + 1) >>> 0, session.cmdSN, 'the window is closed');
      for (let n = 0; n < 50; n++)
        session.sendCommand({ cdb: write10(0, 1), write, cmdSN: session.cmdSN + n });
      t.same(await session.fence(), [], 'nothing is asked for');
      const inquired = session.sendCommand({ cdb: inquiry(36), read: 36, immediate: true });
      t.equal(
        (await session.finish(inquired, { read: 36 })).status,
        STATUS.GOOD,
        'an immediate command is taken',
      );
      t.equal(
        (await session.manage(TASK_FUNCTION.LOGICAL_UNIT_RESET)).response,
        0,
        'and immediate task management',
      );
      for (let n = 0; n < 4; n++) await session.execute({ cdb: testUnitReady() });
      t.equal((await session.execute({ cdb: testUnitReady() })).status, STATUS.GOOD, 'it opens again');
    },
  },
  {
    id: 'CMD-04',
    clause: 'RFC 7143 §4.2.2.1',
    level: 'MUST',
    text: 'a command with a CmdSN that was received before is silently ignored, waiting ones included',
    async run(t, target) {
      const session = await Session.login(target);
      const base = session.cmdSN;
      session.sendCommand({ cdb: testUnitReady(), cmdSN: base + 1, itt: 0x701 });
      session.sendCommand({ cdb: testUnitReady(), cmdSN: base + 1, itt: 0x7ff });
      session.sendCommand({ cdb: testUnitReady(), cmdSN: base, itt: 0x700 });
      session.cmdSN = base + 2;
      t.same(
        (await session.fence()).map((pdu) => pdu.itt),
        [0x700, 0x701],
      );
    },
  },
  {
    id: 'CMD-05',
    clause: 'RFC 7143 §4.2.2.1',
    level: 'MUST',
    text: 'CmdSN and StatSN wrap around from FFFFFFFFh to 0 in serial arithmetic',
    async run(t, target) {
      const session = await Session.login(target, { cmdSN: 0xfffffffc });
      for (let n = 0; n < 12; n++)
        t.equal((await session.execute({ cdb: testUnitReady() })).status, STATUS.GOOD);
      t.ok(session.cmdSN < 100, 'the counter went around');
    },
  },
  {
    id: 'CMD-06',
    clause: 'RFC 7143 §4.2.2.1',
    level: 'MUST',
    text: 'an immediate command is executed at once, and its CmdSN is not counted',
    async run(t, target) {
      const session = await Session.login(target);
      const base = session.cmdSN;
      session.sendCommand({ cdb: testUnitReady(), cmdSN: base + 1, itt: 0x801 });
      const immediate = session.sendCommand({ cdb: testUnitReady(), cmdSN: base, immediate: true });
      const pdu = await session.expect(OP.SCSI_RESPONSE);
      t.equal(pdu.itt, immediate);
      t.equal(pdu.expCmdSN, base, 'ExpCmdSN has not moved');
      session.sendCommand({ cdb: testUnitReady(), cmdSN: base, itt: 0x800 });
      t.equal((await session.expect(OP.SCSI_RESPONSE)).itt, 0x800);
      t.equal((await session.expect(OP.SCSI_RESPONSE)).itt, 0x801);
    },
  },
  {
    id: 'CMD-07',
    clause: 'RFC 7143 §4.2.2.1, §11.17.1',
    level: 'MUST',
    text: 'a flood of immediate commands is answered or rejected (reason 6), never dropped in silence',
    async run(t, target) {
      const session = await Session.login(target);
      const count = 400;
      for (let n = 0; n < count; n++) session.sendCommand({ cdb: testUnitReady(), immediate: true });
      let answered = 0;
      while (answered < count) {
        const pdu = await session.next();
        if (pdu === undefined) throw new Error(`closed after ${answered} answers`);
        if (pdu.opcode === OP.REJECT) t.equal(pdu.response, 6, 'immediate command reject');
        answered++;
      }
      t.equal(answered, count);
    },
  },
  {
    id: 'CMD-08',
    clause: 'RFC 7143 §4.2.2.1, §11.4.11',
    level: 'MUST',
    text: 'a full window of commands is executed, each once',
    async run(t, target) {
      const session = await Session.login(target);
      const { pdus } = await session.execute({ cdb: testUnitReady() });
      const { expCmdSN, maxCmdSN } = lastOf(pdus);
      const count = ((maxCmdSN - expCmdSN) >>> 0) + 1;
      t.ok(count >= 1, `window of ${count}`);
      const tags: number[] = [];
      for (let n = 0; n < count; n++) tags.push(session.sendCommand({ cdb: testUnitReady() }));
      const answered: number[] = [];
      for (let n = 0; n < count; n++) answered.push((await session.expect(OP.SCSI_RESPONSE)).itt);
      t.same(answered, tags);
      t.ok(serialAfter(session.cmdSN, expCmdSN));
    },
  },
  {
    id: 'CMD-09',
    clause: 'RFC 7143 §11.2.1.8, §11.17.1',
    level: 'MUST',
    text: 'a tag that is in use is not taken for another task: the PDU is rejected (reason 7), or its task fails',
    async run(t, target) {
      const session = await Session.login(target, { keys: { InitialR2T: 'Yes', ImmediateData: 'No' } });
      const data = Buffer.alloc(session.blockBytes, 0x11);
      const itt = session.sendCommand({ cdb: write10(0, 1), write: data });
      const r2t = await session.expect(OP.R2T);
      session.sendCommand({ cdb: testUnitReady(), itt });
      const pdu = await session.next();
      if (pdu === undefined) return;
      if (pdu.opcode === OP.REJECT) {
        t.equal(pdu.response, 7, 'task in progress');
        session.answerR2T(r2t, data);
        t.equal((await session.expect(OP.SCSI_RESPONSE)).itt, itt);
      } else {
        t.equal(pdu.opcode, OP.SCSI_RESPONSE);
        t.not(pdu.scsiStatus, STATUS.GOOD, 'overlapped commands');
      }
    },
  },
];

const rejects: readonly Requirement[] = [
  {
    id: 'CMD-11',
    clause: 'RFC 7143 §7.3',
    level: 'MUST',
    text: 'the CmdSN of a request that is rejected counts as not received: later ones wait until it is used again',
    async run(t, target) {
      const session = await Session.login(target, { keys: { InitialR2T: 'Yes', ImmediateData: 'No' } });
      const write = Buffer.alloc(session.blockBytes, 0x12);
      const busy = session.sendCommand({ cdb: write10(0, 1), write });
      const r2t = await session.expect(OP.R2T);
      const { cmdSN, expStatSN } = session;
      for (const [what, pdu] of Object.entries({
        'a tag in use': session.commandPdu({ cdb: testUnitReady(), itt: busy, cmdSN }),
        'the reserved tag': session.commandPdu({ cdb: testUnitReady(), itt: NO_TAG, cmdSN }),
        text: textRequest({ itt: 0x901, cmdSN, expStatSN, data: Buffer.from('InitialR2T=Reject\0') }),
        logout: logoutRequest({ itt: 0x902, cmdSN, expStatSN, reason: 9 }),
      })) {
        session.connection.send(pdu);
        const reject = await session.expect(OP.REJECT);
        t.equal(reject.expCmdSN, cmdSN, what);
        session.sendCommand({ cdb: testUnitReady(), itt: 0x910, cmdSN: (cmdSN + 1) >>> 0 });
        t.same(await session.fence(), [], `${what}: the next one waits`);
      }
      session.sendCommand({ cdb: testUnitReady(), itt: 0x911, cmdSN });
      session.cmdSN = cmdSN + 2;
      t.equal((await session.expect(OP.SCSI_RESPONSE)).itt, 0x911);
      t.equal((await session.expect(OP.SCSI_RESPONSE)).itt, 0x910);
      session.answerR2T(r2t, write);
      t.equal((await session.finish(busy, {})).status, STATUS.GOOD);
    },
  },
  {
    id: 'CMD-50',
    clause: 'RFC 7143 §7.3, §7.11',
    level: 'MUST',
    text: 'the CmdSN of a command that was rejected may also be used up by ABORT TASK: what waits for it then goes on',
    async run(t, target) {
      const session = await Session.login(target, { keys: { InitialR2T: 'Yes', ImmediateData: 'No' } });
      const write = Buffer.alloc(session.blockBytes, 0x12);
      const busy = session.sendCommand({ cdb: write10(0, 1), write });
      const r2t = await session.expect(OP.R2T);
      const refCmdSN = session.cmdSN;
      session.sendCommand({ cdb: testUnitReady(), itt: busy });
      t.equal((await session.expect(OP.REJECT)).response, 7);
      const waiting = session.sendCommand({ cdb: testUnitReady() });
      t.same(await session.fence(), []);
      t.equal(
        (await session.manage(TASK_FUNCTION.ABORT_TASK, { referencedTag: 0xbeef, refCmdSN })).response,
        0,
      );
      t.equal((await session.finish(waiting, {})).status, STATUS.GOOD);
      session.answerR2T(r2t, write);
      t.equal(
        (await session.finish(busy, {})).status,
        STATUS.GOOD,
        'the other one with its tag is left alone',
      );
    },
  },
  {
    id: 'CMD-27',
    clause: 'RFC 7143 §4.6.1.2, §11.4.7, §10.2',
    level: 'MUST',
    text: 'every CHECK CONDITION brings its sense data along (autosense)',
    async run(t, target) {
      const session = await Session.login(target);
      const { blockBytes } = session;
      for (const [cdb, lun, write] of [
        [Buffer.from([0xff, ...Buffer.alloc(15)]), 0, undefined],
        [Buffer.from([0x12, 0xff, ...Buffer.alloc(4)]), 0, undefined],
        [read10(0xfffffff0, 1), 0, undefined],
        [write10(0xfffffff0, 1), 0, Buffer.alloc(blockBytes)],
        [testUnitReady(), 99, undefined],
        [read10(0, 1), 1, undefined],
      ] as const) {
        const outcome = await session.execute({
          cdb,
          lun,
          ...(write === undefined ? { read: blockBytes } : { write }),
        });
        t.equal(outcome.status, STATUS.CHECK_CONDITION);
        t.ok(outcome.sense.length >= 8, `${outcome.sense.length} bytes`);
        t.ok([0x70, 0x72].includes(outcome.sense.readUInt8(0) & 0x7f), 'current, fixed or descriptor format');
        t.notMatch(senseTriple(outcome.sense), /^00/, 'a sense key');
      }
    },
  },
];

const residuals: readonly Requirement[] = [
  {
    id: 'CMD-20',
    clause: 'RFC 7143 §11.4.5.1, §11.4.5.2, §11.7.3',
    level: 'MUST',
    text: 'a read that yields less than expected sets U and the residual count',
    async run(t, target) {
      const session = await Session.login(target);
      const expected = session.blockBytes * 3;
      const outcome = await session.execute({ cdb: read10(0, 1), read: expected });
      t.equal(outcome.status, STATUS.GOOD);
      t.equal(outcome.data.length, session.blockBytes);
      t.ok(outcome.underflow);
      t.notOk(outcome.overflow);
      t.equal(outcome.residual, expected - session.blockBytes);
    },
  },
  {
    id: 'CMD-21',
    clause: 'RFC 7143 §11.4.5.1, §11.4.5.2, §11.3.4',
    level: 'MUST',
    text: 'a read that would yield more than expected sends what was expected, O and the residual count',
    async run(t, target) {
      const session = await Session.login(target);
      const { blockBytes } = session;
      for (const expected of [blockBytes, blockBytes + 1, 1, 0]) {
        const outcome = await session.execute({ cdb: read10(0, 3), read: expected });
        t.equal(outcome.data.length, expected);
        t.ok(outcome.overflow, `EDTL ${expected}`);
        t.notOk(outcome.underflow);
        t.equal(outcome.residual, 3 * blockBytes - expected);
        t.same(await session.fence(), [], 'not one byte more');
      }
    },
  },
  {
    id: 'CMD-22',
    clause: 'RFC 7143 §11.4.5.1, §11.4.5.2',
    level: 'MUST',
    text: 'a write that takes less than expected asks for no more, and sets U and the residual count',
    async run(t, target) {
      const session = await Session.login(target, { keys: { InitialR2T: 'Yes', ImmediateData: 'No' } });
      const { blockBytes } = session;
      const outcome = await session.execute({
        cdb: write10(0, 1),
        write: Buffer.alloc(3 * blockBytes, 0x22),
      });
      t.equal(outcome.status, STATUS.GOOD);
      t.ok(outcome.underflow);
      t.equal(outcome.residual, 2 * blockBytes);
      t.ok(outcome.r2ts.every((r2t) => r2t.bufferOffset + r2t.desiredLength <= 3 * blockBytes));
    },
  },
  {
    id: 'CMD-23',
    clause: 'RFC 7143 §11.4.5.1, §11.4.5.2',
    level: 'MUST',
    text: 'a write that wants more than expected takes what there is, and sets O and the residual count',
    async run(t, target) {
      const session = await Session.login(target, { keys: { InitialR2T: 'Yes', ImmediateData: 'No' } });
      const { blockBytes } = session;
      const outcome = await session.execute({ cdb: write10(0, 3), write: Buffer.alloc(blockBytes, 0x33) });
      t.ok(outcome.overflow);
      t.equal(outcome.residual, 2 * blockBytes);
      for (const r2t of outcome.r2ts) t.ok(r2t.bufferOffset + r2t.desiredLength <= blockBytes);
    },
  },
  {
    id: 'CMD-24',
    clause: 'RFC 7143 §11.4.5.1, §11.4.1',
    level: 'MUST',
    text: 'O and U are never set together, and a residual without either is 0',
    async run(t, target) {
      const session = await Session.login(target);
      for (const [cdb, read] of [
        [inquiry(36), 36],
        [inquiry(255), 255],
        [inquiry(36), 8],
        [inquiry(36), 36 * 2],
        [reportLuns(16), 16],
        [testUnitReady(), 512],
      ] as const) {
        const outcome = await session.execute({ cdb, read });
        t.notOk(outcome.overflow && outcome.underflow);
        if (!outcome.overflow && !outcome.underflow) t.equal(outcome.residual, 0);
        if (outcome.underflow) t.equal(outcome.residual, read - outcome.data.length);
      }
    },
  },
  {
    id: 'CMD-25',
    clause: 'RFC 7143 §11.4.5.1, §11.4.7.2',
    level: 'MUST',
    text: 'a read that fails (LBA out of range) sends sense data, and all of EDTL is residual',
    async run(t, target) {
      const session = await Session.login(target);
      const outcome = await session.execute({ cdb: read10(0xfffffff0, 1), read: session.blockBytes });
      t.equal(outcome.status, STATUS.CHECK_CONDITION);
      t.equal(senseTriple(outcome.sense), '05/21/00');
      t.ok(outcome.underflow);
      t.equal(outcome.residual, session.blockBytes);
    },
  },
  {
    id: 'CMD-26',
    clause: 'RFC 7143 §11.3.1, §11.3.4',
    level: 'ROBUST',
    text: 'R and W bits that contradict the CDB do no harm',
    async run(t, target) {
      const session = await Session.login(target);
      const { blockBytes } = session;
      const cases = [
        { cdb: read10(0, 1) },
        { cdb: write10(0, 1) },
        { cdb: write10(0, 1), read: blockBytes },
        { cdb: testUnitReady(), read: 4096 },
        { cdb: inquiry(36) },
      ];
      for (const command of cases) {
        const outcome = await session.execute(command);
        t.ok([STATUS.GOOD, STATUS.CHECK_CONDITION].includes(outcome.status as 0), `status ${outcome.status}`);
      }
      const outcome = await session.execute({ cdb: read10(0, 1), write: Buffer.alloc(blockBytes) });
      t.ok(outcome.status >= 0);
      t.same(await session.fence(), []);
    },
  },
];

const dataIn: readonly Requirement[] = [
  {
    id: 'DIN-01',
    clause: 'RFC 7143 §4.2.2.4, §11.7.5, §11.7.6',
    level: 'MUST',
    text: 'Data-In PDUs count DataSN from 0 and come in order of their offsets without gap',
    async run(t, target) {
      const session = await Session.login(target, { keys: { MaxRecvDataSegmentLength: '1024' } });
      const blocks = 16384 / session.blockBytes;
      const { pdus } = await session.execute({ cdb: read10(0, blocks), read: 16384 });
      const data = pdus.filter((pdu) => pdu.opcode === OP.DATA_IN);
      let offset = 0;
      data.forEach((pdu, index) => {
        t.equal(pdu.dataSN, index);
        t.equal(pdu.bufferOffset, offset);
        offset += pdu.data.length;
      });
      t.equal(offset, 16384);
    },
  },
  {
    id: 'DIN-02',
    clause: 'RFC 7143 §11.7.1, §13.13',
    level: 'MUST',
    text: 'F ends every sequence of Data-In, none is longer than MaxBurstLength, and the last PDU has F',
    async run(t, target) {
      const session = await Session.login(target, {
        keys: { MaxRecvDataSegmentLength: '512', MaxBurstLength: '2048' },
      });
      const blocks = 16384 / session.blockBytes;
      const { pdus } = await session.execute({ cdb: read10(0, blocks), read: 16384 });
      let burst = 0;
      for (const pdu of pdus.filter(({ opcode }) => opcode === OP.DATA_IN)) {
        burst += pdu.data.length;
        t.ok(burst <= 2048, `sequence of ${burst} bytes`);
        if (pdu.final) burst = 0;
      }
      t.equal(burst, 0, 'the last PDU has F');
    },
  },
  {
    id: 'DIN-03',
    clause: 'RFC 7143 §11.7.2',
    level: 'MUST',
    text: 'A is never set at error recovery level 0',
    async run(t, target) {
      const session = await Session.login(target);
      const { pdus } = await session.execute({ cdb: read10(0, 8), read: 8 * session.blockBytes });
      for (const pdu of pdus.filter(({ opcode }) => opcode === OP.DATA_IN)) t.equal(pdu.flags & 0x40, 0);
    },
  },
  {
    id: 'DIN-04',
    clause: 'RFC 7143 §11.7.3',
    level: 'MUST',
    text: 'status rides in Data-In only with F, with GOOD, and instead of a SCSI Response',
    async run(t, target) {
      const session = await Session.login(target);
      const { pdus } = await session.execute({ cdb: read10(0, 1), read: session.blockBytes });
      for (const pdu of pdus) {
        if (pdu.opcode !== OP.DATA_IN || (pdu.flags & 1) === 0) continue;
        t.ok(pdu.final);
        t.equal(pdu.scsiStatus, STATUS.GOOD);
      }
      t.same(await session.fence(), [], 'no second end of the task');
    },
  },
  {
    id: 'DIN-08',
    clause: 'RFC 7143 §11.7.3, §4.2.5 (phase collapse)',
    level: 'MAY',
    text: 'a read is answered by its data alone, status and residual in the last PDU (phase collapse), at error recovery level 0',
    async run(t, target) {
      const session = await Session.login(target, { keys: { MaxRecvDataSegmentLength: '512' } });
      const { blockBytes } = session;
      const { pdus, status } = await session.execute({ cdb: read10(0, 2), read: 3 * blockBytes });
      t.equal(status, STATUS.GOOD);
      t.equal(pdus.length, (2 * blockBytes) / 512);
      t.ok(pdus.every(({ opcode }) => opcode === OP.DATA_IN));
      t.same(
        pdus.map(({ flags }) => flags & 1),
        [...pdus.slice(1).map(() => 0), 1],
      );
      t.equal(lastOf(pdus).residual, blockBytes);
    },
  },
  {
    id: 'DIN-05',
    clause: 'RFC 7143 §11.4.8',
    level: 'MUST',
    text: 'ExpDataSN of a SCSI Response is the number of Data-In PDUs that were sent, 0 for a write, however many R2Ts it had',
    async run(t, target) {
      const session = await Session.login(target, {
        keys: { MaxBurstLength: '512', InitialR2T: 'Yes', ImmediateData: 'No' },
      });
      const blocks = 4096 / session.blockBytes;
      const written = await session.execute({ cdb: write10(8, blocks), write: Buffer.alloc(4096, 0x44) });
      t.ok(written.r2ts.length >= 8);
      t.equal(written.pdus.at(-1)?.dataSN, 0);
      const read = await session.execute({ cdb: read10(8, blocks), read: 4096 });
      const last = lastOf(read.pdus);
      if (last.opcode === OP.SCSI_RESPONSE) t.equal(last.dataSN, read.pdus.length - 1);
    },
  },
  {
    id: 'DIN-06',
    clause: 'RFC 7143 §11.7.4',
    level: 'MUST',
    text: 'Data-In that asks for no acknowledgement carries the reserved TTT',
    async run(t, target) {
      const session = await Session.login(target);
      const { pdus } = await session.execute({ cdb: read10(0, 8), read: 8 * session.blockBytes });
      for (const pdu of pdus.filter(({ opcode }) => opcode === OP.DATA_IN)) t.equal(pdu.ttt, NO_TAG);
    },
  },
  {
    id: 'DIN-07',
    clause: 'RFC 7143 §11.7',
    level: 'MUST',
    text: 'reads pipelined without waiting are each answered whole, with data of their own',
    async run(t, target) {
      const session = await Session.login(target);
      const { blockBytes } = session;
      for (let n = 0; n < 16; n++) {
        const write = Buffer.alloc(blockBytes, 0x60 + n);
        t.equal((await session.execute({ cdb: write10(n, 1), write })).status, STATUS.GOOD);
      }
      const byTag = new Map<number, number>();
      const commands = Array.from({ length: 16 }, (_, n) => {
        const itt = session.nextTag();
        byTag.set(itt, n);
        return encode(session.commandPdu({ cdb: read10(n, 1), read: blockBytes, itt }));
      });
      session.connection.write(Buffer.concat(commands));
      for (const [itt, n] of byTag) {
        const outcome = await session.finish(itt, { read: blockBytes });
        t.equal(outcome.data.length, blockBytes);
        t.ok(
          outcome.data.every((byte) => byte === 0x60 + n),
          `block ${n}`,
        );
      }
    },
  },
];

const headers: readonly Requirement[] = [
  {
    id: 'CMD-30',
    clause: 'RFC 7143 §11.2.2.3, §11.3.5',
    level: 'MUST',
    text: 'a CDB over 16 bytes in an AHS reaches the SCSI layer, which judges its operation code',
    async run(t, target) {
      const session = await Session.login(target);
      const cdb = Buffer.alloc(32);
      cdb[0] = 0x7f;
      cdb[7] = 24;
      cdb.writeUInt16BE(0x7777, 8); // a service action that nobody has
      const outcome = await session.execute({ cdb });
      t.equal(outcome.status, STATUS.CHECK_CONDITION);
      t.equal(senseTriple(outcome.sense).slice(0, 2), '05');
      t.equal((await session.execute({ cdb: testUnitReady() })).status, STATUS.GOOD);
    },
  },
  {
    id: 'CMD-31',
    clause: 'RFC 7143 §11.2.2.2, §7.7',
    level: 'ROBUST',
    text: 'an AHS whose AHSLength is 0, too long, or of an unknown type does no harm',
    async run(t, target) {
      for (const bytes of [
        '00000100',
        '00000000',
        'ffff0100',
        '00050200000000000000',
        '00013f00',
        '0001010000010100',
      ]) {
        const session = await Session.login(target);
        const pdu = session.commandPdu({ cdb: testUnitReady() });
        pdu.ahs = Buffer.from(bytes.padEnd(Math.ceil(bytes.length / 8) * 8, '0'), 'hex');
        session.connection.send(pdu);
        const answer = await session.next();
        const allowed: readonly number[] = [OP.REJECT, OP.SCSI_RESPONSE, OP.ASYNC];
        t.ok(answer === undefined || allowed.includes(answer.opcode), `AHS ${bytes}`);
        if (answer?.opcode === OP.ASYNC) t.same(await session.connection.untilClosed(), []);
      }
      await Session.login(target);
    },
  },
  {
    id: 'CMD-40',
    clause: 'RFC 7143 §11.2.2.1, §2.4',
    level: 'MUST',
    text: 'the upper two bits of AHSType are reserved, and ignored',
    async run(t, target) {
      const session = await Session.login(target);
      const pdu = session.commandPdu({
        cdb: Buffer.from([0x7f, ...Buffer.alloc(6), 24, ...Buffer.alloc(24)]),
      });
      pdu.ahs.writeUInt8(0xc0 | pdu.ahs.readUInt8(2), 2);
      session.connection.send(pdu);
      const answer = await session.expect(OP.SCSI_RESPONSE);
      t.match(senseTriple(answer.sense), /^05/, 'the SCSI layer has judged the CDB');
    },
  },
  {
    id: 'CMD-39',
    clause: 'RFC 7143 §7.7',
    level: 'MUST',
    text: 'a PDU whose lengths contradict each other or what was agreed ends all connections of its session, and no other session',
    async run(t, target) {
      for (const wrong of ['data segment', 'AHS'] as const) {
        const lead = await Session.login(target, { cid: 1, keys: { MaxConnections: '2' } });
        const { isid, tsih, cmdSN } = lead;
        const beside =
          lead.agreed.get('MaxConnections') === '2'
            ? await Session.login(target, { isid, tsih, cmdSN, cid: 2, keepUnitAttention: true })
            : undefined;
        const other = await Session.login(target);
        const pdu = lead.commandPdu({ cdb: testUnitReady() });
        if (wrong === 'AHS') pdu.ahs = Buffer.from('00ff010000000000', 'hex');
        lead.connection.send(pdu, wrong === 'AHS' ? {} : { dataSegmentLength: 0xffffff });
        for (const session of [lead, beside])
          for (const last of (await session?.connection.untilClosed()) ?? [])
            t.equal(last.opcode, OP.ASYNC, `${wrong}: no answer but word of the end`);
        t.same(await other.fence(), []);
      }
    },
  },
  {
    id: 'CMD-32',
    clause: 'RFC 7143 §11.2.2.2, §11.4.1, §11.4.5.2, §11.7.3, §11.4.6',
    level: 'MUST',
    text: 'the residuals of a bidirectional command are counted apart, that of the read in bytes 40 to 43 with the flags o and u',
    async run(t, target) {
      const session = await Session.login(target);
      const both = async (cdb: Buffer, write: number, read: number): Promise<Pdu> => {
        const pdu = session.commandPdu({ cdb, read: 0, write: Buffer.alloc(write) });
        pdu.u8(1, COMMAND.FINAL | COMMAND.READ | COMMAND.WRITE | COMMAND.SIMPLE);
        pdu.ahs = bidirectionalReadLength(read);
        session.connection.send(pdu);
        for (;;) {
          const answer = await session.next();
          if (answer?.opcode === OP.SCSI_RESPONSE) return answer;
          if (answer?.opcode !== OP.DATA_IN) throw new Error(`answer ${answer?.opcode}`);
          t.equal(answer.flags & 1, 0, 'no status in Data-In: it has room for one residual');
        }
      };
      const none = await both(testUnitReady(), 1024, 1536);
      t.equal(none.flags, 0x80 | UNDERFLOW | READ_UNDERFLOW);
      t.equal(none.residual, 1024);
      t.equal(none.bufferOffset, 1536, 'bidirectional read residual');
      const short = await both(inquiry(255), 1024, 300);
      t.equal(short.scsiStatus, STATUS.GOOD);
      t.equal(short.flags & READ_UNDERFLOW, READ_UNDERFLOW);
      const moved = 300 - short.bufferOffset;
      t.ok(moved >= 36 && moved <= 255, `${moved} bytes`);
      const long = await both(inquiry(255), 0, 20);
      t.equal(long.flags, 0x80 | READ_OVERFLOW);
      t.equal(long.bufferOffset, moved - 20);
      t.equal(long.residual, 0);
      const failed = await both(Buffer.from([0xff, ...Buffer.alloc(15)]), 512, 513);
      t.equal(failed.scsiStatus, STATUS.CHECK_CONDITION);
      t.equal(failed.residual, 512);
      t.equal(failed.bufferOffset, 513);
      t.same(await session.fence(), []);
    },
  },
  {
    id: 'CMD-33',
    clause: 'RFC 7143 §11.3.1',
    level: 'MUST',
    text: 'all task attributes are accepted or refused by SCSI, not by the transport',
    async run(t, target) {
      const session = await Session.login(target);
      for (const attribute of [0, 1, 2, 3]) {
        const outcome = await session.execute({ cdb: testUnitReady(), attribute });
        t.equal(outcome.status, STATUS.GOOD, `attribute ${attribute}`);
      }
      const outcome = await session.execute({ cdb: testUnitReady(), attribute: 4 });
      t.equal(outcome.status, STATUS.CHECK_CONDITION, 'ACA');
    },
  },
  {
    id: 'CMD-34',
    clause: 'RFC 7143 §11.2.1.7',
    level: 'MUST',
    text: 'a LUN that does not exist is answered by CHECK CONDITION, LOGICAL UNIT NOT SUPPORTED',
    async run(t, target) {
      const session = await Session.login(target);
      const outcome = await session.execute({ cdb: testUnitReady(), lun: 99 });
      t.equal(outcome.status, STATUS.CHECK_CONDITION);
      t.equal(senseTriple(outcome.sense), '05/25/00');
    },
  },
  {
    id: 'CMD-35',
    clause: 'RFC 7143 §2.4, §11; RFC 7144 §5.1.1',
    level: 'MUST',
    text: 'reserved fields of a request are ignored by a receiver',
    async run(t, target) {
      const session = await Session.login(target);
      const pdu = session.commandPdu({ cdb: testUnitReady() }).u8(2, 0xf5).u8(3, 0xff);
      pdu.u8(1, pdu.flags | 0x18);
      session.connection.send(pdu);
      const answer = await session.expect(OP.SCSI_RESPONSE);
      t.equal(answer.scsiStatus, STATUS.GOOD);
    },
  },
  {
    id: 'CMD-36',
    clause: 'RFC 7143 §7.7, §11.17.1',
    level: 'MUST',
    text: 'an opcode that is not known is rejected as not supported (5), and the session goes on',
    async run(t, target) {
      for (const opcode of [0x07, 0x1c, 0x1d, 0x1e, 0x0f]) {
        const session = await Session.login(target);
        const { cmdSN, expStatSN } = session;
        const bad = scsiCommand({ itt: 0x99, cmdSN, expStatSN, flags: 0x80, edtl: 0, cdb: testUnitReady() });
        bad.u8(0, opcode | 0x40);
        session.connection.send(bad);
        const pdu = await session.expect(OP.REJECT);
        t.equal(pdu.response, 5, `opcode ${opcode.toString(16)}h`);
        t.same(pdu.data.subarray(0, 48), encode(bad).subarray(0, 48), 'the header is returned');
        t.same(await session.fence(), []);
      }
    },
  },
  {
    id: 'CMD-37',
    clause: 'RFC 7143 §11.2.1.2, §7.7',
    level: 'MUST',
    text: 'an opcode that only targets send is rejected or ends the connection',
    async run(t, target) {
      for (const opcode of [0x20, 0x21, 0x25, 0x31, 0x3f]) {
        const session = await Session.login(target);
        session.connection.send(session.commandPdu({ cdb: testUnitReady(), immediate: true }).u8(0, opcode));
        const pdu = await session.next();
        t.ok(pdu === undefined || pdu.opcode === OP.REJECT, `opcode ${opcode.toString(16)}h`);
      }
    },
  },
  {
    id: 'CMD-38',
    clause: 'RFC 7143 §13.12, §7.7',
    level: 'MUST',
    text: 'a data segment longer than the target declared ends the connection, or is rejected, before it is read',
    async run(t, target) {
      const session = await Session.login(target);
      session.connection.send(session.commandPdu({ cdb: testUnitReady() }), { dataSegmentLength: 0xffffff });
      const pdu = await session.next();
      t.ok(pdu === undefined || pdu.opcode === OP.REJECT || pdu.opcode === OP.ASYNC);
      if (pdu?.opcode === OP.ASYNC) await session.connection.untilClosed();
      await Session.login(target);
    },
  },
];

export const command: readonly Requirement[] = [...window, ...rejects, ...residuals, ...dataIn, ...headers];
