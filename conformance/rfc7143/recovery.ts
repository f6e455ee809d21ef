/** Error recovery within a connection, level 1 (RFC 7143 §7.1.4, §7.2.1, §7.8, §7.9, §11.7.2, §11.16). */
import {
  COMMAND,
  dataOut,
  encode,
  nopOut,
  NO_TAG,
  OP,
  SNACK,
  snack,
  type Pdu,
  TASK_FUNCTION,
} from './pdu.js';
import type { Requirement, Tap } from './requirement.js';
import { read10, senseTriple, STATUS, testUnitReady, write10 } from './scsi.js';
import { join } from './connections.js';
import { Session } from './session.js';
import { ANY_PORT, site, startSite } from './site.js';
import type { Target } from './target.js';
import { pattern } from './write.js';

const DIGESTS = { HeaderDigest: 'CRC32C', DataDigest: 'CRC32C' } as const;
const LEVEL_1 = { ErrorRecoveryLevel: '1' } as const;
const SOLICITED = { InitialR2T: 'Yes', ImmediateData: 'No' } as const;
/** ASC and ASCQ of "protocol service CRC error" (§11.4.7.2). */
const SERVICE_CRC_ERROR = [0x47, 0x05];

const login = (target: Target, keys: Record<string, string> = {}): Promise<Session> =>
  Session.login(target, { keys: { ...LEVEL_1, ...keys } });

/** From now on the session acknowledges nothing that comes. */
function acknowledgeNothing(session: Session): void {
  session.acknowledged = session.expStatSN;
}

function ask(
  session: Session,
  type: number,
  itt: number,
  begin: number,
  run: number,
  tag: number = NO_TAG,
): void {
  session.connection.send(snack({ type, itt, expStatSN: session.expStatSN, begin, run, tag }));
}

async function rejected(t: Tap, session: Session, reason: number, what: string): Promise<void> {
  t.equal((await session.expect(OP.REJECT)).response, reason, what);
}

/** Header and data as hexadecimal, but for ExpCmdSN and MaxCmdSN, which have current values (§11.16). */
const contents = (pdu: Pdu): string =>
  Buffer.concat([pdu.bhs.subarray(0, 28), pdu.bhs.subarray(36), pdu.data]).toString('hex');

/** Reads 64 KiB of known data in PDUs of 8 KiB and bursts of 16 KiB, of which nothing is acknowledged. */
async function readRun(
  target: Target,
  keys: Record<string, string> = {},
): Promise<{ session: Session; itt: number; data: Buffer; dataIn: Pdu[]; response: Pdu }> {
  const session = await login(target, { MaxBurstLength: '16384', FirstBurstLength: '16384', ...keys });
  const data = pattern(65_536, 90);
  const blocks = data.length / session.blockBytes;
  await session.execute({ cdb: write10(2000, blocks), write: data });
  acknowledgeNothing(session);
  const itt = session.sendCommand({ cdb: read10(2000, blocks), read: data.length });
  const { pdus } = await session.finish(itt, { read: data.length });
  const dataIn = pdus.filter(({ opcode }) => opcode === OP.DATA_IN);
  const response = pdus.at(-1);
  if (response?.opcode !== OP.SCSI_RESPONSE) throw new Error('no response of its own');
  return { session, itt, data, dataIn, response };
}

async function receive(session: Session, count: number): Promise<Pdu[]> {
  const pdus: Pdu[] = [];
  while (pdus.length < count) {
    const pdu = await session.next();
    if (pdu === undefined) throw new Error('the target closed');
    pdus.push(pdu);
  }
  return pdus;
}

/** Data-Out for an R2T, changed by the test. */
function answer(
  session: Session,
  r2t: Pdu,
  data: Buffer,
  o: { dataSN: number; from: number; end: number; final: boolean },
): Pdu {
  return dataOut({
    itt: r2t.itt,
    ttt: r2t.ttt,
    lun: session.lun,
    expStatSN: session.expStatSN,
    dataSN: o.dataSN,
    offset: o.from,
    data: data.subarray(o.from, o.end),
    final: o.final,
  });
}

async function wrote(t: Tap, session: Session, lba: number, data: Buffer): Promise<void> {
  const read = await session.execute({
    cdb: read10(lba, data.length / session.blockBytes),
    read: data.length,
  });
  t.ok(read.data.equals(data), 'every block is as it was sent');
}

const needs = (target: Target): boolean => target.pid !== undefined;

const rows: readonly Omit<Requirement, 'needs'>[] = [
  {
    id: 'ERL-01',
    clause: 'RFC 7143 §7.1.5, §7.1.5, §13.20, §7.4.1',
    level: 'MUST',
    text: 'the level is the lesser of what both want; a discovery session has level 0',
    async run(t, target) {
      for (const level of ['0', '1', '2'])
        t.equal((await login(target, { ErrorRecoveryLevel: level })).agreed.get('ErrorRecoveryLevel'), level);
      const discovery = await Session.login(target, {
        discovery: true,
        keys: { ErrorRecoveryLevel: '2' },
      });
      t.equal(discovery.agreed.get('ErrorRecoveryLevel'), '0');
    },
  },
  {
    id: 'ERL-02',
    clause: 'RFC 7143 §4.2.5.1, §11.16, §11.16.1',
    level: 'MUST',
    text: 'a Data SNACK brings the Data-In of its run again, exactly as they were; zero stands for the rest or for all',
    async run(t, target) {
      const { session, itt, dataIn, response } = await readRun(target);
      t.equal(dataIn.length, 8);
      t.equal(response.dataSN, 8, 'ExpDataSN');
      for (const [begin, run, first, end] of [
        [2, 3, 2, 5],
        [7, 1, 7, 8],
        [5, 0, 5, 8],
        [0, 0, 0, 8],
      ] as const) {
        ask(session, SNACK.DATA_OR_R2T, itt, begin, run);
        const again = await receive(session, end - first);
        t.same(again.map(contents), dataIn.slice(first, end).map(contents), `${begin}, ${run}`);
      }
      t.same(await session.fence(), []);
    },
  },
  {
    id: 'ERL-03',
    clause: 'RFC 7143 §11.16',
    level: 'MUST',
    text: 'a SNACK for what was never sent or is acknowledged is rejected (protocol error)',
    async run(t, target) {
      const { session, itt, response } = await readRun(target);
      ask(session, SNACK.DATA_OR_R2T, itt, 6, 3);
      await rejected(t, session, 4, 'beyond the last one');
      ask(session, SNACK.DATA_OR_R2T, 0x7777, 0, 1);
      await rejected(t, session, 4, 'of no task');
      ask(session, SNACK.STATUS, NO_TAG, (response.statSN + 20) >>> 0, 1);
      await rejected(t, session, 4, 'a status that was not sent');
      ask(session, SNACK.STATUS, NO_TAG, (response.statSN + 20) >>> 0, 0);
      await rejected(t, session, 4, 'a run that begins behind the last status');
      session.acknowledged = undefined;
      ask(session, SNACK.DATA_OR_R2T, itt, 0, 0);
      await rejected(t, session, 4, 'acknowledged with the status of its task');
      ask(session, SNACK.STATUS, NO_TAG, response.statSN, 1);
      await rejected(t, session, 4, 'an acknowledged status');
    },
  },
  {
    id: 'ERL-04',
    clause: 'RFC 7143 §11.16.1 (type 1), §11.4.9',
    level: 'MUST',
    text: 'a Status SNACK brings responses of any kind again, as they were',
    async run(t, target) {
      const session = await login(target);
      acknowledgeNothing(session);
      const first = session.expStatSN;
      const command = (await session.execute({ cdb: Buffer.from([0xff, 0, 0, 0, 0, 0]) })).pdus;
      t.equal(command[0]?.scsiStatus, STATUS.CHECK_CONDITION);
      const nop = nopOut({
        itt: 0x4321,
        cmdSN: session.cmdSN,
        expStatSN: session.expStatSN,
        immediate: true,
        data: Buffer.from('echo'),
      });
      session.connection.send(nop);
      const ping = await session.expect(OP.NOP_IN);
      const text = await session.text({ 'X-org.example.a': '1' });
      const sent = [...command, ping, text.pdu];
      for (const [begin, run, from, end] of [
        [first, 1, 0, 1],
        [(first + 1) >>> 0, 2, 1, 3],
        [first, 0, 0, 3],
        [0, 0, 0, 3],
      ] as const) {
        ask(session, SNACK.STATUS, NO_TAG, begin, run);
        const again = await receive(session, end - from);
        t.same(again.map(contents), sent.slice(from, end).map(contents));
      }
      t.same(await session.fence(), []);
    },
  },
  {
    id: 'ERL-05',
    clause: 'RFC 7143 §11.7.2, §11.16.2, §11.7.4',
    level: 'MUST',
    text: 'the A bit comes at the end of a burst at most, with tag and LUN; DataACK releases what lies before it',
    async run(t, target) {
      const { session, itt, dataIn } = await readRun(target);
      const asks = dataIn.map(({ flags }) => (flags & 0x40) !== 0);
      t.same(asks, [false, true, false, true, false, true, false, false]);
      for (const pdu of dataIn) {
        const wants = (pdu.flags & 0x40) !== 0;
        t.equal(pdu.ttt === NO_TAG, !wants);
        t.equal(pdu.bhs.readUInt8(9), wants ? session.lun : 0);
      }
      const tag = dataIn[3]?.ttt ?? 0;
      ask(session, SNACK.DATA_ACK, NO_TAG, 3, 0, tag);
      await rejected(t, session, 8, 'not the number behind the PDU that asked');
      ask(session, SNACK.DATA_ACK, NO_TAG, 4, 0, 0x12345678);
      await rejected(t, session, 8, 'a tag of nothing');
      ask(session, SNACK.DATA_ACK, NO_TAG, 9, 0, tag);
      await rejected(t, session, 8, 'a number that was not sent');
      ask(session, SNACK.DATA_ACK, NO_TAG, 4, 0, tag);
      ask(session, SNACK.DATA_OR_R2T, itt, 3, 1);
      await rejected(t, session, 4, 'acknowledged data');
      ask(session, SNACK.DATA_OR_R2T, itt, 0, 0);
      t.same((await receive(session, 4)).map(contents), dataIn.slice(4).map(contents));
      ask(session, SNACK.DATA_ACK, NO_TAG, 7, 0, dataIn[5]?.ttt);
      ask(session, SNACK.DATA_OR_R2T, itt, 0, 0);
      t.same(
        (await receive(session, 1)).map(contents),
        dataIn.slice(7).map(contents),
        'the next expected one, though more came since the target asked',
      );
      const plain = await Session.login(target, { keys: { MaxBurstLength: '16384' } });
      const { pdus } = await plain.execute({ cdb: read10(2000, 128), read: 65_536 });
      t.notOk(
        pdus.some(({ opcode, flags }) => opcode === OP.DATA_IN && (flags & 0x40) !== 0),
        'never at level 0',
      );
    },
  },
  {
    id: 'ERL-06',
    clause: 'RFC 7143 §11.16.3, §11.4.4, §11.4.7, §11.4.9, §11.16.5',
    level: 'MUST',
    text: 'an R-Data SNACK brings unacknowledged data cut anew, and a response with its tag and the same StatSN',
    async run(t, target) {
      const { session, itt, data, dataIn, response } = await readRun(target);
      ask(session, SNACK.DATA_ACK, NO_TAG, 2, 0, dataIn[1]?.ttt);
      await session.text({ MaxRecvDataSegmentLength: '4096' });
      session.connection.maxRecvDataSegmentBytes = 4096;
      ask(session, SNACK.DATA_OR_R2T, itt, 2, 1);
      await rejected(t, session, 4, 'data that are longer than what is now taken');
      ask(session, SNACK.R_DATA, itt, 0, 0, 0xbeef);
      const again = await receive(session, 13);
      const last = again.pop();
      t.same(
        again.map(({ dataSN }) => dataSN),
        Array.from({ length: 12 }, (_, i) => i + 2),
        'numbers go on from the acknowledgement',
      );
      const rest = Buffer.concat(again.map((pdu) => pdu.data));
      t.ok(rest.equals(data.subarray(16_384)));
      for (const pdu of again)
        t.ok(pdu.data.equals(data.subarray(pdu.bufferOffset, pdu.bufferOffset + 4096)));
      t.equal(last?.opcode, OP.SCSI_RESPONSE);
      t.equal(last?.ttt, 0xbeef, 'SNACK tag');
      t.equal(last?.statSN, response.statSN);
      t.equal(last?.dataSN, 14, 'ExpDataSN');
      ask(session, SNACK.STATUS, NO_TAG, response.statSN, 1);
      t.equal(contents(await session.expect(OP.SCSI_RESPONSE)), last && contents(last), 'the latest one');
      ask(session, SNACK.DATA_OR_R2T, itt, 13, 1);
      t.equal((await session.expect(OP.DATA_IN)).dataSN, 13);
      ask(session, SNACK.R_DATA, itt, 1, 0, 0xbeef);
      await rejected(t, session, 4, 'BegRun must be 0');
    },
  },
  {
    id: 'ERL-07',
    clause: 'RFC 7143 §11.16.1 (type 0)',
    level: 'MUST',
    text: 'an R2T is sent again with its tag when it is asked for',
    async run(t, target) {
      const session = await login(target, SOLICITED);
      const data = pattern(16_384, 91);
      const itt = session.sendCommand({ cdb: write10(2200, 16_384 / session.blockBytes), write: data });
      const r2t = await session.expect(OP.R2T);
      for (const run of [0, 1]) {
        ask(session, SNACK.DATA_OR_R2T, itt, 0, run);
        t.equal(contents(await session.expect(OP.R2T)), contents(r2t));
      }
      session.answerR2T(r2t, data);
      t.equal((await session.finish(itt, { write: data })).status, STATUS.GOOD);
      await wrote(t, session, 2200, data);
    },
  },
  {
    id: 'ERL-08',
    clause: 'RFC 7143 §7.3, §7.8',
    level: 'MUST',
    text: 'a Data-Out with a wrong data digest is rejected (reason 2) and asked for again',
    async run(t, target) {
      const session = await login(target, { ...DIGESTS, ...SOLICITED });
      const data = pattern(16_384, 92);
      const half = data.length / 2;
      for (const [bad, lba] of [
        [0, 2300],
        [1, 2400],
      ] as const) {
        const itt = session.sendCommand({ cdb: write10(lba, data.length / session.blockBytes), write: data });
        const r2t = await session.expect(OP.R2T);
        for (const dataSN of [0, 1])
          session.connection.send(
            answer(session, r2t, data, {
              dataSN,
              from: dataSN * half,
              end: (dataSN + 1) * half,
              final: dataSN === 1,
            }),
            { badDataDigest: dataSN === bad },
          );
        await rejected(t, session, 2, 'data digest error');
        const again = await session.expect(OP.R2T);
        t.not(again.ttt, r2t.ttt);
        t.equal(again.bufferOffset, bad * half, 'from what is missing');
        t.equal(again.dataSN, 1, 'R2TSN goes on');
        session.answerR2T(again, data);
        t.equal((await session.finish(itt, { write: data })).status, STATUS.GOOD);
        await wrote(t, session, lba, data);
      }
    },
  },
  {
    id: 'ERL-09',
    clause: 'RFC 7143 §7.9, §11.7.5',
    level: 'MUST',
    text: 'a gap in DataSN is filled by a recovery R2T, repeated and late data are dropped',
    async run(t, target) {
      const session = await login(target, SOLICITED);
      const data = pattern(16_384, 93);
      const quarter = data.length / 4;
      const itt = session.sendCommand({ cdb: write10(2500, data.length / session.blockBytes), write: data });
      const r2t = await session.expect(OP.R2T);
      const piece = (dataSN: number): Pdu =>
        answer(session, r2t, data, {
          dataSN,
          from: dataSN * quarter,
          end: (dataSN + 1) * quarter,
          final: dataSN === 3,
        });
      for (const dataSN of [0, 0, 2, 3]) session.connection.send(piece(dataSN));
      const again = await session.expect(OP.R2T);
      t.equal(again.bufferOffset, quarter);
      t.equal(again.desiredLength, data.length - quarter);
      session.connection.send(piece(1));
      session.answerR2T(again, data);
      t.equal((await session.finish(itt, { write: data })).status, STATUS.GOOD);
      await wrote(t, session, 2500, data);
    },
  },
  {
    id: 'ERL-10',
    clause: 'RFC 7143 §7.9, §11.8',
    level: 'SHOULD',
    text: 'data whose last PDU is lost are asked for again after a while; so are unsolicited data',
    async run(t, target) {
      const session = await login(target, { ImmediateData: 'Yes', InitialR2T: 'No' });
      const data = pattern(16_384, 94);
      const blocks = data.length / session.blockBytes;
      const itt = session.sendCommand({ cdb: write10(2600, blocks), write: data, final: false });
      const r2t = await session.expect(OP.R2T);
      t.equal(r2t.bufferOffset, 0, 'all unsolicited data were lost');
      session.connection.send(answer(session, r2t, data, { dataSN: 0, from: 0, end: 8192, final: false }));
      const again = await session.expect(OP.R2T);
      t.equal(again.bufferOffset, 8192, 'the second half was lost');
      session.answerR2T(again, data);
      t.equal((await session.finish(itt, { write: data })).status, STATUS.GOOD);
      await wrote(t, session, 2600, data);
    },
  },
  {
    id: 'ERL-11',
    clause: 'RFC 7143 §7.8, §11.4.7.2',
    level: 'MUST',
    text: 'data that never come whole are given up with the sense of a protocol service CRC error',
    async run(t, target) {
      const session = await login(target, SOLICITED);
      const data = pattern(8192, 95);
      const itt = session.sendCommand({ cdb: write10(2700, data.length / session.blockBytes), write: data });
      let tries = 0;
      for (;;) {
        const pdu = await session.next();
        if (pdu?.opcode !== OP.R2T) {
          if (pdu?.opcode === OP.REJECT) continue;
          t.equal(pdu?.itt, itt);
          t.equal(pdu?.scsiStatus, STATUS.CHECK_CONDITION);
          t.same([pdu?.sense[12], pdu?.sense[13]], SERVICE_CRC_ERROR);
          break;
        }
        if (++tries > 50) throw new Error('asked without end');
        session.connection.send(answer(session, pdu, data, { dataSN: 1, from: 0, end: 8192, final: true }));
      }
      t.ok(tries > 2);
      t.same(await session.fence(), []);
    },
  },
  {
    id: 'ERL-12',
    clause: 'RFC 7143 §7.8, §7.2.1',
    level: 'MUST',
    text: 'a command whose data digest is wrong is rejected (reason 2) and executed when it is retried; the connection goes on',
    async run(t, target) {
      const session = await login(target, { ...DIGESTS, ImmediateData: 'Yes' });
      const data = pattern(4096, 96);
      const command = {
        cdb: write10(2800, data.length / session.blockBytes),
        write: data,
        immediateBytes: data.length,
        itt: 0x5151,
        cmdSN: session.takeCmdSN(),
      };
      session.sendCommand(command, { badDataDigest: true });
      await rejected(t, session, 2, 'data digest error');
      const later = session.sendCommand({ cdb: testUnitReady() });
      t.same(await session.fence(), [], 'what comes behind it waits');
      session.sendCommand(command);
      t.equal((await session.finish(0x5151, command)).status, STATUS.GOOD);
      t.equal((await session.finish(later, {})).status, STATUS.GOOD);
      session.sendCommand(command);
      t.same(await session.fence(), [], 'a retry of what was executed is ignored');
      await wrote(t, session, 2800, data);
    },
  },
  {
    id: 'ERL-13',
    clause: 'RFC 7143 §7.8',
    level: 'MUST',
    text: 'a PDU whose header digest is wrong is dropped; the connection goes on where the next PDU certainly begins',
    async run(t, target) {
      const session = await login(target, { ...DIGESTS, ImmediateData: 'Yes' });
      const data = pattern(4096, 97);
      const command = {
        cdb: write10(2900, data.length / session.blockBytes),
        write: data,
        immediateBytes: data.length,
        itt: 0x6161,
        cmdSN: session.takeCmdSN(),
      };
      for (const times of [1, 3]) {
        for (let i = 0; i < times; i++) session.sendCommand(command, { badHeaderDigest: true });
        t.same(await session.fence(), [], `${times} in a row`);
      }
      session.sendCommand(command, { badHeaderDigest: true });
      const ping = await session.connection.receive();
      t.equal(ping?.opcode, OP.NOP_IN, 'nothing comes behind it: a ping asks for something');
      session.connection.send(
        nopOut({
          itt: NO_TAG,
          ttt: ping?.ttt ?? 0,
          immediate: true,
          cmdSN: session.cmdSN,
          expStatSN: session.expStatSN,
        }),
      );
      session.sendCommand(command);
      t.equal((await session.finish(0x6161, command)).status, STATUS.GOOD);
      await wrote(t, session, 2900, data);
    },
  },
  {
    id: 'ERL-14',
    clause: 'RFC 7143 §7.8',
    level: 'MUST',
    text: 'where a damaged header leaves the next PDU uncertain the connection ends, even if data look like a PDU',
    async run(t, target) {
      const before = pattern(4096, 98);
      const plain = await Session.login(target);
      const blocks = before.length / plain.blockBytes;
      await plain.execute({ cdb: write10(3000, blocks), write: before });
      for (const DataDigest of ['CRC32C', 'None']) {
        const session = await login(target, { ...DIGESTS, DataDigest, ImmediateData: 'Yes' });
        // Data that hold a whole WRITE of their own, at a place to which a wrong length could lead.
        const evil = session.commandPdu({
          cdb: write10(3000, 1),
          write: Buffer.alloc(512, 0xee),
          immediateBytes: 512,
          cmdSN: session.cmdSN,
          itt: 0x7171,
        });
        const data = Buffer.alloc(4096);
        const digests = { headerDigest: true, dataDigest: DataDigest !== 'None' };
        encode(evil, digests).copy(data, 1024 + (digests.dataDigest ? 4 : 0));
        const carrier = session.commandPdu({
          cdb: write10(3100, data.length / session.blockBytes),
          write: data,
          immediateBytes: data.length,
          cmdSN: session.takeCmdSN(),
          itt: 0x8181,
        });
        const bytes = encode(carrier, digests);
        bytes.writeUIntBE(1024, 5, 3);
        session.connection.write(bytes);
        const rest = await session.connection.untilClosed();
        t.notOk(
          rest.some(({ itt }) => itt === 0x7171 || itt === 0x8181),
          'nothing of it was done',
        );
      }
      await wrote(t, plain, 3000, before);
    },
  },
  {
    id: 'ERL-15',
    clause: 'RFC 7143 §7.9, §11.19',
    level: 'SHOULD',
    text: 'an initiator that leaves a status unacknowledged is told its number by a NOP-In',
    async run(t, target) {
      const session = await login(target);
      acknowledgeNothing(session);
      const { pdus } = await session.execute({ cdb: testUnitReady() });
      const nop = await session.connection.receive();
      t.equal(nop?.opcode, OP.NOP_IN);
      t.equal(nop?.itt, NO_TAG);
      t.not(nop?.ttt, NO_TAG, 'wants an answer');
      t.equal(nop?.statSN, ((pdus[0]?.statSN ?? 0) + 1) >>> 0);
    },
  },
  {
    id: 'ERL-16',
    clause: 'RFC 7143 §11.16, §7.8',
    level: 'MUST',
    text: 'data that memory did not allow to keep are refused (SNACK reject); the latest ones are still there',
    async run(t, target) {
      const session = await login(target, { MaxRecvDataSegmentLength: '262144' });
      acknowledgeNothing(session);
      const tags: number[] = [];
      const bytes = 1_048_576;
      for (let i = 0; i < 20; i++) {
        const itt = session.sendCommand({ cdb: read10(0, bytes / session.blockBytes), read: bytes });
        t.equal((await session.finish(itt, { read: bytes })).status, STATUS.GOOD);
        tags.push(itt);
      }
      ask(session, SNACK.DATA_OR_R2T, tags[0] ?? 0, 0, 1);
      await rejected(t, session, 3, 'SNACK reject');
      ask(session, SNACK.R_DATA, tags[0] ?? 0, 0, 0, 7);
      await rejected(t, session, 3, 'SNACK reject');
      ask(session, SNACK.DATA_OR_R2T, tags[19] ?? 0, 0, 1);
      t.equal((await session.expect(OP.DATA_IN)).dataSN, 0);
      session.acknowledged = undefined;
      t.same(await session.fence(), []);
    },
  },
  {
    id: 'ERL-50',
    clause: 'RFC 7143 §7.8',
    level: 'MUST',
    text: 'a read whose data are asked for again and are no longer kept ends with the sense of a rejected SNACK, if its status has not gone',
    async run(t, target) {
      const keys = {
        MaxConnections: '2',
        TaskReporting: 'ResponseFence',
        MaxRecvDataSegmentLength: '262144',
      };
      const session = await Session.login(target, { keys: { ...LEVEL_1, ...keys }, cid: 1 });
      const beside = await join(target, session, 2);
      session.connection.rules.recovers = beside.connection.rules.recovers = true;
      const other = await Session.login(target);
      await other.manage(TASK_FUNCTION.LOGICAL_UNIT_RESET);
      acknowledgeNothing(beside);
      await beside.fence();
      session.sendCommand({ cdb: testUnitReady() });
      t.notOk((await session.fence()).some(({ opcode }) => opcode === OP.SCSI_RESPONSE));
      const bytes = 1_048_576;
      const read = { cdb: read10(0, bytes / session.blockBytes), read: bytes };
      const tags: number[] = [];
      for (let i = 0; i < 20; i++) {
        tags.push(session.sendCommand(read));
        for (let got = 0; got < bytes;) got += (await session.expect(OP.DATA_IN)).data.length;
      }
      t.same(await session.fence(), [], 'each status waits behind the one of the unit attention');
      ask(session, SNACK.DATA_OR_R2T, tags[0] ?? 0, 0, 1);
      await rejected(t, session, 3, 'SNACK reject');
      beside.acknowledged = undefined;
      await beside.fence();
      const attention = await session.expect(OP.SCSI_RESPONSE);
      t.match(senseTriple(attention.sense), /^06\/29/);
      session.connection.send(
        nopOut({ itt: 0x77, immediate: true, cmdSN: session.cmdSN, expStatSN: session.expStatSN }),
      );
      const answers = await receive(session, 21);
      const of = (itt = 0): Pdu | undefined =>
        answers.find((pdu) => pdu.itt === itt && pdu.opcode === OP.SCSI_RESPONSE);
      t.equal(senseTriple(of(tags[0])?.sense ?? Buffer.alloc(0)), '0b/11/13');
      t.equal(of(tags[19])?.scsiStatus, STATUS.GOOD);
    },
  },
  {
    id: 'ERL-17',
    clause: 'RFC 7143 §4.2.2.1, §11.7',
    level: 'MUST',
    text: 'unsolicited Data-Out behind a command that waits for one before it waits with it',
    async run(t, target) {
      for (const level of ['0', '1']) {
        const session = await login(target, {
          ErrorRecoveryLevel: level,
          ImmediateData: 'No',
          InitialR2T: 'No',
        });
        const data = pattern(8192, 99);
        const missing = session.takeCmdSN();
        const itt = session.sendCommand({
          cdb: write10(3200, data.length / session.blockBytes),
          write: data,
          final: false,
        });
        for (const dataSN of [0, 1])
          session.connection.send(
            dataOut({
              itt,
              lun: session.lun,
              expStatSN: session.expStatSN,
              dataSN,
              offset: dataSN * 4096,
              data: data.subarray(dataSN * 4096, (dataSN + 1) * 4096),
              final: dataSN === 1,
            }),
          );
        t.same(await session.fence(), [], 'waits');
        t.equal((await session.execute({ cdb: testUnitReady(), cmdSN: missing })).status, STATUS.GOOD);
        t.equal((await session.finish(itt, { write: data })).status, STATUS.GOOD);
        await wrote(t, session, 3200, data);
      }
    },
  },
  {
    id: 'ERL-21',
    clause: 'RFC 7143 §7.1.4.1, §11.7',
    level: 'MUST',
    text: 'data that never come end their command, and what waited for it then runs, however much ends with it',
    async run(t, target) {
      const session = await login(target, { InitialR2T: 'No', ImmediateData: 'Yes' });
      const { blockBytes } = session;
      // The command wants one block and has it; what the rest of its data would have been never comes.
      const ordered = session.sendCommand({
        cdb: write10(3300, 1),
        write: pattern(2 * blockBytes, 98),
        immediateBytes: blockBytes,
        final: false,
        attribute: COMMAND.ORDERED,
      });
      const waiting = Array.from({ length: 4 }, () => session.sendCommand({ cdb: testUnitReady() }));
      const ended = new Map<number, number | undefined>();
      while (ended.size < 5) {
        const pdu = await session.next();
        if (pdu === undefined) throw new Error('the target closed');
        if (pdu.opcode === OP.SCSI_RESPONSE) ended.set(pdu.itt, pdu.scsiStatus);
      }
      t.ok(ended.has(ordered));
      for (const itt of waiting) t.equal(ended.get(itt), STATUS.GOOD);
      t.same(await session.fence(), []);
    },
  },
  {
    id: 'ERL-23',
    clause: 'RFC 7143 §13.2, §13.16, §13.20',
    level: 'MUST',
    text: 'one connection and level 0 are the most unless configured; a target may have more, or less, than the others, for sessions that begin from then on',
    async run(t) {
      const wanted = { MaxConnections: '65535', ErrorRecoveryLevel: '2', DefaultTime2Retain: '3600' };
      const more = { maxConnections: 3, errorRecoveryLevel: 2, time2RetainSeconds: 7 };
      const portals = [ANY_PORT];
      const { at, reload } = await startSite(t, ['a', 'b'], () => ({
        portals,
        targets: [site.target('a'), site.target('b', more)],
      }));
      const ask = async (name: string): Promise<[Session, string[]]> => {
        const session = await Session.login(at(name), { keys: wanted, cid: 1 });
        return [session, Object.keys(wanted).map((key) => session.agreed.get(key) ?? '')];
      };
      const [, plain] = await ask('a');
      t.same(plain, ['1', '0', '0'], 'the defaults');
      const [before, own] = await ask('b');
      t.same(own, ['3', '2', '7'], 'the target’s own');
      await reload({
        portals,
        limits: { maxConnections: 8, errorRecoveryLevel: 1 },
        targets: [site.target('a'), site.target('b', { maxConnections: 1, errorRecoveryLevel: 0 })],
      });
      t.same((await ask('b'))[1], ['1', '0', '0'], 'off for this target');
      const { isid, tsih, cmdSN } = before;
      const joined = await Session.login(at('b'), { isid, tsih, cmdSN, cid: 2, keepUnitAttention: true });
      t.equal(joined.tsih, tsih, 'a session keeps what it has negotiated');
    },
  },
  {
    id: 'ERL-22',
    clause: 'RFC 7143 §7.9, §11.8',
    level: 'MUST',
    text: 'data that were only late are taken for the R2T that asked first; what lies behind them is asked for in its turn, without a gap',
    async run(t, target) {
      const session = await login(target, {
        ...SOLICITED,
        MaxBurstLength: '16384',
        FirstBurstLength: '16384',
      });
      const data = pattern(32_768, 102);
      const itt = session.sendCommand({ cdb: write10(3500, data.length / session.blockBytes), write: data });
      const r2t = await session.expect(OP.R2T);
      t.same([r2t.bufferOffset, r2t.desiredLength], [0, 16_384]);
      const piece = (dataSN: number): Pdu =>
        answer(session, r2t, data, {
          dataSN,
          from: dataSN * 8192,
          end: (dataSN + 1) * 8192,
          final: dataSN === 1,
        });
      session.connection.send(piece(0));
      const again = await session.expect(OP.R2T);
      t.same([again.bufferOffset, again.dataSN], [8192, 1], 'the second half was overdue');
      session.connection.send(piece(1));
      const next = await session.expect(OP.R2T);
      t.same([next.bufferOffset, next.desiredLength, next.dataSN], [16_384, 16_384, 2]);
      // Also what the other R2T asked for comes, and is dropped: all of it is here, or asked for by another.
      session.answerR2T(again, data);
      t.same(await session.fence(), []);
      session.answerR2T(next, data);
      t.equal((await session.finish(itt, { write: data })).status, STATUS.GOOD);
      await wrote(t, session, 3500, data);
    },
  },
  {
    id: 'ERL-18',
    clause: 'RFC 7143 §11.16, §11.2.1.8',
    level: 'MUST',
    text: 'a tag that a new command has taken stands for that: data that an earlier one sent are not sent again',
    async run(t, target) {
      const { session, itt } = await readRun(target, { ImmediateData: 'No', InitialR2T: 'No' });
      const data = pattern(8192, 100);
      session.sendCommand({
        cdb: write10(3300, data.length / session.blockBytes),
        write: data,
        final: false,
        itt,
      });
      ask(session, SNACK.DATA_OR_R2T, itt, 0, 0);
      t.same(await session.fence(), [], 'the new one has sent nothing yet');
      const { lun, expStatSN } = session;
      session.connection.send(dataOut({ itt, lun, expStatSN, dataSN: 0, offset: 0, data, final: true }));
      t.equal((await session.finish(itt, { write: data })).status, STATUS.GOOD);
      await wrote(t, session, 3300, data);
    },
  },
  {
    id: 'ERL-19',
    clause: 'RFC 7143 §11.16.1 (type 3), §11.16.3',
    level: 'MUST',
    text: 'an R-Data SNACK for a write is rejected, and the write goes on',
    async run(t, target) {
      const session = await login(target, SOLICITED);
      const data = pattern(8192, 101);
      const itt = session.sendCommand({ cdb: write10(3400, data.length / session.blockBytes), write: data });
      const r2t = await session.expect(OP.R2T);
      ask(session, SNACK.R_DATA, itt, 0, 0, 0xbeef);
      await rejected(t, session, 4, 'protocol error');
      ask(session, SNACK.DATA_OR_R2T, itt, 0, 1);
      t.equal((await session.expect(OP.R2T)).ttt, r2t.ttt, 'the R2T is still kept');
      session.answerR2T(r2t, data);
      const { status, pdus } = await session.finish(itt, { write: data });
      t.equal(status, STATUS.GOOD);
      t.equal(pdus.at(-1)?.ttt, 0, 'no SNACK tag');
    },
  },
];

export const recovery: readonly Requirement[] = rows.map((row) => ({ ...row, needs }));
