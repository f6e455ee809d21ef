/**
 * A TCP socket as a Wire: the one place that knows Node's sockets.
 *
 * Reading straight into the connection's own buffer (`onread`) triples the rate of large writes against 'data' events
 * (docs/performance.md), but Node offers `onread` only to sockets that it connects itself. So an accepted socket's
 * handle is moved into a new Socket, which takes it; where a Node version doesn't allow that, 'data' events and a copy
 * do the same more slowly.
 */
import { Socket } from 'node:net';
import type { Wire, WireListener } from './wire.js';

export function attachSocket(accepted: Socket, makeListener: (wire: Wire) => WireListener): void {
  const holder: { listener?: WireListener } = {};
  let why = '';
  const socket = adopt(accepted, () => holder.listener);
  socket.setNoDelay(true);
  socket.setKeepAlive(true, 60_000);
  const wire = new SocketWire(socket);
  const peer = makeListener(wire);
  holder.listener = peer;
  socket.on('error', (error) => {
    why = error.message;
  });
  // The end of what the peer sends is the end of the connection (RFC 7143 §4.2.6). 'close' may come much later, when
  // answers wait that nobody takes: a host that comes back at once must find its old nexus gone.
  socket.on('end', () => {
    peer.closed(why);
    wire.end();
  });
  socket.on('close', () => {
    wire.releaseAll();
    peer.closed(why);
  });
  if (socket === accepted) socket.on('data', (chunk) => deliver(socket, peer, chunk));
  socket.resume();
}

type Handled = Socket & { _handle?: object | null };

/** The socket that reads into the listener's buffers, or the accepted one if that can't be had. */
function adopt(accepted: Handled, listener: () => WireListener | undefined): Socket {
  const handle = accepted._handle;
  if (handle === undefined || handle === null || !('useUserBuffer' in handle)) return accepted;
  // Until the listener is there (in the same turn) nothing is read; the first buffer only has to exist.
  const first = new Uint8Array(FIRST_READ_BYTES);
  let current: Uint8Array = first;
  const options: object = {
    handle,
    allowHalfOpen: false,
    onread: {
      buffer: (): Uint8Array => {
        const peer = listener();
        return (current = peer === undefined ? first : peer.nextBuffer());
      },
      callback: (bytes: number): boolean => {
        const peer = listener();
        if (peer === undefined) return false;
        if (current !== first) return peer.received(bytes);
        return pour(peer, first.subarray(0, bytes));
      },
    },
  };
  const socket = new Socket(options);
  // The accepted socket gives up its handle: destroying it now only tells the server that it is gone.
  accepted._handle = null;
  accepted.destroy();
  return socket;
}

const FIRST_READ_BYTES = 16_384;

function deliver(socket: Socket, listener: WireListener, chunk: Buffer): void {
  if (!pour(listener, chunk)) socket.pause();
}

/** Copies bytes into the listener's own buffers. False: pause. */
function pour(listener: WireListener, chunk: Uint8Array): boolean {
  let goOn = true;
  for (let at = 0; at < chunk.length;) {
    const room = listener.nextBuffer();
    const bytes = Math.min(room.length, chunk.length - at);
    room.set(chunk.subarray(at, at + bytes));
    at += bytes;
    goOn = listener.received(bytes);
  }
  return goOn;
}

class SocketWire implements Wire {
  readonly #socket: Socket;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string;
  readonly localPort: number;
  readonly #waiting = new Set<{ released: () => void }>();

  constructor(socket: Socket) {
    this.#socket = socket;
    this.remoteAddress = plainAddress(socket.remoteAddress);
    this.remotePort = socket.remotePort ?? 0;
    this.localAddress = plainAddress(socket.localAddress);
    this.localPort = socket.localPort ?? 0;
  }

  get queuedBytes(): number {
    return this.#socket.writableLength;
  }

  write(bytes: Uint8Array, released: () => void): boolean {
    const socket = this.#socket;
    if (!socket.writable) return true;
    socket.write(bytes);
    if (socket.writableLength === 0) return true;
    // Callers may give the same function for several writes: each write is told apart by an object of its own.
    const waiter = { released };
    this.#waiting.add(waiter);
    // An empty write behind it ends when all before it is out.
    socket.write('', () => {
      if (this.#waiting.delete(waiter)) released();
    });
    return false;
  }

  /** The socket is closed: memory of writes that never ended is free. */
  releaseAll(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const { released } of waiting) released();
  }

  pause(): void {
    this.#socket.pause();
  }
  resume(): void {
    this.#socket.resume();
  }
  end(): void {
    this.#socket.end();
    // A peer that never closes its side must not keep the connection.
    this.#socket.setTimeout(CLOSE_TIMEOUT_MS, () => this.#socket.destroy());
  }
  destroy(): void {
    this.#socket.destroySoon();
    this.#socket.setTimeout(CLOSE_TIMEOUT_MS, () => this.#socket.destroy());
  }
}

const CLOSE_TIMEOUT_MS = 2000;

/** An IPv4 address in its own notation even on a dual-stack socket. */
export const plainAddress = (address: string | undefined): string =>
  (address ?? '').replace(/^::ffff:(?=\d+\.)/, '');
