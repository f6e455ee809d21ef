/**
 * A seeded fuzzer that knows the structure of PDUs: streams of well-formed requests, most of them damaged in one field,
 * on connections that begin with a good login, a damaged one, or none.
 */
import { PATIENCE_MS } from './connection.js';
import {
  ahs,
  dataOut,
  encode,
  logoutRequest,
  nopOut,
  OP,
  type Pdu,
  snack,
  taskManagement,
  textRequest,
} from './pdu.js';
import { inquiry, read10, reportLuns, testUnitReady, write10 } from './scsi.js';
import { Session, type SessionOptions } from './session.js';
import type { Target } from './target.js';

export interface FuzzReport {
  pdus: number;
  connections: number;
}

const PDUS_PER_CONNECTION = 64;
/** More cold resets than that do not wait in one connection that is gone. */
const LOGIN_ATTEMPTS = 4;
/** One PDU in so many is followed by pings for the numbers that may be missing. */
const PLUG_EVERY = 8;
const PLUGGED = 12;
/** Offsets of the basic header segment that decide most: opcode, flags, lengths, LUN, tags, numbers, CDB. */
const HOT_OFFSETS = [0, 1, 4, 5, 6, 7, 9, 16, 20, 24, 27, 28, 32, 36, 40, 44] as const;
const NASTY_BYTES = [0, 1, 0x7f, 0x80, 0xfe, 0xff] as const;

/** Behind the tags that requests have. */
const PING_TAG = 32;

/** What good logins agree on: the ways in which data and aborts can go. */
const NEGOTIATED: readonly Record<string, string>[] = [
  {},
  { InitialR2T: 'No', ImmediateData: 'Yes', MaxBurstLength: '4096', FirstBurstLength: '2048' },
  { InitialR2T: 'No', DataPDUInOrder: 'No', DataSequenceInOrder: 'No', MaxOutstandingR2T: '4' },
  { TaskReporting: 'FastAbort', iSCSIProtocolLevel: '2' },
];

/** Numbers from 0 to below `limit`, the same for the same seed (mulberry32). */
export function randomFrom(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit);
  };
}

/** Sends at least `pdus` of them. Throws if the target refuses a connection or is silent to a good login. */
export async function fuzz(target: Target, options: { seed: number; pdus: number }): Promise<FuzzReport> {
  const random = randomFrom(options.seed);
  const report: FuzzReport = { pdus: 0, connections: 0 };
  while (report.pdus < options.pdus) {
    const session =
      random(8) === 0
        ? await Session.connect(target)
        : await goodLogin(target, {
            keepUnitAttention: random(2) === 0,
            keys: NEGOTIATED[random(NEGOTIATED.length)] ?? {},
          });
    report.connections++;
    const { connection } = session;
    // Answers are of no interest, but have to be taken, or the target would rightly stop reading.
    connection.socket.removeAllListeners('data').resume();
    for (let n = 0; n < PDUS_PER_CONNECTION && connection.socket.writable; n++) {
      connection.write(damaged(request(session, random), random));
      report.pdus++;
      if (random(PLUG_EVERY) === 0) plug(session);
      if (random(16) === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await drained(session);
    if (random(2) === 0) connection.socket.resetAndDestroy();
    else connection.destroy();
    target.sessions.length = 0;
  }
  return report;
}

/**
 * A good login has to succeed. A TARGET COLD RESET among the requests of the connection before, which the target may come
 * to only now, ends it by the book (RFC 7143 §11.5.1): then the next one has to.
 */
async function goodLogin(target: Target, options: SessionOptions): Promise<Session> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await Session.login(target, options);
    } catch (error) {
      if (attempt === LOGIN_ATTEMPTS) throw error;
    }
  }
}

/**
 * A request that is rejected, or too damaged to be one, leaves a gap in CmdSN (RFC 7143 §7.3), and what follows would never be
 * executed. Pings with the last numbers fill the gaps, whichever they are: of those that were received they are ignored.
 */
function plug({ cmdSN, expStatSN, connection }: Session): void {
  for (let back = PLUGGED; back > 0; back--)
    connection.send(nopOut({ itt: PING_TAG, cmdSN: (cmdSN - back) >>> 0, expStatSN }));
}

/** Until the target has taken what was sent, or has had enough. */
async function drained({ connection: { socket } }: Session): Promise<void> {
  if (!socket.writable) return;
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('the target stopped reading')), PATIENCE_MS * 4);
    const done = (): void => {
      clearTimeout(timer);
      resolve();
    };
    socket.once('close', done);
    socket.write('', done);
  });
}

function request(session: Session, random: (limit: number) => number): Pdu {
  const { expStatSN } = session;
  const immediate = random(4) === 0;
  const numbers = (): { itt: number; cmdSN: number; expStatSN: number; immediate: boolean } => ({
    itt: random(32),
    cmdSN: immediate ? session.cmdSN : session.takeCmdSN(),
    expStatSN,
    immediate,
  });
  const data = Buffer.alloc(random(3) === 0 ? 0 : random(2048), random(256));
  const lba = random(64);
  switch (random(9)) {
    case 0:
      return nopOut({ ...numbers(), data });
    case 1:
      return textRequest({ ...numbers(), more: random(3) === 0, final: random(2) === 0, data });
    case 2:
      return taskManagement({ ...numbers(), function: random(16), referencedTag: random(32) });
    case 3:
      return snack({ type: random(4), itt: random(32), expStatSN, begin: random(4), run: random(4) });
    case 4:
      return dataOut({ itt: random(32), expStatSN, dataSN: random(4), offset: random(4096), data, final: random(2) === 0 }); // prettier-ignore
    case 5:
      return random(8) === 0 ? logoutRequest({ ...numbers(), reason: random(4) }) : nopOut(numbers());
    case 6:
      return session.commandPdu({
        cdb: write10(lba, 4),
        write: Buffer.alloc(4 * session.blockBytes),
        final: random(3) > 0,
      });
    case 7:
      return session.commandPdu({ cdb: read10(lba, 1 + random(64)), read: random(65_536) });
    default: {
      const cdb = [testUnitReady(), inquiry(255), reportLuns(256)][random(3)] ?? testUnitReady();
      return session.commandPdu({ cdb, read: random(512) });
    }
  }
}

/** The bytes of the request, one time in three as they should be. */
function damaged(pdu: Pdu, random: (limit: number) => number): Buffer {
  const nasty = (): number => NASTY_BYTES[random(NASTY_BYTES.length)] ?? 0;
  switch (random(9)) {
    case 0:
      pdu.u8(HOT_OFFSETS[random(HOT_OFFSETS.length)] ?? 0, nasty());
      break;
    case 1:
      pdu.u8(random(48), random(256));
      break;
    case 2:
      pdu.ahs = ahs(random(4), Buffer.alloc(random(24), nasty()), random(3) === 0 ? 0 : random(0x10000));
      break;
    case 3:
      return encode(pdu, { dataSegmentLength: random(8) === 0 ? random(0x1000000) : random(4096) });
    case 4:
      return encode(pdu).subarray(0, 1 + random(48));
    case 5:
      // A login in the midst of a session.
      pdu.u8(0, OP.LOGIN | 0x40);
      break;
    default:
  }
  return encode(pdu);
}
