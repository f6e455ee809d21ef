/**
 * The control protocol, version 1: what `cldd status` and the other commands say to the daemon.
 *
 * One JSON value a line, in UTF-8, over a unix stream socket with mode 0600:
 *
 *     → {"cldd":1,"command":"slave-enable","arguments":{"target":"iqn…","crashConsistent":false}}
 *     ← {"cldd":1,"result":{…}}
 *     ← {"cldd":1,"error":{"code":"MASTER_MOUNTED","message":"…","refused":true}}
 *
 * Requests of one connection are answered in order, one at a time. A request may have REQUEST_BYTES_MAX bytes. A
 * connection that breaks these rules, or stays silent for IDLE_MS, is closed after an error.
 */
import { parse } from '@hapi/bourne';
import { OperationalError } from '../operational-error.js';

export const PROTOCOL_VERSION = 1;
export const REQUEST_BYTES_MAX = 64 * 1024;
/** The daemon is trusted; this only keeps a client that reached something else from filling its memory. */
export const RESPONSE_BYTES_MAX = 256 * 1024 * 1024;
/** unix(7) has room for 107 bytes; the socket is made under a longer, private name first. */
export const SOCKET_PATH_BYTES_MAX = 90;
export const IDLE_MS = 10_000;
export const CONNECTIONS_MAX = 32;

export interface Arguments {
  target?: string;
  force?: boolean;
  crashConsistent?: boolean;
  since?: number;
  /** Position in bytes where the answer begins. */
  from?: number;
  /** For slave-read: the slave must still be of this generation. */
  generation?: number;
  /** Bytes; see COMMANDS. */
  position?: number;
  length?: number;
  session?: number;
  level?: string;
  dryRun?: boolean;
}

/** Bytes of data in one answer to slave-read; a hole may be longer. */
export const SLAVE_READ_BYTES_MAX = 1024 * 1024;

/** The answer to slave-read: what begins at `position`; `data` in base64, null for a hole. */
export interface SlaveExtent {
  position: number;
  length: number;
  data: string | null;
}

const TARGET = { target: { type: 'string', minLength: 1, maxLength: 255 } };
const FORCE = { force: { type: 'boolean' } };
/** Nothing is changed; what would be is answered, or the error that the command would end with. */
const DRY_RUN = { dryRun: { type: 'boolean' } };

/** The commands, each with the JSON Schema of its arguments. */
export const COMMANDS = {
  status: TARGET,
  targets: {},
  sessions: TARGET,
  'session-kill': { session: { type: 'integer', minimum: 1, maximum: 65535 }, ...DRY_RUN },
  'slave-enable': { ...TARGET, ...DRY_RUN, crashConsistent: { type: 'boolean' } },
  'slave-disable': { ...TARGET, ...FORCE, ...DRY_RUN },
  'slave-read': {
    ...TARGET,
    generation: { type: 'integer', minimum: 1 },
    position: { type: 'integer', minimum: 0, multipleOf: 512 },
    length: { type: 'integer', minimum: 512, multipleOf: 512 },
  },
  rollback: { ...TARGET, ...FORCE, ...DRY_RUN },
  changes: { ...TARGET, since: { type: 'integer', minimum: 0 }, from: { type: 'integer', minimum: 0 } },
  grow: { ...TARGET, ...DRY_RUN },
  reload: DRY_RUN,
  'log-level': { level: { enum: ['debug', 'info', 'warn', 'error', 'silent'] }, ...DRY_RUN },
} as const;
export type CommandName = keyof typeof COMMANDS;

export const REQUIRED: Partial<Record<CommandName, string[]>> = {
  'session-kill': ['session'],
  'slave-read': ['generation', 'position', 'length'],
};

export interface Request {
  command: CommandName;
  arguments: Arguments;
}

export type Response = { result: unknown } | { error: { code: string; message: string; refused: boolean } };

/** A response from one line. @throws {OperationalError} BAD_RESPONSE. */
export function parseResponse(line: string): Response {
  const value = parseLine(line);
  if (isRecord(value) && value['cldd'] === PROTOCOL_VERSION) {
    const { error } = value;
    if ('result' in value) return { result: value['result'] };
    if (isRecord(error) && typeof error['code'] === 'string' && typeof error['message'] === 'string')
      return {
        error: { code: error['code'], message: error['message'], refused: error['refused'] === true },
      };
  }
  throw new OperationalError(
    'BAD_RESPONSE',
    'what answers on the control socket is not a cldd of this version',
  );
}

export function formatRequest({ command, arguments: given }: Request): string {
  return `${JSON.stringify({ cldd: PROTOCOL_VERSION, command, arguments: given })}\n`;
}

export function formatResponse(response: Response): string {
  return `${JSON.stringify({ cldd: PROTOCOL_VERSION, ...response })}\n`;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** @throws {OperationalError} BAD_REQUEST */
export function parseLine(line: string): unknown {
  try {
    return parse(line) as unknown;
  } catch (error) {
    throw new OperationalError('BAD_REQUEST', 'not a JSON value on one line', { cause: error });
  }
}
