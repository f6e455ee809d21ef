/** Log lines for people at a terminal. */
import { PinoPretty } from 'pino-pretty';

export function pinoPretty() {
  const colorize = !process.env['NO_COLOR'];
  return PinoPretty({
    destination: 2,
    sync: true,
    colorize,
    translateTime: 'SYS:HH:MM:ss',
    ignore: 'pid,hostname',
  });
}
