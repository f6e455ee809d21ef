/** A session of the raw initiator: numbering, login, and whole commands for the tests that are about something else. */
import { Connection } from './connection.js';
import { decodeKeys, encodeKeys, valuesOf, type Keys } from './keys.js';
import {
  COMMAND,
  dataOut,
  isid,
  loginRequest,
  logoutRequest,
  nopOut,
  NO_TAG,
  OP,
  scsiCommand,
  STAGE,
  taskManagement,
  textRequest,
  type EncodeOptions,
  type LoginFields,
  type Pdu,
} from './pdu.js';
import { readCapacity10, STATUS, testUnitReady } from './scsi.js';
import type { Target } from './target.js';

export const INITIATOR_NAME = 'iqn.2026-01.org.example:raw-initiator';

export interface LoginAnswer {
  pdu: Pdu;
  keys: [string, string][];
}

export interface Command {
  cdb: Buffer;
  lun?: number;
  /** Bytes of Data-In that the initiator takes, Data-Out that it has. They set the R and W bits. */
  read?: number;
  write?: Buffer;
  /** Expected Data Transfer Length, if not `read` or the length of `write`. */
  edtl?: number;
  /** Of `write`, sent with the command. */
  immediateBytes?: number;
  /** F bit; by default set unless unsolicited Data-Out follows. */
  final?: boolean;
  attribute?: number;
  immediate?: boolean;
  itt?: number;
  cmdSN?: number;
}

export interface Outcome {
  /** SCSI status, from the SCSI Response or the Data-In that carried it. */
  status: number;
  data: Buffer;
  overflow: boolean;
  underflow: boolean;
  residual: number;
  sense: Buffer;
  /** Everything received for the task, the last one ends it. */
  pdus: Pdu[];
  r2ts: Pdu[];
}

export interface ManageOptions {
  lun?: number;
  referencedTag?: number;
  refCmdSN?: number;
  expDataSN?: number;
}

export interface SessionOptions {
  initiatorName?: string;
  targetName?: string;
  isid?: Buffer;
  tsih?: number;
  cid?: number;
  cmdSN?: number;
  /** For the connection that the login takes the place of. */
  expStatSN?: number;
  keys?: Record<string, string>;
  discovery?: boolean;
  /** Leave the unit attention of the new nexus where it is. */
  keepUnitAttention?: boolean;
}

export class Session {
  readonly connection: Connection;
  /** LUN of the disk that commands go to unless they name another. */
  readonly lun: number;
  cmdSN = 1;
  /** As negotiated or declared by the target (RFC 7143 §13), by key. */
  readonly agreed = new Map<string, string>();
  tsih = 0;
  isid: Buffer = isid(1);
  /** Event 2 is passed over: the test itself has broken the other connection (RFC 7143 §7.1.4.3). */
  knowsOfLosses = false;
  blockBytes = 512;
  #itt = 100;
  /** PDUs of tasks that `finish` was not asked for yet. */
  readonly #aside = new Map<number, Pdu[]>();

  static async connect(target: Target): Promise<Session> {
    const session = new Session(await Connection.open(target.host, target.port, target.from), target.lun);
    target.sessions.push(session);
    return session;
  }

  /** Connects and logs in without authentication; throws unless the target lets it in. */
  static async login(target: Target, options: SessionOptions = {}): Promise<Session> {
    const session = await Session.connect(target);
    await session.enter(target, options);
    return session;
  }

  private constructor(connection: Connection, lun: number) {
    this.connection = connection;
    this.lun = lun;
  }

  /** What is acknowledged to the target; undefined: everything that came. */
  acknowledged: number | undefined;

  get expStatSN(): number {
    return this.acknowledged ?? this.connection.rules.expStatSN ?? 0;
  }
  nextTag(): number {
    return this.#itt++;
  }
  takeCmdSN(): number {
    const cmdSN = this.cmdSN;
    this.cmdSN = (cmdSN + 1) >>> 0;
    return cmdSN;
  }
  number(key: string, standard: number): number {
    return Number(this.agreed.get(key) ?? standard);
  }

  // ---- login

  /** Sends one Login Request and returns the response; a Login Response is demanded. */
  async loginStep(fields: LoginFields, keys: Keys = []): Promise<LoginAnswer> {
    this.sendLogin(fields, keys);
    return this.loginAnswer();
  }

  sendLogin(fields: LoginFields, keys: Keys = []): void {
    const data = fields.data ?? encodeKeys(keys);
    this.connection.send(
      loginRequest({ isid: this.isid, cmdSN: this.cmdSN, expStatSN: this.expStatSN, ...fields, data }),
    );
  }

  async loginAnswer(): Promise<LoginAnswer> {
    const pdu = await this.expect(OP.LOGIN_RESPONSE);
    return { pdu, keys: decodeKeys(pdu.data) };
  }

  /** From a fresh connection to the full feature phase, operational negotiation only. */
  async enter(target: Target, options: SessionOptions = {}): Promise<LoginAnswer> {
    this.isid = options.isid ?? target.freshIsid();
    this.cmdSN = options.cmdSN ?? 1;
    const fields = {
      transit: true,
      csg: STAGE.OPERATIONAL,
      nsg: STAGE.FULL_FEATURE,
      isid: this.isid,
      tsih: options.tsih ?? 0,
      cid: options.cid ?? 0,
      ...(options.expStatSN === undefined ? {} : { expStatSN: options.expStatSN }),
    };
    const offered = { ...options.keys };
    if (offered['MaxRecvDataSegmentLength'] !== undefined) {
      this.connection.maxRecvDataSegmentBytes = Number(offered['MaxRecvDataSegmentLength']);
    }
    let answer = await this.loginStep(fields, {
      InitiatorName: options.initiatorName ?? INITIATOR_NAME,
      SessionType: options.discovery ? 'Discovery' : 'Normal',
      ...(options.discovery ? {} : { TargetName: options.targetName ?? target.iqn }),
      ...offered,
    });
    for (let round = 0; ; round++) {
      if (answer.pdu.loginStatus !== 0) {
        throw new Error(`login refused: ${answer.pdu.loginStatus.toString(16).padStart(4, '0')}h`);
      }
      const reply: Record<string, string> = {};
      for (const [key, value] of answer.keys) {
        this.agreed.set(key, value);
        // What the target offers of its own is accepted.
        if (!(key in offered) && NEGOTIATED.has(key)) reply[key] = value;
      }
      if (answer.pdu.final && answer.pdu.nsg === STAGE.FULL_FEATURE) break;
      if (round > 4) throw new Error('login does not come to an end');
      answer = await this.loginStep(fields, reply);
    }
    await this.accepted(answer, options);
    return answer;
  }

  /** The last response of a login: takes over what it says. Keys that are asked for follow as a text negotiation. */
  async accepted(answer: LoginAnswer, options: SessionOptions = {}): Promise<void> {
    this.tsih = answer.pdu.tsih;
    this.connection.headerDigest = this.agreed.get('HeaderDigest') === 'CRC32C';
    this.connection.dataDigest = this.agreed.get('DataDigest') === 'CRC32C';
    this.connection.rules.recovers = this.number('ErrorRecoveryLevel', 0) > 0;
    this.connection.rules.protocolLevel = this.number('iSCSIProtocolLevel', 1);
    if (!options.discovery && !options.keepUnitAttention) await this.settle();
  }

  /** Takes the unit attentions of the new nexus and learns the block size. */
  async settle(): Promise<void> {
    for (let attempt = 0; attempt < 8; attempt++) {
      if ((await this.execute({ cdb: testUnitReady() })).status === STATUS.GOOD) break;
    }
    const capacity = await this.execute({ cdb: readCapacity10(), read: 8 });
    if (capacity.status !== STATUS.GOOD) throw new Error('READ CAPACITY fails');
    this.blockBytes = capacity.data.readUInt32BE(4);
  }

  // ---- receiving

  /** The next PDU, which must have this opcode. Pings of the target are answered on the way. */
  async expect(opcode: number, patienceMs?: number): Promise<Pdu> {
    const pdu = await this.next(patienceMs);
    if (pdu === undefined) throw new Error(`the target closed instead of sending ${opcode.toString(16)}h`);
    if (pdu.opcode !== opcode) {
      const reason = pdu.opcode === OP.REJECT ? ` (reason ${pdu.response})` : '';
      throw new Error(`expected PDU ${opcode.toString(16)}h, got ${pdu.opcode.toString(16)}h${reason}`);
    }
    return pdu;
  }

  /** The next PDU that is no ping; undefined if the target closed. */
  async next(patienceMs?: number): Promise<Pdu | undefined> {
    for (;;) {
      const pdu = await this.connection.receive(patienceMs);
      if (this.knowsOfLosses && pdu?.opcode === OP.ASYNC && pdu.asyncEvent === 2) continue;
      if (pdu?.opcode !== OP.NOP_IN || pdu.itt !== NO_TAG) return pdu;
      // Without a tag it only tells the window (RFC 7143 §11.19).
      if (pdu.ttt === NO_TAG) continue;
      this.connection.send(
        nopOut({
          itt: NO_TAG,
          ttt: pdu.ttt,
          immediate: true,
          cmdSN: this.cmdSN,
          expStatSN: this.expStatSN,
        }).bytes(8, pdu.bhs.subarray(8, 16)),
      );
    }
  }

  /** Pings the target and returns what it sent before the answer: proof of what it did not send. */
  async fence(): Promise<Pdu[]> {
    const itt = this.nextTag();
    this.connection.send(nopOut({ itt, immediate: true, cmdSN: this.cmdSN, expStatSN: this.expStatSN }));
    const before: Pdu[] = [];
    for (;;) {
      const pdu = await this.next();
      if (pdu === undefined) throw new Error('the target closed instead of answering a ping');
      if (pdu.opcode === OP.NOP_IN && pdu.itt === itt) return before;
      before.push(pdu);
    }
  }

  // ---- commands

  /** Sends a SCSI Command and returns its tag. */
  sendCommand(command: Command, options: EncodeOptions = {}): number {
    const itt = command.itt ?? this.nextTag();
    this.connection.send(this.commandPdu({ ...command, itt }), options);
    return itt;
  }

  commandPdu(command: Command): Pdu {
    const { read, write, immediate } = command;
    const flags =
      ((command.final ?? true) ? COMMAND.FINAL : 0) |
      (read === undefined ? 0 : COMMAND.READ) |
      (write === undefined ? 0 : COMMAND.WRITE) |
      (command.attribute ?? COMMAND.SIMPLE);
    return scsiCommand({
      itt: command.itt ?? this.nextTag(),
      cmdSN: command.cmdSN ?? (immediate ? this.cmdSN : this.takeCmdSN()),
      expStatSN: this.expStatSN,
      immediate: immediate ?? false,
      flags,
      lun: command.lun ?? this.lun,
      edtl: command.edtl ?? write?.length ?? read ?? 0,
      cdb: command.cdb,
      data: write?.subarray(0, command.immediateBytes ?? 0) ?? Buffer.alloc(0),
    });
  }

  /** A whole command: R2Ts are answered by the book, Data-In is put together. */
  async execute(command: Command): Promise<Outcome> {
    const itt = this.sendCommand(command);
    return this.finish(itt, command);
  }

  /** Receives to the end of a task that was sent before. */
  async finish(itt: number, command: Pick<Command, 'read' | 'write'>): Promise<Outcome> {
    const data = Buffer.alloc(command.read ?? 0);
    const outcome: Outcome = {
      status: -1,
      data,
      overflow: false,
      underflow: false,
      residual: 0,
      sense: Buffer.alloc(0),
      pdus: [],
      r2ts: [],
    };
    let received = 0;
    for (;;) {
      const pdu = this.#aside.get(itt)?.shift() ?? (await this.next());
      if (pdu === undefined) throw new Error('the target closed during a command');
      if (pdu.opcode === OP.REJECT) throw new Error(`the target rejected a PDU: reason ${pdu.response}`);
      if (pdu.itt !== itt) {
        // Tasks may end in any order: what belongs to another one is kept for its own call.
        this.#aside.set(pdu.itt, [...(this.#aside.get(pdu.itt) ?? []), pdu]);
        continue;
      }
      outcome.pdus.push(pdu);
      if (pdu.opcode === OP.R2T) {
        outcome.r2ts.push(pdu);
        this.answerR2T(pdu, command.write ?? Buffer.alloc(0));
      } else if (pdu.opcode === OP.DATA_IN) {
        pdu.data.copy(data, pdu.bufferOffset);
        received = Math.max(received, pdu.bufferOffset + pdu.data.length);
      }
      if (pdu.opcode === OP.SCSI_RESPONSE || (pdu.opcode === OP.DATA_IN && (pdu.flags & 1) !== 0)) {
        outcome.status = pdu.scsiStatus;
        outcome.overflow = (pdu.flags & 4) !== 0;
        outcome.underflow = (pdu.flags & 2) !== 0;
        outcome.residual = pdu.residual;
        outcome.data = data.subarray(0, received);
        if (pdu.opcode === OP.SCSI_RESPONSE) outcome.sense = pdu.sense;
        return outcome;
      }
    }
  }

  /** Sends the data that one R2T asks for, in pieces of the target's MaxRecvDataSegmentLength. */
  answerR2T(r2t: Pdu, all: Buffer): void {
    const pieceBytes = this.number('MaxRecvDataSegmentLength', 8192);
    const end = r2t.bufferOffset + r2t.desiredLength;
    for (let offset = r2t.bufferOffset, dataSN = 0; offset < end; offset += pieceBytes, dataSN++) {
      const pieceEnd = Math.min(end, offset + pieceBytes);
      this.connection.send(
        dataOut({
          itt: r2t.itt,
          ttt: r2t.ttt,
          expStatSN: this.expStatSN,
          dataSN,
          offset,
          data: all.subarray(offset, pieceEnd),
          final: pieceEnd === end,
        }).bytes(8, r2t.bhs.subarray(8, 16)),
      );
    }
  }

  async manage(fn: number, options: ManageOptions = {}): Promise<Pdu> {
    this.sendManage(fn, options);
    return this.expect(OP.TASK_MANAGEMENT_RESPONSE);
  }

  sendManage(fn: number, options: ManageOptions = {}): number {
    const itt = this.nextTag();
    this.connection.send(
      taskManagement({
        function: fn,
        itt,
        cmdSN: this.cmdSN,
        expStatSN: this.expStatSN,
        lun: this.lun,
        ...options,
      }),
    );
    return itt;
  }

  /** One Text Request and its response. */
  async text(
    keys: Keys,
    options: { ttt?: number; final?: boolean; more?: boolean; itt?: number } = {},
  ): Promise<LoginAnswer> {
    const itt = options.itt ?? this.nextTag();
    this.connection.send(
      textRequest({
        itt,
        cmdSN: this.takeCmdSN(),
        expStatSN: this.expStatSN,
        ...options,
        data: encodeKeys(keys),
      }),
    );
    const pdu = await this.expect(OP.TEXT_RESPONSE);
    return { pdu, keys: pdu.continues ? [] : decodeKeys(pdu.data) };
  }

  async logout(reason = 0, cid = 0): Promise<Pdu> {
    this.connection.send(
      logoutRequest({
        itt: this.nextTag(),
        cmdSN: this.cmdSN,
        expStatSN: this.expStatSN,
        immediate: true,
        reason,
        cid,
      }),
    );
    return this.expect(OP.LOGOUT_RESPONSE);
  }
}

/** The one value of a key in a target's answer; throws if it is missing or repeated. */
export function only(answer: LoginAnswer, key: string): string {
  const values = valuesOf(answer.keys, key);
  if (values.length !== 1)
    throw new Error(`${key} stands ${values.length} times in ${JSON.stringify(answer.keys)}`);
  return values[0] ?? '';
}

/** Keys that want an answer when the target offers them; the others are declarations. */
const NEGOTIATED = new Set([
  'HeaderDigest',
  'DataDigest',
  'MaxConnections',
  'InitialR2T',
  'ImmediateData',
  'MaxBurstLength',
  'FirstBurstLength',
  'DefaultTime2Wait',
  'DefaultTime2Retain',
  'MaxOutstandingR2T',
  'DataPDUInOrder',
  'DataSequenceInOrder',
  'ErrorRecoveryLevel',
]);
