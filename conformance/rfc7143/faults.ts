/**
 * Faults that other targets and initiators are known to have had, each as a test: overflows by text and CHAP, bytes
 * that nobody wrote, offsets beyond the buffer, loops over empty lengths, hangs by logout and abort. The target asks
 * for CHAP, so that what may be sent before authentication is sent by a stranger.
 */
import { readFileSync } from 'node:fs';
import { chapLogin, fromElsewhere } from './chap.js';
import { encodeKeys } from './keys.js';
import { namesFor } from './login.js';
import {
  ahs,
  dataOut,
  encode,
  loginRequest,
  NO_TAG,
  nopOut,
  OP,
  STAGE,
  textRequest,
  type Pdu,
  TASK_FUNCTION,
} from './pdu.js';
import type { Requirement, Tap } from './requirement.js';
import { inquiry, read10, STATUS, testUnitReady, write10 } from './scsi.js';
import { Session, type SessionOptions } from './session.js';
import type { Target } from './target.js';
import { pattern } from './write.js';

const SOLICITED = { InitialR2T: 'Yes', ImmediateData: 'No' } as const;
/** Growth of the daemon that a fault of thousands of PDUs must not come near to. */
const GROWTH_KIB_MAX = 32 * 1024;

async function login(target: Target, options: SessionOptions = {}): Promise<Session> {
  const user = target.profile.chap;
  if (user === undefined) throw new Error('the target is to ask for CHAP');
  return chapLogin(target, user, '5', { keepUnitAttention: false, ...options });
}

function residentKib(target: Target): number {
  if (target.pid === undefined) return 0;
  const status = readFileSync(`/proc/${target.pid}/status`, 'utf8');
  return Number(/^VmRSS:\s*(\d+)/m.exec(status)?.[1] ?? 0);
}

/** Runs something twice and looks at what the second time leaves: the first one warms buffers and compiled code. */
async function growth(target: Target, run: () => Promise<void>): Promise<number> {
  await run();
  const before = residentKib(target);
  await run();
  return residentKib(target) - before;
}

async function alive(t: Tap, target: Target): Promise<void> {
  const session = await login(target);
  t.equal((await session.execute({ cdb: testUnitReady() })).status, STATUS.GOOD, 'a clean login right after');
}

/** A stranger's login up to CHAP. */
async function stranger(target: Target): Promise<Session> {
  const session = await Session.connect(fromElsewhere(target));
  session.isid = target.freshIsid();
  return session;
}

/** Keys that nobody knows. */
const many = (from: number, count: number): [string, string][] =>
  Array.from({ length: count }, (_, n) => [`X-org.example.key-${from + n}`, '1']);

const security = { transit: false, csg: STAGE.SECURITY } as const;
const needs = (target: Target): boolean => target.profile.chap !== undefined;

const rows: readonly Requirement[] = [
  {
    id: 'FAULT-01',
    clause: 'RFC 7143 §6.1, §7.7',
    level: 'ROBUST',
    text: 'text that overflows (iSNS and login parsers of others): keys and values of any length, without end, without NUL',
    async run(t, target) {
      const long = (bytes: number): string => 'x'.repeat(bytes);
      const texts = [
        Buffer.from(`${long(64)}=1\0`),
        Buffer.from(`${long(8000)}=1\0`),
        Buffer.from(`X-a=${long(8000)}\0`),
        Buffer.from(long(8192)),
        Buffer.from(`InitiatorName=${long(8000)}`),
        Buffer.from('=\0'.repeat(4096)),
        Buffer.from('\0'.repeat(8192)),
        Buffer.from(Uint8Array.from({ length: 8192 }, (_, at) => at & 0xff)),
      ];
      for (const text of texts) {
        const before = await stranger(target);
        before.sendLogin({ ...security, data: text });
        const answer = await before.connection.receive();
        t.ok(answer === undefined || answer.loginStatus >> 8 === 2, 'refused before authentication');
        const session = await login(target);
        const { expStatSN } = session;
        session.connection.send(textRequest({ itt: 5, cmdSN: session.takeCmdSN(), expStatSN, data: text }));
        const pdu = await session.next();
        t.ok(pdu === undefined || pdu.opcode === OP.REJECT || pdu.opcode === OP.TEXT_RESPONSE);
      }
      await alive(t, target);
    },
  },
  {
    id: 'FAULT-02',
    clause: 'RFC 7143 §6.1, §12.1.3',
    level: 'ROBUST',
    text: 'CHAP values of many kilobytes, in one PDU or continued over many, are refused, and the target lives',
    async run(t, target) {
      for (const value of [`0x${'ab'.repeat(3900)}`, `0b${'A'.repeat(7900)}`]) {
        for (const key of ['CHAP_R', 'CHAP_N', 'CHAP_A']) {
          const session = await stranger(target);
          await session.loginStep(security, { ...namesFor(target), AuthMethod: 'CHAP' });
          if (key !== 'CHAP_A') await session.loginStep(security, { CHAP_A: '5' });
          const others = { CHAP_N: 'user', CHAP_R: `0x${'00'.repeat(16)}`, CHAP_I: '1', CHAP_C: '0x1234' };
          session.sendLogin(security, key === 'CHAP_A' ? { [key]: value } : { ...others, [key]: value });
          const pdu = await session.connection.receive();
          t.ok(pdu === undefined || pdu.loginStatus >> 8 === 2, `${key} of ${value.length} characters`);
        }
      }
      const session = await stranger(target);
      await session.loginStep(security, { ...namesFor(target), AuthMethod: 'CHAP' });
      await session.loginStep(security, { CHAP_A: '5' });
      let refused = false;
      for (let n = 0; n < 40 && !refused; n++) {
        session.sendLogin({
          ...security,
          more: true,
          data: Buffer.from(n === 0 ? 'CHAP_R=0x' : 'a'.repeat(8000)),
        });
        const pdu = await session.connection.receive();
        refused = pdu === undefined || pdu.loginStatus >> 8 === 2;
      }
      t.ok(refused, 'continued without end');
      await alive(t, target);
    },
  },
  {
    id: 'FAULT-03',
    clause: 'RFC 7143 §11.1, §11.4.5',
    level: 'ROBUST',
    text: 'no byte that nobody wrote leaves the target: paddings, residuals, short answers, blocks never written',
    async run(t, target) {
      const session = await login(target);
      // Slabs full of other data first: what leaks would then be seen.
      const dirt = Buffer.alloc(64 * session.blockBytes, 0xee);
      await session.execute({ cdb: write10(0, 64), write: dirt });
      await session.execute({ cdb: read10(0, 64), read: dirt.length });
      for (let bytes = 0; bytes <= 97; bytes++) {
        const { data, residual, underflow, overflow } = await session.execute({
          cdb: inquiry(bytes),
          read: 255,
        });
        t.equal(data.length + residual, 255);
        t.ok(underflow && !overflow);
        t.notOk(data.includes(0xee), `INQUIRY of ${bytes} bytes`);
      }
      const failed = await session.execute({ cdb: read10(0xfffffff0, 1), read: 1001 });
      t.equal(failed.status, STATUS.CHECK_CONDITION);
      t.equal(failed.residual, 1001);
      t.notOk(failed.sense.includes(0xee));
      const fresh = await session.execute({ cdb: read10(60_000, 64), read: dirt.length });
      t.ok(fresh.data.equals(Buffer.alloc(dirt.length)), 'never written: zeros');
      // Paddings and reserved bytes are rules of the wire: see the end of each row.
    },
  },
  {
    id: 'FAULT-04',
    clause: 'RFC 7143 §11.7.6, §7.9',
    level: 'ROBUST',
    text: 'Data-Out whose offset lies beyond the buffer, or wraps around 2^32, writes nowhere',
    async run(t, target) {
      for (const offset of [512, 1024, 0x7ffffe00, 0x80000000, 0xfffffe00, 0xffffffff]) {
        const session = await login(target, { keys: SOLICITED });
        const before = pattern(session.blockBytes * 4, 90);
        await session.execute({ cdb: write10(100, 4), write: before });
        const itt = session.sendCommand({ cdb: write10(101, 1), write: Buffer.alloc(session.blockBytes) });
        const { ttt } = await session.expect(OP.R2T);
        const { expStatSN, lun } = session;
        const data = Buffer.alloc(session.blockBytes, 0xbd);
        session.connection.send(dataOut({ itt, ttt, lun, expStatSN, dataSN: 0, offset, data, final: true }));
        const pdu = await session.next();
        t.ok(
          pdu === undefined || pdu.opcode === OP.REJECT || pdu.scsiStatus !== STATUS.GOOD,
          `offset ${offset}`,
        );
        const other = await login(target);
        const read = await other.execute({ cdb: read10(100, 4), read: before.length });
        t.ok(read.data.equals(before), 'nothing was written');
      }
    },
  },
  {
    id: 'FAULT-05',
    clause: 'RFC 7143 §11.2.2.2',
    level: 'ROBUST',
    text: 'AHSs of length 0, as many as fit, cost no loop without end',
    async run(t, target) {
      const session = await login(target);
      const started = Date.now();
      for (let n = 0; n < 50; n++) {
        const pdu = session.commandPdu({ cdb: testUnitReady() });
        pdu.ahs = Buffer.concat(Array.from({ length: 255 }, () => ahs(1, Buffer.alloc(1), 0))).subarray(
          0,
          1020,
        );
        session.connection.send(pdu);
        const answer = await session.next();
        if (answer === undefined) break;
        t.ok(answer.opcode === OP.REJECT || answer.opcode === OP.SCSI_RESPONSE);
      }
      t.ok(Date.now() - started < 10_000);
      await alive(t, target);
    },
  },
  {
    id: 'FAULT-06',
    clause: 'RFC 7143 §11.10.2, §11.12.2',
    level: 'ROBUST',
    text: 'empty Text and Login Requests with C=1, by thousands, cost no memory',
    async run(t, target) {
      const grownKib = await growth(target, async () => {
        const session = await login(target);
        let ttt: number = NO_TAG;
        for (let n = 0; n < 1500; n++) {
          const { expStatSN } = session;
          const cmdSN = session.takeCmdSN();
          session.connection.send(
            textRequest({ itt: 7, cmdSN, expStatSN, ttt, final: false, more: true, data: Buffer.alloc(0) }),
          );
          const pdu = await session.next();
          if (pdu?.opcode !== OP.TEXT_RESPONSE) break;
          ttt = pdu.ttt;
        }
        session.connection.destroy();
        const stranded = await stranger(target);
        for (let n = 0; n < 1500; n++) {
          stranded.sendLogin({ ...security, more: true, data: Buffer.alloc(0) });
          const pdu = await stranded.connection.receive();
          if (pdu?.loginStatus !== 0) break;
        }
        stranded.connection.destroy();
      });
      t.ok(grownKib < GROWTH_KIB_MAX, `grew by ${grownKib} KiB`);
      await alive(t, target);
    },
  },
  {
    id: 'FAULT-07',
    clause: 'RFC 7143 §11.14.5',
    level: 'ROBUST',
    text: 'a logout while commands wait for data, or are in the midst of it, is answered at once',
    async run(t, target) {
      for (const part of [0, 512]) {
        const session = await login(target, { keys: SOLICITED });
        const data = Buffer.alloc(session.blockBytes * 4);
        for (let n = 0; n < 16; n++) {
          const itt = session.sendCommand({ cdb: write10(200 + 4 * n, 4), write: data });
          const { ttt } = await session.expect(OP.R2T);
          const { expStatSN, lun } = session;
          if (part > 0)
            session.connection.send(
              dataOut({
                itt,
                ttt,
                lun,
                expStatSN,
                dataSN: 0,
                offset: 0,
                data: data.subarray(0, part),
                final: false,
              }),
            );
        }
        t.equal((await session.logout(0)).response, 0);
        t.same(await session.connection.untilClosed(), []);
      }
      await alive(t, target);
    },
  },
  {
    id: 'FAULT-08',
    clause: 'RFC 7143 §11.5, §4.2.2.3',
    level: 'ROBUST',
    text: 'a storm of aborts and resets from several sessions at once: each is answered, and the target serves on',
    async run(t, target) {
      const sessions = await Promise.all([1, 2, 3, 4].map(() => login(target)));
      const storm = async (session: Session): Promise<void> => {
        const waiting = new Set<number>();
        for (let round = 0; round < 25; round++) {
          for (let n = 0; n < 8; n++) {
            const referencedTag = session.sendCommand({
              cdb: read10(n * 8, 8),
              read: 8 * session.blockBytes,
            });
            const refCmdSN = session.cmdSN - 1;
            waiting.add(session.sendManage(TASK_FUNCTION.ABORT_TASK, { referencedTag, refCmdSN }));
          }
          waiting.add(session.sendManage(TASK_FUNCTION.LOGICAL_UNIT_RESET));
          while (waiting.size > 0) {
            const pdu: Pdu | undefined = await session.next(20_000);
            if (pdu === undefined) throw new Error('closed in the storm');
            if (pdu.opcode === OP.TASK_MANAGEMENT_RESPONSE) t.ok(waiting.delete(pdu.itt), 'answered once');
          }
        }
      };
      await Promise.all(sessions.map(storm));
      for (const session of sessions) {
        await session.fence();
        await session.settle();
      }
    },
  },
  {
    id: 'FAULT-09',
    clause: 'RFC 7143 §6.2, §7.12',
    level: 'ROBUST',
    text: 'thousands of unknown keys make no answer that is many times as long: NotUnderstood is bounded, in login and text',
    async run(t, target) {
      const keys = encodeKeys(Array.from({ length: 1200 }, (_, at): [string, string] => [`X${at}`, '']));
      const before = await stranger(target);
      before.sendLogin({
        ...security,
        data: Buffer.concat([encodeKeys(namesFor(target)), keys]).subarray(0, 8000),
      });
      const answer = await before.connection.receive();
      t.ok(answer === undefined || answer.data.length <= 8192);
      const session = await login(target);
      let ttt: number = NO_TAG;
      let sent = 0;
      let received = 0;
      for (let n = 0; n < 64; n++) {
        const { expStatSN } = session;
        const cmdSN = session.takeCmdSN();
        session.connection.send(textRequest({ itt: 7, cmdSN, expStatSN, ttt, final: false, data: keys }));
        sent += keys.length;
        const pdu = await session.next();
        if (pdu?.opcode !== OP.TEXT_RESPONSE) break;
        received += pdu.data.length;
        ttt = pdu.ttt;
      }
      t.ok(received <= sent, `${received} bytes for ${sent}`);
      await alive(t, target);
    },
  },
  {
    id: 'FAULT-10',
    clause: 'RFC 7143 §11.18.3',
    level: 'ROBUST',
    text: 'a ping whose header claims more data than it has waits for it, and gives back no memory of others',
    async run(t, target) {
      const session = await login(target);
      const { cmdSN, expStatSN } = session;
      const ping = nopOut({ itt: 9, cmdSN, expStatSN, immediate: true, data: Buffer.alloc(16, 0x31) });
      const bytes = encode(ping, { dataSegmentLength: 4096 });
      session.connection.write(bytes);
      const other = await login(target);
      t.same(await other.fence(), []);
      session.connection.write(Buffer.alloc(4096 - 16, 0x32));
      const pdu = await session.expect(OP.NOP_IN);
      t.ok(pdu.data.equals(Buffer.concat([Buffer.alloc(16, 0x31), Buffer.alloc(4080, 0x32)])));
    },
  },
  {
    id: 'FAULT-11',
    clause: 'RFC 7143 §11.2.1.5, §11.2.1.6, §11.12',
    level: 'ROBUST',
    text: 'a Login Request that is shorter than it says, says more than there can be (FFFFFFh, in others negative), or has header segments does no harm before authentication',
    async run(t, target) {
      const data = encodeKeys(namesFor(target));
      const request = loginRequest({ ...security, isid: target.freshIsid(), data });
      for (const dataSegmentLength of [0xffffff, 0x800000, 8193, data.length + 1000, 0, 1]) {
        const before = await stranger(target);
        before.connection.write(encode(request, { dataSegmentLength }));
        before.connection.socket.end();
        for (const pdu of await before.connection.untilClosed())
          t.equal(pdu.opcode, OP.LOGIN_RESPONSE, `length ${dataSegmentLength}`);
      }
      for (const bytes of [1, 47, 48, 49]) {
        const before = await stranger(target);
        before.connection.write(encode(request).subarray(0, bytes));
        before.connection.socket.end();
        t.same(await before.connection.untilClosed(), [], `${bytes} bytes`);
      }
      for (const length of [0, 1, 0xffff]) {
        const before = await stranger(target);
        const pdu = loginRequest({ ...security, isid: target.freshIsid(), data });
        pdu.ahs = ahs(1, Buffer.alloc(1017, 0x41), length).subarray(0, 1020);
        before.connection.send(pdu);
        const answer = await before.connection.receive();
        t.ok(answer === undefined || answer.opcode === OP.LOGIN_RESPONSE, `AHSLength ${length}`);
      }
      await alive(t, target);
    },
  },
  {
    id: 'FAULT-12',
    clause: 'RFC 7143 §4.2.6, §6.3.4, §13.2',
    level: 'ROBUST',
    text: 'connections that join a session while others of it log out, break, and are reinstated leave their count right (use after free in others)',
    async run(t, target) {
      const lead = await login(target, { keys: { MaxConnections: '8' } });
      const most = Number(lead.agreed.get('MaxConnections'));
      t.ok(most > 2);
      const join = (cid: number): Promise<Session | undefined> =>
        login(target, {
          isid: lead.isid,
          tsih: lead.tsih,
          cid,
          cmdSN: lead.cmdSN,
          keepUnitAttention: true,
        }).catch(() => undefined);
      for (let round = 0; round < 12; round++) {
        // Two for each identifier: one takes the place of the other.
        const joined = await Promise.all([1, 1, 2, 2, 3].map((cid) => join(cid)));
        for (const [n, session] of joined.entries()) {
          if (session === undefined) continue;
          if (n % 2 === 0) session.connection.destroy();
          else session.connection.socket.end();
        }
        if (round % 3 === 0) t.ok([0, 1].includes((await lead.logout(1, 3)).response), 'logged out, or gone');
        t.same(await lead.fence(), [], 'the session goes on');
      }
      let gone = false;
      for (let attempt = 0; attempt < 200 && !gone; attempt++) {
        const filled = await Promise.all(Array.from({ length: most - 1 }, (_, n) => join(10 + n)));
        gone = filled.every((session) => session !== undefined);
        if (gone) t.ok((await join(30)) === undefined, 'one more than was agreed on');
        for (const session of filled) session?.connection.destroy();
        await lead.fence();
      }
      t.ok(gone, 'in the end there is room for all of them again');
      await alive(t, target);
    },
  },
  {
    id: 'FAULT-13',
    clause: 'RFC 7143 §6.1, §11.10.2, §11.12.2',
    level: 'ROBUST',
    text: 'text continued without end is refused at a bound, before authentication and after, and so is a list of keys without end',
    async run(t, target) {
      const grownKib = await growth(target, async () => {
        for (const piece of ['a'.repeat(8000), encodeKeys(many(0, 100)).toString('latin1')]) {
          const before = await stranger(target);
          before.sendLogin({ ...security, more: true, data: encodeKeys(namesFor(target)) });
          await before.expect(OP.LOGIN_RESPONSE);
          let sent = 0;
          for (; sent < 100; sent++) {
            before.sendLogin({
              ...security,
              more: true,
              data: Buffer.from(`X-${sent}=${piece}`.slice(0, 8192)),
            });
            const pdu = await before.connection.receive();
            if (pdu?.loginStatus !== 0) break;
          }
          t.ok(sent < 40, `before authentication after ${sent} PDUs`);
          const session = await login(target);
          let ttt: number = NO_TAG;
          let pdu: Pdu | undefined;
          for (sent = 0; sent < 100; sent++) {
            const numbers = { cmdSN: session.takeCmdSN(), expStatSN: session.expStatSN };
            session.connection.send(
              textRequest({ ...numbers, itt: 9, ttt, final: false, more: true, data: Buffer.from(piece) }),
            );
            pdu = await session.next();
            if (pdu?.opcode !== OP.TEXT_RESPONSE) break;
            ttt = pdu.ttt;
          }
          t.ok(sent < 100, `after it, after ${sent} PDUs`);
          session.connection.destroy();
        }
        const listed = await stranger(target);
        await listed.loginStep(security, namesFor(target));
        let rounds = 0;
        for (; rounds < 100; rounds++) {
          listed.sendLogin({ ...security, data: encodeKeys(many(rounds * 20, 20)) });
          const pdu = await listed.connection.receive();
          if (pdu?.loginStatus !== 0) break;
        }
        t.ok(rounds < 10, `keys without end are refused after ${rounds} requests`);
      });
      t.ok(grownKib < GROWTH_KIB_MAX, `grew by ${grownKib} KiB`);
      await alive(t, target);
    },
  },
];

export const faults: readonly Requirement[] = rows.map((row) => ({ ...row, needs }));
