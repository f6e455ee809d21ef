/** Why a portal can't be listened on, for people. */
import { OperationalError } from '../operational-error.js';

const HINTS: Record<string, string> = {
  EADDRINUSE: 'is in use by another program; stop that one or choose another port',
  EADDRNOTAVAIL: 'is not an address of this host',
  EACCES: 'may not be used: ports below 1024 need privileges',
};

/** Codes PORTAL_IN_USE, PORTAL_UNUSABLE; anything that isn't a listen error is returned as it is. */
export function explainListenError(error: unknown, socketActivated = false): unknown {
  if (!(error instanceof Error) || !('portal' in error) || !('code' in error)) return error;
  const code = String(error.code);
  const hint =
    socketActivated && code === 'EADDRINUSE'
      ? 'is in use: a ListenStream= of cldd.socket has to be exactly the address of a portal'
      : (HINTS[code] ?? `can't be listened on (${code})`);
  const message = `portal ${String(error.portal)} ${hint}`;
  return new OperationalError(code === 'EADDRINUSE' ? 'PORTAL_IN_USE' : 'PORTAL_UNUSABLE', message, {
    cause: error,
  });
}
