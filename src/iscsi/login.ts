/**
 * The login phase of one connection (RFC 7143 §6.3, §11.12, §11.13): stages, authentication, negotiation, and the
 * decision to let the initiator in.
 *
 *   stage of the request (CSG)   may ask for (NSG, with T = 1)
 *   security        0            operational 1, full feature 3
 *   operational     1            full feature 3
 *
 * The first request may stand in either stage. A stage is left only when the target agrees.
 */
import { Chap } from './chap.js';
import { CONTINUE, FINAL, IMMEDIATE, LOGIN_STATUS, RESPONSE, STAGE, type LoginStatus } from './constants.js';
import { normaliseName } from './names.js';
import { Negotiation, NegotiationError } from './negotiation.js';
import type { LoginAnswer, LoginResult, LoginServices } from './login-services.js';
import type { Asker, AuthenticationOptions, IscsiTargetOptions } from './options.js';
import type { AnswerFields, Pdu } from './pdu.js';
import { formatText, parseText, TextError } from './text.js';
import { mightEnter } from './visibility.js';

/** Text of one login request, over all PDUs that it is continued in. */
const TEXT_BYTES_MAX = 65_536;
/** Longest data segment that is sent during login: what an initiator takes that declares nothing (§13.12). */
const RESPONSE_BYTES_MAX = 8192;
/** Who asks for what: said in the first request, or never. */
const INTRODUCTION: ReadonlySet<string> = new Set(['InitiatorName', 'SessionType', 'TargetName']);

/** Keys whose result depends on others, in whatever order they come (§13.14, §13.19). */
const DEPENDENT: ReadonlySet<string> = new Set(['FirstBurstLength', 'MaxOutstandingR2T']);
/** T field of an ISID (§11.12.5). */
const RESERVED_ISID_TYPE = 3;

class Refusal extends Error {
  readonly status: LoginStatus;
  readonly delayMs: number;
  constructor(status: LoginStatus, why: string, delayMs = 0) {
    super(why);
    this.status = status;
    this.delayMs = delayMs;
  }
}

export class Login {
  readonly #services: LoginServices;
  readonly negotiation: Negotiation;
  #first:
    { isid: string; tsih: number; cid: number; itt: number; cmdSN: number; expStatSN: number } | undefined;
  #stage: number = STAGE.SECURITY;
  #chunks: Buffer[] = [];
  #chunkBytes = 0;
  /** Answer text that didn't fit in one response. */
  #rest: Buffer | undefined;
  #asker: Asker | undefined;
  #target: IscsiTargetOptions | undefined;
  #named: string | undefined;
  #authentication: AuthenticationOptions | undefined;
  #authenticated = false;
  #user: string | undefined;
  #chap: Chap | undefined;
  #introduced = false;
  #declared = false;
  /** Set with a refusal of class 01h: where the target is now. */
  #movedTo: string | undefined;
  result: LoginResult | undefined;

  constructor(services: LoginServices) {
    this.#services = services;
    this.negotiation = new Negotiation(services.limits);
  }

  get initiatorName(): string | undefined {
    return this.#asker?.initiatorName;
  }

  request(pdu: Pdu): LoginAnswer {
    try {
      return this.#request(pdu);
    } catch (error) {
      if (error instanceof Refusal) return this.#refuse(pdu, error.status, error.message, error.delayMs);
      if (error instanceof TextError || error instanceof NegotiationError)
        return this.#refuse(pdu, LOGIN_STATUS.INITIATOR_ERROR, error.message);
      return { ...this.#refuse(pdu, LOGIN_STATUS.TARGET_ERROR, 'internal error'), error };
    }
  }

  #request(pdu: Pdu): LoginAnswer {
    const { buffer, view, at } = pdu;
    const flags = buffer[at + 1];
    const transit = (flags & FINAL) !== 0;
    const more = (flags & CONTINUE) !== 0;
    const current = (flags >> 2) & 3;
    const next = flags & 3;
    this.#checkHeader(pdu);
    if ((transit && more) || current > STAGE.OPERATIONAL || (transit && !leadsTo(current, next)))
      throw new Refusal(LOGIN_STATUS.INITIATOR_ERROR, 'stages that do not follow each other');
    if (this.#introduced && current !== this.#stage)
      throw new Refusal(LOGIN_STATUS.INVALID_DURING_LOGIN, 'a stage that was not agreed on');
    this.#stage = current;

    const itt = view.getUint32(at + 16);
    if (this.#rest !== undefined) {
      if (pdu.dataBytes > 0)
        throw new Refusal(LOGIN_STATUS.INITIATOR_ERROR, 'text while an answer continues');
      // Text that continues leaves nothing behind that it doesn't say: what is missing for the next stage still is.
      return this.#respond(itt, this.#rest, transit && this.#authenticated, next);
    }
    this.#chunkBytes += pdu.dataBytes;
    if (this.#chunkBytes > TEXT_BYTES_MAX) throw new Refusal(LOGIN_STATUS.INITIATOR_ERROR, 'too much text');
    if (pdu.dataBytes > 0)
      this.#chunks.push(Buffer.from(buffer.subarray(pdu.dataAt, pdu.dataAt + pdu.dataBytes)));
    if (more) return this.#respond(itt, EMPTY, false, 0);
    const pairs = parseText(Buffer.concat(this.#chunks));
    this.#chunks = [];
    this.#chunkBytes = 0;

    const reply: [string, string][] = [];
    if (!this.#introduced) this.#introduce(pairs, reply);
    else if (pairs.some(([key]) => INTRODUCTION.has(key)))
      throw new Refusal(LOGIN_STATUS.INITIATOR_ERROR, 'names or session type after the first request');
    const agreed =
      this.#stage === STAGE.SECURITY
        ? this.#security(pairs, reply, transit)
        : this.#operational(pairs, reply);
    return this.#respond(itt, formatText(reply), transit && agreed, next);
  }

  /** §11.12.1 to §11.12.8: version, and the fields that stay the same in every request of a login. */
  #checkHeader(pdu: Pdu): void {
    const { buffer, view, at } = pdu;
    if ((buffer[at] & IMMEDIATE) === 0)
      throw new Refusal(LOGIN_STATUS.INITIATOR_ERROR, 'not marked immediate');
    const header = {
      isid: buffer.toString('hex', at + 8, at + 14),
      tsih: view.getUint16(at + 14),
      cid: view.getUint16(at + 20),
      itt: view.getUint32(at + 16),
      cmdSN: view.getUint32(at + 24),
      expStatSN: view.getUint32(at + 28),
    };
    const isFirst = this.#first === undefined;
    const first = (this.#first ??= header);
    // What the first request says of versions counts (§11.12.4).
    if (isFirst && buffer[at + 3] !== 0)
      throw new Refusal(LOGIN_STATUS.UNSUPPORTED_VERSION, 'unsupported version');
    if (buffer[at + 8] >> 6 === RESERVED_ISID_TYPE)
      throw new Refusal(LOGIN_STATUS.INITIATOR_ERROR, 'an ISID of a reserved type');
    if (
      header.isid !== first.isid ||
      header.tsih !== first.tsih ||
      header.cid !== first.cid ||
      header.itt !== first.itt
    )
      throw new Refusal(LOGIN_STATUS.INITIATOR_ERROR, 'ISID, TSIH, CID or ITT changed within the login');
  }

  /** The first request says who asks for what (§6.3, §13.4, §13.5, §13.21). */
  #introduce(pairs: readonly [string, string][], reply: [string, string][]): void {
    const keys = new Map(pairs);
    const sent = keys.get('InitiatorName');
    if (sent === undefined) throw new Refusal(LOGIN_STATUS.MISSING_PARAMETER, 'InitiatorName is missing');
    const initiatorName = normaliseName(sent);
    if (initiatorName === undefined)
      throw new Refusal(LOGIN_STATUS.INITIATOR_ERROR, 'InitiatorName is not a name');
    const { address, portalGroupTag } = this.#services;
    this.#asker = { initiatorName, address, portalGroupTag, user: undefined };

    const type = keys.get('SessionType') ?? 'Normal';
    if (type === 'Discovery') {
      this.negotiation.discovery = true;
      this.#nameTarget(keys.get('TargetName'), this.#asker, reply);
      this.#authentication = this.#services.discoveryAuthentication(this.#asker);
    } else if (type === 'Normal') this.#chooseTarget(keys.get('TargetName'), this.#asker, reply);
    else throw new Refusal(LOGIN_STATUS.SESSION_TYPE_NOT_SUPPORTED, 'unknown SessionType');
    const tsih = this.#first?.tsih ?? 0;
    if (tsih !== 0) this.negotiation.join(this.#services.negotiationOf(tsih));
    this.#introduced = true;
    if (this.#authentication?.users.length === 0) this.#authenticated = true;
    else if (this.#stage === STAGE.OPERATIONAL)
      throw new Refusal(LOGIN_STATUS.AUTHENTICATION_FAILURE, 'authentication is required');
  }

  #findTarget(name: string, asker: Asker): IscsiTargetOptions {
    const target = this.#services.findTarget(name.toLowerCase());
    // A target that the asker may not see is answered as one that isn't there.
    if (target !== undefined && mightEnter(target, asker)) return target;
    const removed = target === undefined ? this.#services.removedTarget(name.toLowerCase()) : undefined;
    if (removed !== undefined && mightEnter(removed, asker))
      throw new Refusal(LOGIN_STATUS.TARGET_REMOVED, 'the target is no longer served');
    throw new Refusal(LOGIN_STATUS.NOT_FOUND, 'no such target for this initiator');
  }

  /** A discovery session may name a target too ("named discovery session", §7.4.2.2). */
  #nameTarget(name: string | undefined, asker: Asker, reply: [string, string][]): void {
    if (name === undefined) return;
    this.#named = this.#findTarget(name, asker).name;
    this.#declare('TargetPortalGroupTag', String(this.#services.portalGroupTag), reply);
  }

  #chooseTarget(name: string | undefined, asker: Asker, reply: [string, string][]): void {
    if (name === undefined) throw new Refusal(LOGIN_STATUS.MISSING_PARAMETER, 'TargetName is missing');
    const target = this.#findTarget(name, asker);
    this.#target = target;
    this.#named = target.name;
    this.negotiation.prefer(target.limits ?? {});
    this.#authentication = target.authentication(asker);
    const moved = target.moved?.(asker);
    if (moved !== undefined) {
      this.#movedTo = moved.address;
      const { TARGET_MOVED_PERMANENTLY, TARGET_MOVED_TEMPORARILY } = LOGIN_STATUS;
      throw new Refusal(
        moved.permanent ? TARGET_MOVED_PERMANENTLY : TARGET_MOVED_TEMPORARILY,
        `moved to ${moved.address}`,
      );
    }
    this.#declare('TargetPortalGroupTag', String(this.#services.portalGroupTag), reply);
    if (target.alias !== undefined) this.#declare('TargetAlias', target.alias, reply);
  }

  #declare(key: string, value: string, reply: [string, string][]): void {
    this.negotiation.tell(key);
    reply.push([key, value]);
  }

  // ---- security stage

  /** True if the stage may be left. */
  #security(pairs: readonly [string, string][], reply: [string, string][], transit: boolean): boolean {
    const waits = this.#chap !== undefined && !this.#authenticated;
    const chapKeys = new Map<string, string>();
    for (const [key, value] of pairs) {
      if (key === 'AuthMethod') this.#authMethod(value, reply);
      else if (/^CHAP_[AINCR]$/.test(key)) {
        if (chapKeys.has(key)) throw new Refusal(LOGIN_STATUS.INITIATOR_ERROR, `${key} came twice`);
        chapKeys.set(key, value);
      } else this.#offer(key, value, 'security', reply);
    }
    if (chapKeys.size > 0) this.#chapStep(chapKeys, reply);
    else if (waits) this.#failed('the keys of the next step are missing', LOGIN_STATUS.MISSING_PARAMETER);
    if (this.#authenticated) return true;
    if (transit && this.#chap === undefined)
      throw new Refusal(LOGIN_STATUS.AUTHENTICATION_FAILURE, 'authentication is required');
    return false;
  }

  #authMethod(value: string, reply: [string, string][]): void {
    this.negotiation.propose('AuthMethod', value);
    const methods = value.split(',');
    const required = !this.#authenticated;
    const chosen = required ? 'CHAP' : 'None';
    if (!methods.includes(chosen)) {
      this.#failed(
        `no common authentication method (${required ? 'CHAP is required' : 'CHAP is not configured'})`,
      );
    }
    if (required && this.#authentication !== undefined) this.#chap = new Chap(this.#authentication);
    reply.push(['AuthMethod', chosen]);
  }

  #chapStep(keys: ReadonlyMap<string, string>, reply: [string, string][]): void {
    if (this.#chap === undefined)
      throw new Refusal(LOGIN_STATUS.INITIATOR_ERROR, 'CHAP keys before AuthMethod=CHAP');
    const step = this.#chap.step(keys);
    if (step.outcome === 'failed') {
      this.#failed(step.why, step.status);
      return;
    }
    reply.push(...step.reply);
    if (step.outcome === 'continue') return;
    this.#authenticated = true;
    this.#user = step.user;
  }

  #failed(why: string, status: LoginStatus = LOGIN_STATUS.AUTHENTICATION_FAILURE): never {
    const delayMs = this.#services.refused(this.initiatorName ?? '', why);
    throw new Refusal(status, why, delayMs);
  }

  // ---- operational stage

  #operational(pairs: readonly [string, string][], reply: [string, string][]): boolean {
    const isDependent = ([key]: readonly [string, string]): boolean => DEPENDENT.has(key);
    for (const [key, value] of [...pairs.filter((pair) => !isDependent(pair)), ...pairs.filter(isDependent)])
      this.#offer(key, value, 'operational', reply);
    if (!this.#declared) {
      this.#declared = true;
      const bytes = this.#services.limits.maxRecvDataSegmentBytes;
      this.#declare('MaxRecvDataSegmentLength', String(bytes), reply);
    }
    return true;
  }

  #offer(key: string, value: string, stage: 'security' | 'operational', reply: [string, string][]): void {
    const answer = this.negotiation.offer(key, value, stage);
    if (answer !== undefined) reply.push([key, answer]);
  }

  // ---- answers

  #respond(itt: number, text: Buffer, transit: boolean, next: number): LoginAnswer {
    const room = Math.min(RESPONSE_BYTES_MAX, Number(this.negotiation.value('MaxRecvDataSegmentLength')));
    const data = text.subarray(0, room);
    const more = text.length > room;
    this.#rest = more ? text.subarray(room) : undefined;
    const leaves = transit && !more;
    const stage = this.#stage;
    let tsih = this.#first?.tsih ?? 0;
    if (leaves) {
      this.#stage = next;
      if (next === STAGE.FULL_FEATURE) tsih = this.#enter();
    }
    const flags = (more ? CONTINUE : 0) | (stage << 2) | (leaves ? next : 0);
    return {
      fields: this.#fields(itt, flags, leaves, tsih, LOGIN_STATUS.SUCCESS, data),
      outcome: leaves && next === STAGE.FULL_FEATURE ? 'full-feature' : 'continue',
      why: undefined,
      delayMs: 0,
    };
  }

  #enter(): number {
    const first = this.#first;
    const asker = this.#asker;
    if (first === undefined || asker === undefined) throw new Error('a login that ends before it began');
    if (!this.#authenticated)
      throw new Refusal(LOGIN_STATUS.AUTHENTICATION_FAILURE, 'authentication is required');
    this.result = {
      initiatorName: asker.initiatorName,
      isid: first.isid,
      tsih: first.tsih,
      cid: first.cid,
      cmdSN: first.cmdSN,
      expStatSN: first.expStatSN,
      target: this.#target,
      targetName: this.#named,
      user: this.#user,
      negotiation: this.negotiation,
      maxRecvDataSegmentBytes: this.#declared
        ? this.#services.limits.maxRecvDataSegmentBytes
        : RESPONSE_BYTES_MAX,
    };
    const { status, tsih } = this.#services.enter(this.result);
    if (status !== LOGIN_STATUS.SUCCESS) throw new Refusal(status, 'the session was refused');
    return tsih;
  }

  #refuse(pdu: Pdu, status: LoginStatus, why: string, delayMs = 0): LoginAnswer {
    return { fields: this.refuse(pdu, status), outcome: 'failed', why, delayMs };
  }

  /** The response that ends this login with a status. */
  refuse(pdu: Pdu, status: LoginStatus): AnswerFields {
    const itt = pdu.view.getUint32(pdu.at + 16);
    const flags = pdu.buffer[pdu.at + 1] & 0x0c;
    const data = this.#movedTo === undefined ? EMPTY : formatText([['TargetAddress', this.#movedTo]]);
    return this.#fields(itt, flags, false, this.#first?.tsih ?? 0, status, data);
  }

  #fields(
    itt: number,
    flags: number,
    final: boolean,
    tsih: number,
    status: number,
    data: Buffer,
  ): AnswerFields {
    const isid = Buffer.from(this.#first?.isid ?? '000000000000', 'hex');
    return {
      opcode: RESPONSE.LOGIN,
      flags,
      final,
      lunHigh: isid.readUInt32BE(0),
      lunLow: ((isid.readUInt16BE(4) << 16) | tsih) >>> 0,
      itt,
      words: [status * 0x10000, 0, 0],
      data,
    };
  }
}

const EMPTY = Buffer.alloc(0);

const leadsTo = (current: number, next: number): boolean =>
  next === STAGE.FULL_FEATURE || (current === STAGE.SECURITY && next === STAGE.OPERATIONAL);
