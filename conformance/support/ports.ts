/** TCP ports of the loopback interface for servers that can't pick one themselves. */
import net from 'node:net';

/** Below the ports that systems give to outgoing connections, any of which could take a port that was just free. */
const FIRST = 10_240;
const END = 32_000;
const ATTEMPTS = 50;

/** A port that was free a moment ago; which one is a matter of chance, so that tests side by side don't meet. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const port = FIRST + Math.floor(Math.random() * (END - FIRST));
    if (await isFree(port)) return port;
  }
  throw new Error(`No free port among ${ATTEMPTS} of the loopback interface`);
}

async function isFree(port: number): Promise<boolean> {
  const server = net.createServer();
  return await new Promise<boolean>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE' || error.code === 'EACCES') resolve(false);
      else reject(error);
    });
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
