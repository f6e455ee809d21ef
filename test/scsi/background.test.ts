/** A backup gives way: reads of the slave while masters are in use, piece by piece. */
import t from 'tap';
import { Background } from '../../src/scsi/background.js';
import { MEDIUM } from '../../src/scsi/medium.js';
import { TASK_MANAGEMENT } from '../../src/scsi/port.js';
import { bench, cdb10, MemoryMedium } from './support.js';
import type { Outcome, TestTask } from './support.js';

const READ_10 = 0x28;
/** Blocks of a read of 256 KiB, which takes four turns. */
const LARGE = 512;
const PIECE = 65_536;

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

void t.test(
  'steps run in the order of their calls, one in a turn, and only while a master is in use',
  (t) => {
    const turns = new Turns();
    const { background } = turns;
    t.notOk(background.givesWay, 'no master was ever used');
    background.masterUsed(turns.nowMs);
    t.ok(background.givesWay);
    const order: string[] = [];
    const steps = (name: string, count: number) => (): boolean => {
      order.push(name);
      return --count === 0;
    };
    background.run(steps('a', 2));
    background.run(steps('b', 1));
    turns.nowMs += 20;
    t.ok(background.givesWay, 'what comes later stays behind what waits');
    for (const seen of [['a'], ['a', 'a'], ['a', 'a', 'b']]) {
      t.ok(turns.turn());
      t.strictSame(order, seen);
    }
    t.notOk(turns.turn(), 'no turn is asked for without need');
    t.notOk(background.givesWay, 'and 20 ms after its last command the master is no longer in use');
    t.end();
  },
);

void t.test('while nobody uses a master, the slave is read at once', async (t) => {
  const { run, content } = served();
  const read = await run(1, cdb10(READ_10, 0, LARGE));
  t.ok(read.data.equals(content.subarray(0, LARGE * 512)));
});

void t.test('beside users a read of the slave moves a piece in a turn, the master none later', async (t) => {
  const { run, start, turns, content } = served();
  await run(0, cdb10(READ_10, 0, 1));
  turns.nowMs = Date.now();
  const first = start(1, cdb10(READ_10, 8, LARGE));
  const second = start(1, cdb10(READ_10, 9, 1));
  t.equal(first.dataIn.length, 0);
  for (let piece = 1; piece < 4; piece++) {
    turns.turn();
    t.equal(Buffer.concat(first.dataIn).length, piece * PIECE);
    t.notOk(first.ended);
  }
  t.equal((await run(0, cdb10(READ_10, 0, LARGE))).status, 0, 'a large read of the master is at once');
  turns.turn();
  t.strictSame([first.status, first.ends], [0, 1]);
  t.ok(first.outcome().data.equals(content.subarray(8 * 512, (8 + LARGE) * 512)));
  t.notOk(second.ended);
  turns.turn();
  t.ok(second.outcome().data.equals(content.subarray(9 * 512, 10 * 512)));
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
    turns.turn();
    change();
    turns.turn();
    const { code, ends, data } = await task.whenEnded();
    t.strictSame([code, ends, data.length], ['02/3a/00', 1, PIECE]);
  }
});

void t.test('between two pieces: an abort ends the task once, and nothing follows', async (t) => {
  const { start, target, nexus, turns, use } = served();
  use();
  const task = start(1, cdb10(READ_10, 0, LARGE));
  turns.turn();
  const reset = new Promise<void>((resolve) => {
    const request = { nexus, lunHigh: 1 << 16, lunLow: 0, task: undefined };
    target.manage({ ...request, function: TASK_MANAGEMENT.LOGICAL_UNIT_RESET }, () => resolve());
  });
  t.notOk(task.ended, 'the reset waits for the piece that is queued');
  turns.turn();
  await reset;
  t.strictSame([task.ends, Buffer.concat(task.dataIn).length, task.pending], [1, PIECE, 0]);
  t.notOk(turns.turn());
});

void t.test('a piece that cannot be read fails the command with its place', async (t) => {
  const { start, turns, slave, use } = served();
  use();
  const task = start(1, cdb10(READ_10, 0, LARGE));
  turns.turn();
  slave.fail = MEDIUM.READ_ERROR;
  turns.turn();
  const { code, ends } = await task.whenEnded();
  t.strictSame([code, ends], ['03/11/00', 1]);
});

void t.test('a slow device is read through the thread pool, in its turn', async (t) => {
  const { start, turns, slave, content, use } = served();
  slave.slow = true;
  use();
  const task = start(1, cdb10(READ_10, 0, LARGE));
  t.notOk(task.ended);
  turns.turn();
  t.ok((await task.whenEnded()).data.equals(content.subarray(0, LARGE * 512)));
});
