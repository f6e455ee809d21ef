/**
 * What a connection needs of its socket, so that the protocol above it can be driven without one.
 */
export interface Wire {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string;
  readonly localPort: number;
  /** Bytes that were written and that the kernel has not taken yet. */
  readonly queuedBytes: number;
  /**
   * Sends bytes. True: the kernel took them all and the memory is free again. False: it is free when `released` is
   * called (also when the connection breaks).
   */
  write(bytes: Uint8Array, released: () => void): boolean;
  /** Stops and continues reading, for back-pressure. */
  pause(): void;
  resume(): void;
  /** Sends what is queued, then closes. */
  end(): void;
  /** Closes at once. */
  destroy(): void;
}

/** What a socket tells its connection. */
export interface WireListener {
  /** Memory for the next read: at least 1 byte long. */
  nextBuffer(): Uint8Array;
  /** `bytes` were read into the last buffer. False: pause. */
  received(bytes: number): boolean;
  /** The connection is gone; nothing follows. */
  closed(why: string): void;
}
