/**
 * Every system call of a short life on a real file fails in turn, or does less than it was asked to, once or from then on.
 * A short count is continued and nobody notices; a count of 0 and an error are failures like any other.
 */
import { closeSync, copyFileSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { initStore } from '../../src/cow/init.js';
import { FileStore } from '../../src/cow/store.js';
import { CALLS, FaultyFs } from './faulty-fs.js';
import type { SystemFault } from './faulty-fs.js';
import { Life, PARTITION_BYTES, complaints } from './life.js';

const folder = mkdtempSync(join(tmpdir(), 'cldd-calls-'));
const [base, path] = [join(folder, 'base'), join(folder, 'partition')];
const faulty = new FaultyFs(path);
t.teardown(() => {
  faulty.restore();
  rmSync(folder, { recursive: true, force: true });
});

t.setTimeout(900_000);

t.before(async () => {
  const fd = openSync(base, 'w');
  ftruncateSync(fd, PARTITION_BYTES);
  closeSync(fd);
  const store = FileStore.open(base, 'write');
  await initStore(store);
  await store.close();
});

/** A life with one fault, and what is wrong with it; undefined if the fault found nothing to fail. */
async function wrongWith(fault: SystemFault): Promise<string[] | undefined> {
  copyFileSync(base, path);
  faulty.begin(fault);
  const store = FileStore.open(path, 'write');
  const life = new Life(store, fault.call === 'fdatasync at once' || fault.call === 'pwrite');
  await life.run();
  const { tripped } = faulty;
  faulty.begin(undefined);
  const wrong = [...life.wrongReads];
  const reads = fault.call.startsWith('pread');
  const fails =
    fault.answer !== 'short' && !(fault.answer === 'nothing' && fault.call.startsWith('fdatasync'));
  const failure = life.engine?.core.failure;
  if (tripped && fails && !reads && life.failures === 0) wrong.push('nobody was told');
  if (tripped && !fails && life.failures > 0) wrong.push(`${life.failures} commands failed`);
  if (tripped && fails && !reads && life.engine !== undefined && failure === undefined)
    wrong.push('no fail-stop');
  if ((reads || !fails) && failure !== undefined) wrong.push(`it takes no more writes: ${failure.message}`);
  await life.engine?.core.idle();
  await store.close();
  const again = FileStore.open(path, 'write');
  wrong.push(...(await complaints(again, life)));
  await again.close();
  return tripped ? wrong : undefined;
}

for (const call of CALLS) {
  for (const answer of ['EIO', 'ENOSPC', 'short', 'nothing'] as const) {
    if (call.startsWith('fdatasync') && (answer === 'short' || answer === 'nothing')) continue;
    if (call.startsWith('pread') && answer === 'ENOSPC') continue;
    void t.test(`Every ${call} in turn: ${answer}, once and from then on`, async (t) => {
      const found: string[] = [];
      let tried = 0;
      for (const persistent of answer === 'nothing' ? [false] : [false, true]) {
        for (let at = 0; ; at++, tried++) {
          const wrong = await wrongWith({ call, at, persistent, answer });
          if (wrong === undefined) break;
          for (const what of wrong) found.push(`${call} ${at}${persistent ? ' and all later' : ''}: ${what}`);
        }
      }
      t.same(found.slice(0, 10), []);
      t.ok(tried > 5, `${tried} calls failed in turn`);
    });
  }
}
