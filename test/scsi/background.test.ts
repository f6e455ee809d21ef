/** A backup gives way: reads of the slave while masters are in use, piece by piece. */
import t from 'tap';
import { Background, LARGE_BYTES } from '../../src/scsi/background.js';
import { MEDIUM } from '../../src/scsi/medium.js';
import { TASK_MANAGEMENT } from '../../src/scsi/port.js';
import { bench, cdb10, MemoryMedium, TestTask } from './support.js';
import type { Outcome } from './support.js';

const READ_10 = 0x28;
/** Blocks of a read of 256 KiB, which takes four turns. */
const LARGE = 512;
const PIECE = LARGE_BYTES;

/** A loop whose turns the test makes, and whose clock it sets. */
class Turns {
  nowMs = 1000;
  readonly #callbacks: (() => void)[] = [];
  readonly background = new Background({
    now: () => this.nowMs,
    nextTurn: (callback) => void this.#callbacks.push(callback),
  });

  /** One turn; false if nobody waits for one. */
  turn(): boolean {
    const callback = this.#callbacks.shift();
    callback?.();
    return callback !== undefined;
  }

  /** As many turns as a backup waits for a piece while a master is in use. */
  piece(): void {
    for (let turn = 0; turn < 4; turn++) this.turn();
  }
}

function pattern(bytes: number): Buffer {
  return Buffer.from(Uint32Array.from({ length: bytes / 4 }, (_, index) => index * 2_654_435_761).buffer);
}

function served() {
  const turns = new Turns();
  const slave = new MemoryMedium(8 * 1024 * 1024);
  const content = pattern(slave.capacityBytes);
  content.copy(slave.bytes);
  const made = bench({ slave, background: turns.background });
  const nexus = made.login();
  const use = (): void => {
    turns.nowMs = Date.now();
    turns.background.masterUsed(turns.nowMs);
  };
  const start = (lun: number, cdb: number[]): TestTask =>
    made.start(nexus, lun, cdb, undefined, (task) => {
      task.chunkBytes = 262_144;
    });
  const run = (lun: number, cdb: number[]): Promise<Outcome> => start(lun, cdb).whenEnded();
  return { target: made.target, slave, nexus, turns, content, use, start, run };
}

/** A command of so many bytes that takes all that it is given, and notes it. */
function reading(name: string, bytes: number, seen: string[]) {
  let left = bytes;
  return (bound: number): number => {
    const taken = Math.min(left, bound);
    left -= taken;
    seen.push(`${name} ${taken / 1024}`);
    return left;
  };
}

void t.test(
  'large reads of one turn are bounded, users before backups, each in the order of the calls',
  (t) => {
    const turns = new Turns();
    const { background } = turns;
    const seen: string[] = [];
    t.ok(background.admits(4 * LARGE_BYTES, false));
    t.ok(background.admits(12 * LARGE_BYTES, true), 'nobody uses a master');
    t.notOk(background.admits(LARGE_BYTES, false), '1 MiB has been read in this turn');
    t.ok(background.admits(4096, false), 'what is small is not counted');
    background.run(4 * LARGE_BYTES, true, reading('backup', 4 * LARGE_BYTES, seen));
    background.run(8 * LARGE_BYTES, false, reading('a', 8 * LARGE_BYTES, seen));
    background.run(12 * LARGE_BYTES, false, reading('b', 12 * LARGE_BYTES, seen));
    t.ok(turns.turn());
    t.strictSame(seen.splice(0), ['a 512', 'b 512']);
    t.notOk(background.admits(4096, true), 'what comes later stays behind what waits');
    t.notOk(background.admits(LARGE_BYTES, false));
    t.ok(turns.turn());
    t.strictSame(seen.splice(0), ['b 256', 'backup 256']);
    t.ok(background.admits(4 * LARGE_BYTES, false), 'what was moved in the turn counts, 512 KiB of 1,024');
    t.ok(turns.turn());
    t.notOk(turns.turn(), 'no turn is asked for without need');
    t.end();
  },
);

void t.test('while a master is in use, a backup moves 64 KiB in every fourth turn', (t) => {
  const turns = new Turns();
  const { background } = turns;
  const seen: string[] = [];
  background.masterUsed(turns.nowMs);
  t.notOk(background.admits(512, true));
  background.run(3 * LARGE_BYTES, true, reading('backup', 3 * LARGE_BYTES, seen));
  background.run(LARGE_BYTES, false, reading('user', LARGE_BYTES, seen));
  turns.turn();
  t.strictSame(seen.splice(0), ['user 64']);
  turns.turn();
  turns.turn();
  t.strictSame(seen.splice(0), []);
  turns.turn();
  t.strictSame(seen.splice(0), ['backup 64']);
  turns.nowMs += 20;
  turns.turn();
  t.strictSame(seen.splice(0), ['backup 128'], '20 ms after its last command the master is no longer in use');
  t.ok(background.admits(512, true));
  background.masterUsed(turns.nowMs);
  turns.nowMs -= 3_600_000;
  t.ok(background.admits(512, true), 'a clock set back makes nobody wait for an hour');
  t.notOk(turns.turn());
  t.end();
});

void t.test(
  'what is below 64 KiB is not counted, and a master is in use for 20 ms to the millisecond',
  (t) => {
    const turns = new Turns();
    const { background } = turns;
    for (let n = 0; n < 100; n++) background.admits(LARGE_BYTES - 1, false);
    t.notOk(turns.turn(), 'nobody waits for a turn');
    t.ok(background.admits(16 * LARGE_BYTES, false));
    background.run(LARGE_BYTES, false, reading('user', LARGE_BYTES, []));
    t.ok(background.admits(LARGE_BYTES - 1, false), 'though others wait');
    t.ok(background.admits(LARGE_BYTES - 1, true));
    t.notOk(background.admits(LARGE_BYTES, false));
    t.ok(turns.turn());
    t.notOk(turns.turn(), 'one turn for all who asked');
    const { nowMs } = turns;
    background.masterUsed(nowMs);
    for (const [sinceMs, admitted] of [
      [-1, true],
      [0, false],
      [19, false],
      [20, true],
    ] as const) {
      turns.nowMs = nowMs + sinceMs;
      t.equal(background.admits(512, true), admitted, `${sinceMs} ms`);
    }
    t.end();
  },
);

void t.test('turns without a backup do not count for the next one, which waits four of its own', (t) => {
  const turns = new Turns();
  const { background } = turns;
  const seen: string[] = [];
  background.masterUsed(turns.nowMs);
  for (let n = 0; n < 3; n++) {
    background.run(LARGE_BYTES, false, reading('user', LARGE_BYTES, seen));
    turns.turn();
  }
  background.run(2 * LARGE_BYTES, true, reading('backup', 2 * LARGE_BYTES, seen));
  t.notOk(background.admits(512, true), 'nor does what comes behind it pass it');
  seen.length = 0;
  for (let n = 0; n < 3; n++) turns.turn();
  t.strictSame(seen, []);
  turns.turn();
  t.strictSame(seen, ['backup 64']);
  for (let n = 0; n < 3; n++) turns.turn();
  t.strictSame(seen, ['backup 64']);
  turns.turn();
  t.strictSame(seen, ['backup 64', 'backup 64']);
  t.notOk(turns.turn(), 'all is done');
  t.ok(background.admits(16 * LARGE_BYTES, false), 'a piece of a turn before does not count');
  t.end();
});

void t.test('without surroundings of its own it uses the clock and the event loop', async (t) => {
  const background = new Background();
  background.masterUsed(Date.now());
  t.notOk(background.admits(512, true));
  background.masterUsed(Date.now() - 60_000);
  t.ok(background.admits(512, true));
  const seen: string[] = [];
  background.run(LARGE_BYTES, true, reading('backup', LARGE_BYTES, seen));
  t.strictSame(seen, []);
  await new Promise(setImmediate);
  t.strictSame(seen, ['backup 64']);
});

void t.test('while nobody uses a master, the slave is read at once', async (t) => {
  const { run, content } = served();
  const read = await run(1, cdb10(READ_10, 0, LARGE));
  t.ok(read.data.equals(content.subarray(0, LARGE * 512)));
});

void t.test('beside users a read of the slave moves a piece in a turn, the master none later', async (t) => {
  const { run, start, turns, content, use } = served();
  await run(0, cdb10(READ_10, 0, 1));
  use();
  const first = start(1, cdb10(READ_10, 8, LARGE));
  const second = start(1, cdb10(READ_10, 9, 1));
  t.equal(first.dataIn.length, 0);
  for (let piece = 1; piece < 4; piece++) {
    use();
    turns.piece();
    t.equal(Buffer.concat(first.dataIn).length, piece * PIECE);
    t.notOk(first.ended);
  }
  t.equal((await run(0, cdb10(READ_10, 0, LARGE))).status, 0, 'a large read of the master is done at once');
  use();
  turns.piece();
  t.strictSame([first.status, first.ends], [0, 1]);
  t.ok(first.outcome().data.equals(content.subarray(8 * 512, (8 + LARGE) * 512)));
  t.notOk(second.ended);
  turns.piece();
  t.ok(second.outcome().data.equals(content.subarray(9 * 512, 10 * 512)));
});

void t.test('a piece is 64 KiB also where the transport takes less at once', (t) => {
  const { target, nexus, turns, use, slave, content } = served();
  use();
  const task = new TestTask(nexus, cdb10(READ_10, 0, LARGE));
  task.lunHigh = 1 << 16;
  task.expectedDataIn = LARGE * 512;
  task.chunkBytes = 40_960;
  target.submit(task);
  turns.piece();
  t.strictSame(
    task.dataIn.map(({ length }) => length),
    [40_960, PIECE - 40_960],
  );
  slave.slow = true;
  while (!task.ended) {
    use();
    turns.piece();
  }
  t.ok(
    task.outcome().data.equals(content.subarray(0, LARGE * 512)),
    'as it began, though the device is slow by now',
  );
  t.end();
});

void t.test('between two pieces: another image is never shown, nor an ended medium', async (t) => {
  const { start, turns, slave, use } = served();
  for (const change of [
    (): void => {
      slave.generation++;
    },
    (): void => {
      slave.present = false;
    },
  ]) {
    use();
    const task = start(1, cdb10(READ_10, 0, LARGE));
    turns.piece();
    change();
    turns.piece();
    const { code, ends, data } = await task.whenEnded();
    t.strictSame([code, ends, data.length], ['02/3a/00', 1, PIECE]);
  }
});

void t.test('between two pieces: an abort ends the task once, and nothing follows', async (t) => {
  const { start, target, nexus, turns, use } = served();
  use();
  const task = start(1, cdb10(READ_10, 0, LARGE));
  turns.piece();
  const reset = new Promise<void>((resolve) => {
    const request = { nexus, lunHigh: 1 << 16, lunLow: 0, task: undefined };
    target.manage({ ...request, function: TASK_MANAGEMENT.LOGICAL_UNIT_RESET }, () => resolve());
  });
  t.notOk(task.ended, 'the reset waits for the piece that is queued');
  turns.piece();
  await reset;
  t.strictSame([task.ends, Buffer.concat(task.dataIn).length, task.pending], [1, PIECE, 0]);
  t.notOk(turns.turn());
});

void t.test('a piece that cannot be read fails the command with its place', async (t) => {
  const { start, turns, slave, use } = served();
  use();
  const task = start(1, cdb10(READ_10, 0, LARGE));
  turns.piece();
  slave.fail = MEDIUM.READ_ERROR;
  turns.piece();
  const { code, ends } = await task.whenEnded();
  t.strictSame([code, ends], ['03/11/00', 1]);
});

void t.test('a slow device is read through the thread pool, in its turn', async (t) => {
  const { start, turns, slave, content, use } = served();
  slave.slow = true;
  use();
  const task = start(1, cdb10(READ_10, 0, LARGE));
  t.notOk(task.ended);
  turns.piece();
  t.ok((await task.whenEnded()).data.equals(content.subarray(0, LARGE * 512)));
});
