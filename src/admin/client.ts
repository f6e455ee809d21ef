/** The commands' end of the control socket: one request, one answer. */
import { connect } from 'node:net';
import { OperationalError } from '../operational-error.js';
import { RESPONSE_BYTES_MAX, formatRequest, parseResponse } from './protocol.js';
import type { Request } from './protocol.js';

/** Longer than any drain; a daemon that takes more is stuck. */
export const ANSWER_MS = 120_000;

/** The daemon can't be reached: exit code 4. */
export const UNREACHABLE = 'DAEMON_UNREACHABLE';

/** An error that the daemon answered with. */
export class DaemonError extends OperationalError {
  readonly refused: boolean;

  constructor(code: string, message: string, refused: boolean) {
    super(code, message);
    this.refused = refused;
  }
}

/**
 * Sends a request to the daemon at `path` and returns its result.
 * @throws {DaemonError} as the daemon answered; OperationalError DAEMON_UNREACHABLE, BAD_RESPONSE.
 */
export async function ask(path: string, request: Request, timeoutMs = ANSWER_MS): Promise<unknown> {
  const response = parseResponse(await exchange(path, formatRequest(request), timeoutMs));
  if ('result' in response) return response.result;
  const { code, message, refused } = response.error;
  throw new DaemonError(code, message, refused);
}

function exchange(path: string, line: string, timeoutMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const socket = connect(path);
    const fail = (message: string, cause?: unknown): void => {
      socket.destroy();
      reject(new OperationalError(UNREACHABLE, message, { cause }));
    };
    const timer = setTimeout(
      () => fail(`the daemon at ${path} gave no answer in ${timeoutMs} ms`),
      timeoutMs,
    );
    socket.once('connect', () => socket.write(line));
    socket.on('data', (chunk) => {
      bytes += chunk.length;
      if (bytes > RESPONSE_BYTES_MAX) {
        fail(`the answer of the daemon at ${path} is too long`);
        return;
      }
      chunks.push(chunk);
      if (chunk.at(-1) === 10) socket.end();
    });
    socket.once('error', (error: NodeJS.ErrnoException) => fail(explain(path, error), error));
    socket.once('close', () => {
      clearTimeout(timer);
      const text = Buffer.concat(chunks).toString('utf8');
      if (text.endsWith('\n')) resolve(text.slice(0, -1));
      else fail(`the daemon at ${path} closed the connection without an answer`);
    });
  });
}

function explain(path: string, { code, message }: NodeJS.ErrnoException): string {
  switch (code) {
    case 'ENOENT':
    case 'ECONNREFUSED':
      return `no cldd daemon answers on ${path}: start it with \`cldd serve\`, or name its socket with --socket or --config`;
    case 'EACCES':
      return `no permission for the control socket ${path}: use the daemon's user`;
    default:
      return `the control socket ${path} can't be reached: ${message}`;
  }
}
