/** tgtd as a stand-in: another implementation, to see whether a failing test is ours or the target's. */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startTgtd as serve } from '../support/tgtd.js';
import type { Started } from './target.js';

const STORE_BYTES = 64 * 1024 * 1024;

/** Serves an empty disk without authentication, whatever the profile asks for. */
export async function startTgtd(): Promise<Started> {
  const folder = mkdtempSync(join(tmpdir(), 'rfc7143-'));
  const store = join(folder, 'store');
  writeFileSync(store, '');
  truncateSync(store, STORE_BYTES);
  const served = await serve([store]);
  return {
    host: '127.0.0.1',
    port: served.ports[0] ?? 0,
    iqn: served.target,
    lun: 1,
    profile: {},
    stop: async () => {
      await served.stop();
      rmSync(folder, { recursive: true });
    },
  };
}
