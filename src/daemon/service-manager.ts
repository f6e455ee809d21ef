/**
 * What systemd gives a service and wants to hear of it: sockets that listen already (sd_listen_fds(3)), and messages
 * that it is ready, alive or stopping (sd_notify(3)).
 *
 * Node has no datagram sockets of the unix family, so systemd's own program sends the messages. It is started by a
 * small shell that lives beside the daemon and reads lines from it: a fork of the daemon itself, with all its memory,
 * would hold up the event loop each time. The watchdog is fed by a timer, so a loop that hangs feeds it no more; if
 * the daemon ends, the shell reads an end of file, and ends.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import type { Log } from '../iscsi/options.js';

/** SD_LISTEN_FDS_START. */
const FIRST_FD = 3;
const FDS_MAX = 64;
/** Feeds within the time that the watchdog allows, so that one that comes late does no harm. */
const FEEDS_PER_LIMIT = 3;
/** How long the end of the service may wait for its last message to be sent. */
const FAREWELL_MS = 2000;
/** `systemd-notify` waits until systemd has read the message, so the sender is still known then. */
const RELAY = 'while IFS= read -r line; do systemd-notify "$line" || echo "$line" >&2; done';

/** Descriptors of sockets that the service manager listens at for this process; and no longer for its children. */
export function inheritedFds(environment: NodeJS.ProcessEnv = process.env, pid = process.pid): number[] {
  const { LISTEN_PID: listener, LISTEN_FDS: fds } = environment;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES'])
    Reflect.deleteProperty(environment, name);
  if (listener === undefined || fds === undefined || Number(listener) !== pid) return [];
  if (!/^\d+$/.test(fds) || Number(fds) > FDS_MAX) return [];
  return Array.from({ length: Number(fds) }, (_, index) => FIRST_FD + index);
}

export class ServiceManager {
  readonly #child: ChildProcess | undefined;
  readonly #watchdogMs: number | undefined;
  #feed: NodeJS.Timeout | undefined;

  /** Does nothing without NOTIFY_SOCKET. */
  constructor(log: Log, environment: NodeJS.ProcessEnv = process.env, pid = process.pid) {
    const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: usec, WATCHDOG_PID: watched } = environment;
    if (socket === undefined || socket === '') return;
    if (usec !== undefined && Number(usec) > 0 && (watched === undefined || Number(watched) === pid))
      this.#watchdogMs = Number(usec) / 1000;
    const child = spawn('/bin/sh', ['-c', RELAY], {
      stdio: ['pipe', 'ignore', 'pipe'],
      env: { PATH: environment['PATH'], NOTIFY_SOCKET: socket },
    });
    const failed = (why: string): void => log.warn({ why }, "the service manager can't be told of the state");
    child.on('error', (error) => failed(error.message));
    child.stdin.on('error', (error) => failed(error.message));
    child.stderr.setEncoding('utf8').on('data', (text: string) => failed(text.trim()));
    this.#child = child;
  }

  /** All portals listen. From here on the watchdog is fed. */
  ready(status: string): void {
    this.#send('READY=1');
    this.#send(`STATUS=${status.replaceAll('\n', ' ')}`);
    if (this.#watchdogMs === undefined) return;
    this.#feed = setInterval(() => this.#send('WATCHDOG=1'), this.#watchdogMs / FEEDS_PER_LIMIT);
    this.#feed.unref();
  }

  /** The watchdog is still fed: a stop has a time limit of its own. */
  stopping(): void {
    this.#send('STOPPING=1');
  }

  /** Sends what is left and lets the messenger go. */
  async close(): Promise<void> {
    clearInterval(this.#feed);
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.pid === undefined) return;
    await new Promise<void>((resolve) => {
      const limit = setTimeout(() => {
        child.kill('SIGKILL');
        resolve();
      }, FAREWELL_MS);
      child.once('close', () => {
        clearTimeout(limit);
        resolve();
      });
      child.stdin?.end();
    });
  }

  #send(line: string): void {
    const stdin = this.#child?.stdin;
    // What waits unread is as good as unsaid: the messenger hangs.
    if (stdin?.writable === true && !stdin.writableNeedDrain) stdin.write(`${line}\n`);
  }
}
