/** What proxies of tests have in common. */
import type { Socket } from 'node:net';

/** Ties both ends of a proxied connection together: when one is gone, for whatever reason, so is the other. */
export function tie(pair: readonly [Socket, Socket], gone: (socket: Socket) => void): void {
  for (const socket of pair) {
    socket.on('error', () => undefined);
    socket.on('close', () => {
      gone(socket);
      for (const one of pair) one.destroy();
    });
  }
}
