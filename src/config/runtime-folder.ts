/** Where the control socket lies when nobody says otherwise. */
import { join } from 'node:path';
import { tmpdir } from 'node:os';

/** `cldd.sock` in systemd's runtime folder of the service, in /run/cldd for root, else in the user's runtime folder. */
export function defaultControlSocket(environment: NodeJS.ProcessEnv = process.env): string {
  // Not userInfo(): a service or a container may run as a user that no database knows.
  const uid = process.getuid?.() ?? -1;
  const { RUNTIME_DIRECTORY: service, XDG_RUNTIME_DIR: user } = environment;
  if (service) return join(service.split(':')[0], 'cldd.sock');
  if (uid === 0) return '/run/cldd/cldd.sock';
  return join(user ?? join(tmpdir(), `cldd-${uid}`), 'cldd.sock');
}
