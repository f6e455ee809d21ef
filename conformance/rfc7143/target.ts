/**
 * The target under test. By default our own daemon on a scratch partition; RFC7143_TARGET chooses another:
 * `tgtd` starts that program (to see how the tests judge somebody else), `HOST:PORT,IQN` takes one that runs.
 */
import { isid } from './pdu.js';
import type { Session } from './session.js';
import { startTgtd } from './tgtd.js';

/** What a theme asks of its target. */
export interface Profile {
  /** CHAP user that initiators have to present; absent: no authentication. */
  chap?: { name: string; secret: string; mutualName?: string; mutualSecret?: string };
  /** Time to finish a login, if the theme tests it. */
  loginTimeoutMs?: number;
  /** Idle time before the target pings, and time to answer. */
  nopIntervalMs?: number;
  nopTimeoutMs?: number;
}

export interface Started {
  host: string;
  port: number;
  iqn: string;
  /** The disk that may be written. */
  lun: number;
  /** Process id, if the target is a process of ours. */
  pid?: number;
  /** What of the profile it really has. */
  profile: Profile;
  stop: () => Promise<void>;
}

export interface Target extends Started {
  /** Sessions of the running test, closed after it. */
  sessions: Session[];
  /** An ISID that no session used before. */
  freshIsid: () => Buffer;
}

/** Starts the target that the environment names. End it with `stop`. */
export async function startTarget(profile: Profile = {}): Promise<Target> {
  const wanted = process.env['RFC7143_TARGET'] ?? 'cldd';
  const started = await (wanted === 'tgtd' ? startTgtd(profile) : Promise.resolve(external(wanted)));
  let qualifier = 0x100;
  return { ...started, sessions: [], freshIsid: () => isid(++qualifier) };
}

function external(text: string): Started {
  const match = /^(.+):(\d+),(.+)$/.exec(text);
  if (match === null) throw new Error(`RFC7143_TARGET is to be "cldd", "tgtd" or HOST:PORT,IQN, not ${text}`);
  const [, host = '', port = '', iqn = ''] = match;
  return { host, port: Number(port), iqn, lun: 0, profile: {}, stop: () => Promise.resolve() };
}
