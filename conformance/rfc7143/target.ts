/**
 * The target under test. By default our own daemon on a scratch partition; RFC7143_TARGET chooses another:
 * `tgtd` starts that program (to see how the tests judge somebody else), `exec:COMMAND` any program that takes a
 * profile, `HOST:PORT,IQN` takes one that runs.
 */
import '../support/without-hook.js';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { startCldd } from './cldd.js';
import { isid } from './pdu.js';
import type { Session } from './session.js';
import { startTgtd } from './tgtd.js';

/** What a theme asks of its target. */
export interface Profile {
  /** CHAP user that initiators have to present; absent: no authentication. */
  chap?: { name: string; secret: string; mutualName: string; mutualSecret: string };
  /** Time to finish a login, if the theme tests it. */
  loginTimeoutMs?: number;
  /** Idle time before the target pings, and time to answer. */
  nopIntervalMs?: number;
  nopTimeoutMs?: number;
  /** A module of ours that the daemon loads first (`node --import`): a planted fault, which a test has to find. */
  planted?: string;
}

export interface Started {
  host: string;
  port: number;
  iqn: string;
  /** The disk that may be written. */
  lun: number;
  /** Path of its configuration, if it is a daemon of ours in a process of its own. */
  configuration?: string;
  /** Process id, if the target is a process of ours. */
  pid?: number;
  /** What of the profile it really has. */
  profile: Profile;
  stop: () => Promise<void>;
}

export interface Target extends Started {
  /** Address that the initiator connects from; undefined: as the system chooses. */
  from?: string;
  /** Sessions of the running test, closed after it. */
  sessions: Session[];
  /** An ISID that no session used before. */
  freshIsid: () => Buffer;
}

/** Starts the target that the environment names. End it with `stop`. */
export async function startTarget(profile: Profile = {}): Promise<Target> {
  const started = await start(process.env['RFC7143_TARGET'] ?? 'cldd', profile);
  let qualifier = 0x100;
  return { ...started, sessions: [], freshIsid: () => isid(++qualifier) };
}

function start(wanted: string, profile: Profile): Promise<Started> {
  if (wanted === 'cldd') return startCldd(profile);
  if (wanted === 'tgtd') return startTgtd();
  if (wanted.startsWith('exec:')) return launch(wanted.slice('exec:'.length), profile);
  const { host, port, iqn } = address(wanted);
  return Promise.resolve({ host, port, iqn, lun: 0, profile: {}, stop: () => Promise.resolve() });
}

function address(text: string): { host: string; port: number; iqn: string } {
  const match = /^(.+):(\d+),(.+)$/.exec(text.trim());
  if (match === null) throw new Error(`not of the form HOST:PORT,IQN: ${text}`);
  const [, host = '', port = '', iqn = ''] = match;
  return { host, port: Number(port), iqn };
}

/** Starts a program that reads the profile from RFC7143_PROFILE and says where it listens in its first line. */
async function launch(command: string, profile: Profile): Promise<Started> {
  const [program = '', ...args] = command.split(' ');
  const env = { ...process.env, RFC7143_PROFILE: JSON.stringify(profile) };
  const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
  return {
    ...address(line),
    lun: 0,
    ...(child.pid === undefined ? {} : { pid: child.pid }),
    profile,
    stop: async () => {
      if (child.exitCode !== null) throw new Error(`the target ended by itself with code ${child.exitCode}`);
      child.kill('SIGTERM');
      await once(child, 'exit');
    },
  };
}
