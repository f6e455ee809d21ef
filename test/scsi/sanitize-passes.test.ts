/** SANITIZE on its way: passes, patterns, pace and durability, and what is said of it (SBC-5 §4.11, §5.31). */
import t from 'tap';
import { MEDIUM } from '../../src/scsi/medium.js';
import {
  BLOCK_ERASE,
  IMMED,
  OVERWRITE,
  PATTERN,
  READ,
  RECORD,
  REQUEST_SENSE,
  SANITIZE_COMMAND_FAILED,
  TEST_UNIT_READY,
  failed,
  restarted,
  sanitize,
  served,
} from './sanitizing.js';
import { fieldOf, MemoryMedium } from './support.js';

/** Which byte each pass writes, and how many bytes the passes move in all. */
function passesOf(master: MemoryMedium): { bytes: number[]; moved: () => number } {
  const bytes: number[] = [];
  let moved = 0;
  const write = master.write.bind(master);
  master.write = (position, buffer, offset, length) => {
    if (position === 0) bytes.push(buffer[offset]);
    moved += length;
    return write(position, buffer, offset, length);
  };
  return { bytes, moved: () => moved };
}

void t.test(
  'OVERWRITE passes: as many as COUNT, every other one inverted, the last one as given',
  async (t) => {
    for (const [first, passes] of [
      [0x01, [0x3c]],
      [0x81, [0x3c]],
      [0x82, [0xc3, 0x3c]],
      [0x83, [0x3c, 0xc3, 0x3c]],
      [0x02, [0x3c, 0x3c]],
      [0x5f, Array<number>(31).fill(0x3c)],
    ] as const) {
      const { run, master } = served({ master: new MemoryMedium(16_384) });
      const seen = passesOf(master);
      t.equal((await run(sanitize(OVERWRITE, 5), Buffer.from([first, 0, 0, 1, PATTERN]))).status, 0);
      t.same(seen.bytes, passes);
      t.equal(seen.moved(), passes.length * 16_384);
      t.equal(master.flushes, 1, 'durable before it is GOOD');
    }
  },
);

void t.test('OVERWRITE: a pattern of 1 to 512 bytes, repeated in each block (SBC-5 §5.31.3)', async (t) => {
  const send = async (list: Buffer, bytes = list.length): Promise<unknown> => {
    const { run, master } = served({ master: new MemoryMedium(16_384) });
    const outcome = await run(sanitize(OVERWRITE, bytes), list);
    return outcome.code === '' ? master.bytes : `${outcome.code} ${String(fieldOf(outcome))}`;
  };
  const three = Buffer.concat([Buffer.from([1, 0, 0, 3]), Buffer.from('abc')]);
  t.same(await send(three), Buffer.concat(Array.from({ length: 32 }, () => Buffer.alloc(512, 'abc'))));
  const whole = Buffer.alloc(512, 'x').fill('y', 511);
  const full = Buffer.concat([Buffer.from([1, 0, 2, 0]), whole]);
  t.same(await send(full), Buffer.concat(Array.from({ length: 32 }, () => whole)));
  t.same(
    await send(Buffer.concat([three, Buffer.alloc(9)])),
    await send(three),
    'what is behind it is nothing',
  );
  t.equal(await send(Buffer.concat([full, Buffer.alloc(1)])), '05/24/00 7', '517 bytes');
  t.equal(await send(Buffer.from([1, 0, 0, 0])), '05/24/00 7', 'without a pattern');
  t.equal(await send(three.subarray(0, 6)), '05/26/00 2', 'a pattern cut off');
  t.equal(await send(three, 12), '05/1a/00 undefined', 'a list cut off');
  t.equal(await send(Buffer.from([0xe0, 0, 0, 1, 7])), '05/26/00 0', 'no passes');
  t.equal(await send(Buffer.from([1, 0, 0, 0, 7])), '05/26/00 2');
  t.equal(await send(Buffer.concat([Buffer.from([1, 0, 2, 1]), Buffer.alloc(512)])), '05/26/00 2', '513');
});

void t.test('SANITIZE is GOOD when it is durable; with IMMED when it is recorded', async (t) => {
  for (const flags of [0, IMMED]) {
    const { start, nexus, list, master, state, run } = served();
    master.holdFlush = true;
    const task = start(nexus, 0, sanitize(flags | OVERWRITE, list.length), list);
    t.notOk(task.ended);
    const record = JSON.parse(state.records.get(RECORD)?.toString() ?? '') as unknown;
    t.same(record, { pattern: '3c'.repeat(512), count: 1, invert: false, completion: 'restricted' });
    while (master.flushes === 0) await new Promise(setImmediate);
    t.equal(task.ended, flags === IMMED);
    t.equal((await run(TEST_UNIT_READY)).code, '02/04/1b', 'not over yet');
    master.release();
    t.equal((await task.whenEnded()).status, 0);
    t.equal(task.ends, 1);
    t.equal((await run(TEST_UNIT_READY)).code, '');
    await new Promise(setImmediate);
    t.notOk(state.records.has(RECORD));
  }
  const { master, overwrite, run } = served();
  master.flush = (done) => setImmediate(() => done(MEDIUM.FAILED));
  t.equal((await overwrite(0)).code, SANITIZE_COMMAND_FAILED, 'what is not durable has failed');
  t.equal((await run(READ)).code, SANITIZE_COMMAND_FAILED);
});

/** A clock that goes on only while somebody waits; `onWait` hears for how long. */
function ownClock(t: { teardown: (back: () => void) => void }, onWait: (waitMs: number) => void): void {
  const [now, later] = [performance.now.bind(performance), globalThis.setTimeout];
  t.teardown(() => {
    performance.now = now;
    globalThis.setTimeout = later;
  });
  let nowMs = 5000;
  performance.now = () => nowMs;
  globalThis.setTimeout = ((step: () => void, waitMs: number) => {
    nowMs += waitMs;
    onWait(waitMs);
    setImmediate(step);
    return { unref: () => undefined };
  }) as unknown as typeof setTimeout;
}

void t.test('OVERWRITE keeps to its pace over all passes, BLOCK ERASE needs none', async (t) => {
  const { run, start, nexus, sense } = served({
    master: new MemoryMedium(1 << 20),
    sanitizeBytesPerSecond: 8 * 1024 * 1024,
  });
  const waits: number[] = [];
  const progress: number[] = [];
  ownClock(t, (waitMs) => {
    waits.push(waitMs);
    const { data } = start(nexus, 0, REQUEST_SENSE).outcome();
    progress.push(data[13] === 0x1b ? data.readUInt16BE(16) : -1);
  });
  const list = Buffer.from([0x82, 0, 0, 1, PATTERN]);
  t.equal((await run(sanitize(OVERWRITE, list.length), list)).status, 0);
  // Steps of 256 KiB, twice over 1 MiB.
  t.same(waits, Array<number>(8).fill(31.25));
  t.same(
    progress,
    [1, 2, 3, 4, 5, 6, 7, 8].map((step) => Math.min(65_535, step * 8192)),
    'PROGRESS INDICATION, in 65,536ths of both passes',
  );
  t.equal(await sense(), '00/00/00');
  t.equal((await run(sanitize(BLOCK_ERASE))).status, 0);
  t.equal(waits.length, 8);
});

void t.test('OVERWRITE goes at 64 MiB/s if nobody says otherwise', async (t) => {
  const { overwrite } = served({ master: new MemoryMedium(1 << 20), paced: true });
  const waits: number[] = [];
  ownClock(t, (waitMs) => waits.push(waitMs));
  t.equal((await overwrite(0)).status, 0);
  t.same(waits, Array<number>(4).fill(1000 / 256));
});

void t.test('a pass that fails is the last one, whatever could be written after it', async (t) => {
  const { run, master, overwrite } = served();
  const write = master.write.bind(master);
  let writes = 0;
  master.write = (...args) => (++writes === 3 ? MEDIUM.FAILED : write(...args));
  t.equal((await overwrite(0)).code, SANITIZE_COMMAND_FAILED);
  t.same([writes, master.flushes], [3, 0]);
  t.equal((await run(READ)).code, SANITIZE_COMMAND_FAILED);
});

void t.test('what is said of a SANITIZE names the unit and its record', async (t) => {
  const made = await failed(0);
  t.match(made.warnings, [{ fields: { unit: 'master' }, message: 'SANITIZE failed' }]);
  const { warnings, state } = restarted(made);
  t.match(warnings, [{ fields: { unit: 'master', record: RECORD }, message: /until another one succeeds/ }]);
  state.records.set(RECORD, Buffer.from('{"count":1,"invert":false}'));
  const resumed = restarted(made);
  t.match(resumed.warnings, [
    { fields: { unit: 'master' }, message: 'SANITIZE was interrupted and starts again' },
  ]);
  while ((await resumed.run(READ)).code === '02/04/1b') await new Promise(setImmediate);
  await new Promise(setImmediate);
  state.fails = true;
  await resumed.overwrite(0);
  t.match(resumed.warnings[1], { fields: { unit: 'master', err: Error }, message: /not begun/ });
  t.equal(resumed.warnings.length, 2);
});
