/** Data-Out, R2T, immediate and unsolicited data (RFC 7143 §4.2.5.2, §11.7, §11.8, §13.10 to §13.19). */
import { dataOut, encode, NO_TAG, OP, type Pdu, TASK_FUNCTION } from './pdu.js';
import type { Requirement, Tap } from './requirement.js';
import { read10, senseTriple, STATUS, write10 } from './scsi.js';
import { Session } from './session.js';
import type { Target } from './target.js';

/** Reject reasons (§11.17.1). */
const PROTOCOL_ERROR = 4;
const INVALID_PDU_FIELD = 9;

const SOLICITED = { InitialR2T: 'Yes', ImmediateData: 'No' } as const;

/** Bytes that tell their position. */
export function pattern(bytes: number, seed: number): Buffer {
  return Buffer.from(Uint8Array.from({ length: bytes }, (_, at) => (at * 7 + (at >> 8) + seed) & 0xff));
}

async function holds(t: Tap, session: Session, lba: number, data: Buffer, why: string): Promise<void> {
  const outcome = await session.execute({
    cdb: read10(lba, data.length / session.blockBytes),
    read: data.length,
  });
  t.ok(outcome.data.equals(data), why);
}

/** A write of which the first R2T has come. */
async function untilR2T(
  target: Target,
  bytes: number,
): Promise<{ session: Session; itt: number; r2t: Pdu; data: Buffer }> {
  const session = await Session.login(target, { keys: SOLICITED });
  const data = pattern(bytes, 1);
  const itt = session.sendCommand({ cdb: write10(64, bytes / session.blockBytes), write: data });
  return { session, itt, r2t: await session.expect(OP.R2T), data };
}

const answer = (
  session: Session,
  r2t: Pdu,
  data: Buffer,
  change: Partial<Parameters<typeof dataOut>[0]> = {},
): Pdu =>
  dataOut({
    itt: r2t.itt,
    ttt: r2t.ttt,
    lun: session.lun,
    expStatSN: session.expStatSN,
    dataSN: 0,
    offset: r2t.bufferOffset,
    data,
    final: true,
    ...change,
  });

/** What may follow Data-Out that is wrong: a Reject, a failed task, or the end of the connection; never GOOD. */
async function neverGood(t: Tap, session: Session, itt: number, what: string): Promise<void> {
  for (let count = 0; count < 8; count++) {
    const pdu = await session.next();
    if (pdu === undefined) return;
    if (pdu.opcode === OP.REJECT) {
      t.pass(`${what}: rejected`);
      return;
    }
    if (pdu.opcode === OP.SCSI_RESPONSE && pdu.itt === itt) {
      t.ok(pdu.response !== 0 || pdu.scsiStatus !== STATUS.GOOD, `${what}: status ${pdu.scsiStatus}`);
      return;
    }
    // More R2Ts may be under way.
  }
  t.fail(`${what}: no end`);
}

/** The task ends with CHECK CONDITION and that sense. */
async function fails(t: Tap, session: Session, itt: number, sense: string): Promise<void> {
  const response = await session.expect(OP.SCSI_RESPONSE);
  t.equal(response.itt, itt);
  t.equal(response.scsiStatus, STATUS.CHECK_CONDITION);
  t.equal(senseTriple(response.sense), sense);
}

/** The blocks that a wrong write may have touched hold what they held. */
async function unchanged(t: Tap, target: Target, lba: number, before: Buffer): Promise<void> {
  const session = await Session.login(target);
  await holds(t, session, lba, before, 'the blocks beside are unchanged');
}

async function paint(target: Target, lba: number, bytes: number, byte: number): Promise<Buffer> {
  const session = await Session.login(target);
  const data = Buffer.alloc(bytes, byte);
  const outcome = await session.execute({ cdb: write10(lba, bytes / session.blockBytes), write: data });
  if (outcome.status !== STATUS.GOOD) throw new Error('cannot write');
  return data;
}

const wrongDataOut = (
  id: string,
  clause: string,
  text: string,
  change: (r2t: Pdu, data: Buffer) => Partial<Parameters<typeof dataOut>[0]>,
): Requirement => ({
  id,
  clause,
  level: 'MUST',
  text,
  async run(t, target) {
    const before = await paint(target, 72, 8192, 0xee);
    const { session, itt, r2t, data } = await untilR2T(target, 4096);
    session.connection.send(answer(session, r2t, data, change(r2t, data)));
    await neverGood(t, session, itt, text);
    await unchanged(t, target, 72, before);
  },
});

export const write: readonly Requirement[] = [
  {
    id: 'WR-01',
    clause: 'RFC 7143 §11.8, §13.10, §13.11',
    level: 'MUST',
    text: 'with InitialR2T=Yes and ImmediateData=No all data is asked for by R2T, and arrives',
    async run(t, target) {
      const session = await Session.login(target, { keys: SOLICITED });
      const data = pattern(65536, 2);
      const outcome = await session.execute({ cdb: write10(128, 65536 / session.blockBytes), write: data });
      t.equal(outcome.status, STATUS.GOOD);
      t.equal(
        outcome.r2ts.reduce((sum, r2t) => sum + r2t.desiredLength, 0),
        65536,
        'each byte once',
      );
      await holds(t, session, 128, data, 'the data is there');
    },
  },
  {
    id: 'WR-02',
    clause: 'RFC 7143 §4.2.5.3, §4.2.2.4, §11.8.2, §11.8.4, §11.8.5, §13.19',
    level: 'MUST',
    text: 'R2Ts count from 0, carry the LUN, have a TTT of their own, follow in order without gap',
    async run(t, target) {
      const session = await Session.login(target, { keys: { ...SOLICITED, MaxBurstLength: '4096' } });
      const data = pattern(32768, 3);
      const { r2ts } = await session.execute({ cdb: write10(128, 32768 / session.blockBytes), write: data });
      let offset = 0;
      r2ts.forEach((r2t, index) => {
        t.equal(r2t.dataSN, index, 'R2TSN');
        t.equal(r2t.bufferOffset, offset);
        t.ok(
          r2t.desiredLength > 0 && r2t.desiredLength <= 4096,
          `${r2t.desiredLength} bytes of MaxBurstLength`,
        );
        t.not(r2t.ttt, NO_TAG);
        t.equal(r2t.bhs[9], session.lun, 'LUN');
        offset += r2t.desiredLength;
      });
      t.equal(offset, 32768);
    },
  },
  {
    id: 'WR-03',
    clause: 'RFC 7143 §13.17',
    level: 'MUST',
    text: 'no more R2Ts of a task are outstanding than MaxOutstandingR2T',
    async run(t, target) {
      for (const most of [1, 3]) {
        const session = await Session.login(target, {
          keys: { ...SOLICITED, MaxBurstLength: '4096', MaxOutstandingR2T: String(most) },
        });
        const agreed = session.number('MaxOutstandingR2T', 1);
        t.ok(agreed <= most);
        const data = pattern(32768, 4);
        const itt = session.sendCommand({ cdb: write10(128, 32768 / session.blockBytes), write: data });
        let waiting: Pdu[] = [await session.expect(OP.R2T)];
        for (let sent = 0; sent < 8; sent++) {
          for (const pdu of await session.fence()) if (pdu.opcode === OP.R2T) waiting.push(pdu);
          t.ok(waiting.length <= agreed, `${waiting.length} outstanding of ${agreed}`);
          const [next, ...rest] = waiting;
          waiting = rest;
          if (next === undefined) throw new Error('no R2T is outstanding');
          session.answerR2T(next, data);
          if (sent < 7 && waiting.length === 0) waiting.push(await session.expect(OP.R2T));
        }
        t.equal((await session.finish(itt, {})).status, STATUS.GOOD);
        await holds(t, session, 128, data, 'the data is there');
      }
    },
  },
  {
    id: 'WR-04',
    clause: 'RFC 7143 §13.11, §11.3.6',
    level: 'MUST',
    text: 'immediate data is taken, the rest is asked for',
    async run(t, target) {
      const session = await Session.login(target, { keys: { InitialR2T: 'Yes', ImmediateData: 'Yes' } });
      t.equal(session.agreed.get('ImmediateData'), 'Yes');
      for (const immediateBytes of [0, 512, 4096, 8192]) {
        const data = pattern(8192, 5 + immediateBytes);
        const outcome = await session.execute({
          cdb: write10(200, 8192 / session.blockBytes),
          write: data,
          immediateBytes,
        });
        t.equal(outcome.status, STATUS.GOOD);
        t.equal(outcome.r2ts[0]?.bufferOffset, immediateBytes === 8192 ? undefined : immediateBytes);
        await holds(t, session, 200, data, `with ${immediateBytes} bytes immediate`);
      }
    },
  },
  {
    id: 'WR-05',
    clause: 'RFC 7143 §13.10, §13.14, §11.7',
    level: 'MUST',
    text: 'unsolicited Data-Out up to FirstBurstLength is taken with InitialR2T=No, the rest is asked for',
    async run(t, target) {
      const session = await Session.login(target, {
        keys: { InitialR2T: 'No', ImmediateData: 'Yes', FirstBurstLength: '8192' },
      });
      if (session.agreed.get('InitialR2T') === 'Yes') {
        t.comment('the target insists on InitialR2T=Yes');
        return;
      }
      const burst = session.number('FirstBurstLength', 65536);
      const data = pattern(24576, 6);
      const cdb = write10(300, 24576 / session.blockBytes);
      const itt = session.sendCommand({ cdb, write: data, immediateBytes: 512, final: false });
      for (let offset = 512, dataSN = 0; offset < burst; offset += 2560, dataSN++) {
        const end = Math.min(offset + 2560, burst);
        const { expStatSN, lun } = session;
        session.connection.send(
          dataOut({
            itt,
            lun,
            expStatSN,
            dataSN,
            offset,
            data: data.subarray(offset, end),
            final: end === burst,
          }),
        );
      }
      const outcome = await session.finish(itt, { write: data });
      t.equal(outcome.status, STATUS.GOOD);
      t.equal(outcome.r2ts[0]?.bufferOffset, burst, 'asks from where the first burst ended');
      await holds(t, session, 300, data, 'the data is there');
    },
  },
  {
    id: 'WR-06',
    clause: 'RFC 7143 §11.3.1, §13.10',
    level: 'MUST',
    text: 'unsolicited data that ends early by F is completed by R2T',
    async run(t, target) {
      const session = await Session.login(target, { keys: { InitialR2T: 'No', ImmediateData: 'Yes' } });
      if (session.agreed.get('InitialR2T') === 'Yes') return;
      const data = pattern(8192, 7);
      const itt = session.sendCommand({
        cdb: write10(300, 8192 / session.blockBytes),
        write: data,
        final: false,
      });
      const { expStatSN, lun } = session;
      session.connection.send(
        dataOut({ itt, lun, expStatSN, dataSN: 0, offset: 0, data: data.subarray(0, 1024), final: true }),
      );
      const outcome = await session.finish(itt, { write: data });
      t.equal(outcome.r2ts[0]?.bufferOffset, 1024);
      await holds(t, session, 300, data, 'the data is there');
    },
  },
  {
    id: 'WR-07',
    clause: 'RFC 7143 §11.7.6, §7.9',
    level: 'ROBUST',
    text: 'Data-Out in many small PDUs of odd size, padded, makes up the data',
    async run(t, target) {
      const { session, itt, r2t, data } = await untilR2T(target, 4096);
      let dataSN = 0;
      for (let offset = 0; offset < 4096; offset += 333, dataSN++) {
        const end = Math.min(4096, offset + 333);
        const piece = data.subarray(offset, end);
        session.connection.send(answer(session, r2t, piece, { dataSN, offset, final: end === 4096 }), {
          padByte: 0x5a,
        });
      }
      t.equal((await session.finish(itt, {})).status, STATUS.GOOD);
      await holds(t, session, 64, data, 'the data is there');
    },
  },
  {
    id: 'WR-08',
    clause: 'RFC 7143 §11.7',
    level: 'MUST',
    text: 'writes of several tasks whose Data-Out is interleaved do not mix',
    async run(t, target) {
      const session = await Session.login(target, { keys: SOLICITED });
      const blocks = 4096 / session.blockBytes;
      const all = [8, 9, 10, 11].map((seed) => pattern(4096, seed));
      const tags = all.map((data, n) =>
        session.sendCommand({ cdb: write10(400 + n * blocks, blocks), write: data }),
      );
      const r2ts: Pdu[] = [];
      for (let n = 0; n < all.length; n++) r2ts.push(await session.expect(OP.R2T));
      for (let dataSN = 0; dataSN < 4; dataSN++) {
        for (const r2t of r2ts.toReversed()) {
          const offset = dataSN * 1024;
          const data = all[tags.indexOf(r2t.itt)].subarray(offset, offset + 1024);
          session.connection.send(answer(session, r2t, data, { dataSN, offset, final: dataSN === 3 }));
        }
      }
      const ends = new Set<number>();
      for (let n = 0; n < all.length; n++) ends.add((await session.expect(OP.SCSI_RESPONSE)).itt);
      t.same([...ends].toSorted(), tags);
      for (const [n, data] of all.entries()) await holds(t, session, 400 + n * blocks, data, `write ${n}`);
    },
  },
  {
    id: 'WR-09',
    clause: 'RFC 7143 §7.9, §11.7.1',
    level: 'MUST',
    text: 'less data than the R2T asked for, ended by F, fails the task or is asked for again: never GOOD unseen',
    async run(t, target) {
      const { session, itt, r2t, data } = await untilR2T(target, 4096);
      session.connection.send(answer(session, r2t, data.subarray(0, 2048)));
      const pdu = await session.next();
      if (pdu?.opcode === OP.R2T) {
        t.ok(pdu.bufferOffset >= 2048 || pdu.bufferOffset === 0, 'recovery R2T');
        return;
      }
      if (pdu?.opcode === OP.SCSI_RESPONSE) t.ok(pdu.itt === itt && pdu.scsiStatus !== STATUS.GOOD);
      else t.ok(pdu === undefined || pdu.opcode === OP.REJECT);
    },
  },
  wrongDataOut(
    'WR-20',
    'RFC 7143 §11.7.6, §7.9',
    'Data-Out beyond the end of the buffer is refused',
    (_, data) => ({ offset: 4096, data }),
  ),
  wrongDataOut(
    'WR-21',
    'RFC 7143 §11.7.6, §7.9',
    'Data-Out at an offset of 4 GiB less one block is refused',
    () => ({
      offset: 0xfffffe00,
    }),
  ),
  wrongDataOut(
    'WR-22',
    'RFC 7143 §11.7.4, §7.13',
    'Data-Out with a TTT that was not given is refused',
    (r2t) => ({
      ttt: (r2t.ttt + 0x1234) >>> 0,
    }),
  ),
  wrongDataOut('WR-23', 'RFC 7143 §11.7.5, §7.9', 'Data-Out whose DataSN leaves a gap is refused', () => ({
    dataSN: 3,
  })),
  wrongDataOut(
    'WR-24',
    'RFC 7143 §4.2.5.2, §11.7.6, §13.18',
    'Data-Out out of order is refused while DataPDUInOrder=Yes',
    (_, data) => ({
      offset: 2048,
      data: data.subarray(2048),
    }),
  ),
  wrongDataOut('WR-25', 'RFC 7143 §11.8.4', 'more Data-Out than the R2T asked for is refused', (_, data) => ({
    data: Buffer.concat([data, data]),
  })),
  wrongDataOut(
    'WR-26',
    'RFC 7143 §13.10, §7.13',
    'unsolicited Data-Out is refused while InitialR2T=Yes',
    () => ({
      ttt: NO_TAG,
    }),
  ),
  {
    id: 'WR-27',
    clause: 'RFC 7143 §13.11, §7.13',
    level: 'MUST',
    text: 'immediate data is refused while ImmediateData=No',
    async run(t, target) {
      const before = await paint(target, 500, 4096, 0xdd);
      const session = await Session.login(target, { keys: SOLICITED });
      const data = pattern(4096, 12);
      const itt = session.sendCommand({
        cdb: write10(500, 4096 / session.blockBytes),
        write: data,
        immediateBytes: 4096,
      });
      await neverGood(t, session, itt, 'immediate data');
      await unchanged(t, target, 500, before);
    },
  },
  {
    id: 'WR-28',
    clause: 'RFC 7143 §4.2.5.2, §13.14, §7.13',
    level: 'MUST',
    text: 'unsolicited data beyond FirstBurstLength is refused',
    async run(t, target) {
      const session = await Session.login(target, {
        keys: { InitialR2T: 'No', ImmediateData: 'Yes', FirstBurstLength: '1024' },
      });
      if (session.agreed.get('InitialR2T') === 'Yes') return;
      const data = pattern(8192, 13);
      const itt = session.sendCommand({
        cdb: write10(500, 8192 / session.blockBytes),
        write: data,
        final: false,
      });
      const { expStatSN, lun } = session;
      session.connection.send(
        dataOut({ itt, lun, expStatSN, dataSN: 0, offset: 0, data: data.subarray(0, 4096), final: true }),
      );
      await neverGood(t, session, itt, 'too long a first burst');
    },
  },
  {
    id: 'WR-29',
    clause: 'RFC 7143 §11.3.4, §11.3.6',
    level: 'MUST',
    text: 'immediate data longer than EDTL is refused',
    async run(t, target) {
      const session = await Session.login(target, { keys: { ImmediateData: 'Yes' } });
      const data = pattern(2048, 14);
      const itt = session.sendCommand({
        cdb: write10(500, 2048 / session.blockBytes),
        write: data,
        immediateBytes: 2048,
        edtl: 512,
      });
      await neverGood(t, session, itt, 'more than EDTL');
    },
  },
  {
    id: 'WR-36',
    clause: 'RFC 7143 §11.17.1, §11.4.7.2, §7.3',
    level: 'MUST',
    text: 'Data-Out that is rejected ends its task: the Reject with the header is followed, when the last data have come, by CHECK CONDITION, incorrect amount of data',
    async run(t, target) {
      const before = await paint(target, 64, 4096, 0x37);
      for (const change of [{ offset: 0x7ffffe00 }, { offset: 512 }, { ttt: 0x12345678 }]) {
        const { session, itt, r2t, data } = await untilR2T(target, 4096);
        const sent = answer(session, r2t, data.subarray(0, 512), { final: false, ...change });
        session.connection.send(sent);
        const reject = await session.expect(OP.REJECT);
        t.equal(reject.response, INVALID_PDU_FIELD, JSON.stringify(change));
        t.ok(reject.data.equals(encode(sent).subarray(0, 48)), 'the header that was refused');
        t.same(await session.fence(), [], 'data are still to come');
        session.connection.send(answer(session, r2t, data.subarray(512), { dataSN: 1, offset: 512 }));
        await fails(t, session, itt, '0b/0c/0d');
        t.same(await session.fence(), [], 'once');
        await holds(t, session, 64, before, 'nothing was written');
      }
    },
  },
  {
    id: 'WR-38',
    clause: 'RFC 7143 §11.4.2',
    level: 'MUST',
    text: 'a command that has failed before its unsolicited data have come is answered behind the last of them (F)',
    async run(t, target) {
      const session = await Session.login(target, {
        keys: { InitialR2T: 'No', ImmediateData: 'Yes', FirstBurstLength: '4096' },
      });
      const data = pattern(4096, 22);
      const cdb = write10(0xfffffff0, data.length / session.blockBytes);
      const itt = session.sendCommand({ cdb, write: data, immediateBytes: 1024, final: false });
      const { expStatSN, lun } = session;
      for (const [dataSN, offset] of [1024, 2048, 3072].entries()) {
        t.same(await session.fence(), [], 'data are still to come');
        const piece = data.subarray(offset, offset + 1024);
        session.connection.send(
          dataOut({ itt, lun, expStatSN, dataSN, offset, data: piece, final: offset === 3072 }),
        );
      }
      await fails(t, session, itt, '05/21/00');
    },
  },
  {
    id: 'WR-39',
    clause: 'RFC 7143 §11.7.4, §4.2.5.3, §11.17.1',
    level: 'MUST',
    text: 'solicited Data-Out whose LUN is not that of the command is rejected (reason 9), not written, and ends the task',
    async run(t, target) {
      const before = await paint(target, 64, 4096, 0x39);
      const { session, itt, r2t, data } = await untilR2T(target, 4096);
      session.connection.send(answer(session, r2t, data, { lun: session.lun + 5 }));
      t.equal((await session.expect(OP.REJECT)).response, INVALID_PDU_FIELD);
      await fails(t, session, itt, '0b/0c/0d');
      await holds(t, session, 64, before, 'nothing was written');
    },
  },
  {
    id: 'WR-40',
    clause: 'RFC 7143 §11.4.7.2',
    level: 'MUST',
    text: 'a first burst of unsolicited Data-Out that is shorter than FirstBurstLength, though there are more data, ends the command: incorrect amount of data',
    async run(t, target) {
      const before = await paint(target, 300, 8192, 0x40);
      for (const order of ['Yes', 'No']) {
        const session = await Session.login(target, {
          keys: { InitialR2T: 'No', ImmediateData: 'Yes', FirstBurstLength: '4096', DataPDUInOrder: order },
        });
        const data = pattern(8192, 23);
        const cdb = write10(300, data.length / session.blockBytes);
        const itt = session.sendCommand({ cdb, write: data, immediateBytes: 512, final: false });
        const { expStatSN, lun } = session;
        const piece = data.subarray(512, 2048);
        session.connection.send(
          dataOut({ itt, lun, expStatSN, dataSN: 0, offset: 512, data: piece, final: true }),
        );
        t.equal((await session.expect(OP.REJECT)).response, PROTOCOL_ERROR);
        await fails(t, session, itt, '0b/0c/0d');
        const behind = 300 + 512 / session.blockBytes;
        await holds(t, session, behind, before.subarray(512), 'nothing of the burst was written');
      }
    },
  },
  {
    id: 'WR-41',
    clause: 'RFC 7143 §7.9, §7.8',
    level: 'MUST',
    text: 'a gap in DataSN counts as data lost on the way: the task ends with protocol service CRC error when the last data have come',
    async run(t, target) {
      const before = await paint(target, 64, 4096, 0x41);
      for (const order of ['Yes', 'No']) {
        const session = await Session.login(target, { keys: { ...SOLICITED, DataPDUInOrder: order } });
        const data = pattern(4096, 24);
        const itt = session.sendCommand({ cdb: write10(64, 4096 / session.blockBytes), write: data });
        const r2t = await session.expect(OP.R2T);
        const [first, rest] = [data.subarray(0, 1024), data.subarray(2048)];
        session.connection.send(answer(session, r2t, first, { final: false }));
        t.same(await session.fence(), []);
        session.connection.send(answer(session, r2t, rest, { dataSN: 2, offset: 2048, final: false }));
        t.equal((await session.expect(OP.REJECT)).response, PROTOCOL_ERROR);
        t.same(await session.fence(), [], 'data are still to come');
        session.connection.send(answer(session, r2t, Buffer.alloc(0), { dataSN: 3, offset: 4096 }));
        await fails(t, session, itt, '0b/47/05');
        await holds(t, session, 66, before.subarray(1024), 'nothing behind the gap was written');
      }
    },
  },
  {
    id: 'WR-42',
    clause: 'RFC 7143 §11.17.1, §7.8, §11.5.1',
    level: 'MUST',
    text: 'the status of a write whose data were rejected waits for the F of every R2T that is out; ABORT TASK concludes it meanwhile, without a status',
    async run(t, target) {
      for (const end of ['data', 'ABORT TASK', 'LOGICAL UNIT RESET'] as const) {
        const session = await Session.login(target, {
          keys: { ...SOLICITED, MaxOutstandingR2T: '2', MaxBurstLength: '2048', TaskReporting: 'FastAbort' },
        });
        t.equal(session.agreed.get('MaxOutstandingR2T'), '2');
        const data = pattern(8192, 25);
        const itt = session.sendCommand({ cdb: write10(64, 8192 / session.blockBytes), write: data });
        const [one, two] = [await session.expect(OP.R2T), await session.expect(OP.R2T)];
        session.connection.send(answer(session, one, data.subarray(0, 512), { offset: 1024, final: false }));
        t.equal((await session.expect(OP.REJECT)).response, INVALID_PDU_FIELD);
        session.answerR2T(two, data);
        t.same(await session.fence(), [], 'one R2T is out, and no other is sent');
        if (end === 'data') {
          session.answerR2T(one, data);
          await fails(t, session, itt, '0b/0c/0d');
        } else {
          const fn = end === 'ABORT TASK' ? TASK_FUNCTION.ABORT_TASK : TASK_FUNCTION.LOGICAL_UNIT_RESET;
          t.equal((await session.manage(fn, { referencedTag: itt })).response, 0, end);
          session.answerR2T(one, data);
        }
        t.same(await session.fence(), [], `${end}: nothing more`);
      }
    },
  },
  {
    id: 'WR-37',
    clause: 'RFC 7143 §11.4.7.2, §13.10, §13.11, §13.14',
    level: 'MUST',
    text: 'unsolicited data that was not agreed on ends its command with CHECK CONDITION, unexpected unsolicited data, or incorrect amount where it is too much',
    async run(t, target) {
      const cases = [
        [SOLICITED, { immediateBytes: 512 }, '0b/0c/0c'],
        [SOLICITED, { final: false }, '0b/0c/0c'],
        [{ FirstBurstLength: '512', InitialR2T: 'No' }, { immediateBytes: 1024 }, '0b/0c/0d'],
      ] as const;
      for (const [keys, how, sense] of cases) {
        const session = await Session.login(target, { keys });
        const itt = session.sendCommand({
          cdb: write10(64, 4),
          write: pattern(4 * session.blockBytes, 3),
          ...how,
        });
        const outcome = await session.expect(OP.SCSI_RESPONSE);
        t.equal(outcome.itt, itt);
        t.equal(outcome.scsiStatus, STATUS.CHECK_CONDITION);
        t.equal(senseTriple(outcome.sense), sense, JSON.stringify([keys, how]));
      }
    },
  },
  {
    id: 'WR-30',
    clause: 'RFC 7143 §11.7, §7.13',
    level: 'ROBUST',
    text: 'Data-Out for a task that does not exist is rejected, ignored, or ends the connection',
    async run(t, target) {
      const session = await Session.login(target);
      const { expStatSN } = session;
      session.connection.send(
        dataOut({
          itt: 0xdead,
          ttt: 0xbeef,
          expStatSN,
          dataSN: 0,
          offset: 0,
          data: pattern(512, 15),
          final: true,
        }),
      );
      const pdu = await session.next(1000).catch(() => undefined);
      t.ok(pdu === undefined || pdu.opcode === OP.REJECT);
      await Session.login(target);
    },
  },
  {
    id: 'WR-31',
    clause: 'RFC 7143 §11.7.1, §11.7.7',
    level: 'MUST',
    text: 'empty Data-Out PDUs are taken: the data around them make up the write',
    async run(t, target) {
      const { session, r2t, data } = await untilR2T(target, 4096);
      for (let dataSN = 0; dataSN < 5; dataSN++) {
        session.connection.send(answer(session, r2t, Buffer.alloc(0), { dataSN, final: false }));
      }
      session.connection.send(answer(session, r2t, data, { dataSN: 5 }));
      t.equal((await session.expect(OP.SCSI_RESPONSE)).scsiStatus, STATUS.GOOD);
    },
  },
  {
    id: 'WR-32',
    clause: 'RFC 7143 §13.18',
    level: 'MUST',
    text: 'with DataPDUInOrder=No the PDUs of a sequence may come in any order and make up the data',
    async run(t, target) {
      const session = await Session.login(target, { keys: { ...SOLICITED, DataPDUInOrder: 'No' } });
      t.equal(session.agreed.get('DataPDUInOrder'), 'No');
      const data = pattern(4096, 16);
      const itt = session.sendCommand({ cdb: write10(64, 4096 / session.blockBytes), write: data });
      const r2t = await session.expect(OP.R2T);
      [3072, 0, 2048, 1024].forEach((offset, dataSN) => {
        const piece = data.subarray(offset, offset + 1024);
        session.connection.send(answer(session, r2t, piece, { dataSN, offset, final: dataSN === 3 }));
      });
      t.equal((await session.finish(itt, {})).status, STATUS.GOOD);
      await holds(t, session, 64, data, 'the data is there');
    },
  },
  {
    id: 'WR-33',
    clause: 'RFC 7143 §13.19, §13.17',
    level: 'MUST',
    text: 'with DataSequenceInOrder=No outstanding R2Ts may be answered in any order',
    async run(t, target) {
      const session = await Session.login(target, {
        keys: {
          ...SOLICITED,
          DataSequenceInOrder: 'No',
          MaxOutstandingR2T: '4',
          MaxBurstLength: '2048',
          FirstBurstLength: '2048',
        },
      });
      t.equal(session.agreed.get('DataSequenceInOrder'), 'No');
      const data = pattern(16_384, 17);
      const itt = session.sendCommand({ cdb: write10(64, 16_384 / session.blockBytes), write: data });
      const waiting: Pdu[] = [];
      let outcome: Pdu | undefined;
      while (outcome === undefined) {
        // The youngest first, as soon as nothing more is asked for.
        waiting.push(...(await session.fence()));
        const last = waiting.pop();
        if (last?.opcode === OP.R2T) session.answerR2T(last, data);
        else outcome = last;
      }
      t.equal(outcome.itt, itt);
      t.equal(outcome.scsiStatus, STATUS.GOOD);
      await holds(t, session, 64, data, 'the data is there');
    },
  },
  {
    id: 'WR-34',
    clause: 'RFC 7143 §13.10, §13.18',
    level: 'MUST',
    text: 'with DataPDUInOrder=No unsolicited data may come in any order, behind immediate data, and the rest by R2T',
    async run(t, target) {
      const session = await Session.login(target, {
        keys: {
          InitialR2T: 'No',
          ImmediateData: 'Yes',
          FirstBurstLength: '4096',
          DataPDUInOrder: 'No',
          DataSequenceInOrder: 'No',
        },
      });
      const data = pattern(200_704, 18);
      const immediateBytes = 1024;
      const itt = session.sendCommand({
        cdb: write10(64, data.length / session.blockBytes),
        write: data,
        immediateBytes,
        final: false,
      });
      const { expStatSN, lun } = session;
      [3072, 1024, 2048].forEach((offset, dataSN) => {
        const piece = data.subarray(offset, offset + 1024);
        session.connection.send(
          dataOut({ itt, lun, expStatSN, dataSN, offset, data: piece, final: dataSN === 2 }),
        );
      });
      const outcome = await session.finish(itt, { write: data });
      t.equal(outcome.status, STATUS.GOOD);
      t.equal(outcome.r2ts[0]?.bufferOffset, 4096);
      await holds(t, session, 64, data, 'the data is there');
    },
  },
  {
    id: 'WR-35',
    clause: 'RFC 7143 §13.18, §13.19, §7.9',
    level: 'MUST',
    text: 'without order, too, data that came before, lie outside of the sequence, leave a gap, or break the order that was kept are refused',
    async run(t, target) {
      const NO = { DataPDUInOrder: 'No', DataSequenceInOrder: 'No' };
      for (const [what, keys, pieces] of [
        [
          'twice',
          NO,
          [
            [0, 512, 0, false],
            [0, 512, 1, true],
          ],
        ],
        [
          'overlapping',
          NO,
          [
            [0, 512, 0, false],
            [256, 512, 1, true],
          ],
        ],
        ['outside', NO, [[4096, 512, 0, true]]],
        ['before', NO, [[0xfffffe00, 512, 0, true]]],
        [
          'a gap',
          NO,
          [
            [0, 512, 0, false],
            [1024, 512, 1, true],
          ],
        ],
        ['DataSN', NO, [[0, 512, 5, false]]],
        ['PDUs in order', { ...NO, DataPDUInOrder: 'Yes' }, [[512, 512, 0, false]]],
      ] as const) {
        const session = await Session.login(target, { keys: { ...SOLICITED, ...keys } });
        const before = pattern(2048, 19);
        await session.execute({ cdb: write10(64, 2048 / session.blockBytes), write: before });
        const itt = session.sendCommand({
          cdb: write10(64, 2048 / session.blockBytes),
          write: Buffer.alloc(2048),
        });
        const r2t = await session.expect(OP.R2T);
        for (const [offset, bytes, dataSN, final] of pieces)
          session.connection.send(answer(session, r2t, Buffer.alloc(bytes, 0xab), { dataSN, offset, final }));
        if (pieces.at(-1)?.[3] === false)
          session.connection.send(answer(session, r2t, Buffer.alloc(0), { dataSN: 9, offset: 2048 }));
        const answers: number[] = [];
        for (let pdu = await session.next(); pdu !== undefined; pdu = await session.next()) {
          answers.push(pdu.opcode);
          if (pdu.itt !== itt) continue;
          t.not(pdu.scsiStatus, STATUS.GOOD, what);
          break;
        }
        t.ok(answers.length > 0, what);
        await holds(t, await Session.login(target), 64, before, `${what}: nothing was written`);
      }
    },
  },
];
