/**
 * The send side: PDUs are built in a slab, header and data together, and leave in one write per batch.
 *
 * A write for every response costs a quarter of the rate of small reads (docs/performance.md), so a slab is flushed
 * when 32 KiB are ready, and at the end of each receive callback. Slabs are shared by all connections: one that has
 * nothing to send holds none.
 */
import type { Wire } from './wire.js';

/** Longest data segment that is sent, whatever the initiator would take: a slab holds a few of them. */
export const SEND_SEGMENT_BYTES_MAX = 262_144;
const SLAB_BYTES = 1_048_576;
const SLABS_KEPT_MAX = 16;
/** Enough to be worth a system call. */
const FLUSH_BYTES = 32_768;

interface Slab {
  readonly buffer: Buffer;
  readonly view: DataView;
}

const spare: Slab[] = [];

function takeSlab(): Slab {
  const slab = spare.pop();
  if (slab !== undefined) return slab;
  const buffer = Buffer.allocUnsafeSlow(SLAB_BYTES);
  return { buffer, view: new DataView(buffer.buffer, buffer.byteOffset, buffer.length) };
}

function giveSlab(slab: Slab): void {
  if (spare.length < SLABS_KEPT_MAX) spare.push(slab);
}

export class Transmit {
  readonly #wire: Wire;
  readonly #onDrained: () => void;
  #slab: Slab | undefined;
  #used = 0;
  /** Writes that the kernel has not taken whole. */
  #blocked = 0;
  #scheduled = false;
  /** True while a receive callback runs: it flushes at its end. */
  corked = false;
  closed = false;

  /** `onDrained` is called when a blocked socket has taken everything. */
  constructor(wire: Wire, onDrained: () => void) {
    this.#wire = wire;
    this.#onDrained = onDrained;
  }

  /** The slab's memory, valid until the next `reserve` or `flush`. */
  get buffer(): Buffer {
    return this.#need().buffer;
  }
  get view(): DataView {
    return this.#need().view;
  }

  #need(): Slab {
    return (this.#slab ??= takeSlab());
  }

  /** Bytes waiting here and in the socket. */
  get queuedBytes(): number {
    return this.#blocked === 0 ? this.#used : this.#used + this.#wire.queuedBytes;
  }

  /** True while the peer doesn't take what is sent. */
  get blocked(): boolean {
    return this.#blocked > 0;
  }

  /** Room for `bytes` (at most a slab) in one piece; returns its offset in `buffer`. */
  reserve(bytes: number): number {
    if (this.#used + bytes > SLAB_BYTES) this.#push();
    const offset = this.#used;
    this.#used += bytes;
    return offset;
  }

  /** Takes back the last `bytes` reserved. */
  cancel(bytes: number): void {
    this.#used -= bytes;
  }

  /** A PDU is complete: sends when it is worth it, else soon. */
  commit(): void {
    if (this.#used >= FLUSH_BYTES) this.flush();
    else if (!this.corked) this.schedule();
  }

  /** Flushes when the current callbacks are over, for answers that come outside a receive callback. */
  schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#runScheduled);
  }

  readonly #runScheduled = (): void => {
    this.#scheduled = false;
    this.flush();
  };

  /** Sends what is ready. With a write still blocked, PDUs gather in the slab until it is full. */
  flush(): void {
    if (this.#used > 0 && this.#blocked === 0) this.#push();
  }

  /** Sends a buffer that is not a slab's (a large asynchronous read), after what is queued. */
  sendBuffer(bytes: Uint8Array): void {
    this.#push();
    if (this.closed) return;
    if (!this.#wire.write(bytes, this.#release)) this.#blocked++;
  }

  #push(): void {
    const slab = this.#slab;
    const used = this.#used;
    if (slab === undefined || used === 0) return;
    this.#used = 0;
    this.#slab = undefined;
    if (this.closed) {
      giveSlab(slab);
      return;
    }
    const bytes = new Uint8Array(slab.buffer.buffer, slab.buffer.byteOffset, used);
    const taken = this.#wire.write(bytes, () => {
      giveSlab(slab);
      this.#release();
    });
    if (taken) giveSlab(slab);
    else this.#blocked++;
  }

  readonly #release = (): void => {
    this.#blocked--;
    if (this.#blocked > 0) return;
    this.flush();
    if (this.#blocked === 0) this.#onDrained();
  };

  /** The connection is gone: nothing more is written. */
  close(): void {
    this.closed = true;
    this.#push();
  }
}
