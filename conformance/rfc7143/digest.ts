/** Header and data digests (RFC 7143 §7.8, §11.2.3, §13.1). */
import { dataOut, encode, nopOut, OP, textRequest } from './pdu.js';
import type { Requirement } from './requirement.js';
import { inquiry, read10, senseTriple, STATUS, testUnitReady, write10 } from './scsi.js';
import { Session, type SessionOptions } from './session.js';
import { pattern } from './write.js';

const header: SessionOptions = { keys: { HeaderDigest: 'CRC32C', DataDigest: 'None' } };
const data: SessionOptions = { keys: { HeaderDigest: 'None', DataDigest: 'CRC32C', ImmediateData: 'Yes' } };
const both: SessionOptions = { keys: { HeaderDigest: 'CRC32C', DataDigest: 'CRC32C', ImmediateData: 'Yes' } };

export const digest: readonly Requirement[] = [
  ...(
    [
      ['DIG-01', 'header', header],
      ['DIG-02', 'data', data],
      ['DIG-03', 'header and data', both],
    ] as const
  ).map(([id, text, options]): Requirement => ({
    id,
    clause: 'RFC 7143 §11.2.3, §13.1',
    level: 'MUST',
    text: `with ${text} digests data is written and read, padding counted in`,
    async run(t, target) {
      const session = await Session.login(target, options);
      t.equal(session.connection.headerDigest, options !== data, 'header digest agreed on');
      t.equal(session.connection.dataDigest, options !== header, 'data digest agreed on');
      const bytes = pattern(16384, 21);
      const blocks = bytes.length / session.blockBytes;
      for (const immediateBytes of [0, 1024]) {
        const written = await session.execute({ cdb: write10(600, blocks), write: bytes, immediateBytes });
        t.equal(written.status, STATUS.GOOD);
      }
      const read = await session.execute({ cdb: read10(600, blocks), read: bytes.length });
      t.ok(read.data.equals(bytes));
      // Lengths that need padding: the digest of the target covers it (checked by the connection).
      for (const length of [5, 6, 7, 36]) {
        const outcome = await session.execute({ cdb: inquiry(length), read: length });
        t.equal(outcome.data.length, length);
      }
    },
  })),
  {
    id: 'DIG-04',
    clause: 'RFC 7143 §7.8',
    level: 'MUST',
    text: 'a wrong header digest ends the connection (error recovery level 0), nothing of the PDU is done',
    async run(t, target) {
      const session = await Session.login(target, header);
      session.sendCommand({ cdb: testUnitReady() }, { badHeaderDigest: true });
      const pdus = await session.connection.untilClosed();
      t.same(
        pdus.filter(({ opcode }) => opcode !== OP.ASYNC && opcode !== OP.REJECT),
        [],
      );
    },
  },
  {
    id: 'DIG-05',
    clause: 'RFC 7143 §7.8, §11.17.1',
    level: 'MUST',
    text: 'immediate data with a wrong digest is rejected (reason 2) or ends the connection, and is not written',
    async run(t, target) {
      const before = pattern(512, 31);
      const session = await Session.login(target, both);
      const blocks = Math.max(1, 512 / session.blockBytes);
      const length = blocks * session.blockBytes;
      const old = Buffer.alloc(length, before);
      await session.execute({ cdb: write10(700, blocks), write: old, immediateBytes: length });
      const bad = Buffer.alloc(length, 0xbd);
      session.sendCommand(
        { cdb: write10(700, blocks), write: bad, immediateBytes: length },
        { badDataDigest: true },
      );
      const pdu = await session.next();
      if (pdu !== undefined) {
        t.equal(pdu.opcode, OP.REJECT);
        t.equal(pdu.response, 2, 'data digest error');
      }
      const other = await Session.login(target, both);
      const read = await other.execute({ cdb: read10(700, blocks), read: length });
      t.ok(read.data.equals(old), 'the old data is there');
    },
  },
  {
    id: 'DIG-06',
    clause: 'RFC 7143 §7.8, §11.17.1',
    level: 'MUST',
    text: 'Data-Out with a wrong digest is rejected (reason 2) and its task fails, or the connection ends',
    async run(t, target) {
      const session = await Session.login(target, {
        keys: { ...both.keys, ImmediateData: 'No', InitialR2T: 'Yes' },
      });
      const { blockBytes } = session;
      const good = Buffer.alloc(blockBytes, 0x01);
      await session.execute({ cdb: write10(710, 1), write: good });
      const bad = Buffer.alloc(blockBytes, 0x02);
      const itt = session.sendCommand({ cdb: write10(710, 1), write: bad });
      const r2t = await session.expect(OP.R2T);
      session.connection.send(
        dataOut({
          itt,
          ttt: r2t.ttt,
          lun: session.lun,
          expStatSN: session.expStatSN,
          dataSN: 0,
          offset: 0,
          data: bad,
          final: true,
        }),
        { badDataDigest: true },
      );
      const pdu = await session.next();
      if (pdu !== undefined) {
        t.equal(pdu.opcode, OP.REJECT);
        t.equal(pdu.response, 2);
        const end = await session.next();
        if (end !== undefined) {
          t.equal(end.opcode, OP.SCSI_RESPONSE);
          t.not(end.scsiStatus, STATUS.GOOD);
        }
      }
      const other = await Session.login(target);
      const read = await other.execute({ cdb: read10(710, 1), read: blockBytes });
      t.ok(read.data.equals(good), 'the old data is there');
    },
  },
  {
    id: 'DIG-12',
    clause: 'RFC 7143 §7.8, §11.4.7.2',
    level: 'MUST',
    text: 'a write that ends since a Data-Out had a wrong digest is answered when the last of its data has come: protocol service CRC error',
    async run(t, target) {
      const session = await Session.login(target, {
        keys: { ...both.keys, ImmediateData: 'No', InitialR2T: 'Yes' },
      });
      const { blockBytes, lun } = session;
      const before = pattern(2 * blockBytes, 46);
      await session.execute({ cdb: write10(710, 2), write: before });
      const itt = session.sendCommand({ cdb: write10(710, 2), write: Buffer.alloc(2 * blockBytes) });
      const { ttt } = await session.expect(OP.R2T);
      const piece = (dataSN: number): Parameters<typeof dataOut>[0] => ({
        itt,
        ttt,
        lun,
        expStatSN: session.expStatSN,
        dataSN,
        offset: dataSN * blockBytes,
        data: Buffer.alloc(blockBytes, 0xbb),
        final: dataSN === 1,
      });
      session.connection.send(dataOut(piece(0)), { badDataDigest: true });
      t.equal((await session.expect(OP.REJECT)).response, 2);
      t.same(await session.fence(), [], 'data are still to come');
      session.connection.send(dataOut(piece(1)));
      const response = await session.expect(OP.SCSI_RESPONSE);
      t.equal(response.itt, itt);
      t.equal(response.scsiStatus, STATUS.CHECK_CONDITION);
      t.equal(senseTriple(response.sense), '0b/47/05');
      const read = await session.execute({ cdb: read10(710, 2), read: before.length });
      t.ok(read.data.equals(before), 'nothing was written');
    },
  },
  {
    id: 'DIG-13',
    clause: 'RFC 7143 §7.8, §4.3',
    level: 'MUST',
    text: 'in a discovery session, too, a PDU with a wrong data digest is rejected (reason 2), takes no CmdSN, and may be sent again',
    async run(t, target) {
      const session = await Session.login(target, { ...both, discovery: true });
      t.ok(session.connection.dataDigest);
      const { cmdSN, expStatSN } = session;
      const request = textRequest({ itt: 0x78, cmdSN, expStatSN, data: Buffer.from('SendTargets=All\0') });
      session.connection.send(request, { badDataDigest: true });
      const reject = await session.expect(OP.REJECT);
      t.equal(reject.response, 2);
      t.equal(reject.expCmdSN, cmdSN);
      session.connection.send(request);
      t.match((await session.expect(OP.TEXT_RESPONSE)).data.toString(), target.iqn);
    },
  },
  {
    id: 'DIG-07',
    clause: 'RFC 7143 §11.2.3',
    level: 'MUST',
    text: 'the header digest covers the AHS',
    async run(t, target) {
      const session = await Session.login(target, both);
      const cdb = Buffer.alloc(32);
      cdb[0] = 0x7f;
      cdb[7] = 24;
      const outcome = await session.execute({ cdb });
      t.equal(outcome.status, STATUS.CHECK_CONDITION, 'understood, if not known');
      t.same(await session.fence(), []);
    },
  },
  {
    id: 'DIG-08',
    clause: 'RFC 7143 §11.2.3',
    level: 'MUST',
    text: 'PDUs with digests survive every way that TCP can cut them',
    async run(t, target) {
      const session = await Session.login(target, both);
      const { blockBytes } = session;
      const write = pattern(blockBytes, 41);
      for (let cut = 1; cut < 60; cut++) {
        const itt = session.nextTag();
        const pdu = session.commandPdu({ cdb: write10(720, 1), write, immediateBytes: blockBytes, itt });
        const bytes = encode(pdu, { headerDigest: true, dataDigest: true });
        await session.connection.writeSplit(bytes, [cut, bytes.length - (cut % 7) - 1]);
        const outcome = await session.finish(itt, { write });
        if (outcome.status !== STATUS.GOOD) t.fail(`cut at ${cut}`);
      }
      t.pass('all were executed');
    },
  },
  {
    id: 'DIG-09',
    clause: 'RFC 7143 §11.2.3, §11.1',
    level: 'MUST',
    text: 'padding of every length is counted in, each way, whatever its bytes are; NOP and text have digests like data',
    async run(t, target) {
      const session = await Session.login(target, both);
      for (let bytes = 1; bytes <= 9; bytes++) {
        for (const padByte of [0, 0xa5]) {
          const { cmdSN, expStatSN } = session;
          const data = pattern(bytes, 45);
          session.connection.send(nopOut({ itt: bytes, cmdSN, expStatSN, immediate: true, data }), {
            padByte,
          });
          const pdu = await session.expect(OP.NOP_IN);
          t.ok(pdu.data.equals(data), `${bytes} bytes, padded with ${padByte}`);
        }
      }
      const { keys } = await session.text({ 'X-org.example.abc': '12' });
      t.same(keys, [['X-org.example.abc', 'NotUnderstood']]);
    },
  },
  {
    id: 'DIG-10',
    clause: 'RFC 7143 §7.8',
    level: 'MUST',
    text: 'a PDU other than Data-Out with a wrong data digest is rejected (reason 2) with its header, not executed, and the session recovered',
    async run(t, target) {
      for (const kind of ['nop', 'text', 'command'] as const) {
        const session = await Session.login(target, both);
        const { cmdSN, expStatSN } = session;
        const data = Buffer.from('X-a=1\0');
        const numbers = { itt: 0x77, cmdSN, expStatSN };
        const pdu =
          kind === 'nop'
            ? nopOut({ ...numbers, data })
            : kind === 'text'
              ? textRequest({ ...numbers, data })
              : session.commandPdu({
                  cdb: write10(0, 1),
                  write: Buffer.alloc(512),
                  immediateBytes: 512,
                  itt: 0x77,
                });
        session.connection.send(pdu, { badDataDigest: true });
        const answers = await session.connection.untilClosed();
        t.equal(answers[0]?.opcode, OP.REJECT, kind);
        t.equal(answers[0]?.response, 2);
        t.equal(answers[0]?.data.readUInt32BE(16), 0x77, 'the header of the PDU comes back');
        t.notOk(
          answers.some(({ itt }) => itt === 0x77),
          'nothing was done',
        );
      }
      await Session.login(target);
    },
  },
  {
    id: 'DIG-11',
    clause: 'RFC 7143 §7.1.4, §13.1',
    level: 'MUST',
    text: 'digests begin with the full feature phase: the login itself has none, and each direction and segment goes by what was agreed',
    async run(t, target) {
      for (const [header, data] of [
        ['CRC32C', 'None'],
        ['None', 'CRC32C'],
        ['None,CRC32C', 'CRC32C,None'],
      ] as const) {
        const session = await Session.login(target, { keys: { HeaderDigest: header, DataDigest: data } });
        t.equal(session.agreed.get('HeaderDigest'), header.split(',')[0]);
        t.equal(session.agreed.get('DataDigest'), data.split(',')[0]);
        t.same(await session.fence(), []);
      }
    },
  },
];
