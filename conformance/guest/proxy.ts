/** A cable that a test can cut: a TCP port that hands everything on to another one, until told to stop. */
import { once } from 'node:events';
import net from 'node:net';
import type { AddressInfo } from 'node:net';
import { tie } from '../support/relay.js';

export class Proxy {
  /** Bytes that clients have sent so far. */
  upstreamBytes = 0;
  #port = 0;
  #to = 0;
  #server: net.Server | undefined;
  readonly #sockets = new Set<net.Socket>();
  #watchers: (() => void)[] = [];

  /** Listens on 127.0.0.1; the port stays the same over cuts. */
  async start(): Promise<void> {
    const server = net.createServer((client) => this.#join(client));
    server.listen(this.#port, '127.0.0.1');
    await once(server, 'listening');
    this.#port = (server.address() as AddressInfo).port;
    this.#server = server;
  }

  get port(): number {
    return this.#port;
  }

  /** Where connections go, from now on. */
  set to(port: number) {
    this.#to = port;
  }

  #join(client: net.Socket): void {
    const target = net.connect(this.#to, '127.0.0.1');
    this.#sockets.add(client).add(target);
    tie([client, target], (socket) => this.#sockets.delete(socket));
    client.on('data', (chunk: Buffer) => {
      this.upstreamBytes += chunk.length;
      for (const watcher of this.#watchers) watcher();
    });
    client.pipe(target);
    target.pipe(client);
  }

  /** Resolves when clients have sent that many bytes more. */
  async carries(bytes: number): Promise<void> {
    const wanted = this.upstreamBytes + bytes;
    await new Promise<void>((resolve) => {
      const watcher = (): void => {
        if (this.upstreamBytes < wanted) return;
        this.#watchers = this.#watchers.filter((one) => one !== watcher);
        resolve();
      };
      this.#watchers.push(watcher);
    });
  }

  /** Breaks every connection, in the midst of whatever it carries, and takes no new one until `start`. */
  cut(): void {
    this.#server?.close();
    this.#server = undefined;
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }
}
