/** A bad network: a TCP port that hands everything on, and delays, damages or breaks it when told to. */
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { tie } from '../../conformance/support/relay.js';

export class BadNetwork {
  /** Each piece waits that long, at most; order is kept, as TCP keeps it. */
  delayMs = 0;
  /** Chance, in thousandths, that one bit of a piece is turned. */
  corruptPermille = 0;
  corrupted = 0;
  readonly #to: number;
  readonly #random: (limit: number) => number;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  #server: Server | undefined;

  constructor(to: number, random: (limit: number) => number) {
    this.#to = to;
    this.#random = random;
  }

  async start(): Promise<number> {
    const server = createServer((client) => this.#join(client));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    this.#server = server;
    return (server.address() as AddressInfo).port;
  }

  /** Resets connections, each with a chance of one in `of`. Answers how many. */
  reset(of: number): number {
    const chosen = [...this.#pairs].filter(() => this.#random(of) === 0);
    for (const pair of chosen) for (const socket of pair) socket.resetAndDestroy();
    return chosen.length;
  }

  heal(): void {
    this.delayMs = 0;
    this.corruptPermille = 0;
  }

  close(): void {
    this.#server?.close();
    this.reset(1);
  }

  #join(client: Socket): void {
    const target = connect({ port: this.#to, host: '127.0.0.1', noDelay: true });
    const pair = [client, target] as const;
    this.#pairs.add(pair);
    tie(pair, () => this.#pairs.delete(pair));
    this.#carry(client, target);
    this.#carry(target, client);
  }

  #carry(from: Socket, to: Socket): void {
    from.on('data', (piece: Buffer) => {
      const bytes = this.#damage(piece);
      const pass = (): void => {
        if (to.destroyed) return;
        if (to.write(bytes)) from.resume();
        else to.once('drain', () => from.resume());
      };
      from.pause();
      if (this.delayMs === 0) pass();
      else setTimeout(pass, this.#random(this.delayMs));
    });
  }

  #damage(piece: Buffer): Buffer {
    if (this.#random(1000) >= this.corruptPermille) return piece;
    this.corrupted++;
    const at = this.#random(piece.length);
    const bytes = Buffer.from(piece);
    bytes[at] = (bytes[at] ?? 0) ^ (1 << this.#random(8));
    return bytes;
  }
}
