/**
 * One TCP connection: finds the PDUs in what was received, checks their lengths and digests, and leads them through
 * login into the full feature phase.
 *
 * Back-pressure: when answers that the peer doesn't take, and data that wait for the disc, exceed the budget, parsing
 * stops and so does reading, until enough of both is gone. Data that wait for something which the peer has yet to send
 * don't count: what a window of commands can bring bounds them.
 *
 * A long file: the phases of a connection share its receive buffer and its budget, and each of them has a file of its own
 * for all else.
 */
import { BHS_BYTES, DIGEST_BYTES, OPCODE_MASK, REJECT, REQUEST } from './constants.js';
import type { IscsiCounters } from './counters.js';
import { digestMatches, padding } from './framing.js';
import { FullFeature } from './full-feature.js';
import { LoginPhase, type LoginOwner } from './login-phase.js';
import { Login } from './login.js';
import type { LoginResult, LoginServices } from './login-services.js';
import { Negotiation, type Parameters } from './negotiation.js';
import type { IscsiLimits, Log } from './options.js';
import type { Pdu } from './pdu.js';
import type { FullFeatureOwner } from './phase-owner.js';
import { ReceiveBuffer } from './receive.js';
import { findNextPdu, RESYNC_MS } from './resync.js';
import type { Session, SessionConnection } from './session.js';
import { TextExchange } from './text-exchange.js';
import { DiscoveryPhase } from './discovery-phase.js';
import { Transmit } from './transmit.js';
import type { Wire, WireListener } from './wire.js';

/** Longest data segment before MaxRecvDataSegmentLength is declared (RFC 7143 §13.12). */
const LOGIN_SEGMENT_BYTES = 8192;

export interface ConnectionServices {
  readonly limits: IscsiLimits;
  readonly log: Log;
  readonly counters: IscsiCounters;
  readonly portalGroupTag: number;
  login: (connection: Connection) => LoginServices;
  sendTargets: (connection: Connection, value: string) => [string, string][] | undefined;
  /** A TARGET COLD RESET came by this connection. */
  targetWasReset: (connection: Connection) => void;
  /** A format error came by this connection: its whole session ends. */
  formatError: (connection: Connection, why: string) => void;
  /** Called after every receive, for the spin; `waits`: a command of the session waits for the medium. */
  active: (connection: Connection, waits: boolean) => void;
  closed: (connection: Connection) => void;
}

/** Phase of a connection: see `#parse`. */
type Phase = 'login' | 'discovery' | 'full-feature' | 'closing' | 'closed';

export class Connection implements WireListener, SessionConnection, LoginOwner, FullFeatureOwner {
  readonly wire: Wire;
  readonly #services: ConnectionServices;
  readonly #receive = new ReceiveBuffer();
  readonly transmit: Transmit;
  readonly #login: Login;
  readonly log: Log;
  readonly counters: IscsiCounters;
  readonly since = new Date();
  readonly openedAtMs = performance.now();
  #phase: Phase = 'login';
  #session: Session | undefined;
  #fullFeature: FullFeature | undefined;
  #discovery: DiscoveryPhase | undefined;
  readonly #loginPhase: LoginPhase;
  #parameters: Parameters;
  #text: TextExchange | undefined;
  #segmentBytesMax = LOGIN_SEGMENT_BYTES;
  #needBytes = BHS_BYTES;
  #headerVerified = false;
  /** Since when the next PDU is looked for behind a damaged header. */
  #resync: { readonly sinceMs: number; timer?: NodeJS.Timeout } | undefined;
  #pinnedBytes = 0;
  #stalled = false;
  #parsing = false;
  #why = 'closed by the peer';
  #how: 'logout' | 'connection-lost' = 'connection-lost';
  /** A logout is then not of the initiator's own accord: it will be back. */
  #askedToLeave = false;
  loggedOut = false;
  readonly #pdu: Pdu;
  statSN = 1;
  cid = 0;
  /** Ticks of the server's clock: last byte received, and the ping that waits for an answer. */
  heardAtMs = performance.now();
  pingedAtMs = 0;

  constructor(wire: Wire, services: ConnectionServices) {
    this.wire = wire;
    this.#services = services;
    this.log = services.log;
    this.counters = services.counters;
    this.transmit = new Transmit(wire, () => this.#relieve());
    this.#login = new Login(services.login(this));
    this.#parameters = new Negotiation(services.limits).parameters();
    this.#loginPhase = new LoginPhase(this, this.#login, this.#parameters);
    const { buffer, view } = this.#receive;
    this.#pdu = { buffer, view, at: 0, ahsAt: 0, ahsBytes: 0, dataAt: 0, dataBytes: 0 };
  }

  get phase(): Phase {
    return this.#phase;
  }
  get session(): Session | undefined {
    return this.#session;
  }
  get initiatorName(): string | undefined {
    return this.#login.initiatorName;
  }
  get parameters(): Parameters {
    return this.#parameters;
  }

  // ---- WireListener

  nextBuffer(): Uint8Array {
    return this.#receive.next(this.#needBytes);
  }

  received(bytes: number): boolean {
    if (this.#phase === 'closing' || this.#phase === 'closed') return true;
    this.#receive.end += bytes;
    this.heardAtMs = performance.now();
    // More may wait in the socket, and the event loop would go on reading it: others come first.
    const filled = this.#receive.filled;
    this.#run();
    this.#services.active(this, this.session?.waitsForMedium() === true);
    if (filled && !this.#stalled) setImmediate(this.#readOn);
    return !filled && !this.#stalled;
  }

  readonly #readOn = (): void => {
    if (!this.#stalled && this.#phase !== 'closed') this.wire.resume();
  };

  closed(why: string): void {
    if (this.#phase === 'closed') return;
    this.#phase = 'closed';
    this.#endResync();
    this.#loginPhase.close();
    if (this.#why === 'closed by the peer' && why !== '') this.#why = why;
    this.#fullFeature?.close();
    this.transmit.close();
    this.#services.closed(this);
    this.#receive.release();
    this.#pdu.buffer = this.#receive.buffer;
    this.#pdu.view = this.#receive.view;
  }

  /** Why and how the connection ended, for the log and the SCSI layer. */
  get ending(): { why: string; how: 'logout' | 'connection-lost' } {
    return { why: this.#why, how: this.#how };
  }

  // ---- parsing

  /** Parses what is here; whatever goes wrong inside ends this connection alone. */
  #run(): void {
    this.#parsing = true;
    this.transmit.corked = true;
    try {
      this.#parse();
    } catch (error) {
      this.log.error(
        { err: error, address: this.wire.remoteAddress },
        'internal error: the connection is dropped',
      );
      // A PDU may be half built: nothing that is still here may leave.
      this.transmit.close();
      this.fail('internal error');
    }
    this.transmit.corked = false;
    this.#parsing = false;
    this.transmit.flush();
  }

  #parse(): void {
    const receive = this.#receive;
    this.#needBytes = BHS_BYTES;
    while (this.#phase !== 'closing' && this.#phase !== 'closed') {
      if (this.#overBudget()) {
        this.#stalled = true;
        return;
      }
      const at = receive.start;
      const have = receive.end - at;
      if (have < BHS_BYTES) return;
      const lengths = receive.view.getUint32(at + 4);
      const ahsBytes = (lengths >>> 24) << 2;
      const dataBytes = lengths & 0xffffff;
      const parameters = this.#parameters;
      let headerBytes = BHS_BYTES + ahsBytes;
      if (parameters.headerDigest) {
        if (have < headerBytes + DIGEST_BYTES) {
          this.#needBytes = headerBytes + DIGEST_BYTES;
          return;
        }
        // Lengths are only believed once the digest says so.
        if (!this.#headerVerified && !digestMatches(receive.buffer, at, headerBytes)) {
          if (!this.#skipDamaged()) return;
          continue;
        }
        this.#headerVerified = true;
        headerBytes += DIGEST_BYTES;
      }
      if (dataBytes > this.#segmentBytesMax) {
        this.formatError('a data segment longer than MaxRecvDataSegmentLength');
        return;
      }
      const padded = dataBytes + padding(dataBytes);
      const digest = parameters.dataDigest && dataBytes > 0 ? DIGEST_BYTES : 0;
      const total = headerBytes + padded + digest;
      if (have < total) {
        this.#needBytes = total;
        return;
      }
      this.#headerVerified = false;
      receive.start = at + total;

      const pdu = this.#pdu;
      pdu.buffer = receive.buffer;
      pdu.view = receive.view;
      pdu.at = at;
      pdu.ahsAt = at + BHS_BYTES;
      pdu.ahsBytes = ahsBytes;
      pdu.dataAt = at + headerBytes;
      pdu.dataBytes = dataBytes;
      if (digest > 0 && !digestMatches(receive.buffer, pdu.dataAt, padded)) this.#dataDigestError(pdu);
      else this.#handle(pdu);
    }
  }

  /**
   * A header whose digest is wrong stands at the start of what is here. Its lengths may be what is damaged, so the
   * connection ends (§7.8) unless it recovers and the place of a later PDU is certain: see resync.ts. True if that was
   * found, and the damaged PDU dropped.
   */
  #skipDamaged(): boolean {
    const receive = this.#receive;
    const full = this.#fullFeature;
    const resync = (this.#resync ??= { sinceMs: performance.now() });
    const found =
      full?.recovers === true && performance.now() - resync.sinceMs < RESYNC_MS
        ? findNextPdu(receive, this.#parameters.dataDigest, this.#segmentBytesMax)
        : 'lost';
    if (found === 'lost') {
      this.counters.headerDigestErrors++;
      this.fail('header digest error');
      return false;
    }
    if (typeof found === 'object') {
      this.#needBytes = found.needBytes;
      // The initiator may have nothing to say: its answer to a ping shows where the next PDU is, and ends the wait.
      if (resync.timer === undefined) {
        resync.timer = setTimeout(() => this.fail('header digest error'), RESYNC_MS);
        full?.ping();
      }
      return false;
    }
    this.counters.headerDigestErrors++;
    this.#endResync();
    receive.start = found;
    return true;
  }

  #endResync(): void {
    clearTimeout(this.#resync?.timer);
    this.#resync = undefined;
  }

  #handle(pdu: Pdu): void {
    if (this.#fullFeature !== undefined) this.#fullFeature.receive(pdu);
    else if (this.#discovery !== undefined) this.#discovery.receive(pdu);
    else this.#loginPhase.receive(pdu);
  }

  /** §7.8: the PDU is dropped and rejected; data of a task take the task with them. */
  #dataDigestError(pdu: Pdu): void {
    this.counters.dataDigestErrors++;
    const full = this.#fullFeature;
    if (full === undefined) {
      this.#discovery?.reject(REJECT.DATA_DIGEST_ERROR, pdu);
      return;
    }
    full.reject(REJECT.DATA_DIGEST_ERROR, pdu);
    // What is not a Data-Out is sent again by the initiator, which was told (§7.8).
    if ((pdu.buffer[pdu.at] & OPCODE_MASK) === REQUEST.DATA_OUT) full.dataOutLost(pdu);
    // At error recovery level 0 it leaves a gap in CmdSN that nobody fills: a new session is quicker than the
    // initiator's time-out.
    else if (!full.recovers) {
      this.announceLoss(this.cid);
      this.endAfterFlush('data digest error', 'connection-lost');
    }
  }

  // ---- LoginOwner

  /** The server has made or found the session of this login (`LoginServices.enter`). */
  join(session: Session | undefined): void {
    this.#session = session;
  }

  get remoteAddress(): string {
    return this.wire.remoteAddress;
  }
  /** SessionConnection. */
  get host(): FullFeature | undefined {
    return this.#fullFeature;
  }
  get blocked(): boolean {
    return this.transmit.blocked;
  }
  /** FullFeatureOwner. */
  get retainedBytesMax(): number {
    return this.#services.limits.connectionBufferBytesMax;
  }
  get commandWindow(): number {
    return this.#services.limits.commandWindow;
  }

  enterFullFeature(result: LoginResult): void {
    const { negotiation } = result;
    this.#parameters = negotiation.parameters();
    this.#segmentBytesMax = result.maxRecvDataSegmentBytes;
    const session = this.#session;
    this.#text = new TextExchange({
      negotiation,
      sendSegmentBytes: () => Math.min(this.#parameters.maxSendDataSegmentBytes, 65_536),
      takeTransferTag: () => session?.takeTransferTag() ?? 1,
      sendTargets: (value) => this.#services.sendTargets(this, value),
      sendTargetsOnly: session === undefined,
    });
    negotiation.restart();
    if (session === undefined) {
      this.#phase = 'discovery';
      this.#discovery = new DiscoveryPhase(
        this,
        result.cmdSN,
        this.#services.limits.commandWindow,
        this.#text,
      );
    } else {
      this.#phase = 'full-feature';
      this.#receive.grow(this.#segmentBytesMax);
      this.#fullFeature = new FullFeature(this, session, this.#parameters, this.#text);
    }
  }

  // ---- FullFeatureOwner

  parametersChanged(): void {
    const result = this.#login.result;
    if (result === undefined) return;
    this.#parameters = result.negotiation.parameters();
    this.#fullFeature?.adopt(this.#parameters);
  }

  endAfterFlush(why: string, how: 'logout' | 'connection-lost'): void {
    if (this.#phase === 'closed' || this.#phase === 'closing') return;
    this.#phase = 'closing';
    this.#why = why;
    this.loggedOut = how === 'logout';
    this.#how = this.#askedToLeave ? 'connection-lost' : how;
    this.transmit.flush();
    this.wire.end();
  }

  targetWasReset(): void {
    this.#services.targetWasReset(this);
  }

  fail(why: string): void {
    if (this.#phase === 'closed') return;
    this.announceLoss(this.cid);
    this.#loginPhase.close();
    this.counters.connectionsDropped++;
    this.#why = why;
    this.#phase = 'closing';
    this.log.warn(
      { initiator: this.initiatorName, address: this.wire.remoteAddress, why },
      'connection dropped',
    );
    this.transmit.flush();
    this.wire.destroy();
  }

  formatError(why: string): void {
    this.fail(why);
    this.#services.formatError(this, why);
  }

  /** SessionConnection: the session goes on without this connection, or ends. */
  drop(why: string): void {
    if (this.#phase === 'closed') return;
    this.#why = why;
    this.#phase = 'closing';
    this.transmit.flush();
    this.wire.destroy();
  }

  // ---- budget

  pin(bytes: number): void {
    this.#pinnedBytes += bytes;
    if (bytes <= 0 && this.#stalled) this.#relieve();
  }

  /** The peer may have said much: it is not read because its data wait for the medium. */
  get waitsForMedium(): boolean {
    return this.#stalled && !this.transmit.blocked;
  }

  #overBudget(): boolean {
    if (this.#pinnedBytes === 0 && !this.transmit.blocked) return false;
    if (this.#pinnedBytes + this.transmit.queuedBytes <= this.#services.limits.connectionBufferBytesMax)
      return false;
    return this.transmit.blocked || this.#fullFeature?.waitsForMedium() === true;
  }

  /** Something was freed: goes on parsing, in a turn of its own, if the budget allows. */
  #relieve(): void {
    if (!this.#stalled || this.#overBudget()) return;
    this.#stalled = false;
    // Nothing was heard because nothing was read.
    this.heardAtMs = performance.now();
    setImmediate(this.#continue);
  }

  readonly #continue = (): void => {
    if (this.#stalled || this.#phase === 'closed' || this.#parsing) return;
    this.#run();
    if (!this.stalled) this.wire.resume();
  };

  /** FullFeatureOwner, SessionConnection. */
  get stalled(): boolean {
    return this.#stalled;
  }

  // ---- the server's housekeeping

  /** Asks whether the initiator is still there (§11.19). */
  ping(nowMs: number): void {
    this.pingedAtMs = nowMs;
    this.#fullFeature?.ping();
  }

  // ---- asynchronous messages (§11.9)

  /** Asks the initiator to log out. */
  requestLogout(withinSeconds: number): void {
    this.#askedToLeave = true;
    this.#fullFeature?.messages.logoutRequest(withinSeconds);
  }

  scsiEvent(lun: number, sense: Buffer): void {
    if (this.#services.limits.scsiEvents) this.#fullFeature?.messages.scsiEvent(lun, sense);
  }

  announceEnd(): void {
    if (this.#phase === 'full-feature')
      this.#fullFeature?.messages.sessionDropping(this.#parameters.time2WaitSeconds);
  }

  announceLoss(cid: number): void {
    if (this.#phase !== 'full-feature') return;
    const { time2WaitSeconds, time2RetainSeconds } = this.#parameters;
    const retained = this.#session?.recoversConnections === true ? time2RetainSeconds : 0;
    this.#fullFeature?.messages.connectionDropping(cid, time2WaitSeconds, retained);
  }
}
