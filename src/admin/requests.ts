/** The daemon's end of the control protocol: what a request has to look like. Commands, which only ask, load none of it. */
import { OperationalError } from '../operational-error.js';
import { newAjv } from '../json-schema.js';
import { COMMANDS, PROTOCOL_VERSION, REQUIRED, parseLine } from './protocol.js';
import type { Arguments, CommandName, Request } from './protocol.js';

const ajv = newAjv({ allErrors: true, strict: true });
const checkEnvelope = ajv.compile<{ cldd: number; command: CommandName; arguments?: Arguments }>({
  type: 'object',
  additionalProperties: false,
  required: ['cldd', 'command'],
  properties: {
    cldd: { type: 'integer' },
    command: { enum: Object.keys(COMMANDS) },
    arguments: { type: 'object' },
  },
});
const checkArguments = new Map(
  Object.entries(COMMANDS).map(([command, properties]) => [
    command,
    ajv.compile<Arguments>({
      type: 'object',
      additionalProperties: false,
      required: REQUIRED[command as CommandName] ?? [],
      properties,
    }),
  ]),
);

/** A request from one line. @throws {OperationalError} BAD_REQUEST, or PROTOCOL_VERSION for another version. */
export function parseRequest(line: string): Request {
  const value = parseLine(line);
  if (!checkEnvelope(value)) throw new OperationalError('BAD_REQUEST', ajv.errorsText(checkEnvelope.errors));
  if (value.cldd !== PROTOCOL_VERSION) {
    throw new OperationalError(
      'PROTOCOL_VERSION',
      `the daemon speaks control protocol ${PROTOCOL_VERSION}, not ${value.cldd}: use the cldd of the same version`,
    );
  }
  const check = checkArguments.get(value.command);
  const given = value.arguments ?? {};
  if (check?.(given) !== true) throw new OperationalError('BAD_REQUEST', ajv.errorsText(check?.errors));
  return { command: value.command, arguments: given };
}
