/**
 * Negotiation of keys (RFC 7143 §6.2, §13): one resolver for every key of the table in keys.ts.
 *
 * A `Negotiation` lives as long as its connection. It answers what the initiator offers and holds the values in force.
 */
import { keyRule, KEYS, type KeyRule } from './keys.js';
import type { IscsiLimits } from './options.js';
import { parseNumber } from './text.js';

export type KeyValue = boolean | number | string;

/** Which login stage, or 'full-feature' for text requests. */
export type NegotiationStage = 'security' | 'operational' | 'full-feature';

/** Values in force, by their meaning; lengths in bytes. */
export interface Parameters {
  headerDigest: boolean;
  dataDigest: boolean;
  initialR2T: boolean;
  immediateData: boolean;
  maxBurstBytes: number;
  firstBurstBytes: number;
  maxOutstandingR2T: number;
  /** DataPDUInOrder, DataSequenceInOrder, and whether both hold. */
  pduInOrder: boolean;
  sequenceInOrder: boolean;
  dataInOrder: boolean;
  /** The initiator's MaxRecvDataSegmentLength: the longest data segment that this target may send. */
  maxSendDataSegmentBytes: number;
  taskReporting: string;
  /** DefaultTime2Wait: how long an initiator waits before it comes back. */
  time2WaitSeconds: number;
  /** DefaultTime2Retain: how long after that the tasks of a lost connection are kept (at level 2). */
  time2RetainSeconds: number;
  errorRecoveryLevel: number;
  protocolLevel: number;
}

/** The initiator broke a rule of negotiation that no answer can mend (§7.10): the login or session ends. */
export class NegotiationError extends Error {
  override readonly name = 'NegotiationError';
}

/** Answers that close a negotiation without a result, which nobody may propose (§6.2). */
const ANSWERS: ReadonlySet<string> = new Set(['NotUnderstood', 'Irrelevant', 'Reject']);

export class Negotiation {
  #limits: IscsiLimits;
  readonly #values = new Map<string, KeyValue>();
  /** Keys that the initiator sent in this negotiation: each may come once (§6.2). */
  readonly #seen = new Set<string>();
  /** What this target has declared of its own accord. */
  readonly #told = new Set<string>();
  /** Values of a text negotiation that is not over: they hold when it ends well, all of them, or never (§6.4). */
  readonly #changes = new Map<string, KeyValue>();
  discovery = false;
  /** False when the login joins a session that exists: its session-wide keys are settled (§13, "LO"). */
  #leading = true;

  constructor(limits: IscsiLimits) {
    this.#limits = limits;
    for (const rule of KEYS) if (rule.initial !== undefined) this.#values.set(rule.name, rule.initial);
  }

  /** The target that is asked for has wishes of its own. */
  prefer(limits: Partial<IscsiLimits>): void {
    this.#limits = { ...this.#limits, ...limits };
  }

  /** This connection joins a session: what that has negotiated for all its connections holds here too. */
  join(session: Negotiation | undefined): void {
    this.#leading = false;
    if (session === undefined) return;
    for (const rule of KEYS) {
      const value = session.#values.get(rule.name);
      if (rule.leadingOnly && rule.result !== 'declare' && value !== undefined)
        this.#values.set(rule.name, value);
    }
  }

  /** A text negotiation of the full feature phase begins, the one before is void: keys may be named again. */
  restart(): void {
    this.#seen.clear();
    this.#changes.clear();
  }

  /** A text negotiation has ended well. True if values have changed. */
  settle(): boolean {
    const changed = this.#changes.size > 0;
    for (const [name, value] of this.#changes) this.#values.set(name, value);
    this.restart();
    return changed;
  }

  /** This target declares a key, which the initiator may answer. */
  tell(name: string): void {
    this.#told.add(name);
  }

  /** What a key stands at; declared texts are undefined until they came. */
  value(name: string): KeyValue | undefined {
    return this.#values.get(name);
  }

  text(name: string): string | undefined {
    const value = this.#values.get(name);
    return typeof value === 'string' ? value : undefined;
  }

  /**
   * Takes one pair from the initiator and returns the value to answer with, or undefined for no answer.
   * Throws NegotiationError for what ends the negotiation.
   */
  offer(name: string, value: string, stage: NegotiationStage): string | undefined {
    const rule = keyRule(name);
    // An answer of the initiator to a declaration of ours needs no answer, and closes nothing that is open. What else it
    // could say is a failure: keys of the standard are understood by all (§6.2, §7.12).
    if (value === 'Irrelevant' && this.#told.has(name)) return undefined;
    this.propose(name, value);
    if (rule === undefined) return 'NotUnderstood';
    if (rule.sender === 'target') return 'Reject';
    if (!allowed(rule, stage)) {
      if (stage === 'full-feature' || rule.stages === 'security' || rule.stages === 'none') return 'Reject';
      throw new NegotiationError(`${name} does not belong to this stage`);
    }
    // §13.25 asks for Reject and allows No, which initiators of RFC 3720 that offer No are made for.
    if (rule.result === 'refuse') return rule.kind === 'boolean' && value === 'No' ? 'No' : 'Reject';
    if (rule.leadingOnly && !this.#leading && rule.result !== 'declare') return 'Reject';
    if (rule.normalOnly && this.discovery) return 'Irrelevant';
    if (name === 'FirstBurstLength' && this.#noUnsolicited()) return 'Irrelevant';
    if (rule.result !== 'declare') return this.#resolve(rule, value);
    return this.#declare(rule, value, stage === 'full-feature' ? this.#changes : this.#values);
  }

  /** Counts a proposal; throws NegotiationError if the key came before in this negotiation, or is a reserved word (§6.2). */
  propose(name: string, value: string): void {
    if (isReserved(keyRule(name), value))
      throw new NegotiationError(`a reserved word is proposed for ${name}`);
    if (this.#seen.has(name)) throw new NegotiationError(`${name} came twice`);
    if (this.#seen.size >= SEEN_MAX) throw new NegotiationError('too many keys');
    this.#seen.add(name);
  }

  #noUnsolicited(): boolean {
    return this.#values.get('InitialR2T') === true && this.#values.get('ImmediateData') === false;
  }

  /** §13.19: where data are recovered in order, only the last R2T can be. */
  #oneR2T(): boolean {
    return this.#values.get('ErrorRecoveryLevel') !== 0 && this.#values.get('DataSequenceInOrder') === true;
  }

  #declare(rule: KeyRule, value: string, into: Map<string, KeyValue>): string | undefined {
    if (rule.kind === 'text') {
      if (Buffer.byteLength(value) > TEXT_BYTES_MAX) return 'Reject';
      into.set(rule.name, value);
      return undefined;
    }
    const number = this.#numberInRange(rule, value);
    if (number === undefined) return 'Reject';
    into.set(rule.name, number);
    return undefined;
  }

  #numberInRange(rule: KeyRule, value: string): number | undefined {
    const number = parseNumber(value);
    if (number === undefined || rule.range === undefined) return undefined;
    return number < rule.range[0] || number > rule.range[1] ? undefined : number;
  }

  #resolve(rule: KeyRule, value: string): string | undefined {
    const wish = rule.wish?.(this.#limits);
    if (rule.kind === 'boolean') {
      if (value !== 'Yes' && value !== 'No') return 'Reject';
      const offered = value === 'Yes';
      const result = rule.result === 'or' ? offered || wish === true : offered && wish === true;
      this.#values.set(rule.name, result);
      return result ? 'Yes' : 'No';
    }
    if (rule.kind === 'number') {
      const offered = this.#numberInRange(rule, value);
      if (offered === undefined || typeof wish !== 'number') return 'Reject';
      let result = rule.result === 'minimum' ? Math.min(offered, wish) : Math.max(offered, wish);
      const { name } = rule;
      // Discovery needs no recovery (§7.4.1).
      if (name === 'ErrorRecoveryLevel' && this.discovery) result = 0;
      if (name === 'FirstBurstLength') result = Math.min(result, Number(this.#values.get('MaxBurstLength')));
      if (name === 'MaxOutstandingR2T' && this.#oneR2T()) result = 1;
      this.#values.set(name, result);
      return String(result);
    }
    const ours: readonly string[] = Array.isArray(wish) ? wish : [];
    // The initiator's order is its preference; the first that we know wins (§6.2.1).
    const chosen = value.split(',').find((item) => ours.includes(item));
    if (chosen === undefined) return 'Reject';
    this.#values.set(rule.name, chosen);
    return chosen;
  }

  /** The values in force, once the login is over or a text negotiation changed them. */
  parameters(): Parameters {
    const number = (name: string): number => Number(this.#values.get(name));
    const maxBurstBytes = number('MaxBurstLength');
    const pduInOrder = this.#values.get('DataPDUInOrder') === true;
    const sequenceInOrder = this.#values.get('DataSequenceInOrder') === true;
    return {
      headerDigest: this.#values.get('HeaderDigest') === 'CRC32C',
      dataDigest: this.#values.get('DataDigest') === 'CRC32C',
      initialR2T: this.#values.get('InitialR2T') === true,
      immediateData: this.#values.get('ImmediateData') === true,
      maxBurstBytes,
      // §13.14: FirstBurstLength must not exceed MaxBurstLength.
      firstBurstBytes: Math.min(number('FirstBurstLength'), maxBurstBytes),
      pduInOrder,
      sequenceInOrder,
      dataInOrder: pduInOrder && sequenceInOrder,
      maxOutstandingR2T: number('MaxOutstandingR2T'),
      maxSendDataSegmentBytes: number('MaxRecvDataSegmentLength'),
      time2WaitSeconds: number('DefaultTime2Wait'),
      time2RetainSeconds: number('DefaultTime2Retain'),
      errorRecoveryLevel: number('ErrorRecoveryLevel'),
      taskReporting: String(this.#values.get('TaskReporting')),
      protocolLevel: number('iSCSIProtocolLevel'),
    };
  }
}

/** Longest value of a key that doesn't say otherwise (§6.1). */
const TEXT_BYTES_MAX = 255;
/** Distinct keys that one negotiation may name; far more than the standard has, far less than would hurt. */
const SEEN_MAX = 128;

/** §6.2: words that only an answer may be; None is a value of lists, and may be a text. */
function isReserved(rule: KeyRule | undefined, value: string): boolean {
  if (rule?.kind === 'list') return value.split(',').some((item) => ANSWERS.has(item));
  return ANSWERS.has(value) || (value === 'None' && (rule?.kind === 'boolean' || rule?.kind === 'number'));
}

function allowed(rule: KeyRule, stage: NegotiationStage): boolean {
  if (stage === 'full-feature') return rule.fullFeature;
  return rule.stages === 'any' || rule.stages === stage;
}
