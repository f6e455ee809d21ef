/** A target whose master is to be sanitized. */
import { MEDIUM } from '../../src/scsi/medium.js';
import { bench, cdb10 } from './support.js';
import type { Bench, Outcome } from './support.js';

export const RECORD = 'scsi.sanitize.master';
export const IMMED = 0x80;
export const AUSE = 0x20;
export const OVERWRITE = 0x01;
export const BLOCK_ERASE = 0x02;
export const EXIT_FAILURE_MODE = 0x1f;
export const SANITIZE_COMMAND_FAILED = '03/31/03';
export const INVALID_FIELD_IN_CDB = '05/24/00';

export const READ = cdb10(0x28, 0, 1);
export const TEST_UNIT_READY = [0, 0, 0, 0, 0, 0];
export const REQUEST_SENSE = [3, 0, 0, 0, 252, 0];
export const PATTERN = 0x3c;

export function sanitize(byte1: number, bytes = 0): number[] {
  return [0x48, byte1, 0, 0, 0, 0, 0, bytes >> 8, bytes & 255, 0];
}

export function served(options: Parameters<typeof bench>[0] = {}) {
  const made = bench(options);
  const nexus = made.login();
  const run = (cdb: number[], dataOut?: Buffer): Promise<Outcome> => made.run(nexus, 0, cdb, dataOut);
  const list = Buffer.from([1, 0, 0, 1, PATTERN]);
  const overwrite = (flags: number): Promise<Outcome> => run(sanitize(flags | OVERWRITE, list.length), list);
  const sense = async (): Promise<string> => {
    const { data } = await run(REQUEST_SENSE);
    return [data[2], data[12], data[13]].map((byte) => byte.toString(16).padStart(2, '0')).join('/');
  };
  return { ...made, nexus, list, overwriteCdb: sanitize(OVERWRITE, list.length), run, overwrite, sense };
}

/** A unit whose last SANITIZE, with these flags, has failed; its medium is good again. */
export async function failed(flags: number, options: Parameters<typeof bench>[0] = {}) {
  const made = served(options);
  made.master.fail = MEDIUM.FAILED;
  await made.overwrite(flags);
  made.master.fail = MEDIUM.OK;
  return made;
}

/** The same partition with a daemon that has just started. */
export function restarted({ master, state }: Pick<Bench, 'master' | 'state'>) {
  return served({ master, state });
}
