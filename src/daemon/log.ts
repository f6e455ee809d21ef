/** The daemon's log: pino to stderr, JSON lines or, on a terminal, text; a message that repeats is counted, not repeated. */
import { pino } from 'pino';
import { pinoPretty } from './pretty.js';
import type { Log } from '../iscsi/options.js';
import type { LogLevel } from '../config/configuration.js';

/** The same message is written so often within a window; what exceeds it is counted and told once. */
const REPEATS_MAX = 20;
const WINDOW_MS = 10_000;
/** Different messages that are counted at a time; texts are written in the code, so there are few. */
const MESSAGES_MAX = 1000;

export interface DaemonLog extends Log {
  /** Least important level that is written. */
  level: LogLevel;
}

/** The log of the process, to stderr. Synchronous, so that nothing is lost when the process ends. */
export function createLog(level: LogLevel): DaemonLog {
  const stream = process.stderr.isTTY ? pinoPretty() : pino.destination({ dest: 2, sync: true });
  const logger = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, stream);
  const limited = limitRepeats(logger);
  return {
    ...limited,
    get level() {
      return logger.level as LogLevel;
    },
    set level(next: LogLevel) {
      logger.level = next;
    },
  };
}

/** Passes on what `log` is told, but a message that floods it only now and then. `now` in milliseconds. */
export function limitRepeats(log: Log, now: () => number = Date.now): Log {
  const seen = new Map<string, { since: number; count: number }>();
  const admits = (message: string): number | undefined => {
    const entry = seen.get(message);
    if (entry === undefined || now() - entry.since > WINDOW_MS) {
      if (seen.size >= MESSAGES_MAX) seen.clear();
      seen.set(message, { since: now(), count: 1 });
      return Math.max((entry?.count ?? 0) - REPEATS_MAX, 0);
    }
    entry.count++;
    return entry.count <= REPEATS_MAX ? 0 : undefined;
  };
  const through =
    (level: 'debug' | 'info' | 'warn' | 'error') =>
    (fields: object, message: string): void => {
      const suppressed = admits(message);
      if (suppressed !== undefined) log[level](suppressed > 0 ? { ...fields, suppressed } : fields, message);
    };
  return { debug: through('debug'), info: through('info'), warn: through('warn'), error: through('error') };
}
