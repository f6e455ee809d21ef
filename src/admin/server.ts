/**
 * The daemon's end of the control socket.
 *
 * The socket is made in a folder that only we can enter, gets mode 0600 there, and is then renamed to its place: at no
 * moment can another user connect. The rename also takes over the socket of a daemon that died, atomically.
 */
import { chmodSync, lstatSync, mkdirSync, mkdtempSync, renameSync, rmSync, unlinkSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { once } from 'node:events';
import { OperationalError } from '../operational-error.js';
import type { Log } from '../iscsi/options.js';
import {
  CONNECTIONS_MAX,
  IDLE_MS,
  REQUEST_BYTES_MAX,
  SOCKET_PATH_BYTES_MAX,
  formatResponse,
} from './protocol.js';
import type { Request, Response } from './protocol.js';
import { isRefusal } from './refusals.js';
import { parseRequest } from './requests.js';
import { messageOf } from '../thrown.js';

/** Time for a client to take the last word and go. */
const PART_MS = 1000;

/** Executes a request; what it throws is told to the client. */
export type Handler = (request: Request) => Promise<unknown>;

export class AdminServer {
  readonly #path: string;
  readonly #server: Server;
  readonly #sockets: ReadonlySet<Socket>;
  readonly #inode: number;

  private constructor(path: string, server: Server, sockets: ReadonlySet<Socket>, inode: number) {
    this.#path = path;
    this.#server = server;
    this.#sockets = sockets;
    this.#inode = inode;
  }

  /**
   * Listens at `path`, whose folder is created if need be.
   * @throws {OperationalError} DAEMON_RUNNING if another daemon answers there, SOCKET_UNUSABLE.
   */
  static async listen(path: string, handler: Handler, log: Log): Promise<AdminServer> {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      if (sockets.size >= CONNECTIONS_MAX) {
        socket.on('error', () => socket.destroy());
        part(socket, failure(new OperationalError('BUSY', 'too many control connections; try again')));
        return;
      }
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
      serveClient(socket, handler, log);
    });
    try {
      refuseLong(path);
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
      await refuseLiving(path);
      const inode = await listenPrivately(server, path);
      server.on('error', (error) => log.error({ err: error }, 'the control socket failed'));
      return new AdminServer(path, server, sockets, inode);
    } catch (error) {
      server.close();
      if (error instanceof OperationalError) throw error;
      const { code = 'error' } = error as NodeJS.ErrnoException;
      throw new OperationalError(
        'SOCKET_UNUSABLE',
        `can't make the control socket ${path} (${code}); choose another place with --socket or controlSocket`,
        { cause: error },
      );
    }
  }

  /** Stops answering and removes the socket, if it still is ours. Requests under way are cut off. */
  async close(): Promise<void> {
    try {
      if (lstatSync(this.#path).ino === this.#inode) unlinkSync(this.#path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}

/** The system would silently cut a longer one (unix(7): 108 bytes with the NUL). */
function refuseLong(path: string): void {
  if (Buffer.byteLength(path) <= SOCKET_PATH_BYTES_MAX) return;
  throw new OperationalError(
    'SOCKET_UNUSABLE',
    `the path of a control socket may have ${SOCKET_PATH_BYTES_MAX} bytes at most; ${path} is longer`,
  );
}

/** A socket file whose daemon has died refuses connections; a living daemon accepts. */
async function refuseLiving(path: string): Promise<void> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket())
    throw new OperationalError(
      'SOCKET_UNUSABLE',
      `${path} exists and is not a socket; remove it or choose another path`,
    );
  const socket = connect(path);
  try {
    await once(socket, 'connect');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ECONNREFUSED') return;
    throw error;
  } finally {
    socket.destroy();
  }
  throw new OperationalError(
    'DAEMON_RUNNING',
    `another cldd daemon answers on ${path}; stop it first, or give this one another socket (--socket)`,
  );
}

async function listenPrivately(server: Server, path: string): Promise<number> {
  const folder = mkdtempSync(join(dirname(path), '.cldd-'));
  try {
    const hidden = join(folder, 's');
    server.listen(hidden);
    await once(server, 'listening');
    chmodSync(hidden, 0o600);
    renameSync(hidden, path);
    return lstatSync(path).ino;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function failure(error: unknown): string {
  const code = error instanceof OperationalError ? error.code : 'INTERNAL';
  const message = messageOf(error);
  return formatResponse({ error: { code, message, refused: isRefusal(error) } });
}

/** Says a last word. What still comes is read and dropped, since closing on unread bytes would lose that word. */
function part(socket: Socket, lastWord: string): void {
  socket.removeAllListeners('data');
  socket.resume();
  socket.end(lastWord);
  const timer = setTimeout(() => socket.destroy(), PART_MS);
  socket.once('close', () => clearTimeout(timer));
}

function serveClient(socket: Socket, handler: Handler, log: Log): void {
  let text = '';
  let busy = false;
  socket.setEncoding('utf8');
  socket.setTimeout(IDLE_MS, () => {
    if (!busy) part(socket, failure(new OperationalError('TIMEOUT', 'no request came')));
  });
  // A client that goes away takes nothing with it: what it asked for is still done.
  socket.on('error', (error) => log.debug({ err: error }, 'a control connection broke'));
  const next = async (): Promise<void> => {
    const end = text.indexOf('\n');
    if (busy || end < 0) {
      if (text.length > REQUEST_BYTES_MAX)
        refuse(new OperationalError('BAD_REQUEST', 'the request is too long'));
      return;
    }
    const line = text.slice(0, end);
    text = text.slice(end + 1);
    if (line.length > REQUEST_BYTES_MAX) {
      refuse(new OperationalError('BAD_REQUEST', 'the request is too long'));
      return;
    }
    busy = true;
    socket.pause();
    const { answer, keep } = await answerLine(line, handler, log);
    busy = false;
    if (socket.destroyed) return;
    if (!keep) {
      part(socket, answer);
      return;
    }
    socket.write(answer);
    socket.resume();
    await next();
  };
  const refuse = (error: OperationalError): void => {
    text = '';
    part(socket, failure(error));
  };
  const proceed = (): void => {
    next().catch((error: unknown) => {
      log.error({ err: error }, 'a control connection failed');
      socket.destroy();
    });
  };
  socket.on('data', (chunk: string) => {
    text += chunk;
    proceed();
  });
}

async function answerLine(
  line: string,
  handler: Handler,
  log: Log,
): Promise<{ answer: string; keep: boolean }> {
  let request: Request;
  try {
    request = parseRequest(line);
  } catch (error) {
    return { answer: failure(error), keep: false };
  }
  try {
    const response: Response = { result: (await handler(request)) ?? null };
    return { answer: formatResponse(response), keep: true };
  } catch (error) {
    if (!(error instanceof OperationalError))
      log.error({ err: error, command: request.command }, 'a command failed');
    return { answer: failure(error), keep: true };
  }
}
