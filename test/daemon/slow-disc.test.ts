/** One slow disc doesn't stop the sessions of another target. */
import { join } from 'node:path';
import tap from 'tap';
import { Session } from '../../conformance/rfc7143/session.js';
import { read10, STATUS, write10 } from '../../conformance/rfc7143/scsi.js';
import { isid } from '../../conformance/rfc7143/pdu.js';
import type { Target } from '../../conformance/rfc7143/target.js';
import { FileStore } from '../../src/cow/store.js';
import { PREFIX, serve, target } from './support.js';

const READ_MS = 40;
const POOL_READ_MS = 500;
const SYNC_MS = 600;
const READS = 64;
const FUA = 0x08;
const BLOCK_BYTES = 512;

interface SlowDisc {
  slow: boolean;
  /** Reads that stopped the event loop. */
  readsAtOnce: number;
}

const sleeper = new Int32Array(new SharedArrayBuffer(4));

/** Makes the next store that is opened at `path` a disc that seeks, as long as it is told to. */
function slowDown(path: string): SlowDisc {
  const disc: SlowDisc = { slow: false, readsAtOnce: 0 };
  const open = FileStore.open.bind(FileStore);
  FileStore.open = (opened, mode) => {
    const store = open(opened, mode);
    if (opened !== path) return store;
    FileStore.open = open;
    const readSync = store.readSync.bind(store);
    const read = store.read.bind(store);
    const sync = store.sync.bind(store);
    store.readSync = (...args) => {
      if (disc.slow) {
        disc.readsAtOnce++;
        Atomics.wait(sleeper, 0, 0, READ_MS);
      }
      readSync(...args);
    };
    store.read = (...args) => void setTimeout(() => read(...args), disc.slow ? POOL_READ_MS : 0);
    store.sync = (done) => void setTimeout(() => sync(done), disc.slow ? SYNC_MS : 0);
    return store;
  };
  return disc;
}

void tap.test('reads and flushes of a disc that seeks leave the event loop to others', async (t) => {
  let disc: SlowDisc = { slow: false, readsAtOnce: 0 };
  const { daemon } = await serve(t, ['slow', 'fast'], (folder) => {
    disc = slowDown(join(folder, 'slow'));
    return { portals: [{ listen: '127.0.0.1:0' }], targets: [target('slow'), target('fast')] };
  });
  const [{ host, port }] = daemon.portals;
  let qualifier = 0;
  const login = async (name: string): Promise<Session> => {
    const reached: Target = {
      host,
      port,
      iqn: PREFIX + name,
      lun: 0,
      profile: {},
      sessions: [],
      freshIsid: () => isid(++qualifier),
      stop: () => Promise.resolve(),
    };
    const session = await Session.login(reached);
    t.teardown(() => session.connection.destroy());
    return session;
  };
  const [slow, fast] = [await login('slow'), await login('fast')];
  const data = Buffer.alloc(8 * BLOCK_BYTES, 0x77);
  for (const session of [slow, fast])
    for (let block = 0; block < READS; block++) {
      const { status } = await session.execute({ cdb: write10(8 * block, 8), write: data });
      t.equal(status, STATUS.GOOD);
    }

  /** Counts what the fast disc answers until `work` is done. */
  const answeredDuring = async (work: Promise<unknown>): Promise<number> => {
    let over = false;
    const end = work.then(() => (over = true));
    let answered = 0;
    for (; !over; answered++) {
      const { status } = await fast.execute({ cdb: read10(0, 8), read: data.length });
      if (status !== STATUS.GOOD) throw new Error(`status ${status}`);
    }
    await end;
    return answered;
  };

  disc.slow = true;
  const tags = Array.from({ length: READS }, (_, block) =>
    slow.sendCommand({ cdb: read10(8 * block, 8), read: data.length }),
  );
  const reads = (async () => {
    for (const tag of tags) t.same((await slow.finish(tag, { read: data.length })).data, data);
  })();
  const duringReads = await answeredDuring(reads);
  t.ok(disc.readsAtOnce <= 6, `${disc.readsAtOnce} of ${READS} reads stopped the event loop`);
  t.ok(duringReads >= 10, `${duringReads} answers of the other disc meanwhile`);

  const fua = write10(0, 8);
  fua[1] |= FUA;
  const duringSync = await answeredDuring(slow.execute({ cdb: fua, write: data }));
  t.ok(duringSync >= 20, `${duringSync} answers during a durable write`);
  disc.slow = false;
});
