/**
 * What must hold for every PDU that a target sends, whatever the test is about: reserved fields are zero (an
 * uninitialised byte shows here), padding is zero, StatSN counts without gaps, ExpCmdSN and MaxCmdSN never go back.
 */
import { NO_TAG, OP, type Pdu } from './pdu.js';

const CHECK_CONDITION = 2;

/** Reserved bits of byte 1 and reserved byte ranges (first, end) by opcode (RFC 7143 §11.4 to §11.19). */
const RESERVED: Readonly<Record<number, { flags: number; ranges: readonly (readonly [number, number])[] }>> =
  {
    [OP.NOP_IN]: {
      flags: 0x7f,
      ranges: [
        [2, 4],
        [36, 48],
      ],
    },
    [OP.SCSI_RESPONSE]: {
      flags: 0x61,
      ranges: [
        [8, 10],
        [10, 16],
      ],
    },
    [OP.TASK_MANAGEMENT_RESPONSE]: {
      flags: 0x7f,
      ranges: [
        [3, 4],
        [8, 11],
        [11, 16],
        [20, 24],
        [36, 48],
      ],
    },
    [OP.LOGIN_RESPONSE]: {
      flags: 0x30,
      ranges: [
        [20, 24],
        [38, 48],
      ],
    },
    [OP.TEXT_RESPONSE]: {
      flags: 0x3f,
      ranges: [
        [2, 4],
        [36, 48],
      ],
    },
    [OP.DATA_IN]: { flags: 0x38, ranges: [[2, 3]] },
    [OP.LOGOUT_RESPONSE]: {
      flags: 0x7f,
      ranges: [
        [3, 4],
        [8, 16],
        [20, 24],
        [36, 40],
        [44, 48],
      ],
    },
    [OP.R2T]: { flags: 0x7f, ranges: [[2, 4]] },
    [OP.ASYNC]: {
      flags: 0x7f,
      ranges: [
        [2, 4],
        [20, 24],
        [44, 48],
      ],
    },
    [OP.REJECT]: {
      flags: 0x7f,
      ranges: [
        [3, 4],
        [8, 16],
        [20, 24],
        [40, 48],
      ],
    },
  };

/** True if `a` comes after `b` in the 32-bit serial arithmetic of RFC 1982, which RFC 7143 §4.2.2.1 prescribes. */
export const serialAfter = (a: number, b: number): boolean => a !== b && (a - b) >>> 0 < 0x80000000;

export class WireRules {
  readonly violations: string[] = [];
  /** Next StatSN that the target has to use; undefined until its first answer. */
  expStatSN: number | undefined;
  /** Sessions that reached protocol level 2 get a status qualifier, and additional response information (RFC 7144). */
  protocolLevel = 1;
  /** At error recovery level 1 and above a status may come again; then Data-In carry none. */
  recovers = false;
  #expCmdSN: number | undefined;
  #maxCmdSN: number | undefined;

  /** Looks at one received PDU. */
  check(pdu: Pdu): void {
    this.#reserved(pdu);
    this.#statSN(pdu);
    if (pdu.opcode === OP.LOGIN_RESPONSE && pdu.loginStatus !== 0) return;
    if (this.#expCmdSN !== undefined && serialAfter(this.#expCmdSN, pdu.expCmdSN)) {
      this.#add(pdu, `ExpCmdSN went back from ${this.#expCmdSN} to ${pdu.expCmdSN} (§4.2.2.1)`);
    }
    if (this.#maxCmdSN !== undefined && serialAfter(this.#maxCmdSN, pdu.maxCmdSN)) {
      this.#add(pdu, `MaxCmdSN went back from ${this.#maxCmdSN} to ${pdu.maxCmdSN} (§4.2.2.1)`);
    }
    this.#expCmdSN = pdu.expCmdSN;
    this.#maxCmdSN = pdu.maxCmdSN;
    if (serialAfter((pdu.expCmdSN - 1) >>> 0, pdu.maxCmdSN)) {
      this.#add(pdu, `MaxCmdSN ${pdu.maxCmdSN} is below ExpCmdSN ${pdu.expCmdSN} - 1 (§4.2.2.1)`);
    }
  }

  #reserved(pdu: Pdu): void {
    const rule = RESERVED[pdu.opcode];
    if (rule === undefined) {
      this.#add(pdu, 'is not an opcode of a target (§11.2.1.2)');
      return;
    }
    if ((pdu.flags & rule.flags) !== 0)
      this.#add(pdu, `has reserved bits in byte 1: ${hex(pdu.flags)} (§2.4)`);
    if (pdu.totalAhsLength !== 0) this.#add(pdu, 'has an AHS (§11.2.2)');
    const ranges = [...rule.ranges, ...reservedHere(pdu, this.recovers)];
    for (const [from, end] of ranges) {
      const allowed =
        this.protocolLevel >= 2 &&
        ((pdu.opcode === OP.SCSI_RESPONSE && from === 8) ||
          (pdu.opcode === OP.TASK_MANAGEMENT_RESPONSE && from === 8));
      if (!allowed && pdu.bhs.subarray(from, end).some((byte) => byte !== 0)) {
        this.#add(
          pdu,
          `has reserved bytes ${from}..${end - 1} = ${pdu.bhs.subarray(from, end).toString('hex')} (§2.4)`,
        );
      }
    }
    if ((pdu.opcode === OP.TEXT_RESPONSE || pdu.opcode === OP.LOGIN_RESPONSE) && pdu.continues && pdu.final)
      this.#add(pdu, 'continues and ends (§11.11.2, §11.13.7)');
    if (pdu.opcode === OP.NOP_IN && pdu.itt === NO_TAG && pdu.data.length > 0)
      this.#add(pdu, 'has data, though nobody asked for it (§11.19)');
    if (pdu.opcode === OP.SCSI_RESPONSE && pdu.scsiStatus === CHECK_CONDITION && pdu.sense.length === 0)
      this.#add(pdu, 'has CHECK CONDITION without sense data (§11.4.7)');
    if (pdu.opcode === OP.R2T && pdu.desiredLength === 0) this.#add(pdu, 'asks for nothing (§11.8.4)');
    if (pdu.opcode === OP.R2T && pdu.ttt === NO_TAG) this.#add(pdu, 'has no TTT (§11.8.5)');
    if ((pdu.opcode === OP.REJECT || pdu.opcode === OP.ASYNC) && pdu.itt !== NO_TAG) {
      this.#add(pdu, 'does not carry the reserved ITT (§11.9, §11.17)');
    }
  }

  #statSN(pdu: Pdu): void {
    if (pdu.opcode === OP.DATA_IN && (pdu.flags & 1) === 0) return;
    const waiting = pdu.opcode === OP.R2T || (pdu.opcode === OP.NOP_IN && pdu.itt === NO_TAG);
    if (this.recovers && this.expStatSN !== undefined && serialAfter(this.expStatSN, pdu.statSN)) return;
    if (this.expStatSN !== undefined && pdu.statSN !== this.expStatSN) {
      // A failed login may end before numbering begins (RFC 7143 §11.13.4).
      if (!(pdu.opcode === OP.LOGIN_RESPONSE && pdu.loginStatus !== 0)) {
        this.#add(pdu, `StatSN ${pdu.statSN}, expected ${this.expStatSN} (§4.2.2.2)`);
      }
    }
    this.expStatSN = (pdu.statSN + (waiting ? 0 : 1)) >>> 0;
  }

  #add(pdu: Pdu, what: string): void {
    this.violations.push(`PDU ${hex(pdu.opcode)} ${what}`);
  }
}

/** Byte ranges that are reserved by what else the PDU says. */
function reservedHere(pdu: Pdu, recovers: boolean): [number, number][] {
  const { opcode, flags } = pdu;
  if (opcode === OP.DATA_IN) {
    const status: [number, number][] =
      (flags & 1) === 0
        ? [
            [3, 4],
            [24, 28],
            [44, 48],
          ]
        : [];
    // LUN and tag belong to the A bit (§11.7.4).
    return (flags & 0x40) === 0 ? [...status, [8, 16]] : status;
  }
  // §11.19.3
  if (opcode === OP.NOP_IN && pdu.ttt === NO_TAG) return [[8, 16]];
  // §11.10.4
  if (opcode === OP.TEXT_RESPONSE && pdu.final) return [[8, 16]];
  // §11.4.4, §11.4.6
  if (opcode === OP.SCSI_RESPONSE) {
    const bidirectional: [number, number][] = (flags & 0x18) === 0 ? [[40, 44]] : [];
    return recovers ? bidirectional : [...bidirectional, [20, 24]];
  }
  if (opcode === OP.ASYNC) return RESERVED_BY_EVENT[pdu.asyncEvent] ?? [];
  // §11.17.2
  if (opcode === OP.REJECT && (pdu.data.readUInt8(0) & 0x3f) !== OP.SNACK) return [[36, 40]];
  return [];
}

/** LUN, AsyncVCode and parameters of Asynchronous Messages (§11.9.1 to §11.9.3). */
const RESERVED_BY_EVENT: Readonly<Record<number, [number, number][]>> = {
  0: [[37, 44]],
  1: [
    [8, 16],
    [37, 42],
  ],
  2: [
    [8, 16],
    [37, 38],
  ],
  3: [
    [8, 16],
    [37, 40],
  ],
  4: [
    [8, 16],
    [37, 42],
  ],
  5: [[37, 44]],
};

const hex = (value: number): string => `${value.toString(16).padStart(2, '0')}h`;
