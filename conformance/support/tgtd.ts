/** tgtd, the C target that the project is compared with, on loopback with its own control port. */
import { Running, succeed } from './processes.js';
import { freePort } from './ports.js';

export interface Tgtd {
  target: string;
  ports: number[];
  pid: number;
  /** Runs tgtadm on it. */
  admin(...args: string[]): Promise<string>;
  stop(): Promise<void>;
}

let started = 0;

/** Serves each backing file as a LUN, from LUN 1 on (0 is tgtd's controller), on as many portals as asked for. */
export async function startTgtd(files: readonly string[], portals = 1): Promise<Tgtd> {
  const target = 'iqn.2025-01.org.example:tgtd';
  const ports: number[] = [];
  for (let portal = 0; portal < portals; portal++) ports.push(await freePort());
  // The control port is only a number in the name of a unix socket.
  const control = String(((process.pid * 8 + started++) % 32_000) + 1);
  const listen = ports.map((port) => `portal=127.0.0.1:${port}`).join(',');
  const daemon = new Running('tgtd', ['-f', '--iscsi', listen, '-C', control]);
  const admin = async (...args: string[]): Promise<string> =>
    await succeed('tgtadm', ['-C', control, '--lld', 'iscsi', ...args]);
  try {
    await daemon.waitFor(/tgtd daemon started|work_timer_start|bs_init/, 10_000);
    await admin('--op', 'new', '--mode', 'target', '--tid', '1', '-T', target);
    for (const [index, file] of files.entries()) {
      await admin(
        '--op',
        'new',
        '--mode',
        'logicalunit',
        '--tid',
        '1',
        '--lun',
        String(index + 1),
        '-b',
        file,
      );
    }
    await admin('--op', 'bind', '--mode', 'target', '--tid', '1', '-I', 'ALL');
  } catch (error) {
    await daemon.end('SIGKILL');
    throw error;
  }
  return {
    target,
    ports,
    pid: daemon.pid,
    admin,
    stop: async () => {
      await daemon.end('SIGKILL');
    },
  };
}
