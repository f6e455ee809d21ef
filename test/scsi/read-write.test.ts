/** READ and WRITE: how they use the medium, what they count, and how they end when they had to wait (SBC-5 §5.16, §5.43). */
import t from 'tap';
import { Background } from '../../src/scsi/background.js';
import { MEDIUM } from '../../src/scsi/medium.js';
import { TASK_MANAGEMENT } from '../../src/scsi/port.js';
import { STATUS } from '../../src/scsi/sense.js';
import { bench, cdb10, MemoryMedium } from './support.js';
import type { Bench, TestTask } from './support.js';
import { told, watch } from './watch.js';

const [READ_6, WRITE_6, READ_10, WRITE_10] = [0x08, 0x0a, 0x28, 0x2a];
const FUA = 0x08;

void t.test(
  'Whole blocks are read straight into the answer, parts of blocks by way of whole ones',
  async (t) => {
    const b = bench();
    const nexus = b.login();
    const seen = watch(b.master);
    const whole = b.start(nexus, 0, cdb10(READ_10, 100, 8), undefined, (task) => (task.chunkBytes = 2048));
    t.same([told(seen), whole.ends], [['read 100+4', 'read 104+4'], 1]);
    t.equal(seen[1].buffer, whole.inBuffer);
    seen.length = 0;
    const odd = b.start(nexus, 0, cdb10(READ_10, 100, 4), undefined, (task) => (task.chunkBytes = 700));
    t.same([told(seen), odd.ends], [['read 100+2', 'read 101+2', 'read 102+2'], 1]);
    t.equal((await odd.whenEnded()).data.length, 2048);
    seen.length = 0;
    b.start(nexus, 0, cdb10(READ_10, 100, 4), undefined, (task) => {
      task.chunkBytes = 700;
      task.expectedDataIn = 1212;
    });
    t.same(told(seen), ['read 100+2', 'read 101+2'], 'a block long, but of two');

    b.master.slow = true;
    seen.length = 0;
    const slow = b.start(nexus, 0, cdb10(READ_10, 100, 8), undefined, (task) => (task.chunkBytes = 2048));
    t.same(told(seen), ['readAsync 100+4', 'readAsync 104+4'], 'two pieces at once');
    b.master.bytes.fill(3, 100 * 512, 104 * 512).fill(4, 104 * 512, 108 * 512);
    const { data, ends } = await slow.whenEnded();
    t.same([data.length, data[0], data[2048], ends], [4096, 3, 4, 1]);
    for (const chunkBytes of [700, 1536]) {
      const task = b.start(nexus, 0, cdb10(READ_10, 100, 8), undefined, (given) => {
        given.chunkBytes = chunkBytes;
        given.expectedDataIn = 4000;
      });
      t.ok((await task.whenEnded()).data.equals(b.master.bytes.subarray(51_200, 55_200)));
    }
  },
);

void t.test(
  'A block that cannot be read is told by its LBA, or that of its piece (SBC-5 §4.18.1)',
  async (t) => {
    const b = bench();
    const nexus = b.login();
    const { master } = b;
    const lba = async (cdb: number[]): Promise<number | undefined> =>
      (
        await b.start(nexus, 0, cdb, undefined, (task) => (task.chunkBytes = 2048)).whenEnded()
      ).sense?.readUInt32BE(3);
    const read = master.read.bind(master);
    master.read = (position, ...rest) =>
      position === 104 * 512 ? MEDIUM.READ_ERROR : read(position, ...rest);
    t.equal(await lba(cdb10(READ_10, 100, 8)), 104);
    master.slow = true;
    t.equal(await lba(cdb10(READ_10, 104, 2)), 104);
  },
);

void t.test(
  'FUA is a bit of the longer CDBs; in those of 6 bytes it is one of the LBA (SBC-5 §5.16)',
  async (t) => {
    const b = bench({ master: new MemoryMedium(1 << 30, { sparse: true }) });
    const nexus = b.login();
    const { master } = b;
    master.read = () => MEDIUM.OK;
    const seen = watch(master);
    await b.run(nexus, 0, [READ_6, 0x08, 0, 0, 1, 0]);
    await b.run(nexus, 0, [WRITE_6, 0x08, 0, 0, 1, 0], Buffer.alloc(512));
    t.same([told(seen), master.flushes], [['read 524288+1', 'write 524288+1'], 0]);

    const small = bench();
    small.master.bytes.fill(5, 0, 512);
    const host = small.login();
    const { data } = await small.run(host, 0, cdb10(READ_10, 0, 1, FUA));
    t.ok(data.equals(Buffer.alloc(512, 5)));
    t.equal(small.target.performance().master.queueDepth, 0, 'a read that had to wait is gone as it ends');
    await small.run(host, 1, cdb10(READ_10, 0, 1, FUA));
    t.same([small.master.flushes, small.slave.flushes], [1, 0], 'nothing waits for the slave');
  },
);

void t.test('Reads and writes of the master make backups give way, reads of the slave do not', async (t) => {
  let nowMs = 0;
  const background = new Background({ now: () => nowMs, nextTurn: setImmediate });
  const b = bench({ background });
  const nexus = b.login();
  const givesWay = (lun: number): boolean => {
    nowMs = nexus.paths[lun]?.lastUseMs ?? 0;
    return !background.admits(512, true);
  };
  await b.run(nexus, 1, cdb10(READ_10, 0, 1));
  t.notOk(givesWay(1));
  await b.run(nexus, 0, cdb10(READ_10, 0, 1));
  t.ok(givesWay(0));
  nowMs += 60_000;
  t.ok(background.admits(512, true), 'for so long nobody has used it');
  await b.run(nexus, 0, cdb10(WRITE_10, 0, 1), Buffer.alloc(512));
  t.ok(givesWay(0));
});

void t.test('A WRITE is written as its data come, and counted', async (t) => {
  const b = bench();
  const nexus = b.login();
  const seen = watch(b.master);
  const task = b.start(nexus, 0, cdb10(WRITE_10, 100, 8, FUA), Buffer.alloc(4096), (given) => {
    given.chunkBytes = 2048;
  });
  t.equal((await task.whenEnded()).status, 0);
  t.same(told(seen), ['write 100+4', 'write 104+4']);
  const { writeOps, writeBytes, flushes } = b.target.statistics().master;
  t.same([writeOps, writeBytes, flushes], [1, 4096, 1]);
  const part = b.start(nexus, 0, cdb10(WRITE_10, 100, 1), Buffer.alloc(300));
  t.same(
    [(await part.whenEnded()).status, seen.length],
    [0, 2],
    'no whole block has come: nothing is written',
  );
});

/** A WRITE of 8 blocks to a medium that holds it back, of whose data the first half has come. */
function halfCome(flags = 0): Bench & { task: TestTask; rest: () => void; end: () => void } {
  const b = bench();
  b.master.held = true;
  const task = b.start(b.login(), 0, cdb10(WRITE_10, 0, 8, flags), Buffer.alloc(4096), (given) => {
    given.withheld = true;
  });
  const chunk = (): void => task.handler?.onDataOut(task, Buffer.alloc(2048, 6), 0, 2048);
  chunk();
  return { ...b, task, rest: chunk, end: () => task.handler?.onDataOutEnd(task) };
}

void t.test(
  'A held WRITE ends when all has come and is written, and durable if it asks for that',
  async (t) => {
    for (const flags of [0, FUA]) {
      const { task, rest, end, master } = halfCome(flags);
      master.release();
      t.same([task.ended, task.releases], [false, 1], 'the other half is to come');
      master.held = true;
      rest();
      end();
      t.notOk(task.ended);
      master.holdFlush = true;
      master.held = false;
      master.release();
      if (flags === FUA) t.notOk(task.ended, 'not before the flush');
      const { status, ends } = await task.whenEnded();
      t.same([status, ends, master.flushes], [0, 1, flags === FUA ? 1 : 0]);
      t.ok(master.bytes.subarray(0, 4096).equals(Buffer.alloc(4096, 6)));
    }
  },
);

void t.test('What is kept of a WRITE is given back once, when none of it is needed any more', async (t) => {
  const b = bench();
  b.master.held = true;
  const task = b.start(b.login(), 0, cdb10(WRITE_10, 0, 8), Buffer.alloc(4096), (given) => {
    given.chunkBytes = 1024;
  });
  b.master.release();
  t.same([(await task.whenEnded()).status, task.releases], [0, 1]);
});

void t.test('A held WRITE that fails, or whose flush does, is never GOOD', async (t) => {
  for (const flags of [0, FUA]) {
    const { task, rest, end, master } = halfCome(flags);
    rest();
    end();
    master.fail = MEDIUM.FAILED;
    master.release();
    t.equal((await task.whenEnded()).code, '04/3e/01');
    t.equal(master.flushes, 0, 'nothing to make durable');
  }
  const { task, rest, end, master } = halfCome(FUA);
  rest();
  end();
  master.flush = (done) => setImmediate(() => done(MEDIUM.FAILED));
  master.release();
  t.equal((await task.whenEnded()).code, '04/3e/01');
});

void t.test(
  'An aborted WRITE ends once, when nothing of it is under way, with or without its data',
  async (t) => {
    for (const complete of [false, true]) {
      const { target, task, rest, end, master } = halfCome();
      rest();
      if (complete) end();
      const request = { nexus: task.nexus, lunHigh: 0, lunLow: 0, task: undefined };
      const reset = new Promise<void>((resolve) => {
        target.manage({ ...request, function: TASK_MANAGEMENT.ABORT_TASK_SET }, () => resolve());
      });
      t.notOk(task.ended);
      master.release();
      await reset;
      t.same([task.status, task.ends], [STATUS.TASK_ABORTED, 1]);
    }
  },
);

void t.test('A WRITE that is aborted during its flush ends once, when that is over', (t) => {
  const b = bench();
  b.master.holdFlush = true;
  const nexus = b.login();
  const task = b.start(nexus, 0, cdb10(WRITE_10, 0, 8, FUA), Buffer.alloc(4096));
  b.target.detach(nexus, 'connection-lost');
  t.notOk(task.ended);
  b.master.release();
  t.same([task.status, task.ends], [STATUS.TASK_ABORTED, 1]);
  t.end();
});
